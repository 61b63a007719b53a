//! Layouts: the order of scales and of weight codes in memory, as index maps.
//!
//! What lives here: where the element of a logical grid sits in a buffer, and back. Offsets count elements of the
//! buffer, not bytes. Which elements share a scale is in [`crate::quant`].

mod data;
mod scale;

pub use data::DataLayout;
pub use scale::ScaleLayout;
