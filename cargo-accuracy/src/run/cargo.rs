//! Everything that is asked of cargo: what the workspace holds, and its test executables.

use super::cargo_env::{self, Variable};
use anyhow::Context as _;
use cargo_metadata::{Message, Metadata, Package, PackageId, TargetKind};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Variable with the folder of a test's package.
pub const MANIFEST_DIR: &str = "CARGO_MANIFEST_DIR";

/// Cargo's own flags.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct CargoArgs {
    #[command(flatten, next_help_heading = "Package selection")]
    pub workspace: clap_cargo::Workspace,
    #[command(flatten, next_help_heading = "Feature selection")]
    pub features: clap_cargo::Features,
    #[command(flatten)]
    pub targets: TargetArgs,
    #[command(flatten)]
    pub build: BuildArgs,
    #[command(flatten, next_help_heading = "Cargo")]
    pub manifest: clap_cargo::Manifest,
}

#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Target selection")]
pub struct TargetArgs {
    /// Only the tests of libraries
    #[arg(long)]
    pub lib: bool,
    /// Only the tests of binaries
    #[arg(long)]
    pub bins: bool,
    /// Only this integration test (repeatable)
    #[arg(long, value_name = "NAME")]
    pub test: Vec<String>,
}

#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Cargo")]
pub struct BuildArgs {
    /// Build the tests in release mode
    #[arg(short, long, conflicts_with = "profile")]
    pub release: bool,
    /// Build the tests with this profile
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Folder for build outputs and results
    #[arg(long, value_name = "DIR")]
    pub target_dir: Option<PathBuf>,
    /// Number of parallel build jobs
    #[arg(long, value_name = "N")]
    pub build_jobs: Option<u32>,
    /// Require Cargo.lock to be up to date
    #[arg(long)]
    pub locked: bool,
    /// Do not access the network
    #[arg(long)]
    pub offline: bool,
    /// The same as --locked and --offline together
    #[arg(long)]
    pub frozen: bool,
}

impl CargoArgs {
    fn lock_flags(&self) -> impl Iterator<Item = String> {
        let build = &self.build;
        [("--locked", build.locked), ("--offline", build.offline), ("--frozen", build.frozen)]
            .into_iter()
            .filter(|(_, set)| *set)
            .map(|(flag, _)| flag.to_string())
    }

    /// Flags that decide which code runs, as a command that re-runs a case must repeat them.
    pub fn flags_to_repeat(&self) -> Vec<String> {
        let mut flags = Vec::new();
        if let Some(path) = &self.manifest.manifest_path {
            flags.extend(["--manifest-path".into(), path.display().to_string()]);
        }
        if self.features.all_features {
            flags.push("--all-features".into());
        }
        if self.features.no_default_features {
            flags.push("--no-default-features".into());
        }
        if !self.features.features.is_empty() {
            flags.extend(["--features".into(), self.features.features.join(",")]);
        }
        if self.build.release {
            flags.push("--release".into());
        }
        if let Some(profile) = &self.build.profile {
            flags.extend(["--profile".into(), profile.clone()]);
        }
        flags
    }

    pub fn metadata(&self) -> anyhow::Result<Metadata> {
        let mut command = self.manifest.metadata();
        command.no_deps().other_options(self.lock_flags().collect::<Vec<_>>());
        let mut metadata = command.exec().context("cannot read the workspace with cargo metadata")?;
        if let Some(dir) = &self.build.target_dir {
            let dir = std::path::absolute(dir).with_context(|| format!("--target-dir {}", dir.display()))?;
            let dir = dir.try_into().map_err(|e| anyhow::anyhow!("--target-dir is not UTF-8: {e}"))?;
            metadata.target_directory = dir;
        }
        Ok(metadata)
    }

    /// The workspace with all that it depends on, on one platform.
    pub fn dependencies(&self, platform: &str) -> anyhow::Result<Metadata> {
        let mut command = self.manifest.metadata();
        let filter = ["--filter-platform".to_owned(), platform.to_owned()];
        command.other_options(self.lock_flags().chain(filter).collect::<Vec<_>>());
        command.exec().context("cannot read what the workspace depends on with cargo metadata")
    }

    /// The packages that the flags and the working directory select, as cargo itself would.
    pub fn selected<'m>(&self, metadata: &'m Metadata) -> Vec<&'m Package> {
        let (selected, _) = self.workspace.partition_packages(metadata);
        selected
    }

    /// Whether the command line names packages one by one.
    pub fn names_packages(&self) -> bool {
        !self.workspace.package.is_empty()
    }

    /// Whether the command line names targets.
    pub fn names_targets(&self) -> bool {
        self.targets.lib || self.targets.bins || !self.targets.test.is_empty()
    }

    /// Builds the tests of `packages`, with these features beside those of the command line, and says which executables
    /// came out of it.
    pub fn build(
        &self,
        metadata: &Metadata,
        packages: &[&Package],
        features: &[String],
    ) -> anyhow::Result<Built> {
        let built = self.build_by_time(metadata, packages, features)?;
        // Cargo goes by the times of files. Where contents have changed and times have not, its next build runs the
        // build script again, because the list of what a library was made of is gone.
        let mut stale = false;
        for library in built.scripts.values().flat_map(|script| host_libraries(&script.out_dir)) {
            if accuracy_core::made_of::changed(&library).is_some() {
                let list = accuracy_core::made_of::list_of(&library);
                std::fs::remove_file(&list).with_context(|| format!("cannot remove {}", list.display()))?;
                stale = true;
            }
        }
        if stale { self.build_by_time(metadata, packages, features) } else { Ok(built) }
    }

    fn build_by_time(
        &self,
        metadata: &Metadata,
        packages: &[&Package],
        features: &[String],
    ) -> anyhow::Result<Built> {
        let mut command = Command::new(cargo());
        command.args(["test", "--no-run", "--message-format=json-render-diagnostics"]);
        command.args(self.lock_flags());
        command.args(self.flags_to_repeat());
        if !features.is_empty() {
            command.args(["--features", &features.join(",")]);
        }
        for package in packages {
            command.args(["-p", package.id.repr.as_str()]);
        }
        let targets = &self.targets;
        if targets.lib {
            command.arg("--lib");
        }
        if targets.bins {
            command.arg("--bins");
        }
        for name in &targets.test {
            command.args(["--test", name]);
        }
        if !targets.lib && !targets.bins && targets.test.is_empty() {
            // Everything with tests in it. Cargo's own default would build the examples as well.
            command.arg("--tests");
        }
        if let Some(n) = self.build.build_jobs {
            command.arg(format!("--jobs={n}"));
        }
        if self.build.target_dir.is_some() {
            command.args(["--target-dir", metadata.target_directory.as_str()]);
        }
        let said = || format!("{} {}", cargo(), words(&command));

        let what = said();
        let dir = std::env::current_dir().context("cannot find the working directory")?;
        let home = std::env::var_os("CARGO_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
        let mut child = command
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {what}"))?;
        let stdout = child.stdout.take().expect("standard output is a pipe");
        let mut built =
            Built { configured: cargo_env::variables(&dir, home.as_deref())?, ..Built::default() };
        for message in Message::parse_stream(std::io::BufReader::new(stdout)) {
            match message.with_context(|| format!("cannot read what {what} says"))? {
                Message::CompilerArtifact(artifact) => {
                    let dir = artifact.manifest_path.parent().unwrap_or("".into());
                    built.package_dirs.insert(artifact.package_id.clone(), dir.into());
                    let Some(path) = artifact.executable.filter(|_| artifact.profile.test) else { continue };
                    built.executables.push(Executable {
                        path: path.into(),
                        package: artifact.package_id,
                        target: artifact.target.name,
                        unit: artifact.target.kind.iter().any(|k| *k != TargetKind::Test),
                    });
                }
                Message::BuildScriptExecuted(script) => {
                    let out = built.scripts.entry(script.package_id).or_default();
                    out.linked_paths.extend(script.linked_paths.into_iter().map(|p| p.into_string()));
                    out.env.extend(script.env);
                    out.out_dir = script.out_dir.into();
                }
                _ => {}
            }
        }
        let status = child.wait().with_context(|| format!("cannot wait for {what}"))?;
        if !status.success() {
            anyhow::bail!("the tests could not be built: {what} ended with {status}");
        }
        built
            .executables
            .sort_by(|a, b| (&a.package, &a.target, &a.path).cmp(&(&b.package, &b.target, &b.path)));
        Ok(built)
    }
}

/// The libraries in the output folder of a build script.
fn host_libraries(out_dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(out_dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "so")).collect()
}

fn words(command: &Command) -> String {
    command.get_args().map(|a| a.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// The cargo that called this program, or the one on the path.
fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}

/// What a build left.
#[derive(Debug, Default)]
pub struct Built {
    pub executables: Vec<Executable>,
    scripts: BTreeMap<PackageId, BuildScript>,
    /// Folder of every package that took part, dependencies included.
    pub package_dirs: BTreeMap<PackageId, PathBuf>,
    /// Variables of cargo's configuration.
    pub configured: Vec<Variable>,
}

#[derive(Debug)]
pub struct Executable {
    pub path: PathBuf,
    pub package: PackageId,
    /// Name of cargo's target.
    pub target: String,
    /// Tests inside a library or binary, as against an integration test.
    pub unit: bool,
}

#[derive(Debug, Default)]
struct BuildScript {
    linked_paths: Vec<String>,
    env: Vec<(String, String)>,
    out_dir: PathBuf,
}

impl Built {
    /// The output folder of a package's build script, where it has one.
    pub fn out_dir(&self, package: &PackageId) -> Option<&Path> {
        self.scripts.get(package).map(|script| script.out_dir.as_path())
    }

    /// The environment that `cargo test` gives the test processes of a package.
    pub fn environment(
        &self,
        metadata: &Metadata,
        package: &Package,
        executable: &Path,
    ) -> Vec<(String, String)> {
        let dir = manifest_dir(package);
        let mut env: Vec<(String, String)> = self.configured.iter().filter_map(Variable::to_set).collect();
        env.extend(
            [
                ("CARGO", cargo()),
                (MANIFEST_DIR, dir.display().to_string()),
                ("CARGO_MANIFEST_PATH", package.manifest_path.to_string()),
            ]
            .map(|(name, value)| (name.to_string(), value)),
        );
        env.extend(self.portable_environment(package));
        if let Some(out_dir) = self.out_dir(&package.id) {
            env.push(("OUT_DIR".into(), out_dir.display().to_string()));
        }
        env.push(("LD_LIBRARY_PATH".into(), self.library_path(metadata, executable)));
        env
    }

    /// The part of it that says nothing of where the package and its build lie, cargo's configuration left out.
    pub fn portable_environment(&self, package: &Package) -> Vec<(String, String)> {
        let version = &package.version;
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let path = |value: &Option<cargo_metadata::camino::Utf8PathBuf>| {
            value.as_ref().map(|p| p.to_string()).unwrap_or_default()
        };
        let mut env: Vec<(String, String)> = [
            ("CARGO_PKG_NAME", package.name.to_string()),
            ("CARGO_PKG_VERSION", version.to_string()),
            ("CARGO_PKG_VERSION_MAJOR", version.major.to_string()),
            ("CARGO_PKG_VERSION_MINOR", version.minor.to_string()),
            ("CARGO_PKG_VERSION_PATCH", version.patch.to_string()),
            ("CARGO_PKG_VERSION_PRE", version.pre.to_string()),
            ("CARGO_PKG_AUTHORS", package.authors.join(":")),
            ("CARGO_PKG_DESCRIPTION", text(&package.description)),
            ("CARGO_PKG_HOMEPAGE", text(&package.homepage)),
            ("CARGO_PKG_REPOSITORY", text(&package.repository)),
            ("CARGO_PKG_LICENSE", text(&package.license)),
            ("CARGO_PKG_LICENSE_FILE", path(&package.license_file)),
            ("CARGO_PKG_README", path(&package.readme)),
            (
                "CARGO_PKG_RUST_VERSION",
                package.rust_version.as_ref().map(ToString::to_string).unwrap_or_default(),
            ),
        ]
        .map(|(name, value)| (name.to_string(), value))
        .into();
        if let Some(script) = self.scripts.get(&package.id) {
            env.extend(script.env.iter().cloned());
        }
        env
    }

    /// Cargo's order: what build scripts link against inside the target folder, the folder of dependencies, the
    /// folder of outputs, what was there.
    fn library_path(&self, metadata: &Metadata, executable: &Path) -> String {
        let mut dirs: Vec<PathBuf> = Vec::new();
        for linked in self.scripts.values().flat_map(|s| &s.linked_paths) {
            let path = linked.split_once('=').map_or(linked.as_str(), |(_, path)| path);
            if Path::new(path).starts_with(&metadata.target_directory) {
                dirs.push(path.into());
            }
        }
        let deps = executable.parent().unwrap_or(Path::new(""));
        dirs.push(deps.into());
        dirs.extend(deps.parent().map(PathBuf::from));
        if let Some(inherited) = std::env::var_os("LD_LIBRARY_PATH") {
            dirs.extend(std::env::split_paths(&inherited));
        }
        dirs.dedup();
        dirs.iter().map(|d| d.to_string_lossy()).collect::<Vec<_>>().join(":")
    }
}

/// Folder of the package's Cargo.toml: the working directory of its tests.
pub fn manifest_dir(package: &Package) -> &Path {
    package.manifest_path.parent().map_or(Path::new("."), |p| p.as_std_path())
}
