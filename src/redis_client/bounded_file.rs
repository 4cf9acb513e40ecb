//! Reads small files that the configuration names, without waiting for a FIFO and without reading more than a bound.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// Most bytes of a file with a password, a key or certificates: the system's bundle of all authorities has some 220 KiB.
pub(super) const MAX_BYTES: u64 = 1 << 20;

/// The content of a regular file.
///
/// # Errors
/// Those of opening and reading; the file is not a regular one, or is longer than [`MAX_BYTES`].
pub(super) fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    // Without this flag, opening a FIFO waits for its writer.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    match file.metadata()?.file_type() {
        kind if kind.is_file() => {}
        kind if kind.is_dir() => return Err(Errno::ISDIR.into()),
        _ => return Err(io::Error::other("not a regular file")),
    }
    read_to_bound(file)
}

/// Files below /proc and /sys are regular, but have no size.
fn read_to_bound(file: File) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("longer than {MAX_BYTES} bytes")));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    #[test]
    fn only_regular_files_up_to_a_bound_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let refusal = |path: &Path| read_bounded(path).unwrap_err().to_string();
        fs::write(&path, vec![b'x'; MAX_BYTES as usize]).unwrap();
        assert_eq!(read_bounded(&path).unwrap().len() as u64, MAX_BYTES);
        // Ten gigabytes, of which the disk has none.
        File::options().write(true).open(&path).unwrap().set_len(10 << 30).unwrap();
        assert_eq!(refusal(&path), "longer than 1048576 bytes");
        assert_eq!(refusal(dir.path()), "Is a directory (os error 21)");
        assert_eq!(refusal(Path::new("/dev/zero")), "not a regular file");
        assert_eq!(refusal(Path::new("/proc/kallsyms")), "longer than 1048576 bytes");
        let fifo = dir.path().join("fifo");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        assert_eq!(refusal(&fifo), "not a regular file");
    }
}
