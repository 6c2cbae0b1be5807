//! Memory that processes share: with a name in the system's shared memory, after the data
//! directory, or without one.

use pgrx::pg_sys;
use std::ffi::{CStr, CString};
use std::fs;
use std::io::{Error, Read, Result};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The name: no two servers can have the same data directory at a time.
fn name() -> Result<CString> {
    // SAFETY: the data directory is known before any library is loaded.
    let directory = unsafe { CStr::from_ptr(pg_sys::DataDir) };
    let directory = fs::metadata(Path::new(std::ffi::OsStr::from_bytes(directory.to_bytes())))?;
    Ok(CString::new(format!("/lead_audit.{}.{}", directory.dev(), directory.ino()))?)
}

/// What a server left that had memory of another size: a copy of it.
pub fn left_in_other_size(bytes: usize) -> Option<Vec<u64>> {
    let name = name().ok()?;
    // SAFETY: a C string; the descriptor is ours.
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
    // In words, so that it is aligned as what it holds.
    let mut content = Vec::with_capacity(length);
    file.read_to_end(&mut content).ok()?;
    Some(
        content
            .chunks_exact(8)
            .map(|word| u64::from_ne_bytes(word.try_into().unwrap_or_default()))
            .collect(),
    )
}

/// Memory that outlives the processes that use it. It holds what was left there, or zeroes.
pub fn named(bytes: usize) -> Result<*mut u8> {
    let name = name()?;
    // SAFETY: a C string; the descriptor is ours.
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
    // All of it now: memory that is missing when it is touched would end the process.
    // SAFETY: an open file.
    let refused = unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, bytes as libc::off_t) };
    if refused != 0 {
        forget_name();
        return Err(Error::from_raw_os_error(refused));
    }
    map(bytes, libc::MAP_SHARED, file.as_raw_fd())
}

/// Memory that goes with the last process that uses it.
pub fn anonymous(bytes: usize) -> Result<*mut u8> {
    map(bytes, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1)
}

fn map(bytes: usize, flags: i32, file: i32) -> Result<*mut u8> {
    // SAFETY: asks for memory at a place of the system's choosing.
    let memory = unsafe {
        libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, file, 0)
    };
    if memory == libc::MAP_FAILED { Err(Error::last_os_error()) } else { Ok(memory.cast()) }
}

/// Takes the name away; the memory goes with the processes that use it.
pub fn forget_name() {
    if let Ok(name) = name() {
        // SAFETY: a C string.
        unsafe { libc::shm_unlink(name.as_ptr()) };
    }
}
