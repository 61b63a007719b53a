//! Kernels of three sets of chains with planted faults.
//!
//! Each set was written by somebody who had read the README, the guide and the documentation of the prelude, and not the
//! diagnosis. Each chain has a table in `faults/`: a row is a fault with its true causes, declared before anything ran, and
//! one sentence. The launchers take its number as their last argument; 0 is the right kernel, and so are numbers from 900
//! on.

mod a;
mod b;
mod c;

pub use {a::*, b::*, c::*};
