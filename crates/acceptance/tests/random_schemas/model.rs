//! Predicts the entries that the statements of the test must have. Makes one event for each row
//! that a statement changed, and keeps the events of committed transactions.

use acceptance::{Session, call};
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// SQL that creates the schema of the model. The function `picture` returns a row and its key as
/// JSON, under the settings that docs/FORMAT.md prescribes. The table `watching` tells which
/// tables are watched. A transaction that begins or ends the watching of a table also updates
/// `watching`.
pub const SCHEMA: &str = "
    CREATE SCHEMA model;
    CREATE FUNCTION model.picture(r anyelement, keys text[], OUT whole text, OUT key text) LANGUAGE plpgsql
      SET TimeZone = 'UTC' SET DateStyle = 'ISO, MDY' SET IntervalStyle = 'postgres' SET bytea_output = 'hex'
      SET extra_float_digits = 1 SET lc_monetary = 'C' AS $$
      DECLARE j jsonb := to_jsonb(r);
      BEGIN
        whole := j::text;
        IF cardinality(keys) > 0 THEN key := (SELECT jsonb_object_agg(k, j->k)::text FROM unnest(keys) k); END IF;
      END $$;
    CREATE TABLE model.watching (relation oid PRIMARY KEY, is_on boolean NOT NULL);
    CREATE TABLE model.expected (rid bigint, n bigint, operation text, was text, now text, key text, request text);
    CREATE TABLE model.truncated (request text, rows bigint)";

/// Numbers the events of all sessions. A session takes an event's number while it holds the lock on
/// the changed row, so the numbers of a row's events have the order of the row's changes.
static CLOCK: AtomicU64 = AtomicU64::new(0);

/// An expected entry.
#[derive(Debug, Clone)]
pub struct Event {
    at: u64,
    rid: i64,
    operation: &'static str,
    was: Option<String>,
    now: Option<String>,
    key: Option<String>,
    request: String,
}

/// A row and its key, as the function `model.picture` returns them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    pub whole: String,
    pub key: Option<String>,
}

/// Rows by the value of their column `rid`, which is different in each row.
pub type Pictures = BTreeMap<i64, Picture>;

/// Returns the expected entries of a statement, computed from the rows before and after the
/// statement.
pub fn events_between(before: &Pictures, after: &Pictures, request: &str) -> Vec<Event> {
    let mut events = Vec::new();
    let mut add = |rid: i64, operation, was: Option<&Picture>, now: Option<&Picture>| {
        events.push(Event {
            at: CLOCK.fetch_add(1, Ordering::Relaxed),
            rid,
            operation,
            was: was.map(|picture| picture.whole.clone()),
            now: now.map(|picture| picture.whole.clone()),
            key: now.or(was).and_then(|picture| picture.key.clone()),
            request: request.to_owned(),
        });
    };
    for (&rid, was) in before {
        match after.get(&rid) {
            None => add(rid, "DELETE", Some(was), None),
            // A row that was moved to another partition keeps its `rid`, so the move is an UPDATE.
            Some(now) if now.whole != was.whole => add(rid, "UPDATE", Some(was), Some(now)),
            Some(_) => {}
        }
    }
    for (&rid, now) in after.iter().filter(|(rid, _)| !before.contains_key(rid)) {
        add(rid, "INSERT", None, Some(now));
    }
    events
}

/// Returns the expected entries of the baseline of a table.
pub fn baseline(rows: &Pictures, request: &str) -> Vec<Event> {
    let mut events = events_between(&Pictures::new(), rows, request);
    events.iter_mut().for_each(|event| event.operation = "SNAPSHOT");
    events
}

/// The expected entries of transactions that were committed or are still open.
#[derive(Debug, Default, Clone)]
pub struct Book {
    pub events: Vec<Event>,
    /// The number of rows that TRUNCATE commands removed, by request id.
    pub truncated: Vec<(String, i64)>,
    pub committed: u64,
    pub rolled_back: u64,
}

impl Book {
    pub fn merge(books: Vec<Book>) -> Book {
        let mut all = Book::default();
        for book in books {
            all.take(book);
        }
        all.events.sort_by_key(|event| (event.rid, event.at));
        all
    }

    pub fn take(&mut self, other: Book) {
        self.events.extend(other.events);
        self.truncated.extend(other.truncated);
        self.committed += other.committed;
        self.rolled_back += other.rolled_back;
    }

    /// Checks that enough operations of each kind occurred. For an operation that did not occur,
    /// the comparison of the trail proves nothing.
    pub fn assert_varied(&self) {
        let count =
            |operation| self.events.iter().filter(|event| event.operation == operation).count();
        for operation in ["INSERT", "UPDATE", "DELETE"] {
            assert!(count(operation) > 50, "only {} {operation}s", count(operation));
        }
        assert!(count("SNAPSHOT") > 0 && !self.truncated.is_empty() && self.rolled_back > 5);
        assert!(
            self.events.iter().any(|event| event.key.is_none()),
            "no table without a key was written to"
        );
    }
}

impl Display for Book {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for event in &self.events {
            *counts.entry(event.operation).or_default() += 1;
        }
        let (committed, rolled_back, truncates) =
            (self.committed, self.rolled_back, self.truncated.len());
        write!(
            f,
            "{committed} transactions committed, {rolled_back} rolled back: {counts:?}, {truncates} TRUNCATEs"
        )
    }
}

/// Compares the audit trail with the expected entries in `book`. Every event must have its entry,
/// in the order of the events, and no other entry may exist.
pub fn compare(admin: &mut Session, book: &Book) {
    let mut copy = admin.copy_in("COPY model.expected FROM STDIN").expect("COPY begins");
    let (mut rid, mut n) = (i64::MIN, 0);
    for event in &book.events {
        n = if event.rid == rid { n + 1 } else { 1 };
        rid = event.rid;
        let (was, now, key) =
            (field(event.was.as_deref()), field(event.now.as_deref()), field(event.key.as_deref()));
        writeln!(copy, "{rid}\t{n}\t{}\t{was}\t{now}\t{key}\t{}", event.operation, event.request)
            .expect("COPY goes on");
    }
    copy.finish().expect("COPY ends");
    let mut copy = admin.copy_in("COPY model.truncated FROM STDIN").expect("COPY begins");
    for (request, rows) in &book.truncated {
        writeln!(copy, "{request}\t{rows}").expect("COPY goes on");
    }
    copy.finish().expect("COPY ends");

    call(
        admin,
        "CREATE TABLE model.actual AS
         SELECT coalesce(new_values, old_values)->>'rid' AS rid,
                row_number() OVER (PARTITION BY coalesce(new_values, old_values)->>'rid' ORDER BY id) AS n, id, operation, outcome,
                old_values::text AS was, new_values::text AS now, row_key::text AS key, request_id AS request, old_values, new_values, diff
         FROM (SELECT * FROM lead_audit.log WHERE operation NOT IN ('DDL', 'TRUNCATE')
                 AND NOT (operation = 'UPDATE' AND old_values::text = new_values::text) OFFSET 0) l",
    );
    // The expected entries contain rows as JSON. An UPDATE can change the bytes of a value without
    // changing the value's JSON.
    none(
        admin,
        "entries of an UPDATE that changed nothing",
        "SELECT id FROM lead_audit.log
         WHERE operation = 'UPDATE' AND old_values::text = new_values::text AND diff = '{}' LIMIT 5",
    );
    none(
        admin,
        "entries that are not what the model expects",
        "SELECT concat_ws(E'\\n    ', format('rid %s, event %s of it, entry %s', coalesce(e.rid::text, a.rid), coalesce(e.n, a.n), a.id),
                'expected ' || (e)::text, 'found    ' || concat_ws(',', a.operation, a.was, a.now, a.key, a.request))
         FROM model.expected e FULL JOIN model.actual a ON a.rid = e.rid::text AND a.n = e.n
         WHERE (e.operation, e.was, e.now, e.key, e.request, 'ok') IS DISTINCT FROM (a.operation, a.was, a.now, a.key, a.request, a.outcome)
         ORDER BY a.id LIMIT 5",
    );
    none(
        admin,
        "diffs that are not the difference",
        // The diff of an entry also contains a column of which only the bytes changed, for example
        // from NULL to a JSON null.
        "SELECT a.id || ' ' || a.diff FROM model.actual a WHERE operation = 'UPDATE' AND
           (SELECT coalesce(jsonb_object_agg(d.key, d.value), '{}') FROM jsonb_each(a.diff) d
            WHERE (d.value->'old')::text <> (d.value->'new')::text)::text IS DISTINCT FROM
           (SELECT coalesce(jsonb_object_agg(n.key, jsonb_build_object('old', a.old_values->n.key, 'new', n.value)), '{}')
            FROM jsonb_each(a.new_values) n WHERE n.value::text <> (a.old_values->n.key)::text)::text LIMIT 5",
    );
    none(
        admin,
        "TRUNCATEs whose number of rows is another",
        "SELECT concat_ws(' ', coalesce(e.request, a.request_id), 'expected', e.rows, 'found', a.rows)
         FROM (SELECT request, sum(rows) AS rows FROM model.truncated GROUP BY 1) e
         FULL JOIN (SELECT request_id, sum((details->>'row_count')::bigint) AS rows FROM lead_audit.log WHERE operation = 'TRUNCATE' GROUP BY 1) a
           ON a.request_id = e.request
         WHERE a.rows IS DISTINCT FROM e.rows LIMIT 5",
    );
}

#[track_caller]
fn none(admin: &mut Session, what: &str, query: &str) {
    let rows = admin.query(query, &[]).unwrap_or_else(|error| panic!("{error:?}\n{query}"));
    let rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(rows.is_empty(), "{what}:\n{}", rows.join("\n"));
}

/// Returns a value in the text format of COPY.
fn field(text: Option<&str>) -> String {
    match text {
        None => "\\N".to_owned(),
        Some(text) => text
            .replace('\\', "\\\\")
            .replace('\t', "\\t")
            .replace('\n', "\\n")
            .replace('\r', "\\r"),
    }
}
