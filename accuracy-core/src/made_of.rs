//! What a host library was made of, by contents: a list beside it of its sources and headers, each with a hash. Cargo
//! goes by times, which a copy or an unpacked archive may set to the past.

use std::io;
use std::path::{Path, PathBuf};

/// The list beside a library.
pub fn list_of(library: &Path) -> PathBuf {
    let mut name = library.as_os_str().to_owned();
    name.push(".made-of");
    name.into()
}

/// FNV-1a, 128 bits: build scripts have no other hash at hand.
fn hash(bytes: &[u8]) -> String {
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let start = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
    let hash = bytes.iter().fold(start, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME));
    format!("{hash:032x}")
}

/// Writes the list, a line each: hash and path.
///
/// # Errors
/// If a source cannot be read, or the list not be written.
pub fn write(library: &Path, sources: &[PathBuf]) -> io::Result<()> {
    let mut sources: Vec<PathBuf> = sources.iter().map(std::path::absolute).collect::<io::Result<_>>()?;
    sources.sort();
    sources.dedup();
    let mut text = String::new();
    for source in sources {
        let bytes = std::fs::read(&source)?;
        // A path that is no text, or has a line break in it, cannot stand in a line: cargo's times have to do.
        let Some(path) = source.to_str().filter(|path| !path.contains('\n')) else { continue };
        text += &format!("{} {path}\n", hash(&bytes));
    }
    std::fs::write(list_of(library), text)
}

/// A source that is there and has other contents than those that the library was made of. `None` where all are the same,
/// and where nothing is known of it.
pub fn changed(library: &Path) -> Option<PathBuf> {
    let text = std::fs::read_to_string(list_of(library)).ok()?;
    let known = text.lines().filter_map(|line| line.split_once(' '));
    let mut changed = known.filter(|(known, path)| {
        // A source that was removed is what cargo sees.
        std::fs::read(path).is_ok_and(|bytes| hash(&bytes) != *known)
    });
    changed.next().map(|(_, path)| path.into())
}

#[cfg(all(test, feature = "runtime"))]
mod tests {
    use super::*;

    #[test]
    fn contents_decide_and_times_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let (library, header) = (dir.path().join("liba_host.so"), dir.path().join("common.h"));
        assert_eq!(changed(&library), None, "nothing is known of it");
        std::fs::write(&header, "448.0f").unwrap();
        write(&library, &[header.clone(), header.clone()]).unwrap();
        assert_eq!(changed(&library), None);
        std::fs::write(&header, "448.0f").unwrap();
        assert_eq!(changed(&library), None, "only touched");
        std::fs::write(&header, "440.0f").unwrap();
        let past = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_577_836_800);
        std::fs::File::options().write(true).open(&header).unwrap().set_modified(past).unwrap();
        assert_eq!(changed(&library), Some(header));
    }
}
