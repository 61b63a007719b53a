//! From a module's name to its stored weight: which tensors belong together, and what they mean.
//!
//! Names and dtypes of the tensors decide the scheme. The configuration's claims must agree, and decide what the
//! tensors leave open. Only headers are read before [`Recipe::load`].

use std::borrow::Cow;

use super::config::Claim;
use super::stored::float_dtype;
use super::{Checkpoint, GlobalScale, RawTensor, Scheme, StDtype, StoredWeight, WeightsError};
use crate::dtype::DType;
use crate::quant::Granularity;

/// Endings of a weight's tensor; what precedes is the module.
const WEIGHTS: &[&str] = &[".weight", ".qweight", ".weight_packed", ".blocks", "_blocks"];

/// Endings of tensors that belong to a weight.
const COMPANIONS: &[&str] = &[
    "_scale",
    "_scale_inv",
    "_scale_2",
    "_scales",
    ".scales",
    "_global_scale",
    "_zero_point",
    ".qzeros",
    "g_idx",
    ".weight_shape",
];

pub(super) fn module_of(tensor: &str) -> Option<&str> {
    WEIGHTS.iter().find_map(|ending| tensor.strip_suffix(ending)).filter(|m| !m.is_empty())
}

pub(super) fn companion(tensor: &str) -> bool {
    COMPANIONS.iter().any(|ending| tensor.ends_with(ending))
}

/// What is needed to read a weight, from headers alone.
pub(super) struct Recipe<'a> {
    name: String,
    scheme: Scheme,
    rows: usize,
    cols: usize,
    dtype: DType,
    codes: RawTensor<'a>,
    granularity: Granularity,
    scale: Option<Scale<'a>>,
    zeros: Option<RawTensor<'a>>,
    tensors: Vec<String>,
}

struct Scale<'a> {
    tensor: RawTensor<'a>,
    dtype: DType,
    /// The configuration says ue8m0 and the tensor is of floats.
    powers_of_two: bool,
}

/// A weight's tensor and the configuration's claims on it.
struct Subject<'a> {
    checkpoint: &'a Checkpoint,
    address: String,
    module: String,
    weight: RawTensor<'a>,
}

pub(super) fn resolve<'a>(checkpoint: &'a Checkpoint, address: &str) -> Result<Recipe<'a>, WeightsError> {
    let module = if checkpoint.has(address) { module_of(address).unwrap_or(address) } else { address };
    let named = WEIGHTS.iter().map(|ending| format!("{module}{ending}")).chain([module.to_owned()]);
    let mut candidates: Vec<String> = named.filter(|name| checkpoint.has(name)).collect();
    let weight = match candidates.len() {
        0 => return Err(checkpoint.tensor_missing(&format!("{module}.weight"))),
        1 => candidates.remove(0),
        _ => return Err(WeightsError::TwoWeights { weight: module.to_owned(), candidates }),
    };
    let weight = checkpoint.raw(&weight)?;
    let subject = Subject { checkpoint, address: address.to_owned(), module: module.to_owned(), weight };
    match weight.dtype {
        StDtype::F32 | StDtype::F16 | StDtype::BF16 => subject.unquantized(),
        StDtype::F8_E4M3 => subject.scaled(DType::E4M3Fn),
        StDtype::F8_E4M3FNUZ => subject.scaled(DType::E4M3Fnuz),
        StDtype::F8_E5M2 => subject.scaled(DType::E5M2),
        StDtype::F8_E5M2FNUZ => subject.scaled(DType::E5M2Fnuz),
        StDtype::I8 => subject.scaled(DType::I8),
        found => Err(WeightsError::WrongDtype {
            name: weight.name.to_owned(),
            expected: "F32, F16, BF16, FP8 or I8".to_owned(),
            found,
        }),
    }
}

impl<'a> Subject<'a> {
    fn matrix(&self) -> Result<(usize, usize), WeightsError> {
        match *self.weight.shape {
            [rows, cols] => Ok((rows, cols)),
            _ => Err(WeightsError::WrongShape {
                name: self.weight.name.to_owned(),
                expected: "two dimensions [N, K]".to_owned(),
                found: self.weight.shape.to_vec(),
            }),
        }
    }

    /// The claims that are of this scheme; an error where there are claims and none is.
    fn claims(&self, schemes: &[Scheme]) -> Result<Vec<&'a Claim>, WeightsError> {
        let config = &self.checkpoint.0.config;
        let contradiction = |config: String| WeightsError::Contradiction {
            weight: self.weight.name.to_owned(),
            config,
            tensors: format!("{} stored as {}", schemes[0], self.weight.dtype),
        };
        let inside = |skipped: &String| {
            self.module.strip_prefix(skipped.as_str()).is_some_and(|r| r.is_empty() || r.starts_with('.'))
        };
        if let Some(skipped) = config.skipped.iter().find(|s| inside(s)) {
            return Err(contradiction(format!("that `{skipped}` is not quantised")));
        }
        let agreeing: Vec<&Claim> = config.claims.iter().filter(|c| schemes.contains(&c.scheme)).collect();
        if agreeing.is_empty() && !config.claims.is_empty() {
            let texts: Vec<&str> = config.claims.iter().map(|c| c.text.as_str()).collect();
            return Err(contradiction(texts.join("; ")));
        }
        Ok(agreeing)
    }

    /// The one tensor of those names that is there.
    fn find(&self, names: &[String]) -> Result<Option<RawTensor<'a>>, WeightsError> {
        let mut found = names.iter().filter(|n| self.checkpoint.has(n));
        match (found.next(), found.next()) {
            (None, _) => Ok(None),
            (Some(name), None) => self.checkpoint.raw(name).map(Some),
            (Some(a), Some(b)) => Err(WeightsError::Ambiguous {
                weight: self.weight.name.to_owned(),
                reason: format!("both `{a}` and `{b}` are there"),
            }),
        }
    }

    fn scale_names(&self) -> Vec<String> {
        let weight = self.weight.name;
        vec![format!("{weight}_scale_inv"), format!("{weight}_scale"), format!("{}.scale", self.module)]
    }

    fn recipe(self, scheme: Scheme, dtype: DType, (rows, cols): (usize, usize)) -> Recipe<'a> {
        Recipe {
            name: self.address,
            scheme,
            rows,
            cols,
            dtype,
            tensors: vec![self.weight.name.to_owned()],
            codes: self.weight,
            granularity: Granularity::Tensor,
            scale: None,
            zeros: None,
        }
    }

    fn unquantized(self) -> Result<Recipe<'a>, WeightsError> {
        let shape = self.matrix()?;
        if let Some(scale) = self.find(&self.scale_names())? {
            return Err(WeightsError::Ambiguous {
                weight: self.weight.name.to_owned(),
                reason: format!(
                    "is {}, which needs no scale, yet `{}` is there; is it dequantised already?",
                    self.weight.dtype, scale.name
                ),
            });
        }
        let dtype = float_dtype(self.weight.dtype).expect("the caller matched on it");
        Ok(self.recipe(Scheme::Unquantized, dtype, shape))
    }

    /// One code a byte and scales per tensor, row, group or block: FP8, MXFP8 and int8.
    fn scaled(self, dtype: DType) -> Result<Recipe<'a>, WeightsError> {
        let shape = self.matrix()?;
        let names = self.scale_names();
        let Some(scale) = self.find(&names)? else {
            return Err(WeightsError::ScaleMissing {
                weight: self.weight.name.to_owned(),
                found: self.weight.dtype,
                looked_for: names,
            });
        };
        let mx_shape = matches!(scale.dtype, StDtype::F8_E8M0 | StDtype::U8)
            && fits(Granularity::Group(32), scale.shape, shape);
        let claims = match dtype {
            DType::I8 => self.claims(&[Scheme::Int8])?,
            _ if mx_shape => self.claims(&[Scheme::Mxfp8, Scheme::Fp8])?,
            _ => self.claims(&[Scheme::Fp8])?,
        };
        let scheme = match dtype {
            DType::I8 => Scheme::Int8,
            _ if mx_shape => Scheme::Mxfp8,
            _ => Scheme::Fp8,
        };
        let ue8m0 = claims.iter().any(|c| c.ue8m0);
        let scale_dtype = match (float_dtype(scale.dtype), scale.dtype) {
            (Some(float), _) => float,
            (None, StDtype::F8_E8M0) if dtype.is_fp8() => DType::E8M0,
            (None, StDtype::U8) if ue8m0 || claims.iter().any(|c| c.scheme == Scheme::Mxfp8) => DType::E8M0,
            (None, StDtype::U8) if dtype.is_fp8() => {
                return Err(WeightsError::ScaleIsBytes { scale: scale.name.to_owned() });
            }
            (None, found) => {
                return Err(WeightsError::WrongDtype {
                    name: scale.name.to_owned(),
                    expected: "F32, F16, BF16 or F8_E8M0".to_owned(),
                    found,
                });
            }
        };
        let granularity = self.granularity(&claims, &scale, shape, mx_shape)?;
        let zeros = self.find(&[format!("{}_zero_point", self.weight.name)])?.filter(|_| dtype == DType::I8);
        if let Some(zeros) = &zeros {
            if zeros.dtype != StDtype::I8 {
                return Err(WeightsError::WrongDtype {
                    name: zeros.name.to_owned(),
                    expected: "I8".to_owned(),
                    found: zeros.dtype,
                });
            }
            if zeros.shape != scale.shape {
                return Err(WeightsError::WrongShape {
                    name: zeros.name.to_owned(),
                    expected: format!("{:?} like `{}`", scale.shape, scale.name),
                    found: zeros.shape.to_vec(),
                });
            }
        }
        let mut recipe = self.recipe(scheme, dtype, shape);
        recipe.granularity = granularity;
        recipe.tensors.push(scale.name.to_owned());
        recipe.tensors.extend(zeros.iter().map(|z| z.name.to_owned()));
        let powers_of_two = ue8m0 && scale_dtype != DType::E8M0;
        recipe.scale = Some(Scale { tensor: scale, dtype: scale_dtype, powers_of_two });
        recipe.zeros = zeros;
        Ok(recipe)
    }

    /// What one scale covers: as claimed if the scale's shape agrees, else as the shape alone says.
    fn granularity(
        &self,
        claims: &[&Claim],
        scale: &RawTensor,
        shape: (usize, usize),
        mx_shape: bool,
    ) -> Result<Granularity, WeightsError> {
        let (rows, cols) = shape;
        let wrong = |expected: String| WeightsError::ScaleShape {
            scale: scale.name.to_owned(),
            weight: self.weight.name.to_owned(),
            weight_shape: vec![rows, cols],
            found: scale.shape.to_vec(),
            expected,
        };
        let claimed: Vec<Granularity> = claims.iter().filter_map(|c| c.granularity).collect();
        if let Some(&granularity) = claimed.iter().find(|&&g| fits(g, scale.shape, shape)) {
            return Ok(granularity);
        }
        let expected = |g: &Granularity| format!("{:?} ({g})", grid_shape(*g, shape));
        if !claims.is_empty() && claimed.len() == claims.len() {
            let texts: Vec<&str> = claims.iter().map(|c| c.text.as_str()).collect();
            let shapes: Vec<String> = claimed.iter().map(expected).collect();
            return Err(wrong(format!("{} by {}", shapes.join(" or "), texts.join("; "))));
        }
        let usual = [Granularity::Tensor, Granularity::Row];
        if let Some(&granularity) = usual.iter().find(|&&g| fits(g, scale.shape, shape)) {
            return Ok(granularity);
        }
        if let Some(claim) = claims.iter().find(|c| c.granularity.is_none()) {
            let shapes = usual.iter().map(expected).collect::<Vec<_>>().join(" or ");
            return Err(wrong(format!("{shapes} by {}", claim.text)));
        }
        if mx_shape {
            return Ok(Granularity::Group(32));
        }
        let block = Granularity::Block(128, 128);
        if fits(block, scale.shape, shape) {
            return Ok(block);
        }
        match *scale.shape {
            [r, groups] if r == rows && groups > 0 && cols % groups == 0 => {
                Ok(Granularity::Group(cols / groups))
            }
            _ => Err(wrong(format!(
                "{}; for another granularity give quantization_config in config.json",
                usual.iter().chain([&block]).map(expected).collect::<Vec<_>>().join(", ")
            ))),
        }
    }
}

/// The scale tensor's shape as it is usually stored.
fn grid_shape(granularity: Granularity, (rows, cols): (usize, usize)) -> Vec<usize> {
    match granularity {
        Granularity::Tensor => vec![1],
        _ => {
            let (r, c) = granularity.grid(rows, cols);
            vec![r, c]
        }
    }
}

fn fits(granularity: Granularity, scale: &[usize], (rows, cols): (usize, usize)) -> bool {
    match granularity {
        Granularity::Tensor => scale.iter().product::<usize>() == 1,
        Granularity::Row if scale == [rows] => true,
        _ => scale == grid_shape(granularity, (rows, cols)),
    }
}

impl<'a> Recipe<'a> {
    pub fn load(self) -> Result<StoredWeight<'a>, WeightsError> {
        let scales = match &self.scale {
            Some(scale) => scale.load()?,
            None => Vec::new(),
        };
        let zero_points = self.zeros.map_or(Vec::new(), |zeros| DType::I8.decode_bytes(zeros.bytes));
        Ok(StoredWeight {
            name: self.name,
            scheme: self.scheme,
            rows: self.rows,
            cols: self.cols,
            dtype: self.dtype,
            codes: Cow::Borrowed(self.codes.bytes),
            granularity: self.granularity,
            scale_dtype: self.scale.as_ref().map(|s| s.dtype),
            scales,
            zero_points,
            global_scale: None::<GlobalScale>,
            column_groups: None,
            tensors: self.tensors,
        })
    }
}

impl Scale<'_> {
    fn load(&self) -> Result<Vec<f64>, WeightsError> {
        let scales = self.dtype.decode_bytes(self.tensor.bytes);
        let power_of_two = |x: f64| x > 0.0 && x.is_finite() && x.to_bits() << 12 == 0;
        if self.powers_of_two
            && let Some(index) = scales.iter().position(|&s| !power_of_two(s))
        {
            let scale = self.tensor.name.to_owned();
            return Err(WeightsError::ScaleNotPowerOfTwo { scale, index, value: scales[index] });
        }
        Ok(scales)
    }
}
