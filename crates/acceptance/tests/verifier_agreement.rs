//! Tests difficult cases that all verifiers must report alike. The verifiers are
//! lead_audit.verify(), the program lead-audit on the database, lead-audit on an export, and the
//! Python verifier. Each verifier knows the log's verifier key.

use acceptance::{
    Answer, Cluster, LeadAudit, Session, add_leads, app_database, assert_intact, call,
    python_verifier, seal, text_of, value,
};
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::process::Command;

const ORIGIN: &str = "example.com/leads";

struct Signed {
    cluster: Cluster,
    admin: Session,
    tool: LeadAudit,
    directory: tempfile::TempDir,
    key: String,
}

impl Signed {
    /// Creates a signed log of 40 leaves in two checkpoints. Disables the triggers that protect
    /// the log.
    fn start() -> Self {
        let cluster = Cluster::start();
        let tool = LeadAudit::new();
        let admin = app_database(&cluster, "cases");
        let secret = cluster.directory().join("key");
        let key =
            tool.expect(0, &["keygen", "--name", ORIGIN, "-o", text_of(&secret)]).trim().to_owned();
        cluster.give_to_server(&secret);
        let mut signed =
            Signed { cluster, admin, tool, directory: tempfile::tempdir().unwrap(), key };
        let setting = format!(
            "ALTER DATABASE cases SET lead_audit.signing_key_file = '{}'",
            secret.display()
        );
        call(&mut signed.admin, &setting);
        signed.grow(1, 20);
        signed.grow(21, 40);
        call(
            &mut signed.admin,
            "DO $$ DECLARE t text; BEGIN
               FOREACH t IN ARRAY ARRAY['entry', 'checkpoint', 'leaf_range', 'tree_tile', 'tree_edge', 'tree', 'open_gap'] LOOP
                 EXECUTE format('ALTER TABLE lead_audit.%I DISABLE TRIGGER ALL', t); END LOOP; END $$",
        );
        signed
    }

    fn grow(&mut self, from: u32, to: u32) {
        add_leads(&mut self.cluster.session("app", "cases"), from, to);
        seal(&mut self.admin);
    }

    fn url(&self) -> String {
        self.cluster.connection_string("postgres", "cases")
    }

    fn export(&self) -> PathBuf {
        let path = self.directory.path().join("export.ndjson");
        _ = fs::remove_file(&path);
        self.tool.expect(0, &["-q", "export", "--database", &self.url(), "-o", text_of(&path)]);
        path
    }

    /// Returns the ids and kinds of the faults that lead_audit.verify() finds, the exit status of
    /// the other verifiers, and the whole output of the other verifiers. The program lead-audit and
    /// the Python verifier must end with the same exit status.
    #[track_caller]
    fn answers(&mut self) -> (Vec<(Option<i64>, String)>, i32, String) {
        let rows = self.admin.query("SELECT id, fault FROM lead_audit.verify()", &[]).unwrap();
        let server = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let (url, export) = (self.url(), self.export());
        let database = self.tool.run(&["verify", "--database", &url, "--key", &self.key]);
        let offline = self.tool.run(&["verify", text_of(&export), "--key", &self.key]);
        let python = python(&["--key", &self.key, text_of(&export)]);
        let said =
            format!("{}{}{}{}", database.output, offline.output, python.output, python.errors);
        assert_eq!((database.status, python.status), (offline.status, offline.status), "{said}");
        (server, offline.status, said)
    }
}

fn python(arguments: &[&str]) -> Answer {
    Answer::of(
        Command::new("python3")
            .arg(python_verifier())
            .arg("export")
            .args(arguments)
            .output()
            .unwrap(),
    )
}

#[test]
fn the_newest_note_of_a_signed_log_under_another_name() {
    let mut log = Signed::start();
    let (server, status, said) = log.answers();
    assert_eq!((server.len(), status), (0, 0), "{said}");
    call(
        &mut log.admin,
        "UPDATE lead_audit.checkpoint SET note = E'evil\\n' || tree_size || E'\\n' || encode(root, 'base64') || E'\\n' WHERE tree_size = 40",
    );
    let (server, status, said) = log.answers();
    assert!(server.iter().any(|(_, fault)| fault == "signature"), "{server:?}");
    assert_eq!(status, 1, "{said}");
    // The test also verifies a proof and runs a witness with the changed note.
    let (proof, entry) = (log.directory.path().join("proof"), log.directory.path().join("entry"));
    let url = log.url();
    log.tool.expect(
        0,
        &[
            "prove",
            "--database",
            &url,
            "--id",
            "3",
            "-o",
            text_of(&proof),
            "--entry",
            text_of(&entry),
        ],
    );
    let key = log.key.clone();
    log.tool
        .expect(1, &["verify-proof", text_of(&proof), "--entry", text_of(&entry), "--key", &key]);
    let state = log.directory.path().join("state");
    log.tool.expect(
        1,
        &["witness", "--once", "--database", &url, "--state", text_of(&state), "--key", &key],
    );
}

#[test]
fn a_value_in_an_unknown_column() {
    let mut log = Signed::start();
    call(
        &mut log.admin,
        "ALTER TABLE lead_audit.entry ADD extra text; UPDATE lead_audit.entry SET extra = 'x' WHERE id IN (7, 39)",
    );
    log.grow(41, 42);
    let (server, status, said) = log.answers();
    let unknown = |id| (Some(id), "unknown_column".to_owned());
    assert_eq!(server, [unknown(7), unknown(39)]);
    assert_eq!(status, 2, "{said}");
    assert!(
        said.contains("not judged: entry 7:") && said.contains("entry 39 cannot be judged"),
        "{said}"
    );
    call(&mut log.admin, "UPDATE lead_audit.entry SET extra = NULL");
    assert_eq!(log.answers().1, 0);
}

#[test]
fn an_entry_ahead_of_the_sequence() {
    let mut log = Signed::start();
    call(
        &mut log.admin,
        "INSERT INTO lead_audit.entry SELECT (jsonb_populate_record(e, jsonb_build_object('id', 45))).* FROM lead_audit.entry e WHERE id = 3",
    );
    let before = log.answers();
    assert_eq!((before.0.len(), before.1), (1, 1), "{before:?}");
    assert!(
        before.2.contains("inserted: entry 45") && before.2.contains("entry 45 was inserted"),
        "{}",
        before.2
    );
    // New transactions write entries until the ids of the entries pass the id of the forged entry.
    // No new entry may be lost.
    for lead in 41..44 {
        add_leads(&mut log.cluster.session("app", "cases"), lead, lead);
    }
    log.grow(44, 60);
    let leads: i64 = value(
        &mut log.admin,
        "SELECT count(DISTINCT row_key::text) FROM lead_audit.entry WHERE operation = 'INSERT' AND id <> 45",
    );
    assert_eq!(leads, 60);
    assert_eq!(value::<i64>(&mut log.admin, "SELECT entries_not_written FROM lead_audit.stats"), 0);
    let after = log.answers();
    assert_eq!(after.0.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [Some(45)], "{after:?}");
    assert_eq!(after.1, 1);
    assert!(
        after.2.contains("inserted: entry 45") && after.2.contains("entry 45 was inserted"),
        "{}",
        after.2
    );
    assert_eq!(value::<i64>(&mut log.admin, "SELECT tree_size FROM lead_audit.tree"), 60);
    call(&mut log.admin, "DELETE FROM lead_audit.entry WHERE id = 45");
    assert_intact(&mut log.admin);
}

#[test]
fn values_nested_deeply_and_noncharacters() {
    let mut log = Signed::start();
    call(
        &mut log.admin,
        "CREATE TABLE deep (id int PRIMARY KEY, j json, t text); SELECT lead_audit.enable('deep');
         INSERT INTO deep VALUES (1, (repeat('[{\"a\":', 500) || '1' || repeat('}]', 500))::json, U&'\\+01FFFE\\+10FFFF\\FFFE')",
    );
    seal(&mut log.admin);
    let (server, status, said) = log.answers();
    assert_eq!((server.len(), status), (0, 0), "{said}");
    let verdict = acceptance::verify_with_python(&log.cluster, "cases");
    assert!(verdict.satisfied, "{:?}", verdict.faulty);
}

#[test]
fn exports_that_fail_or_are_empty() {
    let mut log = Signed::start();
    let url = log.url();
    let path = |name: &str| log.directory.path().join(name);
    // An export fails if the role lacks rights or if the database does not have the extension. A
    // failed export leaves no file behind, not even with --resume.
    call(&mut log.admin, "CREATE ROLE nobody_special LOGIN");
    let poor = log.cluster.connection_string("nobody_special", "cases");
    let plain = log.cluster.connection_string("postgres", "postgres");
    for database in [&poor, &plain] {
        for arguments in [&[][..], &["--resume"], &["--table", "leads"]] {
            let file = path("failed.ndjson");
            let answer = log.tool.run(
                &[&["export", "--database", database, "-o", text_of(&file)], arguments].concat(),
            );
            assert_eq!(answer.status, 2, "{answer:?}");
            assert!(!file.exists(), "{answer:?}");
        }
    }
    // Exports a selection that contains no entries.
    let nothing = path("nothing.ndjson");
    log.tool.expect(
        0,
        &["-q", "export", "--database", &url, "--from-id", "1000000", "-o", text_of(&nothing)],
    );
    log.tool.expect(2, &["verify", text_of(&nothing), "--key", &log.key]);
    assert_eq!(python(&["--key", &log.key, text_of(&nothing)]).status, 2);
    // Makes an export whose format version is unknown to the verifiers.
    let later = path("later.ndjson");
    let text = fs::read_to_string(&nothing).unwrap().replace("\"version\":1", "\"version\":2");
    fs::write(&later, text).unwrap();
    log.tool.expect(2, &["verify", text_of(&later), "--key", &log.key]);
    assert_eq!(python(&["--key", &log.key, text_of(&later)]).status, 2);
    // An entry can be unsealed in one part of an export and sealed in the next part. Verification
    // counts an entry once, even if two parts contain the entry.
    let parts = path("parts.ndjson");
    for leads in [(41, 45), (46, 47)] {
        add_leads(&mut log.cluster.session("app", "cases"), leads.0, leads.1);
        log.tool
            .expect(0, &["-q", "export", "--database", &url, "--resume", "-o", text_of(&parts)]);
        seal(&mut log.admin);
    }
    assert!(
        log.tool
            .expect(0, &["verify", text_of(&parts), "--key", &log.key])
            .contains("2 not sealed yet")
    );
    // `lead-audit prove` writes into a device, and does not replace the device by a file.
    log.tool.expect(
        0,
        &["prove", "--database", &url, "--id", "3", "-o", "/dev/null", "--entry", "/dev/null"],
    );
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
}
