//! Files as they come from outside, and files of ours that are either whole or as before.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// Bytes of a text that a person wrote, or a list of names, at most.
pub const TEXT: u64 = 16 << 20;

/// Opens a regular file for reading. What else has a name, a pipe or a device, may never end.
///
/// # Errors
/// [`Error::Io`] when it cannot be opened, [`Error::File`] for anything but a regular file.
pub fn open(path: &Path, action: &'static str) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    // A pipe that nobody writes to would keep the call waiting.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    let file = options.open(path).map_err(|e| Error::io(path, action, e))?;
    let kind = file.metadata().map_err(|e| Error::io(path, action, e))?.file_type();
    if kind.is_dir() {
        return Err(Error::file(path, "expected a file, found a folder"));
    }
    if !kind.is_file() {
        return Err(Error::file(path, "expected a regular file, found a pipe or a device: copy its bytes into a file"));
    }
    Ok(file)
}

/// The bytes of a regular file of at most `most` bytes.
///
/// # Errors
/// As [`open`]; [`Error::File`] for a larger one.
pub fn read(path: &Path, action: &'static str, most: u64) -> Result<Vec<u8>> {
    let file = open(path, action)?;
    let large = |found: u64| Error::file(path, format!("expected at most {most} bytes, found {found}"));
    let len = file.metadata().map_err(|e| Error::io(path, action, e))?.len();
    if len > most {
        return Err(large(len));
    }
    let mut bytes = Vec::new();
    // Space is asked for and may be refused; growing step by step would end the process.
    let refused = |_| Error::io(path, action, ErrorKind::OutOfMemory.into());
    bytes.try_reserve_exact(usize::try_from(len).unwrap_or(usize::MAX).saturating_add(1)).map_err(refused)?;
    // It may grow while it is read.
    file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| Error::io(path, action, e))?;
    match bytes.len() as u64 > most {
        true => Err(large(bytes.len() as u64)),
        false => Ok(bytes),
    }
}

/// A text file of at most [`TEXT`] bytes.
///
/// # Errors
/// As [`read`]; [`Error::Io`] when it is no UTF-8.
pub fn text(path: &Path, action: &'static str) -> Result<String> {
    String::from_utf8(read(path, action, TEXT)?).map_err(|e| {
        let e = io::Error::new(ErrorKind::InvalidData, format!("stream did not contain valid UTF-8: {e}"));
        Error::io(path, action, e)
    })
}

/// Writes a file, and the folders it lies in, so that it is either whole or as before, and stays so when the machine stops.
///
/// # Errors
/// [`Error::Io`].
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    write_whole_by(path, |file| file.write_all(bytes))
}

/// [`write_whole`] where somebody named the place: a terminal or `/dev/null` takes what it is given.
///
/// # Errors
/// [`Error::Io`]; [`Error::File`] for a pipe, a socket or a disk, in whose place a file would do harm.
pub fn write_output(path: &Path, bytes: &[u8]) -> Result<()> {
    #[cfg(unix)]
    if let Ok(there) = fs::metadata(path)
        && !there.is_file()
        && !there.is_dir()
    {
        use std::os::unix::fs::FileTypeExt as _;
        if !there.file_type().is_char_device() {
            return Err(Error::file(path, "expected a file, or none yet, found a pipe, a socket or a disk"));
        }
        let written = OpenOptions::new().write(true).open(path).and_then(|mut device| device.write_all(bytes));
        return written.map_err(|e| Error::io(path, "write", e));
    }
    write_whole(path, bytes)
}

/// [`write_whole`] for what is made piece by piece.
///
/// # Errors
/// [`Error::Io`], that of `write` too.
pub fn write_whole_by(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let file_name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{file_name}.tmp"));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let whole = || {
        fs::create_dir_all(folder)?;
        let mut file = create(&temporary)?;
        write(&mut file)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&temporary, path)?;
        sync_folder(folder)
    };
    whole().map_err(|e| {
        let _ = fs::remove_file(&temporary);
        Error::io(path, "write", e)
    })
}

/// Makes a file of our own that nobody else has a name for: what bears its name, a link above all, goes, and is not written through.
///
/// # Errors
/// What the system says.
pub fn create(path: &Path) -> io::Result<File> {
    let new = || OpenOptions::new().read(true).write(true).create_new(true).open(path);
    match new() {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            new()
        }
        other => other,
    }
}

/// Options that open a file of our own without following a link in its place.
pub fn own() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NOFOLLOW);
    options
}

/// Puts the names of a folder on the disk: a rename is one only then.
///
/// # Errors
/// What the system says; nothing where folders cannot be synced.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some file systems know no such thing.
        Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_device_is_written_to_and_a_pipe_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let null = dir.path().join("null");
        std::os::unix::fs::symlink("/dev/null", &null).unwrap();
        write_output(&null, b"gone").unwrap();
        assert_eq!(fs::read_link(&null).unwrap(), Path::new("/dev/null"));
        let socket = dir.path().join("socket");
        let _open = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(write_output(&socket, b"x").unwrap_err().to_string().contains("found a pipe, a socket or a disk"));
        assert!(fs::metadata(&socket).is_ok_and(|there| !there.is_file()));
    }

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, "read", 5).unwrap(), b"12345");
        let error = read(&path, "read", 4).unwrap_err().to_string();
        assert!(error.contains("at most 4 bytes, found 5"), "{error}");
        assert!(matches!(read(&dir.path().join("b"), "read", 5), Err(Error::Io { .. })));
        fs::write(&path, [0xff]).unwrap();
        assert!(matches!(text(&path, "read"), Err(Error::Io { .. })));
        let error = text(dir.path(), "read").unwrap_err().to_string();
        assert!(error.contains("found a folder"), "{error}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_never_ends_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [pipe.as_path(), Path::new("/dev/zero"), Path::new("/dev/null")] {
            let error = text(path, "read").unwrap_err().to_string();
            assert!(error.contains("expected a regular file"), "{error}");
        }
        // A file of a terabyte that takes no space.
        let sparse = dir.path().join("sparse");
        File::create(&sparse).unwrap().set_len(1 << 40).unwrap();
        assert!(text(&sparse, "read").unwrap_err().to_string().contains("found 1099511627776"));
    }

    #[test]
    #[cfg(unix)]
    fn nothing_is_written_through_a_link() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let (other, path) = (dir.path().join("other"), dir.path().join("a.html"));
        fs::write(&other, "precious").unwrap();
        symlink(&other, dir.path().join(".a.html.tmp")).unwrap();
        symlink(&other, &path).unwrap();
        write_whole(&path, b"page").unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"precious");
        assert_eq!(fs::read(&path).unwrap(), b"page");
        assert!(!fs::symlink_metadata(&path).unwrap().is_symlink());
        symlink(&other, dir.path().join("log")).unwrap();
        assert!(own().append(true).create(true).open(dir.path().join("log")).is_err());
        create(&dir.path().join("log")).unwrap().write_all(b"own").unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"precious");
    }
}
