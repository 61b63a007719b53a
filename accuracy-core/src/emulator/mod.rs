//! Executes the machine code of AMD's CDNA3 (gfx942) and CDNA4 (gfx950) on this machine's processor.
//!
//! The floors, each of which knows only those before it:
//!
//! | floor | what lives there |
//! | --- | --- |
//! | [`isa`] | the table of instructions; machine code to [`isa::Inst`]; an instruction as text |
//! | [`memory`] | the address space of a launch: which addresses a kernel may touch; LDS and scratch |
//! | [`wave`] | the registers of one wave, and what executing an instruction can lead to |
//! | [`exec`] | one function for each instruction |
//! | [`workgroup`] | waves that share LDS and barriers |
//! | [`loader`] | a code object in memory, with its kernels and variables |
//! | [`launch`] | a grid of workgroups, spread over threads |
//! | [`hip`] | the stand-in for AMD's runtime, which a kernel library's launchers call |

pub mod engine;
pub mod exec;
mod float_control;
pub mod hip;
pub mod isa;
pub mod launch;
pub mod lines;
pub mod loader;
pub mod memory;
pub mod wave;
pub mod workgroup;
