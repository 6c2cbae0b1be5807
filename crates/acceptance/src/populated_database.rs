//! Creates a database with entries of many kinds. Checks the database after a dump and restore,
//! after pg_upgrade, and after the promotion of a standby.

use crate::client::{Session, call, value};
use crate::cluster::Cluster;
use crate::leads::{add_leads, app_database};
use crate::trail::assert_intact;

/// The parts of a database that must not change when the database is moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trail {
    /// The number of entries.
    pub entries: i64,
    /// A digest of all columns of all entries.
    pub digest: String,
    /// The content of the table lead_audit.watch.
    pub watch: String,
    /// The content of the view lead_audit.watched.
    pub watched: String,
    /// A digest of the Merkle tree and its checkpoints.
    pub tree: String,
}

impl Trail {
    /// Reads the parts of a `Trail` from a database.
    #[must_use]
    pub fn of(admin: &mut Session) -> Self {
        Trail {
            entries: value(admin, "SELECT count(*) FROM lead_audit.entry"),
            digest: value(
                admin,
                "SELECT md5(string_agg(e::text, E'\\n' ORDER BY id)) FROM lead_audit.entry e",
            ),
            watch: value(
                admin,
                "SELECT string_agg(w::text, E'\\n' ORDER BY watch_id) FROM lead_audit.watch w",
            ),
            watched: value(
                admin,
                "SELECT string_agg(w::text, E'\\n' ORDER BY watch_id) FROM lead_audit.watched w",
            ),
            tree: value(
                admin,
                "SELECT md5(string_agg(line, E'\\n' ORDER BY line)) FROM (
                   SELECT 'checkpoint ' || c FROM lead_audit.checkpoint c
                   UNION ALL SELECT 'range ' || r FROM lead_audit.leaf_range r
                   UNION ALL SELECT 'tile ' || t FROM lead_audit.tree_tile t
                   UNION ALL SELECT 'edge ' || e FROM lead_audit.tree_edge e
                   UNION ALL (SELECT concat_ws(' ', log_id, tree_size) FROM lead_audit.tree
                              ORDER BY tree_size DESC, created_at LIMIT 1)) s(line)",
            ),
        }
    }
}

/// Creates a database with several watched tables, and writes to these tables. Ends the watching
/// of one table, drops one table, and makes a baseline of one table.
pub fn make(cluster: &Cluster, name: &str) -> Trail {
    let mut admin = app_database(cluster, name);
    let mut app = cluster.session("app", name);
    call(
        &mut app,
        "SET lead_audit.user_id = 'ü \"quoted\" \\ back';
         SET lead_audit.user_agent = E'tab\\tnewline\\n'",
    );
    add_leads(&mut app, 1, 3_000);
    call(
        &mut app,
        "UPDATE leads SET enrichment_status = 'COMPLETED', enrichment_error = E'\\\\N \\t \\n 😀'
           WHERE is_manual;
         UPDATE leads SET is_deleted = true WHERE created_by = 'user-3';
         DELETE FROM leads WHERE created_by = 'user-4'",
    );
    // Seals the entries of the table `leads`, which fill more than one tile. The entries of the
    // other tables remain unsealed.
    call(&mut admin, "SELECT lead_audit.seal()");
    call(
        &mut admin,
        "CREATE SCHEMA \"Crm x\";
         CREATE TABLE \"Crm x\".\"Accounts\" (a int, b text, gone boolean, PRIMARY KEY (b, a));
         INSERT INTO \"Crm x\".\"Accounts\"
           SELECT g, 'account', false FROM generate_series(1, 100) g;
         SELECT lead_audit.enable('\"Crm x\".\"Accounts\"', soft_delete_column => 'gone',
           baseline => true);
         UPDATE \"Crm x\".\"Accounts\" SET gone = true WHERE a < 10;
         CREATE TABLE parted (id int PRIMARY KEY, note text) PARTITION BY RANGE (id);
         CREATE TABLE part_1 PARTITION OF parted FOR VALUES FROM (0) TO (100);
         CREATE TABLE part_2 PARTITION OF parted DEFAULT;
         SELECT lead_audit.enable('parted');
         INSERT INTO parted SELECT g * 10, 'note' FROM generate_series(1, 20) g;
         CREATE TABLE former (id int PRIMARY KEY);
         SELECT lead_audit.enable('former');
         INSERT INTO former VALUES (1);
         SELECT lead_audit.disable('former');
         CREATE TABLE dropped (id int PRIMARY KEY);
         SELECT lead_audit.enable('dropped');
         INSERT INTO dropped VALUES (1);
         DROP TABLE dropped;
         CREATE TABLE \"switched off\" (id int PRIMARY KEY);
         SELECT lead_audit.enable('\"switched off\"');
         ALTER TABLE \"switched off\" DISABLE TRIGGER \"00_lead_audit_row\"",
    );
    call(&mut admin, "BEGIN; INSERT INTO leads (id) VALUES ('gap'); ROLLBACK");
    assert_intact(&mut admin);
    Trail::of(&mut admin)
}

/// Checks a database after all its data was moved, for example by a dump and restore. The audit
/// trail must be unchanged and intact, and the tables must still be watched.
///
/// # Panics
/// Panics if a check fails.
pub fn assert_restored(cluster: &Cluster, name: &str, before: &Trail) {
    let mut admin = cluster.admin(name);
    let last_ddl: Option<String> = value(
        &mut admin,
        "SELECT string_agg(concat_ws(' ', id, table_name, statement), '; ' ORDER BY id)
         FROM (SELECT * FROM lead_audit.log WHERE operation = 'DDL' ORDER BY id DESC LIMIT 4) l",
    );
    assert_eq!(&Trail::of(&mut admin), before, "{name}, where the last DDL was {last_ddl:?}");
    assert_intact(&mut admin);
    assert_watched_as_before(cluster, name);
}

/// Checks that the tables of a moved database are watched under their old watch ids. A few writes
/// must create the expected entries.
///
/// # Panics
/// Panics if a check fails.
pub fn assert_watched_as_before(cluster: &Cluster, name: &str) {
    let mut admin = cluster.admin(name);
    let sealed =
        "SELECT tree_size, root, note FROM lead_audit.checkpoint ORDER BY tree_size DESC LIMIT 1";
    let sealed = admin.query_one(sealed, &[]).expect("there is a checkpoint");
    let (sealed_size, root, note): (i64, Vec<u8>, String) =
        (sealed.get(0), sealed.get(1), sealed.get(2));
    let (last, count): (i64, i64) = (
        value(&mut admin, "SELECT max(id) FROM lead_audit.entry"),
        value(&mut admin, "SELECT count(*) FROM lead_audit.entry"),
    );
    let key = format!("{:0>32}", "2a");
    let history = format!("SELECT count(*) FROM lead_audit.history('leads', '{key}')");
    let past: i64 = value(&mut admin, &history);
    assert!(past >= 1, "{name}: the past of a row is found");
    let mut app = cluster.session("app", name);
    call(
        &mut app,
        &format!(
            "UPDATE leads SET source = source || '.' WHERE id = '{key}';
             UPDATE leads SET is_deleted = NOT is_deleted WHERE id = '{key}';
             INSERT INTO leads (id) VALUES ('new here'); DELETE FROM leads WHERE id = 'new here'"
        ),
    );
    assert_eq!(app.warnings(), [""; 0], "{name}");
    assert_eq!(
        value::<i64>(&mut admin, &history),
        past + 2,
        "{name}: past and present are one history"
    );
    call(
        &mut admin,
        "UPDATE \"Crm x\".\"Accounts\" SET gone = NOT gone WHERE a = 50;
         INSERT INTO former SELECT max(id) + 1 FROM former;
         UPDATE parted SET id = id + 1000 WHERE id = (SELECT max(id) FROM parted WHERE id < 100)",
    );
    let new: i64 =
        value(&mut admin, &format!("SELECT count(*) FROM lead_audit.entry WHERE id > {last}"));
    let all: i64 = value(&mut admin, "SELECT count(*) FROM lead_audit.entry");
    // The UPDATE that moves a row to another partition has one entry.
    assert_eq!(
        (new, all),
        (6, count + 6),
        "{name}: new entries have new ids, and only the watched tables have any"
    );
    let identities: i64 = value(
        &mut admin,
        "SELECT count(*) FROM (SELECT table_name FROM lead_audit.entry
                               GROUP BY table_name HAVING count(DISTINCT watch_id) > 1) e",
    );
    assert_eq!(identities, 0, "{name}: a table has kept its identity");
    let soft: i64 = value(
        &mut admin,
        &format!(
            "SELECT count(*) FROM lead_audit.entry WHERE id > {last} AND soft_delete IS NOT NULL"
        ),
    );
    assert_eq!(soft, 2, "{name}: soft deletes are still known as such");
    assert_intact(&mut admin);

    // Sealing must extend the existing tree. The old checkpoint must stay unchanged, and the new
    // checkpoint must extend the old checkpoint.
    let leaves: i64 = value(&mut admin, "SELECT lead_audit.seal()");
    let entries: i64 = value(&mut admin, "SELECT count(*) FROM lead_audit.entry");
    assert_eq!(leaves, entries, "{name}: every entry is a leaf");
    let kept = admin.query_one(
        "SELECT root, note FROM lead_audit.checkpoint WHERE tree_size = $1",
        &[&sealed_size],
    );
    let kept = kept.expect("the old checkpoint is there");
    assert_eq!((kept.get::<_, Vec<u8>>(0), kept.get::<_, String>(1)), (root, note), "{name}");
    let proof: String =
        value(&mut admin, &format!("SELECT lead_audit.consistency_proof({sealed_size})"));
    assert!(!proof.is_empty(), "{name}: the tree has only grown");
    for id in [1, last, last + 1] {
        let next = format!(
            "SELECT lead_audit.inclusion_proof(min(id)) FROM lead_audit.entry WHERE id >= {id}"
        );
        assert!(
            value::<String>(&mut admin, &next).contains("\nindex "),
            "{name}: each entry can be proved"
        );
    }
    assert_intact(&mut admin);
}
