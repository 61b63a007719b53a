//! From a module's name to its stored weight: which tensors belong together, and what they mean.
//!
//! Names and dtypes of the tensors decide the scheme. The configuration's claims must agree, and decide what the
//! tensors leave open. Only headers are read before [`Recipe::load`].

use std::borrow::Cow;

use super::claim::Claim;
use super::gguf::Element;
use super::made::{self, Made};
use super::part::{self, Part};
use super::roles::{self, module_of, weight_tensors};
use super::stored::float_dtype;
use super::torchao::Torchao;
use super::{
    Checkpoint, GlobalScale, RawTensor, Scheme, StDtype, StoredWeight, WeightInfo, WeightsError, online,
    packed,
};
use crate::dtype::DType;
use crate::layout::ScaleLayout;
use crate::quant::Granularity;

/// What is needed to read a weight, from headers alone.
pub(super) struct Recipe<'a> {
    pub info: WeightInfo,
    pub codes: Codes<'a>,
    pub scale: Option<Scale<'a>>,
    pub zeros: Zeros<'a>,
    /// The configuration says that zero is the middle of the codes.
    symmetric: bool,
    /// The scale of the whole tensor that NVFP4 and int4 of FP8 have beside the others, and whether it divides.
    pub global: Option<(RawTensor<'a>, bool)>,
    /// GPTQ's and compressed-tensors' `g_idx`.
    pub column_groups: Option<RawTensor<'a>>,
    part: Part,
    checkpoint: &'a Checkpoint,
}

/// How the codes are stored.
pub(super) enum Codes<'a> {
    /// As [`StoredWeight::codes`] wants them.
    Plain(RawTensor<'a>),
    Int32(RawTensor<'a>, packed::Packing),
    /// What has to be made of several tensors, or of bytes in another order.
    Made(Box<Made<'a>>),
}

pub(super) struct Scale<'a> {
    pub tensor: RawTensor<'a>,
    pub dtype: DType,
    pub order: ScaleOrder,
    /// The configuration says ue8m0 and the tensor is of floats.
    pub powers_of_two: bool,
    /// What is stored is this many times the scale.
    pub divisor: f64,
}

/// How the scales of a grid of rows and groups lie in the file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ScaleOrder {
    RowMajor,
    /// `[groups, rows]`.
    Transposed,
    /// In tiles of 128 rows and 4 groups, filled up to whole ones: [`ScaleLayout::Swizzle128x4`].
    Tiles,
}

impl ScaleOrder {
    pub fn transposed_if(transposed: bool) -> ScaleOrder {
        if transposed { ScaleOrder::Transposed } else { ScaleOrder::RowMajor }
    }
}

impl<'a> Scale<'a> {
    pub fn new(tensor: RawTensor<'a>, dtype: DType) -> Scale<'a> {
        Scale { tensor, dtype, order: ScaleOrder::RowMajor, powers_of_two: false, divisor: 1.0 }
    }
}

pub(super) enum Zeros<'a> {
    None,
    /// The same for every cell: offset-binary codes.
    All(f64),
    /// One signed byte for each scale.
    Int8(RawTensor<'a>),
    /// Packed into int32; `plus` is added.
    Int32 {
        tensor: RawTensor<'a>,
        packing: packed::Packing,
        plus: f64,
    },
}

/// A weight's tensor on its way to a recipe.
pub(super) struct Subject<'a> {
    checkpoint: &'a Checkpoint,
    address: String,
    module: String,
    part: Part,
    /// First dimension of a fused weight.
    experts: Option<usize>,
    pub weight: RawTensor<'a>,
}

/// What to read for an address that names one matrix.
pub(super) fn resolve<'a>(checkpoint: &'a Checkpoint, address: &str) -> Result<Recipe<'a>, WeightsError> {
    let (name, part) = part::split(address)?;
    resolve_part(checkpoint, address, name, |_| part)
}

/// The same; where the address leaves open which of several experts it means, the first stands for all.
pub(super) fn resolve_any<'a>(checkpoint: &'a Checkpoint, address: &str) -> Result<Recipe<'a>, WeightsError> {
    let (name, part) = part::split(address)?;
    resolve_part(checkpoint, address, name, |weight| {
        let matrix = if weight.name.ends_with("blocks") { 3 } else { 2 };
        let expert = part.expert.or((weight.shape.len() == matrix + 1).then_some(0));
        Part { expert, ..part }
    })
}

fn resolve_part<'a>(
    checkpoint: &'a Checkpoint,
    address: &str,
    name: &str,
    part: impl FnOnce(&RawTensor) -> Part,
) -> Result<Recipe<'a>, WeightsError> {
    let module = if checkpoint.has(name) { module_of(name).unwrap_or(name) } else { name };
    let mut candidates = weight_tensors(checkpoint, module);
    if candidates.is_empty() {
        candidates.extend(tied_embedding(checkpoint, module).map(str::to_owned));
    }
    let tensor = match candidates.len() {
        0 => {
            return Err(match roles::foreign(checkpoint, module) {
                Some(seems) => WeightsError::Unread {
                    weight: module.to_owned(),
                    seems: seems.to_owned(),
                    reason: "convert it to a scheme that is".to_owned(),
                },
                None => checkpoint.tensor_missing(&format!("{module}.weight")),
            });
        }
        1 => candidates.remove(0),
        _ => return Err(WeightsError::TwoWeights { weight: module.to_owned(), candidates }),
    };
    let weight = checkpoint.raw(&tensor)?;
    if weight.bytes.is_empty() {
        return Err(WeightsError::WrongShape {
            name: tensor,
            expected: "at least one element".to_owned(),
            found: weight.shape.to_vec(),
        });
    }
    let mut subject = Subject {
        checkpoint,
        address: address.to_owned(),
        module: module.to_owned(),
        part: part(&weight),
        experts: weight.shape.first().copied(),
        weight,
    };
    subject.weight = subject.expert(weight)?;
    if let Some(seems) = roles::foreign(checkpoint, module) {
        return Err(subject.unread(seems.to_owned(), "convert it to a scheme that is".to_owned()));
    }
    // Experts that share a tensor are addressed one by one, whatever their scheme is.
    let said = if subject.weight.shape.len() > 2 { None } else { subject.of_unknown_scheme() };
    by_tensors(subject).map_err(|error| match said {
        Some(seems) if error.is_of_form() => {
            WeightsError::Unread { weight: module.to_owned(), seems, reason: error.to_string() }
        }
        _ => error,
    })
}

/// What to read by the names and dtypes of the tensors.
fn by_tensors(subject: Subject<'_>) -> Result<Recipe<'_>, WeightsError> {
    let weight = &subject.weight;
    if weight.element != Element::Plain {
        return made::gguf(subject);
    }
    if weight.name.ends_with("blocks") {
        return subject.blocks();
    }
    if weight.name.ends_with(".qweight") {
        return packed::gptq_or_awq(subject);
    }
    if weight.name.ends_with(".compressed") {
        return made::sparse_bitmask(subject);
    }
    if weight.name.ends_with(".W_q") {
        return made::hqq(subject);
    }
    if weight.name.ends_with(roles::TORCHAO) {
        return subject.torchao();
    }
    if weight.dtype == StDtype::I32 && weight.name.ends_with(".weight_packed") {
        return packed::pack_quantized(subject);
    }
    if weight.dtype == StDtype::I32 && weight.name.ends_with(".weight") {
        return packed::quark_int4(subject);
    }
    if weight.dtype == StDtype::U8
        && let Some(state) = subject.quant_state()?
    {
        return made::bitsandbytes(subject, state);
    }
    match weight.dtype {
        StDtype::F32 | StDtype::F16 | StDtype::BF16 => subject.unquantized(),
        StDtype::F8_E4M3 => subject.scaled(DType::E4M3Fn),
        StDtype::F8_E4M3FNUZ => subject.scaled(DType::E4M3Fnuz),
        StDtype::F8_E5M2 => subject.scaled(DType::E5M2),
        StDtype::F8_E5M2FNUZ => subject.scaled(DType::E5M2Fnuz),
        StDtype::I8 => subject.int8(),
        StDtype::U8 | StDtype::F4 => subject.fp4(),
        StDtype::F6_E2M3 => subject.mxfp6(Scheme::Mxfp6E2M3, DType::E2M3),
        StDtype::F6_E3M2 => subject.mxfp6(Scheme::Mxfp6E3M2, DType::E3M2),
        found => Err(WeightsError::WrongDtype {
            name: weight.name.to_owned(),
            expected: "a float, FP8, FP6, FP4 or I8 weight".to_owned(),
            found,
        }),
    }
}

/// The embedding whose weight `lm_head` shares, where the configuration says so and `lm_head` has none.
fn tied_embedding<'a>(checkpoint: &'a Checkpoint, module: &str) -> Option<&'a str> {
    let tied = checkpoint.0.config.model("tie_word_embeddings")?.as_bool() == Some(true);
    if !tied || !(module == "lm_head" || module.ends_with(".lm_head")) {
        return None;
    }
    let is_embedding = |name: &&str| {
        let module = name.strip_suffix(".weight").unwrap_or("");
        ["embed_tokens", "wte", "word_embeddings"].contains(&module.rsplit('.').next().unwrap_or(""))
    };
    let mut embeddings = checkpoint.names().filter(is_embedding);
    embeddings.next().filter(|_| embeddings.next().is_none())
}

impl<'a> Subject<'a> {
    /// Of a tensor `[experts, ...]` like the weight, the part that the address names.
    fn expert(&self, tensor: RawTensor<'a>) -> Result<RawTensor<'a>, WeightsError> {
        let Some(expert) = self.part.expert else { return Ok(tensor) };
        match tensor.shape.split_first() {
            Some((&experts, shape)) if expert < experts && self.experts == Some(experts) => {
                let size = tensor.bytes.len() / experts;
                Ok(RawTensor { shape, bytes: &tensor.bytes[expert * size..(expert + 1) * size], ..tensor })
            }
            _ => Err(WeightsError::BadPart {
                address: self.address.clone(),
                reason: format!("tensor `{}` {:?} has no expert {expert}", tensor.name, tensor.shape),
            }),
        }
    }

    pub fn matrix(&self) -> Result<(usize, usize), WeightsError> {
        match *self.weight.shape {
            [rows, cols] => Ok((rows, cols)),
            [_, _, _] => Err(WeightsError::WrongShape {
                name: self.weight.name.to_owned(),
                expected: format!("two dimensions; address one expert as `{}#0`", self.module),
                found: self.weight.shape.to_vec(),
            }),
            _ => Err(WeightsError::WrongShape {
                name: self.weight.name.to_owned(),
                expected: "two dimensions [N, K]".to_owned(),
                found: self.weight.shape.to_vec(),
            }),
        }
    }

    fn contradiction(&self, config: String, scheme: Scheme) -> WeightsError {
        WeightsError::Contradiction {
            weight: self.weight.name.to_owned(),
            config,
            tensors: format!("{scheme} stored as {}", self.weight.dtype),
        }
    }

    /// How the configuration words the scheme of this weight, where that is one that is not known.
    fn of_unknown_scheme(&self) -> Option<String> {
        let claims = self.checkpoint.0.config.claims_of(&self.module);
        let unknown = !claims.is_empty() && claims.iter().all(|claim| claim.scheme.is_none());
        unknown.then(|| texts(claims))
    }

    /// A weight that is not read, and what it seems to be.
    pub fn unread(&self, seems: String, reason: String) -> WeightsError {
        WeightsError::Unread { weight: self.module.clone(), seems, reason }
    }

    /// A tensor of that ending is not there.
    pub fn missing(&self, ending: &str) -> WeightsError {
        self.checkpoint.tensor_missing(&self.named(ending))
    }

    /// bitsandbytes' description of a weight of 4 bits.
    fn quant_state(&self) -> Result<Option<RawTensor<'a>>, WeightsError> {
        let formats = ["bitsandbytes__nf4", "bitsandbytes__fp4"];
        self.find(&formats.map(|format| format!("{}{}{format}", self.weight.name, roles::QUANT_STATE)))
    }

    /// The module's other tensors, but these and those that are known to be of its input.
    pub fn siblings(&self, but: &[String]) -> Vec<String> {
        let inside = format!("{}.", self.module);
        let own = |name: &&str| {
            name.strip_prefix(inside.as_str()).is_some_and(|rest| !rest.contains('.') && rest != "bias")
                && *name != self.weight.name
                && !but.iter().any(|b| b == name)
                && roles::input_of(name).is_none()
        };
        self.checkpoint
            .names_from(&inside)
            .take_while(|name| name.starts_with(&inside))
            .filter(own)
            .map(str::to_owned)
            .collect()
    }

    /// The claims that are of these schemes, or of one that is not known; an error where there are claims and none is.
    pub fn claims(&self, schemes: &[Scheme]) -> Result<Vec<&'a Claim>, WeightsError> {
        let config = &self.checkpoint.0.config;
        if let Some(text) = config.skipped(&self.module) {
            return Err(self.contradiction(format!("that `{text}` is not quantised"), schemes[0]));
        }
        let said = config.claims_of(&self.module);
        let agrees = |c: &&Claim| c.scheme.is_none_or(|scheme| schemes.contains(&scheme));
        let agreeing: Vec<&Claim> = said.iter().copied().filter(agrees).collect();
        if agreeing.is_empty() && !said.is_empty() {
            return Err(self.contradiction(texts(said), schemes[0]));
        }
        Ok(agreeing)
    }

    /// The one tensor of those names that is there, or its part for the expert.
    pub fn find(&self, names: &[String]) -> Result<Option<RawTensor<'a>>, WeightsError> {
        let mut found = names.iter().filter(|n| self.checkpoint.has(n));
        match (found.next(), found.next()) {
            (None, _) => Ok(None),
            (Some(name), None) => self.checkpoint.raw(name).and_then(|t| self.expert(t)).map(Some),
            (Some(a), Some(b)) => Err(WeightsError::Ambiguous {
                weight: self.weight.name.to_owned(),
                reason: format!("both `{a}` and `{b}` are there"),
            }),
        }
    }

    /// Whether the configuration says that it is stored so.
    pub fn claims_any(&self, scheme: Scheme) -> bool {
        self.checkpoint.0.config.claims_of(&self.module).iter().any(|claim| claim.scheme == Some(scheme))
    }

    /// There are none; the claims must not say that there are.
    pub fn require_zero_points(&self, claims: &[&Claim], looked_for: String) -> Result<(), WeightsError> {
        if claims.is_empty() || claims.iter().any(|claim| claim.symmetric != Some(false)) {
            return Ok(());
        }
        Err(WeightsError::ZeroPointsMissing { weight: self.weight.name.to_owned(), looked_for })
    }

    /// The name of the module's tensor of that ending.
    pub fn named(&self, ending: &str) -> String {
        format!("{}{ending}", self.module)
    }

    pub fn companion(&self, ending: &str) -> Result<Option<RawTensor<'a>>, WeightsError> {
        self.find(&[self.named(ending)])
    }

    pub fn find_scale(&self, names: Vec<String>) -> Result<RawTensor<'a>, WeightsError> {
        self.find(&names)?.ok_or_else(|| WeightsError::ScaleMissing {
            weight: self.weight.name.to_owned(),
            found: self.weight.dtype,
            looked_for: names,
        })
    }

    pub fn scale_shape(&self, scale: &RawTensor, shape: (usize, usize), expected: String) -> WeightsError {
        WeightsError::ScaleShape {
            scale: scale.name.to_owned(),
            weight: self.weight.name.to_owned(),
            weight_shape: vec![shape.0, shape.1],
            found: scale.shape.to_vec(),
            expected,
        }
    }

    fn scale_names(&self) -> Vec<String> {
        let name = self.weight.name;
        let sparse = name.strip_suffix(".compressed").map(|module| format!("{module}.weight"));
        let weight = sparse.as_deref().unwrap_or(name.strip_suffix("_packed").unwrap_or(name));
        let mut own = vec![".scale", ".qscale_weight", "._weight_scale"];
        // Experts that share a tensor have its name and no `weight` in it.
        if name == self.module && !name.ends_with("weight") {
            own.extend(["_weight_scale_inv", "_weight_scale"]);
        }
        let own = own.into_iter().map(|ending| self.named(ending)).collect::<Vec<_>>();
        [format!("{weight}_scale_inv"), format!("{weight}_scale")].into_iter().chain(own).collect()
    }

    pub fn recipe(self, scheme: Scheme, dtype: DType, (rows, cols): (usize, usize)) -> Recipe<'a> {
        let experts = self.experts.filter(|_| self.part.expert.is_some());
        let input_scale = self.checkpoint.input_scale(&self.module).map(str::to_owned);
        let claims = self.checkpoint.0.config.claims_of(&self.module);
        let untargeted = scheme != Scheme::Unquantized && self.checkpoint.0.config.leaves_out(&self.module);
        let symmetric = !claims.is_empty() && claims.iter().all(|claim| claim.symmetric == Some(true));
        let static_input = claims.iter().any(|claim| claim.scheme == Some(scheme) && claim.static_input);
        let parts = part::named(&self.module, self.weight.name, (rows, cols), &self.checkpoint.0.config);
        Recipe {
            info: WeightInfo {
                name: self.address,
                scheme,
                experts,
                rows,
                cols,
                dtype,
                granularity: Granularity::Tensor,
                scale_dtype: None,
                tensors: vec![self.weight.name.to_owned()],
                parts,
                input_scale,
                static_input,
                untargeted,
                online: online::of_module(self.checkpoint, &self.module),
                stored_otherwise: false,
            },
            codes: Codes::Plain(self.weight),
            scale: None,
            zeros: Zeros::None,
            symmetric,
            global: None,
            column_groups: None,
            part: self.part,
            checkpoint: self.checkpoint,
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

    /// A tensor of torchao's, whose class the file's metadata names.
    fn torchao(self) -> Result<Recipe<'a>, WeightsError> {
        let said = self.checkpoint.torchao(self.weight.name, &self.named(".weight"));
        match (said.class.as_deref(), self.weight.dtype) {
            (Some("Float8Tensor") | None, StDtype::F8_E4M3) => self.scaled(DType::E4M3Fn),
            (Some("Float8Tensor") | None, StDtype::F8_E5M2) => self.scaled(DType::E5M2),
            (Some("Int8Tensor" | "IntxUnpackedToInt8Tensor") | None, StDtype::I8) => self.scaled(DType::I8),
            (Some("MXTensor"), StDtype::F8_E4M3) => self.torchao_blocks(&said, Scheme::Mxfp8, DType::E4M3Fn),
            (Some("MXTensor"), StDtype::F8_E5M2) => self.torchao_blocks(&said, Scheme::Mxfp8, DType::E5M2),
            (Some("MXTensor"), StDtype::U8 | StDtype::F4) if said.is_of_fp4() => {
                self.torchao_blocks(&said, Scheme::Mxfp4, DType::E2M1)
            }
            (Some("NVFP4Tensor"), StDtype::U8 | StDtype::F4) => {
                self.torchao_blocks(&said, Scheme::Nvfp4, DType::E2M1)
            }
            (Some("Int4Tensor"), StDtype::U8 | StDtype::I8) => made::torchao_int4(self, said.is_symmetric()),
            (class, found) => {
                let class = class.unwrap_or("tensor of a class that the file does not name");
                let read = "read are Float8Tensor, Int8Tensor, IntxUnpackedToInt8Tensor, Int4Tensor, MXTensor of FP8 \
                            and FP4, and NVFP4Tensor";
                Err(self.unread(format!("torchao's {class}"), format!("codes of {found}; {read}")))
            }
        }
    }

    /// FP8 or FP4 with an e8m0 scale for 32 columns, or FP4 with an e4m3fn one for 16, whose scales may lie in tiles.
    fn torchao_blocks(
        self,
        said: &Torchao,
        scheme: Scheme,
        dtype: DType,
    ) -> Result<Recipe<'a>, WeightsError> {
        let (rows, stored_cols) = self.matrix()?;
        let two_a_byte = dtype == DType::E2M1 && self.weight.dtype == StDtype::U8;
        let shape = (rows, if two_a_byte { 2 * stored_cols } else { stored_cols });
        let scale = self.find_scale(self.scale_names())?;
        let (group, scale_dtype, stored_as) = match scheme {
            Scheme::Nvfp4 => (16, DType::E4M3Fn, StDtype::F8_E4M3),
            _ => (32, DType::E8M0, StDtype::F8_E8M0),
        };
        expect_dtype(&scale, stored_as)?;
        let global = self.companion("._weight_per_tensor_scale")?;
        if let Some(global) = &global
            && global.shape.iter().product::<usize>() != 1
        {
            return Err(self.scale_shape(global, shape, "[1]".to_owned()));
        }
        let order = if said.is_in_tiles() { ScaleOrder::Tiles } else { ScaleOrder::RowMajor };
        let mut recipe = self.grouped(scheme, dtype, shape, scale, (scale_dtype, order), group)?;
        recipe.info.tensors.extend(global.iter().map(|t| t.name.to_owned()));
        recipe.info.stored_otherwise = order == ScaleOrder::Tiles;
        recipe.global = global.map(|tensor| (tensor, false));
        Ok(recipe)
    }

    /// One code a byte and scales per tensor, row, group or block: FP8, MXFP8 and int8.
    fn scaled(self, dtype: DType) -> Result<Recipe<'a>, WeightsError> {
        let shape = self.matrix()?;
        self.scaled_as(dtype, shape)
    }

    /// The same of a weight whose tensor does not have the weight's shape.
    pub fn scaled_as(self, dtype: DType, shape: (usize, usize)) -> Result<Recipe<'a>, WeightsError> {
        let scale = self.find_scale(self.scale_names())?;
        let grid = without_ones(scale.shape);
        let mx = matches!(scale.dtype, StDtype::F8_E8M0 | StDtype::U8)
            && fits(Granularity::Group(32), &grid, shape);
        let (scheme, claims) = match dtype {
            DType::I8 => (Scheme::Int8, self.claims(&[Scheme::Int8])?),
            _ if mx => (Scheme::Mxfp8, self.claims(&[Scheme::Mxfp8, Scheme::Fp8])?),
            _ => (Scheme::Fp8, self.claims(&[Scheme::Fp8])?),
        };
        let ue8m0 = claims.iter().any(|c| c.ue8m0);
        let scale_dtype = match (float_dtype(scale.dtype), scale.dtype) {
            (Some(float), _) => float,
            (None, StDtype::F8_E8M0) if dtype.is_fp8() => DType::E8M0,
            (None, StDtype::U8) if ue8m0 || claims.iter().any(|c| c.scheme == Some(Scheme::Mxfp8)) => {
                DType::E8M0
            }
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
        let granularity = self.granularity(&claims, &scale, &grid, shape, mx)?;
        // Producers do not agree on its sign; as a rule, all of it is zero.
        if let Some(offset) = self.companion(".weight_offset")?
            && offset.bytes.iter().any(|byte| *byte & 0x7f != 0)
        {
            let seems = format!("{scheme} with `{}`", offset.name);
            return Err(self.unread(seems, "an offset that is not zero is not read".to_owned()));
        }
        let zeros = match dtype {
            DType::I8 => {
                self.find(&[format!("{}_zero_point", self.weight.name), self.named("._weight_zero_point")])?
            }
            _ => None,
        };
        if dtype == DType::I8 && zeros.is_none() {
            self.require_zero_points(&claims, format!("{}_zero_point", self.weight.name))?;
        }
        if let Some(zeros) = &zeros {
            expect_dtype(zeros, StDtype::I8)?;
            expect_shape(zeros, scale.shape, &format!("like `{}`", scale.name))?;
        }
        let mut recipe = self.recipe(scheme, dtype, shape);
        recipe.info.granularity = granularity;
        recipe.scaled_by(Scale {
            powers_of_two: ue8m0 && scale_dtype != DType::E8M0,
            ..Scale::new(scale, scale_dtype)
        });
        if let Some(zeros) = zeros {
            recipe.info.tensors.push(zeros.name.to_owned());
            recipe.zeros = Zeros::Int8(zeros);
        }
        Ok(recipe)
    }

    /// int8, or, in DeepSeek-V4, two e2m1 codes a byte: PyTorch had no type for these, and e8m0 scales tell.
    fn int8(self) -> Result<Recipe<'a>, WeightsError> {
        let (rows, cols) = self.matrix()?;
        if let Some(largest) = self.companion(".SCB")? {
            return made::int8_of_rows(self, largest);
        }
        let transposed = self.is_stored_transposed();
        match self.find(&self.scale_names())? {
            Some(scale) if scale.dtype == StDtype::F8_E8M0 => {
                self.microscaled(Scheme::Mxfp4, DType::E2M1, (rows, 2 * cols), scale)
            }
            // int4 for FP8 activations: the low nibble first, scales for groups of columns.
            Some(scale) if self.claims_any(Scheme::Int4) => {
                self.grouped_floats(Scheme::Int4, DType::I4, (rows, 2 * cols), scale)
            }
            Some(scale) if transposed => packed::int8_transposed(self, scale),
            _ => self.scaled(DType::I8),
        }
    }

    /// Whether the configuration says that codes are stored `[K, N]` and their scales likewise.
    pub fn is_stored_transposed(&self) -> bool {
        self.checkpoint.0.config.claims_of(&self.module).iter().any(|claim| claim.transposed)
    }

    /// Integers with a float scale for each group of columns.
    pub fn grouped_floats(
        self,
        scheme: Scheme,
        dtype: DType,
        shape: (usize, usize),
        scale: RawTensor<'a>,
    ) -> Result<Recipe<'a>, WeightsError> {
        let claims = self.claims(&[scheme])?;
        let scale_dtype = packed::float_scale(&scale)?;
        let granularity = self.granularity(&claims, &scale, &without_ones(scale.shape), shape, false)?;
        let mut recipe = self.recipe(scheme, dtype, shape);
        recipe.info.granularity = granularity;
        recipe.scaled_by(Scale::new(scale, scale_dtype));
        Ok(recipe)
    }

    /// Two e2m1 codes a byte: MXFP4 and both kinds of NVFP4, told apart by the scale's dtype.
    fn fp4(self) -> Result<Recipe<'a>, WeightsError> {
        let (rows, stored_cols) = self.matrix()?;
        // safetensors counts F4 by the code, U8 by the byte.
        let shape = (rows, if self.weight.dtype == StDtype::U8 { 2 * stored_cols } else { stored_cols });
        let scale = self.find_scale(self.scale_names())?;
        match scale.dtype {
            StDtype::U8 | StDtype::F8_E8M0 => self.microscaled(Scheme::Mxfp4, DType::E2M1, shape, scale),
            StDtype::F8_E4M3 => self.nvfp4(shape, scale),
            // Twice as many rows of scales as of bytes: two rows of int4 share a byte.
            _ if float_dtype(scale.dtype).is_some()
                && without_ones(scale.shape).first() == Some(&(2 * rows))
                && self.weight.dtype == StDtype::U8 =>
            {
                made::int4_along_rows(self, scale)
            }
            found => Err(WeightsError::WrongDtype {
                name: scale.name.to_owned(),
                expected: "U8 or F8_E8M0 (MXFP4), or F8_E4M3 (NVFP4)".to_owned(),
                found,
            }),
        }
    }

    fn mxfp6(self, scheme: Scheme, dtype: DType) -> Result<Recipe<'a>, WeightsError> {
        let shape = self.matrix()?;
        let scale = self.find_scale(self.scale_names())?;
        self.microscaled(scheme, dtype, shape, scale)
    }

    /// gpt-oss: `[N, K/32, 16]` bytes and `[N, K/32]` scales, for each expert.
    fn blocks(self) -> Result<Recipe<'a>, WeightsError> {
        let expected = match (self.part.expert, self.weight.shape) {
            (_, &[rows, groups, 16]) => Ok((rows, 32 * groups)),
            (None, [_, _, _, 16]) => Err(format!("[N, K/32, 16]; address one expert as `{}#0`", self.module)),
            _ => Err("[experts, N, K/32, 16]".to_owned()),
        };
        let shape = expected.map_err(|expected| WeightsError::WrongShape {
            name: self.weight.name.to_owned(),
            expected,
            found: self.weight.shape.to_vec(),
        })?;
        expect_dtype(&self.weight, StDtype::U8)?;
        let base = self.weight.name.strip_suffix("blocks").expect("the caller looked at the ending");
        let scale = self.find_scale(vec![format!("{base}scales")])?;
        self.microscaled(Scheme::Mxfp4, DType::E2M1, shape, scale)
    }

    /// One e8m0 scale for 32 columns.
    fn microscaled(
        self,
        scheme: Scheme,
        dtype: DType,
        shape: (usize, usize),
        scale: RawTensor<'a>,
    ) -> Result<Recipe<'a>, WeightsError> {
        if !matches!(scale.dtype, StDtype::U8 | StDtype::F8_E8M0) {
            return Err(WeightsError::WrongDtype {
                name: scale.name.to_owned(),
                expected: "U8 or F8_E8M0".to_owned(),
                found: scale.dtype,
            });
        }
        self.grouped(scheme, dtype, shape, scale, (DType::E8M0, ScaleOrder::RowMajor), 32)
    }

    fn nvfp4(self, shape: (usize, usize), scale: RawTensor<'a>) -> Result<Recipe<'a>, WeightsError> {
        let global =
            self.find_scale(vec![self.named(".weight_scale_2"), self.named(".weight_global_scale")])?;
        let divides = global.name.ends_with("_global_scale");
        packed::float_scale(&global)?;
        if global.shape.iter().product::<usize>() != 1 {
            return Err(self.scale_shape(&global, shape, "[1]".to_owned()));
        }
        let of_groups = (DType::E4M3Fn, ScaleOrder::RowMajor);
        let mut recipe = self.grouped(Scheme::Nvfp4, DType::E2M1, shape, scale, of_groups, 16)?;
        recipe.info.tensors.push(global.name.to_owned());
        recipe.global = Some((global, divides));
        Ok(recipe)
    }

    /// A format whose groups have one size.
    fn grouped(
        self,
        scheme: Scheme,
        dtype: DType,
        shape: (usize, usize),
        scale: RawTensor<'a>,
        (scale_dtype, order): (DType, ScaleOrder),
        group: usize,
    ) -> Result<Recipe<'a>, WeightsError> {
        let granularity = Granularity::Group(group);
        let claims = self.claims(&[scheme])?;
        if let Some(claim) = claims.iter().find(|c| c.granularity.is_some_and(|g| g != granularity)) {
            return Err(self.contradiction(claim.text.clone(), scheme));
        }
        if order == ScaleOrder::Tiles {
            let count = ScaleLayout::Swizzle128x4.len(granularity.grid(shape.0, shape.1));
            if scale.shape.iter().product::<usize>() != count {
                let expected = format!("{count} scales in tiles of 128 rows and 4 groups of {group}");
                return Err(self.scale_shape(&scale, shape, expected));
            }
        } else if !fits(granularity, scale.shape, shape) {
            return Err(self.scale_shape(&scale, shape, expected_shape(granularity, shape)));
        }
        let mut recipe = self.recipe(scheme, dtype, shape);
        recipe.info.granularity = granularity;
        recipe.scaled_by(Scale { order, ..Scale::new(scale, scale_dtype) });
        Ok(recipe)
    }

    /// What one scale covers: as claimed if the scale's shape `[rows, groups]` agrees, else as the shape alone
    /// says.
    pub fn granularity(
        &self,
        claims: &[&Claim],
        scale: &RawTensor,
        scale_shape: &[usize],
        shape: (usize, usize),
        mx: bool,
    ) -> Result<Granularity, WeightsError> {
        let (rows, cols) = shape;
        let wrong = |expected| self.scale_shape(scale, shape, expected);
        let expected = |g: &Granularity| expected_shape(*g, shape);
        let claimed: Vec<Granularity> = claims.iter().filter_map(|c| c.granularity).collect();
        if let Some(&granularity) = claimed.iter().find(|&&g| fits(g, scale_shape, shape)) {
            return Ok(granularity);
        }
        if !claims.is_empty() && claimed.len() == claims.len() {
            let shapes: Vec<String> = claimed.iter().map(expected).collect();
            return Err(wrong(format!("{} by {}", shapes.join(" or "), texts(claims.iter().copied()))));
        }
        let usual = [Granularity::Tensor, Granularity::Row];
        if let Some(&granularity) = usual.iter().find(|&&g| fits(g, scale_shape, shape)) {
            return Ok(granularity);
        }
        if let Some(claim) = claims.iter().find(|c| c.without_blocks) {
            let shapes = usual.iter().map(expected).collect::<Vec<_>>().join(" or ");
            return Err(wrong(format!("{shapes} by {}", claim.text)));
        }
        if mx {
            return Ok(Granularity::Group(32));
        }
        let block = Granularity::Block(128, 128);
        if fits(block, scale_shape, shape) {
            return Ok(block);
        }
        match *scale_shape {
            [r, groups] if r == rows && groups > 0 && cols.is_multiple_of(groups) => {
                Ok(Granularity::Group(cols / groups))
            }
            [r, c] if is_of_blocks(rows, r) && is_of_blocks(cols, c) => {
                Ok(Granularity::Block(rows / r, cols / c))
            }
            _ => Err(wrong(format!(
                "{}; for another granularity give quantization_config in config.json",
                usual.iter().chain([&block]).map(expected).collect::<Vec<_>>().join(", ")
            ))),
        }
    }
}

/// Whether so many parts of a dimension are blocks as some producer has them: of a power of two from 16 on.
fn is_of_blocks(length: usize, parts: usize) -> bool {
    parts > 0 && length.is_multiple_of(parts) && (length / parts).is_power_of_two() && length / parts >= 16
}

/// The shape of a scale without dimensions of one: ModelOpt keeps those of blocks, `[R, 1, C, 1]`.
fn without_ones(shape: &[usize]) -> Vec<usize> {
    match *shape {
        [rows, 1, cols, 1] => vec![rows, cols],
        _ => shape.to_vec(),
    }
}

fn texts<'a>(claims: impl IntoIterator<Item = &'a Claim>) -> String {
    claims.into_iter().map(|c| c.text.as_str()).collect::<Vec<_>>().join("; ")
}

pub(super) fn expect_dtype(tensor: &RawTensor, expected: StDtype) -> Result<(), WeightsError> {
    if tensor.dtype == expected {
        return Ok(());
    }
    Err(WeightsError::WrongDtype {
        name: tensor.name.to_owned(),
        expected: expected.to_string(),
        found: tensor.dtype,
    })
}

pub(super) fn expect_shape(tensor: &RawTensor, expected: &[usize], why: &str) -> Result<(), WeightsError> {
    if tensor.shape == expected {
        return Ok(());
    }
    Err(WeightsError::WrongShape {
        name: tensor.name.to_owned(),
        expected: format!("{expected:?} {why}"),
        found: tensor.shape.to_vec(),
    })
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

fn expected_shape(granularity: Granularity, shape: (usize, usize)) -> String {
    format!("{:?} ({granularity})", grid_shape(granularity, shape))
}

fn fits(granularity: Granularity, scale: &[usize], (rows, cols): (usize, usize)) -> bool {
    match granularity {
        Granularity::Tensor => scale.iter().product::<usize>() == 1,
        Granularity::Row if scale == [rows] => true,
        _ => scale == grid_shape(granularity, (rows, cols)),
    }
}

impl<'a> Recipe<'a> {
    pub fn scaled_by(&mut self, scale: Scale<'a>) {
        self.info.tensors.push(scale.tensor.name.to_owned());
        self.info.scale_dtype = Some(scale.dtype);
        self.scale = Some(scale);
    }

    pub fn load(self) -> Result<StoredWeight<'a>, WeightsError> {
        let info = self.info;
        let (grid_rows, grid_cols) = info.granularity.grid(info.rows, info.cols);
        let mut scales = match &self.scale {
            Some(scale) => scale.load(grid_rows, grid_cols)?,
            None => Vec::new(),
        };
        let mut zero_points = match &self.zeros {
            Zeros::None => Vec::new(),
            Zeros::All(zero) => vec![*zero; grid_rows * grid_cols],
            Zeros::Int8(tensor) => DType::I8.decode_bytes(tensor.bytes),
            Zeros::Int32 { tensor, packing, plus } => {
                packing.zero_points(tensor.bytes, grid_rows, grid_cols, *plus)
            }
        };
        if self.symmetric {
            require_symmetric(&info, &self.zeros, &zero_points)?;
        }
        let codes = match self.codes {
            Codes::Plain(tensor) => Cow::Borrowed(tensor.bytes),
            Codes::Int32(tensor, packing) => packing.codes(tensor.bytes, info.rows, info.cols),
            Codes::Made(made) => {
                let loaded = made.load(info.rows, info.cols)?;
                scales = loaded.scales.unwrap_or(scales);
                zero_points = loaded.zero_points.unwrap_or(zero_points);
                Cow::Owned(loaded.codes)
            }
        };
        let global_scale = self.global.map(|(tensor, divides)| global_scale(tensor, divides)).transpose()?;
        let column_groups = match self.column_groups {
            Some(tensor) => packed::column_groups(tensor, info.granularity, grid_cols)?,
            None => None,
        };
        let weight = StoredWeight {
            name: info.name,
            scheme: info.scheme,
            rows: info.rows,
            cols: info.cols,
            dtype: info.dtype,
            codes,
            granularity: info.granularity,
            scale_dtype: info.scale_dtype,
            scales,
            zero_points,
            global_scale,
            column_groups,
            tensors: info.tensors,
        };
        self.part.select(weight, &self.checkpoint.0.config)
    }
}

/// Zero points are stored and have to be what the configuration says of all of them.
fn require_symmetric(info: &WeightInfo, zeros: &Zeros, zero_points: &[f64]) -> Result<(), WeightsError> {
    let (tensor, plus) = match zeros {
        Zeros::None | Zeros::All(_) => return Ok(()),
        Zeros::Int8(tensor) => (tensor, 0.0),
        Zeros::Int32 { tensor, plus, .. } => (tensor, *plus),
    };
    let (config, middle) = match (info.scheme, zeros) {
        (Scheme::Gptq, _) => ("sym true", 8.0),
        (Scheme::GptqInt2, _) => ("sym true", 2.0),
        (Scheme::GptqInt3, _) => ("sym true", 4.0),
        (Scheme::GptqInt8, _) => ("sym true", 0.0),
        (Scheme::QuarkInt4, _) if info.dtype == DType::I4 => ("symmetric true", 0.0),
        // AutoAWQ has stored the middle, or nothing but zeros that no kernel reads.
        (Scheme::Awq, _) => ("zero_point false", zero_points.first().copied().unwrap_or(0.0)),
        (Scheme::PackedInt8, _) | (_, Zeros::Int8(_)) => ("symmetric true", 0.0),
        _ => ("symmetric true", 8.0),
    };
    let Some(cell) = zero_points.iter().position(|&zero| zero != middle) else { return Ok(()) };
    let columns = info.granularity.grid(info.rows, info.cols).1.max(1);
    let gptq = matches!(info.scheme, Scheme::Gptq | Scheme::GptqInt8 | Scheme::GptqInt2 | Scheme::GptqInt3);
    let all_are = |value: f64| gptq && zero_points.iter().all(|&zero| zero == value);
    let swapped = match plus {
        1.0 if all_are(middle + 1.0) => "gptq_v2",
        0.0 if all_are(middle - 1.0) => "gptq",
        _ => "",
    };
    let packed_8_bits = matches!(info.scheme, Scheme::GptqInt8 | Scheme::PackedInt8);
    let stored_plus = if packed_8_bits { f64::from(packed::MIDDLE_OF_8_BITS) } else { 0.0 };
    Err(WeightsError::NotSymmetric {
        weight: info.name.clone(),
        config,
        tensor: tensor.name.to_owned(),
        cell: [cell / columns, cell % columns],
        zero: zero_points[cell] + stored_plus,
        middle: middle + stored_plus,
        swapped,
    })
}

fn global_scale(tensor: RawTensor, divides: bool) -> Result<GlobalScale, WeightsError> {
    let dtype = packed::float_scale(&tensor)?;
    let scale = dtype.decode(dtype.code_at(tensor.bytes, 0));
    if !scale.is_finite() || scale <= 0.0 {
        return Err(WeightsError::BadScale { scale: tensor.name.to_owned(), value: scale });
    }
    Ok(if divides { GlobalScale::Divide(scale) } else { GlobalScale::Multiply(scale) })
}

impl Scale<'_> {
    /// Row-major over the grid.
    fn load(&self, rows: usize, cols: usize) -> Result<Vec<f64>, WeightsError> {
        let mut stored = self.dtype.decode_bytes(self.tensor.bytes);
        if self.divisor != 1.0 {
            stored.iter_mut().for_each(|scale| *scale = self.dtype.nearest(*scale / self.divisor));
        }
        let power_of_two = |x: f64| x > 0.0 && x.is_finite() && x.to_bits() << 12 == 0;
        if self.powers_of_two
            && let Some(index) = stored.iter().position(|&s| !power_of_two(s))
        {
            let scale = self.tensor.name.to_owned();
            return Err(WeightsError::ScaleNotPowerOfTwo { scale, index, value: stored[index] });
        }
        Ok(match self.order {
            ScaleOrder::RowMajor => stored,
            ScaleOrder::Transposed => (0..rows * cols).map(|i| stored[i % cols * rows + i / cols]).collect(),
            ScaleOrder::Tiles => {
                let tiles = ScaleLayout::Swizzle128x4.index_map((rows, cols));
                (0..rows * cols).map(|i| stored[tiles.offset(i / cols, i % cols)]).collect()
            }
        })
    }
}
