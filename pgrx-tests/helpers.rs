//! Functions with which the tests run SQL and read the log. The functions return one line of text
//! for each row of a query, so that a test compares whole rows. `assert_intact` checks the log with
//! verify() and with the Python verifier, which shares no code with the extension.

use pgrx::prelude::*;
use std::cell::RefCell;
use std::ffi::CStr;
use std::io::Write;
use std::process::{Command, Stdio};

/// Waits until no other test runs. Every test calls this function first, because the tests change
/// state that all tests share (the log's table, counters, roles).
pub fn begin() {
    run("SELECT pg_advisory_xact_lock(7001)");
    discard_caches(true);
    run("CREATE FUNCTION pg_temp.failure(statement text) RETURNS text LANGUAGE plpgsql AS $$
         BEGIN EXECUTE statement; RETURN 'no error';
         EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE || ' ' || SQLERRM; END $$");
}

/// Makes the server and the library discard cached data whenever the data might be stale
/// (`debug_discard_caches`), if scripts/assertions.sh asks for this mode. The mode ends with the
/// transaction of the test. So the mode does not slow down the CREATE EXTENSION before the first
/// test. CREATE EXTENSION would take very long in this mode.
fn discard_caches(discard: bool) {
    run(&format!(
        "SELECT pg_catalog.set_config('debug_discard_caches', CASE WHEN {discard} THEN current_setting('tests.debug_discard_caches') ELSE '0' END, true)
         WHERE current_setting('tests.debug_discard_caches', true) <> ''"
    ));
}

/// Does the same as [`begin`], then creates the application's table `leads` and watches it.
pub fn begin_with_leads() {
    begin();
    run("CREATE TABLE public.leads (
           id varchar PRIMARY KEY, email varchar(255), company_name varchar(500),
           enrichment_status varchar(20) NOT NULL DEFAULT 'PENDING', is_manual boolean NOT NULL DEFAULT false,
           is_deleted boolean NOT NULL DEFAULT false, created_at timestamp NOT NULL DEFAULT now(), deleted_at timestamp);
         SELECT lead_audit.enable('public.leads')");
}

/// Returns the number of unwritten entries: the committed count plus the count of the current
/// transaction. A commit adds the second count to the committed count.
pub fn not_written() -> i64 {
    number("SELECT entries_not_written FROM lead_audit.stats")
        + crate::entries::not_written_yet_counted()
}

/// Runs one or more statements.
pub fn run(statements: &str) {
    if let Err(error) = Spi::run(statements) {
        panic!("{error}: {statements}");
    }
}

/// Runs statements as the role `role`.
pub fn run_as(role: &str, statements: &str) {
    run(&format!("SET LOCAL ROLE {role}"));
    run(statements);
    run("RESET ROLE");
}

/// Returns the rows of a query, each as one text with the columns joined by " | ".
pub fn rows(query: &str) -> Vec<String> {
    let query = format!(
        "SELECT (SELECT pg_catalog.string_agg(coalesce(j.v, 'NULL'), ' | ' ORDER BY j.n) \
         FROM pg_catalog.json_each_text(pg_catalog.row_to_json(q)) WITH ORDINALITY j(k, v, n)) FROM ({query}) q"
    );
    Spi::connect_mut(|client| {
        let table = client
            .update(query.as_str(), None, &[])
            .unwrap_or_else(|error| panic!("{error}: {query}"));
        table.map(|row| row.get::<String>(1).expect("text").unwrap_or_default()).collect()
    })
}

/// Returns the single row of a query.
pub fn one(query: &str) -> String {
    let mut rows = rows(query);
    assert_eq!(rows.len(), 1, "{query}: {rows:?}");
    rows.remove(0)
}

/// Returns whether the single value of a query is true.
pub fn holds(query: &str) -> bool {
    one(query) == "true"
}

/// Returns the single value of a query as a number.
pub fn number(query: &str) -> i64 {
    one(query).parse().unwrap_or_else(|error| panic!("{error}: {query}"))
}

/// Returns the columns `columns` of lead_audit.log: one text for each row, in the order of the
/// events.
pub fn log(columns: &str) -> Vec<String> {
    rows(&format!("SELECT {columns} FROM lead_audit.log ORDER BY id"))
}

/// Runs a statement and returns the SQLSTATE and message of its error, or "no error". An error
/// undoes the statement.
pub fn failure(statement: &str) -> String {
    one(&format!("SELECT pg_temp.failure({})", literal(statement)))
}

/// Does the same as [`failure`], but runs the statement as the role `role`.
pub fn failure_as(role: &str, statement: &str) -> String {
    run(&format!("SET LOCAL ROLE {role}"));
    let failure = failure(statement);
    run("RESET ROLE");
    failure
}

/// Asserts that the statement fails with the SQLSTATE `sqlstate`, and that the error's message
/// contains `message`.
pub fn assert_fails(statement: &str, sqlstate: &str, message: &str) {
    let failure = failure(statement);
    assert!(failure.starts_with(sqlstate) && failure.contains(message), "{statement}: {failure}");
}

/// Does the same as [`assert_fails`], but runs the statement as the role `role`.
pub fn assert_fails_as(role: &str, statement: &str, sqlstate: &str, message: &str) {
    let failure = failure_as(role, statement);
    assert!(
        failure.starts_with(sqlstate) && failure.contains(message),
        "{statement} as {role}: {failure}"
    );
}

/// Returns the text as an SQL literal.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''")).replace('\\', "\\\\").replacen('\'', "E'", 1)
}

/// Returns the name as an SQL identifier.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Asserts that neither the Python verifier nor verify() finds a fault in the log.
pub fn assert_intact() {
    let page = include_str!("../docs/FORMAT.md");
    let (query, _) = page
        .split_once("COPY (SELECT row_to_json(e) FROM (")
        .and_then(|(_, query)| query.split_once(") e)\nTO STDOUT"))
        .expect("section 9 of FORMAT.md has the query");
    let entries = rows(&format!("SELECT row_to_json(e) FROM ({query}) e"));
    let said = python(
        include_str!("../verifiers/python/src/lead_audit_verifier/entries.py"),
        "main()",
        &entries,
    );
    assert_eq!(said, [format!("{} entries, 0 faults", entries.len())]);
    let faults = rows("SELECT * FROM lead_audit.verify()");
    assert!(faults.is_empty(), "{faults:?}");
}

/// Runs a module of the Python verifier with the input lines `input`, and returns its output lines.
/// Python gets the source of the module as text, because the server's operating system user can
/// lack the right to read the checkout.
pub fn python(module: &str, call: &str, input: &[String]) -> Vec<String> {
    let program = format!("{module}\nimport sys\nsys.stdout.reconfigure(encoding='utf-8')\n{call}");
    let mut child = Command::new("python3")
        .args(["-B", "-c", &program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 starts");
    let mut lines = child.stdin.take().expect("standard input is a pipe");
    for line in input {
        writeln!(lines, "{line}").expect("python3 reads its input");
    }
    drop(lines);
    let output = child.wait_with_output().expect("python3 ends");
    assert!(output.status.success(), "python3: {}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8").lines().map(str::to_owned).collect()
}

thread_local! {
    static HEARD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Returns the NOTICE and WARNING messages that the client gets while `work` runs, in the form
/// "LEVEL: message | DETAIL".
pub fn messages(work: impl FnOnce()) -> Vec<String> {
    HEARD.with_borrow_mut(Vec::clear);
    let listener = Listener::begin();
    work();
    drop(listener);
    HEARD.take()
}

/// Returns the WARNING messages that the client gets while `work` runs.
pub fn warnings(work: impl FnOnce()) -> Vec<String> {
    messages(work).into_iter().filter(|message| message.starts_with("WARNING")).collect()
}

/// An error context callback that collects messages. PostgreSQL calls each callback of the error
/// context stack for every message, also for a NOTICE that does not go to the server's log.
struct Listener(Box<pg_sys::ErrorContextCallback>);

impl Listener {
    fn begin() -> Self {
        // SAFETY: the process has one thread. The callback stays in place until `drop` removes it
        // from the stack.
        unsafe {
            let mut entry = Box::new(pg_sys::ErrorContextCallback {
                previous: pg_sys::error_context_stack,
                callback: Some(hear),
                arg: std::ptr::null_mut(),
            });
            pg_sys::error_context_stack = &raw mut *entry;
            Listener(entry)
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // SAFETY: the process has one thread. All callbacks that were pushed after this callback
        // have been removed, also after an error.
        unsafe { pg_sys::error_context_stack = self.0.previous }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn hear(_arg: *mut core::ffi::c_void) {
    // SAFETY: PostgreSQL calls this function while it builds a message, so CopyErrorData has a
    // message to copy. The copy is in the current memory context, which is not ErrorContext. The
    // texts of the copy are null or C strings.
    let (level, message, detail) = unsafe {
        let former = pg_sys::CurrentMemoryContext;
        pg_sys::CurrentMemoryContext = pg_sys::TopTransactionContext;
        let error = pg_sys::CopyErrorData();
        pg_sys::CurrentMemoryContext = former;
        let text = |text: *mut core::ffi::c_char| match text.is_null() {
            true => String::new(),
            false => CStr::from_ptr(text).to_string_lossy().into_owned(),
        };
        ((*error).elevel as u32, text((*error).message), text((*error).detail))
    };
    let level = match level {
        pg_sys::NOTICE => "NOTICE",
        pg_sys::WARNING => "WARNING",
        _ => return,
    };
    HEARD.with_borrow_mut(|heard| heard.push(format!("{level}: {message} | {detail}")));
}
