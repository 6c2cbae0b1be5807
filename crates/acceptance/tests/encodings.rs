//! The encoding of the database must be UTF8. The client can use any encoding.

use acceptance::{Cluster, app_database, assert_intact, call, try_call, value};

#[test]
fn a_database_in_another_encoding_is_refused() {
    let cluster = Cluster::start();
    for encoding in ["LATIN1", "SQL_ASCII", "EUC_JP"] {
        let name = encoding.to_lowercase();
        call(
            &mut cluster.admin("postgres"),
            &format!("CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"),
        );
        let mut admin = cluster.admin(&name);
        call(&mut admin, "CREATE TABLE leads (id int PRIMARY KEY, note text)");
        let refused = try_call(&mut admin, "CREATE EXTENSION lead_audit");
        assert_eq!(
            refused,
            Err(format!(
                "0A000: lead_audit needs a database with the encoding UTF8 (The encoding of this database is {encoding}.)"
            ))
        );
        // The CREATE EXTENSION that failed must leave nothing behind, and must not damage the
        // table.
        assert_eq!(
            value::<i64>(
                &mut admin,
                "SELECT count(*) FROM pg_namespace WHERE nspname = 'lead_audit'"
            ),
            0
        );
        call(
            &mut admin,
            "INSERT INTO leads VALUES (1, chr(126)); UPDATE leads SET note = 'x'; DROP TABLE leads",
        );
        assert_eq!(admin.warnings(), [""; 0]);
    }
}

#[test]
fn a_client_in_another_encoding_works() {
    let cluster = Cluster::start();
    let mut admin = app_database(&cluster, "utf8");
    let file = cluster.directory().join("latin1.sql");
    // In LATIN1, the bytes \xe9 and \xfc are é and ü.
    std::fs::write(&file, b"SET lead_audit.user_id = 'Ren\xe9'; INSERT INTO leads (id, company_name) VALUES ('1', 'M\xfcller');")
        .expect("a file");
    let file = file.to_str().expect("UTF-8").to_owned();
    let psql = cluster
        .client_program("psql")
        .env("PGCLIENTENCODING", "LATIN1")
        .args(["-Xq", "-v", "ON_ERROR_STOP=1", "-d", "utf8", "-U", "app", "-f", &file])
        .output();
    let psql = psql.expect("psql starts");
    assert!(psql.status.success() && psql.stderr.is_empty(), "{psql:?}");
    let entry: String = value(
        &mut admin,
        "SELECT concat_ws(' ', user_id, new_values->>'company_name') FROM lead_audit.log",
    );
    assert_eq!(entry, "René Müller");
    assert_intact(&mut admin);

    // The encoding of the next client, LATIN1, does not contain the characters of this value, so
    // the server cannot send the value to the client. The entry must contain the value
    // nevertheless.
    call(&mut cluster.session("app", "utf8"), "UPDATE leads SET company_name = '日本 😀'");
    let read = |query: &str| {
        let psql = cluster
            .client_program("psql")
            .env("PGCLIENTENCODING", "LATIN1")
            .args(["-XqAt", "-d", "utf8", "-c", query])
            .output();
        psql.expect("psql starts")
    };
    let refused = read("SELECT new_values FROM lead_audit.log");
    assert!(
        String::from_utf8_lossy(&refused.stderr)
            .contains("has no equivalent in encoding \"LATIN1\""),
        "{refused:?}"
    );
    let verified = read("SELECT count(*) FROM lead_audit.verify()");
    assert_eq!(String::from_utf8_lossy(&verified.stdout), "0\n");
    assert_eq!(
        value::<String>(
            &mut admin,
            "SELECT new_values->>'company_name' FROM lead_audit.log ORDER BY id DESC LIMIT 1"
        ),
        "日本 😀"
    );
}
