//! Output functions of types depend on the session's settings, but an entry must not depend on
//! these settings. While an `OutputSettings` value is alive, the settings on which output functions
//! depend have the values that the format of entries prescribes.
//!
//! The code assigns to the C variables behind the settings and does not call set_config_option().
//! An assignment to a C variable takes nanoseconds, whereas a call of set_config_option() takes
//! microseconds. PostgreSQL's code for settings does not notice an assignment to a C variable, and
//! still knows the session's own value. Only lc_monetary is set with set_config_option(), because
//! PostgreSQL caches the monetary locale until set_config_option() changes lc_monetary.

use super::type_search::{TypeSearch, attribute_types};
use pgrx::pg_sys;
use std::cell::Cell;

mod raw {
    unsafe extern "C" {
        // pgrx has no binding for this variable, which utils/bytea.h declares.
        pub static mut bytea_output: core::ffi::c_int;
    }
}

const BYTEA_OUTPUT_HEX: i32 = 1;

thread_local! {
    static UTC: Cell<*mut pg_sys::pg_tz> = const { Cell::new(std::ptr::null_mut()) };
}

/// While a value of this type is alive, the settings on which output functions depend have fixed
/// values. When the value is dropped, also after an error, the session's own values are restored.
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
    /// Sets TimeZone to UTC, DateStyle to ISO/MDY, IntervalStyle to postgres, bytea_output to hex,
    /// and extra_float_digits to 1.
    pub fn new() -> Self {
        // SAFETY: these are plain variables of this process, which PostgreSQL reads in its output
        // functions.
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

    /// Sets the same settings as `new`, and also sets lc_monetary to C. Setting lc_monetary takes
    /// microseconds, so `with_money` is only for values that contain money.
    pub fn with_money() -> Self {
        let mut settings = Self::new();
        // SAFETY: PostgreSQL's nest level of settings that this code opens is closed by `drop` or,
        // after an error, by the abort of the transaction.
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
        // SAFETY: the code restores the saved values. After an error, the abort of the transaction
        // closes the nest level of settings.
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
    // SAFETY: pg_tzset() takes a C string. PostgreSQL caches time zones for the life of the
    // process. PostgreSQL knows the time zone GMT without reading a file.
    let zone = unsafe { pg_sys::pg_tzset(c"GMT".as_ptr()) };
    UTC.set(zone);
    zone
}

/// Answers whether a type can contain money. Caches the answer for each type. Setting lc_monetary
/// costs time, so [`OutputSettings::with_money`] is only for values that can contain money.
#[derive(Default)]
pub struct MoneyTypes(TypeSearch);

impl MoneyTypes {
    /// Returns whether the type is money, or has elements, bounds or attributes of type money.
    pub fn contains(&mut self, type_oid: pg_sys::Oid) -> bool {
        self.0.finds(type_oid, |candidate| candidate == pg_sys::MONEYOID, parts)
    }
}

/// Adds to `to` the types that values of a type consist of, for example the element type of an
/// array. Adds nothing for a scalar type.
fn parts(type_oid: pg_sys::Oid, to: &mut Vec<pg_sys::Oid>) {
    // SAFETY: these look-ups by oid return an invalid oid if they find nothing.
    let part = unsafe {
        let base = pg_sys::getBaseType(type_oid);
        match pg_sys::get_typtype(base) as u8 {
            _ if base != type_oid => base,
            pg_sys::TYPTYPE_RANGE => pg_sys::get_range_subtype(base),
            pg_sys::TYPTYPE_MULTIRANGE => pg_sys::get_multirange_range(base),
            pg_sys::TYPTYPE_COMPOSITE => return attribute_types(base, to),
            _ => pg_sys::get_element_type(base),
        }
    };
    if part != pg_sys::InvalidOid {
        to.push(part);
    }
}
