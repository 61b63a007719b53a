//! Files that somebody names: opened without waiting, only where they are regular, and read up to a limit.
//!
//! A FIFO would wait for a writer, a device may never end, and a file of any size may be named by mistake. Each of them
//! is an error at once, which says what the path is.

use std::collections::HashSet;
use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{Error, ErrorKind, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::SystemTime;

/// Most bytes of a file that a person writes: a configuration, a list of rules.
pub const TEXT: u64 = 16 << 20;
/// Most bytes of one record.
pub const RECORD: u64 = 64 << 20;
/// Most bytes of a file with a line or an entry for each case or tensor: a manifest, a baseline, an index.
pub const LIST: u64 = 1 << 30;
/// Most bytes of a kernel library or code object.
pub const LIBRARY: u64 = 16 << 30;

/// Opens a regular file for reading.
///
/// # Errors
/// If it cannot be opened, or is anything else: at once, whoever holds its other end.
pub fn open(path: &Path) -> std::io::Result<File> {
    // Without O_NONBLOCK a FIFO is opened when somebody writes to it; of a regular file it says nothing.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let file = match file {
        Ok(file) => file,
        // A socket cannot be opened at all: what it is says more than the error.
        Err(error) => return Err(path.metadata().ok().and_then(|m| refused(m.file_type())).unwrap_or(error)),
    };
    let about = file.metadata()?;
    if let Some(error) = refused(about.file_type()) {
        return Err(error);
    }
    READ.lock().unwrap_or_else(PoisonError::into_inner).insert(identity(&about));
    Ok(file)
}

/// What a file is known by: its device and number, and when it was made, because the number of a file that was removed is
/// given to another one.
type Identity = (u64, u64, Option<SystemTime>);

/// The files that this process has opened for reading.
static READ: LazyLock<Mutex<HashSet<Identity>>> = LazyLock::new(Mutex::default);

fn identity(about: &Metadata) -> Identity {
    (about.dev(), about.ino(), about.created().ok())
}

/// Whether this process has read the file, under whatever name: nothing may be written over it.
pub fn was_read(path: &Path) -> bool {
    let read = || READ.lock().unwrap_or_else(PoisonError::into_inner);
    path.metadata().is_ok_and(|about| read().contains(&identity(&about)))
}

/// Why a path of this type is not read; `None` for a regular file.
fn refused(kind: FileType) -> Option<Error> {
    let what = match kind {
        kind if kind.is_file() => return None,
        kind if kind.is_dir() => {
            return Some(Error::new(ErrorKind::IsADirectory, "it is a folder, not a file"));
        }
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_socket() => "a socket",
        kind if kind.is_char_device() || kind.is_block_device() => "a device",
        _ => "no file",
    };
    Some(Error::new(ErrorKind::InvalidInput, format!("it is {what}, and only regular files are read")))
}

/// The bytes of a regular file that has at most `limit` of them.
///
/// # Errors
/// If it cannot be read, is not regular, or is larger: then nothing of it is read.
pub fn read(path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    let file = open(path)?;
    let length = file.metadata()?.len();
    let too_large = |length: u64| {
        let message = format!("it has {length} bytes, and at most {limit} are read of such a file");
        Err(Error::new(ErrorKind::FileTooLarge, message))
    };
    if length > limit {
        return too_large(length);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    // It may grow while it is read, and what the kernel makes up (/proc) has no length.
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return too_large(bytes.len() as u64);
    }
    Ok(bytes)
}

/// The text of a regular file that has at most `limit` bytes.
///
/// # Errors
/// As of [`read`], and if it is not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> std::io::Result<String> {
    String::from_utf8(read(path, limit)?).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::new(ErrorKind::InvalidData, format!("it is not UTF-8 at byte {at}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(result: std::io::Result<Vec<u8>>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        let name = std::ffi::CString::new(fifo.to_str().unwrap()).unwrap();
        // SAFETY: the name is a string that ends with a zero.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        assert!(says(read(&fifo, 10)).contains("a FIFO"));
        assert!(says(read(Path::new("/dev/zero"), 10)).contains("a device"));
        assert!(says(read(dir.path(), 10)).contains("a folder"));
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(says(read(&socket, 10)).contains("a socket"));
        // A link is what it points to.
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&fifo, &link).unwrap();
        assert!(says(read(&link, 10)).contains("a FIFO"));
        assert_eq!(read(&dir.path().join("absent"), 10).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_file_that_was_read_is_known_under_every_name() {
        let dir = tempfile::tempdir().unwrap();
        let [read_one, other, link] = ["read", "other", "link"].map(|name| dir.path().join(name));
        std::fs::write(&read_one, "a").unwrap();
        std::fs::write(&other, "b").unwrap();
        std::os::unix::fs::symlink(&read_one, &link).unwrap();
        assert!(!was_read(&read_one));
        read(&read_one, 10).unwrap();
        assert!(was_read(&read_one) && was_read(&link));
        assert!(!was_read(&other) && !was_read(&dir.path().join("absent")));
    }

    #[test]
    fn a_file_is_read_up_to_its_limit_and_not_at_all_beyond() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "twelve bytes").unwrap();
        assert_eq!(read_text(&path, 12).unwrap(), "twelve bytes");
        assert!(says(read(&path, 11)).contains("12 bytes, and at most 11"));
        // One that claims nothing of its length.
        assert!(says(read(Path::new("/proc/self/maps"), 11)).contains("at most 11"));
        // A file with a hole, larger than any memory, is not read.
        std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert!(says(read(&path, LIST)).contains("at most"));
        std::fs::write(&path, b"\xff").unwrap();
        assert!(read_text(&path, 9).unwrap_err().to_string().contains("not UTF-8 at byte 0"));
    }
}
