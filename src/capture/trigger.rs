//! Implements the audit trigger for rows, which PostgreSQL calls for each written row. The trigger
//! function runs as the role that writes the row.

use super::replica_role::{ORIGIN_ONLY, is_replica_role, is_trusted_write};
use super::row_event::{RowEvent, RowOperation, record_row};
use crate::pg::{ServerError, parse_uuid};
use crate::settings;
use pgrx::{PgSqlErrorCode, pg_sys};
use std::ffi::CStr;

/// Tells PostgreSQL the calling convention of `lead_audit_capture`.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_lead_audit_capture() -> &'static pg_sys::Pg_finfo_record {
    &pg_sys::Pg_finfo_record { api_version: 1 }
}

/// Implements `lead_audit.capture()`, which records the row for which the trigger was called.
///
/// # Safety
/// Only PostgreSQL may call this function.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn lead_audit_capture(
    fcinfo: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    // SAFETY: PostgreSQL passes a valid call, which lasts until this function returns.
    let call = unsafe { TriggerCall::of(&fcinfo, "capture") };
    call.require(
        pg_sys::TRIGGER_EVENT_ROW | pg_sys::TRIGGER_EVENT_AFTER,
        "an AFTER trigger FOR EACH ROW",
    );
    if settings::enabled() && call.is_recorded(2) {
        let (operation, new_row) = match call.event() & pg_sys::TRIGGER_EVENT_OPMASK {
            pg_sys::TRIGGER_EVENT_INSERT => (RowOperation::Insert, None),
            pg_sys::TRIGGER_EVENT_UPDATE => (RowOperation::Update, Some(call.data.tg_newtuple)),
            _ => (RowOperation::Delete, None),
        };
        let event = RowEvent {
            operation,
            relation: call.relation(),
            watch_id: call.watch_id(),
            soft_delete_column: call.argument(1),
            row: call.data.tg_trigtuple,
            new_row,
        };
        // SAFETY: during the trigger call, the relation is open and the tuples are rows of the
        // relation.
        unsafe { record_row(&event) }
    }
    pg_sys::Datum::from(0)
}

/// A call of a trigger function.
pub struct TriggerCall<'a> {
    data: &'a pg_sys::TriggerData,
    function: &'static str,
}

impl<'a> TriggerCall<'a> {
    /// Returns the trigger call. Raises an error if the function was not called as a trigger.
    ///
    /// # Safety
    /// `fcinfo` must be a call by PostgreSQL that lasts as long as the reference.
    pub unsafe fn of(fcinfo: &'a pg_sys::FunctionCallInfo, function: &'static str) -> Self {
        // SAFETY: the context of a call is null or a node, and a node's tag tells its type.
        let data = unsafe {
            let context = (**fcinfo).context;
            if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
                misuse(function, "it was not called by the trigger manager");
            }
            &*context.cast::<pg_sys::TriggerData>()
        };
        TriggerCall { data, function }
    }

    /// Returns the event of the trigger, as TRIGGER_EVENT_… bits.
    pub fn event(&self) -> u32 {
        self.data.tg_event
    }

    /// Returns the relation, which is open as long as the call lasts.
    pub fn relation(&self) -> pg_sys::Relation {
        self.data.tg_relation
    }

    /// Returns whether the trigger is called after the event.
    pub fn is_after(&self) -> bool {
        self.event() & pg_sys::TRIGGER_EVENT_TIMINGMASK == pg_sys::TRIGGER_EVENT_AFTER
    }

    /// Returns the trigger, which is valid as long as the call lasts.
    pub fn trigger(&self) -> *mut pg_sys::Trigger {
        self.data.tg_trigger
    }

    /// Raises an error if the trigger does not have the level and timing in `level_and_time`.
    pub fn require(&self, level_and_time: u32, description: &str) {
        if self.event() & (pg_sys::TRIGGER_EVENT_ROW | pg_sys::TRIGGER_EVENT_TIMINGMASK)
            != level_and_time
        {
            misuse(self.function, &format!("it must be called by {description}"));
        }
    }

    /// Returns an argument of the trigger, counted from 0. Returns an empty text if the argument is
    /// missing or not UTF-8.
    pub fn argument(&self, index: usize) -> &'a str {
        // SAFETY: the trigger manager passes a trigger with tgnargs arguments. The arguments are C
        // strings and live as long as the call.
        unsafe {
            let trigger = &*self.data.tg_trigger;
            if index >= usize::try_from(trigger.tgnargs).unwrap_or(0) {
                return "";
            }
            CStr::from_ptr(*trigger.tgargs.add(index)).to_str().unwrap_or("")
        }
    }

    /// Returns whether the write that fired the trigger must be recorded. The result depends on the
    /// session's session_replication_role. `mark` is the position at which the trigger has the
    /// argument `ORIGIN_ONLY`, if its table was enabled without `replica => true`. Triggers that
    /// version 1.0 created never have the argument `ORIGIN_ONLY`.
    pub fn is_recorded(&self, mark: usize) -> bool {
        !(is_replica_role() && self.argument(mark) == ORIGIN_ONLY && is_trusted_write())
    }

    /// Returns the watch id of the table, which is the first argument of the trigger.
    pub fn watch_id(&self) -> [u8; 16] {
        parse_uuid(self.argument(0)).unwrap_or_else(|| {
            misuse(self.function, "its first argument is not the identity of a watched table")
        })
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
