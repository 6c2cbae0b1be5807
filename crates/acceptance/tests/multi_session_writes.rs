//! Tests the entries of savepoints, of deferred constraints, of several writers of one row, and of
//! logical replication. Also tests DDL on a table for which another session has prepared
//! statements. Each test expects an exact list of entries.

use acceptance::{
    Cluster, Session, assert_intact, assert_trail_gives_table, call, entries_above, last_entry,
    sqlstate, value,
};
use std::time::{Duration, Instant};

/// Creates a database with the extension.
fn database(cluster: &Cluster, name: &str) -> Session {
    call(&mut cluster.admin("postgres"), &format!("CREATE DATABASE {name} TEMPLATE template0"));
    let mut admin = cluster.admin(name);
    call(&mut admin, "CREATE EXTENSION lead_audit");
    admin
}

/// Waits until the session with this process id is waiting for a lock.
fn wait_until_it_waits(admin: &mut Session, pid: i32) {
    let query = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event_type = 'Lock'"
    );
    wait_for(admin, &query, 1, Duration::from_secs(60));
}

fn wait_for(admin: &mut Session, query: &str, expected: i64, limit: Duration) {
    let begin = Instant::now();
    while value::<i64>(admin, query) != expected {
        assert!(begin.elapsed() < limit, "this does not become {expected}: {query}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn savepoints_and_deferred_work() {
    let cluster = Cluster::start();
    let mut admin = database(&cluster, "savepoints");
    call(
        &mut admin,
        "CREATE TABLE t (id int PRIMARY KEY, n int); SELECT lead_audit.enable('t');
         BEGIN; INSERT INTO t VALUES (1, 0);
         SAVEPOINT a; INSERT INTO t VALUES (2, 0); SAVEPOINT b; UPDATE t SET n = 1; RELEASE b; ROLLBACK TO a; INSERT INTO t VALUES (3, 0);
         SAVEPOINT b; UPDATE t SET n = 2 WHERE id = 3; SAVEPOINT c; DELETE FROM t WHERE id = 1; ROLLBACK TO c; RELEASE b; RELEASE a;
         SAVEPOINT d; INSERT INTO t VALUES (4, 0); RELEASE d; COMMIT;
         BEGIN; SAVEPOINT e; DELETE FROM t; RELEASE e; ROLLBACK",
    );
    // A statement within a savepoint fails, and the transaction continues.
    call(&mut admin, "BEGIN; SAVEPOINT s");
    assert_eq!(sqlstate(&mut admin, "INSERT INTO t VALUES (5, 0), (4, 0)"), "23505");
    call(&mut admin, "ROLLBACK TO s; INSERT INTO t VALUES (6, 0); COMMIT");
    assert_eq!(
        entries_above(&mut admin, "operation, row_key->'id', new_values->'n'", 0),
        ["INSERT | 1 | 0", "INSERT | 3 | 0", "UPDATE | 3 | 2", "INSERT | 4 | 0", "INSERT | 6 | 0"]
    );
    assert_trail_gives_table(&mut admin, "t");

    call(
        &mut admin,
        "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
         SELECT lead_audit.enable('parent'), lead_audit.enable('child');
         CREATE FUNCTION derive() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO parent VALUES (NEW.parent + 100); RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER later AFTER INSERT ON child DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION derive()",
    );
    let above = last_entry(&mut admin);
    call(&mut admin, "BEGIN; INSERT INTO child VALUES (1, 1)");
    assert_eq!(sqlstate(&mut admin, "COMMIT"), "23503");
    call(
        &mut admin,
        "BEGIN; INSERT INTO child VALUES (2, 2); INSERT INTO parent VALUES (2); COMMIT",
    );
    assert_eq!(
        entries_above(&mut admin, "operation, table_name, row_key->'id'", above),
        ["INSERT | child | 2", "INSERT | parent | 2", "INSERT | parent | 102"]
    );
    assert_intact(&mut admin);
}

#[test]
fn writers_that_meet_on_a_row() {
    let cluster = Cluster::start();
    let mut admin = database(&cluster, "meeting");
    call(
        &mut admin,
        "CREATE TABLE t (id int PRIMARY KEY, n int, by text); CREATE TABLE p (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
         SELECT lead_audit.enable('t'), lead_audit.enable('p')",
    );
    // Under READ COMMITTED, a statement that has waited for a locked row continues with the row
    // version that the other session has committed.
    for (first, second, expected) in [
        (
            "UPDATE t SET n = n + 1, by = 'first'",
            "UPDATE t SET n = n + 10, by = 'second'",
            &["UPDATE | 0 | 1", "UPDATE | 1 | 11"][..],
        ),
        ("UPDATE t SET n = 5", "UPDATE t SET n = n + 10 WHERE n = 0", &["UPDATE | 0 | 5"]),
        (
            "UPDATE t SET n = 5",
            "DELETE FROM t WHERE n = 5 OR n = 0",
            &["UPDATE | 0 | 5", "DELETE | 5"],
        ),
        ("DELETE FROM t", "UPDATE t SET n = n + 10", &["DELETE | 0"]),
        ("UPDATE t SET id = 2", "UPDATE t SET n = 7 WHERE id = 1", &["UPDATE | 0 | 0"]),
        (
            "UPDATE t SET n = 3",
            "INSERT INTO t VALUES (1, 9, '') ON CONFLICT (id) DO UPDATE SET n = t.n + excluded.n",
            &["UPDATE | 0 | 3", "UPDATE | 3 | 12"],
        ),
        (
            "UPDATE t SET n = 3",
            "MERGE INTO t USING (VALUES (1)) v(id) ON t.id = v.id WHEN MATCHED AND n = 3 THEN DELETE WHEN MATCHED THEN UPDATE SET n = -1",
            &["UPDATE | 0 | 3", "DELETE | 3"],
        ),
    ] {
        call(&mut admin, "DELETE FROM t; INSERT INTO t VALUES (1, 0, '')");
        let above = last_entry(&mut admin);
        let (mut one, mut other) = (cluster.examined("meeting"), cluster.examined("meeting"));
        let pid = other.pid();
        call(&mut one, &format!("BEGIN; {first}"));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| call(&mut other, second));
            wait_until_it_waits(&mut admin, pid);
            call(&mut one, "COMMIT");
            waiting.join().expect("the second goes on");
        });
        assert_eq!(
            entries_above(&mut admin, "operation, old_values->'n', new_values->'n'", above),
            expected,
            "{first}; {second}"
        );
    }
    // If an UPDATE waits for a row and the other session moves this row to another partition, the
    // UPDATE fails with an error of PostgreSQL.
    call(&mut admin, "INSERT INTO p VALUES (1, 0)");
    let above = last_entry(&mut admin);
    let (mut one, mut other) = (cluster.examined("meeting"), cluster.examined("meeting"));
    let pid = other.pid();
    call(&mut one, "BEGIN; UPDATE p SET id = 11");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| sqlstate(&mut other, "UPDATE p SET n = 1"));
        wait_until_it_waits(&mut admin, pid);
        call(&mut one, "COMMIT");
        assert_eq!(waiting.join().expect("the second ends"), "40001");
    });
    assert_eq!(
        entries_above(&mut admin, "operation, table_name, row_key->'id'", above),
        ["UPDATE | p2 | 11"]
    );
    assert_trail_gives_table(&mut admin, "t");
    assert_intact(&mut admin);
}

#[test]
fn serializable_transactions_that_are_repeated() {
    let cluster = Cluster::start();
    let mut admin = database(&cluster, "serializable");
    call(
        &mut admin,
        "CREATE TABLE t (id int PRIMARY KEY, n bigint); SELECT lead_audit.enable('t'); INSERT INTO t SELECT g, 0 FROM generate_series(1, 5) g",
    );
    // Each session repeatedly stores the sum of all rows in one row, so each sum depends on the
    // writes of the other sessions.
    let (done, retries) = std::thread::scope(|scope| {
        let writers: Vec<_> = (1..=4)
            .map(|writer: i64| {
                let mut session = cluster.admin("serializable");
                // The sum can equal the value that the row already has. With log_unchanged, an
                // UPDATE to the same value also has an entry.
                call(&mut session, "SET lead_audit.log_unchanged = on");
                scope.spawn(move || {
                    let mut retries = 0_u32;
                    for round in 0..25 {
                        call(&mut session, &format!("SET lead_audit.request_id = '{writer}-{round}'"));
                        loop {
                            let attempt = session.batch_execute(&format!(
                                "BEGIN ISOLATION LEVEL SERIALIZABLE; UPDATE t SET n = (SELECT sum(n) % 1000 + 1 FROM t) WHERE id = {}; COMMIT",
                                (writer + round) % 5 + 1
                            ));
                            let Err(error) = attempt else { break };
                            assert_eq!(error.code().map(postgres::error::SqlState::code), Some("40001"), "{error}");
                            call(&mut session, "ROLLBACK");
                            retries += 1;
                        }
                    }
                    retries
                })
            })
            .collect();
        let retries: Vec<u32> =
            writers.into_iter().map(|writer| writer.join().expect("each writer ends")).collect();
        (4 * 25, retries.iter().sum::<u32>())
    });
    println!("{done} transactions, {retries} tried again");
    assert!(retries > 0, "no conflict was met");
    let counted: String = value(
        &mut admin,
        "SELECT concat_ws(' ', count(*), count(DISTINCT request_id), count(DISTINCT txid)) FROM lead_audit.log WHERE operation = 'UPDATE'",
    );
    assert_eq!(
        counted,
        format!("{done} {done} {done}"),
        "one entry of each transaction that was committed, none of an attempt"
    );
    assert_trail_gives_table(&mut admin, "t");
    assert_intact(&mut admin);
}

/// One session runs DDL on a table. Another session has already prepared statements for the table,
/// and has cached their plans.
#[test]
fn ddl_of_another_session() {
    let cluster = Cluster::start();
    let mut admin = database(&cluster, "ddl");
    call(
        &mut admin,
        "CREATE TABLE t (id int PRIMARY KEY, a text, b int); SELECT lead_audit.enable('t');
         CREATE FUNCTION put(i int, v text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN UPDATE t SET a = v WHERE id = i;
           IF NOT FOUND THEN INSERT INTO t (id, a) VALUES (i, v); END IF; END $$",
    );
    let mut writer = cluster.examined("ddl");
    call(
        &mut writer,
        "SET plan_cache_mode = force_generic_plan; PREPARE change (text) AS UPDATE t SET a = $1; SELECT put(1, 'x'); EXECUTE change('y'); EXECUTE change('z')",
    );
    for (ddl, expected) in [
        ("ALTER TABLE t ADD COLUMN c int DEFAULT 7", r#"{"a": "1", "b": null, "c": 7, "id": 1}"#),
        ("ALTER TABLE t DROP COLUMN b", r#"{"a": "1", "c": 7, "id": 1}"#),
        ("ALTER TABLE t RENAME COLUMN c TO d", r#"{"a": "1", "d": 7, "id": 1}"#),
        (
            "ALTER TABLE t ALTER COLUMN d TYPE text USING 'seven'",
            r#"{"a": "1", "d": "seven", "id": 1}"#,
        ),
        (
            "ALTER TABLE t ALTER COLUMN d TYPE text USING 'eight'",
            r#"{"a": "1", "d": "eight", "id": 1}"#,
        ),
        ("ALTER TABLE t DROP CONSTRAINT t_pkey", r#"{"a": "1", "d": "eight", "id": 1}"#),
        ("ALTER TABLE t ADD PRIMARY KEY (d)", r#"{"a": "1", "d": "eight", "id": 1}"#),
        (
            "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id)",
            r#"{"a": "1", "d": "eight", "id": 1}"#,
        ),
        (
            "CREATE SCHEMA s; ALTER TABLE t SET SCHEMA s; ALTER TABLE s.t SET SCHEMA public; DROP SCHEMA s",
            r#"{"a": "1", "d": "eight", "id": 1}"#,
        ),
        (
            "ALTER TABLE t RENAME TO u; ALTER TABLE u RENAME TO t",
            r#"{"a": "1", "d": "eight", "id": 1}"#,
        ),
    ] {
        let statements = i64::try_from(ddl.matches("ALTER TABLE").count()).expect("few");
        let above = last_entry(&mut admin);
        call(&mut admin, ddl);
        call(&mut writer, "EXECUTE change('0'); SELECT put(1, '1')");
        let written = entries_above(&mut admin, "operation, new_values::text", above);
        assert_eq!(written.len() as i64, statements + 2, "{ddl}: {written:?}");
        assert!(
            written[..statements as usize].iter().all(|entry| entry == "DDL"),
            "{ddl}: {written:?}"
        );
        let found: bool = value(
            &mut admin,
            &format!(
                "SELECT new_values = '{expected}' AND old_values = '{expected}'::jsonb || '{{\"a\": \"0\"}}' FROM lead_audit.log ORDER BY id DESC LIMIT 1"
            ),
        );
        assert!(found, "{ddl}: {written:?}");
    }
    let history: i64 = value(&mut admin, "SELECT count(*) FROM lead_audit.history('t', '1')");
    assert_eq!(history, 3 + 2 * 10, "under every key that the row has had");
    // While the plan is cached, the watching of the table `t` ends and begins again. Later, a new
    // table gets the name `t`.
    let above = last_entry(&mut admin);
    call(&mut admin, "SELECT lead_audit.disable('t')");
    call(&mut writer, "EXECUTE change('unseen')");
    call(&mut admin, "SELECT lead_audit.enable('t')");
    call(&mut writer, "EXECUTE change('seen')");
    call(
        &mut admin,
        "ALTER TABLE t RENAME TO former; CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t VALUES (1); SELECT lead_audit.enable('t')",
    );
    call(&mut writer, "EXECUTE change('new')");
    assert_eq!(
        entries_above(&mut admin, "operation, table_name, new_values->>'a'", above),
        ["DDL | t", "DDL | t", "UPDATE | t | seen", "DDL | t", "UPDATE | t | new"]
    );
    assert_eq!(value::<i64>(&mut admin, "SELECT count(*) FROM lead_audit.history('t', '1')"), 1);
    assert_intact(&mut admin);
}

#[test]
fn partitions_detached_concurrently() {
    let cluster = Cluster::start();
    let mut admin = database(&cluster, "detached");
    call(
        &mut admin,
        "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
         SELECT lead_audit.enable('p'); INSERT INTO p VALUES (1)",
    );
    // DETACH CONCURRENTLY cannot run in a transaction block, so the test sends this command as a
    // query of its own.
    call(&mut admin, "ALTER TABLE p DETACH PARTITION p1 CONCURRENTLY");
    call(&mut admin, "INSERT INTO p1 VALUES (2); TRUNCATE p1");
    assert_eq!(
        entries_above(&mut admin, "operation, table_name", 0),
        ["INSERT | p1", "DDL | p1", "INSERT | p1", "TRUNCATE | p1"]
    );
    assert_eq!(
        value::<String>(
            &mut admin,
            "SELECT string_agg(relation || ' ' || state, ', ' ORDER BY relation) FROM lead_audit.watched"
        ),
        "p on, p1 on"
    );

    // While DETACH CONCURRENTLY waits for a session that reads the table, the partition is only
    // partly detached.
    call(
        &mut admin,
        "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20); INSERT INTO p VALUES (11)",
    );
    let above = last_entry(&mut admin);
    let (mut reader, mut other) = (cluster.admin("detached"), cluster.admin("detached"));
    let pid = other.pid();
    call(&mut reader, "BEGIN; SELECT * FROM p");
    std::thread::scope(|scope| {
        let waiting =
            scope.spawn(|| call(&mut other, "ALTER TABLE p DETACH PARTITION p2 CONCURRENTLY"));
        wait_until_it_waits(&mut admin, pid);
        call(&mut admin, "INSERT INTO p2 VALUES (12)");
        call(&mut reader, "COMMIT");
        waiting.join().expect("it is detached");
    });
    call(&mut admin, "INSERT INTO p2 VALUES (13)");
    assert_eq!(
        entries_above(&mut admin, "operation, table_name", above),
        ["INSERT | p2", "DDL | p2", "INSERT | p2"]
    );
    assert_intact(&mut admin);
}

/// With logical replication, the publisher records the writes that it executes itself. The
/// subscriber records the replicated writes to a table only if it watches the table with `replica
/// => true`.
#[test]
fn logical_replication_into_a_watched_table() {
    for preloaded in [false, true] {
        let builder =
            || if preloaded { Cluster::builder().preloaded() } else { Cluster::builder() };
        let publisher = builder().setting("wal_level = logical").start();
        let subscriber = builder().start();
        let tables = "CREATE TABLE t (id int PRIMARY KEY, note text); CREATE TABLE p (id int PRIMARY KEY, note text) PARTITION BY RANGE (id);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20)";
        let (mut source, mut admin) =
            (database(&publisher, "replicated"), database(&subscriber, "replicated"));
        call(
            &mut source,
            &format!(
                "{tables}; INSERT INTO t VALUES (1, 'before'); CREATE PUBLICATION pub FOR TABLE t, p WITH (publish_via_partition_root = true)"
            ),
        );
        call(
            &mut admin,
            &format!(
                "{tables}; SELECT lead_audit.enable('t'), lead_audit.enable('p', replica => true)"
            ),
        );
        let slot = "SELECT pg_create_logical_replication_slot('sub', 'pgoutput')";
        source.query(slot, &[]).expect("a slot can be made");
        let connection = publisher.connection_string("postgres", "replicated");
        call(
            &mut admin,
            &format!(
                "CREATE SUBSCRIPTION sub CONNECTION '{connection}' PUBLICATION pub WITH (create_slot = false, slot_name = 'sub')"
            ),
        );
        let caught_up = |admin: &mut Session, marker: i64| {
            wait_for(
                admin,
                &format!("SELECT count(*) FROM t WHERE id = {marker}"),
                1,
                Duration::from_secs(60),
            );
        };
        wait_for(
            &mut admin,
            "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'",
            0,
            Duration::from_secs(60),
        );
        caught_up(&mut admin, 1);
        let changes = "INSERT INTO t VALUES (2, 'x'); UPDATE t SET note = 'y' WHERE id = 2; DELETE FROM t WHERE id = 2;
             INSERT INTO p VALUES (1, 'a'), (11, 'b'); UPDATE p SET note = note || '!'; UPDATE p SET id = 12 WHERE id = 1; DELETE FROM p WHERE id = 11;
             TRUNCATE p; INSERT INTO p VALUES (2, 'c'); TRUNCATE p";
        call(&mut source, &format!("{changes}; INSERT INTO t VALUES (100, 'marker')"));
        caught_up(&mut admin, 100);
        let of_p = [
            "INSERT | p1 | 1",
            "INSERT | p2 | 11",
            "UPDATE | p1 | 1",
            "UPDATE | p2 | 11",
            // The subscriber receives one UPDATE, and executes the move to another partition as a
            // DELETE and an INSERT.
            "DELETE | p1 | 1",
            "INSERT | p2 | 12",
            "DELETE | p2 | 11",
            "TRUNCATE | p | 1",
            "INSERT | p1 | 2",
            "TRUNCATE | p | 1",
        ];
        let columns = "operation, table_name, coalesce(row_key->>'id', details->>'row_count')";
        assert_eq!(entries_above(&mut admin, columns, 0), of_p, "preloaded: {preloaded}");
        // After this call of enable(), the replicated writes have entries that contain the row
        // images.
        call(&mut admin, "SELECT lead_audit.enable('t', replica => true)");
        let above = last_entry(&mut admin);
        call(
            &mut source,
            &format!(
                "{}; TRUNCATE t; INSERT INTO t VALUES (101, 'marker')",
                &changes[..changes.find("INSERT INTO p").expect("there")]
            ),
        );
        caught_up(&mut admin, 101);
        assert_eq!(
            entries_above(
                &mut admin,
                &format!("{columns}, coalesce(new_values, old_values)->>'note'"),
                above
            ),
            [
                "INSERT | t | 2 | x",
                "UPDATE | t | 2 | y",
                "DELETE | t | 2 | y",
                "TRUNCATE | t | 2",
                "INSERT | t | 101 | marker"
            ],
            "preloaded: {preloaded}"
        );
        assert_eq!(value::<i64>(&mut admin, "SELECT entries_not_written FROM lead_audit.stats"), 0);
        assert_intact(&mut admin);
        call(&mut admin, "ALTER SUBSCRIPTION sub DISABLE");
        call(&mut admin, "ALTER SUBSCRIPTION sub SET (slot_name = NONE)");
        call(&mut admin, "DROP SUBSCRIPTION sub");
    }
}
