//! Tests the columns of an entry that contain its context and the caller as the database sees it.
//! Like all settings of PostgreSQL, the settings of the context apply to a session, a transaction
//! or a block. If a setting of the context is empty, the entry has NULL in the column of this
//! setting. SET refuses an invalid value of a setting of the context.

#[pgrx::pg_schema]
mod tests {
    use crate::pgrx_tests::helpers::*;
    use pgrx::prelude::*;

    const CONTEXT: &str = "user_id, user_ip, user_agent, request_id";

    #[pg_test]
    fn set_for_session_and_transaction() {
        begin_with_leads();
        run("INSERT INTO leads (id) VALUES ('a');
             SET lead_audit.user_id = 'u-17'; SET lead_audit.user_ip = '203.0.113.7';
             SET lead_audit.user_agent = 'Mozilla/5.0 \"é\"';
             SET lead_audit.request_id = 'r-1'; INSERT INTO leads (id) VALUES ('b');
             SET LOCAL lead_audit.user_id = 'u-18'; SELECT set_config('lead_audit.request_id', 'r-2', true);
             UPDATE leads SET email = 'x' WHERE id = 'b';
             RESET lead_audit.user_id; RESET lead_audit.user_ip; TRUNCATE leads");
        assert_eq!(
            log(CONTEXT),
            [
                "NULL | NULL | NULL | NULL",
                "u-17 | 203.0.113.7 | Mozilla/5.0 \"é\" | r-1",
                "u-18 | 203.0.113.7 | Mozilla/5.0 \"é\" | r-2",
                "NULL | NULL | Mozilla/5.0 \"é\" | r-2"
            ]
        );
        assert_intact();
    }

    #[pg_test]
    fn empty_is_null() {
        begin_with_leads();
        run("SET LOCAL lead_audit.user_id = ''; SET LOCAL lead_audit.user_ip = ''; SET LOCAL lead_audit.user_agent = '';
             SET LOCAL lead_audit.request_id = ''; SET LOCAL application_name = ''; INSERT INTO leads (id) VALUES ('a')");
        assert_eq!(
            log("user_id, user_ip, user_agent, request_id, application_name"),
            ["NULL | NULL | NULL | NULL | NULL"]
        );
        run("SET LOCAL lead_audit.user_id = ' '; INSERT INTO leads (id) VALUES ('b')");
        assert_eq!(log("user_id"), ["NULL", " "]);
    }

    #[pg_test]
    fn set_in_a_block_ends_with_its_rollback() {
        begin_with_leads();
        run("SET LOCAL lead_audit.user_id = 'outer';
             DO $$ BEGIN
               BEGIN SET LOCAL lead_audit.user_id = 'inner'; INSERT INTO leads (id) VALUES ('gone'); RAISE 'undo';
               EXCEPTION WHEN others THEN NULL; END;
               INSERT INTO leads (id) VALUES ('a');
             END $$;
             CREATE FUNCTION put(text) RETURNS void LANGUAGE sql SET lead_audit.user_id = 'of the function' AS 'INSERT INTO leads (id) VALUES ($1)';
             SELECT put('b'); INSERT INTO leads (id) VALUES ('c')");
        assert_eq!(
            log("row_key->>'id', user_id"),
            ["a | outer", "b | of the function", "c | outer"]
        );
    }

    #[pg_test]
    fn changed_within_one_statement() {
        begin_with_leads();
        run("CREATE FUNCTION as_user() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               PERFORM set_config('lead_audit.user_id', 'user of ' || NEW.id, true); RETURN NULL; END $$;
             CREATE TRIGGER zz AFTER INSERT ON leads FOR EACH ROW EXECUTE FUNCTION as_user();
             INSERT INTO leads (id) VALUES ('a'), ('b'), ('c')");
        assert_eq!(log("row_key->>'id', user_id"), ["a | NULL", "b | user of a", "c | user of b"]);
    }

    #[pg_test]
    fn limits() {
        begin_with_leads();
        for (setting, limit) in [("user_id", 255), ("request_id", 255), ("user_agent", 500)] {
            let longest = "é".repeat(limit);
            assert_eq!(
                failure(&format!("SET lead_audit.{setting} = '{longest}'")),
                "no error",
                "{setting}"
            );
            assert_fails(
                &format!("SET lead_audit.{setting} = '{longest}x'"),
                "22023",
                &format!("lead_audit.{setting}"),
            );
            run(&format!("SET lead_audit.{setting} = '{longest}'"));
        }
        run("INSERT INTO leads (id) VALUES ('a')");
        assert_eq!(
            log("length(user_id), length(request_id), length(user_agent)"),
            ["255 | 255 | 500"]
        );
        assert_intact();
    }

    #[pg_test]
    fn addresses() {
        begin_with_leads();
        run("SET LOCAL lead_audit.user_ip = '198.51.100.1'");
        for bad in [
            "10.0.0.256",
            "localhost",
            "10.0.0.0/8",
            "1.2.3.4:80",
            "fe80::1%eth0",
            " ::1",
            "1.2.3.4, 5.6.7.8",
            "'; DROP TABLE leads",
        ] {
            assert_fails(
                &format!("SET lead_audit.user_ip = {}", literal(bad)),
                "22023",
                "lead_audit.user_ip",
            );
            assert_fails(
                &format!("SELECT set_config('lead_audit.user_ip', {}, true)", literal(bad)),
                "22023",
                "lead_audit.user_ip",
            );
        }
        run(
            "INSERT INTO leads (id) VALUES ('kept'); SET LOCAL lead_audit.user_ip = '2001:db8::17';
                 INSERT INTO leads (id) VALUES ('six')",
        );
        assert_eq!(log("user_ip"), ["198.51.100.1", "2001:db8::17"]);
    }

    #[pg_test]
    fn misspelt_setting_is_an_error() {
        begin();
        for name in ["userid", "user_Id2", "enable", "on_errors", "\"User\""] {
            assert_fails(&format!("SET lead_audit.{name} = 'x'"), "42602", "lead_audit");
        }
        assert_eq!(failure("SET lead_audit.USER_ID = 'x'"), "no error", "settings have no case");
    }

    #[pg_test]
    fn any_role_can_set_its_user() {
        begin_with_leads();
        run("CREATE ROLE clerk; GRANT ALL ON leads TO clerk");
        run_as(
            "clerk",
            "SET LOCAL lead_audit.user_id = 'mine'; INSERT INTO leads (id) VALUES ('a')",
        );
        assert_eq!(
            log("user_id, db_current_user, db_session_user = session_user"),
            ["mine | clerk | true"]
        );
    }

    #[pg_test]
    fn current_user_of_the_statement() {
        begin();
        // The default of the column `who` is current_user, so each row of `t` shows the role that
        // wrote it.
        run("CREATE ROLE clerk; CREATE ROLE boss;
             CREATE TABLE t (id int PRIMARY KEY, who name DEFAULT current_user, login name DEFAULT session_user);
             GRANT ALL ON t TO clerk, boss; SELECT lead_audit.enable('t');
             CREATE FUNCTION put_as_owner(int) RETURNS void LANGUAGE sql SECURITY DEFINER AS 'INSERT INTO t VALUES ($1)';
             CREATE FUNCTION put(int) RETURNS void LANGUAGE sql AS 'INSERT INTO t VALUES ($1)';
             ALTER FUNCTION put_as_owner OWNER TO boss;
             INSERT INTO t VALUES (1)");
        run_as(
            "clerk",
            "INSERT INTO t VALUES (2); SELECT put(3); SELECT put_as_owner(4); INSERT INTO t VALUES (5)",
        );
        run("SET LOCAL SESSION AUTHORIZATION clerk; INSERT INTO t VALUES (6); SELECT put_as_owner(7);
                 RESET SESSION AUTHORIZATION; INSERT INTO t VALUES (8)");
        assert_eq!(
            log(
                "row_key->'id', db_current_user = new_values->>'who', db_session_user = new_values->>'login'"
            ),
            [
                "1 | true | true",
                "2 | true | true",
                "3 | true | true",
                "4 | true | true",
                "5 | true | true",
                "6 | true | true",
                "7 | true | true",
                "8 | true | true"
            ]
        );
        assert_eq!(
            rows(
                "SELECT db_current_user FROM lead_audit.log WHERE row_key->>'id' IN ('2', '3', '4', '5', '6', '7')
                 ORDER BY id"
            ),
            ["clerk", "clerk", "boss", "clerk", "clerk", "boss"]
        );
        assert_eq!(
            rows("SELECT db_session_user FROM lead_audit.log WHERE row_key->>'id' IN ('6', '7')"),
            ["clerk", "clerk"]
        );
        assert_intact();
    }

    #[pg_test]
    fn cascade_has_the_context_of_the_writer() {
        begin();
        run("CREATE ROLE clerk; CREATE TABLE parent (id int PRIMARY KEY);
             CREATE TABLE child (id int REFERENCES parent ON DELETE CASCADE);
             GRANT ALL ON parent TO clerk; SELECT lead_audit.enable('parent'), lead_audit.enable('child');
             INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1)");
        run_as("clerk", "SET LOCAL lead_audit.user_id = 'u'; DELETE FROM parent");
        // Since PostgreSQL 18, an AFTER trigger runs as the role that made the change. PostgreSQL
        // runs the DELETE of the cascade as the owner of the table `child`.
        let owner =
            if cfg!(feature = "pg18") { one("SELECT current_user") } else { "clerk".to_owned() };
        assert_eq!(
            rows(
                "SELECT table_name, db_current_user, user_id FROM lead_audit.log WHERE operation = 'DELETE' ORDER BY id"
            ),
            ["parent | clerk | u".to_owned(), format!("child | {owner} | u")]
        );
    }

    #[pg_test]
    fn follows_a_renamed_role_and_application() {
        begin_with_leads();
        run("CREATE ROLE clerk; GRANT ALL ON leads TO clerk");
        run_as("clerk", "SET LOCAL application_name = 'one'; INSERT INTO leads (id) VALUES ('a')");
        run("ALTER ROLE clerk RENAME TO secretary");
        run_as(
            "secretary",
            "SET LOCAL application_name = 'two'; INSERT INTO leads (id) VALUES ('b')",
        );
        assert_eq!(log("db_current_user, application_name"), ["clerk | one", "secretary | two"]);
    }

    #[pg_test]
    fn entry_of_disable_names_its_caller() {
        begin_with_leads();
        run("CREATE ROLE auditor; GRANT USAGE ON SCHEMA lead_audit TO auditor;
             GRANT EXECUTE ON FUNCTION lead_audit.disable(regclass), lead_audit.enable(regclass, name, boolean) TO auditor;
             INSERT INTO leads (id) VALUES ('a'); SELECT lead_audit.disable('leads')");
        run_as(
            "auditor",
            "SET LOCAL lead_audit.user_id = 'ann'; SELECT lead_audit.enable('public.leads', baseline => true);
                 SELECT lead_audit.disable('public.leads')",
        );
        assert_eq!(
            log("operation, db_current_user = current_user, db_current_user, user_id").split_off(1),
            [
                one("SELECT format('DDL | true | %s | NULL', current_user)"),
                "DDL | false | auditor | ann".to_owned(),
                "SNAPSHOT | false | auditor | ann".to_owned(),
                "DDL | false | auditor | ann".to_owned()
            ]
        );
        assert_intact();
    }
}
