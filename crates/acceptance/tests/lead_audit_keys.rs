//! Tests which users can read a key file, and which keys are refused. Also tests the reports of
//! verifiers and witnesses after a log has changed its key.

use acceptance::{
    Answer, Cluster, LeadAudit, Session, add_leads, app_database, assert_intact, call,
    python_verifier, seal, text_of, value, wait_until,
};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const ORIGIN: &str = "example.com/leads";
const OTHER: &str = "example.com/sales";

#[test]
fn a_key_file_is_private_and_never_overwritten() {
    let tool = LeadAudit::new();
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let witness = directory.path().join("witness");
    let public = tool.expect(0, &["keygen", "--name", ORIGIN, "-o", text_of(&log)]);
    // C2SP signed-note defines this form of a verifier key: the name, the key id, and the key with
    // its algorithm. The algorithm is 1 for Ed25519 and 4 for cosignatures.
    assert!(
        public.starts_with(&format!("{ORIGIN}+"))
            && public.trim().len() == ORIGIN.len() + 1 + 8 + 1 + 44,
        "{public}"
    );
    let public = tool
        .expect(0, &["keygen", "--witness", "--name", "witness.example", "-o", text_of(&witness)]);
    assert!(public.splitn(3, '+').nth(2).is_some_and(|key| key.starts_with('B')), "{public}");
    for path in [&log, &witness] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o600);
        let before = fs::read(path).unwrap();
        let again = tool.run(&["keygen", "--name", ORIGIN, "-o", text_of(path)]);
        assert_eq!(again.status, 2, "{again:?}");
        assert!(again.errors.contains("File exists"), "{again:?}");
        assert_eq!(fs::read(path).unwrap(), before);
    }
    let unmade = directory.path().join("unmade");
    for name in ["", "two words", "a+b", "line\nbreak"] {
        assert_eq!(
            tool.run(&["keygen", "--name", name, "-o", text_of(&unmade)]).status,
            2,
            "{name:?}"
        );
        assert!(!unmade.exists(), "{name:?}");
    }
    assert_eq!(
        tool.run(&[
            "keygen",
            "--name",
            ORIGIN,
            "-o",
            text_of(&directory.path().join("no/such/key"))
        ])
        .status,
        2
    );
}

struct Log {
    cluster: Cluster,
    admin: Session,
    tool: LeadAudit,
    rows: u32,
    secret: Option<PathBuf>,
}

impl Log {
    /// Makes the log sign with a new key. If the log already has a key, sets
    /// lead_audit.previous_signing_key_file to the file of the old key. Returns the new verifier
    /// key.
    fn change_key(&mut self, file: &str, name: &str) -> String {
        let secret = self.cluster.directory().join(file);
        let key = self
            .tool
            .expect(0, &["keygen", "--name", name, "-o", text_of(&secret)])
            .trim()
            .to_owned();
        self.cluster.give_to_server(&secret);
        if let Some(before) = self.secret.replace(secret.clone()) {
            let setting = format!(
                "ALTER DATABASE keys SET lead_audit.previous_signing_key_file = '{}'",
                before.display()
            );
            call(&mut self.admin, &setting);
        }
        // ALTER DATABASE does not change the setting in existing sessions, but a session uses the
        // new key at its next sealing.
        call(
            &mut self.admin,
            &format!(
                "ALTER DATABASE keys SET lead_audit.signing_key_file = '{}'",
                secret.display()
            ),
        );
        key
    }

    fn grow(&mut self) {
        add_leads(&mut self.cluster.session("app", "keys"), self.rows + 1, self.rows + 20);
        self.rows += 20;
        seal(&mut self.admin);
    }

    fn witness(&self, state: &Path, arguments: &[&str]) -> acceptance::Answer {
        let url = self.cluster.connection_string("postgres", "keys");
        self.tool.run(
            &[&["witness", "--once", "--database", &url, "--state", text_of(state)], arguments]
                .concat(),
        )
    }

    /// Verifies the database and the export with the command, and the export with Python. Each of
    /// the three verifications must end with the exit status `status`.
    #[track_caller]
    fn verify(&self, export: &Path, arguments: &[&str], status: i32) -> String {
        let url = self.cluster.connection_string("postgres", "keys");
        let mut said = String::new();
        for source in [&["--database", &*url][..], &[text_of(export)]] {
            let answer = self.tool.run(&[&["verify"], source, arguments].concat());
            assert_eq!(answer.status, status, "{source:?} {arguments:?}: {answer:?}");
            said = answer.output;
        }
        let output = Command::new("python3")
            .arg(python_verifier())
            .arg("export")
            .args(arguments)
            .arg(export)
            .output()
            .unwrap();
        let python = Answer::of(output);
        assert_eq!(python.status, status, "{arguments:?}: {python:?}");
        said
    }
}

fn key_arguments<'k>(keys: &[&'k str]) -> Vec<&'k str> {
    keys.iter().flat_map(|key| ["--key", key]).collect()
}

#[test]
fn a_log_begins_to_sign_and_changes_its_key_and_its_name() {
    let cluster = Cluster::start();
    let admin = app_database(&cluster, "keys");
    let mut log = Log { cluster, admin, tool: LeadAudit::new(), rows: 0, secret: None };
    let directory = tempfile::tempdir().unwrap();
    let state = |name: &str| directory.path().join(name);
    let url = log.cluster.connection_string("postgres", "keys");
    log.grow();
    let first = directory.path().join("first");
    fs::write(&first, value::<String>(&mut log.admin, "SELECT lead_audit.latest_checkpoint()"))
        .unwrap();
    assert_eq!(log.witness(&state("unsigned"), &[]).status, 0);

    let old = log.change_key("old", ORIGIN);
    log.grow();
    let told = log.witness(&state("told"), &["--key", &old]);
    assert_eq!(told.status, 0, "{told:?}");
    assert_eq!(log.witness(&state("untold"), &["--key", &old]).status, 0);
    // The witness `unsigned` began to follow the log when the log had no signing key. Now the log
    // has a key, so the witness stops until its user names the key with --key and the log with
    // --follow.
    let asked = log.witness(&state("unsigned"), &[]);
    assert_eq!(asked.status, 2, "{asked:?}");
    assert!(asked.errors.contains("--follow example.com/leads"), "{asked:?}");
    let followed = log.witness(&state("unsigned"), &["--key", &old, "--follow", ORIGIN]);
    assert_eq!(followed.status, 0, "{followed:?}");
    assert_eq!(
        log.witness(&state("unsigned"), &["--key", &old]).status,
        0,
        "from then on it is this log"
    );

    let new = log.change_key("new", ORIGIN);
    assert_ne!(old, new);
    log.grow();
    let other = log.change_key("other", OTHER);
    log.grow();
    assert_intact(&mut log.admin);
    let changes: Vec<(String, Option<String>, String, Option<String>)> = log
        .admin
        .query(
            "SELECT details ->> 'old_origin', details ->> 'old_key', details ->> 'new_origin', details ->> 'new_key'
             FROM lead_audit.entry WHERE operation = 'KEY' ORDER BY id",
            &[],
        )
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3)))
        .collect();
    let own: String = value(&mut log.admin, "SELECT 'lead_audit/' || log_id FROM lead_audit.tree");
    let (leads, sales) = (ORIGIN.to_owned(), OTHER.to_owned());
    assert_eq!(
        changes,
        [
            (own, None, leads.clone(), Some(old.clone())),
            (leads.clone(), Some(old.clone()), leads.clone(), Some(new.clone())),
            (leads, Some(new.clone()), sales, Some(other.clone())),
        ]
    );

    // The checkpoints have the sizes 20, 21, 41, 42, 62, 63 and 83. With the newest key alone,
    // verification must accept all seven checkpoints.
    let export = directory.path().join("export.ndjson");
    log.tool.expect(0, &["export", "--database", &url, "-o", text_of(&export)]);
    for keys in [&[&*old, &*new, &*other][..], &[&*new, &*other], &[&*other]] {
        assert!(
            log.verify(&export, &key_arguments(keys), 0).contains("INTACT up to tree size 83"),
            "{keys:?}"
        );
    }
    log.verify(&export, &["--checkpoint", text_of(&first)], 0);
    log.verify(&export, &[], 2);
    for (key, size) in [(&old, 42), (&new, 63)] {
        let said = log.verify(&export, &["--key", key], 2);
        assert!(said.contains(&format!("something vouches up to tree size {size}")), "{said}");
        assert!(!said.contains("TAMPERED"), "{said}");
    }
    // Verifies the proof of one entry three times: with the newest key, with earlier keys, and
    // without a key.
    let (proof, entry) = (directory.path().join("proof"), directory.path().join("entry"));
    let prove = [
        "prove",
        "--database",
        &url,
        "--id",
        "3",
        "-o",
        text_of(&proof),
        "--entry",
        text_of(&entry),
    ];
    log.tool.expect(0, &prove);
    let verify_proof = ["verify-proof", text_of(&proof), "--entry", text_of(&entry)];
    for (key, status) in [(&other, 0), (&new, 2), (&old, 2)] {
        log.tool.expect(status, &[&verify_proof[..], &["--key", key]].concat());
    }
    log.tool.expect(2, &verify_proof);

    // A witness that knows the new keys continues to follow the log. A witness that does not know a
    // new key stops at the checkpoint where this key begins, and raises no alarm.
    let told = log.witness(
        &state("told"),
        &["--key", &old, "--key", &new, "--key", &other, "--follow", OTHER],
    );
    assert_eq!(told.status, 0, "{told:?}");
    let half = log.witness(&state("untold"), &["--key", &old]);
    assert_eq!(half.status, 2, "{half:?}");
    assert!(half.errors.contains("from checkpoint 42 on the log has another key"), "{half:?}");
    let half = log.witness(&state("untold"), &["--key", &old, "--key", &new]);
    assert_eq!(half.status, 2, "{half:?}");
    assert!(
        half.errors.contains(&format!("--follow {OTHER}"))
            && half.output.contains("checkpoint 62: extends"),
        "{half:?}"
    );
    let last = log.witness(&state("untold"), &["--key", &new, "--key", &other, "--follow", OTHER]);
    assert_eq!(last.status, 0, "{last:?}");
    assert!(last.output.contains("checkpoint 83: extends"), "{last:?}");
}

/// A log can change to a new signing key even if the file of the old key is lost. Without its file,
/// the old key does not sign the first checkpoint after the change.
#[test]
fn a_lost_key_can_be_changed() {
    let cluster = Cluster::start();
    let admin = app_database(&cluster, "keys");
    let mut log = Log { cluster, admin, tool: LeadAudit::new(), rows: 0, secret: None };
    let directory = tempfile::tempdir().unwrap();
    let url = log.cluster.connection_string("postgres", "keys");
    let old = log.change_key("old", ORIGIN);
    log.grow();
    let state = directory.path().join("state");
    assert_eq!(log.witness(&state, &["--key", &old]).status, 0);
    log.secret = None;
    let new = log.change_key("new", ORIGIN);
    log.grow();
    assert!(
        log.admin.warnings().iter().any(|text| text.contains("not signed with the key before"))
    );
    assert_intact(&mut log.admin);
    let export = directory.path().join("export.ndjson");
    log.tool.expect(0, &["export", "--database", &url, "-o", text_of(&export)]);
    log.verify(&export, &["--key", &new], 0);
    let said = log.verify(&export, &["--key", &old], 2);
    assert!(said.contains("something vouches up to tree size 20"), "{said}");
    let alarm = log.witness(&state, &["--key", &old]);
    assert_eq!(alarm.status, 1, "{alarm:?}");
    assert!(alarm.output.contains("signature bad"), "{alarm:?}");
    assert_eq!(log.witness(&state, &["--key", &old, "--key", &new]).status, 0);
}

/// The worker adopts a new key or origin after ALTER DATABASE, after a reload and after a RESET.
/// The worker never seals with an outdated key or origin.
#[test]
fn the_worker_adopts_key_and_origin() {
    let cluster =
        Cluster::builder().preloaded().setting("lead_audit.seal_interval = '100ms'").start();
    let admin = app_database(&cluster, "keys");
    let mut log = Log { cluster, admin, tool: LeadAudit::new(), rows: 0, secret: None };
    let longest = Duration::from_secs(120);
    let newest =
        "coalesce((SELECT note FROM lead_audit.checkpoint ORDER BY tree_size DESC LIMIT 1), '')";
    add_leads(&mut log.cluster.session("app", "keys"), 1, 5);
    wait_until(
        &mut log.admin,
        longest,
        &format!("SELECT coalesce({newest} LIKE 'lead\\_audit/%', false)"),
    );
    let key = log.change_key("old", ORIGIN);
    wait_until(
        &mut log.admin,
        longest,
        &format!("SELECT {newest} LIKE '{ORIGIN}%' AND {newest} LIKE '%— {ORIGIN} %'"),
    );
    assert_eq!(
        value::<String>(&mut log.cluster.admin("keys"), "SELECT verifier_key FROM lead_audit.tree"),
        key
    );
    call(&mut log.admin, "ALTER DATABASE keys RESET lead_audit.signing_key_file");
    wait_until(&mut log.admin, longest, &format!("SELECT {newest} LIKE 'lead\\_audit/%'"));
    call(&mut log.admin, &format!("ALTER SYSTEM SET lead_audit.origin = '{OTHER}'"));
    call(&mut log.admin, "SELECT pg_reload_conf()");
    wait_until(&mut log.admin, longest, &format!("SELECT {newest} LIKE '{OTHER}%'"));
    assert_eq!(
        value::<i64>(
            &mut log.admin,
            "SELECT count(*) FROM lead_audit.entry WHERE operation = 'KEY'"
        ),
        3
    );
    assert_intact(&mut log.admin);
}
