//! Tests that must not pass, one for each way in which a case could seem to.

#[cfg(test)]
mod data;
#[cfg(test)]
mod kernels;
#[cfg(test)]
mod runner;
