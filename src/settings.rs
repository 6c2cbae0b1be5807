//! Defines the settings `lead_audit.*`: the context, which the application sets, and the settings
//! that only a superuser can change.
//!
//! Every entry contains the four settings of the context. To save time, the library reads the
//! settings of the context again only after one of them has changed. Every assignment to a setting
//! of the context increments a counter. The counter of assignments tells the module `actor` when it
//! must read the context again.

pub mod failures;
mod sealing;

pub use sealing::{
    CHECKPOINT_DIR, ORIGIN, PREVIOUS_SIGNING_KEY_FILE, SIGNING_KEY_FILE, folder_name,
    reload_for_database, seal_interval, was_reset,
};

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum, pg_sys};
use std::cell::Cell;
use std::ffi::{CStr, c_char, c_void};
use std::net::IpAddr;

/// Determines whether a statement succeeds or fails if one of its entries cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
pub enum OnError {
    /// The statement succeeds and raises a WARNING. `lead_audit.stats` counts the unwritten entry.
    #[name = c"warn"]
    Warn,
    /// The statement fails.
    #[name = c"abort"]
    Abort,
}

static ENABLED: GucSetting<bool> = GucSetting::<bool>::new(true);
static LOG_SOFT_DELETES: GucSetting<bool> = GucSetting::<bool>::new(true);
static LOG_UNCHANGED: GucSetting<bool> = GucSetting::<bool>::new(false);
static ON_ERROR: GucSetting<OnError> = GucSetting::<OnError>::new(OnError::Warn);
static BATCH_MEMORY: GucSetting<i32> = GucSetting::<i32>::new(1024);

/// Returns whether events are recorded.
pub fn enabled() -> bool {
    ENABLED.get()
}

/// Returns whether soft deletes and restores are recorded.
pub fn log_soft_deletes() -> bool {
    LOG_SOFT_DELETES.get()
}

/// Returns whether an UPDATE that changes no column is recorded.
pub fn log_unchanged() -> bool {
    LOG_UNCHANGED.get()
}

/// Returns whether a statement succeeds or fails if one of its entries cannot be written.
pub fn on_error() -> OnError {
    ON_ERROR.get()
}

/// Returns the number of bytes of entries that a statement gathers before it writes them.
pub fn batch_bytes() -> usize {
    BATCH_MEMORY.get().max(0) as usize * 1024
}

/// The variable in which PostgreSQL keeps the value of a text setting.
pub struct TextSetting(Cell<*mut c_char>);

// SAFETY: a server process has one thread. Only PostgreSQL's code for settings writes the pointer,
// and it runs in this thread.
unsafe impl Sync for TextSetting {}

impl TextSetting {
    const fn new() -> Self {
        TextSetting(Cell::new(std::ptr::null_mut()))
    }

    /// Returns the value of the setting, or `None` if the setting is unset or empty. An unset and
    /// an empty setting have the same meaning, because a setting that was unset before a
    /// transaction with SET LOCAL is empty after it.
    pub fn get(&self) -> Option<String> {
        let value = self.0.get();
        if value.is_null() {
            return None;
        }
        // SAFETY: the value of a setting is a C string that lives until the next assignment. The
        // code copies the value before the next assignment.
        let value = unsafe { CStr::from_ptr(value) };
        (!value.is_empty()).then(|| value.to_string_lossy().into_owned())
    }
}

/// The value of `lead_audit.user_id`.
pub static USER_ID: TextSetting = TextSetting::new();
/// The value of `lead_audit.user_ip`.
pub static USER_IP: TextSetting = TextSetting::new();
/// The value of `lead_audit.user_agent`.
pub static USER_AGENT: TextSetting = TextSetting::new();
/// The value of `lead_audit.request_id`.
pub static REQUEST_ID: TextSetting = TextSetting::new();

thread_local! {
    static ASSIGNMENTS: Cell<u64> = const { Cell::new(0) };
}

/// Returns the number of assignments to the settings of the context. While the number of
/// assignments stays the same, the settings of the context stay the same.
pub fn context_generation() -> u64 {
    ASSIGNMENTS.get()
}

/// The maximum length of `user_id` and of `request_id`, in characters.
const ID_LIMIT: usize = 255;
/// The maximum length of `user_agent`, in characters.
const USER_AGENT_LIMIT: usize = 500;

/// Defines all settings, and reserves the prefix `lead_audit`, so that PostgreSQL refuses misspelt
/// setting names. Settings that are fixed at server start are defined only if the library is
/// preloaded.
pub fn define(preloading: bool) {
    define_context(
        c"lead_audit.user_id",
        c"User on whose behalf the application works, at most 255 characters.",
        &USER_ID,
        check_id,
    );
    define_context(c"lead_audit.user_ip", c"IP address of that user.", &USER_IP, check_ip);
    define_context(
        c"lead_audit.user_agent",
        c"User agent of that user, at most 500 characters.",
        &USER_AGENT,
        check_user_agent,
    );
    define_context(
        c"lead_audit.request_id",
        c"Request that the application serves, at most 255 characters.",
        &REQUEST_ID,
        check_id,
    );
    GucRegistry::define_bool_guc(
        c"lead_audit.enabled",
        c"Records what happens to watched tables.",
        c"Only a superuser can change it.",
        &ENABLED,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"lead_audit.log_soft_deletes",
        c"Records soft deletes and their undoing.",
        c"When off, an UPDATE that turns the soft-delete column true or false leaves no entry. \
          Only a superuser can change it.",
        &LOG_SOFT_DELETES,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"lead_audit.log_unchanged",
        c"Records an UPDATE that changes nothing in its row.",
        c"Only a superuser can change it.",
        &LOG_UNCHANGED,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"lead_audit.on_error",
        c"What happens to a statement whose audit entry cannot be written.",
        c"warn: it goes on, with a WARNING and a count in lead_audit.stats. abort: it fails. \
          Only a superuser can change it.",
        &ON_ERROR,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"lead_audit.batch_memory",
        c"Memory for the entries that a statement gathers before it writes them.",
        c"Only a superuser can change it.",
        &BATCH_MEMORY,
        0,
        1024 * 1024,
        GucContext::Suset,
        GucFlags::UNIT_KB,
    );
    sealing::define();
    failures::define(preloading);
    // SAFETY: the argument is a static C string.
    unsafe {
        pg_sys::MarkGUCPrefixReserved(c"lead_audit".as_ptr());
    }
}

type Check = unsafe extern "C-unwind" fn(
    *mut *mut c_char,
    *mut *mut c_void,
    pg_sys::GucSource::Type,
) -> bool;

fn define_context(
    name: &'static CStr,
    description: &'static CStr,
    setting: &'static TextSetting,
    check: Check,
) {
    // SAFETY: all strings and the variable are static, and the hooks have the signatures that
    // PostgreSQL requires.
    unsafe {
        pg_sys::DefineCustomStringVariable(
            name.as_ptr(),
            description.as_ptr(),
            c"Set by the application, per session or transaction; stored in each entry.".as_ptr(),
            setting.0.as_ptr(),
            std::ptr::null(),
            pg_sys::GucContext::PGC_USERSET,
            0,
            Some(check),
            Some(count_assignment),
            None,
        );
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn count_assignment(_value: *const c_char, _extra: *mut c_void) {
    ASSIGNMENTS.set(ASSIGNMENTS.get() + 1);
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn check_id(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: PostgreSQL passes a pointer to the new value.
    unsafe { accept(value, |text| check_length(text, ID_LIMIT)) }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn check_user_agent(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: PostgreSQL passes a pointer to the new value.
    unsafe { accept(value, |text| check_length(text, USER_AGENT_LIMIT)) }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn check_ip(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: PostgreSQL passes a pointer to the new value.
    unsafe { accept(value, check_address) }
}

fn check_length(text: &str, limit: usize) -> Result<(), String> {
    match text.chars().count() {
        length if length > limit => {
            Err(format!("It is {length} characters long; at most {limit} are allowed."))
        }
        _ => Ok(()),
    }
}

fn check_address(text: &str) -> Result<(), String> {
    match text.parse::<IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) => Err("It is not an IPv4 or IPv6 address.".to_owned()),
    }
}

/// Returns whether `check` accepts the new value of a setting. If `check` rejects the value, stores
/// the message of `check` as the DETAIL of PostgreSQL's error.
///
/// # Safety
/// `value` must point to a C string or to null.
unsafe fn accept(value: *mut *mut c_char, check: impl Fn(&str) -> Result<(), String>) -> bool {
    // SAFETY: `value` points to a C string or null (see # Safety).
    let text = unsafe {
        if value.is_null() || (*value).is_null() {
            return true;
        }
        CStr::from_ptr(*value)
    };
    if text.is_empty() {
        return true;
    }
    let complaint = match text.to_str() {
        Ok(text) => check(text).err(),
        Err(_) => Some("It is not valid UTF-8.".to_owned()),
    };
    let Some(complaint) = complaint else { return true };
    let complaint: Vec<u8> = complaint.into_bytes().into_iter().chain([0]).collect();
    // SAFETY: the message is copied to ErrorContext, as GUC_check_errdetail() does. PostgreSQL
    // frees the copy of the message together with the error.
    unsafe {
        pg_sys::GUC_check_errdetail_string =
            pg_sys::MemoryContextStrdup(pg_sys::ErrorContext, complaint.as_ptr().cast());
    }
    false
}

/// Returns the value that a setting had before the innermost running function or script changed the
/// setting. Returns `None` if no running function or script has changed the setting.
///
/// For example, CREATE EXTENSION runs the extension's script with a search_path of its own. While
/// the extension's script runs, PostgreSQL keeps the caller's search_path in the stack of the
/// setting, and this function returns the caller's value.
pub fn outer_text_value(name: &CStr) -> Option<String> {
    // SAFETY: the structs of the settings live as long as the process. A setting's stack has one
    // element for each nest level that has changed the setting, and the element lives as long as
    // the nest level. The value is a C string, because this code returns early if `vartype` is not
    // PGC_STRING.
    unsafe {
        for &variable in variables() {
            if CStr::from_ptr((*variable).name) != name || (*variable).stack.is_null() {
                continue;
            }
            if (*variable).vartype != pg_sys::config_type::PGC_STRING {
                return None;
            }
            let prior = (*(*variable).stack).prior.val.stringval;
            return (!prior.is_null())
                .then(|| CStr::from_ptr(prior).to_string_lossy().into_owned());
        }
    }
    None
}

/// Returns pointers to PostgreSQL's structs of all settings. The array is valid until the current
/// memory context is reset or a setting is added.
fn variables<'a>() -> &'a [*mut pg_sys::config_generic] {
    // SAFETY: the array has the length that PostgreSQL reports. Before PostgreSQL 16, the array
    // belongs to PostgreSQL, which moves the array when a setting is added.
    #[cfg(feature = "pg15")]
    unsafe {
        std::slice::from_raw_parts(
            pg_sys::get_guc_variables(),
            pg_sys::GetNumConfigOptions().max(0) as usize,
        )
    }
    // SAFETY: the array has the length that PostgreSQL reports, and is a copy in the current memory
    // context.
    #[cfg(not(feature = "pg15"))]
    unsafe {
        let mut count = 0;
        let variables = pg_sys::get_guc_variables(&mut count);
        std::slice::from_raw_parts(variables, count.max(0) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_in_characters() {
        assert!(check_length(&"é".repeat(255), ID_LIMIT).is_ok());
        assert!(check_length(&"é".repeat(256), ID_LIMIT).is_err());
    }

    #[test]
    fn addresses_have_no_mask_zone_or_port() {
        for good in ["203.0.113.7", "::1", "2001:db8::ff00:42:8329", "::ffff:192.0.2.1"] {
            assert!(check_address(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "localhost",
            "10.0.0.0/8",
            "fe80::1%eth0",
            "1.2.3.4:80",
            "1.2.3",
            "01.2.3.4",
            " 1.2.3.4",
        ] {
            assert!(check_address(bad).is_err(), "{bad}");
        }
    }
}
