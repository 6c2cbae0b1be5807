//! Contains checks that every audit trail must pass.

use crate::client::Session;
use crate::value;

/// One row of `lead_audit.verify()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The id of the faulty entry.
    pub id: i64,
    /// The kind of fault.
    pub kind: String,
    /// The description of the fault.
    pub detail: String,
}

/// Returns the faults that `lead_audit.verify()` finds.
///
/// # Panics
/// Panics if `lead_audit.verify()` raises an error.
pub fn faults(admin: &mut Session) -> Vec<Fault> {
    let rows = admin
        .query("SELECT id, fault, detail FROM lead_audit.verify() ORDER BY id", &[])
        .expect("verify() works");
    rows.iter().map(|row| Fault { id: row.get(0), kind: row.get(1), detail: row.get(2) }).collect()
}

/// Checks that `lead_audit.verify()` finds no fault.
///
/// # Panics
/// Panics if `lead_audit.verify()` finds a fault.
#[track_caller]
pub fn assert_intact(admin: &mut Session) {
    assert_eq!(faults(admin), [], "verify() found faults in a trail that nobody touched");
}

/// Checks that the entries of a table reproduce the table. Each row of the table must equal the
/// last row image in the row's history. If a key has a history but no row in the table, the history
/// must end with the removal of the row. The old row image of each entry must equal the new row
/// image of the same row's previous entry. The table's primary key must be the column `id`, and the
/// table must have been watched since its creation.
///
/// Compares the values as text, because 1.0 and 1.00 are equal as jsonb. Converts times to text in
/// UTC, because the writers can have different TimeZone settings.
///
/// # Panics
/// Panics if the entries do not reproduce the table.
#[track_caller]
pub fn assert_trail_gives_table(admin: &mut Session, table: &str) {
    // An UPDATE that changes the key counts as two events. The first event removes the row with
    // the old key, and the second event creates the row with the new key.
    let events = format!(
        "SELECT e.id, x.key, x.was, x.now FROM (
           SELECT id, coalesce(new_values, old_values)->>'id' AS key,
                  old_values::text AS was, new_values::text AS now, old_values->>'id' AS old_key,
                  operation = 'UPDATE' AND old_values->'id' <> new_values->'id' AS moved
           FROM (SELECT id, operation, old_values, new_values FROM lead_audit.log
                 WHERE relation = '{table}'::regclass
                   AND operation IN ('INSERT', 'UPDATE', 'DELETE', 'SNAPSHOT') AND outcome = 'ok'
                 OFFSET 0) l -- so that the view works the values out once
           OFFSET 0) e
         CROSS JOIN LATERAL (SELECT e.key, e.was, e.now WHERE NOT moved
                             UNION ALL SELECT e.old_key, e.was, NULL WHERE moved
                             UNION ALL SELECT e.key, NULL, e.now WHERE moved) AS x(key, was, now)"
    );
    let mut transaction = admin.transaction().expect("a transaction");
    transaction
        .batch_execute(
            "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, MDY';
             SET LOCAL IntervalStyle = 'postgres'; SET LOCAL bytea_output = 'hex';
             SET LOCAL extra_float_digits = 1; SET LOCAL work_mem = '256MB'",
        )
        .expect("these settings exist");
    let mut show = |what: &str, query: &str| {
        let rows = transaction.query(query, &[]).unwrap_or_else(|error| panic!("{error}\n{query}"));
        let texts = rows.iter().map(|row| {
            let (key, entry): (Option<String>, Option<i64>) = (row.get(0), row.get(1));
            let (left, right) = shown_difference(row.get(2), row.get(3));
            format!("key {key:?}, entry {entry:?}\n  {left}\n  {right}")
        });
        let texts: Vec<String> = texts.collect();
        assert!(texts.is_empty(), "{what}:\n{}", texts.join("\n"));
    };
    show(
        &format!(
            "{table}: entries that do not begin where the one before them ended \
             (which did so, how they begin)"
        ),
        &format!(
            "SELECT key, id, before, was
             FROM (SELECT *, lag(now) OVER (PARTITION BY key ORDER BY id) AS before
                   FROM ({events}) e) e
             WHERE was IS DISTINCT FROM before ORDER BY id LIMIT 3"
        ),
    );
    show(
        &format!("{table}: rows that are not what the trail says last (the trail, the row)"),
        &format!(
            "SELECT coalesce(e.key, whole_row.id::text), e.id, e.now, to_jsonb(whole_row)::text
             FROM (SELECT DISTINCT ON (key) key, id, now FROM ({events}) e ORDER BY key, id DESC) e
             FULL JOIN {table} whole_row ON whole_row.id::text = e.key
             WHERE e.now IS DISTINCT FROM to_jsonb(whole_row)::text ORDER BY 1 LIMIT 3"
        ),
    );
    transaction.commit().expect("nothing was changed");
}

/// Returns the operations of a table's entries, separated by blanks and in the order of the ids.
pub fn operations(admin: &mut Session, table: &str) -> String {
    value(
        admin,
        &format!(
            "SELECT coalesce(string_agg(operation, ' ' ORDER BY id), '') FROM lead_audit.log
             WHERE table_name = '{table}'"
        ),
    )
}

/// Returns the columns `columns` of all entries whose id is above `above`, in the order of the
/// ids. The values of one entry are separated by " | ".
pub fn entries_above(admin: &mut Session, columns: &str, above: i64) -> Vec<String> {
    let rows = admin.query(
        &format!(
            "SELECT concat_ws(' | ', {columns}) FROM lead_audit.log WHERE id > {above} ORDER BY id"
        ),
        &[],
    );
    rows.expect("the log can be read").iter().map(|row| row.get(0)).collect()
}

/// Returns the id of the last entry, or 0 if the log is empty.
pub fn last_entry(admin: &mut Session) -> i64 {
    value(admin, "SELECT coalesce(max(id), 0) FROM lead_audit.entry")
}

/// Checks that the audit triggers of each watched table are enabled, and that lead_audit.watched
/// shows the state "on" for each watched table.
pub fn assert_all_on(admin: &mut Session) {
    let not: String = value(
        admin,
        "SELECT coalesce(string_agg(relation || ' ' || state, ', '), '') FROM lead_audit.watched
         WHERE NOT (row_trigger_on AND truncate_trigger_on AND state = 'on')",
    );
    assert_eq!(not, "", "not watched as a whole");
}

/// Shortens two texts for a message. Each result begins shortly before the first difference
/// between the texts.
fn shown_difference(left: Option<&str>, right: Option<&str>) -> (String, String) {
    let (Some(left), Some(right)) = (left, right) else {
        let shown = |text: Option<&str>| {
            text.map_or("nothing".to_owned(), |text| text.chars().take(500).collect())
        };
        return (shown(left), shown(right));
    };
    let same = std::iter::zip(left.chars(), right.chars()).take_while(|(l, r)| l == r).count();
    let shown = |text: &str| text.chars().skip(same.saturating_sub(60)).take(300).collect();
    (shown(left), shown(right))
}
