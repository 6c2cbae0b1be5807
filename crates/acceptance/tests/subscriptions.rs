//! Roles that are not superusers use logical replication from a foreign server. The subscriber
//! cannot trust the foreign server, so all changes from the foreign server must have entries. Each
//! test expects an exact list of entries.

use acceptance::{
    Cluster, Session, assert_all_on, assert_intact, call, entries_above, last_entry, value,
    wait_until,
};
use std::fs;
use std::time::Duration;

const LONGEST: Duration = Duration::from_secs(60);

/// SQL that creates a plain table with a child table, and a partitioned table.
const TABLES: &str = "CREATE TABLE t (id int PRIMARY KEY, note text);
     CREATE TABLE c (PRIMARY KEY (id)) INHERITS (t);
     CREATE TABLE p (id int PRIMARY KEY, note text) PARTITION BY RANGE (id);
     CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
     CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (10000)";

/// Returns the version number of the server, for example 150004.
fn version(session: &mut Session) -> i32 {
    value(session, "SELECT current_setting('server_version_num')::int")
}

/// Creates the publishing server of another organisation. The server's database `source` contains
/// the tables and some rows. The server sends the changes of a transaction to the subscriber before
/// the transaction ends, if the changes take more than 64 kB.
fn publisher() -> (Cluster, Session) {
    let cluster = Cluster::builder()
        .setting("wal_level = logical")
        .setting("logical_decoding_work_mem = '64kB'")
        .create();
    // If a role that is not a superuser owns a subscription, PostgreSQL requires a password for the
    // connection to the publisher.
    fs::write(
        cluster.data().join("pg_hba.conf"),
        "local all reader scram-sha-256\nlocal all all trust\n",
    )
    .expect("pg_hba.conf can be written");
    cluster.start_again();
    call(&mut cluster.admin("postgres"), "CREATE DATABASE source TEMPLATE template0");
    let mut source = cluster.admin("source");
    call(
        &mut source,
        &format!(
            "{TABLES}; INSERT INTO t VALUES (1, 'copied'); INSERT INTO c VALUES (2, 'copied'); INSERT INTO p VALUES (1, 'copied'), (11, 'copied');
             CREATE ROLE reader LOGIN SUPERUSER PASSWORD 'secret'"
        ),
    );
    (cluster, source)
}

/// Creates a database with the extension and the tables of `TABLES`. The role `app` owns the
/// tables. The tables are not watched.
fn subscriber(cluster: &Cluster, name: &str) -> Session {
    call(&mut cluster.admin("postgres"), &format!("CREATE DATABASE {name} TEMPLATE template0"));
    let mut admin = cluster.admin(name);
    call(
        &mut admin,
        &format!(
            "CREATE EXTENSION lead_audit; {TABLES};
             DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'app') THEN CREATE ROLE app LOGIN; END IF; END $$;
             ALTER TABLE t OWNER TO app; ALTER TABLE c OWNER TO app; ALTER TABLE p OWNER TO app; ALTER TABLE p1 OWNER TO app; ALTER TABLE p2 OWNER TO app;
             GRANT CREATE ON DATABASE {name} TO app; GRANT CREATE ON SCHEMA public TO app"
        ),
    );
    admin
}

/// Creates a subscription that the role `app` owns. The role `app` is not a superuser.
fn subscribe_as_app(
    cluster: &Cluster,
    admin: &mut Session,
    name: &str,
    publisher: &Cluster,
    options: &str,
) {
    let connection = format!("{} password=secret", publisher.connection_string("reader", "source"));
    let create = format!(
        "CREATE SUBSCRIPTION {name} CONNECTION '{connection}' PUBLICATION {name} WITH (streaming = {options})"
    );
    let database: String = value(admin, "SELECT current_database()::text");
    if version(admin) >= 160_000 {
        call(admin, "GRANT pg_create_subscription TO app");
        call(&mut cluster.session("app", &database), &create);
    } else {
        // On PostgreSQL 15, only a superuser can create a subscription. The subscription continues
        // to exist when its owner loses the attribute SUPERUSER.
        call(admin, "ALTER ROLE app SUPERUSER");
        call(
            &mut cluster.session("app", &database),
            &create.replace("WITH (", "WITH (enabled = false, "),
        );
        call(admin, "ALTER ROLE app NOSUPERUSER");
        call(&mut cluster.session("app", &database), &format!("ALTER SUBSCRIPTION {name} ENABLE"));
    }
    is_copied(admin);
}

fn is_copied(admin: &mut Session) {
    wait_until(
        admin,
        LONGEST,
        "SELECT count(*) > 0 AND bool_and(srsubstate = 'r') FROM pg_subscription_rel",
    );
}

fn unsubscribe(admin: &mut Session, name: &str) {
    call(admin, &format!("ALTER SUBSCRIPTION {name} DISABLE"));
    wait_until(
        admin,
        LONGEST,
        "SELECT count(*) = 0 FROM pg_stat_subscription WHERE pid IS NOT NULL",
    );
    call(admin, &format!("ALTER SUBSCRIPTION {name} SET (slot_name = NONE)"));
    call(admin, &format!("DROP SUBSCRIPTION {name}"));
}

/// Returns the number of entries above an id, by operation and table.
fn counted(admin: &mut Session, above: i64) -> Vec<String> {
    let rows = admin.query(
        &format!(
            "SELECT concat_ws(' | ', operation, table_name, count(*)) FROM lead_audit.log WHERE id > {above} GROUP BY operation, table_name ORDER BY 1"
        ),
        &[],
    );
    rows.expect("the log can be read").iter().map(|row| row.get(0)).collect()
}

const EVENT: &str = "operation, table_name, coalesce(row_key->>'id', details->>'row_count')";

/// PostgreSQL's apply worker runs with session_replication_role = replica. Ordinary triggers do
/// not fire in the replica role.
#[test]
fn a_subscription_of_a_role_that_is_no_superuser() {
    for preloaded in [false, true] {
        let (attacker, mut source) = publisher();
        let builder = Cluster::builder();
        let cluster = if preloaded { builder.preloaded() } else { builder }.start();
        let mut admin = subscriber(&cluster, "watched");
        call(&mut admin, "SELECT lead_audit.enable('t'), lead_audit.enable('p')");
        call(
            &mut source,
            "CREATE PUBLICATION by_root FOR TABLE t, p WITH (publish_via_partition_root = true)",
        );
        subscribe_as_app(&cluster, &mut admin, "by_root", &attacker, "on");
        let mut copied = entries_above(&mut admin, EVENT, 0);
        copied.sort();
        assert_eq!(
            copied,
            ["INSERT | c | 2", "INSERT | p1 | 1", "INSERT | p2 | 11", "INSERT | t | 1"],
            "preloaded: {preloaded}"
        );
        let above = last_entry(&mut admin);
        call(
            &mut source,
            "UPDATE t SET note = 'changed' WHERE id = 1; DELETE FROM c; UPDATE p SET id = 12 WHERE id = 1; DELETE FROM p WHERE id = 11;
             TRUNCATE p; TRUNCATE t; INSERT INTO t VALUES (3, 'forged')",
        );
        wait_until(&mut admin, LONGEST, "SELECT count(*) = 1 FROM t WHERE id = 3");
        let changes = [
            "UPDATE | t | 1",
            "DELETE | c | 2",
            // The subscriber receives one UPDATE, and executes the move to another partition as a
            // DELETE and an INSERT.
            "DELETE | p1 | 1",
            "INSERT | p2 | 12",
            "DELETE | p2 | 11",
            "TRUNCATE | p | 1",
            "TRUNCATE | t | 1",
            "TRUNCATE | c | 0",
            "INSERT | t | 3",
        ];
        assert_eq!(entries_above(&mut admin, EVENT, above), changes, "preloaded: {preloaded}");
        assert_eq!(
            value::<i64>(
                &mut admin,
                "SELECT count(*) FROM lead_audit.entry WHERE db_session_user <> 'app' OR db_session_user IS NULL"
            ),
            0,
            "the owner of the subscription"
        );
        unsubscribe(&mut admin, "by_root");

        // The publication `by_leaf` sends the changes under the names of the partitions. The
        // changes of a large transaction arrive before the transaction ends. The subscriber applies
        // a large transaction from a file or in a parallel apply worker.
        call(&mut source, "CREATE PUBLICATION by_leaf FOR TABLE t, p");
        let modes: &[&str] =
            if version(&mut admin) >= 160_000 { &["on", "parallel"] } else { &["on"] };
        for mode in modes {
            let above = last_entry(&mut admin);
            call(&mut source, "TRUNCATE t, p");
            // The writes that a superuser makes in an ordinary session with
            // session_replication_role = replica have no entries.
            call(
                &mut admin,
                "SET session_replication_role = replica; TRUNCATE t, c, p; RESET session_replication_role",
            );
            call(&mut source, "INSERT INTO p VALUES (1, 'copied'), (11, 'copied')");
            subscribe_as_app(&cluster, &mut admin, "by_leaf", &attacker, mode);
            call(
                &mut source,
                "BEGIN; INSERT INTO p SELECT g, repeat('x', 100) FROM generate_series(100, 4099) g;
                 SAVEPOINT a; INSERT INTO p SELECT g, repeat('x', 100) FROM generate_series(5000, 8999) g; ROLLBACK TO a;
                 UPDATE p SET note = 'y' WHERE id < 100; COMMIT; INSERT INTO t VALUES (9, 'marker')",
            );
            wait_until(&mut admin, LONGEST, "SELECT count(*) = 1 FROM t WHERE id = 9");
            assert_eq!(
                counted(&mut admin, above),
                [
                    "INSERT | p1 | 1",
                    "INSERT | p2 | 4001",
                    "INSERT | t | 1",
                    "UPDATE | p1 | 1",
                    "UPDATE | p2 | 1"
                ],
                "{mode}, preloaded: {preloaded}"
            );
            unsubscribe(&mut admin, "by_leaf");
            source
                .query("SELECT pg_drop_replication_slot('by_leaf')", &[])
                .expect("the slot is free");
        }
        assert_eq!(value::<i64>(&mut admin, "SELECT entries_not_written FROM lead_audit.stats"), 0);
        assert_all_on(&mut admin);
        assert_intact(&mut admin);
    }
}

/// If a superuser owns a subscription, the subscriber assumes that the publisher has recorded the
/// replicated writes. The publisher cannot record writes of functions that run at the subscriber,
/// so the subscriber must record these writes.
#[test]
fn code_of_others_in_a_subscription_of_a_superuser() {
    for preloaded in [false, true] {
        let (upstream, mut source) = publisher();
        let builder = Cluster::builder();
        let cluster = if preloaded { builder.preloaded() } else { builder }.start();
        let mut admin = subscriber(&cluster, "nested");
        call(&mut admin, "SELECT lead_audit.enable('t'), lead_audit.enable('p', replica => true)");
        // The functions of the table's owner run for each row that the subscription copies or
        // applies.
        call(
            &mut cluster.session("app", "nested"),
            "CREATE FUNCTION nest(id int, note text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
               $$BEGIN
                 IF note = 'nest' OR note = 'copied' THEN
                   EXECUTE format('SELECT public.really_nest(%s)', id);
                 END IF;
                 RETURN true;
               END$$;
             CREATE FUNCTION really_nest(id int) RETURNS void LANGUAGE sql AS
               'INSERT INTO public.t VALUES (1000 + id, ''by the index''), (2000 + id, ''by the index'')';
             CREATE FUNCTION nest_trigger() RETURNS trigger LANGUAGE plpgsql AS
               $$BEGIN INSERT INTO public.t VALUES (3000 + NEW.id, 'by the trigger'); RETURN NULL; END$$;
             CREATE TABLE plain (id int PRIMARY KEY, note text);
             CREATE INDEX ON plain (nest(id, note));
             CREATE TRIGGER nest AFTER INSERT ON plain FOR EACH ROW EXECUTE FUNCTION nest_trigger();
             ALTER TABLE plain ENABLE REPLICA TRIGGER nest",
        );
        // Only the initial copy of a subscription fires statement triggers. On PostgreSQL 15, the
        // conditions of statement triggers run with the rights of a superuser.
        let mut by_condition = Vec::new();
        if version(&mut admin) >= 160_000 {
            call(
                &mut cluster.session("app", "nested"),
                "CREATE FUNCTION condition() RETURNS boolean LANGUAGE sql AS
                   'INSERT INTO public.t VALUES (4000, ''by the condition''); SELECT false';
                 CREATE TRIGGER condition BEFORE INSERT ON plain WHEN (condition()) EXECUTE FUNCTION nest_trigger();
                 ALTER TABLE plain ENABLE ALWAYS TRIGGER condition",
            );
            by_condition.push("INSERT | t | 4000".to_owned());
        }
        call(
            &mut source,
            "CREATE TABLE plain (id int PRIMARY KEY, note text); INSERT INTO plain VALUES (1, 'copied');
             CREATE PUBLICATION trusted FOR TABLE t, p, plain",
        );
        let connection = upstream.connection_string("postgres", "source");
        call(
            &mut admin,
            &format!("CREATE SUBSCRIPTION trusted CONNECTION '{connection}' PUBLICATION trusted"),
        );
        is_copied(&mut admin);
        let nested = |n: i32| {
            [
                format!("INSERT | t | {}", 1000 + n),
                format!("INSERT | t | {}", 2000 + n),
                format!("INSERT | t | {}", 3000 + n),
            ]
        };
        let mut copied = entries_above(&mut admin, EVENT, 0);
        copied.sort();
        assert_eq!(
            copied,
            [
                &["INSERT | p1 | 1".to_owned(), "INSERT | p2 | 11".to_owned()][..],
                &nested(1),
                &by_condition
            ]
            .concat(),
            "preloaded: {preloaded}"
        );
        let above = last_entry(&mut admin);
        call(
            &mut source,
            "INSERT INTO plain VALUES (2, 'nest'); UPDATE t SET note = 'x'; DELETE FROM t; TRUNCATE t, p; INSERT INTO t VALUES (9, 'marker')",
        );
        wait_until(&mut admin, LONGEST, "SELECT count(*) = 1 FROM t WHERE id = 9");
        assert_eq!(
            entries_above(&mut admin, EVENT, above),
            [&nested(2)[..], &["TRUNCATE | p1 | 1".to_owned(), "TRUNCATE | p2 | 1".to_owned()]]
                .concat(),
            "preloaded: {preloaded}"
        );

        // cursor_to_xml() is a C function that fetches from an open cursor, and the fetch calls no
        // hook of the library. The cursor's UPDATE names the unwatched table `above`, but changes a
        // row of its watched child table `t`.
        call(
            &mut cluster.session("app", "nested"),
            "CREATE TABLE above (id int, note text); ALTER TABLE t INHERIT above;
             CREATE FUNCTION open_cursor(id int) RETURNS refcursor LANGUAGE plpgsql AS
               $$DECLARE c refcursor := 'c' || id;
               BEGIN
                 OPEN c FOR EXECUTE
                   'UPDATE public.above SET note = ''by the cursor'' WHERE id = 9 RETURNING *';
                 RETURN c;
               END$$;
             ALTER TABLE plain ADD CHECK
               (note <> 'cursor' OR cursor_to_xml(public.open_cursor(id), 9, true, true, '') IS NOT NULL)",
        );
        let above = last_entry(&mut admin);
        call(
            &mut source,
            "INSERT INTO plain VALUES (5, 'cursor'); INSERT INTO t VALUES (10, 'marker')",
        );
        wait_until(&mut admin, LONGEST, "SELECT count(*) = 1 FROM t WHERE id = 10");
        assert_eq!(
            entries_above(&mut admin, EVENT, above),
            ["UPDATE | t | 9", "INSERT | t | 3005"],
            "preloaded: {preloaded}"
        );
        unsubscribe(&mut admin, "trusted");
        assert_intact(&mut admin);
    }
}
