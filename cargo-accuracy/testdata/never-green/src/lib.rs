//! Tests that must not pass, one for each way in which a case could seem to.

#[cfg(test)]
mod runner;
