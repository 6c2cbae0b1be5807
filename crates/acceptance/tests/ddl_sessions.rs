//! Two sessions run DDL on watched tables at once, under several isolation levels and in both
//! orders. The DDL must not disturb sessions that use none of these tables. The DDL guard must miss
//! no command.

use acceptance::{
    Cluster, Session, app_database, assert_all_on, assert_intact, call, operations, sqlstate,
    try_call, value, wait_until,
};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// Runs the command `blocked` in a new session. When `blocked` waits for another session, calls
/// `release`, which ends the wait.
fn in_turn(
    cluster: &Cluster,
    database: &str,
    blocked: &str,
    release: impl FnOnce(),
) -> Result<(), String> {
    in_turn_of(&mut cluster.admin(database), cluster, database, blocked, release)
}

/// Runs the command `blocked` in the session `waiting`. When `blocked` waits for another session,
/// calls `release`, which ends the wait.
fn in_turn_of(
    waiting: &mut Session,
    cluster: &Cluster,
    database: &str,
    blocked: &str,
    release: impl FnOnce(),
) -> Result<(), String> {
    let mut admin = cluster.admin(database);
    let pid = waiting.pid();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(move || try_call(waiting, blocked));
        let condition = format!(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid} AND wait_event_type = 'Lock')"
        );
        wait_until(&mut admin, LONG, &condition);
        release();
        waiter.join().expect("the session that waits does not panic")
    })
}

/// One session removes the child table `mid` from the watched table, while another session creates
/// the table `k` below `mid`. The watching of `k` must end together with the watching of `mid`.
#[test]
fn a_child_table_that_is_created_while_its_parent_leaves() {
    let cluster = Cluster::start();
    let mut admin = app_database(&cluster, "leaving");
    let (mut one, mut two) = (cluster.session("app", "leaving"), cluster.session("app", "leaving"));
    call(&mut admin, "GRANT CREATE ON SCHEMA public TO app");
    call(&mut one, "CREATE TABLE mid () INHERITS (leads); CREATE TABLE sub () INHERITS (mid)");
    for attempt in [
        "DROP TRIGGER \"00_lead_audit_row\" ON k",
        "ALTER TABLE k DISABLE TRIGGER ALL",
        "UPDATE k SET email = 'x'",
    ] {
        call(&mut one, "BEGIN; CREATE TABLE k () INHERITS (sub); INSERT INTO k (id) VALUES ('k')");
        let leaves = in_turn_of(
            &mut two,
            &cluster,
            "leaving",
            "BEGIN; ALTER TABLE mid NO INHERIT leads",
            || call(&mut one, "COMMIT"),
        );
        assert_eq!(leaves, Ok(()));
        if attempt.starts_with("UPDATE") {
            call(&mut two, &format!("{attempt}; ALTER TABLE mid INHERIT leads; COMMIT"));
        } else {
            assert_eq!(sqlstate(&mut two, attempt), "42501", "{attempt}");
            call(&mut two, "ROLLBACK");
            call(&mut one, "DROP TABLE k");
        }
        assert_all_on(&mut admin);
    }
    assert_eq!(operations(&mut admin, "k"), "INSERT DDL INSERT DDL INSERT UPDATE");
    assert_intact(&mut admin);
}

/// Two serializable transactions run DDL on different tables, and both must commit. The rows that
/// the DDL guard writes to lead_audit.watched_relation must not cause a serialization failure.
#[test]
fn ddl_on_two_tables_under_serializable() {
    let cluster = Cluster::start();
    let mut admin = app_database(&cluster, "serial");
    call(
        &mut admin,
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); SELECT lead_audit.enable('a'), lead_audit.enable('b');
         CREATE TABLE pa (id int) PARTITION BY RANGE (id); CREATE TABLE pb (id int) PARTITION BY RANGE (id);
         CREATE TABLE pa1 PARTITION OF pa FOR VALUES FROM (0) TO (9); CREATE TABLE pb1 PARTITION OF pb FOR VALUES FROM (0) TO (9);
         SELECT lead_audit.enable('pa'), lead_audit.enable('pb')",
    );
    let (mut one, mut two) = (cluster.admin("serial"), cluster.admin("serial"));
    for (first, second) in [
        ("ALTER TABLE a ADD x int", "ALTER TABLE b ADD x int"),
        ("ALTER TABLE a RENAME TO a2", "ALTER TABLE b RENAME TO b2"),
        (
            "CREATE TABLE a3 (id int); SELECT lead_audit.enable('a3')",
            "CREATE TABLE b3 (id int); SELECT lead_audit.enable('b3')",
        ),
        ("ALTER TABLE a3 DISABLE TRIGGER ALL", "ALTER TABLE b3 DISABLE TRIGGER ALL"),
        ("ALTER TABLE a3 ENABLE TRIGGER ALL", "SELECT lead_audit.enable('b3')"),
        (
            "CREATE TABLE pa2 PARTITION OF pa FOR VALUES FROM (10) TO (20)",
            "CREATE TABLE pb2 PARTITION OF pb FOR VALUES FROM (10) TO (20)",
        ),
        ("ALTER TABLE pa DETACH PARTITION pa1", "ALTER TABLE pb DETACH PARTITION pb1"),
        (
            "ALTER TABLE pa ATTACH PARTITION pa1 FOR VALUES FROM (0) TO (9)",
            "ALTER TABLE pb ATTACH PARTITION pb1 FOR VALUES FROM (0) TO (9)",
        ),
        ("SELECT lead_audit.disable('a3')", "SELECT lead_audit.disable('b3')"),
        ("DROP TABLE a2", "DROP TABLE b2"),
    ] {
        call(&mut admin, "VACUUM ANALYZE lead_audit.watch, lead_audit.watched_relation");
        // Both transactions begin before either of them commits.
        for session in [&mut one, &mut two] {
            call(session, "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM leads");
        }
        call(&mut one, first);
        call(&mut two, second);
        call(&mut one, "COMMIT");
        assert_eq!(try_call(&mut two, "COMMIT"), Ok(()), "{first} and {second}");
    }
    assert_all_on(&mut admin);
    assert_intact(&mut admin);
}

/// A transaction runs DDL on partitions, child tables and watched tables. The transaction's
/// snapshot was taken before these tables were created or watched.
#[test]
fn ddl_under_an_old_snapshot() {
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let cluster = Cluster::start();
        let mut admin = app_database(&cluster, "old");
        call(
            &mut admin,
            "CREATE TABLE p (id int PRIMARY KEY, note text) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100);
             CREATE TABLE parent (id int PRIMARY KEY, note text); SELECT lead_audit.enable('p'), lead_audit.enable('parent');
             CREATE TABLE later (id int PRIMARY KEY)",
        );
        let mut old = cluster.admin("old");
        let begin = format!("BEGIN ISOLATION LEVEL {level}; SELECT count(*) FROM pg_class");
        call(&mut old, &begin);
        call(
            &mut admin,
            "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (100) TO (200); INSERT INTO p VALUES (101, 'x'), (102, 'y');
             CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (200) TO (300); CREATE TABLE child () INHERITS (parent);
             CREATE TABLE other () INHERITS (parent); SELECT lead_audit.enable('later')",
        );
        call(
            &mut old,
            "ALTER TABLE p DETACH PARTITION p2; DROP TABLE p3; DROP TABLE other; ALTER TABLE child NO INHERIT parent;
             ALTER TABLE later RENAME id TO key; ALTER TABLE later RENAME TO latest; COMMIT",
        );
        call(
            &mut admin,
            "UPDATE p2 SET note = 'forged'; DELETE FROM p2 WHERE id = 102; ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (100) TO (200);
             INSERT INTO child VALUES (1, 'z')",
        );
        assert_eq!(
            operations(&mut admin, "p2"),
            "INSERT INSERT DDL UPDATE UPDATE DELETE DDL",
            "{level}"
        );
        assert_eq!(operations(&mut admin, "p3"), "DDL", "{level}");
        assert_eq!(operations(&mut admin, "other"), "DDL", "{level}");
        assert_eq!(operations(&mut admin, "child"), "DDL INSERT", "{level}");
        assert_eq!(operations(&mut admin, "later"), "DDL DDL", "{level}");
        assert_all_on(&mut admin);
        assert_intact(&mut admin);

        // The commands of this transaction watch or attach tables that are newer than the
        // transaction's snapshot.
        call(&mut old, &begin);
        call(
            &mut admin,
            "CREATE TABLE newer (id int PRIMARY KEY, note text, is_deleted boolean); CREATE TABLE newest (id int NOT NULL, note text);
             CREATE TABLE p4 (id int NOT NULL, note text)",
        );
        call(
            &mut old,
            "SELECT lead_audit.enable('newer'); ALTER TABLE newest INHERIT parent; ALTER TABLE p ATTACH PARTITION p4 FOR VALUES FROM (300) TO (400);
             ALTER TABLE newer RENAME is_deleted TO gone; COMMIT",
        );
        call(
            &mut admin,
            "INSERT INTO newer VALUES (1); UPDATE newer SET gone = true; INSERT INTO newest VALUES (1); INSERT INTO p VALUES (301); TRUNCATE p4",
        );
        assert_eq!(operations(&mut admin, "newer"), "DDL INSERT UPDATE", "{level}");
        let soft: String = value(
            &mut admin,
            "SELECT soft_delete FROM lead_audit.log WHERE table_name = 'newer' AND operation = 'UPDATE'",
        );
        assert_eq!(soft, "deleted", "{level}");
        assert_eq!(operations(&mut admin, "newest"), "DDL INSERT", "{level}");
        assert_eq!(operations(&mut admin, "p4"), "DDL INSERT TRUNCATE", "{level}");
        assert_all_on(&mut admin);
    }
}

/// One session makes the table `mid` a watched table or a child of a watched table, while another
/// session creates a table below `mid`.
#[test]
fn a_grandchild_that_is_created_while_its_parent_joins() {
    let cluster = Cluster::start();
    let mut admin = app_database(&cluster, "race");
    for (number, join) in
        ["ALTER TABLE mid INHERIT top", "SELECT lead_audit.enable('mid')"].iter().enumerate()
    {
        call(
            &mut admin,
            "CREATE TABLE top (id int, note text); SELECT lead_audit.enable('top');
             CREATE TABLE mid (id int, note text); CREATE TABLE sub () INHERITS (mid)",
        );
        let mut maker = cluster.admin("race");
        call(&mut maker, "BEGIN; CREATE TABLE gc () INHERITS (sub)");
        assert_eq!(
            in_turn(&cluster, "race", join, || call(&mut maker, "COMMIT")),
            Ok(()),
            "{join}"
        );
        call(&mut admin, "INSERT INTO gc VALUES (1); UPDATE mid SET note = 'x'; TRUNCATE gc");
        let found: String = value(
            &mut admin,
            "SELECT string_agg(operation, ' ' ORDER BY id) FROM (SELECT * FROM lead_audit.log WHERE table_name = 'gc' ORDER BY id DESC LIMIT 3) l",
        );
        assert_eq!(found, "INSERT UPDATE TRUNCATE", "{join}");
        assert_all_on(&mut admin);
        // If the watching of the table `mid2` begins first, a CREATE TABLE below `mid2` waits
        // until `mid2` is watched.
        call(
            &mut admin,
            "CREATE TABLE mid2 (id int, note text); CREATE TABLE sub2 () INHERITS (mid2)",
        );
        let mut joiner = cluster.admin("race");
        call(&mut joiner, &format!("BEGIN; {}", join.replace("mid", "mid2")));
        assert_eq!(
            in_turn(&cluster, "race", "CREATE TABLE gc2 () INHERITS (sub2)", || call(
                &mut joiner,
                "COMMIT"
            )),
            Ok(()),
            "{join}"
        );
        call(&mut admin, "INSERT INTO gc2 VALUES (1)");
        assert_eq!(operations(&mut admin, "gc2"), ["INSERT", "INSERT INSERT"][number], "{join}");
        assert_all_on(&mut admin);
        call(&mut admin, "SET client_min_messages = warning; DROP TABLE top, mid, mid2 CASCADE");
    }
    assert_intact(&mut admin);
}

/// Temporary tables are private to their sessions. enable() must not be blocked by a temporary
/// child table of another session.
#[test]
fn a_temporary_child_of_another_session() {
    let cluster = Cluster::start();
    let mut admin = app_database(&cluster, "temporary");
    call(&mut admin, "CREATE TABLE t (id int PRIMARY KEY, note text)");
    let mut other = cluster.admin("temporary");
    call(&mut other, "CREATE TEMP TABLE mine () INHERITS (t); INSERT INTO mine VALUES (1)");
    call(
        &mut admin,
        "SELECT lead_audit.enable('t'); ALTER TABLE t RENAME TO t2; ALTER TABLE t2 RENAME TO t; INSERT INTO t VALUES (2)",
    );
    call(
        &mut other,
        "INSERT INTO t VALUES (3); UPDATE t SET note = 'x'; CREATE TEMP TABLE also () INHERITS (t)",
    );
    assert_all_on(&mut admin);
    assert_eq!(operations(&mut admin, "t"), "DDL INSERT INSERT UPDATE UPDATE");
    assert_eq!(operations(&mut admin, "t2"), "DDL");
    drop(other);
    call(&mut admin, "SELECT lead_audit.enable('t'), lead_audit.disable('t')");
}

/// The worker compares the watched tables with the catalog. If a command has bypassed the DDL
/// guard, the worker adds the missing triggers.
#[test]
fn the_worker_finds_what_bypassed_the_guard() {
    let cluster = Cluster::builder().preloaded().start();
    let mut admin = app_database(&cluster, "found");
    call(
        &mut admin,
        "CREATE TABLE t (id int, note text); SELECT lead_audit.enable('t');
         BEGIN; ALTER EVENT TRIGGER lead_audit_ddl DISABLE; CREATE TABLE child () INHERITS (t); INSERT INTO child VALUES (1);
         ALTER EVENT TRIGGER lead_audit_ddl ENABLE ALWAYS; COMMIT",
    );
    wait_until(
        &mut admin,
        LONG,
        "SELECT EXISTS (SELECT FROM lead_audit.log WHERE table_name = 'child' AND operation = 'DDL')",
    );
    call(&mut admin, "UPDATE t SET note = 'x'; TRUNCATE child");
    assert_eq!(operations(&mut admin, "child"), "DDL UPDATE TRUNCATE");
    assert_all_on(&mut admin);
    let log = cluster.log_text();
    assert!(log.contains("lead_audit: table public.child was found to be: not watched"), "{log}");
    assert!(!log.contains("could not check the watched tables"), "{log}");
    assert_intact(&mut admin);
}

/// Before a session locks a table, it looks up whether the table is watched. If another session
/// calls enable() during this look-up, the first session must know at its next statement that the
/// table is watched.
#[test]
fn a_table_that_becomes_watched_during_a_look_up() {
    let cluster = Cluster::builder().preloaded().start();
    let mut admin = app_database(&cluster, "looking");
    let worker = "SELECT state = 'on' FROM lead_audit.status() WHERE part = 'background worker'";
    wait_until(&mut admin, LONG, worker);
    call(&mut admin, "CREATE TABLE t (id int PRIMARY KEY)");
    let mut session = cluster.admin("looking");
    let (mut watching, mut locking) = (cluster.admin("looking"), cluster.admin("looking"));
    call(&mut session, "SELECT FROM t");
    call(&mut watching, "BEGIN; SELECT lead_audit.enable('t')");
    let waits = format!(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {} AND wait_event_type = 'Lock')",
        session.pid()
    );
    assert!(!value::<bool>(&mut admin, &waits));
    // The session does not know the oid of the schema lead_audit yet, so its look-up waits for the
    // lock on pg_namespace.
    call(&mut locking, "BEGIN; LOCK TABLE pg_namespace IN ACCESS EXCLUSIVE MODE");
    std::thread::scope(|scope| {
        let copying = scope.spawn(|| call(&mut session, "COPY t FROM '/dev/null'"));
        wait_until(&mut admin, LONG, &waits);
        call(&mut watching, "COMMIT");
        call(&mut locking, "ROLLBACK");
        copying.join().expect("the session goes on");
    });
    assert_eq!(sqlstate(&mut session, "INSERT INTO t VALUES (1), (1)"), "23505");
    let is_recorded = "SELECT EXISTS (SELECT FROM lead_audit.log WHERE outcome = 'failed' AND new_values->>'id' = '1')";
    wait_until(&mut admin, LONG, is_recorded);
    assert_intact(&mut admin);
}
