//! Loads and stores with a format (`buffer_load_format_*`, `tbuffer_*`).
