//! Compiles `kernels.hip` for an architecture, once for each test run.
//!
//! Without a compiler for AMD GPUs the tests say that they are skipped, or fail if `ACCURACY_REQUIRE_GPU_KERNELS` is set,
//! as it is in CI.

use accuracy_core::emulator::isa::Processor;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// clang 22, as Debian's packages install it, or whatever `clang++` is first on PATH.
fn compiler() -> Option<&'static str> {
    ["/usr/lib/llvm-22/bin/clang++", "clang++"].into_iter().find(|compiler| {
        let asked = Command::new(compiler).args(["--print-targets"]).output();
        asked.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("amdgcn"))
    })
}

/// The code object of the kernels; `None` where there is no compiler.
pub fn code_object(processor: Processor) -> Option<&'static [u8]> {
    static GFX942: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    static GFX950: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let once = match processor {
        Processor::Gfx942 => &GFX942,
        Processor::Gfx950 => &GFX950,
    };
    once.get_or_init(|| compile(processor)).as_deref()
}

fn compile(processor: Processor) -> Option<Vec<u8>> {
    hip(processor, "kernels.hip", &["-O2", "-g"])
}

/// The kernels of `waits.hip` as assembly; `None` where there is no compiler.
pub fn assembly(processor: Processor) -> Option<String> {
    hip(processor, "waits.hip", &["-O2", "-S"]).map(|text| String::from_utf8(text).unwrap())
}

/// A code object of assembly.
pub fn assemble(processor: Processor, text: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let (source, file) = (folder.path().join("text.s"), folder.path().join("text.co"));
    std::fs::write(&source, text).unwrap();
    let mut command = Command::new(compiler().unwrap());
    command.args(["-x", "assembler", "--target=amdgcn-amd-amdhsa", "-g"]);
    command.arg(format!("-mcpu={}", processor.name())).arg(&source).arg("-o").arg(&file);
    assert!(command.status().unwrap().success(), "{text}");
    std::fs::read(file).unwrap()
}

/// What the compiler makes of the device code of a file in this folder.
pub fn hip(processor: Processor, name: &str, options: &[&str]) -> Option<Vec<u8>> {
    let Some(compiler) = compiler() else {
        let reason =
            "skipped: no clang++ that compiles for AMD GPUs; kernels/install-compiler.sh installs one";
        assert!(std::env::var_os("ACCURACY_REQUIRE_GPU_KERNELS").is_none(), "{reason}");
        eprintln!("{reason}");
        return None;
    };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/emulator").join(name);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("made");
    let status = Command::new(compiler)
        .args(["-x", "hip", "-nogpuinc", "-nogpulib", "--cuda-device-only", "--no-gpu-bundle-output"])
        .args(options)
        .arg(format!("--offload-arch={}", processor.name()))
        .arg(&source)
        .arg("-o")
        .arg(&file)
        .status()
        .unwrap();
    assert!(status.success(), "{} does not compile", source.display());
    Some(std::fs::read(file).unwrap())
}
