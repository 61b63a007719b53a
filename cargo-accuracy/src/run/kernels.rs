//! Whether the kernels that a run's executables bind are in the files where they will be looked for. Nothing is loaded.
//!
//! Executables say what they bind in a section of their own ([`bindings`]), the files are read by [`codeobject`]. What
//! is wrong is told before the first case runs. A file that is not there is not told: a crate may bind more than its
//! cases call, and a case that does call it says where it was looked for.

use super::device::Places;
use super::discover::Binary;
use super::plan::{Case, Fate};
use accuracy_core::arch::Arch;
use accuracy_core::codeobject::{self, CodeObject, Contents, Kernel, ReadError, Target};
use accuracy_core::env;
use accuracy_core::files;
use accuracy_core::library::{self, Chosen, Lookup, code_object};
use accuracy_core::meta::bindings::{self, Bindings, Function, Kind};
use accuracy_core::record::Library;
use anyhow::Context as _;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Looks into every file that the cases to run may open.
///
/// Returns what will be judged, by binding.
///
/// # Errors
/// If a file cannot be read, takes the place of one that was just built, has no code for a device of the run, lacks what
/// is bound, or has a kernel that takes other arguments.
pub fn check(binaries: &[Binary], cases: &[Case], places: &Places) -> anyhow::Result<BTreeSet<Library>> {
    let running = cases.iter().filter(|case| case.fate == Fate::Run);
    let runs: BTreeSet<(usize, &str)> =
        running.map(|case| (case.binary, case.planned.arch.as_str())).collect();
    let mut files = BTreeMap::new();
    let mut complaints = BTreeSet::new();
    let mut judged = BTreeSet::new();
    for (index, arch) in runs {
        let (binary, arch) = (&binaries[index], arch.parse::<Arch>()?);
        let devices = places.targets(arch.name());
        for block in bindings::read_binary(&binary.path)? {
            let Some(chosen) = find(binary, &block, arch) else { continue };
            let wins = variable(binary, env::LIBRARY_WINS);
            let judges =
                chosen.judged(&block.package, &block.name, library::library_path_wins(wins.as_deref()));
            let library = match judges {
                Ok(library) => library,
                Err(error) => {
                    complaints.insert(error.to_string());
                    continue;
                }
            };
            let path = library.path.clone();
            judged.insert(library);
            let contents = match files.entry(path.clone()).or_insert_with(|| read(&path)) {
                Ok(Some(contents)) => contents,
                Ok(None) => continue,
                Err(error) => {
                    complaints.insert(format!("{error:#}"));
                    continue;
                }
            };
            complaints.extend(disagreements(&block, contents, &devices).into_iter().map(|complaint| {
                format!("{} (bound by package {}) {complaint}", path.display(), block.package)
            }));
        }
    }
    if complaints.is_empty() {
        return Ok(judged);
    }
    let complaints: Vec<String> = complaints.into_iter().collect();
    anyhow::bail!(
        "nothing ran: what is bound and what was built disagree\n  {}\n\
         `cargo accuracy inspect -v FILE` lists what a file holds",
        complaints.join("\n  ")
    )
}

/// A variable as the tests of an executable have it.
fn variable(binary: &Binary, name: &str) -> Option<OsString> {
    let set = binary.environment.iter().rfind(|(set, _)| set == name);
    set.map(|(_, value)| value.into()).or_else(|| std::env::var_os(name))
}

/// The file that a test process would open for a block.
fn find(binary: &Binary, block: &Bindings, arch: Arch) -> Option<Chosen> {
    let named: Vec<PathBuf> = variable(binary, env::LIBRARY_PATH)
        .map(|folders| std::env::split_paths(&folders).map(|f| binary.working_dir.join(f)).collect())
        .unwrap_or_default();
    let kernel_folders = variable(binary, env::KERNEL_FOLDERS).unwrap_or_default();
    let lookup = Lookup {
        named: &named,
        kernel_folders: &kernel_folders.to_string_lossy(),
        moved: variable(binary, env::PACKAGE_DIR).is_some(),
        out_dir: block.out_dir.as_deref(),
        manifest_dir: &block.manifest_dir,
    };
    lookup.find(&match block.kind {
        Kind::KernelLibrary => library::library_files(&block.name, arch),
        Kind::CodeObject => code_object::files(&block.name, arch),
    })
}

/// What a file holds; `None` where its device code is in a file of another kind, which is not read.
fn read(path: &Path) -> anyhow::Result<Option<Contents>> {
    let bytes =
        files::read(path, files::LIBRARY).with_context(|| format!("{} cannot be read", path.display()))?;
    match codeobject::read(&bytes) {
        Ok(contents) => Ok(Some(contents)),
        Err(ReadError::Kpack) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
    }
}

/// What is wrong with a file for a block and the devices of a run (none for the host), each as the end of a sentence.
fn disagreements(block: &Bindings, contents: &Contents, devices: &[(String, &str)]) -> Vec<String> {
    let mut complaints: Vec<String> =
        devices.iter().filter_map(|(name, arch)| no_code_for(contents, name, arch)).collect();
    match block.kind {
        Kind::KernelLibrary => complaints.extend(missing_launchers(block, contents)),
        // Without code for the device there is nothing to compare with.
        Kind::CodeObject if complaints.is_empty() => {
            let device = devices.first().and_then(|(_, arch)| arch.parse::<Target>().ok());
            let code =
                contents.code_objects.iter().find(|c| device.as_ref().is_some_and(|d| c.target.runs_on(d)));
            complaints.extend(code.into_iter().flat_map(|code| misfits(block, code)));
        }
        Kind::CodeObject => {}
    }
    complaints
}

/// Why a device, called `name`, runs none of a file's code.
fn no_code_for(contents: &Contents, name: &str, arch: &str) -> Option<String> {
    // A device that HIP or CUDA names otherwise is none that code could be read for.
    let device = arch.parse::<Target>().ok()?;
    let targets: BTreeSet<&Target> = contents.code_objects.iter().map(|c| &c.target).collect();
    if targets.iter().any(|target| target.runs_on(&device)) {
        return None;
    }
    let list =
        |targets: &BTreeSet<&Target>| targets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if targets.is_empty() {
        let host = contents.host.as_ref()?;
        // A launcher of somebody else's kernels has none of its own.
        let launches = host.needed.iter().any(|library| is_of_gpus(library) || !is_of_the_system(library));
        return (!launches).then(|| {
            format!(
                "has code for the CPU ({}) only, and the run needs {arch}: build it for {arch}",
                host.machine
            )
        });
    }
    let processor = |target: &Target| match target {
        Target::Amd(id) => Some(id.processor.clone()),
        _ => None,
    };
    let same: BTreeSet<&Target> = targets
        .iter()
        .copied()
        .filter(|t| processor(t).is_some() && processor(t) == processor(&device))
        .collect();
    Some(match same.is_empty() {
        false => format!(
            "is built for {}, and {name} has other features: leave out those (sramecc, xnack) that the code does not \
             need, as in --offload-arch={}",
            list(&same),
            processor(&device).unwrap_or_default()
        ),
        true => format!("has no code for {arch}: it has {}; build it for {arch}", list(&targets)),
    })
}

/// Launchers that a library does not export.
fn missing_launchers(block: &Bindings, contents: &Contents) -> Vec<String> {
    let Some(host) = &contents.host else {
        return vec!["is no library: bind kernels of a code object with #[code_object]".into()];
    };
    // The dynamic linker also looks into the libraries that this one needs.
    if host.needed.iter().any(|library| !is_of_the_system(library) && !is_of_gpus(library)) {
        return Vec::new();
    }
    let exported = |function: &&Function| {
        host.launchers.contains(&function.symbol) || host.other_functions.contains(&function.symbol)
    };
    let missing = block.functions.iter().filter(|function| !exported(function));
    missing
        .map(|function| {
            format!(
                "exports no launcher `{}`: build its source in, with extern \"C\" and default visibility",
                function.symbol
            )
        })
        .collect()
}

/// Kernels that a code object lacks, or that take other arguments than they are bound with.
fn misfits(block: &Bindings, code: &CodeObject) -> Vec<String> {
    let Some(kernels) = &code.kernels else { return Vec::new() };
    let names = || kernels.iter().map(|kernel| kernel.name.as_str()).collect::<Vec<_>>().join(", ");
    let misfit = |function: &Function| {
        let symbol = &function.symbol;
        let Some(kernel) = kernels.iter().find(|kernel| kernel.name == *symbol) else {
            return Some(format!("has no kernel `{symbol}` for {}: it has {}", code.target, names()));
        };
        let bound: Vec<u64> = function.parameters.iter().map(|(_, size)| u64::from(*size)).collect();
        let places = places(kernel, &bound);
        let takes: Vec<u64> = places.iter().map(|(size, _)| *size).collect();
        let name = |i: usize| places[i].1.map(|name| format!(" ({name})")).unwrap_or_default();
        if takes.len() != bound.len() {
            return Some(format!(
                "has kernel `{symbol}` with {} arguments, of {} bytes, but it is bound with {}, of {}: compilers add \
                 arguments of their own at the end, and bind every one",
                takes.len(),
                sizes(&takes),
                bound.len(),
                sizes(&bound)
            ));
        }
        let at = (0..takes.len()).find(|&i| takes[i] != bound[i])?;
        Some(format!(
            "has kernel `{symbol}` whose argument {at}{} takes {} bytes, but `{}` is bound with {}",
            name(at),
            takes[at],
            function.parameters[at].0,
            bound[at]
        ))
    };
    block.functions.iter().filter_map(misfit).collect()
}

/// Size and name of each argument of a kernel that is bound with arguments of these sizes.
///
/// Where a padded argument is bound, what the kernel says of the padding behind its own argument counts with it.
fn places<'a>(kernel: &'a Kernel, bound: &[u64]) -> Vec<(u64, Option<&'a str>)> {
    const PADDED: u64 = size_of::<library::Padded<u64>>() as u64;
    // The runtime fills in the hidden ones.
    let mut takes = kernel.arguments.iter().filter(|a| !a.hidden).peekable();
    let mut places: Vec<(u64, Option<&str>)> = Vec::new();
    while let Some(first) = takes.next() {
        let mut size = first.size;
        if bound.get(places.len()) == Some(&PADDED) {
            while let Some(padding) = takes.next_if(|next| size + next.size <= PADDED) {
                size += padding.size;
            }
        }
        places.push((size, first.name.as_deref()));
    }
    places
}

fn sizes(bytes: &[u64]) -> String {
    bytes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A library of the C or C++ runtime, which exports no launcher.
fn is_of_the_system(library: &str) -> bool {
    const NAMES: [&str; 15] = [
        "asan", "atomic", "c++", "c++abi", "c", "dl", "gcc_s", "gomp", "m", "omp", "pthread", "rt", "stdc++",
        "ubsan", "unwind",
    ];
    let stem = library.split(".so").next().unwrap_or_default();
    stem.starts_with("ld-linux") || stem.strip_prefix("lib").is_some_and(|name| NAMES.contains(&name))
}

/// A vendor's library, which works on a device and exports no launcher of ours.
fn is_of_gpus(library: &str) -> bool {
    ["libamd", "libhip", "libroc", "libhsa", "libMIOpen", "libcu", "libnv", "librccl", "libnccl"]
        .iter()
        .any(|vendor| library.starts_with(vendor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use accuracy_core::codeobject::{Argument, Form, HostPart, Packing};

    const DEVICE: &str = "gfx942:sramecc+:xnack-";

    fn kernel(name: &str, arguments: &[(u64, &str)]) -> Kernel {
        let argument = |&(size, kind): &(u64, &str)| Argument {
            offset: 0,
            size,
            kind: kind.into(),
            hidden: kind.starts_with("hidden_"),
            name: None,
        };
        Kernel {
            name: name.into(),
            symbol: format!("{name}.kd"),
            kernarg_size: 0,
            arguments: arguments.iter().map(argument).collect(),
            wavefront_size: None,
            max_workgroup_size: None,
            shared_size: None,
            scratch_size: None,
            vgprs: None,
            agprs: None,
            sgprs: None,
            vgpr_spills: None,
            sgpr_spills: None,
        }
    }

    fn contents(targets: &[&str], launchers: Option<&[&str]>, needed: &[&str]) -> Contents {
        let host = launchers.map(|launchers| HostPart {
            machine: "x86_64",
            soname: None,
            needed: needed.iter().map(ToString::to_string).collect(),
            launchers: launchers.iter().map(ToString::to_string).collect(),
            other_functions: Vec::new(),
        });
        let arguments =
            [(8, "global_buffer"), (8, "global_buffer"), (4, "by_value"), (4, "hidden_block_count_x")];
        let code_object = |target: &&str| CodeObject {
            target: target.parse().unwrap(),
            packing: Packing::Bare,
            size: 0,
            version: Some(6),
            kernels: Some(vec![kernel("gemm", &arguments)]),
        };
        let code_objects = targets.iter().map(code_object).collect();
        Contents { form: Form::Library, host, code_objects }
    }

    fn block(kind: Kind, symbol: &str, parameters: &[(&str, u32)]) -> Bindings {
        let parameters = parameters.iter().map(|(name, size)| (name.to_string(), *size)).collect();
        Bindings {
            package: "p".into(),
            manifest_dir: PathBuf::new(),
            out_dir: None,
            kind,
            name: "k".into(),
            functions: vec![Function { symbol: symbol.into(), parameters }],
        }
    }

    fn complaints(block: &Bindings, contents: &Contents, device: Option<&str>) -> String {
        let devices: Vec<_> = device.into_iter().map(|arch| ("device 0".to_string(), arch)).collect();
        disagreements(block, contents, &devices).join("; ")
    }

    #[test]
    fn what_fits_is_not_complained_of() {
        let launcher = block(Kind::KernelLibrary, "gemm", &[("y", 8)]);
        let needed = ["libamdhip64.so.6", "libc.so.6"];
        assert_eq!(complaints(&launcher, &contents(&["gfx942"], Some(&["gemm"]), &needed), Some(DEVICE)), "");
        assert_eq!(complaints(&launcher, &contents(&[], Some(&["gemm"]), &["libm.so.6"]), None), "");
        let bound = block(Kind::CodeObject, "gemm", &[("y", 8), ("x", 8), ("n", 4)]);
        assert_eq!(complaints(&bound, &contents(&["gfx942", "gfx950"], None, &[]), Some(DEVICE)), "");
        assert_eq!(
            complaints(
                &launcher,
                &contents(&["sm_90"], Some(&["gemm"]), &["libcudart.so.13"]),
                Some("sm_90")
            ),
            ""
        );
    }

    #[test]
    fn code_for_another_architecture_is_told_from_another_feature() {
        let launcher = block(Kind::KernelLibrary, "gemm", &[]);
        let told =
            complaints(&launcher, &contents(&["gfx90a", "gfx950"], Some(&["gemm"]), &[]), Some(DEVICE));
        assert!(told.contains("has no code for gfx942:sramecc+:xnack-: it has gfx90a, gfx950"), "{told}");
        let told = complaints(&launcher, &contents(&["gfx942:xnack+"], Some(&["gemm"]), &[]), Some(DEVICE));
        assert!(told.contains("is built for gfx942:xnack+, and device 0 has other features"), "{told}");
        let told = complaints(&launcher, &contents(&[], Some(&["gemm"]), &["libstdc++.so.6"]), Some(DEVICE));
        assert!(told.contains("has code for the CPU (x86_64) only"), "{told}");
    }

    #[test]
    fn a_launcher_of_somebody_elses_kernels_needs_none_of_its_own() {
        let launcher = block(Kind::KernelLibrary, "gemm", &[]);
        let library = contents(&[], Some(&["gemm"]), &["libhipblaslt.so.0", "libc.so.6"]);
        assert_eq!(complaints(&launcher, &library, Some(DEVICE)), "");
    }

    #[test]
    fn a_launcher_that_is_missing_is_named_unless_another_library_may_have_it() {
        let launcher = block(Kind::KernelLibrary, "gemm_fast", &[]);
        for device in [None, Some(DEVICE)] {
            let told = complaints(&launcher, &contents(&["gfx942"], Some(&["gemm"]), &["libc.so.6"]), device);
            assert!(told.contains("exports no launcher `gemm_fast`"), "{told}");
        }
        let library = contents(&["gfx942"], Some(&["gemm"]), &["libmy_kernels.so"]);
        assert_eq!(complaints(&launcher, &library, None), "");
        let told = complaints(&launcher, &contents(&["gfx942"], None, &[]), Some(DEVICE));
        assert!(told.contains("is no library"), "{told}");
    }

    #[test]
    fn a_kernel_with_other_arguments_is_told_and_hidden_ones_are_left_to_the_runtime() {
        let code = contents(&["gfx942"], None, &[]);
        let told = complaints(&block(Kind::CodeObject, "gemv", &[]), &code, Some(DEVICE));
        assert!(told.contains("has no kernel `gemv` for gfx942: it has gemm"), "{told}");
        let told = complaints(&block(Kind::CodeObject, "gemm", &[("y", 8), ("x", 8)]), &code, Some(DEVICE));
        assert!(
            told.contains("with 3 arguments, of 8, 8, 4 bytes, but it is bound with 2, of 8, 8"),
            "{told}"
        );
        let bound = block(Kind::CodeObject, "gemm", &[("y", 8), ("x", 8), ("n", 8)]);
        let told = complaints(&bound, &code, Some(DEVICE));
        assert!(told.contains("argument 2 takes 4 bytes, but `n` is bound with 8"), "{told}");
    }

    #[test]
    fn a_padded_argument_takes_the_padding_that_the_kernel_names() {
        let arguments =
            [(8, "global_buffer"), (8, "by_value"), (4, "by_value"), (4, "by_value"), (8, "by_value")];
        let mut code = contents(&["gfx942"], None, &[]);
        code.code_objects[0].kernels = Some(vec![kernel("gemm", &arguments)]);
        let padded = block(Kind::CodeObject, "gemm", &[("y", 16), ("n", 16)]);
        assert_eq!(complaints(&padded, &code, Some(DEVICE)), "");
        let plain = block(Kind::CodeObject, "gemm", &[("y", 16), ("n", 4), ("n2", 4), ("n3", 8)]);
        assert_eq!(complaints(&plain, &code, Some(DEVICE)), "");
        let short = block(Kind::CodeObject, "gemm", &[("y", 16)]);
        let told = complaints(&short, &code, Some(DEVICE));
        assert!(
            told.contains("with 4 arguments, of 16, 4, 4, 8 bytes, but it is bound with 1, of 16"),
            "{told}"
        );
        let unpadded = block(Kind::CodeObject, "gemm", &[("y", 8), ("n", 16)]);
        let told = complaints(&unpadded, &code, Some(DEVICE));
        assert!(
            told.contains("with 3 arguments, of 8, 16, 8 bytes, but it is bound with 2, of 8, 16"),
            "{told}"
        );
    }
}
