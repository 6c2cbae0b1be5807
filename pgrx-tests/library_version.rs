//! Tests the library with SQL objects of a later version: the library's functions raise an error
//! and do not use the objects. With SQL objects of an earlier version the library works.
//! crates/acceptance/tests/upgrade.rs tests the library with SQL objects of earlier versions.

#[pgrx::pg_schema]
mod tests {
    use crate::pgrx_tests::helpers::*;
    use pgrx::prelude::*;

    /// The install scripts of all released versions.
    const RELEASED: [&str; 1] = [include_str!("../sql/released/lead_audit--1.0.sql")];
    const REFUSAL: &str = "cannot work with SQL objects of version 999.0";

    fn objects_are_of(version: &str) {
        run(&format!(
            "UPDATE pg_catalog.pg_extension SET extversion = '{version}' WHERE extname = 'lead_audit'"
        ));
    }

    /// The library must have every C function that the SQL objects of a released version name. As
    /// soon as a new library is installed, new sessions use it with the SQL objects of the older
    /// version. A dump also contains triggers that call `capture()` and `capture_truncate()`.
    #[pg_test]
    fn library_has_every_symbol_of_released_objects() {
        begin();
        let library =
            one("SELECT probin FROM pg_proc WHERE oid = 'lead_audit.capture()'::regprocedure");
        for script in RELEASED {
            let symbols: Vec<&str> = script
                .split("AS 'MODULE_PATHNAME', '")
                .skip(1)
                .filter_map(|rest| rest.split('\'').next())
                .collect();
            assert!(symbols.len() > 20, "{symbols:?}");
            for symbol in symbols {
                // CREATE FUNCTION fails if the library lacks the function's symbol.
                let create = format!(
                    "CREATE FUNCTION pg_temp.f() RETURNS void LANGUAGE c AS '{library}', '{symbol}'"
                );
                assert_eq!(
                    failure(&format!("{create}; DROP FUNCTION pg_temp.f()")),
                    "no error",
                    "{symbol}"
                );
            }
        }
        let create = format!(
            "CREATE FUNCTION pg_temp.f() RETURNS void LANGUAGE c AS '{library}', 'no_such_symbol'"
        );
        assert_fails(&create, "42883", "no_such_symbol");
    }

    #[pg_test]
    fn later_objects_are_not_read() {
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
            one("SELECT state || ': ' || reason FROM lead_audit.status() WHERE part = 'recording'")
                .replace(char::is_numeric, ""),
            "off: the library lead_audit . cannot work with SQL objects of version ."
        );
        objects_are_of("1.0");
        assert_intact();
        assert_eq!(
            one(
                "SELECT concat_ws(' | ', state, reason, remedy) FROM lead_audit.status() WHERE part = 'recording'"
            ),
            "on | by a library that is newer than the SQL objects of version 1.0 | ALTER EXTENSION lead_audit UPDATE"
        );
    }

    #[pg_test]
    fn writes_are_recorded_with_objects_of_a_later_minor_version() {
        begin_with_leads();
        let major = env!("CARGO_PKG_VERSION_MAJOR");
        objects_are_of(&format!("{major}.999"));
        assert_eq!(
            warnings(|| run("INSERT INTO leads (id) VALUES ('1'); TRUNCATE leads")),
            [""; 0]
        );
        for call in [
            "SELECT * FROM lead_audit.verify()",
            "SELECT lead_audit.enable('leads')",
            "SELECT lead_audit.disable('leads')",
        ] {
            let outcome = failure(call);
            assert!(
                outcome.contains("55000")
                    && outcome.contains(&format!("objects of version {major}.999")),
                "{call}: {outcome}"
            );
        }
        objects_are_of(&format!("{major}.0"));
        assert_eq!(
            rows("SELECT operation FROM lead_audit.log ORDER BY id"),
            ["INSERT", "TRUNCATE"]
        );
        assert_intact();
    }

    #[pg_test]
    fn writes_continue_without_entries_and_warn() {
        begin_with_leads();
        objects_are_of("999.0");
        let counted = not_written();
        let said = warnings(|| run("INSERT INTO leads (id) VALUES ('1')"));
        assert!(said.len() == 1 && said[0].contains(REFUSAL), "{said:?}");
        assert_eq!(not_written(), counted + 1);
        assert_eq!(rows("SELECT id FROM leads"), ["1"]);
        let outcome =
            failure("SET LOCAL lead_audit.on_error = abort; INSERT INTO leads (id) VALUES ('2')");
        assert!(outcome.contains(REFUSAL), "{outcome}");
        assert_eq!(rows("SELECT id FROM leads"), ["1"]);
        // With SQL objects of a version that the library knows, writes have entries again.
        objects_are_of("1.0");
        run("INSERT INTO leads (id) VALUES ('3')");
        assert_eq!(log("row_key"), [r#"{"id": "3"}"#]);
    }
}
