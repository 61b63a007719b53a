//! What `init` does to a package, a step a thing that may be there already.

use super::InitArgs;
use crate::config::Config;
use crate::declared::Declared;
use crate::run::cargo::manifest_dir;
use accuracy_core::bf16;
use accuracy_core::weights::{NewTensor, StDtype};
use anyhow::Context as _;
use cargo_metadata::{DependencyKind, Metadata, Package, TargetKind};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Places of what is written, in the package.
pub const KERNEL: &str = "src/hip/first.hip";
const TEST: &str = "tests/accuracy.rs";
const SHARD: &str = "shards/first.safetensors";
/// In the repository.
const WORKFLOW: &str = ".github/workflows/accuracy.yml";

/// Rows and columns of the shard's weight.
const SHAPE: [usize; 2] = [192, 256];

/// What became of one thing.
#[derive(Debug)]
pub struct Done {
    pub did: Did,
    pub path: PathBuf,
    pub what: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    Wrote,
    /// To a file that was there.
    Added,
    Kept,
    /// A person has to do it.
    Left,
}

pub struct Setup<'a> {
    pub args: &'a InitArgs,
    pub metadata: &'a Metadata,
    pub package: &'a Package,
    pub declared: &'a Declared,
}

impl Setup<'_> {
    /// Does everything that is not done yet. What may fail for reasons outside of the package comes first.
    pub fn run(&self, config: &Config) -> anyhow::Result<Vec<Done>> {
        let mut done = Vec::new();
        self.dependencies(&mut done)?;
        self.configuration(config, &mut done)?;
        self.profile(&mut done)?;
        if self.declared.tests.is_empty() {
            self.first_test(config, &mut done)?;
        } else {
            let test = &self.declared.tests[0];
            done.push(kept(&test.at.file, format!("has an accuracy test already (`{}`)", test.name)));
        }
        if !self.args.no_ci {
            self.workflow(&mut done)?;
        }
        Ok(done)
    }

    fn manifest(&self) -> &Path {
        self.package.manifest_path.as_std_path()
    }

    /// accuracy-core for the package, whose bindings may stand in `src`, and for the build script without what only tests
    /// need.
    fn dependencies(&self, done: &mut Vec<Done>) -> anyhow::Result<()> {
        let has = |kinds: &[DependencyKind]| {
            self.package.dependencies.iter().any(|d| d.name == "accuracy-core" && kinds.contains(&d.kind))
        };
        let mut added = Vec::new();
        if !has(&[DependencyKind::Normal, DependencyKind::Development]) {
            // As a dependency of tests alone, `src` could not bind a launcher, and `cargo doc -p accuracy-core` would make
            // cargo 1.95 panic, because the build script depends on the same crate with other features.
            self.cargo_add(&[])?;
            added.push("bindings and tests");
        }
        if !has(&[DependencyKind::Build]) {
            self.cargo_add(&["--build", "--no-default-features", "--features", "build"])?;
            added.push("the build script");
        }
        done.push(match added[..] {
            [] => kept(self.manifest(), "depends on accuracy-core already"),
            _ => Done {
                did: Did::Added,
                path: self.manifest().into(),
                what: format!("accuracy-core {} for {}", self.core_from(), added.join(", and ")),
            },
        });
        if !has(&[DependencyKind::Normal]) && has(&[DependencyKind::Development]) {
            done.extend(self.bindings_without_dependency());
        }
        Ok(())
    }

    /// What a person has to do where `src` binds launchers and only tests depend on accuracy-core.
    fn bindings_without_dependency(&self) -> Option<Done> {
        let sources = manifest_dir(self.package).join("src");
        let binding = self.declared.libraries.iter().find(|library| library.at.file.starts_with(&sources))?;
        Some(Done {
            did: Did::Left,
            path: self.manifest().into(),
            what: format!(
                "move accuracy-core from [dev-dependencies] to [dependencies]: {} binds `{}`, and compiles only in tests \
                 otherwise",
                binding.at, binding.name
            ),
        })
    }

    /// Where accuracy-core comes from: the flag, the folder beside this program's source, the registry.
    fn core(&self) -> Option<PathBuf> {
        let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(|dir| dir.join("accuracy-core"));
        self.args
            .core
            .as_ref()
            .map(|dir| std::path::absolute(dir).unwrap_or_else(|_| dir.clone()))
            .or_else(|| beside().filter(|dir| dir.join("Cargo.toml").is_file()))
    }

    fn core_from(&self) -> String {
        match self.core() {
            Some(dir) => format!("(from {})", dir.display()),
            None => format!("({})", env!("CARGO_PKG_VERSION")),
        }
    }

    fn cargo_add(&self, flags: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["add", "--quiet", "--manifest-path"]).arg(self.manifest()).args(flags);
        match self.core() {
            Some(dir) => command.arg("--path").arg(dir),
            None => command.arg(concat!("accuracy-core@", env!("CARGO_PKG_VERSION"))),
        };
        if self.args.offline {
            command.arg("--offline");
        }
        let words: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        let output = command.output().context("cannot start cargo")?;
        if !output.status.success() {
            anyhow::bail!(
                "accuracy-core could not be added to {}: cargo {} ended with {}\n{}\n\
                 where it is not in the registry, name its folder: --core DIR",
                self.manifest().display(),
                words.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(())
    }

    /// The architecture that is meant where none is named.
    fn configuration(&self, config: &Config, done: &mut Vec<Done>) -> anyhow::Result<()> {
        if config.arch(&self.package.name).is_some() {
            done.push(kept(self.manifest(), "the architecture is configured already"));
            return Ok(());
        }
        if self.package.metadata.get("accuracy").is_some() {
            done.push(Done {
                did: Did::Left,
                path: self.manifest().into(),
                what: "name an architecture in [package.metadata.accuracy]: arch = \"host\"".into(),
            });
            return Ok(());
        }
        append(
            self.manifest(),
            "\n# The architecture to run on if no --arch is given: host is the CPU; gfx942, gfx950, sm_90, ... are GPUs.\n\
             [package.metadata.accuracy]\narch = \"host\"\n",
        )?;
        done.push(added(self.manifest(), "[package.metadata.accuracy]: arch = \"host\""));
        Ok(())
    }

    /// References are computed in float64: unoptimised they are the slowest part of a run.
    fn profile(&self, done: &mut Vec<Done>) -> anyhow::Result<()> {
        let root = self.metadata.workspace_root.as_std_path().join("Cargo.toml");
        let text =
            std::fs::read_to_string(&root).with_context(|| format!("cannot read {}", root.display()))?;
        let table: toml::Table =
            toml::from_str(&text).with_context(|| format!("cannot read {}", root.display()))?;
        let packages = table
            .get("profile")
            .and_then(|profile| profile.get("dev")?.get("package"))
            .and_then(toml::Value::as_table);
        let set = packages.is_some_and(|p| p.contains_key("accuracy-core") || p.contains_key("*"));
        if set {
            done.push(kept(&root, "[profile.dev.package] is set already"));
            return Ok(());
        }
        append(
            &root,
            "\n# References are computed in float64; without optimisation they would be the slowest part of every test.\n\
             [profile.dev.package.accuracy-core]\nopt-level = 3\n",
        )?;
        done.push(added(&root, "[profile.dev.package.accuracy-core]: opt-level = 3"));
        Ok(())
    }

    /// A chain that passes: kernels, the build script that compiles them, weights, the test.
    fn first_test(&self, config: &Config, done: &mut Vec<Done>) -> anyhow::Result<()> {
        let dir = manifest_dir(self.package);
        let library = self.package.name.replace('-', "_");
        let fill = |text: &str| text.replace("{{library}}", &library);

        let script = self.package.targets.iter().find(|t| t.kind.contains(&TargetKind::CustomBuild));
        match script {
            None => done.push(write(
                &dir.join("build.rs"),
                include_str!("files/build.rs"),
                "compiles the kernels for the host architecture",
            )?),
            Some(script) => done.push(Done {
                did: Did::Left,
                path: script.src_path.clone().into(),
                what: "is yours: add to its main: accuracy_core::build::declared();".into(),
            }),
        }
        if config.libraries(&self.package.name).is_empty() {
            append(
                self.manifest(),
                &format!(
                    "\n# The build script builds these sources for the CPU, `cargo accuracy` for GPUs and for --emulate.\n\
                     [[package.metadata.accuracy.library]]\nname = \"{library}\"\nsources = [\"{KERNEL}\"]\n"
                ),
            )?;
            done.push(added(
                self.manifest(),
                "[[package.metadata.accuracy.library]]: the sources of the kernels",
            ));
        } else {
            done.push(kept(self.manifest(), "[[package.metadata.accuracy.library]] is there already"));
        }
        done.push(write(
            &dir.join(KERNEL),
            include_str!("files/first.hip"),
            "two kernels to begin with: a quantiser and a GEMM",
        )?);
        let shard = dir.join(SHARD);
        if shard.exists() {
            done.push(kept(&shard, "is there already"));
        } else {
            make_parent(&shard)?;
            accuracy_core::weights::write(&shard, &[weight()], &BTreeMap::new())?;
            done.push(wrote(&shard, "random weights for them"));
        }
        done.push(write(
            &dir.join(TEST),
            &fill(include_str!("files/accuracy.rs")),
            "their bindings, and the first test",
        )?);
        Ok(())
    }

    fn workflow(&self, done: &mut Vec<Done>) -> anyhow::Result<()> {
        let root = self.metadata.workspace_root.as_std_path();
        let repository = root.ancestors().find(|dir| dir.join(".git").exists()).unwrap_or(root);
        let path = repository.join(WORKFLOW);
        if repository.join(".gitlab-ci.yml").is_file() {
            done.push(Done {
                did: Did::Left,
                path: repository.join(".gitlab-ci.yml"),
                what: "a job: cargo accuracy --report junit=accuracy.xml, and artifacts:reports:junit".into(),
            });
            return Ok(());
        }
        let mut text = include_str!("files/accuracy.yml").to_string();
        if let Some(below) = root.strip_prefix(repository).ok().filter(|below| !below.as_os_str().is_empty())
        {
            let below = below.display();
            text = text.replace(
                "\njobs:\n",
                &format!("\ndefaults:\n  run:\n    working-directory: {below}\n\njobs:\n"),
            );
        }
        let what = "the gate of pull requests, on a runner without a GPU";
        let step = write(&path, &text, what)?;
        let elsewhere = self.core().is_some() && step.did == Did::Wrote;
        done.push(step);
        if elsewhere {
            done.push(Done {
                did: Did::Left,
                path,
                what: "it installs cargo-accuracy from the registry, but this one was built from a folder that CI runners do not \
                       have: write `cargo install --locked --git URL cargo-accuracy` there, and in Cargo.toml \
                       `accuracy-core = { git = \"URL\" }` instead of the path"
                    .into(),
            });
        }
        Ok(())
    }
}

fn wrote(path: &Path, what: &str) -> Done {
    Done { did: Did::Wrote, path: path.into(), what: what.into() }
}

fn added(path: &Path, what: &str) -> Done {
    Done { did: Did::Added, path: path.into(), what: what.into() }
}

fn kept(path: &Path, what: impl Into<String>) -> Done {
    Done { did: Did::Kept, path: path.into(), what: what.into() }
}

fn make_parent(path: &Path) -> anyhow::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))
}

/// Writes a file that is not there.
fn write(path: &Path, text: &str, what: &str) -> anyhow::Result<Done> {
    use std::io::Write as _;
    make_parent(path)?;
    match std::fs::File::create_new(path) {
        Ok(mut file) => {
            file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(wrote(path, what))
        }
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(kept(path, "is there already")),
        Err(e) => Err(e).with_context(|| format!("cannot write {}", path.display())),
    }
}

/// Adds to the end of a file. A TOML table may stand behind any other.
fn append(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::File::options()
        .append(true)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

/// Weights as models have them: normal, each output channel with a magnitude of its own.
fn weight() -> NewTensor {
    let [rows, cols] = SHAPE;
    let mut state = 1_u64;
    // SplitMix64 (Steele, Lea, Flood 2014), to a number between 0 and 1.
    let mut uniform = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    };
    let mut bytes = Vec::with_capacity(rows * cols * 2);
    for _ in 0..rows {
        let magnitude = 0.02 * (2.0 * uniform() - 1.0).exp2();
        for _ in 0..cols {
            // The sum of twelve has variance one.
            let normal = (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
            bytes.extend(bf16::from_f64(magnitude * normal).to_le_bytes());
        }
    }
    NewTensor {
        name: "model.layers.0.mlp.up_proj.weight".into(),
        dtype: StDtype::BF16,
        shape: SHAPE.to_vec(),
        bytes,
    }
}
