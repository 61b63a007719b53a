//! `cargo accuracy build`: kernel libraries from the sources that a package names, and nothing twice.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

const TABLE: &str = r#"
[[package.metadata.accuracy.library]]
name = "scale"
sources = ["hip"]
include = ["include"]
flags = ["-DFACTOR=2"]
"#;
const SCALE: &str = r#"
#include <hip/hip_runtime.h>
#include "scale_launchers.h"
#include "element.h"
__global__ void scale_kernel(Element* x, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] = x[i] * FACTOR + kOffset;
}
extern "C" __attribute__((visibility("default"))) int scale(Element* x, int n, hipStream_t stream) {
    hipLaunchKernelGGL(scale_kernel, dim3((n + 63) / 64), dim3(64), 0, stream, x, n);
    return hipGetLastError() != hipSuccess;
}
ACCURACY_BOUND(scale);
"#;
const OTHER: &str = "extern \"C\" __attribute__((visibility(\"default\"))) int other() { return 0; }\n";
const RUST: &str = r#"
#[kernel_library("scale")]
unsafe extern "C" {
    fn scale(x: DevPtr<f32>, n: i32, stream: Stream) -> Status;
}
"#;

/// A package that has nothing but kernels.
struct Package(tempfile::TempDir);

impl Package {
    fn new(table: &str) -> Package {
        let package = Package(tempfile::tempdir().unwrap());
        let head = "[package]\nname = \"scaling\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
        package.write("Cargo.toml", &format!("{head}{table}"));
        package.write("src/lib.rs", "");
        package.write("src/bindings.rs", RUST);
        package.write("hip/scale.hip", SCALE);
        package.write("hip/other.hip", OTHER);
        package.write("include/element.h", "using Element = float;\nconstexpr Element kOffset = 0;\n");
        package
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.0.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn accuracy(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-accuracy"));
        command.arg("accuracy").args(arguments).current_dir(self.0.path());
        command.env("CARGO_TARGET_DIR", self.0.path().join("target"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ACCURACY_")) {
            command.env_remove(name);
        }
        command.output().unwrap()
    }

    /// The library that a build for an architecture leaves.
    fn build(&self, arch: &str) -> PathBuf {
        let output = self.accuracy(&["build", "--arch", arch]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    }

    fn fails(&self, status: i32, parts: &[&str]) {
        let output = self.accuracy(&["build", "--arch", "host"]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{text}");
        for part in parts {
            assert!(text.contains(part), "expected `{part}` in {text}");
        }
    }
}

/// When the library's parts were made: objects in the order of their names, the library.
fn made(library: &Path) -> Vec<SystemTime> {
    let objects = library.parent().unwrap().parent().unwrap().join("objects/scale_host");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&objects).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "o"));
    files.sort();
    files.push(objects.join("libscale_host.so"));
    files.iter().map(|file| file.metadata().unwrap().modified().unwrap()).collect()
}

fn changed(before: &[SystemTime], after: &[SystemTime]) -> Vec<bool> {
    assert_eq!((before.len(), after.len()), (3, 3));
    before.iter().zip(after).map(|(a, b)| a != b).collect()
}

#[test]
fn only_what_has_changed_is_built_again() {
    let package = Package::new(TABLE);
    let library = package.build("host");
    let folder = library.parent().unwrap().parent().unwrap();
    let name = folder.strip_prefix(package.0.path().join("target/accuracy/kernels")).unwrap();
    assert!(name.to_str().unwrap().starts_with("scaling-"), "{}", library.display());
    assert_eq!(
        folder.join("latest/libscale_host.so").canonicalize().unwrap(),
        library.canonicalize().unwrap()
    );
    let output = package.accuracy(&["inspect", "--arch", "host", library.to_str().unwrap()]);
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("other  scale"), "{text}");

    let first = made(&library);
    package.build("host");
    assert_eq!(changed(&first, &made(&library)), [false, false, false], "nothing has changed");
    // Touched, but not changed.
    package.write("hip/scale.hip", SCALE);
    package.build("host");
    assert_eq!(changed(&first, &made(&library)), [false, false, false], "times say nothing");
    // A header that one of the sources includes: first its words alone, then what it says.
    package
        .write("include/element.h", "// float32\nusing Element = float;\nconstexpr Element kOffset = 0;\n");
    package.build("host");
    let second = made(&library);
    assert_eq!(changed(&first, &second), [false, true, false], "other.hip, scale.hip, the library");
    package.write("include/element.h", "using Element = float;\nconstexpr Element kOffset = 1;\n");
    package.build("host");
    let third = made(&library);
    assert_eq!(changed(&second, &third), [false, true, true]);
    // The command.
    let table = TABLE.replace("FACTOR=2", "FACTOR=3");
    let manifest = std::fs::read_to_string(package.0.path().join("Cargo.toml")).unwrap();
    package.write("Cargo.toml", &manifest.replace(TABLE, &table));
    package.build("host");
    assert_eq!(changed(&third, &made(&library)), [true, true, true]);
}

#[test]
fn what_the_compiler_says_is_told_with_its_command_and_the_old_library_is_gone() {
    let package = Package::new(TABLE);
    let library = package.build("host");
    package.write("hip/other.hip", "extern \"C\" int other() { return nonsense; }\n");
    let parts =
        ["`scale` of package scaling cannot be built for host", "nonsense", "hip/other.hip", "-DFACTOR=2"];
    package.fails(101, &parts);
    package.write("hip/other.hip", "void kernel(); void launch() { kernel<<<1, 64>>>(); }\n");
    package.fails(101, &["hint: ", "hipLaunchKernelGGL("]);
    package.write("hip/other.hip", "extern \"C\" int missing();\nint other() { return missing(); }\n");
    package.fails(101, &["missing"]);
    // A case that was running keeps the one that it began with; nothing else finds it.
    let latest = library.parent().unwrap().parent().unwrap().join("latest/libscale_host.so");
    assert!(library.exists() && !latest.exists(), "a library that could not be linked is still the old one");
}

#[test]
fn a_library_is_never_written_over_and_two_checkouts_in_one_target_folder_have_their_own() {
    let package = Package::new(TABLE);
    let first = package.build("host");
    let bytes = std::fs::read(&first).unwrap();
    package.write("include/element.h", "using Element = float;\nconstexpr Element kOffset = 1;\n");
    let second = package.build("host");
    assert_ne!(first, second);
    assert_eq!(std::fs::read(&first).unwrap(), bytes, "what a running case has open is as it was");
    package.write("include/element.h", "using Element = float;\nconstexpr Element kOffset = 0;\n");
    assert_eq!(package.build("host"), first, "the same contents have the same place");

    let other = Package::new(TABLE);
    other.write("include/element.h", "using Element = float;\nconstexpr Element kOffset = 2;\n");
    let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-accuracy"));
    command.args(["accuracy", "build", "--arch", "host", "--library-path"]).current_dir(other.0.path());
    let output = command.env("CARGO_TARGET_DIR", package.0.path().join("target")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let folder = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    assert!(folder.join("libscale_host.so").is_file(), "{}", folder.display());
    assert_ne!(folder.parent(), first.parent().unwrap().parent(), "{}", folder.display());
    assert_eq!(package.build("host"), first, "it is still its own");
}

#[test]
fn a_launcher_that_is_bound_otherwise_is_no_library() {
    let package = Package::new(TABLE);
    package.write("src/bindings.rs", &RUST.replace("n: i32", "n: i64"));
    package.fails(101, &["Rust binds the parameter of this Index, from 0, with another type"]);
}

#[test]
fn a_launcher_that_only_the_tests_bind_is_checked_too() {
    let package = Package::new(TABLE);
    std::fs::remove_file(package.0.path().join("src/bindings.rs")).unwrap();
    package.write("tests/accuracy.rs", RUST);
    // What a compile-fail test holds, and a package of its own that binds the launcher otherwise.
    package.write("tests/ui/no_rust.rs", "fn (");
    package.write("tests/inner/Cargo.toml", "[package]\nname = \"inner\"\n");
    package.write("tests/inner/src/lib.rs", &RUST.replace("n: i32", "n: i64"));
    package.build("host");
    let output = package.accuracy(&["header", "--out", "bound"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "bound/scale_launchers.h\n");
    package.write("tests/accuracy.rs", &RUST.replace("n: i32", "n: i64"));
    package.fails(101, &["Rust binds the parameter of this Index, from 0, with another type"]);
    std::fs::remove_file(package.0.path().join("tests/accuracy.rs")).unwrap();
    let output = package.accuracy(&["header", "--out", "bound"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("no #[kernel_library] block in src, tests"));
}

#[test]
fn a_table_that_makes_no_sense_is_told() {
    for (from, to, part) in [
        ("sources = [\"hip\"]", "sources = [\"hop\"]", "source `hop` of kernel library `scale` is no file"),
        ("sources = [\"hip\"]", "sources = []", "kernel library `scale` has no sources"),
        ("sources = [\"hip\"]", "sources = [\"src\"]", "has no source (.hip, .cu"),
        ("sources = [\"hip\"]", "source = [\"hip\"]", "unknown field `source`"),
        ("flags", "archs = [\"mi300\"]\nflags", "mi300"),
    ] {
        Package::new(&TABLE.replace(from, to)).fails(2, &[part]);
    }
}

#[test]
fn a_compiler_that_is_not_there_is_named() {
    let package = Package::new(TABLE);
    let build = |variable: &str, arch: &str| {
        Command::new(env!("CARGO_BIN_EXE_cargo-accuracy"))
            .args(["accuracy", "build", "--arch", arch])
            .current_dir(package.0.path())
            .env(variable, "/no/such/compiler")
            .env("CARGO_TARGET_DIR", package.0.path().join("target"))
            .output()
            .unwrap()
    };
    for (variable, arch, part) in [
        ("CXX", "host", "no C++ compiler: neither CXX"),
        ("NVCC", "sm_90", "no compiler for NVIDIA GPUs: neither NVCC"),
    ] {
        let output = build(variable, arch);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(101), "{text}");
        assert!(text.contains(part), "{text}");
    }
}

/// Whether this machine has a compiler for AMD GPUs, else why a test is skipped.
fn skipped(test: &str, programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |program: &&str| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    let found = programs.iter().any(there);
    if !found {
        // Not eprintln!, which the test harness keeps to itself when a test passes.
        let _ =
            writeln!(std::io::stderr(), "SKIPPED {test}: none of {} on this machine", programs.join(", "));
    }
    !found
}

#[test]
fn a_library_for_an_amd_gpu_has_its_kernels() {
    let programs = ["hipcc", "/usr/lib/llvm-22/bin/clang-offload-bundler"];
    if skipped("a_library_for_an_amd_gpu_has_its_kernels", &programs) {
        return;
    }
    let package = Package::new(TABLE);
    let library = package.build("gfx950");
    let output = package.accuracy(&["inspect", "-v", "--arch", "gfx950", library.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("scale_kernel"), "{text}");
}

#[test]
fn a_library_for_an_nvidia_gpu_has_its_architecture() {
    if skipped("a_library_for_an_nvidia_gpu_has_its_architecture", &["nvcc", "/usr/local/cuda/bin/nvcc"]) {
        return;
    }
    // The second flag is one for the host's compiler, which nvcc does not know.
    let package = Package::new(&TABLE.replace("\"-DFACTOR=2\"", "\"-DFACTOR=2\", \"-Wextra\""));
    let library = package.build("sm_90");
    let output = package.accuracy(&["inspect", "--arch", "sm_90", library.to_str().unwrap()]);
    assert!(output.status.success());
}
