//! Eight sessions write to the same rows at once. Each session has its own context, which changes
//! with each transaction. Every committed change must have exactly one entry, with the context of
//! its writer. A change that was rolled back must have no entry.

use acceptance::{
    Cluster, Random, Session, app_database, assert_intact, assert_trail_gives_table, call, setting,
    sqlstate, value, verify_with_python, wait_until,
};
use std::sync::Barrier;
use std::time::{Duration, Instant};

const WRITERS: u64 = 8;
const ROWS: u64 = 500;
const LONG: Duration = Duration::from_secs(60);

/// The description of a row change. For each change, the description that the writer made must
/// equal the description that the test reads from the entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Change {
    request_id: String,
    operation: String,
    key: String,
    user_id: Option<String>,
    user_ip: Option<String>,
    user_agent: Option<String>,
    backend_pid: i32,
    txid: String,
    /// The writer's name, from the column `updated_by` of the new row. None for a DELETE.
    written_by: Option<String>,
}

#[test]
fn each_entry_has_its_own_writers_context() {
    for preloaded in [false, true] {
        let builder = Cluster::builder().setting("deadlock_timeout = 10ms");
        let cluster = if preloaded { builder.preloaded() } else { builder }.start();
        let mut admin = app_database(&cluster, "crowd");
        call(
            &mut admin,
            "CREATE TABLE forbidden (id text PRIMARY KEY); GRANT ALL ON forbidden TO app",
        );
        let seconds = setting("LEAD_AUDIT_ACCEPTANCE_SECONDS", 6);
        let deadline = Instant::now() + Duration::from_millis(seconds * 500);
        let together = Barrier::new(WRITERS as usize);
        let mut expected: Vec<Change> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|number| {
                    let writer = Writer::new(cluster.session("app", "crowd"), number);
                    let together = &together;
                    scope.spawn(move || {
                        together.wait();
                        writer.write_until(deadline)
                    })
                })
                .collect();
            writers
                .into_iter()
                .flat_map(|writer| writer.join().expect("each writer succeeds"))
                .collect()
        });
        let mut found = changes_in_trail(&mut admin);
        expected.sort();
        found.sort();
        let differences: Vec<_> = difference(&expected, &found).take(6).collect();
        assert!(
            differences.is_empty(),
            "of {} changes and {} entries: {differences:#?}",
            expected.len(),
            found.len()
        );
        assert!(expected.len() > 1000, "only {} changes: this proves nothing", expected.len());
        println!("{} changes, library preloaded: {preloaded}", expected.len());

        // The ids of a row's entries must have the order of the commits. Each entry of a row must
        // begin with the row image with which the row's previous entry ends.
        assert_trail_gives_table(&mut admin, "leads");
        assert_intact(&mut admin);
        let unwritten: i64 = value(&mut admin, "SELECT entries_not_written FROM lead_audit.stats");
        assert_eq!(unwritten, 0);
        if preloaded {
            let verdict = verify_with_python(&cluster, "crowd");
            let failed: i64 =
                value(&mut admin, "SELECT count(*) FROM lead_audit.entry WHERE outcome <> 'ok'");
            assert!(failed > 0, "preloaded, what failed has entries too");
            assert_eq!(
                (verdict.entries, verdict.faults),
                (expected.len() as u64 + failed as u64, 0)
            );
        }
    }
}

/// PostgreSQL reports a serialization failure at the next write of a transaction, which can be the
/// insertion of entries. If the insertion of entries fails with a serialization failure, the
/// statement must fail with the same error. The extension must not count the statement's entries
/// as unwritten entries.
#[test]
fn a_serialization_failure_is_not_an_unwritten_entry() {
    let cluster = Cluster::start();
    let mut admin = app_database(&cluster, "skew");
    call(
        &mut admin,
        "CREATE TABLE pair (id int PRIMARY KEY, v int); INSERT INTO pair VALUES (1, 0), (2, 0)",
    );
    call(&mut admin, "SELECT lead_audit.enable('pair'); SELECT pg_advisory_lock(7)");
    let (mut first, mut second) = (cluster.admin("skew"), cluster.admin("skew"));
    let pid = first.pid();
    call(&mut first, "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT v FROM pair WHERE id = 2");
    call(
        &mut second,
        "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT v FROM pair WHERE id = 1; UPDATE pair SET v = 9 WHERE id = 2",
    );
    // The session `second` commits after the session `first` has written its row, and before
    // `first` writes the entry of this row.
    let (refused, warnings) = std::thread::scope(|scope| {
        let first = scope.spawn(move || {
            let refused = sqlstate(
                &mut first,
                "UPDATE pair SET v = 1 WHERE id = 1 RETURNING pg_advisory_xact_lock(7)::text",
            );
            (refused, first.warnings())
        });
        wait_until(
            &mut admin,
            LONG,
            &format!("SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {pid} AND NOT granted)"),
        );
        call(&mut second, "COMMIT");
        call(&mut admin, "SELECT pg_advisory_unlock(7)");
        first.join().expect("the first session ends")
    });
    assert_eq!((refused.as_str(), warnings), ("40001", vec![]));
    assert_eq!(value::<i64>(&mut admin, "SELECT entries_not_written FROM lead_audit.stats"), 0);
    assert_intact(&mut admin);
}

struct Writer {
    session: Session,
    number: u64,
    random: Random,
    transactions: u64,
    pid: i32,
    committed: Vec<Change>,
}

/// The state of the current transaction.
struct Work {
    done: Vec<Change>,
    /// The values that are the same in all changes of the transaction.
    template: Change,
    /// Whether a statement failed, so that the transaction can only be rolled back.
    broken: bool,
}

impl Writer {
    fn new(mut session: Session, number: u64) -> Self {
        let pid = session.pid();
        call(
            &mut session,
            &format!(
                "SET lead_audit.user_ip = '10.0.0.{number}'; SET lead_audit.user_agent = 'agent {number}'"
            ),
        );
        Writer {
            session,
            number,
            random: Random::new(300 + number),
            transactions: 0,
            pid,
            committed: Vec::new(),
        }
    }

    fn write_until(mut self, deadline: Instant) -> Vec<Change> {
        // Each writer continues after the deadline until it has committed a minimum number of
        // changes.
        while Instant::now() < deadline || self.committed.len() <= 1000 / WRITERS as usize {
            self.transactions += 1;
            if self.random.one_in(4) { self.single_statement() } else { self.transaction() }
        }
        self.committed
    }

    /// Runs one statement outside of a transaction block. Sets the context with SET, for the whole
    /// session.
    fn single_statement(&mut self) {
        let user = format!("user-{}", self.number);
        let request = format!("{}-{}", self.number, self.transactions);
        call(
            &mut self.session,
            &format!("SET lead_audit.user_id = '{user}'; SET lead_audit.request_id = '{request}'"),
        );
        let mut work =
            Work { done: Vec::new(), template: self.template(request, Some(user)), broken: false };
        let sql = self.statement(&work);
        // The writer learns the transaction's id only from the rows that the statement returns.
        match self.session.query(&sql, &[]) {
            Ok(rows) => {
                take(&rows, &mut work.done, &work.template);
                self.committed.append(&mut work.done);
            }
            Err(error) => assert_is_expected(&error),
        }
        call(&mut self.session, "RESET lead_audit.user_id; RESET lead_audit.request_id");
    }

    /// Runs a transaction of several statements and savepoints, and commits or rolls back the
    /// transaction. Sets the context with SET LOCAL, for this transaction only.
    fn transaction(&mut self) {
        let request = format!("{}-{}", self.number, self.transactions);
        // Some transactions set no user. The entries of a transaction without a user must not
        // contain the user of the session's earlier transactions.
        let user =
            (!self.random.one_in(5)).then(|| format!("user-{}-{}", self.number, self.transactions));
        call(&mut self.session, &format!("BEGIN; SET LOCAL lead_audit.request_id = '{request}'"));
        if let Some(user) = &user {
            call(&mut self.session, &format!("SET LOCAL lead_audit.user_id = '{user}'"));
        }
        let mut work =
            Work { done: Vec::new(), template: self.template(request, user), broken: false };
        for _ in 0..=self.random.below(4) {
            self.step(&mut work, 2);
        }
        let keep = !work.broken && !self.random.one_in(4);
        if keep {
            call(&mut self.session, "COMMIT");
            self.committed.append(&mut work.done);
        } else {
            if !work.broken && self.random.one_in(2) {
                // In some transactions, an error has aborted the transaction before the ROLLBACK is
                // sent.
                let _ = self.session.batch_execute("SELECT 1 / 0");
            }
            call(&mut self.session, "ROLLBACK");
        }
    }

    /// Runs a statement, or a savepoint with several statements. The savepoint is released or
    /// rolled back.
    fn step(&mut self, work: &mut Work, depth: u64) {
        if work.broken {
            return;
        }
        if depth > 0 && self.random.one_in(3) {
            let name = format!("s{depth}");
            call(&mut self.session, &format!("SAVEPOINT {name}"));
            let before = work.done.len();
            for _ in 0..=self.random.below(3) {
                self.step(work, depth - 1);
            }
            if work.broken || self.random.one_in(2) {
                call(&mut self.session, &format!("ROLLBACK TO {name}"));
                work.done.truncate(before);
                work.broken = false;
            }
            if self.random.one_in(2) {
                call(&mut self.session, &format!("RELEASE {name}"));
            }
            return;
        }
        let sql = self.statement(work);
        match self.session.query(&sql, &[]) {
            Ok(rows) => take(&rows, &mut work.done, &work.template),
            Err(error) => {
                assert_is_expected(&error);
                work.broken = true;
            }
        }
    }

    /// Returns the SQL of a statement that writes rows. With RETURNING, the statement returns the
    /// operation, the key and the transaction id for each written row.
    fn statement(&mut self, work: &Work) -> String {
        let (tag, user) =
            (&work.template.request_id, work.template.written_by.as_deref().unwrap_or_default());
        let row = self.random.below(ROWS);
        let other = self.random.below(ROWS);
        let written =
            |operation: &str| format!("RETURNING '{operation}', id, pg_current_xact_id()::text");
        match self.random.below(12) {
            0..=3 => format!(
                "UPDATE leads SET enrichment_task_id = '{tag}', updated_by = '{user}', updated_at = clock_timestamp() WHERE id = 'r{row}' {}",
                written("UPDATE")
            ),
            4 => format!(
                "UPDATE leads SET enrichment_task_id = '{tag}', updated_by = '{user}', updated_at = clock_timestamp(), is_deleted = NOT is_deleted
                 WHERE id IN ('r{row}', 'r{other}') {}",
                written("UPDATE")
            ),
            5 | 6 => format!("DELETE FROM leads WHERE id = 'r{row}' {}", written("DELETE")),
            7 | 8 => format!(
                "INSERT INTO leads (id, enrichment_task_id, updated_by) SELECT 'r' || g, '{tag}', '{user}' FROM generate_series({row}, {row} + 3) g
                 ON CONFLICT DO NOTHING {}",
                written("INSERT")
            ),
            9 => format!(
                "INSERT INTO leads (id, enrichment_task_id, updated_by) VALUES ('r{row}', '{tag}', '{user}')
                 ON CONFLICT (id) DO UPDATE SET enrichment_task_id = excluded.enrichment_task_id, updated_by = excluded.updated_by,
                   updated_at = clock_timestamp()
                 RETURNING CASE WHEN xmax::text = '0' THEN 'INSERT' ELSE 'UPDATE' END, id, pg_current_xact_id()::text"
            ),
            10 => format!(
                "WITH gone AS (DELETE FROM leads WHERE id = 'r{row}' RETURNING id),
                      changed AS (UPDATE leads SET enrichment_task_id = '{tag}', updated_by = '{user}', updated_at = clock_timestamp()
                                  WHERE id = 'r{other}' AND id <> 'r{row}' RETURNING id)
                 SELECT 'DELETE', id, pg_current_xact_id()::text FROM gone UNION ALL SELECT 'UPDATE', id, pg_current_xact_id()::text FROM changed"
            ),
            // This INSERT fails after it has written rows.
            _ => format!(
                "INSERT INTO leads (id, enrichment_task_id, updated_by) SELECT 'failing-' || least(g, 5), '{tag}', '{user}'
                 FROM generate_series(1, 10) g {}",
                written("INSERT")
            ),
        }
    }

    fn template(&self, request_id: String, user_id: Option<String>) -> Change {
        // The column `updated_by` of the row names the writer even if the context has no user.
        let written_by = Some(user_id.clone().unwrap_or_else(|| format!("nobody-{request_id}")));
        Change {
            request_id,
            operation: String::new(),
            key: String::new(),
            user_id,
            user_ip: Some(format!("10.0.0.{}", self.number)),
            user_agent: Some(format!("agent {}", self.number)),
            backend_pid: self.pid,
            txid: String::new(),
            written_by,
        }
    }
}

fn take(rows: &[postgres::Row], done: &mut Vec<Change>, template: &Change) {
    for row in rows {
        let operation: String = row.get(0);
        let written_by = if operation == "DELETE" { None } else { template.written_by.clone() };
        done.push(Change {
            operation,
            key: row.get(1),
            txid: row.get(2),
            written_by,
            ..template.clone()
        });
    }
}

/// Checks that an error is a deadlock or a duplicate key. The test makes the writers conflict on
/// purpose.
fn assert_is_expected(error: &postgres::Error) {
    let code = error.code().map(|code| code.code()).unwrap_or_default();
    assert!(["40P01", "23505"].contains(&code), "{error}: {:?}", error.as_db_error());
}

fn changes_in_trail(admin: &mut Session) -> Vec<Change> {
    let rows = admin
        .query(
            "SELECT request_id, operation, row_key->>'id', user_id, user_ip, user_agent, backend_pid, txid::text, new_values->>'updated_by',
                    new_values->>'enrichment_task_id'
             FROM lead_audit.log WHERE db_session_user = 'app' AND db_current_user = 'app' AND application_name = 'acceptance' AND outcome = 'ok'",
            &[],
        )
        .expect("the log can be read");
    rows.iter()
        .map(|row| {
            let change = Change {
                request_id: row.get::<_, Option<String>>(0).unwrap_or_default(),
                operation: row.get(1),
                key: row.get(2),
                user_id: row.get(3),
                user_ip: row.get(4),
                user_agent: row.get(5),
                backend_pid: row.get(6),
                txid: row.get(7),
                written_by: row.get(8),
            };
            let tag: Option<String> = row.get(9);
            assert!(
                change.operation == "DELETE" || tag.as_deref() == Some(&change.request_id),
                "tag {tag:?} in {change:?}"
            );
            change
        })
        .collect()
}

/// Returns the changes that one of two sorted lists contains more often than the other list.
fn difference<'a>(
    expected: &'a [Change],
    found: &'a [Change],
) -> impl Iterator<Item = (&'static str, &'a Change)> {
    let (mut e, mut f) = (expected.iter().peekable(), found.iter().peekable());
    std::iter::from_fn(move || {
        loop {
            match (e.peek(), f.peek()) {
                (None, None) => return None,
                (Some(a), Some(b)) if a == b => {
                    e.next();
                    f.next();
                }
                (Some(a), Some(b)) if a > b => {
                    return f.next().map(|change| ("entry without a change", change));
                }
                (None, Some(_)) => {
                    return f.next().map(|change| ("entry without a change", change));
                }
                _ => return e.next().map(|change| ("change without an entry", change)),
            }
        }
    })
}
