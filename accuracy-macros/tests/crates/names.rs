//! Names that are not there, reported where they were written.

use accuracy_core::prelude::*;

#[accuracy_test]
fn names(
    cx: &mut Case,
    #[variants(E4M3FN, E4M3)] dtype: DType,
    #[paths(primary = quantise)] quant: fn(i32),
    #[values(LARGE)] tile: i32,
) -> Result<Tensor> {
    unimplemented!()
}
