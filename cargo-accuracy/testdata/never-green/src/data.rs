//! A right kernel on checkpoints that are wrong.

use crate::kernels::gemm;
use accuracy_core::prelude::*;

/// One test on a checkpoint of `shards`.
macro_rules! checkpoint_test {
    ($($test:ident: $checkpoint:literal $pattern:literal;)*) => {$(
        #[accuracy_test(checkpoint = $checkpoint, weights = { w = $pattern }, tokens = [5])]
        fn $test(cx: &mut Case) -> Result<Tensor> {
            let (m, n, k) = cx.shape()?;
            let x = cx.activations()?;
            let w = cx.weight("w", BF16)?;
            let y = cx.output("y", BF16, [m, n], x.matmul(&w))?;
            // SAFETY: the launcher is given buffers of the shapes that it is told.
            unsafe { gemm(y.data(), x.data(), w.data(), m, n, k, cx.stream()) }?;
            Ok(y)
        }
    )*};
}

checkpoint_test! {
    shard_missing: "shards/absent" "up_proj";
    shard_truncated: "shards/truncated" "up_proj";
    header_of_absurd_length: "shards/absurd-header" "up_proj";
    tensor_missing: "shards/good" "down_proj";
    wrong_dtype: "shards/odd" "integers";
    wrong_shape: "shards/odd" "cube";
    scale_missing: "shards/scale-missing" "up_proj";
    scale_of_wrong_shape: "shards/scale-of-wrong-shape" "up_proj";
    constant_data: "shards/odd" "constant";
}

checkpoint_test! {
    every_layer: "shards/layers" "layers.{layer}.up_proj";
}
