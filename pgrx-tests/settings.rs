//! Tests the settings enabled, log_soft_deletes, log_unchanged, on_error and batch_memory. A change
//! of these settings takes effect with the next event. Only a superuser can change these settings.
//! Other roles can change them neither with SET nor through functions.

#[pgrx::pg_schema]
mod tests {
    use crate::pgrx_tests::helpers::*;
    use pgrx::prelude::*;

    #[pg_test]
    fn enabled() {
        begin_with_leads();
        run("INSERT INTO leads (id) VALUES ('a'); SET LOCAL lead_audit.enabled = off;
             INSERT INTO leads (id) VALUES ('b'); UPDATE leads SET email = 'x'; DELETE FROM leads WHERE id = 'a';
             TRUNCATE leads;
             COPY leads (id) FROM PROGRAM 'echo copied'; SET LOCAL lead_audit.enabled = on; DELETE FROM leads");
        assert_eq!(log("operation, row_key->>'id'"), ["INSERT | a", "DELETE | copied"]);
        assert_intact();
    }

    #[pg_test]
    fn log_soft_deletes() {
        begin_with_leads();
        run("INSERT INTO leads (id) VALUES ('a'), ('b'); SET LOCAL lead_audit.log_soft_deletes = off;
             UPDATE leads SET is_deleted = true WHERE id = 'a'; UPDATE leads SET is_deleted = false;
             UPDATE leads SET email = 'x' WHERE id = 'a';
             DELETE FROM leads WHERE id = 'b'; SET LOCAL lead_audit.log_soft_deletes = on; UPDATE leads SET is_deleted = true");
        assert_eq!(
            log("operation, row_key->>'id', soft_delete"),
            [
                "INSERT | a | NULL",
                "INSERT | b | NULL",
                "UPDATE | a | NULL",
                "DELETE | b | NULL",
                "UPDATE | a | deleted"
            ]
        );
    }

    #[pg_test]
    fn defaults() {
        begin();
        assert_eq!(
            rows(
                "SELECT name, boot_val, context FROM pg_settings WHERE name LIKE 'lead\\_audit.%'
                 ORDER BY name COLLATE \"C\""
            ),
            [
                "lead_audit.batch_memory | 1024 | superuser",
                "lead_audit.checkpoint_dir | NULL | superuser",
                "lead_audit.enabled | on | superuser",
                "lead_audit.log_parameters | off | superuser",
                "lead_audit.log_rollbacks | on | superuser",
                "lead_audit.log_soft_deletes | on | superuser",
                "lead_audit.log_statement_length | 2048 | superuser",
                "lead_audit.log_unchanged | off | superuser",
                "lead_audit.on_error | warn | superuser",
                "lead_audit.origin | NULL | superuser",
                "lead_audit.previous_signing_key_file | NULL | superuser",
                "lead_audit.request_id | NULL | user",
                "lead_audit.seal_interval | 1000 | sighup",
                "lead_audit.signing_key_file | NULL | superuser",
                "lead_audit.user_agent | NULL | user",
                "lead_audit.user_id | NULL | user",
                "lead_audit.user_ip | NULL | user"
            ]
        );
    }

    #[pg_test]
    fn invalid_values_are_refused() {
        begin();
        for (setting, value) in [
            ("on_error", "ignore"),
            ("on_error", ""),
            ("enabled", "perhaps"),
            ("batch_memory", "-1"),
            ("batch_memory", "2GB"),
        ] {
            assert_fails(&format!("SET lead_audit.{setting} = '{value}'"), "22023", setting);
        }
    }

    #[pg_test]
    fn only_superusers_change_them() {
        begin_with_leads();
        run(
            "CREATE ROLE clerk; ALTER TABLE leads OWNER TO clerk; GRANT CREATE ON SCHEMA public TO clerk",
        );
        for (setting, value) in [
            ("enabled", "off"),
            ("log_soft_deletes", "off"),
            ("log_unchanged", "on"),
            ("on_error", "abort"),
            ("batch_memory", "0"),
        ] {
            for statement in [
                format!("SET lead_audit.{setting} = '{value}'"),
                format!("SET LOCAL lead_audit.{setting} = '{value}'"),
                format!("SELECT set_config('lead_audit.{setting}', '{value}', true)"),
                format!("UPDATE pg_settings SET setting = '{value}' WHERE name = 'lead_audit.{setting}'"),
                format!("ALTER ROLE clerk SET lead_audit.{setting} = '{value}'"),
                format!(
                    "DO $$ BEGIN CREATE FUNCTION sly() RETURNS void LANGUAGE sql SET lead_audit.{setting} = '{value}'
                     AS 'UPDATE leads SET email = email'; PERFORM sly(); END $$"
                ),
            ] {
                assert_fails_as("clerk", &statement, "42501", "permission denied");
            }
            run(&format!("SET lead_audit.{setting} = '{value}'"));
            assert_fails_as(
                "clerk",
                &format!("RESET lead_audit.{setting}"),
                "42501",
                "permission denied",
            );
            run(&format!("RESET lead_audit.{setting}"));
        }
        run_as("clerk", "INSERT INTO leads (id) VALUES ('a'); UPDATE leads SET is_deleted = true");
        assert_eq!(log("operation, soft_delete"), ["INSERT | NULL", "UPDATE | deleted"]);
    }
}
