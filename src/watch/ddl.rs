//! DDL that concerns watched tables. The event trigger's function is called as whoever ran the command, who has no rights
//! in schema lead_audit; what it does there it does as the extension's owner.

use crate::journal::{self, NewEntry};
use crate::origin;
use crate::server::{ServerError, Text, as_user};
use pgrx::datum::DatumWithOid;
use pgrx::{PgList, PgSqlErrorCode, Spi, Uuid, pg_extern, pg_sys};
use std::cell::Cell;
use std::ffi::{CStr, CString};

/// Longest command that an entry keeps, in bytes.
const COMMAND_LIMIT: usize = 10_000;

/// `lead_audit.write_ddl(uuid, oid, text, text, text)`.
#[pg_extern(sql = false)]
fn write_ddl(
    watch_id: Option<Uuid>,
    relation: Option<pg_sys::Oid>,
    table_schema: Option<&str>,
    table_name: Option<&str>,
    statement: Option<&str>,
) {
    let (schema, name) = (table_schema.map(Text::from), table_name.map(Text::from));
    let mut statement = statement.map(|text| Text::from(&text[..text.floor_char_boundary(COMMAND_LIMIT)]));
    let entry = NewEntry {
        watch_id: watch_id.map(|id| *id.as_bytes()),
        relation,
        table_schema: schema.as_ref(),
        table_name: name.as_ref(),
        operation: "DDL",
        statement: statement.as_mut(),
        ..NewEntry::default()
    };
    // disable() runs as its owner: the role in effect outside of it is the one to record. The guard says itself for whom
    // it acts.
    // SAFETY: reads a variable of the session.
    origin::acting_for_unless_known(unsafe { pg_sys::GetOuterUserId() }, || journal::append(entry));
    journal::flush();
}

/// Tells Postgres how `lead_audit_guard_ddl` is to be called.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_lead_audit_guard_ddl() -> &'static pg_sys::Pg_finfo_record {
    &pg_sys::Pg_finfo_record { api_version: 1 }
}

/// `lead_audit.guard_ddl()`.
///
/// # Safety
/// Called by Postgres only.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn lead_audit_guard_ddl(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the context of a call is null or a node, whose tag says what it is; the event's name is a C string.
    let is_drop = unsafe {
        let context = (*fcinfo).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_EventTriggerData {
            ServerError {
                code: PgSqlErrorCode::ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED,
                message: "lead_audit.guard_ddl() cannot be used here".to_owned(),
                detail: Some("It works only as an event trigger.".to_owned()),
            }
            .raise(None);
        }
        CStr::from_ptr((*context.cast::<pg_sys::EventTriggerData>()).event) == c"sql_drop"
    };
    // SAFETY: as above; the statement is the one that has just been run.
    let effect = unsafe { effect_of_command(fcinfo) };
    if effect == Effect::PlainTable {
        return pg_sys::Datum::from(0);
    }
    let Some(_guarding) = Guarding::begin() else { return pg_sys::Datum::from(0) };
    // SAFETY: reads a variable of the session.
    let invoker = unsafe { pg_sys::GetUserId() };
    let Some(owner) = extension_owner() else { return pg_sys::Datum::from(0) };
    let result = origin::acting_for(invoker, || {
        as_user(owner, || {
            refuse_unless_allowed(invoker, is_drop)?;
            match is_drop {
                true => Spi::run("SELECT lead_audit.after_drop()"),
                // SAFETY: the argument is a boolean and says so.
                false => Spi::run_with_args(
                    "SELECT lead_audit.after_ddl($1)",
                    &[unsafe { DatumWithOid::new(effect == Effect::Partition, pg_sys::BOOLOID) }],
                ),
            }
        })
    });
    if let Err(error) = result {
        ServerError {
            code: PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            message: format!("the DDL guard of lead_audit failed: {error}"),
            detail: None,
        }
        .raise(None);
    }
    pg_sys::Datum::from(0)
}

/// Raises the error of `lead_audit.refuse_ddl()` where it has one, judging by the newest snapshot.
fn refuse_unless_allowed(invoker: pg_sys::Oid, is_drop: bool) -> pgrx::spi::Result<()> {
    let query = CString::new(format!("SELECT lead_audit.refuse_ddl({}, {is_drop})", invoker.to_u32())).unwrap_or_default();
    // SAFETY: what the command has done so far is made visible, then a snapshot that sees it is pushed and taken off again;
    // after an error the abort of the transaction takes it off. `connect` ends what it begins.
    unsafe {
        pg_sys::CommandCounterIncrement();
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        // Read only, which makes SPI use the snapshot that is active; pgrx decides that by itself, and otherwise.
        let result = Spi::connect(|_| Spi::check_status(pg_sys::SPI_execute(query.as_ptr(), true, 1)).map(|_| ()));
        pg_sys::PopActiveSnapshot();
        result
    }
}

/// What a command means to the guard, as far as its parse tree tells.
#[derive(PartialEq, Eq)]
enum Effect {
    /// CREATE TABLE, and not of a partition: frequent, where sessions make temporary tables, and no concern of the guard's.
    PlainTable,
    /// A table became a partition.
    Partition,
    /// Anything else.
    Other,
}

/// # Safety
/// `fcinfo` must be the call of an event trigger.
unsafe fn effect_of_command(fcinfo: pg_sys::FunctionCallInfo) -> Effect {
    // SAFETY: as the caller promises; a node's tag says what it is.
    unsafe {
        let statement = (*(*fcinfo).context.cast::<pg_sys::EventTriggerData>()).parsetree;
        if statement.is_null() {
            return Effect::Other;
        }
        match (*statement).type_ {
            pg_sys::NodeTag::T_CreateStmt if (*statement.cast::<pg_sys::CreateStmt>()).partbound.is_null() => Effect::PlainTable,
            pg_sys::NodeTag::T_CreateStmt => Effect::Partition,
            pg_sys::NodeTag::T_AlterTableStmt => {
                let commands = PgList::<pg_sys::AlterTableCmd>::from_pg((*statement.cast::<pg_sys::AlterTableStmt>()).cmds);
                match commands.iter_ptr().any(|command| (*command).subtype == pg_sys::AlterTableType::AT_AttachPartition) {
                    true => Effect::Partition,
                    false => Effect::Other,
                }
            }
            _ => Effect::Other,
        }
    }
}

thread_local! {
    static GUARDING: Cell<bool> = const { Cell::new(false) };
}

/// The guard makes and drops triggers itself, which must not call it again.
struct Guarding;

impl Guarding {
    fn begin() -> Option<Self> {
        // Made only if it is the first: dropping one ends the guarding.
        (!GUARDING.replace(true)).then(|| Guarding)
    }
}

impl Drop for Guarding {
    fn drop(&mut self) {
        GUARDING.set(false);
    }
}

/// Who owns schema lead_audit; `None` if there is none.
fn extension_owner() -> Option<pg_sys::Oid> {
    // SAFETY: a look-up in the system catalog; the tuple is released when its owner column has been read.
    unsafe {
        let name = c"lead_audit";
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::NAMESPACENAME as i32, pg_sys::Datum::from(name.as_ptr()));
        if tuple.is_null() {
            return None;
        }
        let schema = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_namespace>();
        let owner = (*schema).nspowner;
        pg_sys::ReleaseSysCache(tuple);
        Some(owner)
    }
}
