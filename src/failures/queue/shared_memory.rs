//! Maps memory that the processes of a server share. The memory is either anonymous, or a POSIX
//! shared memory object. The name of the shared memory object is derived from the data directory.

use pgrx::pg_sys;
use std::ffi::{CStr, CString};
use std::fs;
use std::io::{Error, Read, Result};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Returns the name of the shared memory object. The name contains the device and the inode of the
/// data directory. The name is unique, because only one server can use a data directory at a time.
fn name() -> Result<CString> {
    // SAFETY: the data directory is set before any library is loaded.
    let directory = unsafe { CStr::from_ptr(pg_sys::DataDir) };
    let directory = fs::metadata(Path::new(std::ffi::OsStr::from_bytes(directory.to_bytes())))?;
    Ok(CString::new(format!("/lead_audit.{}.{}", directory.dev(), directory.ino()))?)
}

/// Returns a copy of the named memory that an earlier server left, if this memory does not have the
/// size `bytes`. Returns `None` if the memory has this size, or does not exist.
pub fn left_in_other_size(bytes: usize) -> Option<Vec<u64>> {
    let name = name().ok()?;
    // SAFETY: the name is a C string, and this function owns the file descriptor.
    let mut file = unsafe {
        let file = libc::shm_open(name.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC, 0);
        if file < 0 {
            return None;
        }
        fs::File::from(OwnedFd::from_raw_fd(file))
    };
    let length = file.metadata().ok()?.len() as usize;
    if length == bytes {
        return None;
    }
    // The copy is a vector of `u64`, because a `Region` requires the alignment of `u64`.
    let mut content = Vec::with_capacity(length);
    file.read_to_end(&mut content).ok()?;
    Some(
        content
            .chunks_exact(8)
            .map(|word| u64::from_ne_bytes(word.try_into().unwrap_or_default()))
            .collect(),
    )
}

/// Maps named memory, which outlives all processes of the server. If an earlier server left named
/// memory of this size, the mapped memory has the content that the earlier server left. If no
/// earlier server left such memory, the mapped memory consists of zeroes.
pub fn named(bytes: usize) -> Result<*mut u8> {
    let name = name()?;
    // SAFETY: the name is a C string, and this function owns the file descriptor.
    let file = unsafe {
        let file =
            libc::shm_open(name.as_ptr(), libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC, 0o600);
        if file < 0 {
            return Err(Error::last_os_error());
        }
        OwnedFd::from_raw_fd(file)
    };
    let file = fs::File::from(file);
    if file.metadata()?.len() != bytes as u64 {
        file.set_len(0)?;
    }
    // Allocates all pages of the memory at once. If a page were allocated at its first use and the
    // system had no memory left, SIGBUS would end the process that uses the page.
    // SAFETY: the file is open.
    let refused = unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, bytes as libc::off_t) };
    if refused != 0 {
        forget_name();
        return Err(Error::from_raw_os_error(refused));
    }
    map(bytes, libc::MAP_SHARED, file.as_raw_fd())
}

/// Maps anonymous memory. The system frees the memory when the last process that uses the memory
/// ends.
pub fn anonymous(bytes: usize) -> Result<*mut u8> {
    map(bytes, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1)
}

fn map(bytes: usize, flags: i32, file: i32) -> Result<*mut u8> {
    // SAFETY: the system chooses the address.
    let memory = unsafe {
        libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, file, 0)
    };
    if memory == libc::MAP_FAILED { Err(Error::last_os_error()) } else { Ok(memory.cast()) }
}

/// Removes the name of the named memory. The system frees the memory when the last process that
/// uses the memory ends.
pub fn forget_name() {
    if let Ok(name) = name() {
        // SAFETY: the name is a C string.
        unsafe { libc::shm_unlink(name.as_ptr()) };
    }
}
