//! SQL objects of a later version than the library: it says so and does not touch them. With those of an earlier version it works;
//! what it has to do there, crates/acceptance/tests/upgrade.rs tests with the real ones.

#[pgrx::pg_schema]
mod tests {
    use crate::pgrx_tests::trail::*;
    use pgrx::prelude::*;

    const REFUSAL: &str = "cannot work with SQL objects of version 999.0";

    fn objects_are_of(version: &str) {
        run(&format!("UPDATE pg_catalog.pg_extension SET extversion = '{version}' WHERE extname = 'lead_audit'"));
    }

    #[pg_test]
    fn versions_later_objects_are_not_read() {
        begin_with_leads();
        run("INSERT INTO leads (id) VALUES ('before')");
        objects_are_of("999.0");
        for call in [
            "SELECT * FROM lead_audit.verify()",
            "SELECT lead_audit.verify_entry(1)",
            "SELECT lead_audit.seal()",
            "SELECT lead_audit.inclusion_proof(1)",
            "SELECT lead_audit.consistency_proof(1, 2)",
            "SELECT lead_audit.latest_checkpoint()",
            "SELECT lead_audit.enable('leads')",
            "SELECT lead_audit.enable('leads', replica => true)",
            "SELECT lead_audit.disable('leads')",
        ] {
            let outcome = failure(call);
            assert!(outcome.contains("55000") && outcome.contains(REFUSAL), "{call}: {outcome}");
        }
        assert_eq!(
            one("SELECT state || ': ' || reason FROM lead_audit.status() WHERE part = 'recording'").replace(char::is_numeric, ""),
            "off: the library lead_audit . cannot work with SQL objects of version ."
        );
        objects_are_of("0.1");
        assert_intact();
        assert_eq!(
            one("SELECT concat_ws(' | ', state, reason, remedy) FROM lead_audit.status() WHERE part = 'recording'"),
            "on | by a library that is newer than the SQL objects of version 0.1 | ALTER EXTENSION lead_audit UPDATE"
        );
    }

    #[pg_test]
    fn versions_writes_are_recorded_with_objects_of_a_later_minor_version() {
        begin_with_leads();
        let major = env!("CARGO_PKG_VERSION_MAJOR");
        objects_are_of(&format!("{major}.999"));
        assert_eq!(warnings(|| run("INSERT INTO leads (id) VALUES ('1'); TRUNCATE leads")), [""; 0]);
        for call in
            ["SELECT * FROM lead_audit.verify()", "SELECT lead_audit.enable('leads')", "SELECT lead_audit.disable('leads')"]
        {
            let outcome = failure(call);
            assert!(
                outcome.contains("55000") && outcome.contains(&format!("objects of version {major}.999")),
                "{call}: {outcome}"
            );
        }
        objects_are_of(&format!("{major}.0"));
        assert_eq!(rows("SELECT operation FROM lead_audit.log ORDER BY id"), ["INSERT", "TRUNCATE"]);
        assert_intact();
    }

    #[pg_test]
    fn versions_writes_go_on_without_entries_and_say_why() {
        begin_with_leads();
        objects_are_of("999.0");
        let counted = number("SELECT entries_not_written FROM lead_audit.stats");
        let said = warnings(|| run("INSERT INTO leads (id) VALUES ('1')"));
        assert!(said.len() == 1 && said[0].contains(REFUSAL), "{said:?}");
        assert_eq!(number("SELECT entries_not_written FROM lead_audit.stats"), counted + 1);
        assert_eq!(rows("SELECT id FROM leads"), ["1"]);
        let outcome = failure("SET LOCAL lead_audit.on_error = abort; INSERT INTO leads (id) VALUES ('2')");
        assert!(outcome.contains(REFUSAL), "{outcome}");
        assert_eq!(rows("SELECT id FROM leads"), ["1"]);
        // Nothing stays refused.
        objects_are_of("0.1");
        run("INSERT INTO leads (id) VALUES ('3')");
        assert_eq!(log("row_key"), [r#"{"id": "3"}"#]);
    }
}
