//! Writes an archive: a tar stream compressed with zstd, the same bytes for the same contents.

use super::collect::Collected;
use super::contents::{BINARIES, CONTENTS, LIBRARIES, is_below};
use anyhow::Context as _;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

/// Of zstd's 22: executables with debug information shrink to a quarter, at the speed of a disk.
const LEVEL: i32 = 3;

/// Writes to a temporary name beside `out`, so that what is called `out` is whole.
pub fn write(out: &Path, collected: &Collected) -> anyhow::Result<()> {
    let name = out.file_name().with_context(|| format!("--out {}: not the name of a file", out.display()))?;
    let temporary = out.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let written = File::create(&temporary)
        .with_context(|| format!("cannot write {}", temporary.display()))
        .and_then(|file| pack(file, collected))
        .and_then(|()| {
            std::fs::rename(&temporary, out).with_context(|| format!("cannot write {}", out.display()))
        });
    if written.is_err() {
        // The first error is the one to report.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

fn pack(file: File, collected: &Collected) -> anyhow::Result<()> {
    let mut encoder = zstd::Encoder::new(BufWriter::new(file), LEVEL).context("cannot start zstd")?;
    encoder.include_checksum(true).context("cannot set up zstd")?;
    let mut tar = tar::Builder::new(encoder);
    let contents = serde_json::to_vec(&collected.contents)?;
    append(&mut tar, CONTENTS, contents.len() as u64, &contents[..])?;
    for (file, source) in collected.contents.files.iter().zip(&collected.sources) {
        let opened = accuracy_core::files::open(source)
            .with_context(|| format!("cannot read {}", source.display()))?;
        let mut bytes = opened.take(file.size);
        append(&mut tar, &file.path, file.size, &mut bytes)?;
        if bytes.limit() != 0 {
            anyhow::bail!("{} has become shorter while it was archived", source.display());
        }
    }
    let encoder = tar.into_inner().context("cannot write the end of the archive")?;
    encoder.finish().and_then(|mut file| file.flush()).context("cannot write the end of the archive")
}

fn append(tar: &mut tar::Builder<impl Write>, path: &str, size: u64, bytes: impl Read) -> anyhow::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    let runs = is_below(path, BINARIES) || is_below(path, LIBRARIES);
    header.set_mode(if runs { 0o755 } else { 0o644 });
    tar.append_data(&mut header, path, bytes).with_context(|| format!("cannot write {path} into the archive"))
}
