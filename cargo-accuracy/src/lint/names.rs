//! What names mean: numerics-bearing parameters, tuning knobs, backend words, logging and pure calls.
//! Lists only; the configuration may add to them.

/// Words of an identifier in lower case: `x_bias`, `fc1SmoothScale`, `HAVE_V_SCALE`.
pub fn words(name: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut word = String::new();
    let mut previous_lower = false;
    for c in name.chars() {
        if !c.is_alphanumeric() {
            if !word.is_empty() {
                out.push(std::mem::take(&mut word));
            }
            previous_lower = false;
            continue;
        }
        if c.is_uppercase() && previous_lower && !word.is_empty() {
            out.push(std::mem::take(&mut word));
        }
        previous_lower = c.is_lowercase() || c.is_ascii_digit();
        word.extend(c.to_lowercase());
    }
    if !word.is_empty() {
        out.push(word);
    }
    out
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Meaning {
    /// Tuning, sizes, plumbing: ignoring it does not change a result.
    Tuning,
    Neutral,
    /// Changes numbers in some contexts.
    Numeric,
    /// Changes the numbers or their layout by its very name.
    Semantic,
}

const TUNING: &[&str] = &[
    "warps",
    "stages",
    "waves",
    "pdl",
    "workspace",
    "stream",
    "streams",
    "kernelname",
    "kernelid",
    "solidx",
    "tune",
    "tuning",
    "persistent",
    "cu",
    "hint",
    "verbose",
    "debug",
    "loc",
    "ip",
    "device",
    "backend",
    "stride",
    "strides",
    "unroll",
    "profile",
    "timeout",
    "prefix",
    "callback",
    "comm",
    "rank",
    "barrier",
    "warmup",
    "iters",
    "repeat",
    "autotune",
    "heuristic",
    "generator",
    "arch",
    "gfx",
    "pid",
    "logger",
    "kwargs",
    "ctx",
    "numel",
    "xcds",
];
const SEMANTIC: &[&str] = &[
    "scale",
    "scales",
    "descale",
    "dequant",
    "scaling",
    "eps",
    "epsilon",
    "dtype",
    "otype",
    "layout",
    "bias",
    "causal",
    "softcap",
    "softcapping",
    "alibi",
    "sink",
    "sinks",
    "shuffle",
    "shuffled",
    "preshuffle",
    "preshuffled",
    "bpreshuffle",
    "apreshuffle",
    "transa",
    "transb",
    "colmajor",
    "rowmajor",
    "neox",
    "interleaved",
    "zp",
    "activation",
    "swiglu",
    "dropout",
    "rounding",
    "renormalize",
    "renorm",
    "leftpad",
    "rotate",
    "nope",
    "scaleb",
    "scalea",
    "amax",
    "window",
    "gemma",
    "residual",
    "clamp",
    "temperature",
    "quantized",
];
const NUMERIC: &[&str] = &[
    "mask",
    "alpha",
    "beta",
    "gamma",
    "limit",
    "quant",
    "norm",
    "rmsnorm",
    "layernorm",
    "round",
    "round_mode",
    "zeros",
    "padded",
    "normalize",
    "sigmoid",
    "softmax",
    "cap",
    "correction",
    "act",
    "inplace",
    "stochastic",
    "tril",
    "decay",
    "momentum",
    "cosine",
    "rope",
    "rotary",
    "theta",
    "smooth",
    "accumulate",
    "saturate",
    "convert",
    "reduction",
    "reduce",
    "seqlens",
    "swizzle",
    "swizzled",
    "qk",
    "style",
    "clip",
    "signed",
    "symmetric",
    "ignore",
];
/// Parts that turn a meaningful word into plumbing (`stride_scale_m`, `num_scales`, `scale_ptr_offset`).
const PLUMBING: &[&str] = &[
    "stride",
    "strides",
    "num",
    "count",
    "max",
    "min",
    "offset",
    "offsets",
    "index",
    "idx",
    "numel",
    "align",
    "alignment",
    "bytes",
    "capacity",
    "allocator",
    "rsrc",
    "tdm",
    "smem",
    "lds",
    "addr",
];

/// `col_major`, `b_row_major`, `is_k_major`: the major version of a device or of a library is none.
fn names_major_axis(words: &[String]) -> bool {
    let axis = |w: &str| matches!(w, "col" | "cols" | "column" | "row" | "rows" | "k" | "m" | "n" | "mn");
    words.windows(2).any(|w| w[1] == "major" && axis(&w[0]))
}

/// `order`, `scale_order`: the order in which a kernel works through its grid is none of the data.
fn names_order(words: &[String]) -> bool {
    const OF_WORK: &[&str] =
        &["raster", "loop", "traversal", "dispatch", "grid", "execution", "launch", "group"];
    words.last().is_some_and(|w| w == "order") && !words.iter().any(|w| OF_WORK.contains(&w.as_str()))
}

/// A measure by its name: a count, a stride, an offset.
pub fn is_measure(name: &str) -> bool {
    measures(&words(name))
}

/// Whether words name a measure, in the singular or the plural, or how work is divided.
fn measures(words: &[String]) -> bool {
    words.iter().any(|w| PLUMBING.contains(&w.as_str()) || w == "indices") || divides(words)
}

/// How a kernel's work is divided: a number of parts (`n_splits`), the extent of a tile along one axis (`tile_n`, `block_m`).
pub fn divides_work(name: &str) -> bool {
    divides(&words(name))
}

fn divides(words: &[String]) -> bool {
    let [a, b] = words else { return false };
    let axis = |w: &str| matches!(w, "m" | "n" | "k" | "q" | "kv" | "x" | "y");
    let tile = |w: &str| matches!(w, "tile" | "block");
    let parts = |w: &str| matches!(w, "splits" | "tiles" | "blocks" | "ctas");
    matches!(a.as_str(), "n" | "num") && parts(b) || tile(a) && axis(b) || axis(a) && tile(b)
}

/// How much a parameter's name says that ignoring it changes the result.
pub fn meaning(name: &str, config: &super::config::Names) -> Meaning {
    if config.is_perf(name) {
        return Meaning::Tuning;
    }
    if config.is_semantic(name) {
        return Meaning::Semantic;
    }
    let words = words(name);
    let has = |list: &[&str]| words.iter().any(|w| list.contains(&w.as_str()));
    if matches!(words.first().map(String::as_str), Some("return" | "emit" | "skip" | "output" | "out"))
        && words.len() > 1
        && !has(&["dtype", "scale", "layout", "transpose"])
    {
        return Meaning::Neutral;
    }
    let pair = |a: &str, b: &str| words.windows(2).any(|w| w[0] == a && w[1] == b);
    if pair("group", "size") || pair("soft", "cap") || pair("logit", "cap") || pair("logits", "cap") {
        return Meaning::Semantic;
    }
    if pair("zero", "point")
        || pair("zero", "points")
        || pair("block", "table")
        || pair("cu", "seqlens")
        || pair("seq", "lens")
    {
        return Meaning::Semantic;
    }
    if words.last().is_some_and(|w| w == "size" || w == "type" && !words.iter().any(|w| w == "quant"))
        || words.first().is_some_and(|w| w == "d" && words.len() > 1)
    {
        return Meaning::Neutral;
    }
    // A flag about another parameter.
    if words.first().is_some_and(|w| w == "has" || w == "have") {
        return Meaning::Neutral;
    }
    if pair("quant", "type") || pair("round", "mode") || pair("expert", "mask") {
        return Meaning::Numeric;
    }
    if measures(&words) {
        return Meaning::Tuning;
    }
    // Split-K changes the order of summation at most: a knob.
    if words.iter().any(|w| matches!(w.as_str(), "splitk" | "ksplit")) || pair("split", "k") {
        return Meaning::Neutral;
    }
    let transposes = words.iter().any(|w| w.starts_with("transpos"));
    if has(SEMANTIC) || transposes || names_major_axis(&words) || names_order(&words) {
        return Meaning::Semantic;
    }
    if has(NUMERIC) {
        return Meaning::Numeric;
    }
    if has(TUNING) {
        return Meaning::Tuning;
    }
    Meaning::Neutral
}

/// Parameters of quantisation, which a mode without quantisation has no use for.
pub fn is_quantisation(name: &str) -> bool {
    let words = words(name);
    words.iter().any(|w| {
        matches!(
            w.as_str(),
            "scale"
                | "scales"
                | "descale"
                | "zp"
                | "smooth"
                | "quant"
                | "amax"
                | "dequant"
                | "dtype"
                | "otype"
                | "shuffle"
                | "preshuffle"
                | "scaling"
        )
    }) || name.to_lowercase().contains("group_size")
        || name.to_lowercase().contains("zero_point")
}

/// Whether who passes `given` in a quantised mode would pass `missed`, too: both speak of one operand (`fc1_scale`,
/// `fc1_smooth_scale`; not `w1_scale`, `a1_scale`). Zero points are missed only where there are others: a symmetric format
/// has none.
pub fn quantises_alike(given: &str, missed: &str) -> bool {
    let generic = |w: &String| {
        matches!(
            w.as_str(),
            "scale"
                | "scales"
                | "descale"
                | "scaling"
                | "zp"
                | "zeros"
                | "zero"
                | "point"
                | "points"
                | "smooth"
                | "quant"
        )
    };
    let zero = |words: &[String]| words.iter().any(|w| matches!(w.as_str(), "zp" | "zeros" | "zero"));
    let (given, missed) = (words(given), words(missed));
    let factor = |w: &String| {
        matches!(
            w.as_str(),
            "scale" | "scales" | "descale" | "scaling" | "zp" | "zeros" | "zero" | "smooth" | "amax"
        )
    };
    if !given.iter().any(factor) || zero(&missed) && !zero(&given) {
        return false;
    }
    let mut operand = missed.iter().filter(|w| !generic(w)).peekable();
    operand.peek().is_none() || operand.any(|w| given.contains(w))
}

/// A name in a test that says which number format or quantisation mode is at hand.
pub fn is_mode(name: &str) -> bool {
    let lower = name.to_lowercase();
    ["dtype", "quant", "fp8", "fp4", "mxfp", "int8", "int4", "bf16", "fp16", "e8m0", "nvfp", "w8a8", "a8w8"]
        .iter()
        .any(|m| lower.contains(m))
}

/// A parameter that chooses whether or how operands are quantised. A plain `dtype` is mostly the output's.
pub fn selects_quantisation(name: &str) -> bool {
    let lower = name.to_lowercase();
    is_mode(name) && (!lower.contains("dtype") || lower.contains("cache_dtype"))
}

pub const BACKENDS: &[&str] = &[
    "fallback",
    "ref",
    "reference",
    "torch",
    "pytorch",
    "native",
    "naive",
    "eager",
    "emulation",
    "triton",
    "gluon",
    "hip",
    "ck",
    "cktile",
    "tile",
    "asm",
    "opus",
    "flydsl",
    "aiter",
    "cuda",
    "rocm",
    "cpu",
    "gpu",
    "metal",
    "mps",
    "neon",
    "simd",
    "hpu",
    "ipex",
    "gaudi",
    "xpu",
    "npu",
    "tpu",
    "musa",
    "cutlass",
    "cutedsl",
    "cute",
    "tilelang",
    "wave",
    "trtllm",
    "flashinfer",
    "fa2",
    "fa3",
    "fa4",
    "marlin",
    "deepgemm",
    "sdpa",
    "sm90",
    "sm100",
    "gfx942",
    "gfx950",
    "gfx1250",
    "v1",
    "v2",
    "v3",
    "impl",
    "fast",
    "slow",
    "hipblaslt",
    "cublas",
    "cudnn",
    "mkl",
    "tune",
    "generic",
    "simple",
    "basic",
    "aot",
    "hpu",
    "xla",
    "oneshot",
];

/// A word that says where or by what a function runs.
pub fn is_backend(word: &str) -> bool {
    BACKENDS.contains(&word)
}

/// The name without backend words, and whether it had any.
pub fn stem(name: &str, config: &super::config::Names) -> (String, bool) {
    let all = words(name);
    let n = all.len();
    let kept: Vec<String> = all
        .into_iter()
        .filter(|w| !BACKENDS.contains(&w.as_str()) && !config.backend_tokens.iter().any(|t| t == w))
        .collect();
    let stripped = kept.len() < n;
    (kept.join("_"), stripped)
}

/// Words that make another job of a function's name: `attention_bwd` is no variant of `attention`.
pub fn changes_job(word: &str) -> bool {
    matches!(
        word,
        "bwd"
            | "backward"
            | "fwd"
            | "forward"
            | "grad"
            | "config"
            | "plan"
            | "size"
            | "workspace"
            | "fake"
            | "meta"
            | "test"
            | "check"
            | "can"
            | "is"
            | "supported"
            | "init"
            | "prepare"
            | "get"
            | "make"
            | "create"
            | "build"
            | "stage1"
            | "stage2"
            | "setup"
            | "shape"
            | "name"
            | "inverse"
            | "inv"
            | "un"
            | "de"
            | "dequant"
            | "dequantize"
            | "kernel"
    )
}

/// The last name of a path: `f` of `a.b::f`.
pub fn last(path: &str) -> &str {
    path.rsplit(['.', ':']).next().unwrap_or(path)
}

/// The part of a path that says what is done: its last name, or the one before it where that is `apply` or `forward`.
fn job(path: &str) -> &str {
    let name = last(path);
    if !matches!(name, "apply" | "forward" | "__call__" | "call" | "run" | "func" | "kernel" | "bind") {
        return name;
    }
    let before = path[..path.len() - name.len()].trim_end_matches(['.', ':']);
    if before.is_empty() { name } else { last(before) }
}

/// Whether two callees look like alternatives for one job, by the words of their names.
pub fn alternatives(a: &str, b: &str) -> bool {
    let of = |path: &str| -> Vec<String> {
        words(job(path))
            .into_iter()
            .map(|w| {
                // `gemm2` is a `gemm`; `fp8` and `int8` are formats.
                let bare = w.trim_matches(|c: char| c.is_ascii_digit());
                if bare.len() > 3 { bare.to_owned() } else { w }
            })
            .filter(|w| {
                w.len() >= 3
                    && !BACKENDS.contains(&w.as_str())
                    && !matches!(
                        w.as_str(),
                        "self"
                            | "apply"
                            | "ops"
                            | "func"
                            | "kernel"
                            | "get"
                            | "run"
                            | "call"
                            | "the"
                            | "with"
                            | "for"
                    )
            })
            .collect()
    };
    let (a, b) = (of(a), of(b));
    a.iter().any(|x| {
        b.iter().any(|y| {
            x == y || x.len() >= 4 && y.contains(x.as_str()) || y.len() >= 4 && x.contains(y.as_str())
        })
    })
}

/// Whether the name of `more` is that of `less` with something added (`decode_guided`, `decode`) to which the parameter
/// belongs (`guide_scale`). Words that say where or by what a function runs add nothing.
pub fn adds(more: &str, less: &str, parameter: &str) -> bool {
    let (more, less) = (words(last(more)), words(last(less)));
    let mut rest = more.iter();
    if less.is_empty() || !less.iter().all(|w| rest.any(|r| r == w)) {
        return false;
    }
    let stem = |w: &str| w.chars().take(5).collect::<String>();
    let mut added = more.iter().filter(|w| !less.contains(w) && !is_backend(w));
    let parameter = words(parameter);
    added.any(|w| parameter.iter().any(|p| w.len() > 2 && stem(p) == stem(w)))
}

/// Two stages of one pipeline (`stage1`, `stage2`; forward, backward) are no alternatives.
pub fn stages(a: &str, b: &str) -> bool {
    let last = |p: &str| p.rsplit(['.', ':']).next().unwrap_or(p).to_lowercase();
    let (a, b) = (last(a), last(b));
    let without = |s: &str| s.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    let staged = |s: &str| {
        ["stage", "gemm1", "gemm2", "phase", "pass", "step", "fwd", "bwd"].iter().any(|k| s.contains(k))
    };
    if a == b || !staged(&a) || !staged(&b) {
        return false;
    }
    let number = |s: &str| {
        ["stage1", "stage2", "gemm1", "gemm2"]
            .iter()
            .filter(|k| s.contains(*k))
            .map(|k| k.as_bytes()[k.len() - 1])
            .next()
    };
    match (number(&a), number(&b)) {
        (Some(x), Some(y)) => x != y,
        _ => {
            without(&a) == without(&b) && !a.contains("_v")
                || a.contains("fwd") != b.contains("fwd") && a.contains("bwd") != b.contains("bwd")
        }
    }
}

/// Names of one quantity in different backends.
const ALIASES: &[&[&str]] = &[
    &[
        "softcap",
        "logits_soft_cap",
        "logit_cap",
        "softcapping",
        "soft_cap",
        "logits_softcap",
        "logit_softcap",
        "attn_logit_softcapping",
    ],
    &["scale", "sm_scale", "softmax_scale", "scaling", "attn_scale"],
    &["transpose_scale", "shuffle_scale"],
    &["sinks", "sink", "sink_ptr", "learnable_sink", "s_aux"],
    &["eps", "epsilon", "rms_eps", "rms_norm_eps", "variance_epsilon", "layer_norm_eps"],
    &["causal", "is_causal"],
    &["window_size", "sliding_window", "window"],
    &["alibi_slopes", "alibi"],
    &["out_dtype", "dtype", "otype", "output_dtype"],
    &["transpose_out", "transpose_output"],
    &["is_neox", "is_neox_style", "neox_style"],
    &["splitk", "split_k", "ksplit"],
    &["dropout_p", "p_dropout", "dropout"],
];

pub fn same_quantity(a: &str, b: &str, config: &super::config::Names) -> bool {
    if a == b {
        return true;
    }
    let (a, b) = (a.to_lowercase(), b.to_lowercase());
    let (a, b) = (a.trim_matches('_'), b.trim_matches('_'));
    a == b
        || ALIASES.iter().any(|s| s.contains(&a) && s.contains(&b))
        || config.aliases.iter().any(|s| s.iter().any(|x| x == a) && s.iter().any(|x| x == b))
}

/// Calls whose arguments are shown, not used. `math.log` is arithmetic.
pub fn is_log(path: &str) -> bool {
    let (base, last) = path.rsplit_once('.').unwrap_or(("", path));
    if base.is_empty() {
        return matches!(
            last,
            "print"
                | "printf"
                | "fprintf"
                | "pprint"
                | "println"
                | "eprintln"
                | "log_info"
                | "warn_once"
                | "warning_once"
                | "TORCH_WARN"
                | "TORCH_WARN_ONCE"
                | "LOG"
                | "VLOG"
                | "AITER_LOG"
                | "AITER_LOG_WARNING"
                | "AITER_LOG_INFO"
        );
    }
    let base = base.to_lowercase();
    let logger = base.rsplit('.').next().unwrap_or("");
    match last {
        "debug" | "info" | "warning" | "warn" | "error" | "exception" | "critical" | "log" | "info_once"
        | "warning_once" | "debug_once" | "trace" | "fatal" => {
            logger.contains("log") || logger == "warnings" || logger == "tracing"
        }
        _ => false,
    }
}

/// Calls that warn: a log call of a level that is shown by default.
pub fn is_warning(path: &str) -> bool {
    let last = path.rsplit(['.', ':']).next().unwrap_or(path).to_lowercase();
    is_log(path) && ["warn", "error", "critical"].iter().any(|w| last.contains(w))
}

/// Arithmetic of whole numbers as launch code writes it.
pub fn is_whole_number(path: &str) -> bool {
    matches!(last(path), "cdiv" | "next_power_of_2" | "ceil_div" | "div_up" | "round_up")
}

/// Calls that allocate memory without contents.
pub fn allocates_empty(last: &str) -> bool {
    matches!(last, "empty" | "empty_like" | "empty_strided" | "new_empty" | "new_empty_strided")
}

/// Calls without effect: their arguments are used only if their result is.
pub fn is_pure(path: &str, last: &str, method: bool) -> bool {
    if !path.contains(['.', ':']) {
        return is_cast(path)
            || matches!(
                path,
                "len"
                    | "min"
                    | "max"
                    | "abs"
                    | "sum"
                    | "round"
                    | "range"
                    | "zip"
                    | "enumerate"
                    | "sorted"
                    | "reversed"
                    | "isinstance"
                    | "issubclass"
                    | "hasattr"
                    | "getattr"
                    | "type"
                    | "id"
                    | "repr"
                    | "hash"
                    | "any"
                    | "all"
                    | "map"
                    | "filter"
                    | "iter"
                    | "next"
                    | "divmod"
                    | "pow"
                    | "ceil_div"
                    | "cdiv"
                    | "ceildiv"
                    | "static_cast"
                    | "reinterpret_cast"
                    | "const_cast"
                    | "sizeof"
                    | "sqrt"
                    | "sqrtf"
                    | "log2"
                    | "exp"
            );
    }
    if path.starts_with("math.")
        || path.starts_with("std::")
        || path.starts_with("np.")
        || path.starts_with("numpy.")
    {
        return !matches!(
            last,
            "copyto"
                | "swap"
                | "sort"
                | "memcpy"
                | "invoke"
                | "apply"
                | "function"
                | "call_once"
                | "copy"
                | "fill"
        );
    }
    if path.starts_with("tl.") || path.starts_with("gl.") || path.starts_with("ttgl.") {
        // Deeper paths (`gl.amd.tdm.async_load`) move data.
        return path.matches('.').count() == 1
            && !["store", "atomic", "print", "async", "copy", "barrier", "assert", "assume", "wait"]
                .iter()
                .any(|k| last.contains(k));
    }
    method
        && (passes_through(last)
            || matches!(
                last,
                "size"
                    | "dim"
                    | "numel"
                    | "stride"
                    | "element_size"
                    | "get"
                    | "format"
                    | "lower"
                    | "upper"
                    | "startswith"
                    | "endswith"
                    | "item"
                    | "is_contiguous"
                    | "keys"
                    | "values"
                    | "items"
                    | "index"
                    | "count"
                    | "split"
                    | "join"
                    | "dtype"
                    | "scalar_type"
                    | "sizes"
                    | "strides"
                    | "has_value"
                    | "defined"
            ))
}

/// Methods that return their receiver in another form.
pub fn passes_through(method: &str) -> bool {
    matches!(
        method,
        "view"
            | "reshape"
            | "contiguous"
            | "to"
            | "float"
            | "half"
            | "bool"
            | "int"
            | "long"
            | "t"
            | "transpose"
            | "permute"
            | "unsqueeze"
            | "squeeze"
            | "flatten"
            | "expand"
            | "data_ptr"
            | "detach"
            | "clone"
            | "type"
            | "astype"
            | "value"
            | "value_or"
            | "cpu"
            | "cuda"
            | "item"
            | "tolist"
            | "bfloat16"
            | "get"
            | "as_ptr"
            | "clone_from"
            | "view_as"
            | "narrow"
            | "expand_as"
            | "repeat"
            | "mutable_data_ptr"
            | "const_data_ptr"
            | "unwrap"
            | "as_ref"
            | "into"
            | "as_deref"
            | "unwrap_or"
    )
}

pub fn is_cast(name: &str) -> bool {
    let last = name.rsplit(['.', ':']).next().unwrap_or(name);
    matches!(
        last,
        "int"
            | "float"
            | "bool"
            | "str"
            | "tuple"
            | "list"
            | "move"
            | "forward"
            | "make_optional"
            | "uint32_t"
            | "int32_t"
            | "int64_t"
            | "size_t"
            | "double"
            | "Some"
            | "value_or"
            | "get_ptr"
            | "const_data_ptr"
            | "static_cast"
            | "c_int"
            | "c_float"
    )
}

/// Calls that fix an output's shape, dtype or layout.
pub fn shapes_output(last: &str) -> bool {
    matches!(
        last,
        "empty"
            | "zeros"
            | "ones"
            | "full"
            | "new_empty"
            | "new_zeros"
            | "empty_like"
            | "zeros_like"
            | "empty_strided"
            | "new_empty_strided"
            | "transpose"
            | "permute"
            | "new_full"
            | "rand"
            | "randn"
    )
}

/// Calls that prepare a computation and are no alternative to one.
pub fn is_helper(path: &str) -> bool {
    let last = path.rsplit(['.', ':']).next().unwrap_or(path);
    shapes_output(last)
        || passes_through(last)
        || matches!(
            last,
            "partial"
                | "empty"
                | "append"
                | "extend"
                | "update"
                | "copy_"
                | "fill_"
                | "zero_"
                | "cat"
                | "stack"
                | "where"
                | "arange"
                | "tensor"
                | "save_for_backward"
                | "Kernel"
                | "format"
                | "join"
        )
        || is_predicate(last)
}

/// Keywords that Triton's launcher takes for itself; no kernel sees them.
pub fn is_launch_option(keyword: &str) -> bool {
    matches!(
        keyword,
        "num_warps"
            | "num_stages"
            | "num_ctas"
            | "waves_per_eu"
            | "matrix_instr_nonkdim"
            | "kpack"
            | "maxnreg"
            | "grid"
            | "stream"
    )
}

/// Offline tools: tuners, code generators, scripts.
pub fn is_tool(path: &str) -> bool {
    let mut parts = path.rsplit('/');
    let file = parts.next().unwrap_or("");
    let stem = words(file.split('.').next().unwrap_or(""));
    let tool = |w: &str| {
        matches!(
            w,
            "tune"
                | "tuner"
                | "tuning"
                | "codegen"
                | "instances"
                | "generate"
                | "scripts"
                | "script"
                | "tools"
                | "examples"
                | "example"
                | "setup"
                | "profiling"
                | "profiler"
                | "autotune"
                | "samples"
                | "demo"
                | "prebuild"
        )
    };
    stem.iter().any(|w| tool(w)) || parts.any(|p| words(p).iter().any(|w| tool(w)))
}

/// Functions that only answer whether something is possible.
pub fn is_predicate(name: &str) -> bool {
    let name = name.trim_start_matches('_');
    let ends = [
        "_supported",
        "_requirement",
        "_requirements",
        "_verifier",
        "_validator",
        "_checker",
        "_eligible",
        "_applicable",
        "_compatible",
        "_available",
        "_predicate",
    ];
    let begins = [
        "can_",
        "is_",
        "are_",
        "supports_",
        "should_",
        "has_",
        "check_",
        "use_",
        "validate_",
        "verify_",
        "need_",
        "needs_",
    ];
    ends.iter().any(|e| name.ends_with(e)) || begins.iter().any(|b| name.starts_with(b))
}

/// A parameter that its own name declares to be unused, as compilers and linters read names: `_x`, `unused_x`, `dummy_x`.
pub fn disowned(name: &str) -> bool {
    name.starts_with('_')
        || words(name).first().is_some_and(|w| matches!(w.as_str(), "unused" | "dummy" | "placeholder"))
}

/// Two parameters speak of one thing: their names begin with the same word (`rotary_cos`, `rotary_interleaved`) or the
/// whole of one stands in the other (`scale_on_output`, `out_scale` share `scale`).
pub fn belong_together(a: &str, b: &str) -> bool {
    let (x, y) = (words(a), words(b));
    let telling = |w: &String| {
        w.len() > 2
            && !matches!(
                w.as_str(),
                "use"
                    | "has"
                    | "have"
                    | "num"
                    | "max"
                    | "min"
                    | "out"
                    | "the"
                    | "return"
                    | "enable"
                    | "per"
                    | "input"
                    | "output"
            )
    };
    x.iter().filter(|w| telling(w)).any(|w| y.contains(w))
}

/// Whether `operand` says what a parameter of this name says: its copy for the host, lengths that go with cumulative
/// lengths, a stride, shape or count of it.
pub fn carries(operand: &str, name: &str) -> bool {
    if mirrored(name) == Some(operand) {
        return true;
    }
    let (o, n) = (words(operand), words(name));
    let length = |w: &str| {
        matches!(
            w,
            "len" | "lens" | "length" | "lengths" | "seqlen" | "seqlens" | "indptr" | "cumsum" | "seq"
        )
    };
    let long = |v: &[String]| v.iter().any(|w| length(w));
    if long(&n) && long(&o) {
        return true;
    }
    // Rotation angles are computed from positions: who gets the angles has no more use for the positions.
    let angle = |w: &str| matches!(w, "cos" | "sin" | "freqs" | "angles" | "freq");
    let position = |w: &str| matches!(w, "position" | "positions" | "pos");
    if n.iter().any(|w| position(w)) && o.iter().any(|w| angle(w)) {
        return true;
    }
    let measure = |w: &str| {
        matches!(
            w,
            "stride"
                | "strides"
                | "shape"
                | "size"
                | "sizes"
                | "dim"
                | "dims"
                | "numel"
                | "len"
                | "rows"
                | "cols"
                | "num"
                | "ndim"
                | "n"
        )
    };
    let rest: Vec<&String> = n.iter().filter(|w| !measure(w)).collect();
    rest.len() < n.len() && !rest.is_empty() && rest.iter().all(|w| o.contains(w))
}

/// The parameter whose values this one repeats for the host: `cu_seqlens` of `cu_seqlens_cpu`. Who reads the one need not
/// read the other.
pub fn mirrored(name: &str) -> Option<&str> {
    ["_cpu", "_host"].iter().find_map(|suffix| name.strip_suffix(suffix))
}
