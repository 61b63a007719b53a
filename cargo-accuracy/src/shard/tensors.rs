//! The tensors of a quantised weight: names, dtypes, shapes and packing of each scheme's convention.

use super::scheme::Scheme;
use accuracy_core::dtype::{DType, NibbleOrder, Overflow};
use accuracy_core::quant::{GlobalScale, Quant, Quantized, quantize};
use accuracy_core::reference::Matrix;
use accuracy_core::weights::{self, NewTensor, StDtype};

/// `scheme` has scales, and the weight's shape is of its multiples. With the tensors come the values that they stand
/// for.
pub fn write(name: &str, weight: &Matrix, scheme: Scheme, quant: &Quant) -> (Vec<NewTensor>, Vec<f64>) {
    let factor = quant.global_factor(weight);
    let quantized = quantize(weight, quant, factor);
    let stored =
        Stored { name, scheme, quant, grid: quant.granularity.grid(weight.rows, weight.cols), quantized };
    let mut values = Quantized { global: 1.0, ..stored.quantized.clone() }.decode().data;
    let mut tensors = stored.tensors();
    if let Some(global) = quant.global_scale {
        let value = global.stored(factor);
        tensors.push(NewTensor {
            shape: vec![1],
            ..stored.tensor(global_name(global), StDtype::F32, f32s(&[value]))
        });
        let read = match global {
            GlobalScale::Multiply => weights::GlobalScale::Multiply(value),
            GlobalScale::Divide => weights::GlobalScale::Divide(value),
        };
        values.iter_mut().for_each(|v| *v = read.apply(*v));
    }
    (tensors, values)
}

fn global_name(global: GlobalScale) -> &'static str {
    match global {
        GlobalScale::Multiply => "weight_scale_2",
        GlobalScale::Divide => "weight_global_scale",
    }
}

fn f32s(values: &[f64]) -> Vec<u8> {
    DType::F32.encode_bytes(values, Overflow::Special)
}

/// A quantised weight `[N, K]` on its way to tensors.
struct Stored<'a> {
    name: &'a str,
    scheme: Scheme,
    quant: &'a Quant,
    /// Rows and columns of the scales.
    grid: (usize, usize),
    quantized: Quantized,
}

impl Stored<'_> {
    /// All but the tensor-wide scale.
    fn tensors(&self) -> Vec<NewTensor> {
        let (rows, cols) = (self.quantized.rows, self.quantized.cols);
        let (grid_rows, grid_cols) = self.grid;
        let bytes = |name, dtype, shape: [usize; 2]| {
            let codes = self.quant.dtype.pack(self.quantized.codes.iter().copied());
            NewTensor { shape: shape.into(), ..self.tensor(name, dtype, codes) }
        };
        match self.scheme {
            Scheme::F32 | Scheme::Bf16 => Vec::new(),
            Scheme::Fp8Block => vec![
                bytes("weight", StDtype::F8_E4M3, [rows, cols]),
                self.scales("weight_scale_inv", StDtype::F32, vec![grid_rows, grid_cols]),
            ],
            Scheme::Fp8Tensor => vec![
                bytes("weight", StDtype::F8_E4M3, [rows, cols]),
                self.scales("weight_scale", StDtype::F32, vec![1]),
            ],
            Scheme::Fp8Token => vec![
                bytes("weight", StDtype::F8_E4M3, [rows, cols]),
                self.scales("weight_scale", StDtype::F32, vec![rows, 1]),
            ],
            Scheme::Int8Channel => vec![
                bytes("weight", StDtype::I8, [rows, cols]),
                self.scales("weight_scale", StDtype::F32, vec![rows, 1]),
            ],
            Scheme::Mxfp8 => vec![
                bytes("weight", StDtype::F8_E4M3, [rows, cols]),
                self.scales("weight_scale", StDtype::U8, vec![rows, grid_cols]),
            ],
            Scheme::Mxfp4 => vec![
                bytes("weight", StDtype::U8, [rows, cols / 2]),
                self.scales("weight_scale", StDtype::U8, vec![rows, grid_cols]),
            ],
            Scheme::Nvfp4 => vec![
                bytes("weight_packed", StDtype::U8, [rows, cols / 2]),
                self.scales("weight_scale", StDtype::F8_E4M3, vec![rows, grid_cols]),
            ],
            Scheme::Nvfp4Modelopt => vec![
                bytes("weight", StDtype::U8, [rows, cols / 2]),
                self.scales("weight_scale", StDtype::F8_E4M3, vec![rows, grid_cols]),
            ],
            Scheme::Int4Awq => vec![
                self.words("qweight", [cols, rows / 8], NibbleOrder::Awq, |k, n, i| self.code(8 * n + i, k)),
                self.words("qzeros", [grid_cols, rows / 8], NibbleOrder::Awq, |g, n, i| {
                    self.zero(8 * n + i, g)
                }),
                self.transposed_scales(),
            ],
            Scheme::Int4Gptq => {
                let low = NibbleOrder::LowFirst;
                let group = (0..cols).flat_map(|c| ((c / (cols / grid_cols)) as i32).to_le_bytes()).collect();
                vec![
                    self.words("qweight", [cols / 8, rows], low, |k, n, i| self.code(n, 8 * k + i)),
                    // The format's first version stores them minus one.
                    self.words("qzeros", [grid_cols, rows / 8], low, |g, n, i| self.zero(8 * n + i, g) - 1),
                    self.transposed_scales(),
                    NewTensor { shape: vec![cols], ..self.tensor("g_idx", StDtype::I32, group) },
                ]
            }
            Scheme::Int4Pack => {
                let low = NibbleOrder::LowFirst;
                let shape = [rows, cols].into_iter().flat_map(|n| (n as i64).to_le_bytes()).collect();
                vec![
                    self.words("weight_packed", [rows, cols / 8], low, |n, k, i| self.code(n, 8 * k + i)),
                    self.scales("weight_scale", StDtype::BF16, vec![rows, grid_cols]),
                    self.words("weight_zero_point", [rows / 8, grid_cols], low, |n, g, i| {
                        self.zero(8 * n + i, g)
                    }),
                    NewTensor { shape: vec![2], ..self.tensor("weight_shape", StDtype::I64, shape) },
                ]
            }
        }
    }

    /// Without a shape.
    fn tensor(&self, ending: &str, dtype: StDtype, bytes: Vec<u8>) -> NewTensor {
        NewTensor { name: format!("{}.{ending}", self.name), dtype, shape: Vec::new(), bytes }
    }

    fn scales(&self, ending: &str, dtype: StDtype, shape: Vec<usize>) -> NewTensor {
        let bytes = self.quant.scale_dtype.encode_bytes(&self.quantized.scales, Overflow::Special);
        NewTensor { shape, ..self.tensor(ending, dtype, bytes) }
    }

    /// `[groups, N]` in float16.
    fn transposed_scales(&self) -> NewTensor {
        let (rows, groups) = self.grid;
        let scales: Vec<f64> =
            (0..groups * rows).map(|i| self.quantized.scales[i % rows * groups + i / rows]).collect();
        let bytes = DType::F16.encode_bytes(&scales, Overflow::Special);
        NewTensor { shape: vec![groups, rows], ..self.tensor("scales", StDtype::F16, bytes) }
    }

    /// Words of eight nibbles, element `i` of the word at `[a, b]` being `nibble(a, b, i)`.
    fn words(
        &self,
        ending: &str,
        shape: [usize; 2],
        order: NibbleOrder,
        nibble: impl Fn(usize, usize, usize) -> u32,
    ) -> NewTensor {
        let word = |a, b| order.pack(std::array::from_fn(|i| nibble(a, b, i)));
        let words = (0..shape[0]).flat_map(|a| (0..shape[1]).map(move |b| (a, b)));
        let bytes = words.flat_map(|(a, b)| word(a, b).to_le_bytes()).collect();
        NewTensor { shape: shape.into(), ..self.tensor(ending, StDtype::I32, bytes) }
    }

    fn code(&self, row: usize, column: usize) -> u32 {
        self.quantized.codes[row * self.quantized.cols + column]
    }

    fn zero(&self, row: usize, group: usize) -> u32 {
        self.quantized.zeros[row * self.grid.1 + group] as u32
    }
}
