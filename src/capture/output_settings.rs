//! Output functions depend on the session's settings, and an entry must not. While an
//! `OutputSettings` is alive, these settings have the values that the format prescribes.
//!
//! Assigns to the variables behind the settings and not to the settings: that costs nanoseconds
//! instead of microseconds for each value, and the GUC machinery does not notice. Only lc_monetary
//! has no such variable.

use pgrx::pg_sys;
use std::cell::Cell;

mod raw {
    unsafe extern "C" {
        // Declared in utils/bytea.h, which pgrx does not bind.
        pub static mut bytea_output: core::ffi::c_int;
    }
}

const BYTEA_OUTPUT_HEX: i32 = 1;

thread_local! {
    static UTC: Cell<*mut pg_sys::pg_tz> = const { Cell::new(std::ptr::null_mut()) };
}

/// Fixes the settings while it is alive. Dropping it restores the session's values, after an error
/// too.
pub struct OutputSettings {
    time_zone: *mut pg_sys::pg_tz,
    date_style: i32,
    date_order: i32,
    interval_style: i32,
    bytea_output: i32,
    extra_float_digits: i32,
    guc_nest_level: Option<i32>,
}

impl OutputSettings {
    /// TimeZone UTC, DateStyle ISO/MDY, IntervalStyle postgres, bytea_output hex,
    /// extra_float_digits 1.
    pub fn new() -> Self {
        // SAFETY: plain variables of this process, which PostgreSQL reads in its output functions.
        unsafe {
            let former = OutputSettings {
                time_zone: pg_sys::session_timezone,
                date_style: pg_sys::DateStyle,
                date_order: pg_sys::DateOrder,
                interval_style: pg_sys::IntervalStyle,
                bytea_output: raw::bytea_output,
                extra_float_digits: pg_sys::extra_float_digits,
                guc_nest_level: None,
            };
            pg_sys::session_timezone = utc();
            pg_sys::DateStyle = pg_sys::USE_ISO_DATES as i32;
            pg_sys::DateOrder = pg_sys::DATEORDER_MDY as i32;
            pg_sys::IntervalStyle = pg_sys::INTSTYLE_POSTGRES as i32;
            raw::bytea_output = BYTEA_OUTPUT_HEX;
            pg_sys::extra_float_digits = 1;
            former
        }
    }

    /// Like `new`, and sets lc_monetary to C. Takes microseconds, so it is only for values that
    /// contain money.
    pub fn with_money() -> Self {
        let mut settings = Self::new();
        // SAFETY: opens a new nest level. Drop or the abort of the transaction closes it.
        unsafe {
            settings.guc_nest_level = Some(pg_sys::NewGUCNestLevel());
            pg_sys::set_config_option(
                c"lc_monetary".as_ptr(),
                c"C".as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
        }
        settings
    }
}

impl Drop for OutputSettings {
    fn drop(&mut self) {
        // SAFETY: restores the saved values. During an error the abort closes the nest level.
        unsafe {
            if let Some(level) = self.guc_nest_level
                && !std::thread::panicking()
            {
                pg_sys::AtEOXact_GUC(false, level);
            }
            pg_sys::session_timezone = self.time_zone;
            pg_sys::DateStyle = self.date_style;
            pg_sys::DateOrder = self.date_order;
            pg_sys::IntervalStyle = self.interval_style;
            raw::bytea_output = self.bytea_output;
            pg_sys::extra_float_digits = self.extra_float_digits;
        }
    }
}

fn utc() -> *mut pg_sys::pg_tz {
    let known = UTC.get();
    if !known.is_null() {
        return known;
    }
    // SAFETY: takes a C string; time zones are cached for the life of the process. PostgreSQL knows
    // GMT without a zone file.
    let zone = unsafe { pg_sys::pg_tzset(c"GMT".as_ptr()) };
    UTC.set(zone);
    zone
}
