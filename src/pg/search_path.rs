//! Looking names up as somebody else would.

use pgrx::pg_sys;
use std::ffi::CStr;

/// Runs `work` with this search_path. After an error the abort of the (sub)transaction puts the former one back.
pub fn with_search_path<R>(path: &CStr, work: impl FnOnce() -> R) -> R {
    // SAFETY: a nest level of our own, which ends here or with the (sub)transaction; both texts are C strings.
    unsafe {
        let level = pg_sys::NewGUCNestLevel();
        pg_sys::set_config_option(
            c"search_path".as_ptr(),
            path.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
        let result = work();
        pg_sys::AtEOXact_GUC(false, level);
        result
    }
}
