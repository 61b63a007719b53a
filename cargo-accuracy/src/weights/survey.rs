//! What the headers of a checkpoint say: its weights, what else there is, and what does not fit together.

use accuracy_core::dtype::DType;
use accuracy_core::quant::Granularity;
use accuracy_core::weights::{
    Checkpoint, RawTensor, Role, Scheme, StDtype, WeightInfo, WeightsError, natural_cmp, role,
};
use rayon::prelude::*;
use std::collections::{BTreeMap, HashSet};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something is missing, contradictory or broken.
    Error,
    /// Odd, but it can be read.
    Warning,
}

#[derive(Clone, Debug)]
pub struct Finding {
    pub severity: Severity,
    /// A name for machines: `scale_missing`.
    pub kind: &'static str,
    /// The weight or tensor in question, if it is one.
    pub tensor: Option<String>,
    pub message: String,
}

impl Finding {
    pub fn of(tensor: &str, error: &WeightsError) -> Finding {
        Finding {
            severity: Severity::Error,
            kind: error.kind(),
            tensor: Some(tensor.to_owned()),
            message: error.to_string(),
        }
    }

    pub fn warning(kind: &'static str, tensor: &str, message: String) -> Finding {
        Finding { severity: Severity::Warning, kind, tensor: Some(tensor.to_owned()), message }
    }

    pub fn error(kind: &'static str, tensor: &str, message: String) -> Finding {
        Finding { severity: Severity::Error, ..Finding::warning(kind, tensor, message) }
    }
}

/// A weight matrix, or a stack of one for each expert.
#[derive(Clone, Debug)]
pub struct Weight {
    pub info: WeightInfo,
    pub code_bytes: u64,
    /// Of its scales, zero points and the like.
    pub scale_bytes: u64,
}

impl Weight {
    /// Elements of all experts.
    pub fn parameters(&self) -> u64 {
        (self.info.experts.unwrap_or(1) * self.info.rows * self.info.cols) as u64
    }

    /// The addresses of its matrices, as `Checkpoint::linear` takes them.
    pub fn matrices(&self) -> Vec<String> {
        match self.info.experts {
            None => vec![self.info.name.clone()],
            Some(experts) => (0..experts).map(|e| format!("{}#{e}", self.info.name)).collect(),
        }
    }
}

/// How a weight is quantised; totals are kept by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kind {
    pub scheme: Scheme,
    pub dtype: DType,
    pub granularity: Granularity,
    pub scale_dtype: Option<DType>,
}

impl Kind {
    pub fn of(info: &WeightInfo) -> Kind {
        Kind {
            scheme: info.scheme,
            dtype: info.dtype,
            granularity: info.granularity,
            scale_dtype: info.scale_dtype,
        }
    }
}

/// What a tensor is that no weight is read with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    ActivationScale,
    /// It belongs to a weight that cannot be read; a finding says why.
    Broken,
    /// A rotation or another transform of a layer's input or output, done at run time.
    Transform,
    /// Of a norm, a bias, or anything else.
    Other,
}

/// A tensor that no weight is read with.
#[derive(Clone, Debug)]
pub struct Other {
    pub name: String,
    pub dtype: StDtype,
    pub shape: Vec<usize>,
    pub bytes: u64,
    pub what: What,
}

#[derive(Debug)]
pub struct Survey {
    pub checkpoint: String,
    /// What the configuration says about quantisation.
    pub claims: Vec<String>,
    /// There is no `config.json`.
    pub unconfigured: bool,
    /// A file is part of another checkpoint, written by `cargo accuracy shard`.
    pub carved: bool,
    pub files: usize,
    pub file_bytes: u64,
    pub tensors: usize,
    pub weights: Vec<Weight>,
    pub others: Vec<Other>,
    /// Weights and other tensors that could not be looked at, since their file cannot be used.
    pub unseen: usize,
    pub findings: Vec<Finding>,
    /// Values were read, not only headers.
    pub scanned: bool,
    broken_files: usize,
}

impl Survey {
    pub fn errors(&self) -> usize {
        self.findings.iter().filter(|f| f.severity == Severity::Error).count()
    }

    /// A file that is there is damaged.
    pub fn unreadable(&self) -> bool {
        self.broken_files > 0
    }
}

/// What becomes of a module.
enum Looked {
    Weight(Box<Weight>),
    Other(Other),
    Finding { module: String, finding: Finding },
    Unseen,
}

pub fn look(checkpoint: &Checkpoint) -> Survey {
    let mut survey = Survey {
        checkpoint: checkpoint.path().display().to_string(),
        claims: checkpoint.claims().map(str::to_owned).collect(),
        unconfigured: checkpoint.config().is_null(),
        carved: false,
        files: 0,
        file_bytes: 0,
        tensors: checkpoint.names().count(),
        weights: Vec::new(),
        others: Vec::new(),
        unseen: 0,
        findings: Vec::new(),
        scanned: false,
        broken_files: 0,
    };
    configuration(checkpoint, &mut survey);
    files(checkpoint, &mut survey);

    let names: Vec<&str> = checkpoint.names().collect();
    let mut modules: Vec<&str> = names.par_iter().filter_map(|name| module(checkpoint, name)).collect();
    modules.par_sort_by(|a, b| natural_cmp(a, b));
    modules.dedup();
    let looked: Vec<Looked> = modules.par_iter().map(|module| look_at(checkpoint, module)).collect();
    let mut failed = HashSet::new();
    for looked in looked {
        match looked {
            Looked::Weight(weight) => survey.weights.push(*weight),
            Looked::Other(other) => survey.others.push(other),
            Looked::Finding { module, finding } => {
                failed.insert(module);
                survey.findings.push(finding);
            }
            Looked::Unseen => survey.unseen += 1,
        }
    }
    let unscaled = survey.weights.iter().filter(|w| w.info.static_input && w.info.input_scale.is_none());
    let unscaled = unscaled.map(|w| input_scale_missing(&w.info.name)).collect::<Vec<_>>();
    survey.findings.extend(unscaled);
    untargeted(&mut survey);
    online(&mut survey);
    rest(checkpoint, &names, &failed, &mut survey);
    claims_without_weights(checkpoint, &mut survey);
    weights_without_claims(checkpoint, &mut survey);
    mixed(&mut survey);
    survey
}

/// What is wrong in the configuration, and the words of it that are not known.
fn configuration(checkpoint: &Checkpoint, survey: &mut Survey) {
    for problem in checkpoint.configuration_problems() {
        let of_a_file =
            !matches!(problem, WeightsError::BadConfig { .. } | WeightsError::NumberedFilesMissing { .. });
        survey.broken_files += usize::from(of_a_file);
        survey.findings.push(Finding {
            severity: Severity::Error,
            kind: problem.kind(),
            tensor: None,
            message: problem.to_string(),
        });
    }
    for word in checkpoint.unknown_words() {
        let message = word.to_string();
        let severity = Severity::Warning;
        survey.findings.push(Finding { severity, kind: "unknown_word", tensor: None, message });
    }
}

/// Weights of layers whose input or output something is done to at run time.
fn online(survey: &mut Survey) {
    let of = survey.weights.iter().filter(|weight| !weight.info.online.is_empty());
    let findings = of.map(|weight| {
        let info = &weight.info;
        let error = WeightsError::OnlineTransform { weight: info.name.clone(), online: info.online.clone() };
        Finding { severity: Severity::Warning, ..Finding::of(&info.name, &error) }
    });
    let findings: Vec<Finding> = findings.collect();
    survey.findings.extend(findings);
}

fn files(checkpoint: &Checkpoint, survey: &mut Survey) {
    let left_out: Vec<String> = checkpoint
        .files_left_out()
        .map(|file| file.file_name().unwrap_or_default().to_string_lossy().into_owned())
        .collect();
    if let [first, rest @ ..] = &left_out[..] {
        let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
        let message = format!(
            "{first}{more} in the folder: not read, since the index does not name {0}, or {1} the same weights in Mistral's \
             form; a survey of {0} names the file itself",
            if rest.is_empty() { "it" } else { "them" },
            if rest.is_empty() { "it holds" } else { "they hold" }
        );
        survey.findings.push(Finding { tensor: None, ..Finding::warning("files_left_out", "", message) });
    }
    for file in checkpoint.files() {
        match file {
            Ok(file) => {
                survey.files += 1;
                survey.file_bytes += file.bytes;
                survey.carved |= file.metadata.is_some_and(crate::shard::is_of_a_shard);
                if let [first, ..] = &file.unlisted[..] {
                    let message = format!(
                        "{}: the index does not list, or puts elsewhere, {} of its tensors: `{first}`{}",
                        file.path.display(),
                        file.unlisted.len(),
                        if file.unlisted.len() > 1 { ", ..." } else { "" }
                    );
                    survey.findings.push(Finding::warning("unlisted", first, message));
                }
            }
            Err(error) => {
                survey.broken_files += usize::from(!matches!(error, WeightsError::ShardMissing { .. }));
                survey.findings.push(Finding {
                    severity: Severity::Error,
                    kind: error.kind(),
                    tensor: None,
                    message: error.to_string(),
                });
            }
        }
    }
}

/// The module whose weight this tensor is, if it is a weight.
fn module<'n>(checkpoint: &Checkpoint, name: &'n str) -> Option<&'n str> {
    if checkpoint.is_transform(name) {
        return None;
    }
    match role(name) {
        Role::Weight { module } => Some(module),
        Role::Companion { .. } | Role::ActivationScale => None,
        Role::Other => {
            if let Some(module) = checkpoint.foreign_module(name) {
                return Some(module);
            }
            // Zero points of a matrix's shape, or a low-rank product.
            if checkpoint.comes_with_a_weight(name) {
                return None;
            }
            let tensor = checkpoint.raw(name).ok()?;
            let scaled = || ["_scale_inv", "_scale", "_scales"].iter().any(|e| has(checkpoint, name, e));
            let matrix = is_float(tensor.dtype) && tensor.shape.len() > 1 && !name.ends_with("bias");
            (matrix || is_quantized(tensor.dtype) || scaled()).then_some(name)
        }
    }
}

fn has(checkpoint: &Checkpoint, name: &str, ending: &str) -> bool {
    checkpoint.raw(&format!("{name}{ending}")).is_ok()
}

fn is_float(dtype: StDtype) -> bool {
    matches!(dtype, StDtype::F32 | StDtype::F16 | StDtype::BF16)
}

/// Whether a tensor of this dtype cannot be but a weight's codes.
fn is_quantized(dtype: StDtype) -> bool {
    use StDtype::*;
    matches!(dtype, F8_E4M3 | F8_E5M2 | F8_E4M3FNUZ | F8_E5M2FNUZ | F6_E2M3 | F6_E3M2 | F4)
}

fn look_at(checkpoint: &Checkpoint, module: &str) -> Looked {
    let stored = [format!("{module}.weight"), module.to_owned()];
    if let Some(tensor) = stored.iter().find_map(|name| checkpoint.raw(name).ok())
        && is_float(tensor.dtype)
        && !is_matrix(&tensor)
    {
        return Looked::Other(other(&tensor));
    }
    match checkpoint.describe(module) {
        Ok(info) => {
            let bytes = |name: &String| checkpoint.raw(name).map_or(0, |t| t.bytes.len() as u64);
            let code_bytes = info.tensors.first().map_or(0, bytes);
            let scale_bytes = info.tensors.iter().skip(1).map(bytes).sum();
            Looked::Weight(Box::new(Weight { info, code_bytes, scale_bytes }))
        }
        Err(error) if is_of_a_file(&error) => Looked::Unseen,
        Err(error) => Looked::Finding { module: module.to_owned(), finding: Finding::of(module, &error) },
    }
}

/// Norms are vectors and convolutions have more dimensions; experts are stacked matrices.
fn is_matrix(tensor: &RawTensor) -> bool {
    match tensor.shape.len() {
        2 => true,
        3 => tensor.name.contains("expert"),
        _ => false,
    }
}

fn other(tensor: &RawTensor) -> Other {
    Other {
        name: tensor.name.to_owned(),
        dtype: tensor.dtype,
        shape: tensor.shape.to_vec(),
        bytes: tensor.bytes.len() as u64,
        what: if role(tensor.name) == Role::ActivationScale { What::ActivationScale } else { What::Other },
    }
}

/// Whether a file is to blame, for which there is a finding already.
fn is_of_a_file(error: &WeightsError) -> bool {
    use WeightsError::*;
    matches!(
        error,
        NotFound { .. }
            | Io { .. }
            | LfsPointer { .. }
            | HtmlPage { .. }
            | Truncated { .. }
            | HeaderTooLong { .. }
            | HeaderNotJson { .. }
            | BadHeader { .. }
            | BadGguf { .. }
            | TrailingBytes { .. }
            | ShardMissing { .. }
    )
}

/// Tensors that no weight was read from.
fn rest(checkpoint: &Checkpoint, names: &[&str], failed: &HashSet<String>, survey: &mut Survey) {
    let mut used: HashSet<&str> =
        survey.weights.iter().flat_map(|w| w.info.tensors.iter().map(String::as_str)).collect();
    used.extend(survey.others.iter().map(|o| o.name.as_str()));
    let (mut others, mut findings, mut unseen) = (Vec::new(), Vec::new(), 0);
    for name in names.iter().filter(|name| !used.contains(**name)) {
        let role = role(name);
        let broken = failed.contains(*name)
            || matches!(role, Role::Weight { module } | Role::Companion { module } if failed.contains(module));
        let tensor = match checkpoint.raw(name) {
            Ok(tensor) => tensor,
            Err(error) if is_of_a_file(&error) => {
                // A weight is counted where it was looked for.
                unseen += usize::from(!matches!(role, Role::Weight { .. }));
                continue;
            }
            Err(_) if broken => continue,
            Err(error) => {
                findings.push(Finding::of(name, &error));
                continue;
            }
        };
        if broken {
            others.push(Other { what: What::Broken, ..other(&tensor) });
            continue;
        }
        if checkpoint.is_transform(name) {
            others.push(Other { what: What::Transform, ..other(&tensor) });
            continue;
        }
        if checkpoint.is_orphan(name) {
            let message =
                format!("`{name}` {:?} has no weight: nothing is stored that it could scale", tensor.shape);
            findings.push(Finding::error("orphan", name, message));
        } else if let Role::Companion { module } = role
            && belongs(checkpoint, module)
        {
            let message = format!("`{name}` {:?} is not needed to read its weight", tensor.shape);
            findings.push(Finding::warning("unused", name, message));
        } else if let Some(finding) = codes_of_nobody(checkpoint, &tensor, failed) {
            findings.push(finding);
        }
        others.push(other(&tensor));
    }
    survey.others.extend(others);
    survey.others.sort_by(|a, b| natural_cmp(&a.name, &b.name));
    survey.findings.extend(findings);
    survey.unseen += unseen;
}

/// A matrix of integers that no weight was read from, where the configuration speaks of a scheme that is not known: it
/// can hardly be anything but a weight's codes.
fn codes_of_nobody(checkpoint: &Checkpoint, tensor: &RawTensor, failed: &HashSet<String>) -> Option<Finding> {
    use StDtype::{I8, I16, I32, U8, U16, U32};
    let codes = matches!(tensor.dtype, I8 | I16 | I32 | U8 | U16 | U32) && tensor.shape.len() > 1;
    if !codes || checkpoint.unknown_words().is_empty() {
        return None;
    }
    // Where the module's weight was read, or a finding says why not, all is said.
    let module = tensor.name.rsplit_once('.').map_or(tensor.name, |(module, _)| module);
    if failed.contains(module) || checkpoint.describe(module).is_ok() {
        return None;
    }
    let message = format!(
        "`{}` {} {:?} seems to hold codes of a weight in a scheme that is not read: the configuration names one that is \
         not known here",
        tensor.name, tensor.dtype, tensor.shape
    );
    Some(Finding::error("unread_scheme", tensor.name, message))
}

/// Quantised weights that no target of the configuration names: engines take them for unquantised or refuse them.
///
/// It is but odd where the model's modules may be called otherwise than the tensors: where no target names any of them,
/// and for experts, which models fuse in their own ways.
fn untargeted(survey: &mut Survey) {
    let quantized = survey.weights.iter().filter(|w| w.info.scheme != Scheme::Unquantized);
    let (without, named): (Vec<&Weight>, Vec<&Weight>) = quantized.partition(|w| w.info.untargeted);
    let finding = |weight: &&Weight| {
        let name = &weight.info.name;
        let others = match named.first() {
            Some(named) => format!("do not name it, as they do `{}`", named.info.name),
            None => "name no quantised weight".to_owned(),
        };
        let kind = describe(Kind::of(&weight.info));
        let message = format!("`{name}` is stored as {kind}, and the configuration's targets {others}");
        let odd = named.is_empty() || name.contains("experts");
        let severity = if odd { Severity::Warning } else { Severity::Error };
        Finding { severity, ..Finding::error("untargeted", name, message) }
    };
    let findings: Vec<Finding> = without.iter().map(finding).collect();
    survey.findings.extend(findings);
}

fn input_scale_missing(module: &str) -> Finding {
    let message = format!(
        "`{module}` has no input_scale, though the configuration says that its input is quantised with a stored one"
    );
    Finding::error("input_scale_missing", module, message)
}

/// Whether there is anything called so that a companion could be of.
fn belongs(checkpoint: &Checkpoint, module: &str) -> bool {
    ["", ".weight", ".qweight", ".weight_packed", ".blocks", "_blocks"]
        .iter()
        .any(|e| has(checkpoint, module, e))
}

/// A checkpoint that has nothing of what its configuration says.
fn claims_without_weights(checkpoint: &Checkpoint, survey: &mut Survey) {
    // One file of several, or one of which not everything was read, need not have all schemes.
    if !checkpoint.path().is_dir() || survey.unseen > 0 || survey.errors() > 0 {
        return;
    }
    let quantized = survey.weights.iter().any(|w| w.info.scheme != Scheme::Unquantized);
    let all_known = checkpoint.unknown_words().is_empty();
    if !survey.claims.is_empty() && !quantized && all_known {
        let message =
            format!("the configuration says {}, but no weight is quantised", survey.claims.join("; "));
        survey.findings.push(Finding {
            severity: Severity::Error,
            kind: "nothing_quantized",
            tensor: None,
            message,
        });
    }
}

/// Quantised weights of which the configuration does not speak: what they are is read from their tensors alone, while
/// engines go by the configuration.
fn weights_without_claims(checkpoint: &Checkpoint, survey: &mut Survey) {
    if !survey.claims.is_empty() || !checkpoint.configuration_problems().is_empty() {
        return;
    }
    // OpenAI's own form of gpt-oss is known by the names of its tensors.
    let by_name = |w: &&Weight| w.info.tensors.first().is_some_and(|t| t.ends_with(".blocks"));
    let quantized =
        survey.weights.iter().filter(|w| w.info.scheme.is_quantized() && !w.info.scheme.says_itself());
    let quantized: Vec<&Weight> = quantized.filter(|w| !by_name(w)).collect();
    let Some(first) = quantized.first() else { return };
    let says_nothing = match (survey.unconfigured, checkpoint.path().is_dir()) {
        (true, true) => format!("there is no config.json in {}", checkpoint.path().display()),
        (true, false) => format!("there is no config.json beside {}", checkpoint.path().display()),
        (false, _) => "config.json has no quantization_config for weights".to_owned(),
    };
    let message = format!(
        "{} of {} weights are quantised (`{}`: {}, by dtypes, shapes and names alone), but {says_nothing}: engines \
         go by it and would take the codes for values",
        quantized.len(),
        survey.weights.len(),
        first.info.name,
        describe(Kind::of(&first.info))
    );
    // A file on its own may be part of a checkpoint whose configuration is elsewhere.
    let severity =
        if survey.unconfigured && checkpoint.path().is_file() { Severity::Warning } else { Severity::Error };
    survey.findings.push(Finding { severity, kind: "no_quantization_config", tensor: None, message });
}

/// Weights of one place in the model that are not stored alike in all layers.
fn mixed(survey: &mut Survey) {
    let mut places: BTreeMap<String, Vec<(Kind, usize, &str)>> = BTreeMap::new();
    for weight in &survey.weights {
        let kinds = places.entry(place(&weight.info.name)).or_default();
        let kind = Kind::of(&weight.info);
        match kinds.iter_mut().find(|(k, ..)| *k == kind) {
            Some((_, count, _)) => *count += 1,
            None => kinds.push((kind, 1, &weight.info.name)),
        }
    }
    let findings: Vec<Finding> = places
        .into_iter()
        .filter(|(_, kinds)| kinds.len() > 1)
        .map(|(place, kinds)| {
            let parts: Vec<String> = kinds
                .iter()
                .map(|(kind, count, first)| format!("{count} are {} (first `{first}`)", describe(*kind)))
                .collect();
            let message = format!("`{place}` is not stored alike: {}", parts.join(", "));
            Finding::warning("mixed", &place, message)
        })
        .collect();
    survey.findings.extend(findings);
}

/// `FP8 e4m3fn`, or `int8`, where the scheme says it all.
pub fn codes(kind: Kind) -> String {
    let (scheme, dtype) = (kind.scheme.to_string(), kind.dtype.name());
    if scheme.ends_with(dtype) { scheme } else { format!("{scheme} {dtype}") }
}

/// `FP8 e4m3fn, f32 scales, block 128x128`
pub fn describe(kind: Kind) -> String {
    match kind.scale_dtype {
        None => codes(kind),
        Some(scale) => format!("{}, {scale} scales, {}", codes(kind), kind.granularity),
    }
}

/// A name with `*` for the numbers of layers and experts.
pub fn place(name: &str) -> String {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<&str> = name.split('.').map(|part| if number(part) { "*" } else { part }).collect();
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_layers_and_experts_are_left_open() {
        assert_eq!(place("model.layers.17.mlp.experts.3.up_proj"), "model.layers.*.mlp.experts.*.up_proj");
        assert_eq!(place("h.1a.w13"), "h.1a.w13");
    }
}
