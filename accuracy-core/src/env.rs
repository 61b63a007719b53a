//! The environment variables that the plugin sets for a test process, and that a person may set by hand.

use crate::arch::Arch;
use crate::device::Kind;
use crate::trace::Request;
use crate::verdict::LeastCosine;
use std::path::PathBuf;

/// Identities of the cases to run, a line each. Without it a test runs all of its sub-cases.
pub const CASE: &str = "ACCURACY_CASE";
/// Folder for records, manifests and start markers.
pub const RECORDS: &str = "ACCURACY_RECORDS";
/// Number of this attempt, from 0.
pub const ATTEMPT: &str = "ACCURACY_ATTEMPT";
/// Architecture whose kernel library is opened.
pub const ARCH: &str = "ACCURACY_ARCH";
/// GPU runtime, where it is not the vendor's own for the architecture: `hip`, `cuda`.
pub const RUNTIME: &str = "ACCURACY_RUNTIME";
/// `1`: the code of gfx942 or gfx950 runs on this machine's processor, also where there is a device. `0`, or not set: on a
/// device. The tests have to be built with the feature `emulate` of this crate.
pub const EMULATE: &str = "ACCURACY_EMULATE";
/// How many threads the emulation of one case may use; all of the processor's where it is not set.
pub const EMULATE_THREADS: &str = "ACCURACY_EMULATE_THREADS";
/// `1`: the emulator looks for races between waves and between workgroups, too. That takes about ten times as long, in one of
/// a case's runs.
pub const RACE: &str = "ACCURACY_RACE";
/// The instructions of one wave of the case are written to a file: a [`crate::trace::Request`] as JSON. Only for a process of
/// one case that is emulated.
pub const TRACE: &str = "ACCURACY_TRACE";
/// Least cosine that counts as correct.
pub const MIN_COS: &str = "ACCURACY_MIN_COS";
/// Least cosine where neither [`MIN_COS`] nor the test itself says one: what a configuration file has.
pub const DEFAULT_MIN_COS: &str = "ACCURACY_DEFAULT_MIN_COS";
/// Further folders in which kernel libraries are looked for first, separated by `:`.
pub const LIBRARY_PATH: &str = "ACCURACY_LIBRARY_PATH";
/// `1`: a file in [`LIBRARY_PATH`] takes the place of one that was built from this workspace's own sources. Without it
/// such a file is an error: the one that was built would not be judged.
pub const LIBRARY_WINS: &str = "ACCURACY_LIBRARY_WINS";
/// Where the plugin has the kernels of packages, a line each: the package's folder or `*`, how they come there
/// (`named`, `built`, `archive`) and the folder of kernels, with tabs between.
pub const KERNEL_FOLDERS: &str = "ACCURACY_KERNEL_FOLDERS";
/// Folder of the test's package, where it is not the one that the binary was built in: an unpacked archive.
/// Kernel libraries are then looked for in [`LIBRARY_PATH`] and [`KERNEL_FOLDERS`] alone.
pub const PACKAGE_DIR: &str = "ACCURACY_PACKAGE_DIR";
/// How often a chain is repeated to compare its bytes.
pub const REPEAT: &str = "ACCURACY_REPEAT";
/// Seed of the generated inputs, in place of each test's own.
pub const SEED: &str = "ACCURACY_SEED";
/// How many cases of shapes that no test lists are drawn for each chain, see [`crate::fuzz`].
pub const FUZZ: &str = "ACCURACY_FUZZ";
/// What decides with which bytes memory is filled that kernels have to write, see [`crate::case::poison`]. Drawn for each
/// process where it is not set.
pub const POISON: &str = "ACCURACY_POISON";
/// `1`: a case is the first that its process computes. Otherwise the process computes the chain in another shape before, so
/// that a kernel shows that keeps something of its first call.
pub const ALONE: &str = "ACCURACY_ALONE";
/// Folder in which each chain's buffers and their float64 references are kept, a safetensors file a case.
pub const KEEP_TENSORS: &str = "ACCURACY_KEEP_TENSORS";
/// Plants every known fault on the reference side and records which checks see it.
pub const SELFTEST: &str = "ACCURACY_SELFTEST";
/// Folder in which products of large weights are kept between cases, see [`crate::reference::cache`]; `off` for none.
/// Without it they are in `accuracy-cache` of the target folder that holds the test binary.
pub const CACHE: &str = "ACCURACY_CACHE";
/// Schema of records that the plugin reads.
pub const SCHEMA: &str = "ACCURACY_SCHEMA";

/// What a test process was asked to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub cases: Option<Vec<String>>,
    pub records: Option<PathBuf>,
    pub attempt: u32,
    pub arch: Arch,
    pub runtime: Option<Kind>,
    /// Whether the architecture's code runs on this machine's processor.
    pub emulate: bool,
    /// What this run asks for, whatever a test says.
    pub min_cos: Option<LeastCosine>,
    /// What the configuration asks for, where a test says nothing.
    pub default_min_cos: Option<LeastCosine>,
    pub library_path: Vec<PathBuf>,
    pub package_dir: Option<PathBuf>,
    pub repeat: u32,
    pub seed: Option<u64>,
    /// Drawn cases of each chain.
    pub fuzz: Option<usize>,
    pub poison: Option<u64>,
    pub alone: bool,
    pub keep_tensors: Option<PathBuf>,
    pub cache: Option<PathBuf>,
    pub selftest: bool,
    /// The trace that is asked for.
    pub trace: Option<Request>,
}

/// A variable whose value cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{name}={value:?}: {expected}")]
pub struct EnvError {
    pub name: &'static str,
    pub value: String,
    pub expected: String,
}

impl Settings {
    /// Reads the process's environment.
    ///
    /// Without `ACCURACY_ARCH` the host architecture is meant: a plain `cargo test` has no other library at hand.
    pub fn from_env() -> Result<Settings, EnvError> {
        Settings::from_lookup(|name| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned()))
    }

    fn from_lookup(get: impl Fn(&str) -> Option<String>) -> Result<Settings, EnvError> {
        fn parse<T: std::str::FromStr>(
            get: &impl Fn(&str) -> Option<String>,
            name: &'static str,
            expected: &str,
        ) -> Result<Option<T>, EnvError> {
            get(name)
                .map(|value| value.parse().map_err(|_| EnvError { name, value, expected: expected.into() }))
                .transpose()
        }
        if let Some(schema) = parse::<u32>(&get, SCHEMA, "expected a whole number")?
            && schema != crate::record::SCHEMA
        {
            return Err(EnvError {
                name: SCHEMA,
                value: schema.to_string(),
                expected: format!(
                    "this accuracy-core writes records of schema {}: update the older of cargo-accuracy and accuracy-core",
                    crate::record::SCHEMA
                ),
            });
        }
        let arch = match get(ARCH) {
            None => Arch::Host,
            Some(value) => value.parse().map_err(|e: crate::arch::UnknownArch| EnvError {
                name: ARCH,
                value,
                expected: e.to_string(),
            })?,
        };
        let (emulate, runtime) = (emulates(&get)?, get(RUNTIME));
        let wrong = |expected: String| EnvError { name: EMULATE, value: "1".into(), expected };
        if emulate && !arch.can_be_emulated() {
            let known: Vec<&str> = Arch::emulated().map(Arch::name).collect();
            return Err(wrong(format!(
                "{arch} cannot be emulated: set {ARCH} to {}, or take {EMULATE} away",
                known.join(" or ")
            )));
        }
        if let Some(runtime) = runtime.filter(|_| emulate) {
            return Err(wrong(format!(
                "{RUNTIME}={runtime} names the runtime of a device, and no device runs what is emulated: take one of \
                 them away"
            )));
        }
        let cosine = |name| parse::<LeastCosine>(&get, name, &format!("expected {}", LeastCosine::EXPECTED));
        Ok(Settings {
            cases: get(CASE).map(|ids| ids.lines().map(String::from).collect()),
            records: get(RECORDS).map(PathBuf::from),
            attempt: parse(&get, ATTEMPT, "expected a whole number")?.unwrap_or(0),
            arch,
            runtime: parse(&get, RUNTIME, "expected hip or cuda")?,
            emulate,
            min_cos: cosine(MIN_COS)?,
            default_min_cos: cosine(DEFAULT_MIN_COS)?,
            library_path: get(LIBRARY_PATH).map(|v| std::env::split_paths(&v).collect()).unwrap_or_default(),
            package_dir: get(PACKAGE_DIR).map(PathBuf::from),
            repeat: parse(&get, REPEAT, "expected a whole number")?.unwrap_or(1),
            seed: parse(&get, SEED, "expected a whole number without a sign")?,
            fuzz: parse::<std::num::NonZeroUsize>(&get, FUZZ, "expected a positive whole number")?
                .map(usize::from),
            poison: parse(&get, POISON, "expected a whole number without a sign")?,
            alone: switch(&get, ALONE, "expected 1 where each case is computed alone, 0 where not")?,
            keep_tensors: get(KEEP_TENSORS).map(PathBuf::from),
            cache: get(CACHE).map(PathBuf::from),
            selftest: get(SELFTEST).is_some(),
            trace: get(TRACE)
                .map(|value| {
                    serde_json::from_str(&value).map_err(|error| EnvError {
                        name: TRACE,
                        value,
                        expected: format!("expected a request for a trace as JSON ({error})"),
                    })
                })
                .transpose()?,
        })
    }
}

/// Threads that the emulation of one case may use: what [`EMULATE_THREADS`] says, or all of the processor's.
pub fn emulation_threads(get: &dyn Fn(&str) -> Option<String>) -> usize {
    let all = || std::thread::available_parallelism().map_or(1, usize::from);
    get(EMULATE_THREADS).and_then(|text| text.parse().ok()).filter(|n| *n > 0).unwrap_or_else(all)
}

/// What [`EMULATE`] says.
pub(crate) fn emulates(get: &impl Fn(&str) -> Option<String>) -> Result<bool, EnvError> {
    switch(get, EMULATE, "expected 1 to emulate, 0 to run on a device")
}

/// What [`RACE`] says.
#[cfg(feature = "emulate")]
pub(crate) fn looks_for_races(get: &impl Fn(&str) -> Option<String>) -> Result<bool, EnvError> {
    switch(get, RACE, "expected 1 to look for races, 0 not to")
}

/// What a variable says that is on or off.
fn switch(
    get: &impl Fn(&str) -> Option<String>,
    name: &'static str,
    expected: &str,
) -> Result<bool, EnvError> {
    match get(name).as_deref() {
        Some("1") => Ok(true),
        None | Some("" | "0") => Ok(false),
        Some(value) => Err(EnvError { name, value: value.into(), expected: expected.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Result<Settings, EnvError> {
        Settings::from_lookup(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string()))
    }

    #[test]
    fn nothing_set_means_the_host_and_every_case() {
        let s = settings(&[]).unwrap();
        assert_eq!((s.cases, s.arch, s.min_cos, s.repeat, s.seed), (None, Arch::Host, None, 1, None));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (name, value) in [
            (ARCH, "gfx9000"),
            (MIN_COS, "1.5"),
            (MIN_COS, "NaN"),
            (REPEAT, "-1"),
            (SEED, "-1"),
            (ATTEMPT, "x"),
            (SCHEMA, "99"),
            (EMULATE, "yes"),
            (POISON, "-1"),
            (FUZZ, "0"),
            (ALONE, "yes"),
            (TRACE, "{}"),
        ] {
            let error = settings(&[(name, value)]).unwrap_err();
            assert_eq!(error.name, name);
            assert!(error.to_string().contains(value), "{error}");
        }
    }

    #[test]
    fn only_an_architecture_that_can_be_emulated_is() {
        assert!(settings(&[(EMULATE, "1"), (ARCH, "gfx950")]).unwrap().emulate);
        assert!(!settings(&[(EMULATE, "0"), (ARCH, "gfx950")]).unwrap().emulate);
        assert!(!settings(&[(ARCH, "gfx950")]).unwrap().emulate);
        for (other, told) in [
            (vec![], "host cannot be emulated: set ACCURACY_ARCH to gfx942 or gfx950"),
            (vec![(ARCH, "sm_90")], "sm_90 cannot be emulated"),
            (vec![(ARCH, "gfx950"), (RUNTIME, "hip")], "no device runs what is emulated"),
        ] {
            let error = settings(&[&other[..], &[(EMULATE, "1")]].concat()).unwrap_err();
            assert_eq!(error.name, EMULATE);
            assert!(error.to_string().contains(told), "{error}");
        }
    }
}
