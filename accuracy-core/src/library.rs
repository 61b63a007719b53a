//! Kernel libraries: where they are looked for, their launchers, and which launcher wrote which buffer.
//!
//! `#[kernel_library("name")]` makes one [`KernelLibrary`] for each block and one [`Launcher`] for each function. A
//! library is opened when its first launcher is called, for the architecture of the run, and stays open.

pub mod code_object;

pub use code_object::{CodeObject, Grid, Kernel};

use crate::arch::Arch;
use crate::case::watch;
use crate::device::gpu::GpuError;
use crate::device::memory::Runtime;
use crate::device::{DevPtr, Status, Stream, launches};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

/// Why a launcher could not be called, or what it said.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    #[error(
        "kernels `{name}` have no build for {arch}: found {found}\n  looked for {files} in {}\n  build it for {arch}, or add its folder to {}",
        list(searched),
        crate::env::LIBRARY_PATH
    )]
    WrongArch { name: String, arch: Arch, files: String, found: String, searched: Vec<PathBuf> },
    #[error(
        "kernels `{name}` were not found\n  looked for {files} in {}\n  build it for {arch}, or add its folder to {}",
        list(searched),
        crate::env::LIBRARY_PATH
    )]
    NotFound { name: String, arch: Arch, files: String, searched: Vec<PathBuf> },
    #[error("kernel library {path} cannot be opened: {}", loader_says(source))]
    Open { path: PathBuf, source: libloading::Error },
    #[error(
        "kernel library {path} has no launcher `{symbol}`: export it with extern \"C\" and default visibility ({})",
        loader_says(source)
    )]
    Symbol { path: PathBuf, symbol: String, source: libloading::Error },
    #[error("{path} cannot be read: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("code object {path} cannot be loaded on this device ({device}): {source}")]
    Load { path: PathBuf, device: String, source: Box<GpuError> },
    #[error(
        "code object {path} has no kernel `{kernel}` ({source}); `cargo accuracy inspect {path}` lists what it has"
    )]
    Kernel { path: PathBuf, kernel: String, source: Box<GpuError> },
    #[error(
        "kernel `{kernel}` of {path} takes {} but is bound with {}: compilers add parameters of their own at the end, and bind every one",
        sizes(takes),
        sizes(bound)
    )]
    Parameters { path: PathBuf, kernel: String, bound: Vec<usize>, takes: Vec<usize> },
    #[error("kernel `{kernel}` of code object `{name}` runs on a GPU alone, and this run is for {arch}")]
    NoDevice { name: String, kernel: String, arch: Arch },
    #[error("launcher `{launcher}` returned status {status}{meaning}")]
    Status { launcher: String, status: i32, meaning: &'static str },
}

fn list(paths: &[PathBuf]) -> String {
    if paths.is_empty() {
        return "no folder".into();
    }
    paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// What the dynamic linker said, such as which library it did not find.
fn loader_says(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

fn sizes(parameters: &[usize]) -> String {
    let bytes: Vec<String> = parameters.iter().map(ToString::to_string).collect();
    format!("{} parameters of {} bytes", bytes.len(), bytes.join(", "))
}

/// Where a package's kernels are looked for, by name.
struct Place {
    name: &'static str,
    package: &'static str,
    manifest_dir: &'static str,
    out_dir: Option<&'static str>,
}

/// Folders in which a package's kernels are looked for, in this order: `ACCURACY_LIBRARY_PATH`, the output folder of the
/// package's build script, `lib/` in the package. Of a package that was moved (`ACCURACY_PACKAGE_DIR`) only the first:
/// what still lies where it was built may be another build.
pub fn folders(named: &[PathBuf], moved: bool, out_dir: Option<&Path>, manifest_dir: &Path) -> Vec<PathBuf> {
    let mut folders = named.to_vec();
    if !moved {
        folders.extend(out_dir.map(PathBuf::from));
        folders.push(manifest_dir.join("lib"));
    }
    folders
}

/// File names of a library's build for an architecture.
pub fn library_files(name: &str, arch: Arch) -> Vec<String> {
    vec![format!("lib{name}_{arch}.so")]
}

impl Place {
    fn folders(&self, named: &[PathBuf]) -> Vec<PathBuf> {
        let moved = std::env::var_os(crate::env::PACKAGE_DIR).is_some();
        folders(named, moved, self.out_dir.map(Path::new), Path::new(self.manifest_dir))
    }

    /// The first of `files` in the first folder that has one.
    fn find(&self, arch: Arch, files: &[String], extra: &[PathBuf]) -> Result<PathBuf, LibraryError> {
        let searched = self.folders(extra);
        let mut places = searched.iter().flat_map(|dir| files.iter().map(move |file| dir.join(file)));
        if let Some(path) = places.find(|path| path.is_file()) {
            return Ok(path);
        }
        let found = self.other_builds(&searched, files);
        let (name, files) = (self.name.to_string(), files.join(" or "));
        Err(match found.is_empty() {
            false => LibraryError::WrongArch { name, arch, files, found: list(&found), searched },
            true => LibraryError::NotFound { name, arch, files, searched },
        })
    }

    /// Builds for other architectures, of the same kind as `files`.
    fn other_builds(&self, folders: &[PathBuf], files: &[String]) -> Vec<PathBuf> {
        let extension = |file: &str| file.rsplit_once('.').map(|(_, e)| e.to_string());
        let extensions: Vec<_> = files.iter().map(|file| extension(file)).collect();
        let mut found: Vec<PathBuf> = folders
            .iter()
            .filter_map(|dir| std::fs::read_dir(dir).ok())
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                let file = path.file_name().unwrap_or_default().to_string_lossy();
                extensions.contains(&extension(&file))
                    && parse_file_name(&file).is_some_and(|(name, _)| name == self.name)
            })
            .collect();
        found.sort();
        found
    }
}

/// A kernel library by name, as a package binds it.
pub struct KernelLibrary(Place);

impl KernelLibrary {
    /// Used by `#[kernel_library]`, which fills in the package's own folders.
    pub const fn new(
        name: &'static str,
        package: &'static str,
        manifest_dir: &'static str,
        out_dir: Option<&'static str>,
    ) -> Self {
        KernelLibrary(Place { name, package, manifest_dir, out_dir })
    }

    /// Opens `lib{name}_{arch}.so`.
    fn open(&self, arch: Arch, extra: &[PathBuf]) -> Result<&'static Open, LibraryError> {
        static OPEN: OnceLock<Mutex<HashMap<PathBuf, &'static Open>>> = OnceLock::new();
        let path = self.0.find(arch, &library_files(self.0.name, arch), extra)?;
        let mut open = OPEN.get_or_init(Default::default).lock().unwrap_or_else(|e| e.into_inner());
        if let Some(library) = open.get(&path) {
            return Ok(library);
        }
        // SAFETY: opening runs the library's initialisers. It is the kernel library that the package under test
        // names as its own; running its code is the purpose of the call.
        let library = unsafe { libloading::Library::new(&path) }
            .map_err(|source| LibraryError::Open { path: path.clone(), source })?;
        let observed = launches::observe(&path, &library);
        // Leaked: kernels may have left threads or registrations behind that outlive any owner.
        let library: &'static _ = Box::leak(Box::new(Open { path: path.clone(), library, observed }));
        open.insert(path, library);
        Ok(library)
    }
}

/// A library that has been opened.
struct Open {
    path: PathBuf,
    library: libloading::Library,
    /// Whether the kernels that it launches are seen.
    observed: bool,
}

/// Name and architecture of a kernel library's file, `lib{name}_{arch}.so`, or of a code object's, `{name}_{arch}.hsaco`.
pub fn parse_file_name(file: &str) -> Option<(&str, Arch)> {
    let (stem, extension) = file.rsplit_once('.')?;
    let stem = match extension {
        "so" => stem.strip_prefix("lib")?,
        _ if code_object::EXTENSIONS.contains(&extension) => stem,
        _ => return None,
    };
    Arch::ALL.iter().find_map(|&arch| {
        let name = stem.strip_suffix(arch.name())?.strip_suffix('_')?;
        (!name.is_empty()).then_some((name, arch))
    })
}

/// One launcher of a library.
pub struct Launcher {
    library: &'static KernelLibrary,
    symbol: &'static str,
    parameters: &'static [&'static str],
    expected: Option<&'static str>,
}

impl Launcher {
    /// Used by `#[kernel_library]`. `parameters` are the names of the binding's parameters.
    pub const fn new(
        library: &'static KernelLibrary,
        symbol: &'static str,
        parameters: &'static [&'static str],
    ) -> Self {
        Launcher { library, symbol, parameters, expected: None }
    }

    /// The same, with a regular expression for the name of a kernel that it has to launch.
    pub const fn expecting(self, kernel: &'static str) -> Self {
        Launcher { expected: Some(kernel), ..self }
    }

    /// The launcher's entry point in the library of the run's architecture.
    ///
    /// # Safety
    /// `Abi` must be the `extern "C"` function type with which the library defines the symbol.
    pub unsafe fn symbol<Abi: Copy>(&self) -> Result<Abi, LibraryError> {
        let Target { arch, folders, .. } = TARGET.with_borrow(Clone::clone);
        let Open { path, library, observed } = self.library.open(arch, &folders)?;
        OBSERVED.set(*observed);
        // SAFETY: the caller vouches for the type.
        unsafe { library.get::<Abi>(self.symbol) }
            .map(|symbol| *symbol)
            .map_err(|source| LibraryError::Symbol { path: path.clone(), symbol: self.symbol.into(), source })
    }

    /// Notes that the launcher is about to be called, with which arguments.
    pub fn launching(&self, arguments: &[&dyn LaunchArg]) {
        launches::take();
        note(self.library.0.package, self.symbol, self.parameters, arguments, self.expected);
    }

    /// Notes what the launcher has launched, and turns what it returned into a result that names it.
    pub fn returned(&self, status: impl Into<Status>) -> crate::Result<()> {
        launched(launches::take());
        match status.into().0 {
            0 => Ok(()),
            status => {
                let launcher = self.symbol.into();
                Err(LibraryError::Status { launcher, status, meaning: status_meaning(status) }.into())
            }
        }
    }
}

/// Notes a call that is about to be made.
fn note(
    package: &'static str,
    launcher: &'static str,
    parameters: &[&'static str],
    arguments: &[&dyn LaunchArg],
    expected: Option<&'static str>,
) {
    let arguments = parameters.iter().zip(arguments).map(|(name, a)| (*name, a.describe())).collect();
    LAUNCHES.with_borrow_mut(|all| {
        let (kernels, configurations) = (None, Vec::new());
        all.push(Launch { package, launcher, arguments, expected, kernels, configurations });
    });
    watch::before_launch();
}

/// Notes the kernels that the last call has launched, where they can be seen.
fn launched(kernels: Vec<launches::Launched>) {
    LAUNCHES.with_borrow_mut(|all| {
        if let Some(launch) = all.last_mut().filter(|_| OBSERVED.get()) {
            launch.configurations = kernels.iter().map(|launched| launched.configuration).collect();
            launch.kernels = Some(kernels.into_iter().map(|launched| launched.kernel).collect());
        }
    });
    if let Some(launch) = LAUNCHES.with_borrow(Vec::len).checked_sub(1) {
        watch::after_launch(launch);
    }
}

/// The meanings that this project's own kernels follow, for those who do too.
fn status_meaning(status: i32) -> &'static str {
    match status {
        1 => " (1 is \"invalid argument\" by convention)",
        2 => " (2 is \"not supported\" by convention)",
        3 => " (3 is \"launch failed\" by convention)",
        _ => "",
    }
}

/// What an argument was.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    Pointer(usize),
    Value(String),
}

/// A type that a launcher takes.
pub trait LaunchArg {
    fn describe(&self) -> Argument;

    /// The value as a word of 8 bytes, where it fills a place of [`Padded`] size.
    fn padded(&self) -> Option<u64> {
        None
    }
}

/// A kernel's argument that fills a place of 16 bytes, however small the value is.
///
/// Kernels written in assembly often take one block of bytes in which every argument begins at a multiple of 16. A
/// kernel with such arguments is given the block as a whole; what follows the value in its place is zero. An argument
/// that is not padded lies where C would put it.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Padded<T>(pub T);

impl<T> From<T> for Padded<T> {
    fn from(value: T) -> Padded<T> {
        Padded(value)
    }
}

/// A type that can be [`Padded`].
pub trait Word: LaunchArg {
    /// The value in the first of 8 bytes, little-endian; the rest is zero.
    fn word(&self) -> u64;
}

impl<T: Word> LaunchArg for Padded<T> {
    fn describe(&self) -> Argument {
        self.0.describe()
    }

    fn padded(&self) -> Option<u64> {
        Some(self.0.word())
    }
}

impl<T> Word for DevPtr<T> {
    fn word(&self) -> u64 {
        self.address() as u64
    }
}

macro_rules! words {
    ($($t:ty: $word:expr),* $(,)?) => {$(
        impl Word for $t {
            fn word(&self) -> u64 {
                let word: fn($t) -> u64 = $word;
                word(*self)
            }
        }
    )*};
}
words! {
    i32: |value| value.cast_unsigned().into(),
    u32: |value| value.into(),
    i64: i64::cast_unsigned,
    u64: |value| value,
    f32: |value| value.to_bits().into(),
}

impl<T> LaunchArg for DevPtr<T> {
    fn describe(&self) -> Argument {
        Argument::Pointer(self.address())
    }
}

impl LaunchArg for Stream {
    fn describe(&self) -> Argument {
        Argument::Value("stream".into())
    }
}

macro_rules! values {
    ($($t:ty),*) => {$(
        impl LaunchArg for $t {
            fn describe(&self) -> Argument {
                Argument::Value(self.to_string())
            }
        }
    )*};
}
values!(bool, i8, u8, i16, u16, i32, u32, i64, u64, isize, usize, f32, f64);

/// One call of a launcher.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    pub package: &'static str,
    pub launcher: &'static str,
    /// Parameter names with what was passed.
    pub arguments: Vec<(&'static str, Argument)>,
    /// A regular expression for the name of a kernel that the launcher has to launch.
    pub expected: Option<&'static str>,
    /// The kernels that it launched, in order; `None` where that cannot be seen.
    pub kernels: Option<Vec<String>>,
    /// A number for each of them that stands for its grid and its arguments, where these are seen.
    pub configurations: Vec<Option<u64>>,
}

impl Launch {
    /// Whether an argument points into the `len` bytes from `start`.
    pub fn touches(&self, start: usize, len: usize) -> bool {
        self.arguments
            .iter()
            .any(|(_, a)| matches!(a, Argument::Pointer(p) if (start..start + len.max(1)).contains(p)))
    }
}

thread_local! {
    // A chain runs on one thread, and several chains may run side by side under plain `cargo test`.
    static LAUNCHES: RefCell<Vec<Launch>> = const { RefCell::new(Vec::new()) };
    // Whether the library of the launcher that is being called is observed.
    static OBSERVED: Cell<bool> = const { Cell::new(false) };
    static TARGET: RefCell<Target> = const {
        RefCell::new(Target { arch: Arch::Host, runtime: Runtime::Host, folders: Vec::new() })
    };
}

/// What this thread's launchers are meant for.
#[derive(Clone)]
struct Target {
    arch: Arch,
    runtime: Runtime,
    /// Where libraries are looked for first.
    folders: Vec<PathBuf>,
}

/// Says for which architecture this thread's launchers are meant, on which runtime, and where else to look for
/// libraries.
pub fn set_target(arch: Arch, runtime: Runtime, folders: &[PathBuf]) {
    TARGET.with_borrow_mut(|target| *target = Target { arch, runtime, folders: folders.to_vec() });
}

/// Whether a launcher of this thread has been given a pointer into the `len` bytes from `start` since launches were last
/// taken.
pub fn launched_on(start: usize, len: usize) -> bool {
    LAUNCHES.with_borrow(|launches| launches.iter().any(|launch| launch.touches(start, len)))
}

/// The launches of this thread since they were last taken.
pub fn take_launches() -> Vec<Launch> {
    LAUNCHES.with_borrow_mut(std::mem::take)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_cannot_be_opened_is_told_in_the_words_of_the_loader() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("libscale_host.so");
        std::fs::write(
            &path,
            "not a library, but as long as the head of one would have to be at the least\n",
        )
        .unwrap();
        let library = KernelLibrary::new("scale", "p", "/nowhere", None);
        let Err(error) = library.open(Arch::Host, &[dir.path().into()]) else {
            panic!("{path:?} was opened")
        };
        let text = error.to_string();
        assert!(
            text.contains("libscale_host.so cannot be opened") && text.contains("invalid ELF header"),
            "{text}"
        );
    }

    #[test]
    fn a_library_file_has_a_name_and_an_architecture() {
        assert_eq!(parse_file_name("libgemm_gfx950.so"), Some(("gemm", Arch::Gfx950)));
        assert_eq!(parse_file_name("libmy_gemm_sm_90.so"), Some(("my_gemm", Arch::Sm90)));
        assert_eq!(parse_file_name("my_gemm_gfx950.hsaco"), Some(("my_gemm", Arch::Gfx950)));
        assert_eq!(parse_file_name("gemm_sm_90.cubin"), Some(("gemm", Arch::Sm90)));
        for other in [
            "libgemm.so",
            "gemm.cubin",
            "gemm_gfx950.s",
            "lib_host.so",
            "gemm_host.so",
            "libgemm_host.so.1",
            "libgemm_gfx9000.so",
        ] {
            assert_eq!(parse_file_name(other), None, "{other}");
        }
    }
}
