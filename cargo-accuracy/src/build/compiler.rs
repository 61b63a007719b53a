//! The compiler of each architecture: where it is looked for, and the flags that it always gets.

use accuracy_core::arch::Arch;
use accuracy_core::build::{HIP_ON_CUDA, HIP_ON_HOST};
use accuracy_core::device::gpu::Kind;
use anyhow::Context as _;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A compiler for one architecture.
pub struct Compiler {
    program: PathBuf,
    compile: Vec<OsString>,
    link: Vec<OsString>,
    /// What it says of its version: another one may make something else.
    pub identity: String,
    /// It compiles C++ for the host, and no HIP.
    pub host: bool,
}

impl Compiler {
    /// A command that compiles, up to the name of the source.
    pub fn compile(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.compile);
        command
    }

    /// A command that links a shared library, up to the names of the objects.
    pub fn link(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.link);
        command
    }

    fn new(program: PathBuf, compile: Vec<OsString>, link: Vec<OsString>) -> anyhow::Result<Compiler> {
        let output = Command::new(&program).arg("--version").stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("cannot start {}", program.display()))?;
        let identity = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(Compiler { program, compile, link, identity, host: false })
    }
}

/// Debian's packages that stand in where there is no ROCm.
pub const PACKAGES: &str = "clang-22 clang-tools-22 lld-22 llvm-22 libamdhip64-dev rocm-device-libs g++";
/// Folders of theirs.
const LLVM: &str = "/usr/lib/llvm-22/bin";
const BITCODE: &str = "/usr/lib/x86_64-linux-gnu/amdgcn/bitcode";

/// Where a compiler is.
pub struct Located {
    pub program: PathBuf,
    /// It is Debian's clang, which stands in for hipcc.
    pub debian: bool,
}

/// Looks for the compiler of a vendor's GPUs.
///
/// # Errors
/// If there is none, with what was looked for.
pub fn locate(kind: Kind) -> anyhow::Result<Located> {
    let program = match kind {
        Kind::Cuda => program("NVCC", &["nvcc", "/usr/local/cuda/bin/nvcc"]).context(
            "no compiler for NVIDIA GPUs: neither NVCC nor nvcc on PATH or in /usr/local/cuda/bin",
        )?,
        Kind::Hip => match program("HIPCXX", &["hipcc"]) {
            Some(hipcc) => hipcc,
            None => return debian_clang(),
        },
    };
    Ok(Located { program, debian: false })
}

fn debian_clang() -> anyhow::Result<Located> {
    let llvm = |program: &str| Path::new(LLVM).join(program);
    let needed = [llvm("clang++"), llvm("llvm-as"), llvm("llvm-dis"), llvm("ld.lld"), BITCODE.into()];
    if let Some(missing) = needed.iter().find(|path| !path.exists()) {
        anyhow::bail!(
            "no compiler for AMD GPUs: neither HIPCXX nor hipcc on PATH, and of Debian's packages ({PACKAGES}) {} is not \
             there",
            missing.display()
        );
    }
    Ok(Located { program: llvm("clang++"), debian: true })
}

/// Looks for the compiler of an architecture, or of several of AMD's that one library is for; what it needs beside the
/// sources is written below `out`.
///
/// # Errors
/// If there is none, with what was looked for.
pub fn find(archs: &[Arch], out: &Path) -> anyhow::Result<Compiler> {
    match archs {
        [arch] if Kind::of(*arch).is_none() => host(out),
        [arch] if Kind::of(*arch) == Some(Kind::Cuda) => nvidia(*arch, out),
        _ => amd(archs, out),
    }
}

fn words(flags: &str) -> Vec<OsString> {
    flags.split_whitespace().map(OsString::from).collect()
}

/// The program that a variable names, or the first of `programs`; those without a folder are looked for on PATH.
fn program(variable: &str, programs: &[&str]) -> Option<PathBuf> {
    // What somebody names is not replaced by something else.
    let names = match std::env::var_os(variable).filter(|name| !name.is_empty()) {
        Some(name) => vec![PathBuf::from(name)],
        None => programs.iter().map(PathBuf::from).collect(),
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |name: PathBuf| match name.components().count() {
        1 => std::env::split_paths(&path).map(|folder| folder.join(&name)).find(|file| file.is_file()),
        _ => Some(name).filter(|file| file.is_file()),
    };
    names.into_iter().find_map(found)
}

/// Writes the headers that stand in for HIP's own, and returns their folder.
fn stand_in(out: &Path, name: &str, headers: &[(&str, &str)]) -> anyhow::Result<PathBuf> {
    let folder = out.join(name);
    for (file, text) in headers {
        crate::header::write_if_changed(&folder.join(file), text)?;
    }
    Ok(folder)
}

fn host(out: &Path) -> anyhow::Result<Compiler> {
    let program = program("CXX", &["c++", "g++", "clang++"])
        .context("no C++ compiler: neither CXX nor c++, g++ or clang++ on PATH; install g++")?;
    let mut compile = words(
        "-std=c++17 -O3 -fPIC -fvisibility=hidden -fvisibility-inlines-hidden -Wall -fno-fast-math \
         -ffp-contract=off -isystem",
    );
    compile.push(stand_in(out, "hip_host", HIP_ON_HOST)?.into());
    compile.extend(words("-x c++"));
    let compiler = Compiler::new(program, compile, words("-shared -Wl,--no-undefined"))?;
    Ok(Compiler { host: true, ..compiler })
}

fn amd(archs: &[Arch], out: &Path) -> anyhow::Result<Compiler> {
    let mut each: Vec<String> = archs.iter().map(|arch| format!("--offload-arch={arch}")).collect();
    if archs.len() > 1 {
        each.push("--offload-compress".into());
    }
    let each = each.join(" ");
    // The line table names source lines in what the emulator finds. It changes no instruction.
    let offload = format!("-std=c++17 -O3 -gline-tables-only -fPIC -fvisibility=hidden -Wall {each}");
    let Located { program, debian } = locate(Kind::Hip)?;
    if !debian {
        let link = format!("--hip-link {each} -shared -Wl,--no-undefined");
        return Compiler::new(program, words(&format!("{offload} -x hip")), words(&link));
    }
    let mut bitcode = out.join("bitcode");
    for &arch in archs {
        bitcode = device_libraries(arch, out)?;
    }
    let wave64 = |arch: &Arch| arch.name().starts_with("gfx9");
    if !archs.iter().all(wave64) && archs.iter().any(wave64) {
        anyhow::bail!(
            "Debian's headers cannot build one library for wavefronts of 32 and of 64: build one for each"
        );
    }
    // These headers ask for the wavefront size by a macro that LLVM 22 no longer has.
    let mut compile = words(&format!(
        "{offload} --rocm-path=/usr -D__HIP_PLATFORM_AMD__ -D__AMDGCN_WAVEFRONT_SIZE={}",
        if archs.iter().all(wave64) { 64 } else { 32 }
    ));
    compile.push(format!("--rocm-device-lib-path={}", bitcode.display()).into());
    compile.extend(words("-x hip"));
    let link = format!("--hip-link --rocm-path=/usr {each} -shared -Wl,--no-undefined");
    Compiler::new(program, compile, words(&link))
}

/// Debian's device libraries (ROCm 5.2), and what clang 22 asks for beside them: constants with the processor's and the
/// code object's version, each in a file of its own. The processor's also takes what clang no longer links.
fn device_libraries(arch: Arch, out: &Path) -> anyhow::Result<PathBuf> {
    let folder = out.join("bitcode");
    let processor = arch.name().trim_start_matches("gfx");
    let isa = folder.join(format!("oclc_isa_version_{processor}.bc"));
    if isa.is_file() {
        return Ok(folder);
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for entry in std::fs::read_dir(BITCODE).with_context(|| format!("cannot read {BITCODE}"))? {
        let file = entry?.path();
        let to = folder.join(file.file_name().unwrap_or_default());
        std::fs::copy(&file, &to).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    let disassemble = |file: &str| -> anyhow::Result<String> {
        let file = Path::new(BITCODE).join(file);
        let output = Command::new(Path::new(LLVM).join("llvm-dis")).args(["-o", "-"]).arg(&file).output();
        let output = output.context("cannot start llvm-dis")?;
        anyhow::ensure!(output.status.success(), "llvm-dis cannot read {}", file.display());
        String::from_utf8(output.stdout).with_context(|| format!("{} is no text", file.display()))
    };
    let assemble = |text: &str, to: &Path| -> anyhow::Result<()> {
        let source = to.with_extension("ll");
        std::fs::write(&source, text).with_context(|| format!("cannot write {}", source.display()))?;
        let status = Command::new(Path::new(LLVM).join("llvm-as")).arg(&source).arg("-o").arg(to).status();
        anyhow::ensure!(
            status.context("cannot start llvm-as")?.success(),
            "llvm-as cannot read {}",
            source.display()
        );
        Ok(())
    };
    // The version is the number with two digits for the minor one and the stepping: gfx90a is 9010.
    let (major, rest) = processor.split_at(processor.len().saturating_sub(2));
    let digit = |at: usize| u32::from_str_radix(rest.get(at..=at).unwrap_or(""), 16);
    let version = major.parse::<u32>()? * 1000 + digit(0)? * 100 + digit(1)?;
    let constant = "linkonce_odr protected local_unnamed_addr addrspace(4) constant";
    assemble(
        &disassemble("oclc_abi_version_500.bc")?.replace("i32 500", "i32 600"),
        &folder.join("oclc_abi_version_600.bc"),
    )?;
    let text = format!(
        "{}\n@__oclc_ISA_version = {constant} i32 {version}\n@__oclc_daz_opt = {constant} i8 0\n",
        disassemble("hip.bc")?
    );
    assemble(&text, &isa)?;
    Ok(folder)
}

fn nvidia(arch: Arch, out: &Path) -> anyhow::Result<Compiler> {
    let program = locate(Kind::Cuda)?.program;
    // A library's flags are one list for all compilers, and nvcc does not know all that the others do, such as -Wextra.
    const FORWARD: &str = "-forward-unknown-to-host-compiler";
    let mut compile = words(&format!(
        "{FORWARD} -std=c++17 -O3 -arch={arch} -Xcompiler -fPIC,-fvisibility=hidden,-Wall -I"
    ));
    compile.push(stand_in(out, "hip_cuda", HIP_ON_CUDA)?.into());
    compile.extend(words("-x cu"));
    // The runtime is shared with the test process, where launches are observed.
    Compiler::new(program, compile, words(&format!("{FORWARD} -shared -cudart shared -Xcompiler -fPIC")))
}
