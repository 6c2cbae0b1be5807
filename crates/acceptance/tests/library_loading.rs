//! The library is loaded either at the start of the server, or in a session at the session's first
//! write to a watched table. A session can change a setting of lead_audit before the session loads
//! the library. The change takes effect if the session has the right to change the setting.

use acceptance::{
    Cluster, Session, app_database, assert_intact, call, setting, sqlstate, try_call, value,
};
use std::io::Write;
use std::time::{Duration, Instant};

/// Returns two clusters, each with a flag. The flag is true if the cluster preloads the library.
fn clusters() -> [(bool, Cluster); 2] {
    [(false, Cluster::start()), (true, Cluster::builder().preloaded().start())]
}

/// Returns the context in the only entry of the row with the given id.
fn context(admin: &mut Session, id: &str) -> Vec<Option<String>> {
    let rows = admin
        .query(
            "SELECT user_id, user_ip, user_agent, request_id FROM lead_audit.log WHERE row_key->>'id' = $1 ORDER BY id",
            &[&id],
        )
        .expect("the log can be read");
    assert_eq!(rows.len(), 1, "{id} has one entry");
    (0..4).map(|column| rows[0].get(column)).collect()
}

fn some(values: [&str; 4]) -> Vec<Option<String>> {
    values.iter().map(|value| (!value.is_empty()).then(|| (*value).to_owned())).collect()
}

/// Returns whether a session has loaded the library. Without the library, the session's
/// pg_settings does not contain the library's settings.
fn is_loaded(session: &mut Session) -> bool {
    value::<i64>(session, "SELECT count(*) FROM pg_settings WHERE name = 'lead_audit.batch_memory'")
        == 1
}

/// The first statement of a session can load the library. The entries of the first statement must
/// be written as one batch, and not each in a subtransaction of its own.
#[test]
fn the_first_statement_of_a_session_writes_its_entries_together() {
    for (preloaded, cluster) in clusters() {
        let mut admin = app_database(&cluster, "first");
        call(&mut admin, "INSERT INTO leads (id) SELECT g::text FROM generate_series(1, 2000) g");
        call(
            &mut admin,
            "GRANT USAGE ON SCHEMA lead_audit TO app; GRANT SELECT ON lead_audit.entry TO app",
        );
        for (statement, rows) in [
            ("UPDATE leads SET source = 'a'", 2000),
            ("UPDATE leads SET source = 'b' RETURNING id", 2000),
            (
                "WITH changed AS (UPDATE leads SET source = 'c' RETURNING id) SELECT count(*) FROM changed",
                2000,
            ),
            ("INSERT INTO leads (id) SELECT 'new-' || g FROM generate_series(1, 1000) g", 1000),
            ("DELETE FROM leads WHERE id LIKE 'new-%'", 1000),
            (
                "MERGE INTO leads l USING (VALUES ('1'), ('2')) v(id) ON l.id = v.id WHEN MATCHED THEN UPDATE SET source = 'd'",
                2,
            ),
        ] {
            let before: i64 = value(&mut admin, "SELECT max(id) FROM lead_audit.entry");
            let succeeded = format!("FROM lead_audit.entry WHERE id > {before} AND outcome = 'ok'");
            for (ends, entries) in [("ROLLBACK TO begun", 0), ("RELEASE begun", rows)] {
                let mut app = cluster.session("app", "first");
                assert_eq!(is_loaded(&mut app), preloaded);
                for command in ["BEGIN", "SAVEPOINT begun", statement, ends] {
                    call(&mut app, command);
                }
                assert_eq!(
                    value::<i64>(&mut app, &format!("SELECT count(*) {succeeded}")),
                    entries,
                    "{statement}, {ends}"
                );
                call(&mut app, "COMMIT");
            }
            assert_eq!(
                value::<i64>(&mut admin, &format!("SELECT count(*) {succeeded}")),
                rows,
                "{statement}"
            );
            let writers: i64 =
                value(&mut admin, &format!("SELECT count(DISTINCT xmin::text) {succeeded}"));
            assert!(writers <= 4, "{writers} subtransactions wrote the entries of: {statement}");
        }
        assert_intact(&mut admin);
    }
}

#[test]
fn context_set_before_the_library_is_loaded_is_recorded() {
    for (preloaded, cluster) in clusters() {
        let mut admin = app_database(&cluster, "early");
        let mut app = cluster.session("app", "early");
        assert_eq!(is_loaded(&mut app), preloaded);
        call(
            &mut app,
            "SET lead_audit.user_id = 'u-1'; SET lead_audit.user_ip = '192.0.2.1'; SET lead_audit.request_id = 'r-1'",
        );
        call(
            &mut app,
            "BEGIN; SET LOCAL lead_audit.user_agent = 'local'; SET LOCAL lead_audit.request_id = 'r-2'",
        );
        assert_eq!(is_loaded(&mut app), preloaded);
        call(&mut app, "INSERT INTO leads (id) VALUES ('first'); COMMIT");
        assert!(is_loaded(&mut app));
        assert_eq!(context(&mut admin, "first"), some(["u-1", "192.0.2.1", "local", "r-2"]));
        call(&mut app, "INSERT INTO leads (id) VALUES ('second')");
        assert_eq!(
            context(&mut admin, "second"),
            some(["u-1", "192.0.2.1", "", "r-1"]),
            "SET LOCAL has ended"
        );
        call(
            &mut app,
            "RESET lead_audit.user_id; SET lead_audit.user_ip = ''; SET lead_audit.request_id TO DEFAULT",
        );
        call(&mut app, "INSERT INTO leads (id) VALUES ('third')");
        assert_eq!(context(&mut admin, "third"), some(["", "", "", ""]));
        assert_eq!(app.warnings(), [""; 0]);

        // The client sets the context with connection options, as a connection pool can.
        let mut pool = cluster.client_program("psql");
        pool.env("PGOPTIONS", "-c lead_audit.user_id=pool -c lead_audit.request_id=r-3")
            .env("PGUSER", "app");
        let output = pool
            .args(["-Xq", "-d", "early", "-c", "INSERT INTO leads (id) VALUES ('options')"])
            .output()
            .expect("psql");
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        assert_eq!(context(&mut admin, "options"), some(["pool", "", "", "r-3"]));
        assert_intact(&mut admin);
    }
}

#[test]
fn values_that_are_not_allowed_are_refused_or_dropped_with_a_warning() {
    let (long, longer) = ("x".repeat(255), "é".repeat(501));
    let bad = [
        ("user_ip", "not an address"),
        ("user_ip", "10.0.0.0/8"),
        ("user_agent", &longer),
        ("user_id", &longer),
        ("request_id", &longer),
    ];
    for (preloaded, cluster) in clusters() {
        let mut admin = app_database(&cluster, "bad");
        for (number, (name, bad_value)) in bad.iter().enumerate() {
            let mut app = cluster.session("app", "bad");
            let set = format!("SET lead_audit.{name} = '{bad_value}'");
            if preloaded {
                assert_eq!(sqlstate(&mut app, &set), "22023", "{set}");
            } else {
                call(&mut app, &set);
            }
            call(
                &mut app,
                &format!(
                    "SET lead_audit.{} = '{long}'",
                    if *name == "user_id" { "request_id" } else { "user_id" }
                ),
            );
            call(&mut app, &format!("INSERT INTO leads (id) VALUES ('bad-{number}')"));
            let warnings = app.warnings();
            if preloaded {
                assert_eq!(warnings, [""; 0]);
            } else {
                assert!(
                    matches!(&warnings[..], [w] if w.contains(&format!("lead_audit.{name}"))),
                    "{name}: {warnings:?}"
                );
            }
            let expected =
                if *name == "user_id" { ["", "", "", &long] } else { [&long, "", "", ""] };
            assert_eq!(context(&mut admin, &format!("bad-{number}")), some(expected));
            assert_eq!(sqlstate(&mut app, &set), "22023", "the library is there now");
        }

        // Once the library is loaded, a SET with a misspelt name of a setting raises an error.
        let mut app = cluster.session("app", "bad");
        let misspelt = "SET lead_audit.userid = 'u-1'";
        if preloaded {
            assert_eq!(sqlstate(&mut app, misspelt), "42602");
        } else {
            call(&mut app, misspelt);
            call(&mut app, "INSERT INTO leads (id) VALUES ('misspelt')");
            let warnings = app.warnings();
            assert!(
                matches!(&warnings[..], [w] if w.contains("lead_audit.userid")),
                "{warnings:?}"
            );
            assert_eq!(context(&mut admin, "misspelt"), some(["", "", "", ""]));
            assert_eq!(sqlstate(&mut app, misspelt), "42602");
        }
        assert_intact(&mut admin);
    }
}

#[test]
fn an_application_cannot_switch_auditing_off_in_advance() {
    for (preloaded, cluster) in clusters() {
        let mut admin = app_database(&cluster, "off");
        call(
            &mut admin,
            "ALTER TABLE lead_audit.entry ADD CONSTRAINT no_poison CHECK (row_key->>'id' <> 'poison')",
        );
        let switches = [
            ("enabled", "off"),
            ("log_soft_deletes", "off"),
            ("on_error", "abort"),
            ("log_unchanged", "on"),
            ("batch_memory", "0"),
        ];
        for (number, (name, wanted)) in switches.iter().enumerate() {
            let mut app = cluster.session("app", "off");
            let set = format!("SET lead_audit.{name} = '{wanted}'");
            if preloaded {
                assert_eq!(sqlstate(&mut app, &set), "42501", "{set}");
            } else {
                call(&mut app, &set);
            }
            call(&mut app, &format!("INSERT INTO leads (id) VALUES ('off-{number}')"));
            let warnings = app.warnings();
            assert_eq!(warnings.len(), usize::from(!preloaded), "{warnings:?}");
            assert_ne!(value::<String>(&mut app, &format!("SHOW lead_audit.{name}")), *wanted);
            call(
                &mut app,
                &format!(
                    "UPDATE leads SET is_deleted = true WHERE id = 'off-{number}'; UPDATE leads SET source = source WHERE id = 'off-{number}';
                     INSERT INTO leads (id) VALUES ('poison'); DELETE FROM leads WHERE id = 'poison'"
                ),
            );
            assert_eq!(
                value::<i64>(
                    &mut admin,
                    &format!("SELECT count(*) FROM lead_audit.history('leads', 'off-{number}')")
                ),
                2
            );
            assert_eq!(sqlstate(&mut app, &set), "42501");
        }
        // A role without the right to disable auditing must not be able to disable auditing for
        // later sessions.
        for sql in [
            "ALTER ROLE app SET lead_audit.enabled = off",
            "ALTER DATABASE off SET lead_audit.enabled = off",
        ] {
            let mut app = cluster.session("app", "off");
            assert_eq!(sqlstate(&mut app, sql), "42501", "{sql}");
        }
        let mut psql = cluster.client_program("psql");
        psql.env("PGOPTIONS", "-c lead_audit.enabled=off").env("PGUSER", "app");
        let output = psql
            .args(["-Xq", "-d", "off", "-c", "INSERT INTO leads (id) VALUES ('options')"])
            .output()
            .expect("psql");
        assert_eq!(
            output.status.success(),
            !preloaded,
            "a preloaded library refuses it at login: {output:?}"
        );
        let (rows, entries): (i64, i64) = (
            value(&mut admin, "SELECT count(*) FROM leads WHERE id = 'options'"),
            value(&mut admin, "SELECT count(*) FROM lead_audit.history('leads', 'options')"),
        );
        assert_eq!(rows, entries, "{output:?}");
        assert_intact(&mut admin);
    }
}

#[test]
fn a_superuser_can_switch_per_database_and_role() {
    for (preloaded, cluster) in clusters() {
        let mut admin = app_database(&cluster, "switches");
        call(&mut admin, "CREATE ROLE batch LOGIN; GRANT ALL ON leads TO batch");
        call(
            &mut admin,
            "ALTER TABLE lead_audit.entry ADD CONSTRAINT no_poison CHECK (row_key->>'id' <> 'poison')",
        );
        // The count omits the entries of failed statements and of unwritten entries, which exist
        // only if the library is preloaded.
        let entries = "SELECT count(*) FROM lead_audit.entry WHERE outcome = 'ok'";
        // In the session `fresh`, the superuser changes the library's settings for roles and
        // databases. Without preloading, this session has not loaded the library.
        let mut fresh = cluster.admin("postgres");
        let mut before: i64 = value(&mut admin, entries);
        let mut expect = |more: i64, what: &str| {
            let now: i64 = value(&mut admin, entries);
            assert_eq!(now - before, more, "{what} (preloaded: {preloaded})");
            before = now;
        };
        let write = "INSERT INTO leads (id) VALUES (gen_random_uuid()::text)";

        call(&mut fresh, "ALTER ROLE batch SET lead_audit.enabled = off");
        call(&mut cluster.session("batch", "switches"), write);
        expect(0, "enabled is off for the role");
        call(&mut cluster.session("app", "switches"), write);
        expect(1, "and for no other");
        call(&mut fresh, "ALTER ROLE batch IN DATABASE switches SET lead_audit.enabled = on");
        call(&mut cluster.session("batch", "switches"), write);
        expect(1, "the setting for role and database comes first");
        call(&mut fresh, "ALTER ROLE batch RESET ALL");
        call(&mut fresh, "ALTER ROLE batch IN DATABASE switches RESET ALL");

        call(&mut fresh, "ALTER DATABASE switches SET lead_audit.enabled = off");
        let mut app = cluster.session("app", "switches");
        call(&mut app, write);
        expect(0, "enabled is off for the database");
        assert_eq!(app.warnings(), [""; 0]);
        assert_eq!(value::<String>(&mut app, "SHOW lead_audit.enabled"), "off");
        assert_eq!(sqlstate(&mut app, "SET lead_audit.enabled = on"), "42501");
        call(&mut fresh, "ALTER DATABASE switches SET lead_audit.enabled = on");

        call(&mut fresh, "ALTER DATABASE switches SET lead_audit.log_soft_deletes = off");
        let mut app = cluster.session("app", "switches");
        call(&mut app, "INSERT INTO leads (id) VALUES ('soft')");
        expect(1, "an INSERT is no soft delete");
        call(
            &mut app,
            "UPDATE leads SET is_deleted = true WHERE id = 'soft'; UPDATE leads SET is_deleted = false WHERE id = 'soft'",
        );
        expect(0, "log_soft_deletes is off");
        call(&mut app, "UPDATE leads SET source = 'x' WHERE id = 'soft'");
        expect(1, "an UPDATE is none either");
        call(&mut fresh, "ALTER DATABASE switches RESET lead_audit.log_soft_deletes");

        call(&mut fresh, "ALTER DATABASE switches SET lead_audit.on_error = 'abort'");
        let mut app = cluster.session("app", "switches");
        assert_eq!(sqlstate(&mut app, "INSERT INTO leads (id) VALUES ('poison')"), "23514");
        call(&mut app, write);
        expect(1, "on_error = abort");
        call(&mut fresh, "ALTER DATABASE switches RESET lead_audit.on_error");
        let mut app = cluster.session("app", "switches");
        call(&mut app, "INSERT INTO leads (id) VALUES ('poison')");
        assert_eq!(app.warnings().len(), 1);
        expect(0, "on_error = warn");
        assert_intact(&mut admin);
    }
}

#[test]
fn any_first_statement_of_a_session_is_recorded() {
    for (preloaded, cluster) in clusters() {
        let mut admin = app_database(&cluster, "first");
        call(
            &mut admin,
            "CREATE PROCEDURE add_twice(what text) LANGUAGE plpgsql AS $$ BEGIN
               INSERT INTO leads (id) VALUES (what || 1); COMMIT; INSERT INTO leads (id) VALUES (what || 2); END $$;
             CREATE FUNCTION add_row() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN INSERT INTO leads (id) VALUES (NEW.id); RETURN NEW; END $$;
             CREATE TABLE inbox (id text); GRANT ALL ON inbox TO app;
             CREATE TRIGGER add_row BEFORE INSERT ON inbox FOR EACH ROW EXECUTE FUNCTION add_row();
             CREATE TABLE notes (lead varchar REFERENCES leads ON UPDATE CASCADE ON DELETE CASCADE, note text);
             SELECT lead_audit.enable('notes'); GRANT ALL ON notes TO app;
             INSERT INTO leads (id) VALUES ('parent'), ('parent to be deleted');
             INSERT INTO notes VALUES ('parent', 'n'), ('parent to be deleted', 'n')",
        );
        let entries = "SELECT count(*) FROM lead_audit.entry";
        let mut before: i64 = value(&mut admin, entries);
        let statements = [
            ("INSERT INTO leads (id) VALUES ('a'), ('b'), ('c')", 3),
            ("UPDATE leads SET source = 'x' WHERE id IN ('a', 'b')", 2),
            ("DELETE FROM leads WHERE id = 'c'", 1),
            ("INSERT INTO leads (id) SELECT 'many' || g FROM generate_series(1, 5000) g", 5000),
            ("WITH w AS (UPDATE leads SET source = 'y' WHERE id = 'a' RETURNING id) SELECT * FROM w", 1),
            (
                "DO $$ BEGIN BEGIN INSERT INTO leads (id) VALUES ('undone'); RAISE 'no'; EXCEPTION WHEN OTHERS THEN NULL; END;
              INSERT INTO leads (id) VALUES ('done'); END $$",
                1,
            ),
            ("CALL add_twice('called')", 2),
            ("INSERT INTO inbox VALUES ('by trigger')", 1),
            ("UPDATE leads SET id = 'father' WHERE id = 'parent'", 2),
            ("DELETE FROM leads WHERE id = 'parent to be deleted'", 2),
            (
                "BEGIN; SAVEPOINT s; INSERT INTO leads (id) VALUES ('undone'); ROLLBACK TO s; INSERT INTO leads (id) VALUES ('kept'); COMMIT",
                1,
            ),
            (
                "BEGIN; DECLARE c CURSOR FOR SELECT * FROM leads WHERE id = 'kept' FOR UPDATE; FETCH c;
              UPDATE leads SET source = 'cursor' WHERE CURRENT OF c; COMMIT",
                1,
            ),
            ("PREPARE p AS DELETE FROM leads WHERE id LIKE 'many%'; EXECUTE p", 5000),
            ("EXPLAIN ANALYZE INSERT INTO leads (id) VALUES ('explained')", 1),
            ("CREATE TEMP TABLE t AS SELECT 1; INSERT INTO leads (id) SELECT 'temp'", 1),
            ("TRUNCATE notes", 1),
        ];
        for (sql, more) in statements {
            let mut app = cluster.session("app", "first");
            if let Err(error) = try_call(&mut app, sql) {
                panic!("{error}\n{sql}");
            }
            assert_eq!(app.warnings(), [""; 0], "{sql}");
            let now: i64 = value(&mut admin, entries);
            assert_eq!(now - before, more, "{sql} (preloaded: {preloaded})");
            before = now;
        }

        // A transaction can read the entries of its own COPY.
        let mut first = cluster.admin("first");
        let mut transaction = first.transaction().expect("BEGIN");
        let mut copy = transaction.copy_in("COPY leads (id) FROM STDIN").expect("COPY begins");
        for n in 0..3_000 {
            writeln!(copy, "copied-{n}").expect("COPY takes rows");
        }
        assert_eq!(copy.finish().expect("COPY ends"), 3_000);
        let seen: i64 = transaction
            .query_one("SELECT count(*) FROM lead_audit.log WHERE operation = 'INSERT' AND row_key->>'id' LIKE 'copied-%'", &[])
            .expect("the log can be read")
            .get(0);
        assert_eq!(seen, 3_000);
        transaction.commit().expect("COMMIT");
        assert_eq!(value::<i64>(&mut admin, entries) - before, 3_000);
        assert_intact(&mut admin);
    }
}

/// The launcher inspects each new database. The launcher must find the extension even if CREATE
/// EXTENSION runs during the inspection.
#[test]
fn a_new_database_with_the_extension_gets_its_worker() {
    let cluster = Cluster::builder().preloaded().start();
    let mut postgres = cluster.admin("postgres");
    for number in 0..setting("LEAD_AUDIT_ACCEPTANCE_NEW_DATABASES", 20) {
        let name = format!("new_{number}");
        call(&mut postgres, &format!("CREATE DATABASE {name}"));
        let mut admin = cluster.admin(&name);
        // The test varies the delay between CREATE DATABASE and CREATE EXTENSION. In some rounds,
        // CREATE EXTENSION runs during the launcher's inspection of the database.
        std::thread::sleep(Duration::from_millis(number * 3 % 61));
        call(&mut admin, "CREATE EXTENSION lead_audit");
        let begin = Instant::now();
        while !value::<bool>(
            &mut admin,
            "SELECT state = 'on' FROM lead_audit.status() WHERE part = 'background worker'",
        ) {
            let reason = "SELECT reason FROM lead_audit.status() WHERE part = 'background worker'";
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "{name}: {}",
                value::<String>(&mut admin, reason)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(admin);
        call(&mut postgres, &format!("DROP DATABASE {name} WITH (FORCE)"));
    }
}
