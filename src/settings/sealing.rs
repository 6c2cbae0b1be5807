//! Defines the settings for sealing. Only a superuser can change the settings for sealing. With the
//! settings for sealing, another role could replace the key that signs checkpoints, let the server
//! write files to any directory, or stop the publishing of checkpoints.

use super::{TextSetting, accept, variables};
use crate::pg::{NewestSnapshot, ServerError, SpiPlan, with_spi};
use ledger::note::is_key_name;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PgSqlErrorCode, pg_sys};
use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::path::Path;
use std::time::Duration;

/// The value of `lead_audit.signing_key_file`.
pub static SIGNING_KEY_FILE: TextSetting = TextSetting::new();
/// The value of `lead_audit.previous_signing_key_file`.
pub static PREVIOUS_SIGNING_KEY_FILE: TextSetting = TextSetting::new();
/// The value of `lead_audit.checkpoint_dir`.
pub static CHECKPOINT_DIR: TextSetting = TextSetting::new();
/// The value of `lead_audit.origin`.
pub static ORIGIN: TextSetting = TextSetting::new();
static SEAL_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(1000);

/// Returns the interval at which the worker seals. Returns `None` if the worker does not seal.
pub fn seal_interval() -> Option<Duration> {
    match SEAL_INTERVAL.get() {
        milliseconds if milliseconds > 0 => Some(Duration::from_millis(milliseconds as u64)),
        _ => None,
    }
}

/// Defines the settings for sealing.
pub fn define() {
    define_text(
        c"lead_audit.signing_key_file",
        c"File with the key that checkpoints are signed with.",
        c"An absolute path, outside of the data directory, that only the server's user can read. \
          Empty: checkpoints are not signed.",
        &SIGNING_KEY_FILE,
        check_path,
    );
    define_text(
        c"lead_audit.previous_signing_key_file",
        c"File with the key that checkpoints were signed with before.",
        c"The first checkpoint with another key or origin is signed with it too, so that those \
          who have its public key see that the log says so itself.",
        &PREVIOUS_SIGNING_KEY_FILE,
        check_path,
    );
    define_text(
        c"lead_audit.checkpoint_dir",
        c"Directory that checkpoints are written to.",
        c"An absolute path. Each log has a folder there, each checkpoint a file. Empty: \
          none is written.",
        &CHECKPOINT_DIR,
        check_path,
    );
    define_text(
        c"lead_audit.origin",
        c"Name of this database's audit log in its checkpoints.",
        c"With a signing key, the origin is the name of the key. Without a signing key, an empty \
          value means lead_audit/ followed by the log's id.",
        &ORIGIN,
        check_origin,
    );
    GucRegistry::define_int_guc(
        c"lead_audit.seal_interval",
        c"Time from one sealing by the background worker to the next.",
        c"With 0, the background worker does not seal.",
        &SEAL_INTERVAL,
        0,
        24 * 60 * 60 * 1000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
}

/// The names of the settings for signing and publishing checkpoints.
const OF_SEALING: [&CStr; 4] = [
    c"lead_audit.signing_key_file",
    c"lead_audit.previous_signing_key_file",
    c"lead_audit.checkpoint_dir",
    c"lead_audit.origin",
];

/// Applies the values that ALTER DATABASE has set for the settings in `OF_SEALING` since this
/// process began. The worker and every session that seals call this function, so that they use the
/// newest values. If the role or the session has a value of its own for a setting, the function
/// does not change this value.
///
/// # Errors
/// Returns an error if ALTER DATABASE has reset one of the settings. The value that applies after a
/// reset can be determined only by a new process.
pub fn reload_for_database() -> Result<(), ServerError> {
    let set = with_spi(|| {
        let plan = SpiPlan::prepare(
            "SELECT s.setconfig FROM pg_catalog.pg_db_role_setting s \
             JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase \
             WHERE d.datname = pg_catalog.current_database() AND s.setrole = 0",
            &[],
        );
        let snapshot = NewestSnapshot::take();
        plan.read(snapshot.as_ptr(), &[]).get::<Vec<String>>(0, 0).unwrap_or_default()
    });
    for name in OF_SEALING {
        let Some(source) = source_of(name) else { continue };
        if source > pg_sys::GucSource::PGC_S_DATABASE {
            continue;
        }
        let text = name.to_string_lossy();
        let value = set.iter().find_map(|setting| setting.strip_prefix(&*text)?.strip_prefix('='));
        match value.map(CString::new) {
            // SAFETY: the name and the value are C strings, and the setting exists.
            Some(Ok(value)) => unsafe {
                pg_sys::SetConfigOption(
                    name.as_ptr(),
                    value.as_ptr(),
                    pg_sys::GucContext::PGC_SUSET,
                    pg_sys::GucSource::PGC_S_DATABASE,
                );
            },
            None if source == pg_sys::GucSource::PGC_S_DATABASE => {
                WAS_RESET.set(true);
                return Err(ServerError {
                    code: PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                    message: format!("{text} was reset for this database"),
                    detail: Some("A new session can read the current value.".to_owned()),
                });
            }
            _ => {}
        }
    }
    Ok(())
}

thread_local! {
    static WAS_RESET: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether a call of `reload_for_database` in this process has returned the error for a
/// setting that ALTER DATABASE has reset.
pub fn was_reset() -> bool {
    WAS_RESET.get()
}

/// Returns the source of a setting's current value. Returns `None` if no setting has this name.
fn source_of(name: &CStr) -> Option<pg_sys::GucSource::Type> {
    variables().iter().find_map(|&variable| {
        // SAFETY: the structs of the settings live as long as the process.
        unsafe { (CStr::from_ptr((*variable).name) == name).then_some((*variable).source) }
    })
}

type Check = unsafe extern "C-unwind" fn(
    *mut *mut c_char,
    *mut *mut c_void,
    pg_sys::GucSource::Type,
) -> bool;

fn define_text(
    name: &'static CStr,
    short: &'static CStr,
    long: &'static CStr,
    setting: &'static TextSetting,
    check: Check,
) {
    // SAFETY: all strings and the variable are static. The check hook has the signature that
    // PostgreSQL requires.
    unsafe {
        pg_sys::DefineCustomStringVariable(
            name.as_ptr(),
            short.as_ptr(),
            long.as_ptr(),
            setting.0.as_ptr(),
            std::ptr::null(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GUC_SUPERUSER_ONLY as i32,
            Some(check),
            None,
            None,
        );
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn check_path(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: PostgreSQL passes a pointer to the new value.
    unsafe { accept(value, is_absolute) }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn check_origin(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: PostgreSQL passes a pointer to the new value.
    unsafe { accept(value, is_origin) }
}

/// The maximum length in bytes that file systems allow for a file name.
const NAME_LIMIT: usize = 255;

/// Returns the name of a log's folder in the directory of checkpoints. The folder name is the log's
/// origin in percent-encoding. The function encodes all bytes except ASCII letters, digits, `-`,
/// `_` and `.`. A dot at the beginning of the origin is encoded too.
pub fn folder_name(origin: &str) -> String {
    let mut name = String::new();
    for (i, byte) in origin.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || (byte == b'.' && i > 0) {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02X}"));
        }
    }
    name
}

/// Returns whether the folder name of this origin is short enough for file systems.
fn fits_folder(origin: &str) -> bool {
    folder_name(origin).len() <= NAME_LIMIT
}

fn is_absolute(path: &str) -> Result<(), String> {
    if Path::new(path).is_absolute() {
        Ok(())
    } else {
        Err("It must be an absolute path.".to_owned())
    }
}

fn is_origin(origin: &str) -> Result<(), String> {
    if !is_key_name(origin) {
        return Err("It must have no space, no plus sign and no control character.".to_owned());
    }
    if fits_folder(origin) {
        Ok(())
    } else {
        Err("It is too long for the name of a folder.".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_the_name_of_a_key() {
        for good in ["lead_audit/7d4c1f0e-52a9-4b7e-9d3b-0c6f5e1a2b84", "example.org/crm", "é"] {
            assert!(is_origin(good).is_ok(), "{good}");
        }
        for bad in ["a b", "a+b", "a\nb", &"x".repeat(256)] {
            assert!(is_origin(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_origin_never_leads_out_of_the_directory() {
        assert_eq!(folder_name("lead_audit/7d4c-1"), "lead_audit%2F7d4c-1");
        assert_eq!(folder_name("../x"), "%2E.%2Fx");
        assert_eq!(folder_name("é\0"), "%C3%A9%00");
        assert!(fits_folder(&"é".repeat(42)) && !fits_folder(&"é".repeat(43)));
    }

    #[test]
    fn paths_do_not_depend_on_where_the_server_was_started() {
        assert!(is_absolute("/var/lib/checkpoints").is_ok());
        for bad in ["checkpoints", "./x", "~/x"] {
            assert!(is_absolute(bad).is_err(), "{bad}");
        }
    }
}
