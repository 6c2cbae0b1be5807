//! During a DDL command, PostgreSQL runs code of a table's owner: functions in index expressions,
//! in partition keys and in predicates. The owner's code can run while a partition or child table
//! of a watched table lacks its audit triggers. The writes of the owner's code must be recorded.
//! The owner's code must not get more rights than the owner has.

use acceptance::{
    Cluster, Session, app_database, assert_all_on, assert_intact, call, operations, sqlstate,
    try_call, value,
};

/// SQL that creates the functions `trap(int)` and `trap(text)`, which return their argument. The
/// first call of `trap` after a call of `arm` also executes the command that was passed to `arm`.
const TRAP: &str = "
    GRANT CREATE ON SCHEMA public TO app;
    SET ROLE app;
    CREATE TABLE armed (command text);
    CREATE FUNCTION spring() RETURNS void LANGUAGE plpgsql AS $$
      DECLARE c text; BEGIN
        SELECT command INTO c FROM public.armed; IF c IS NOT NULL THEN DELETE FROM public.armed; EXECUTE c; END IF; END $$;
    CREATE FUNCTION trap(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM public.spring(); RETURN i; END $$;
    CREATE FUNCTION trap(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM public.spring(); RETURN t; END $$;
    RESET ROLE;";

fn with_trap(cluster: &Cluster, name: &str) -> (Session, Session) {
    let mut admin = app_database(cluster, name);
    call(&mut admin, TRAP);
    (admin, cluster.session("app", name))
}

fn arm(app: &mut Session, command: &str) {
    app.execute("INSERT INTO armed VALUES ($1)", &[&command]).expect("an insert");
}

fn was_sprung(app: &mut Session) -> bool {
    value(app, "SELECT NOT EXISTS (SELECT FROM armed)")
}

/// When a detached partition is attached again, the DDL guard replaces the partition's audit
/// triggers. The owner's code can run a command after the old triggers are dropped and before the
/// new triggers exist. The DDL guard must refuse or record this command.
#[test]
fn commands_while_a_partition_is_attached() {
    let cluster = Cluster::start();
    let (mut admin, mut app) = with_trap(&cluster, "attached");
    call(
        &mut app,
        "CREATE TABLE pl (id int, v text) PARTITION BY RANGE (id); CREATE TABLE pl1 PARTITION OF pl FOR VALUES FROM (0) TO (100);
         CREATE TABLE pl2 PARTITION OF pl FOR VALUES FROM (100) TO (200) PARTITION BY RANGE (id);
         CREATE TABLE pl21 PARTITION OF pl2 FOR VALUES FROM (100) TO (150);
         CREATE TABLE pl22 PARTITION OF pl2 FOR VALUES FROM (150) TO (200) PARTITION BY RANGE (id);
         CREATE TABLE pl221 PARTITION OF pl22 FOR VALUES FROM (150) TO (160);
         CREATE TABLE pl222 PARTITION OF pl22 FOR VALUES FROM (160) TO (200)",
    );
    call(&mut admin, "SELECT lead_audit.enable('pl')");
    call(
        &mut app,
        "INSERT INTO pl VALUES (1, 'a'), (101, 'b'), (151, 'secret'), (152, 'x'); ALTER TABLE pl DETACH PARTITION pl2; CREATE INDEX ON pl (trap(v))",
    );
    let attach = "ALTER TABLE pl ATTACH PARTITION pl2 FOR VALUES FROM (100) TO (200)";
    for (write, refused) in [
        (r#"ALTER TABLE pl221 DISABLE TRIGGER USER"#, true),
        (r#"DROP TRIGGER "00_lead_audit_truncate" ON pl221"#, true),
        (
            r#"ALTER TABLE pl222 DISABLE TRIGGER ALL, ALTER v SET DEFAULT 'x', ENABLE TRIGGER ALL"#,
            true,
        ),
        (
            "MERGE INTO pl221 p USING (SELECT 152) s (id) ON p.id = s.id WHEN MATCHED THEN DELETE",
            false,
        ),
    ] {
        arm(&mut app, write);
        let result = try_call(&mut app, attach);
        let entries: String = value(
            &mut admin,
            "SELECT string_agg(operation || ' ' || table_name, ' ' ORDER BY id) FROM lead_audit.log WHERE outcome = 'ok'",
        );
        let begin = "INSERT pl1 INSERT pl21 INSERT pl221 INSERT pl221 DDL pl2";
        if refused {
            assert!(
                result.as_ref().is_err_and(|error| error.starts_with("42501")),
                "{write}: {result:?}"
            );
            assert_eq!(entries, begin, "{write}");
            call(&mut app, "DELETE FROM armed");
        } else {
            assert_eq!(result, Ok(()), "{write}");
            assert!(was_sprung(&mut app));
            assert_eq!(entries, format!("{begin} DELETE pl221 DDL pl2"), "{write}");
        }
    }
    call(&mut app, "UPDATE pl221 SET v = 'seen' WHERE id = 151");
    assert_all_on(&mut admin);
    assert_intact(&mut admin);
}

/// While ALTER TABLE rewrites a table, PostgreSQL loses each write to the old file of the table.
/// The entry of a lost write would describe a change that the table does not contain, so the
/// extension refuses the write.
#[test]
fn writes_to_a_table_that_is_being_rewritten() {
    let cluster = Cluster::start();
    let (mut admin, mut app) = with_trap(&cluster, "rewritten");
    call(
        &mut app,
        "CREATE TABLE w (id int, v text); CREATE TABLE other (id int); CREATE FUNCTION any_trap() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT public.trap(1)'",
    );
    call(&mut admin, "SELECT lead_audit.enable('w'), lead_audit.enable('other')");
    call(&mut app, "INSERT INTO w VALUES (1, 'a'), (3, 'b')");
    for command in [
        "ALTER TABLE w ALTER v TYPE text USING trap(v)",
        "ALTER TABLE w ADD n int DEFAULT any_trap()",
    ] {
        for write in [
            "DELETE FROM w WHERE id = 3",
            "INSERT INTO w (id) VALUES (77)",
            "COPY w (id) FROM '/dev/null'",
        ] {
            if write.starts_with("COPY") {
                call(&mut admin, "GRANT pg_read_server_files TO app");
            }
            arm(&mut app, write);
            assert_eq!(sqlstate(&mut app, command), "55006", "{command}, {write}");
            assert!(!was_sprung(&mut app));
            call(&mut app, "DELETE FROM armed");
        }
        // While PostgreSQL rewrites the table `w`, a write to another table is not lost, and has
        // an entry.
        arm(&mut app, "INSERT INTO other VALUES (1)");
        call(&mut app, command);
        assert!(was_sprung(&mut app));
    }
    assert_eq!(operations(&mut admin, "w"), "INSERT INSERT DDL DDL");
    assert_eq!(operations(&mut admin, "other"), "INSERT INSERT");
    assert_eq!(value::<i64>(&mut app, "SELECT count(*) FROM w"), 2);
    assert_intact(&mut admin);
}

/// A statement looks up the triggers of its table when the statement starts. The DDL guard
/// therefore refuses commands that would change the triggers of a table while a statement writes
/// to the table.
#[test]
fn statements_around_the_command() {
    let cluster = Cluster::start();
    let (mut admin, mut app) = with_trap(&cluster, "around");
    call(
        &mut app,
        "CREATE TABLE w (id int, v text); CREATE TABLE c () INHERITS (w); CREATE TABLE top (id int, v text);
         CREATE TABLE pl (id int, v text) PARTITION BY RANGE (id); CREATE TABLE p1 (id int, v text); CREATE TABLE p2 (id int, v text);
         CREATE FUNCTION run(i int, command text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN IF i = 1 THEN EXECUTE command; END IF; RETURN i; END $$;
         INSERT INTO c VALUES (1, 'x'), (2, 'x'); INSERT INTO p1 VALUES (1, 'x'), (2, 'x'); INSERT INTO p2 VALUES (11, 'x'), (12, 'x')",
    );
    call(
        &mut admin,
        "SELECT lead_audit.enable('pl'), lead_audit.enable('top'), lead_audit.enable('p2')",
    );
    for statement in [
        "INSERT INTO p1 SELECT run(i, 'ALTER TABLE pl ATTACH PARTITION p1 FOR VALUES FROM (0) TO (10)'), 'unseen' FROM generate_series(1, 3) i",
        "UPDATE p1 SET v = run(id, 'ALTER TABLE pl ATTACH PARTITION p1 FOR VALUES FROM (0) TO (10)')::text",
        "UPDATE p2 SET v = run(id - 10, 'ALTER TABLE pl ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20)')::text",
        "INSERT INTO c SELECT run(i, 'ALTER TABLE w INHERIT top'), 'unseen' FROM generate_series(1, 3) i",
        "UPDATE c SET v = run(id, 'ALTER TABLE w INHERIT top')::text",
    ] {
        assert_eq!(sqlstate(&mut app, statement), "55006", "{statement}");
    }
    call(
        &mut app,
        "ALTER TABLE w INHERIT top; ALTER TABLE pl ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20)",
    );
    // The DDL guard also refuses to detach a partition while a statement writes to the partition.
    let detach = "UPDATE p2 SET v = run(id - 10, 'ALTER TABLE pl DETACH PARTITION p2')::text";
    assert_eq!(sqlstate(&mut app, detach), "55006");
    assert_all_on(&mut admin);
}

/// When the DDL guard or enable() changes triggers of a partitioned table, PostgreSQL reads the
/// partition key. While PostgreSQL reads a partition key, it calls each function of the key whose
/// arguments are constants.
#[test]
fn no_rights_of_the_guard_for_functions_in_a_partition_key() {
    let cluster = Cluster::start();
    let (mut admin, mut app) = with_trap(&cluster, "rights");
    call(
        &mut app,
        "CREATE TABLE pl (id int, v text) PARTITION BY RANGE (id);
         CREATE TABLE pl2 PARTITION OF pl FOR VALUES FROM (100) TO (200) PARTITION BY RANGE ((id + trap(0)));
         CREATE TABLE pl22 PARTITION OF pl2 FOR VALUES FROM (150) TO (200);
         CREATE TABLE other (id int, v text) PARTITION BY RANGE ((id + trap(0)));
         CREATE TABLE other1 PARTITION OF other FOR VALUES FROM (0) TO (100)",
    );
    call(&mut admin, "SELECT lead_audit.enable('pl')");
    call(&mut app, "INSERT INTO pl VALUES (151, 'a'), (152, 'b')");
    // The function in the partition key cannot tell the test under which role it runs. The function
    // raises an error if this role is not `app`.
    call(
        &mut app,
        r#"CREATE FUNCTION seize() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
             BEGIN EXECUTE 'ALTER ROLE app SUPERUSER'; RAISE 'app is a superuser'; EXCEPTION WHEN insufficient_privilege OR read_only_sql_transaction THEN NULL; END;
             BEGIN UPDATE public.pl22 SET v = 'HACKED'; EXCEPTION WHEN read_only_sql_transaction THEN NULL; END;
             PERFORM set_config('search_path', 'evil', false);
             IF current_user <> 'app' THEN RAISE 'runs as %', current_user; END IF; END $$;
           CREATE OR REPLACE FUNCTION spring() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
             IF EXISTS (SELECT FROM public.armed) THEN PERFORM public.seize(); END IF; END $$"#,
    );
    arm(&mut app, "seize");
    for (statement, by_app) in [
        ("ALTER TABLE pl DETACH PARTITION pl2", true),
        ("ALTER TABLE pl ATTACH PARTITION pl2 FOR VALUES FROM (100) TO (200)", true),
        ("SELECT lead_audit.enable('other')", false),
        ("SELECT lead_audit.disable('other')", false),
        ("SELECT lead_audit.enable('other')", false),
    ] {
        // Each statement runs in a new session, in which nothing is cached.
        let mut session =
            if by_app { cluster.session("app", "rights") } else { cluster.examined("rights") };
        assert_eq!(try_call(&mut session, statement), Ok(()), "{statement}");
        assert!(
            !value::<bool>(&mut admin, "SELECT rolsuper FROM pg_roles WHERE rolname = 'app'"),
            "{statement}"
        );
    }
    // PostgreSQL can also have called the function as the table's owner, outside of the commands of
    // the DDL guard. If the function has written in this call, the writes must have entries.
    let (changed, recorded) = (
        value::<i64>(&mut admin, "SELECT count(*) FROM pl22 WHERE v = 'HACKED'"),
        value::<i64>(&mut admin, "SELECT count(*) FROM lead_audit.log WHERE operation = 'UPDATE'"),
    );
    assert!(changed == 0 || recorded >= changed, "{changed} {recorded}");
    call(&mut app, "DELETE FROM armed; UPDATE pl22 SET v = 'seen'; INSERT INTO other VALUES (1)");
    assert_eq!(operations(&mut admin, "other1"), "INSERT");
    assert_all_on(&mut admin);
    assert_intact(&mut admin);
}

/// The worker runs as a superuser, so the worker must call no function in a partition key. If the
/// worker does not repair a table because of a function in a partition key, the worker must report
/// the table.
#[test]
fn the_worker_calls_no_function_of_a_partition_key() {
    let cluster = Cluster::builder().preloaded().start();
    let (mut admin, mut app) = with_trap(&cluster, "worker");
    call(
        &mut app,
        "CREATE TABLE pl (id int, v text) PARTITION BY RANGE (id);
         CREATE TABLE pl2 PARTITION OF pl FOR VALUES FROM (100) TO (200) PARTITION BY RANGE ((id + trap(0)));
         CREATE TABLE pl22 PARTITION OF pl2 FOR VALUES FROM (150) TO (200)",
    );
    call(&mut admin, "SELECT lead_audit.enable('pl')");
    call(
        &mut admin,
        "BEGIN; ALTER EVENT TRIGGER lead_audit_ddl DISABLE; ALTER EVENT TRIGGER lead_audit_drop DISABLE; ALTER TABLE pl DETACH PARTITION pl2;
         ALTER EVENT TRIGGER lead_audit_ddl ENABLE ALWAYS; ALTER EVENT TRIGGER lead_audit_drop ENABLE ALWAYS; COMMIT",
    );
    let begin = std::time::Instant::now();
    while !cluster.log_text().contains("lead_audit: table public.pl was found to be: not repaired")
    {
        assert!(begin.elapsed().as_secs() < 60, "{}", cluster.log_text());
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    call(&mut admin, "SELECT * FROM lead_audit.check_watched()");
    call(&mut app, "INSERT INTO pl2 VALUES (151)");
    assert_eq!(operations(&mut admin, "pl22"), "INSERT");
    assert_all_on(&mut admin);
}

/// One ALTER TABLE disables audit triggers, runs the owner's code, and enables the triggers again.
#[test]
fn triggers_disabled_within_a_command() {
    let cluster = Cluster::start();
    let (mut admin, mut app) = with_trap(&cluster, "within");
    call(
        &mut app,
        "CREATE TABLE w (id int NOT NULL, v text); CREATE UNIQUE INDEX i ON w (id) WHERE trap(1) = 1; INSERT INTO w VALUES (1, 'a')",
    );
    call(&mut admin, "SELECT lead_audit.enable('w')");
    for (off, on) in [
        ("DISABLE TRIGGER ALL", "ENABLE TRIGGER ALL"),
        ("DISABLE TRIGGER USER", "ENABLE TRIGGER USER"),
        (r#"DISABLE TRIGGER "00_lead_audit_row""#, r#"ENABLE TRIGGER "00_lead_audit_row""#),
        (r#"ENABLE REPLICA TRIGGER "00_lead_audit_row""#, r#"ENABLE TRIGGER "00_lead_audit_row""#),
        (
            r#"ENABLE REPLICA TRIGGER "00_lead_audit_row""#,
            r#"ENABLE ALWAYS TRIGGER "00_lead_audit_row""#,
        ),
    ] {
        let command = format!("ALTER TABLE w {off}, REPLICA IDENTITY USING INDEX i, {on}");
        arm(&mut app, "UPDATE w SET v = 'HACKED'");
        assert_eq!(sqlstate(&mut cluster.session("app", "within"), &command), "42501", "{command}");
        // If a superuser disables the audit triggers, an entry records the ALTER TABLE.
        let before = operations(&mut admin, "w");
        call(&mut cluster.examined("within"), &command);
        assert_eq!(operations(&mut admin, "w"), format!("{before} DDL").trim(), "{command}");
        call(&mut app, "DELETE FROM armed; ALTER TABLE w REPLICA IDENTITY DEFAULT");
    }
    assert_all_on(&mut admin);
}

/// The DDL guard creates triggers with the rights of the extension's owner, and each CREATE TRIGGER
/// can fire an event trigger of another role. While the DDL guard executes a command, an event
/// trigger must have the same rights as during the user's own command. The function of the event
/// trigger runs as the user, or as the function's owner if the function is SECURITY DEFINER.
#[test]
fn event_triggers_of_others_keep_their_rights() {
    let cluster = Cluster::start();
    let mut admin = app_database(&cluster, "event_triggers");
    let mut app = cluster.session("app", "event_triggers");
    call(
        &mut admin,
        "CREATE SCHEMA held; CREATE TABLE held.seen (tag text, role name);
         CREATE TABLE seen (tag text, role name); GRANT INSERT ON seen TO app;
         CREATE FUNCTION held.as_owner() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS
           $$BEGIN INSERT INTO held.seen VALUES (tg_tag, current_user); END$$;
         CREATE FUNCTION as_user() RETURNS event_trigger LANGUAGE plpgsql AS
           $$BEGIN INSERT INTO public.seen VALUES (tg_tag, current_user); END$$;
         CREATE ROLE other; CREATE TABLE others (tag text, role name); GRANT INSERT ON others TO other;
         CREATE FUNCTION as_other() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS
           $$BEGIN INSERT INTO others VALUES (tg_tag, current_user); PERFORM set_config('work_mem', '1MB', false); END$$;
         ALTER FUNCTION as_other() OWNER TO other;
         GRANT CREATE ON SCHEMA public TO app;
         CREATE EVENT TRIGGER as_other ON ddl_command_end EXECUTE FUNCTION as_other();
         CREATE EVENT TRIGGER as_owner ON ddl_command_end EXECUTE FUNCTION held.as_owner();
         CREATE EVENT TRIGGER as_user ON ddl_command_end EXECUTE FUNCTION as_user()",
    );
    call(&mut app, "CREATE TABLE child () INHERITS (leads)");
    assert_all_on(&mut admin);
    for (table, role) in [("held.seen", "postgres"), ("others", "other"), ("seen", "app")] {
        let tags: String = value(
            &mut admin,
            &format!("SELECT string_agg(DISTINCT tag || ' ' || role, ', ') FROM {table}"),
        );
        for tag in ["CREATE TABLE", "CREATE TRIGGER"] {
            assert!(tags.contains(&format!("{tag} {role}")), "{table}: {tags}");
        }
        assert_eq!(tags.matches(role).count(), tags.split(", ").count(), "{table}: {tags}");
    }
}
