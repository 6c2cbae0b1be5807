//! Implements the DDL guard, which handles DDL commands on watched tables. The function of the
//! event triggers runs with the rights of the role that runs the command. The role that runs the
//! command has no rights in the schema lead_audit. When the function reads or writes tables of
//! lead_audit, it switches to the extension's owner.

use super::command_effects::{self, Beginning, Effects};
use super::{command_text, nested_writes};
use crate::actor;
use crate::entries::{self, NewEntry};
use crate::pg::{ServerError, Text, as_user, extension_owner};
use crate::version::internal_schema;
use ledger::canonical::write_string;
use pgrx::datum::DatumWithOid;
use pgrx::{PgSqlErrorCode, Spi, Uuid, pg_extern, pg_sys};
use std::cell::Cell;
use std::ffi::{CStr, CString};

/// Maximum size in bytes of a command's text in an entry.
const COMMAND_LIMIT: usize = 10_000;

/// `lead_audit_internal.write_ddl(uuid, oid, text, text, text)`: writes one DDL entry.
#[pg_extern(sql = false)]
fn write_ddl(
    watch_id: Option<Uuid>,
    relation: Option<pg_sys::Oid>,
    table_schema: Option<&[u8]>,
    table_name: Option<&[u8]>,
    statement: Option<&[u8]>,
) {
    let (schema, name) = (table_schema.map(Text::from_server), table_name.map(Text::from_server));
    let length = statement.map_or(0, <[u8]>::len);
    let statement = statement.map(before_user_mapping);
    let mut details = details(&String::from_utf8_lossy(statement.unwrap_or_default()), length);
    let mut statement = statement.map(|text| Text::from_server(beginning(without_options(text))));
    let entry = NewEntry {
        watch_id: watch_id.map(|id| *id.as_bytes()),
        relation,
        table_schema: schema.as_ref(),
        table_name: name.as_ref(),
        operation: "DDL",
        details: details.as_mut(),
        statement: statement.as_mut(),
        ..NewEntry::default()
    };
    // disable() is SECURITY DEFINER, but the entry must record the role that called disable(). The
    // DDL guard has already set the acting role when it writes an entry. SAFETY: GetOuterUserId()
    // only reads a variable of the session.
    actor::acting_for_unless_known(unsafe { pg_sys::GetOuterUserId() }, || entries::append(entry));
    entries::flush();
}

/// Cuts a command's text at a character boundary to at most `COMMAND_LIMIT` bytes.
fn beginning(command: &[u8]) -> &[u8] {
    let beginning = &command[..command.len().min(COMMAND_LIMIT)];
    match std::str::from_utf8(beginning) {
        Err(error) if error.error_len().is_none() => &beginning[..error.valid_up_to()],
        _ => beginning,
    }
}

/// Cuts a command about a user mapping before its options, because options contain passwords.
/// Returns the text of any other command unchanged.
fn without_options(command: &[u8]) -> &[u8] {
    match is_about_user_mapping() {
        true => before_word(command, b"OPTIONS").unwrap_or(command),
        false => command,
    }
}

/// Cuts the client's text before the options of a user mapping, because options contain passwords.
/// If the running command itself is about a user mapping, returns the text unchanged, because
/// `without_options` cuts it. If the text is cut, the details of the entry contain the running
/// command.
fn before_user_mapping(text: &[u8]) -> &[u8] {
    if is_about_user_mapping() {
        return text;
    }
    let Some(before) = before_word(text, b"MAPPING") else { return text };
    match before_word(&text[before.len()..], b"OPTIONS") {
        Some(between) => &text[..before.len() + between.len()],
        None => text,
    }
}

fn is_about_user_mapping() -> bool {
    matches!(COMMAND_TAG.get(), Some("CREATE USER MAPPING" | "ALTER USER MAPPING"))
}

/// Returns the text before the first occurrence of the word in upper or lower case, or `None` if
/// the word does not occur.
fn before_word<'t>(text: &'t [u8], word: &[u8]) -> Option<&'t [u8]> {
    let end = text.windows(word.len()).position(|found| found.eq_ignore_ascii_case(word))?;
    Some(text[..end].trim_ascii_end())
}

/// Returns the details of a DDL entry. The details contain the running command if it differs from
/// the client's text. If the entry contains only the beginning of the client's text, the details
/// contain the command tag and the length of the whole text in bytes. `text` is the part of the
/// client's text that `before_user_mapping` returned, and `length` is the length of the whole text.
fn details(text: &str, length: usize) -> Option<Text> {
    let is_cut = length > COMMAND_LIMIT || text.len() < length;
    let mut fields = Vec::new();
    let mut add = |name: &str, value: &str| {
        let mut field = Vec::new();
        write_string(&mut field, name);
        field.push(b':');
        let value = &value[..without_options(value.as_bytes()).len()];
        write_string(&mut field, &value[..value.floor_char_boundary(COMMAND_LIMIT)]);
        fields.push(String::from_utf8_lossy(&field).into_owned());
    };
    if is_cut {
        add("command", COMMAND_TAG.get().unwrap_or("SELECT"));
    }
    // Only an entry that the DDL guard writes contains the running command. An entry that enable()
    // or disable() writes does not need it, because the client's text contains the call of the
    // function.
    if GUARDING.get().is_some() && COMMAND_TAG.get().is_some() {
        match command_text::being_run() {
            Some(command) if !is_all_of(&command, text) => add("executed", &command),
            Some(_) => {}
            None => {
                if let Some(context) = command_text::context() {
                    add("context", &context);
                }
            }
        }
    }
    if is_cut {
        fields.push(format!(r#""statement_length":{length}"#));
    }
    (!fields.is_empty()).then(|| Text::from(&*format!("{{{}}}", fields.join(","))))
}

/// Returns whether the text contains only this command and semicolons at its end. In a longer text,
/// the command can be part of a string, a comment or a function's body.
fn is_all_of(command: &str, text: &str) -> bool {
    text.trim().trim_end_matches(';').trim_end() == command.trim_end_matches(';').trim_end()
}

/// Tells PostgreSQL the calling convention of `lead_audit_guard_ddl`.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_lead_audit_guard_ddl() -> &'static pg_sys::Pg_finfo_record {
    &pg_sys::Pg_finfo_record { api_version: 1 }
}

/// `lead_audit_internal.guard_ddl()`: the function that the event triggers call.
///
/// # Safety
/// Only PostgreSQL may call this function.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn lead_audit_guard_ddl(
    fcinfo: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    // SAFETY: the context of a call is null or a node, and the tag of a node tells its type. The
    // name of the event is a C string.
    let event = unsafe {
        let context = (*fcinfo).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_EventTriggerData {
            ServerError {
                code: PgSqlErrorCode::ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED,
                message: "lead_audit_internal.guard_ddl() cannot be used here".to_owned(),
                detail: Some("It works only as an event trigger.".to_owned()),
            }
            .raise(None);
        }
        CStr::from_ptr((*context.cast::<pg_sys::EventTriggerData>()).event)
    };
    // SAFETY: the check above has shown that the context is an EventTriggerData. `parsetree` is the
    // running statement, and the name of a command tag is a static C string.
    let result = unsafe {
        let data = (*fcinfo).context.cast::<pg_sys::EventTriggerData>();
        COMMAND_TAG.set(CStr::from_ptr(pg_sys::GetCommandTagName((*data).tag)).to_str().ok());
        let statement = (*data).parsetree;
        if event == c"ddl_command_start" {
            before_command(statement)
        } else {
            after_command(statement, event == c"sql_drop")
        }
    };
    COMMAND_TAG.set(None);
    if let Err(error) = result {
        failed(&error);
    }
    pg_sys::Datum::from(0)
}

/// Raises an error for a query of the DDL guard that failed in SPI. The error ends the statement
/// that the DDL guard is checking.
pub fn failed(error: &pgrx::spi::SpiError) -> ! {
    ServerError {
        code: PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
        message: format!("the DDL guard of lead_audit failed: {error}"),
        detail: None,
    }
    .raise(None)
}

/// # Safety
/// `statement` must be null or point to a statement.
unsafe fn after_command(statement: *mut pg_sys::Node, is_drop: bool) -> pgrx::spi::Result<()> {
    // SAFETY: `statement` is null or a statement (see # Safety).
    let Some(effects) = (unsafe { command_effects::effects(statement) }) else { return Ok(()) };
    let Some(_guarding) = Guarding::begin(effects) else { return Ok(()) };
    // SAFETY: GetUserId() only reads a variable of the session.
    let invoker = unsafe { pg_sys::GetUserId() };
    let Some(owner) = extension_owner() else { return Ok(()) };
    // PostgreSQL fires sql_drop before it fires ddl_command_end for the same command. At sql_drop,
    // the command has therefore not ended yet.
    if !is_drop {
        nested_writes::command_ends(statement);
    }
    actor::acting_for(invoker, || {
        as_user(owner, || {
            refuse_unless_allowed(invoker, is_drop)?;
            match is_drop {
                true => Spi::run(&format!("SELECT {}.after_drop()", internal_schema())),
                // SAFETY: the argument is a boolean, and its declared type is boolean.
                false => Spi::run_with_args(
                    &format!("SELECT {}.after_ddl($1)", internal_schema()),
                    &[unsafe {
                        DatumWithOid::new(effects.made || effects.joined, pg_sys::BOOLOID)
                    }],
                ),
            }
        })
    })
}

/// Prepares the DDL guard for a command that is about to begin. If a watched table is about to
/// become a partition of another watched table, renames the table's row trigger. ATTACH PARTITION
/// creates a row trigger with the usual name, and would fail if the table had a trigger with this
/// name. If the command is DETACH PARTITION or can rewrite a table, begins to track the tables that
/// are written until the command ends.
///
/// # Safety
/// `statement` must be null or point to a statement.
unsafe fn before_command(statement: *mut pg_sys::Node) -> pgrx::spi::Result<()> {
    // SAFETY: `statement` is null or a statement (see # Safety).
    let Some(beginning) = (unsafe { command_effects::beginning(statement) }) else { return Ok(()) };
    let Some(_guarding) = Guarding::begin(Effects::default()) else { return Ok(()) };
    let is_concurrent = matches!(beginning, Beginning::Detach { is_concurrent: true });
    let Beginning::Attach(above, partition) = beginning else {
        nested_writes::command_begins(statement, is_concurrent);
        return Ok(());
    };
    // SAFETY: GetUserId() only reads a variable of the session.
    let invoker = unsafe { pg_sys::GetUserId() };
    let Some(owner) = extension_owner() else { return Ok(()) };
    // SAFETY: the arguments are oids, and their declared type is oid.
    let arguments = unsafe {
        [DatumWithOid::new(above, pg_sys::OIDOID), DatumWithOid::new(partition, pg_sys::OIDOID)]
    };
    let query = format!("SELECT {}.before_attach($1, $2)", internal_schema());
    actor::acting_for(invoker, || as_user(owner, || Spi::run_with_args(&query, &arguments)))
}

/// `lead_audit_internal.command_effects()`: returns the effects of the command that the DDL guard
/// is checking.
#[pg_extern(sql = false)]
fn command_effects() -> Vec<&'static str> {
    let effects = GUARDING.get().unwrap_or_default();
    let names = [
        (effects.made, "made"),
        (effects.joined, "joined"),
        (effects.parted, "parted"),
        (effects.disabled, "disabled"),
        (effects.rewritten, "rewritten"),
        (effects.may_rewrite && nested_writes::any(), "written"),
    ];
    names.into_iter().filter_map(|(is, name)| is.then_some(name)).collect()
}

/// Calls `lead_audit_internal.refuse_ddl()`, which raises an error if it refuses the command.
/// `refuse_ddl()` reads with the newest snapshot.
fn refuse_unless_allowed(invoker: pg_sys::Oid, is_drop: bool) -> pgrx::spi::Result<()> {
    let query = format!("SELECT {}.refuse_ddl({}, {is_drop})", internal_schema(), invoker.to_u32());
    let query = CString::new(query).unwrap_or_default();
    // SAFETY: CommandCounterIncrement() makes the changes of the command visible to new snapshots.
    // The code pushes a snapshot with these changes before the query, and pops the snapshot after
    // the query. After an error, the abort of the transaction pops the snapshot. `connect` closes
    // its own SPI connection.
    unsafe {
        pg_sys::CommandCounterIncrement();
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        // SPI uses the active snapshot only in a read-only call. pgrx's functions for queries make
        // calls that are not read-only.
        let result = Spi::connect(|_| {
            Spi::check_status(pg_sys::SPI_execute(query.as_ptr(), true, 1)).map(|_| ())
        });
        pg_sys::PopActiveSnapshot();
        result
    }
}

thread_local! {
    static GUARDING: Cell<Option<Effects>> = const { Cell::new(None) };
    /// The tag of the command that the DDL guard is checking. After an error, the variable still
    /// contains the tag of the failed command.
    static COMMAND_TAG: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// While a value of this type is alive, the DDL guard ignores commands, because lead_audit itself
/// is creating or dropping triggers.
pub struct Guarding;

impl Guarding {
    /// Begins work of the DDL guard. During its own work, the DDL guard ignores commands. Returns
    /// `None` if other work of the DDL guard is already in progress.
    pub fn begin(effects: Effects) -> Option<Self> {
        if GUARDING.get().is_some() {
            return None;
        }
        GUARDING.set(Some(effects));
        Some(Guarding)
    }
}

impl Drop for Guarding {
    fn drop(&mut self) {
        GUARDING.set(None);
        nested_writes::command_is_checked();
    }
}

/// Runs a command that lead_audit builds itself. The DDL guard ignores the command.
pub fn while_guarding<R>(work: impl FnOnce() -> R) -> R {
    let _guarding = Guarding::begin(Effects::default());
    work()
}

/// The state of the DDL guard's work that `suspend` saves and `resume` restores.
pub type Suspended = Option<Effects>;

/// Makes the DDL guard check commands, although work of the DDL guard is in progress. The library
/// calls this function before it calls code of another role. Returns the state that `resume` needs.
pub fn suspend() -> Suspended {
    GUARDING.replace(None)
}

/// Ends the effect of `suspend`. After this call, the DDL guard ignores commands, because only
/// lead_audit's own commands follow.
pub fn resume(suspended: Suspended) {
    GUARDING.set(suspended);
}

/// Runs code of another role during work of the DDL guard. The DDL guard checks the DDL commands in
/// this code, because another role wrote them.
pub fn with_guard_on<R>(work: impl FnOnce() -> R) -> R {
    struct Restore(Option<Effects>);
    impl Drop for Restore {
        fn drop(&mut self) {
            GUARDING.set(self.0);
        }
    }
    let _restore = Restore(suspend());
    work()
}
