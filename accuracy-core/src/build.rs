//! For build scripts: compiles HIP sources with the C++ compiler into the kernel library of the `host` architecture.
//! Libraries for GPUs are built by the plugin. Both know by [`table`] what a library is made of.

pub mod table;

pub use table::LibraryTable;

use crate::made_of;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

macro_rules! headers {
    ($folder:literal: $($file:literal)*) => {
        &[$(($file, include_str!(concat!("../", $folder, "/", $file)))),*]
    };
}

/// Headers for the host in place of HIP's own, each with its text: blocks and threads as loops and fibres. Those that
/// the host does not have say what to do instead.
pub const HIP_ON_HOST: &[(&str, &str)] = headers! {
    "hip_host":
        "hip/hip_runtime.h"
        "hip/hip_runtime_api.h"
        "hip/hip_bf16.h"
        "hip/hip_bfloat16.h"
        "hip/hip_cooperative_groups.h"
        "hip/hip_fp16.h"
        "hip/hip_fp8.h"
};
/// Headers for nvcc: HIP's names as CUDA's.
pub const HIP_ON_CUDA: &[(&str, &str)] = headers!("hip_cuda": "hip/hip_runtime.h");

/// Older than any build.
fn long_ago() -> std::time::SystemTime {
    std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(24 * 3600)
}

/// A kernel library for the `host` architecture, `lib{name}_host.so`.
///
/// ```no_run
/// accuracy_core::build::HostLibrary::new("quant_gemm").file("src/quant.hip").file("src/gemm.hip").compile();
/// ```
///
/// The sources are compiled as C++17 with `-O3`, `-ffp-contract=off` and hidden visibility: a launcher is exported by
/// `extern "C" __attribute__((visibility("default")))`. The compiler is `CXX`, or else the platform's `c++`, and gets
/// `CXXFLAGS`. It targets the baseline of the architecture, as binaries may be carried to another machine, and
/// `-ffast-math` is always taken back.
#[derive(Debug, Clone)]
#[must_use]
pub struct HostLibrary {
    name: String,
    sources: Vec<PathBuf>,
    includes: Vec<PathBuf>,
    flags: Vec<String>,
    link: Vec<String>,
    out_dir: Option<PathBuf>,
    target: Option<String>,
}

impl HostLibrary {
    pub fn new(name: impl Into<String>) -> Self {
        HostLibrary {
            name: name.into(),
            sources: Vec::new(),
            includes: Vec::new(),
            flags: Vec::new(),
            link: Vec::new(),
            out_dir: None,
            target: None,
        }
    }

    /// Adds a HIP source, relative to the package's folder.
    pub fn file(mut self, source: impl Into<PathBuf>) -> Self {
        self.sources.push(source.into());
        self
    }

    /// Adds HIP sources, relative to the package's folder.
    pub fn files<P: Into<PathBuf>>(mut self, sources: impl IntoIterator<Item = P>) -> Self {
        self.sources.extend(sources.into_iter().map(Into::into));
        self
    }

    /// Adds a folder to the include path.
    pub fn include(mut self, folder: impl Into<PathBuf>) -> Self {
        self.includes.push(folder.into());
        self
    }

    /// Adds a flag for the compiler, such as `-Wextra` or `-DNAME=1`.
    pub fn flag(mut self, flag: impl Into<String>) -> Self {
        self.flags.push(flag.into());
        self
    }

    /// Adds a flag for the linker, behind the objects, such as `-lm`.
    pub fn link(mut self, flag: impl Into<String>) -> Self {
        self.link.push(flag.into());
        self
    }

    /// The libraries that the package's `Cargo.toml` names for the host, each as its table says; for a build script.
    ///
    /// # Errors
    /// If the tables cannot be read, or a source is missing.
    pub fn declared() -> Result<Vec<HostLibrary>, BuildError> {
        let package = std::env::var_os("CARGO_MANIFEST_DIR").ok_or(BuildError::NotABuildScript)?;
        let package = Path::new(&package);
        let manifest = package.join("Cargo.toml");
        println!("cargo::rerun-if-changed={}", manifest.display());
        let tables = table::tables(&manifest)?;
        let host = tables.into_iter().filter(|table| table.is_for("host"));
        host.map(|table| {
            for folder in table.sources.iter().map(|source| package.join(source)).filter(|path| path.is_dir())
            {
                // A source may be added to it.
                println!("cargo::rerun-if-changed={}", folder.display());
            }
            let sources = table.files(package)?;
            let mut library = HostLibrary::new(table.name).files(sources);
            library.includes.extend(table.include.iter().map(|folder| package.join(folder)));
            library.flags.extend(table.flags);
            library.link.extend(table.link);
            Ok(library)
        })
        .collect()
    }

    /// Where the library goes; by default cargo's `OUT_DIR`.
    pub fn out_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.out_dir = Some(folder.into());
        self
    }

    /// The target triple; by default cargo's `TARGET`.
    pub fn target(mut self, triple: impl Into<String>) -> Self {
        self.target = Some(triple.into());
        self
    }

    /// Builds the library and returns its path. Where that fails, prints why and ends the build script.
    pub fn compile(&self) -> PathBuf {
        self.try_compile().unwrap_or_else(|error| {
            eprintln!("error: {error}");
            std::process::exit(1)
        })
    }

    /// Builds the library and returns its path.
    ///
    /// Prints cargo's directives: `rerun-if-changed` for every source and the headers it includes, and the compiler's
    /// warnings.
    pub fn try_compile(&self) -> Result<PathBuf, BuildError> {
        if self.sources.is_empty() {
            return Err(BuildError::NoSources { library: self.name.clone() });
        }
        for source in &self.sources {
            println!("cargo::rerun-if-changed={}", source.display());
            if !source.is_file() {
                return Err(BuildError::SourceMissing {
                    library: self.name.clone(),
                    source: source.clone(),
                    folder: std::env::current_dir().unwrap_or_default(),
                });
            }
        }
        let out_dir = match &self.out_dir {
            Some(folder) => folder.clone(),
            None => std::env::var_os("OUT_DIR").ok_or(BuildError::NotABuildScript)?.into(),
        };
        let include = out_dir.join("hip_host");
        for (file, text) in HIP_ON_HOST {
            let header = include.join(file);
            std::fs::create_dir_all(include.join("hip"))
                .and_then(|()| std::fs::write(&header, text))
                .map_err(|error| BuildError::Write { path: header, error })?;
        }

        let tool = self.tool()?;
        let compiles = self.sources.iter().enumerate().map(|(i, source)| {
            let stem = source.file_stem().unwrap_or(OsStr::new("source")).to_string_lossy();
            let object = out_dir.join(format!("{}_{i}_{stem}.o", self.name));
            let mut command = tool.to_command();
            for folder in &self.includes {
                command.arg("-I").arg(folder);
            }
            command.arg("-isystem").arg(&include).args(&self.flags);
            command.args(["-fno-fast-math", "-ffp-contract=off", "-MMD", "-MF"]);
            command.arg(object.with_extension("d"));
            command.args(["-x", "c++", "-c"]).arg(source).arg("-o").arg(&object);
            (object, command)
        });
        let (objects, commands): (Vec<_>, Vec<_>) = compiles.unzip();
        run_all(commands)?;
        let mut made_of = self.sources.clone();
        for object in &objects {
            let path = object.with_extension("d");
            let rule = std::fs::read_to_string(&path).map_err(|error| BuildError::Read { path, error })?;
            // What the script has generated is newer than its own start: cargo would run it again each time.
            for file in prerequisites(&rule).iter().filter(|file| !Path::new(file).starts_with(&out_dir)) {
                println!("cargo::rerun-if-changed={file}");
                made_of.push(file.into());
            }
        }

        let library = out_dir.join(format!("lib{}_host.so", self.name));
        // A process of an earlier run may be opening the library: it finds a whole one, the old or the new.
        let linked = out_dir.join(format!(".lib{}_host.{}.so", self.name, std::process::id()));
        let mut link = tool.to_command();
        link.arg("-shared").args(&objects).args(&self.link).arg("-o").arg(&linked);
        if std::env::consts::OS == "linux" {
            // A missing symbol is then an error here, and not where the library is opened.
            link.arg("-Wl,--no-undefined");
        }
        run_all(vec![link])?;
        std::fs::rename(&linked, &library)
            .map_err(|error| BuildError::Write { path: library.clone(), error })?;
        // Cargo runs this script again when the list is gone. The plugin removes it where a source has other contents
        // than it says, whatever the source's time. Its own time lies in the past: what is newer than the start of the
        // script would have it run each time.
        let list = made_of::list_of(&library);
        made_of::write(&library, &made_of)
            .and_then(|()| std::fs::File::options().write(true).open(&list)?.set_modified(long_ago()))
            .map_err(|error| BuildError::Write { path: list.clone(), error })?;
        println!("cargo::rerun-if-changed={}", list.display());
        Ok(library)
    }

    fn tool(&self) -> Result<cc::Tool, BuildError> {
        let mut build = cc::Build::new();
        build.cpp(true).std("c++17").opt_level(3).debug(false).pic(true).warnings(true).extra_warnings(false);
        build.flag("-fvisibility=hidden").flag("-fvisibility-inlines-hidden").cargo_warnings(false);
        if let Some(triple) = &self.target {
            build.target(triple).host(triple);
        }
        build.try_get_compiler().map_err(BuildError::NoCompiler)
    }
}

/// Builds the libraries that the package's `Cargo.toml` names, `[[package.metadata.accuracy.library]]`, for the `host`
/// architecture; all that a build script needs. Where that fails, prints why and ends the build script.
///
/// ```no_run
/// accuracy_core::build::declared();
/// ```
pub fn declared() {
    let failed = |error: BuildError| -> ! {
        eprintln!("error: {error}");
        std::process::exit(1)
    };
    let libraries = HostLibrary::declared().unwrap_or_else(|error| failed(error));
    if libraries.is_empty() {
        failed(BuildError::NothingDeclared);
    }
    for library in libraries {
        library.compile();
    }
}

/// Runs commands, as many at a time as cargo allows, to the first failure.
fn run_all(commands: Vec<Command>) -> Result<(), BuildError> {
    let jobs = std::env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1).max(1);
    let mut commands = commands.into_iter().peekable();
    while commands.peek().is_some() {
        let children = commands.by_ref().take(jobs).map(|mut command| {
            let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
            (command, child)
        });
        let mut result = Ok(());
        for (command, child) in children.collect::<Vec<_>>() {
            // Every child is waited for, after a failure too.
            result = result.and(finish(&command, child.and_then(|child| child.wait_with_output())));
        }
        result?;
    }
    Ok(())
}

fn finish(command: &Command, output: io::Result<std::process::Output>) -> Result<(), BuildError> {
    let output = output.map_err(|error| BuildError::CompilerDidNotRun {
        compiler: command.get_program().to_string_lossy().into_owned(),
        error,
    })?;
    let messages = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        return Err(BuildError::CompileFailed {
            command: words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" "),
            status: output.status,
            messages: messages.into_owned(),
        });
    }
    for line in messages.lines() {
        println!("cargo::warning={line}");
    }
    Ok(())
}

/// What to write instead of HIP that is no C++, where the messages of the host's compiler show such a line.
pub fn hints(messages: &str) -> Vec<&'static str> {
    let known = [
        (
            "<<<",
            "`kernel<<<grid, block, shared, stream>>>(..)` needs a HIP compiler; \
             hipLaunchKernelGGL(kernel, grid, block, shared, stream, ..) compiles for the host, too",
        ),
        (
            "extern __shared__",
            "`extern __shared__ float buffer[];` needs a HIP compiler; \
             HIP_DYNAMIC_SHARED(float, buffer) compiles for the host, too",
        ),
    ];
    known.into_iter().filter(|(seen, _)| messages.contains(seen)).map(|(_, hint)| hint).collect()
}

/// The files that a make rule, as `-MMD` writes it, names behind its colon.
pub fn prerequisites(rule: &str) -> Vec<String> {
    let rule = rule.replace("\\\n", " ");
    let Some((_, files)) = rule.split_once(": ") else { return Vec::new() };
    // A blank in a name is written with a backslash before it.
    let files = files.replace("\\ ", "\0");
    files.split_whitespace().map(|file| file.replace('\0', " ").replace("$$", "$")).collect()
}

/// Why a host library could not be built.
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildError {
    NoSources { library: String },
    SourceMissing { library: String, source: PathBuf, folder: PathBuf },
    EmptyFolder { folder: PathBuf, extensions: String },
    NothingDeclared,
    Manifest { path: PathBuf, error: String },
    NotABuildScript,
    Write { path: PathBuf, error: io::Error },
    Read { path: PathBuf, error: io::Error },
    NoCompiler(cc::Error),
    CompilerDidNotRun { compiler: String, error: io::Error },
    CompileFailed { command: String, status: std::process::ExitStatus, messages: String },
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::NoSources { library } => {
                write!(
                    f,
                    "kernel library `{library}` has no sources; add them with `file`, or to its `sources`"
                )
            }
            BuildError::EmptyFolder { folder, extensions } => {
                write!(f, "folder {} has no source (.{extensions})", folder.display())
            }
            BuildError::NothingDeclared => write!(
                f,
                "Cargo.toml names no kernel library for the host: add [[package.metadata.accuracy.library]] with `name` and `sources`"
            ),
            BuildError::Manifest { path, error } => {
                write!(f, "{} names kernel libraries that cannot be read: {error}", path.display())
            }
            BuildError::SourceMissing { library, source, folder } => {
                let (source, folder) = (source.display(), folder.display());
                write!(
                    f,
                    "source `{source}` of kernel library `{library}` is no file, looked for in {folder}"
                )
            }
            BuildError::NotABuildScript => {
                write!(
                    f,
                    "OUT_DIR or CARGO_MANIFEST_DIR is not set: run this from a build script, or name a folder with `out_dir`"
                )
            }
            BuildError::Write { path, error } => write!(f, "cannot write {}: {error}", path.display()),
            BuildError::Read { path, error } => write!(f, "cannot read {}: {error}", path.display()),
            BuildError::NoCompiler(error) => write!(f, "no C++ compiler for the host architecture: {error}"),
            BuildError::CompilerDidNotRun { compiler, error } => write!(
                f,
                "cannot run the C++ compiler `{compiler}`: {error}; install g++ or clang++, or set CXX to a compiler"
            ),
            BuildError::CompileFailed { command, status, messages } => {
                write!(f, "the C++ compiler failed ({status})\n  {command}\n{messages}")?;
                hints(messages).iter().try_for_each(|hint| write!(f, "\nhint: {hint}"))
            }
        }
    }
}

impl std::error::Error for BuildError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            BuildError::Write { error, .. }
            | BuildError::Read { error, .. }
            | BuildError::CompilerDidNotRun { error, .. } => Some(error),
            BuildError::NoCompiler(error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prerequisites_of_a_wrapped_rule_with_a_blank_in_a_name() {
        let rule = "out/a.o: src/a.hip \\\n src/my\\ header.h src/b$$.h\n";
        assert_eq!(prerequisites(rule), ["src/a.hip", "src/my header.h", "src/b$.h"]);
        assert!(prerequisites("").is_empty());
    }
}
