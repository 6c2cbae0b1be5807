//! Runs the `lead-audit` command against a real database. The command must find every export
//! intact: a whole export, an export in pieces, an interrupted export and a selection of entries.
//! Proofs must verify. The command must need no more rights than docs/privileges.md lists.

use acceptance::{
    Cluster, LeadAudit, Session, add_leads, app_database, call, python_verifier, seal, text_of,
    value,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const ORIGIN: &str = "example.com/leads";

/// A cluster with a signed audit trail, and an auditor's key, files and connection string.
struct Audited {
    cluster: Cluster,
    admin: Session,
    tool: LeadAudit,
    directory: TempDir,
    key: String,
    url: String,
}

impl Audited {
    fn new() -> Self {
        let cluster = Cluster::start();
        let tool = LeadAudit::new();
        let secret = cluster.directory().join("key");
        let key =
            tool.expect(0, &["keygen", "--name", ORIGIN, "-o", text_of(&secret)]).trim().to_owned();
        cluster.give_to_server(&secret);
        fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let mut admin = app_database(&cluster, "audited");
        call(
            &mut admin,
            &format!(
                "ALTER DATABASE audited SET lead_audit.signing_key_file = '{}'",
                secret.display()
            ),
        );
        drop(admin);
        let mut admin = cluster.admin("audited");
        let mut app = cluster.session("app", "audited");
        for (from, to) in [(1, 100), (101, 250), (251, 400)] {
            add_leads(&mut app, from, to);
            call(&mut app, "BEGIN; INSERT INTO leads (id) VALUES ('undone'); ROLLBACK");
            call(
                &mut app,
                &format!(
                    "UPDATE leads SET enrichment_status = 'COMPLETED' WHERE id = lpad(to_hex({from}), 32, '0')"
                ),
            );
            seal(&mut admin);
        }
        call(&mut app, "DELETE FROM leads WHERE created_by = 'user-9'");
        let url = cluster.connection_string("postgres", "audited");
        Audited { cluster, admin, tool, directory: tempfile::tempdir().unwrap(), key, url }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn export(&self, name: &str, more: &[&str]) -> PathBuf {
        let path = self.path(name);
        let arguments = [&["export", "--database", &self.url, "-o", text_of(&path)], more].concat();
        self.tool.expect(0, &arguments);
        path
    }

    #[track_caller]
    fn assert_intact(&self, files: &[&Path]) -> String {
        let files: Vec<&str> = files.iter().map(|path| text_of(path)).collect();
        let answer = self.tool.expect(0, &[&["verify", "--key", &self.key], &files[..]].concat());
        assert!(answer.contains("INTACT up to tree size"), "{answer}");
        answer
    }

    fn kept(&mut self, name: &str) -> PathBuf {
        let note: String = value(&mut self.admin, "SELECT lead_audit.latest_checkpoint()");
        let path = self.path(name);
        // The file ends with two newlines, as in the output of `psql -c`.
        fs::write(&path, note + "\n").unwrap();
        path
    }

    fn size(&mut self) -> i64 {
        value(&mut self.admin, "SELECT max(tree_size) FROM lead_audit.checkpoint")
    }
}

#[test]
fn honest_exports_are_intact_to_both_verifiers() {
    let mut audited = Audited::new();
    let plain = audited.export("trail.ndjson", &[]);
    let said = audited.assert_intact(&[&plain]);
    let size = audited.size();
    assert!(said.contains(&format!("{size} sealed entries of 3 checkpoints (3 signed)")), "{said}");
    assert!(said.contains("entries/s"), "{said}");
    let python = Command::new("python3")
        .arg(python_verifier())
        .args(["export", "--key", &audited.key, text_of(&plain)])
        .output()
        .unwrap();
    assert!(
        python.status.success(),
        "{}{}",
        String::from_utf8_lossy(&python.stdout),
        String::from_utf8_lossy(&python.stderr)
    );
    // The compressed export is much smaller and has the same content.
    let compressed = audited.export("trail.ndjson.zst", &[]);
    audited.assert_intact(&[&compressed]);
    assert!(fs::metadata(&compressed).unwrap().len() * 3 < fs::metadata(&plain).unwrap().len());
    // The first command verifies the log in the database instead of an export. The second command
    // verifies the export with a kept checkpoint instead of the key.
    let kept = audited.kept("kept");
    let live =
        audited.tool.expect(0, &["verify", "--database", &audited.url, "--key", &audited.key]);
    assert!(live.contains("INTACT"), "{live}");
    audited.tool.expect(0, &["verify", "--checkpoint", text_of(&kept), text_of(&plain)]);
    // Without a key and without a checkpoint, the result of `lead-audit verify` is "could not
    // tell".
    let nothing = audited.tool.expect(2, &["verify", text_of(&plain)]);
    assert!(
        nothing.contains("COULD NOT TELL") && nothing.contains("nothing from outside vouches"),
        "{nothing}"
    );
    // With --json, the command prints the result as JSON.
    let json =
        audited.tool.expect(0, &["--json", "verify", "--key", &audited.key, text_of(&plain)]);
    assert!(json.contains(r#""verdict":"intact""#) && json.lines().count() == 1, "{json}");
    // `lead-audit export` never overwrites a file.
    let again = audited.tool.run(&["export", "--database", &audited.url, "-o", text_of(&plain)]);
    assert_eq!(again.status, 2);
    assert!(again.errors.contains("--resume"), "{}", again.errors);
}

/// A JSON number with a large exponent is short in the table and long in its entry, because
/// canonical JSON contains all digits of the number. The longest entries contain many numbers with
/// large exponents.
#[test]
fn verify_and_the_command_agree_on_the_largest_entries() {
    let mut audited = Audited::new();
    call(
        &mut audited.admin,
        "CREATE TABLE large (id int PRIMARY KEY, numbers jsonb); SELECT lead_audit.enable('large');
         INSERT INTO large SELECT 1, jsonb_agg('1e131071'::jsonb) FROM generate_series(1, 1100);
         UPDATE large SET numbers = (SELECT jsonb_agg('2e131071'::jsonb) FROM generate_series(1, 1100))",
    );
    seal(&mut audited.admin);
    let bytes = "SELECT max(octet_length(row_values::text) + octet_length(changed_values::text)) FROM lead_audit.entry";
    assert!(value::<i32>(&mut audited.admin, bytes) > 256 << 20);
    assert_eq!(value::<i64>(&mut audited.admin, "SELECT count(*) FROM lead_audit.verify()"), 0);
    audited.tool.expect(0, &["verify", "--database", &audited.url, "--key", &audited.key]);
    let export = audited.export("large.ndjson.zst", &[]);
    audited.assert_intact(&[&export]);
    // With --max-line, a user can lower the limit for the length of a line in an export. If a line
    // is longer than the limit, the result of the verification is "could not tell".
    let answer =
        audited.tool.run(&["verify", "--key", &audited.key, "--max-line", "256", text_of(&export)]);
    assert_eq!(answer.status, 2);
}

#[test]
fn an_export_resumes_where_it_stopped() {
    let mut audited = Audited::new();
    for (name, cuts) in [
        ("trail.ndjson", vec![1usize, 100, 5_000, 100_000, 200_000]),
        ("trail.ndjson.zst", vec![1, 3_000]),
    ] {
        let whole = audited.export(name, &[]);
        let bytes = fs::read(&whole).unwrap();
        for cut in cuts {
            let broken = audited.path(&format!("broken-{cut}-{name}"));
            fs::write(&broken, &bytes[..bytes.len().saturating_sub(cut)]).unwrap();
            audited.export(&format!("broken-{cut}-{name}"), &["--resume"]);
            audited.assert_intact(&[&broken]);
        }
    }
    // `lead-audit export` appends new entries to an existing export, or writes the new entries to
    // a new file.
    let first = audited.export("first.ndjson", &[]);
    seal(&mut audited.admin);
    let mut app = audited.cluster.session("app", "audited");
    add_leads(&mut app, 401, 450);
    let before = audited.size();
    seal(&mut audited.admin);
    let second = audited.export("second.ndjson", &["--after", text_of(&first)]);
    let said = audited.assert_intact(&[&first, &second]);
    let size = audited.size();
    assert!(size > before && said.contains(&format!("tree size 0 to {size}")), "{said}");
    audited.export("first.ndjson", &["--resume"]);
    let said = audited.assert_intact(&[&first]);
    assert!(said.contains(&format!("tree size 0 to {size}")), "{said}");
    // `lead-audit export` can export only the entries between two checkpoints.
    let range = audited.export(
        "range.ndjson",
        &["--from-size", &before.to_string(), "--to-size", &size.to_string()],
    );
    audited.assert_intact(&[&range]);
    let refused = audited.tool.run(&[
        "export",
        "--database",
        &audited.url,
        "--from-size",
        "7",
        "-o",
        text_of(&audited.path("x")),
    ]);
    assert_eq!(refused.status, 2);
    assert!(refused.errors.contains("no checkpoint of 7 leaves"), "{}", refused.errors);
}

#[test]
fn a_selection_and_a_proof_convince_a_third_party() {
    let mut audited = Audited::new();
    let entries: i64 = value(
        &mut audited.admin,
        "SELECT count(*) FROM lead_audit.history('leads', lpad(to_hex(101), 32, '0'))",
    );
    assert_eq!(entries, 2);
    let key = format!("{:032x}", 101);
    let json_key = format!(r#"{{ "id": "{key}" }}"#);
    for (name, selected) in [("value", &key), ("object", &json_key)] {
        let row = audited.export(name, &["--table", "leads", "--key", selected]);
        let said = audited.assert_intact(&[&row]);
        assert!(said.contains("2 sealed entries"), "{said}");
    }
    let table =
        audited.export("table", &["--table", "public.leads", "--from-id", "10", "--to-id", "50"]);
    assert!(audited.assert_intact(&[&table]).contains("41 sealed entries"));
    // Verifies an export with an older checkpoint. The export contains a consistency proof for the
    // older checkpoint.
    let oldest: i64 = value(&mut audited.admin, "SELECT min(tree_size) FROM lead_audit.checkpoint");
    let note: String = value(
        &mut audited.admin,
        "SELECT note FROM lead_audit.checkpoint ORDER BY tree_size LIMIT 1",
    );
    let kept = audited.path("oldest");
    fs::write(&kept, note).unwrap();
    let proven =
        audited.export("proven", &["--from-id", "300", "--prove-from", &oldest.to_string()]);
    let said = audited.tool.expect(
        0,
        &[
            "verify",
            "--json",
            "--key",
            &audited.key,
            "--checkpoint",
            text_of(&kept),
            text_of(&proven),
        ],
    );
    assert!(said.contains(r#""checkpoints_matched":1"#), "{said}");

    let (proof, entry) = (audited.path("p.tlog-proof"), audited.path("entry.json"));
    audited.tool.expect(
        0,
        &[
            "prove",
            "--database",
            &audited.url,
            "--id",
            "42",
            "-o",
            text_of(&proof),
            "--entry",
            text_of(&entry),
        ],
    );
    let by_the_server: String = value(&mut audited.admin, "SELECT lead_audit.inclusion_proof(42)");
    assert_eq!(fs::read_to_string(&proof).unwrap(), by_the_server);
    let arguments =
        ["verify-proof", text_of(&proof), "--entry", text_of(&entry), "--key", &audited.key];
    assert!(audited.tool.expect(0, &arguments).contains("INTACT: entry 42"));
    audited.tool.expect(2, &arguments[..4]);
    let text = fs::read_to_string(&entry).unwrap();
    fs::write(&entry, text.replace("Contact Person", "Another Person")).unwrap();
    assert!(audited.tool.expect(1, &arguments).contains("TAMPERED"));
    // `lead-audit inspect` shows each of these files as text.
    for (file, what) in
        [(&proof, "tlog-proof"), (&entry, "\"email\""), (&kept, ORIGIN), (&table, "selection")]
    {
        let shown = audited.tool.expect(0, &["inspect", text_of(file)]);
        assert!(shown.contains(what), "{shown}");
    }
    assert!(audited.tool.expect(0, &["inspect", text_of(&table), "--id", "12"]).contains("INSERT"));
    assert!(audited.tool.expect(0, &["inspect", &audited.key]).contains("public key"));
}

/// Returns the statements in docs/privileges.md that create a role for export, verification and
/// witnessing: first the CREATE ROLE, then the grants.
fn documented_grants() -> (String, String) {
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/privileges.md"))
            .unwrap();
    let (_, rest) = page
        .split_once("## The command `lead-audit`")
        .expect("the page has the rights of lead-audit");
    let (_, rest) = rest.split_once("```sql\n").unwrap();
    let (role, grants) = rest.split_once("```").unwrap().0.split_once('\n').unwrap();
    (role.to_owned(), grants.to_owned())
}

#[test]
fn the_documented_rights_are_sufficient_and_necessary() {
    let mut audited = Audited::new();
    let (role, grants) = documented_grants();
    call(&mut audited.admin, &role);
    let url = audited.cluster.connection_string("exporter", "audited");
    let refused = audited.tool.run(&["verify", "--database", &url, "--key", &audited.key]);
    assert_eq!(refused.status, 2, "{}", refused.output);
    assert!(
        refused.output.contains("42501") && refused.output.contains("docs/privileges.md"),
        "{}{}",
        refused.output,
        refused.errors
    );
    call(&mut audited.admin, &grants);
    audited.tool.expect(0, &["verify", "--database", &url, "--key", &audited.key]);
    let trail = audited.path("trail");
    audited
        .tool
        .expect(0, &["export", "--database", &url, "-o", text_of(&trail), "--table", "leads"]);
    audited.assert_intact(&[&trail]);
    audited.tool.expect(0, &["prove", "--database", &url, "--id", "1"]);
    let state = audited.path("state");
    audited.tool.expect(
        0,
        &[
            "witness",
            "--once",
            "--database",
            &url,
            "--state",
            text_of(&state),
            "--key",
            &audited.key,
        ],
    );
}

#[test]
fn a_trail_that_is_not_sealed_or_not_signed() {
    let cluster = Cluster::start();
    let mut admin = app_database(&cluster, "unsigned");
    let (tool, url) = (LeadAudit::new(), cluster.connection_string("postgres", "unsigned"));
    let nothing = tool.expect(2, &["verify", "--database", &url]);
    assert!(nothing.contains("COULD NOT TELL"), "{nothing}");
    add_leads(&mut cluster.session("app", "unsigned"), 1, 50);
    assert!(tool.expect(2, &["verify", "--database", &url]).contains("50 not sealed yet"));
    seal(&mut admin);
    let directory = tempfile::tempdir().unwrap();
    let kept = directory.path().join("kept");
    fs::write(&kept, value::<String>(&mut admin, "SELECT lead_audit.latest_checkpoint()")).unwrap();
    tool.expect(2, &["verify", "--database", &url]);
    tool.expect(0, &["verify", "--database", &url, "--checkpoint", text_of(&kept)]);
    // The key of this verification has signed no checkpoint of the log.
    let secret = directory.path().join("key");
    let key = tool.expect(0, &["keygen", "--name", "x", "-o", text_of(&secret)]);
    let unsigned = tool.expect(1, &["verify", "--database", &url, "--key", key.trim()]);
    assert!(unsigned.contains("signature bad"), "{unsigned}");
    // The message of a connection error does not contain the password of the connection string.
    let answer = tool.run(&["verify", "--database", "postgresql://u:s3cret@127.0.0.1:1/x"]);
    assert_eq!(answer.status, 2);
    assert!(!(answer.output + &answer.errors).contains("s3cret"));
}
