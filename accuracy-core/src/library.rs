//! Kernel libraries: where they are looked for, their launchers, and which launcher wrote which buffer.
//!
//! `#[kernel_library("name")]` makes one [`KernelLibrary`] for each block and one [`Launcher`] for each function. A
//! library is opened when its first launcher is called, for the architecture of the run, and stays open.

pub mod code_object;
mod error;

pub use crate::device::Grid;
pub use code_object::{CodeObject, Kernel};
pub use error::LibraryError;

use crate::arch::Arch;
use crate::device::memory::Runtime;
use crate::device::process::{Change, State};
use crate::device::{DevPtr, Status, Stream, fault, launches};
use crate::record::{self, Found};
use crate::{files, made_of};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

/// Where a package's kernels are looked for, by name.
struct Place {
    name: &'static str,
    package: &'static str,
    manifest_dir: &'static str,
    out_dir: Option<&'static str>,
}

/// What names where a package's kernels are looked for.
#[derive(Clone, Copy, Debug)]
pub struct Lookup<'a> {
    /// The folders of `ACCURACY_LIBRARY_PATH`.
    pub named: &'a [PathBuf],
    /// What `ACCURACY_KERNEL_FOLDERS` says.
    pub kernel_folders: &'a str,
    /// Whether the package was moved (`ACCURACY_PACKAGE_DIR`).
    pub moved: bool,
    pub out_dir: Option<&'a Path>,
    pub manifest_dir: &'a Path,
}

impl Lookup<'_> {
    /// The folders in their order: `ACCURACY_LIBRARY_PATH`; where the plugin has the kernels of this package, and of no
    /// other; the output folder of its build script; `lib/` in it. Of a package that was moved the last two are left
    /// out: what still lies where it was built may be another build.
    pub fn folders(&self) -> Vec<(Found, PathBuf)> {
        let mut folders: Vec<_> = self.named.iter().map(|dir| (Found::LibraryPath, dir.clone())).collect();
        for line in self.kernel_folders.lines() {
            let mut fields = line.splitn(3, '\t');
            let (Some(package), Some(found), Some(folder)) = (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let found = match found {
                "named" => Found::Named,
                "archive" => Found::Archive,
                _ => Found::Built,
            };
            if package == "*" || Path::new(package) == self.manifest_dir {
                folders.push((found, folder.into()));
            }
        }
        if !self.moved {
            folders.extend(self.out_dir.map(|dir| (Found::BuildScript, dir.into())));
            folders.push((Found::Package, self.manifest_dir.join("lib")));
        }
        folders
    }

    /// The first of `files` in the first folder that has one.
    pub fn find(&self, files: &[String]) -> Option<Chosen> {
        let folders = self.folders();
        let mut places = folders
            .iter()
            .flat_map(|(found, dir)| files.iter().map(move |file| (*found, dir.join(file))))
            .filter(|(_, path)| path.is_file());
        let (found, path) = places.next()?;
        // One of the workspace's own that is not taken.
        let passed_over = (found == Found::LibraryPath)
            .then(|| places.find(|(found, _)| found.is_own()))
            .flatten()
            .map(|(_, other)| other);
        Some(Chosen { path, found, passed_over })
    }
}

/// The file that is taken for a binding.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    pub path: PathBuf,
    pub found: Found,
    /// The workspace's own, where another is taken; its contents may be the same.
    pub passed_over: Option<PathBuf>,
}

impl Chosen {
    /// The same with what a record says of it.
    ///
    /// # Errors
    /// If it cannot be read, or takes the place of another without being asked to (`wins`).
    pub fn judged(self, package: &str, name: &str, wins: bool) -> Result<record::Library, LibraryError> {
        let Chosen { path, found, passed_over } = self;
        let passed_over = passed_over.filter(|other| !same_contents(&path, other));
        if let Some(built) = passed_over.clone().filter(|_| !wins) {
            return Err(LibraryError::PassedOver { path, built });
        }
        let hash = hash_of(&path).map_err(|source| LibraryError::Read { path: path.clone(), source })?;
        Ok(record::Library { package: package.into(), name: name.into(), path, hash, found, passed_over })
    }
}

/// Hash of a file's contents, as records have it.
fn hash_of(path: &Path) -> std::io::Result<String> {
    let file = files::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(record::digest(&[]));
    }
    // SAFETY: the mapping is read-only and ends with this function. A library that is cut off while it is read raises
    // SIGBUS, which ends this process as it would once the library is opened.
    let map = unsafe { memmap2::Mmap::map(&file) }?;
    Ok(record::digest(&map))
}

fn same_contents(one: &Path, other: &Path) -> bool {
    matches!((hash_of(one), hash_of(other)), (Ok(one), Ok(other)) if one == other)
}

/// Whether the environment says that `ACCURACY_LIBRARY_PATH` is meant to win: `ACCURACY_LIBRARY_WINS=1`.
pub fn library_path_wins(value: Option<&std::ffi::OsStr>) -> bool {
    value.is_some_and(|value| value == "1")
}

/// File names of a library's build for an architecture.
pub fn library_files(name: &str, arch: Arch) -> Vec<String> {
    vec![format!("lib{name}_{arch}.so")]
}

impl Place {
    /// The first of `files` in the first folder that has one.
    fn find(&self, arch: Arch, files: &[String], extra: &[PathBuf]) -> Result<Chosen, LibraryError> {
        let kernel_folders = std::env::var(crate::env::KERNEL_FOLDERS).unwrap_or_default();
        let lookup = Lookup {
            named: extra,
            kernel_folders: &kernel_folders,
            moved: std::env::var_os(crate::env::PACKAGE_DIR).is_some(),
            out_dir: self.out_dir.map(Path::new),
            manifest_dir: Path::new(self.manifest_dir),
        };
        if let Some(chosen) = lookup.find(files) {
            return Ok(chosen);
        }
        let searched: Vec<PathBuf> = lookup.folders().into_iter().map(|(_, dir)| dir).collect();
        let found = self.other_builds(&searched, files);
        let (name, files) = (self.name.to_string(), files.join(" or "));
        Err(match found.is_empty() {
            false => LibraryError::WrongArch { name, arch, files, found: error::list(&found), searched },
            true => LibraryError::NotFound { name, arch, files, searched },
        })
    }

    /// What is judged where `chosen` is opened: with the hash that it has now.
    ///
    /// # Errors
    /// If it is not what is meant: another is passed over, or a source has changed since it was built.
    fn judged(&self, chosen: Chosen) -> Result<record::Library, LibraryError> {
        let wins = std::env::var_os(crate::env::LIBRARY_WINS);
        let judged = chosen.judged(self.package, self.name, library_path_wins(wins.as_deref()))?;
        // The plugin has looked before the run, and somebody may go on writing while it runs.
        if judged.found == Found::BuildScript
            && std::env::var_os(crate::env::CASE).is_none()
            && let Some(changed) = made_of::changed(&judged.path)
        {
            return Err(LibraryError::Stale { path: judged.path, changed });
        }
        Ok(judged)
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
        let chosen = self.0.find(arch, &library_files(self.0.name, arch), extra)?;
        let path = chosen.path.clone();
        let mut open = OPEN.get_or_init(Default::default).lock().unwrap_or_else(|e| e.into_inner());
        if let Some(library) = open.get(&path) {
            judging(self.0.package, self.0.name, &library.judged);
            return Ok(library);
        }
        let judged = self.0.judged(chosen)?;
        let before = State::now();
        // SAFETY: opening runs the library's initialisers. It is the kernel library that the package under test
        // names as its own; running its code is the purpose of the call.
        let library = unsafe { libloading::Library::new(&path) }
            .map_err(|source| LibraryError::Open { path: path.clone(), source })?;
        let changes = before.restore();
        let observed = launches::observe(&path, &library);
        // Leaked: kernels may have left threads or registrations behind that outlive any owner.
        judging(self.0.package, self.0.name, &judged);
        let library: &'static _ =
            Box::leak(Box::new(Open { path: path.clone(), library, observed, changes, judged }));
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
    /// What its constructors changed of the process's state.
    changes: Vec<Change>,
    judged: record::Library,
}

/// Notes that kernels of a file are about to be called for a binding.
fn judging(package: &str, name: &str, library: &record::Library) {
    JUDGED.with_borrow_mut(|all| {
        if !all
            .iter()
            .any(|known| known.package == package && known.name == name && known.path == library.path)
        {
            all.push(record::Library { package: package.into(), name: name.into(), ..library.clone() });
        }
    });
}

/// The files whose kernels this thread has called since the last call, by package and name.
pub fn take_judged() -> Vec<record::Library> {
    let mut judged = JUDGED.with_borrow_mut(std::mem::take);
    judged.sort();
    judged
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
        let found = self.library.open(arch, &folders).and_then(|open| {
            let Open { path, library, observed, changes, .. } = open;
            OBSERVED.set(*observed);
            OPENED.set(changes);
            // SAFETY: the caller vouches for the type.
            unsafe { library.get::<Abi>(self.symbol) }.map(|symbol| *symbol).map_err(|source| {
                LibraryError::Symbol { path: path.clone(), symbol: self.symbol.into(), source }
            })
        });
        found.inspect_err(|error| failed(self.symbol, error))
    }

    /// Notes that the launcher is about to be called, with which arguments.
    pub fn launching(&self, arguments: &[&dyn LaunchArg]) {
        launches::take();
        note(self.library.0.package, self.symbol, self.parameters, arguments, self.expected);
        let changes = OPENED.take().iter().map(|change| (Changer::Opening, change.clone()));
        LAUNCHES.with_borrow_mut(|all| all.last_mut().map(|launch| launch.changes.extend(changes)));
    }

    /// Notes what the launcher has launched, and turns what it returned into a result that names it.
    pub fn returned(&self, status: impl Into<Status>) -> crate::Result<()> {
        launched(launches::take());
        match status.into().0 {
            0 => Ok(()),
            status => {
                let launcher = self.symbol.into();
                let error = LibraryError::Status { launcher, status, meaning: status_meaning(status) };
                failed(self.symbol, &error);
                Err(error.into())
            }
        }
    }
}

/// Who looks at memory before and after each launch of this thread. A case registers itself with [`watch_launches`],
/// because it stands above this module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watcher {
    pub before: fn(),
    /// Is given the number of the launch in this thread's list.
    pub after: fn(usize),
}

thread_local! {
    static WATCHER: Cell<Option<Watcher>> = const { Cell::new(None) };
}

/// Sets who watches this thread's launches from now on, in place of who did before.
pub(crate) fn watch_launches(watcher: Option<Watcher>) {
    WATCHER.set(watcher);
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
        let (kernels, configurations, changes) = (None, Vec::new(), Vec::new());
        all.push(Launch { package, launcher, arguments, expected, kernels, configurations, changes });
    });
    if let Some(watcher) = WATCHER.get() {
        (watcher.before)();
    }
    BEFORE.set(Some(State::now()));
    fault::launching(launcher);
}

/// Notes the kernels that the last call has launched, where they can be seen.
fn launched(kernels: Vec<launches::Launched>) {
    fault::returned();
    let changes = BEFORE.take().map_or(Vec::new(), |before| before.restore());
    LAUNCHES.with_borrow_mut(|all| {
        let Some(launch) = all.last_mut() else { return };
        launch.changes.extend(changes.into_iter().map(|change| (Changer::Launcher, change)));
        if OBSERVED.get() {
            launch.configurations = kernels.iter().map(|launched| launched.configuration).collect();
            launch.kernels = Some(kernels.into_iter().map(|launched| launched.kernel).collect());
        }
    });
    let launch = LAUNCHES.with_borrow(Vec::len).checked_sub(1);
    if let (Some(launch), Some(watcher)) = (launch, WATCHER.get()) {
        (watcher.after)(launch);
    }
}

/// Notes that a call of a launcher ends with this error. The test gets it, too, and may go on all the same.
fn failed(launcher: &'static str, error: &impl std::fmt::Display) {
    FAILURES.with_borrow_mut(|all| all.push(Failure { launcher, error: error.to_string() }));
}

/// A call of a launcher that ended with an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub launcher: &'static str,
    pub error: String,
}

/// The failed calls of this thread since the last call.
pub fn take_failures() -> Vec<Failure> {
    FAILURES.with_borrow_mut(std::mem::take)
}

/// Takes the last failed call for one that the test expects.
pub(crate) fn expect_failure() {
    FAILURES.with_borrow_mut(|all| all.pop());
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
    /// Changes to the process's state, on which the reference depends, too. The framework has undone them.
    pub changes: Vec<(Changer, Change)>,
}

/// Who changed the process's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changer {
    /// The launcher itself.
    Launcher,
    /// A constructor of its library, as it was opened.
    Opening,
    /// The test's own function, between the launchers.
    Test,
    /// Whatever ran before the test, such as a constructor of a library that it links.
    Earlier,
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
    static FAILURES: RefCell<Vec<Failure>> = const { RefCell::new(Vec::new()) };
    // The process's state before the launcher that is being called.
    static BEFORE: Cell<Option<State>> = const { Cell::new(None) };
    // What the constructors changed of the library of the launcher that is being called.
    static OPENED: Cell<&'static [Change]> = const { Cell::new(&[]) };
    static JUDGED: RefCell<Vec<record::Library>> = const { RefCell::new(Vec::new()) };
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
