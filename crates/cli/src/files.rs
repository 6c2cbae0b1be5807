//! Reads small files, and replaces files atomically. After a crash, a file that was being replaced
//! has its old content or its complete new content.

use crate::error::CommandError;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Maximum size of a file that is read into memory: a key, a checkpoint or a proof.
const MAX_SMALL: u64 = 4 << 20;

/// Creates a file that only its owner can read. Fails if the file exists.
pub fn write_secret(path: &Path, text: &str) -> Result<(), CommandError> {
    let error = CommandError::file(path);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(&error)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| sync_directory(path));
    if written.is_err() {
        // An incomplete key file is removed, because `create_new` fails at the next attempt if the
        // file exists.
        _ = fs::remove_file(path);
    }
    written.map_err(error)
}

/// Creates or replaces a file atomically. If the path is a device or a pipe, the function writes
/// into the device or pipe and does not replace it. If the path is a symbolic link, the function
/// replaces the file to which the link points.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), CommandError> {
    let error = CommandError::file(path);
    let real = match fs::canonicalize(path) {
        Ok(real) => real,
        Err(cause)
            if cause.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(path).is_err() =>
        {
            path.to_owned()
        }
        Err(cause) => return Err(error(cause)),
    };
    if fs::metadata(&real).is_ok_and(|there| !there.is_file()) {
        return OpenOptions::new()
            .write(true)
            .open(&real)
            .and_then(|mut there| there.write_all(bytes))
            .map_err(error);
    }
    let path = &*real;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.unfinished", std::process::id()));
    let unfinished = path.with_file_name(name);
    let written = File::create(&unfinished)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&unfinished, path))
        .and_then(|()| sync_directory(path));
    if written.is_err() {
        // An error is ignored here, because the unfinished file does not always exist.
        _ = fs::remove_file(&unfinished);
    }
    written.map_err(error)
}

/// Flushes the directory of `path` to disk, so that a new or renamed file in this directory
/// survives a crash.
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .map_or_else(|| PathBuf::from("."), Path::to_owned);
    File::open(parent)?.sync_all()
}

/// Reads a note or a proof from a file. Removes the second newline at the end, which `psql` adds.
pub fn read_note(path: &Path) -> Result<Vec<u8>, CommandError> {
    let mut bytes = read_small(path)?;
    if bytes.ends_with(b"\n\n") {
        bytes.pop();
    }
    Ok(bytes)
}

/// Reads a small file. The path `-` stands for standard input.
pub fn read_small(path: &Path) -> Result<Vec<u8>, CommandError> {
    let mut bytes = Vec::new();
    let read =
        |reader: &mut dyn Read, bytes: &mut Vec<u8>| reader.take(MAX_SMALL + 1).read_to_end(bytes);
    let result = if path.as_os_str() == "-" {
        read(&mut io::stdin(), &mut bytes)
    } else {
        File::open(path).and_then(|mut file| read(&mut file, &mut bytes))
    };
    result.map_err(CommandError::file(path))?;
    if bytes.len() as u64 > MAX_SMALL {
        return Err(CommandError::Content {
            path: path.to_owned(),
            cause: format!("larger than {MAX_SMALL} bytes"),
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileTypeExt, symlink};

    #[test]
    fn only_files_are_replaced() {
        let directory =
            std::env::temp_dir().join(format!("lead_audit_files_{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (file, link, pipe) =
            (directory.join("file"), directory.join("link"), directory.join("pipe"));
        replace(&file, b"one").unwrap();
        replace(&file, b"two").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        symlink("file", &link).unwrap();
        replace(&link, b"three").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"three");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        // Even if the test runs as root, `replace` must not replace the device by a file.
        replace(Path::new("/dev/null"), b"four").unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read(pipe).unwrap()
        });
        replace(&pipe, b"five").unwrap();
        assert_eq!(reader.join().unwrap(), b"five");
        assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
        assert!(replace(&directory, b"six").is_err());
        symlink("nowhere", directory.join("dangling")).unwrap();
        assert!(replace(&directory.join("dangling"), b"seven").is_err());
        let names: Vec<_> =
            fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 4, "{names:?}");
        fs::remove_dir_all(&directory).unwrap();
    }
}
