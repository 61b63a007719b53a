//! Element types of dumped tensors, and their values as f32 and f64.

use std::fmt;
use std::sync::OnceLock;

use half::{bf16, f16};

use crate::dtype::DType;
use crate::weights::StDtype;

/// The type of a dumped tensor's elements: what torch, numpy and safetensors can store of real numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    F64,
    F32,
    F16,
    BF16,
    E4M3Fn,
    E4M3Fnuz,
    E5M2,
    E5M2Fnuz,
    E8M0,
    /// Two values a byte, the first one in the low nibble.
    E2M1,
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
}

/// f32 and f64, as targets of decoding.
pub trait Real: Copy + Default + Into<f64> {
    /// Rounded where this type holds less.
    fn from_f64(x: f64) -> Self;
    fn from_f32(x: f32) -> Self;
}

impl Real for f32 {
    fn from_f64(x: f64) -> f32 {
        x as f32
    }
    fn from_f32(x: f32) -> f32 {
        x
    }
}

impl Real for f64 {
    fn from_f64(x: f64) -> f64 {
        x
    }
    fn from_f32(x: f32) -> f64 {
        x.into()
    }
}

impl Element {
    pub fn name(self) -> &'static str {
        match self {
            Element::F64 => "f64",
            Element::F32 => "f32",
            Element::F16 => "f16",
            Element::BF16 => "bf16",
            Element::E4M3Fn => "e4m3fn",
            Element::E4M3Fnuz => "e4m3fnuz",
            Element::E5M2 => "e5m2",
            Element::E5M2Fnuz => "e5m2fnuz",
            Element::E8M0 => "e8m0",
            Element::E2M1 => "e2m1",
            Element::Bool => "bool",
            Element::U8 => "uint8",
            Element::I8 => "int8",
            Element::U16 => "uint16",
            Element::I16 => "int16",
            Element::U32 => "uint32",
            Element::I32 => "int32",
            Element::U64 => "uint64",
            Element::I64 => "int64",
        }
    }

    pub fn bits(self) -> usize {
        match self {
            Element::E2M1 => 4,
            Element::F64 | Element::U64 | Element::I64 => 64,
            Element::F32 | Element::U32 | Element::I32 => 32,
            Element::F16 | Element::BF16 | Element::U16 | Element::I16 => 16,
            _ => 8,
        }
    }

    /// Whether its values are whole numbers; token ids and positions are, activations are not.
    pub fn is_integer(self) -> bool {
        use Element::{Bool, I8, I16, I32, I64, U8, U16, U32, U64};
        matches!(self, Bool | U8 | I8 | U16 | I16 | U32 | I32 | U64 | I64)
    }

    /// The number format of the same values, where [`DType`] has it.
    pub fn dtype(self) -> Option<DType> {
        Some(match self {
            Element::F32 => DType::F32,
            Element::F16 => DType::F16,
            Element::BF16 => DType::BF16,
            Element::E4M3Fn => DType::E4M3Fn,
            Element::E4M3Fnuz => DType::E4M3Fnuz,
            Element::E5M2 => DType::E5M2,
            Element::E5M2Fnuz => DType::E5M2Fnuz,
            Element::E8M0 => DType::E8M0,
            Element::E2M1 => DType::E2M1,
            Element::I8 => DType::I8,
            Element::I32 => DType::I32,
            _ => return None,
        })
    }

    /// By the name of a torch dtype, without `torch.`.
    pub(super) fn of_torch(name: &str) -> Option<Element> {
        Some(match name {
            "float64" | "double" => Element::F64,
            "float32" | "float" => Element::F32,
            "float16" | "half" => Element::F16,
            "bfloat16" => Element::BF16,
            "float8_e4m3fn" => Element::E4M3Fn,
            "float8_e4m3fnuz" => Element::E4M3Fnuz,
            "float8_e5m2" => Element::E5M2,
            "float8_e5m2fnuz" => Element::E5M2Fnuz,
            "float8_e8m0fnu" => Element::E8M0,
            "float4_e2m1fn_x2" => Element::E2M1,
            "bool" => Element::Bool,
            "uint8" => Element::U8,
            "int8" => Element::I8,
            "uint16" => Element::U16,
            "int16" | "short" => Element::I16,
            "uint32" => Element::U32,
            "int32" | "int" => Element::I32,
            "uint64" => Element::U64,
            "int64" | "long" => Element::I64,
            _ => return None,
        })
    }

    pub(super) fn of_safetensors(dtype: StDtype) -> Option<Element> {
        Some(match dtype {
            StDtype::F64 => Element::F64,
            StDtype::F32 => Element::F32,
            StDtype::F16 => Element::F16,
            StDtype::BF16 => Element::BF16,
            StDtype::F8_E4M3 => Element::E4M3Fn,
            StDtype::F8_E4M3FNUZ => Element::E4M3Fnuz,
            StDtype::F8_E5M2 => Element::E5M2,
            StDtype::F8_E5M2FNUZ => Element::E5M2Fnuz,
            StDtype::F8_E8M0 => Element::E8M0,
            StDtype::F4 => Element::E2M1,
            StDtype::BOOL => Element::Bool,
            StDtype::U8 => Element::U8,
            StDtype::I8 => Element::I8,
            StDtype::U16 => Element::U16,
            StDtype::I16 => Element::I16,
            StDtype::U32 => Element::U32,
            StDtype::I32 => Element::I32,
            StDtype::U64 => Element::U64,
            StDtype::I64 => Element::I64,
            _ => return None,
        })
    }

    /// Decodes `out.len()` elements, `step` elements apart, the first one at the start of `bytes`. Not for
    /// [`Element::E2M1`], whose elements have no address.
    pub(super) fn decode<T: Real>(self, bytes: &[u8], step: usize, out: &mut [T]) {
        match self {
            Element::F64 => each(bytes, step, out, |b| T::from_f64(f64::from_le_bytes(b))),
            Element::F32 => each(bytes, step, out, |b| T::from_f32(f32::from_le_bytes(b))),
            Element::F16 => each(bytes, step, out, |b| T::from_f32(f16::from_le_bytes(b).to_f32())),
            Element::BF16 => each(bytes, step, out, |b| T::from_f32(bf16::from_le_bytes(b).to_f32())),
            Element::Bool => each(bytes, step, out, |[b]| T::from_f32(f32::from(u8::from(b != 0)))),
            Element::U8 => each(bytes, step, out, |[b]| T::from_f32(b.into())),
            Element::I8 => each(bytes, step, out, |b| T::from_f32(i8::from_le_bytes(b).into())),
            Element::U16 => each(bytes, step, out, |b| T::from_f32(u16::from_le_bytes(b).into())),
            Element::I16 => each(bytes, step, out, |b| T::from_f32(i16::from_le_bytes(b).into())),
            Element::U32 => each(bytes, step, out, |b| T::from_f64(u32::from_le_bytes(b).into())),
            Element::I32 => each(bytes, step, out, |b| T::from_f64(i32::from_le_bytes(b).into())),
            Element::U64 => each(bytes, step, out, |b| T::from_f64(u64::from_le_bytes(b) as f64)),
            Element::I64 => each(bytes, step, out, |b| T::from_f64(i64::from_le_bytes(b) as f64)),
            Element::E4M3Fn => by_table(DType::E4M3Fn, 0, bytes, step, out),
            Element::E4M3Fnuz => by_table(DType::E4M3Fnuz, 1, bytes, step, out),
            Element::E5M2 => by_table(DType::E5M2, 2, bytes, step, out),
            Element::E5M2Fnuz => by_table(DType::E5M2Fnuz, 3, bytes, step, out),
            Element::E8M0 => by_table(DType::E8M0, 4, bytes, step, out),
            Element::E2M1 => unreachable!("half bytes are decoded by nibble"),
        }
    }
}

/// Every code of 8 bits is exact in f32.
fn by_table<T: Real>(dtype: DType, slot: usize, bytes: &[u8], step: usize, out: &mut [T]) {
    static TABLES: [OnceLock<[f32; 256]>; 5] = [const { OnceLock::new() }; 5];
    let table = TABLES[slot].get_or_init(|| std::array::from_fn(|code| dtype.decode(code as u32) as f32));
    each(bytes, step, out, |[b]| T::from_f32(table[usize::from(b)]));
}

fn each<const N: usize, T: Copy>(bytes: &[u8], step: usize, out: &mut [T], f: impl Fn([u8; N]) -> T) {
    if step == 1 {
        for (value, code) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
            *value = f(*code);
        }
    } else {
        for (i, value) in out.iter_mut().enumerate() {
            let at = i * step * N;
            *value = f(bytes[at..at + N].try_into().expect("N bytes"));
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
