//! `doctor` on a machine with nothing, and on workspaces with something amiss; and the scripts of `completions`.

mod crates;

use crates::Fixture;
use std::path::Path;
use std::process::Output;

/// `doctor` in a folder, where neither programs nor runtimes are found.
fn doctor(dir: &Path, arguments: &[&str], path: &str) -> (Option<i32>, String) {
    let output = Fixture::in_shared_target(dir)
        .plugin()
        .args(["accuracy", "doctor"])
        .args(arguments)
        .env("PATH", path)
        .env_remove("CARGO")
        .env("COLUMNS", "80")
        .output()
        .unwrap();
    (output.status.code(), text(&output))
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The machine of this test may have a GPU; then nothing can be said of what is missing.
fn has_gpu() -> bool {
    ["/dev/kfd", "/dev/nvidiactl"].iter().any(|path| Path::new(path).exists())
}

#[test]
fn on_a_machine_with_nothing_it_says_so_and_nothing_is_wrong_with_that() {
    let folder = tempfile::tempdir().unwrap();
    let (status, said) = doctor(folder.path(), &[], "/nowhere");
    assert_eq!(status, Some(0), "{said}");
    for part in ["no cargo on PATH", "no C++ compiler", "apt-get install g++", "is in no Cargo workspace"] {
        let flat = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(part), "not said: {part}\n{said}");
    }
    assert!(!said.contains('\u{1b}') && !said.contains("BAD"), "{said}");
    // What cannot be broken, such as a path, may be longer.
    let long: Vec<&str> =
        said.lines().filter(|l| l.chars().count() > 80 && l.split_whitespace().count() > 2).collect();
    assert!(long.is_empty(), "wider than 80 columns: {long:#?}");
}

#[test]
fn an_architecture_without_its_device_stands_in_the_way() {
    if has_gpu() {
        eprintln!("skipped: this machine has a GPU");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (arch, file, container) in
        [("gfx950", "libamdhip64.so", "--device=/dev/kfd"), ("sm_90", "libcuda.so.1", "--gpus all")]
    {
        let (status, said) = doctor(folder.path(), &["--arch", arch], "/nowhere");
        assert_eq!(status, Some(100), "{said}");
        for part in [file, container, &format!("in the way of a run on {arch}")] {
            assert!(
                said.split_whitespace().collect::<Vec<_>>().join(" ").contains(part),
                "not said: {part}\n{said}"
            );
        }
    }
}

/// A crate with a test that names a checkpoint and a library.
fn kernel_crate(dir: &Path) {
    let write = |path: &str, text: &str| {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let core = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("accuracy-core");
    write(
        "Cargo.toml",
        &format!(
            "[package]\nname = \"k\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n\
             [dependencies]\naccuracy-core = {{ path = {core:?} }}\n"
        ),
    );
    write("src/lib.rs", "#[kernel_library(\"gemm\")]\nunsafe extern \"C\" {}\n");
    write("tests/a.rs", "#[accuracy_test(checkpoint = \"shards/x\", tokens = [1])]\nfn chain() {}\n");
}

#[test]
fn what_a_workspace_lacks_is_named_with_its_fix() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    kernel_crate(dir);
    let path = std::env::var("PATH").unwrap();
    let flat = |said: &str| said.split_whitespace().collect::<Vec<_>>().join(" ");

    let (status, said) = doctor(dir, &[], &path);
    assert_eq!(status, Some(100), "{said}");
    for part in [
        "no architecture is named for it",
        "shards/x: no such file or folder",
        "`chain` reads (tests/a.rs:1)",
    ] {
        assert!(flat(&said).contains(part), "not said: {part}\n{said}");
    }

    // A checkpoint that Git LFS has not fetched, and a library for the CPU under a GPU's name.
    std::fs::create_dir_all(dir.join("shards/x")).unwrap();
    std::fs::write(
        dir.join("shards/x/model.safetensors"),
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    )
    .unwrap();
    std::fs::create_dir(dir.join("lib")).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_cargo-accuracy"), dir.join("lib/libgemm_gfx950.so")).unwrap();
    let (status, said) = doctor(dir, &["--arch", "gfx950,host"], &path);
    assert_eq!(status, Some(100), "{said}");
    for part in [
        "git lfs pull",
        "lib/libgemm_gfx950.so has no code for gfx950: it holds no code for a GPU",
        "--offload-arch=gfx950",
        "gemm: no libgemm_host.so, and no build script makes it",
    ] {
        assert!(flat(&said).contains(part), "not said: {part}\n{said}");
    }
}

#[test]
fn the_compilers_are_those_that_build_takes() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let compiler = folder.path().join("compiler");
    std::fs::write(&compiler, "#!/bin/sh\necho some compiler 7.1\n").unwrap();
    std::fs::set_permissions(&compiler, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = Fixture::in_shared_target(folder.path())
        .plugin()
        .args(["accuracy", "doctor", "--arch", "gfx950,sm_90"])
        .envs(["CXX", "HIPCXX", "NVCC"].map(|name| (name, &compiler)))
        .output()
        .unwrap();
    let said = text(&output).split_whitespace().collect::<Vec<_>>().join(" ");
    for makes in ["the host", "AMD GPUs", "NVIDIA GPUs"] {
        let line = format!("some compiler 7.1 ({}): compiles HIP sources for {makes}", compiler.display());
        assert!(said.contains(&line), "not said: {line}\n{said}");
    }

    // Without ROCm it is Debian's clang, where that is there with what it needs.
    let (_, said) = doctor(folder.path(), &["--arch", "gfx950"], "/nowhere");
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let debian = Path::new("/usr/lib/llvm-22/bin/clang++").exists()
        && Path::new("/usr/lib/x86_64-linux-gnu/amdgcn/bitcode").exists();
    let expected = match debian {
        true => "with Debian's ROCm packages): compiles HIP sources for AMD GPUs",
        false => "no compiler for AMD GPUs: neither HIPCXX nor hipcc on PATH, and of Debian's packages",
    };
    assert!(said.contains(expected), "not said: {expected}\n{said}");
    let what_to_do =
        if debian { "`--emulate` runs those for gfx942 and gfx950" } else { "apt-get install clang-22" };
    assert!(said.contains(what_to_do), "not said: {what_to_do}\n{said}");
}

#[test]
fn variables_that_hide_devices_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let output = Fixture::in_shared_target(folder.path())
        .plugin()
        .args(["doctor"])
        .env("CUDA_VISIBLE_DEVICES", "")
        .env("ROCR_VISIBLE_DEVICES", "2,3")
        .env("HIP_VISIBLE_DEVICES", "1")
        .output()
        .unwrap();
    let said = text(&output);
    for part in [
        "CUDA_VISIBLE_DEVICES is set and empty",
        "counts within ROCR_VISIBLE_DEVICES=2,3",
        "HIP_VISIBLE_DEVICES=1",
    ] {
        assert!(said.contains(part), "not said: {part}\n{said}");
    }
}

fn script(shell: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output =
        Fixture::in_shared_target(folder.path()).plugin().args(["completions", shell]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// What a shell answers, or `None` where it is not installed.
fn ask(shell: &str, script: &str, question: &str) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("_cargo-accuracy");
    std::fs::write(&file, script).unwrap();
    let output = std::process::Command::new(shell)
        .args(["-c", &question.replace("SCRIPT", file.to_str().unwrap())])
        .env("HOME", folder.path())
        .output();
    match output {
        Ok(output) => Some(text(&output)),
        Err(_) => {
            eprintln!("skipped: no {shell} here");
            None
        }
    }
}

#[test]
fn bash_completes_the_subcommand_and_what_was_there_before() {
    let question = r#"
        complete -F _before cargo; _before() { COMPREPLY=(of-cargo); }
        source SCRIPT
        ask() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
            $(complete -p cargo | sed 's/.*-F \([^ ]*\).*/\1/') cargo "${!#}" "${COMP_WORDS[COMP_CWORD - 1]}"
            echo "${COMPREPLY[@]}"; }
        ask cargo accuracy insp
        ask cargo accuracy inspect --arc
        ask cargo accuracy --no-l
        ask cargo bui
        COMP_WORDS=(cargo-accuracy doc); COMP_CWORD=1; _cargo_accuracy cargo-accuracy doc cargo-accuracy; echo "${COMPREPLY[@]}""#;
    let said = ask("bash", &script("bash"), question).expect("bash is part of what tests need");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines, ["inspect", "--arch", "--no-lint", "of-cargo", "doctor"], "{said}");
}

#[test]
fn zsh_and_fish_complete_it_too() {
    let zsh = script("zsh");
    // zsh's completion of cargo calls the function of this name for a subcommand that it does not know.
    assert!(zsh.starts_with("#compdef cargo-accuracy") && zsh.contains("\n_cargo-accuracy() {"));
    if let Some(said) = ask("zsh", &zsh, "zsh -n SCRIPT && echo parsed") {
        assert_eq!(said.trim(), "parsed");
    }
    let question = "source SCRIPT; complete -C 'cargo-accuracy insp'; complete -C 'cargo accuracy insp'";
    let fish = script("fish");
    assert!(fish.contains("-a \"inspect\"") && !fish.contains("device-answers"));
    if let Some(said) = ask("fish", &fish, question) {
        assert_eq!(said.matches("inspect").count(), 2, "{said}");
    }
}
