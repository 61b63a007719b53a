//! Attention: paged decode, MLA decode and flash attention forward.
