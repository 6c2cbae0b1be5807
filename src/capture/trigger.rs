//! The row trigger: what Postgres calls for each row that was written. Runs as whoever writes.

use super::event::{RowEvent, RowOperation, record_row};
use crate::server::{ServerError, parse_uuid};
use crate::settings;
use pgrx::{PgSqlErrorCode, pg_sys};
use std::ffi::CStr;

/// Tells Postgres how `lead_audit_capture` is to be called.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_lead_audit_capture() -> &'static pg_sys::Pg_finfo_record {
    &pg_sys::Pg_finfo_record { api_version: 1 }
}

/// `lead_audit.capture()`.
///
/// # Safety
/// Called by Postgres only.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn lead_audit_capture(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: Postgres passes a valid call; what it hangs on it stays until this returns.
    unsafe {
        let call = TriggerCall::of(fcinfo, "capture");
        call.require(pg_sys::TRIGGER_EVENT_ROW | pg_sys::TRIGGER_EVENT_AFTER, "an AFTER trigger FOR EACH ROW");
        if settings::enabled() {
            let (operation, new_row) = match call.event & pg_sys::TRIGGER_EVENT_OPMASK {
                pg_sys::TRIGGER_EVENT_INSERT => (RowOperation::Insert, None),
                pg_sys::TRIGGER_EVENT_UPDATE => (RowOperation::Update, Some((*call.data).tg_newtuple)),
                _ => (RowOperation::Delete, None),
            };
            record_row(&RowEvent {
                operation,
                relation: (*call.data).tg_relation,
                watch_id: call.watch_id(),
                soft_delete_column: call.argument(1),
                row: (*call.data).tg_trigtuple,
                new_row,
            });
        }
    }
    pg_sys::Datum::from(0)
}

/// A call of a trigger function.
pub struct TriggerCall {
    /// What Postgres says about it.
    pub data: *mut pg_sys::TriggerData,
    /// The event, as TRIGGER_EVENT_… bits.
    pub event: u32,
    function: &'static str,
}

impl TriggerCall {
    /// The call, or an error if the function was not called as a trigger.
    ///
    /// # Safety
    /// `fcinfo` must be a valid call; the result must not outlive it.
    pub unsafe fn of(fcinfo: pg_sys::FunctionCallInfo, function: &'static str) -> Self {
        // SAFETY: the context of a call is null or a node, whose tag says what it is.
        unsafe {
            let context = (*fcinfo).context;
            if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
                misuse(function, "it was not called by the trigger manager");
            }
            let data = context.cast::<pg_sys::TriggerData>();
            TriggerCall { data, event: (*data).tg_event, function }
        }
    }

    /// Raises an error unless the trigger has this level and time.
    pub fn require(&self, level_and_time: u32, description: &str) {
        if self.event & (pg_sys::TRIGGER_EVENT_ROW | pg_sys::TRIGGER_EVENT_TIMINGMASK) != level_and_time {
            misuse(self.function, &format!("it must be called by {description}"));
        }
    }

    /// The trigger's argument, or an empty text where it has none.
    ///
    /// # Safety
    /// The call must not have returned.
    pub unsafe fn argument<'a>(&self, index: i16) -> &'a str {
        // SAFETY: the trigger has tgnargs arguments, C strings in the database's encoding, UTF-8.
        unsafe {
            let trigger = (*self.data).tg_trigger;
            if index >= (*trigger).tgnargs {
                return "";
            }
            CStr::from_ptr(*(*trigger).tgargs.add(index as usize)).to_str().unwrap_or("")
        }
    }

    /// The identity of the watched table: the first argument.
    ///
    /// # Safety
    /// The call must not have returned.
    pub unsafe fn watch_id(&self) -> [u8; 16] {
        // SAFETY: as the caller promises.
        let text = unsafe { self.argument(0) };
        parse_uuid(text).unwrap_or_else(|| misuse(self.function, "its first argument is not the identity of a watched table"))
    }
}

fn misuse(function: &str, detail: &str) -> ! {
    ServerError {
        code: PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
        message: format!("lead_audit.{function}() cannot be used here"),
        detail: Some(format!("It works only as a trigger, and {detail}.")),
    }
    .raise(Some("lead_audit.enable() makes the triggers that a table needs.".to_owned()))
}
