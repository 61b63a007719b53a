//! Instructions that the table knows and the emulator cannot execute yet: each ends the wave with a fault.

use crate::emulator::isa::Inst;
use crate::emulator::wave::{Fault, Flow, Wave};

macro_rules! uncovered {
    ($($mnemonic:ident,)*) => {
        $(
            pub fn $mnemonic(wave: &mut Wave, inst: &Inst) -> Flow {
                wave.fail(Fault::Uncovered { mnemonic: stringify!($mnemonic), detail: format!("{:?}", inst.encoding) })
            }
        )*
    };
}

uncovered! {
    buffer_load_format_d16_hi_x,
    buffer_load_format_d16_x,
    buffer_load_format_d16_xy,
    buffer_load_format_d16_xyz,
    buffer_load_format_d16_xyzw,
    buffer_load_format_x,
    buffer_load_format_xy,
    buffer_load_format_xyz,
    buffer_load_format_xyzw,
    buffer_store_format_d16_hi_x,
    buffer_store_format_d16_x,
    buffer_store_format_d16_xy,
    buffer_store_format_d16_xyz,
    buffer_store_format_d16_xyzw,
    buffer_store_format_x,
    buffer_store_format_xy,
    buffer_store_format_xyz,
    buffer_store_format_xyzw,
    tbuffer_load_format_d16_x,
    tbuffer_load_format_d16_xy,
    tbuffer_load_format_d16_xyz,
    tbuffer_load_format_d16_xyzw,
    tbuffer_load_format_x,
    tbuffer_load_format_xy,
    tbuffer_load_format_xyz,
    tbuffer_load_format_xyzw,
    tbuffer_store_format_d16_x,
    tbuffer_store_format_d16_xy,
    tbuffer_store_format_d16_xyz,
    tbuffer_store_format_d16_xyzw,
    tbuffer_store_format_x,
    tbuffer_store_format_xy,
    tbuffer_store_format_xyz,
    tbuffer_store_format_xyzw,
}
