//! PostgreSQL's own programs dump and restore databases. The restored database must contain the
//! entries of the dumped database, and the restore itself must create no entries. The restored
//! tables must be watched under their old watch ids.

use acceptance::populated_database::{self, Trail, assert_restored, assert_watched_as_before};
use acceptance::{
    Cluster, add_leads, app_database, assert_intact, assert_trail_gives_table, call, value,
};
use std::path::Path;

fn new_database(cluster: &Cluster, name: &str) {
    call(&mut cluster.admin("postgres"), &format!("CREATE DATABASE {name} TEMPLATE template0"));
}

/// Runs psql or pg_restore. The program must print no error and no warning.
fn restore(cluster: &Cluster, program: &str, arguments: &[&str]) {
    let output =
        cluster.client_program(program).args(arguments).output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?} failed:\n{said}");
    assert!(
        !said.contains("WARNING") && !said.contains("ERROR"),
        "{program} {arguments:?}:\n{said}"
    );
}

#[test]
fn a_restored_database_has_its_trail() {
    let cluster = Cluster::start();
    let before = populated_database::make(&cluster, "source");
    let file = |name: &str| cluster.directory().join(name).to_str().expect("UTF-8").to_owned();
    let (plain, custom, directory) =
        (file("plain.sql"), file("custom.dump"), file("directory.dump"));

    cluster.run("pg_dump", &["-d", "source", "-f", &plain]);
    let text = std::fs::read_to_string(&plain).expect("the dump can be read");
    assert!(
        !text.contains("lead_audit_internal"),
        "a dump names nothing that a later version could not have any more"
    );
    new_database(&cluster, "from_plain");
    restore(
        &cluster,
        "psql",
        &["-Xq", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-d", "from_plain", "-f", &plain],
    );
    assert_restored(&cluster, "from_plain", &before);

    cluster.run("pg_dump", &["-Fc", "-d", "source", "-f", &custom]);
    new_database(&cluster, "from_custom");
    restore(&cluster, "pg_restore", &["--exit-on-error", "-j", "4", "-d", "from_custom", &custom]);
    assert_restored(&cluster, "from_custom", &before);

    cluster.run("pg_dump", &["-Fd", "-j", "2", "-d", "source", "-f", &directory]);
    new_database(&cluster, "from_directory");
    restore(
        &cluster,
        "pg_restore",
        &["--exit-on-error", "--single-transaction", "-d", "from_directory", &directory],
    );
    assert_restored(&cluster, "from_directory", &before);

    // A restored database can be dumped again. The new dump can be restored into a server in which
    // the extension was never created.
    let other = Cluster::builder().preloaded().setting("lead_audit.seal_interval = 0").start();
    call(&mut other.admin("postgres"), "CREATE ROLE app LOGIN");
    let again = file("again.dump");
    let second = Trail::of(&mut cluster.admin("from_plain"));
    cluster.run("pg_dump", &["-Fc", "-d", "from_plain", "-f", &again]);
    new_database(&other, "second");
    restore(&other, "pg_restore", &["--exit-on-error", "-j", "2", "-d", "second", &again]);
    assert_eq!(Trail::of(&mut other.admin("second")), second);
    assert_watched_as_before(&other, "second");

    // A copy made by CREATE DATABASE … TEMPLATE must be as complete as a restored database.
    call(&mut cluster.admin("postgres"), "CREATE DATABASE copied TEMPLATE source");
    assert_restored(&cluster, "copied", &before);
}

#[test]
fn schema_and_data_are_restored_separately() {
    let cluster = Cluster::start();
    drop(populated_database::make(&cluster, "source"));
    let mut admin = cluster.admin("source");
    // A trigger of this table is disabled. The data dump below contains ALTER TABLE … ENABLE
    // TRIGGER ALL for each table, which would enable the disabled trigger. The test therefore drops
    // the table.
    call(&mut admin, "DROP TABLE \"switched off\"");
    let before = Trail::of(&mut admin);
    let file = |name: &str| cluster.directory().join(name).to_str().expect("UTF-8").to_owned();
    let (schema, data) = (file("schema.sql"), file("data.sql"));
    cluster.run("pg_dump", &["--schema-only", "-d", "source", "-f", &schema]);
    new_database(&cluster, "in_parts");
    restore(
        &cluster,
        "psql",
        &["-Xq", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-d", "in_parts", "-f", &schema],
    );
    let mut admin = cluster.admin("in_parts");
    let entries = "SELECT count(*) FROM lead_audit.entry";
    assert_eq!(
        value::<i64>(&mut admin, entries),
        0,
        "a schema has no entries, and its restore makes none"
    );
    assert_eq!(
        value::<i64>(
            &mut admin,
            "SELECT count(*) FROM lead_audit.watched WHERE relation = 'leads' AND row_trigger_on AND truncate_trigger_on"
        ),
        1,
        "the triggers came with the table"
    );

    // The manual of pg_dump recommends `--disable-triggers` for data-only dumps. With
    // `--disable-triggers`, the dump disables a table's triggers before the table's data, and
    // enables all triggers of the table after the data.
    cluster.run("pg_dump", &["--data-only", "--disable-triggers", "-d", "source", "-f", &data]);
    let arguments =
        ["-Xq", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-d", "in_parts", "-f", &data];
    let output = cluster.client_program("psql").args(arguments).output().expect("psql starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_restored(&cluster, "in_parts", &before);
    assert_eq!(said, "");
    assert_eq!(
        value::<i64>(
            &mut admin,
            "SELECT count(*) FROM lead_audit.audit_trigger WHERE is_on AND NOT is_current"
        ),
        0,
        "they also fire for the writes of a subscription"
    );
}

#[test]
fn an_empty_schema_is_watched_from_its_first_row() {
    let cluster = Cluster::start();
    drop(populated_database::make(&cluster, "source"));
    let schema = cluster.directory().join("schema.sql");
    let schema = schema.to_str().expect("UTF-8");
    cluster.run("pg_dump", &["--schema-only", "-d", "source", "-f", schema]);
    new_database(&cluster, "empty");
    restore(
        &cluster,
        "psql",
        &["-Xq", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-d", "empty", "-f", schema],
    );
    let mut app = cluster.session("app", "empty");
    add_leads(&mut app, 1, 10);
    assert_eq!(app.warnings(), [""; 0]);
    let mut admin = cluster.admin("empty");
    assert_eq!(value::<i64>(&mut admin, "SELECT count(*) FROM lead_audit.entry"), 10);
    assert_trail_gives_table(&mut admin, "leads");
    assert_intact(&mut admin);
}

#[test]
fn a_single_table_is_restored_beside_the_extension() {
    let cluster = Cluster::start();
    let before = populated_database::make(&cluster, "source");
    let identity: String = value(
        &mut cluster.admin("source"),
        "SELECT watch_id::text FROM lead_audit.watched WHERE relation = 'leads'",
    );
    let file = |name: &str| cluster.directory().join(name).to_str().expect("UTF-8").to_owned();
    let (whole, data) = (file("leads.sql"), file("data.sql"));
    cluster.run("pg_dump", &["-t", "leads", "-d", "source", "-f", &whole]);
    cluster.run("pg_dump", &["--data-only", "-t", "leads", "-d", "source", "-f", &data]);
    new_database(&cluster, "alone");
    let mut admin = cluster.admin("alone");
    call(&mut admin, "CREATE EXTENSION lead_audit");
    assert!(
        admin.notices().iter().any(|notice| notice.message().contains("leads")),
        "a NOTICE says that nothing is watched yet"
    );
    restore_file(&cluster, "alone", &whole);
    let entries = "SELECT count(*) FROM lead_audit.entry";
    assert_eq!(value::<i64>(&mut admin, entries), 0, "the restore is no entry");
    let rows: i64 = value(&mut admin, "SELECT count(*) FROM leads");
    let mut app = cluster.session("app", "alone");
    call(&mut app, "UPDATE leads SET source = 'elsewhere' WHERE created_by = 'user-1'");
    let updated: i64 = value(&mut admin, entries);
    assert_eq!(updated, 60);
    let watching = "SELECT concat_ws(' ', state, row_trigger_on, truncate_trigger_on, watch_id) FROM lead_audit.watched WHERE relation = 'leads'";
    assert_eq!(value::<String>(&mut admin, watching), format!("unregistered t t {identity}"));
    assert_eq!(
        value::<String>(&mut admin, "SELECT lead_audit.enable('leads', baseline => true)::text"),
        identity
    );
    assert_eq!(value::<String>(&mut admin, watching), format!("on t t {identity}"));
    assert_eq!(value::<i64>(&mut admin, entries), updated + rows);
    call(&mut app, "DELETE FROM leads WHERE created_by = 'user-1'");
    assert_eq!(value::<i64>(&mut admin, entries), updated + rows + 60);
    assert_intact(&mut admin);

    // If the table is already watched, loading its data is an ordinary write and has entries.
    let mut own = app_database(&cluster, "own_leads");
    restore_file(&cluster, "own_leads", &data);
    assert_eq!(
        value::<i64>(&mut own, "SELECT count(*) FROM lead_audit.entry WHERE operation = 'INSERT'"),
        rows
    );
    assert_trail_gives_table(&mut own, "leads");
    assert_intact(&mut own);
    assert_eq!(Trail::of(&mut cluster.admin("source")), before, "to be dumped changes nothing");
}

fn restore_file(cluster: &Cluster, database: &str, file: &str) {
    assert!(Path::new(file).exists());
    restore(
        cluster,
        "psql",
        &["-Xq", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-d", database, "-f", file],
    );
}
