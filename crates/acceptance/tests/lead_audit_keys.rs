//! Keys: who can read them, what is refused, and what verifiers and witnesses say when the log's key changes.

use acceptance::{Cluster, LeadAudit, Session, add_leads, app_database, call, seal, text_of};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const ORIGIN: &str = "example.com/leads";

#[test]
fn a_key_is_its_owners_alone_and_never_overwritten() {
    let tool = LeadAudit::new();
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let witness = directory.path().join("witness");
    let public = tool.expect(0, &["keygen", "--name", ORIGIN, "-o", text_of(&log)]);
    // C2SP signed-note: name, hash of the key, and the key with its algorithm, 1 for Ed25519 and 4 for cosignatures.
    assert!(public.starts_with(&format!("{ORIGIN}+")) && public.trim().len() == ORIGIN.len() + 1 + 8 + 1 + 44, "{public}");
    let public = tool.expect(0, &["keygen", "--witness", "--name", "witness.example", "-o", text_of(&witness)]);
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
        assert_eq!(tool.run(&["keygen", "--name", name, "-o", text_of(&unmade)]).status, 2, "{name:?}");
        assert!(!unmade.exists(), "{name:?}");
    }
    assert_eq!(tool.run(&["keygen", "--name", ORIGIN, "-o", text_of(&directory.path().join("no/such/key"))]).status, 2);
}

struct Log {
    cluster: Cluster,
    admin: Session,
    tool: LeadAudit,
    rows: u32,
}

impl Log {
    /// Signs with a new key from now on, in new sessions. Returns the public one.
    fn change_key(&mut self, file: &str, name: &str) -> String {
        let secret = self.cluster.directory().join(file);
        let key = self.tool.expect(0, &["keygen", "--name", name, "-o", text_of(&secret)]).trim().to_owned();
        self.cluster.give_to_server(&secret);
        call(&mut self.admin, &format!("ALTER DATABASE keys SET lead_audit.signing_key_file = '{}'", secret.display()));
        self.admin = self.cluster.admin("keys");
        key
    }

    fn grow(&mut self) {
        add_leads(&mut self.cluster.session("app", "keys"), self.rows + 1, self.rows + 20);
        self.rows += 20;
        seal(&mut self.admin);
    }

    fn witness(&self, state: &Path, keys: &[&str]) -> acceptance::Answer {
        let url = self.cluster.connection_string("postgres", "keys");
        let mut arguments = vec!["witness", "--once", "--database", &url, "--state", text_of(state)];
        arguments.extend(keys.iter().flat_map(|key| ["--key", key]));
        self.tool.run(&arguments)
    }
}

#[test]
fn a_new_key_is_believed_by_whoever_was_told_of_it() {
    let cluster = Cluster::start();
    let admin = app_database(&cluster, "keys");
    let mut log = Log { cluster, admin, tool: LeadAudit::new(), rows: 0 };
    let directory = tempfile::tempdir().unwrap();
    let (told, untold) = (directory.path().join("told"), directory.path().join("untold"));
    let old = log.change_key("old", ORIGIN);
    log.grow();
    assert_eq!(log.witness(&told, &[&old]).status, 0);
    assert_eq!(log.witness(&untold, &[&old]).status, 0);

    let new = log.change_key("new", ORIGIN);
    assert_ne!(old, new);
    log.grow();
    let url = log.cluster.connection_string("postgres", "keys");
    let export = directory.path().join("export.jsonl");
    log.tool.expect(0, &["export", "--database", &url, "-o", text_of(&export)]);
    // What the newest checkpoint covers is everything: whoever knows its key needs no other.
    for (keys, status) in [(&[&*old, &*new][..], 0), (&[&*new], 0), (&[&*old], 1)] {
        for source in [&["--database", &*url][..], &[text_of(&export)]] {
            let keys = keys.iter().flat_map(|key| ["--key", key]);
            let answer = log.tool.run(&["verify"].into_iter().chain(source.iter().copied()).chain(keys).collect::<Vec<_>>());
            assert_eq!(answer.status, status, "{answer:?}");
            assert_eq!(answer.output.contains("checkpoint 40: it is not signed by the key"), status == 1, "{answer:?}");
        }
    }
    assert_eq!(log.witness(&told, &[&old, &new]).status, 0);
    let alarm = log.witness(&untold, &[&old]);
    assert_eq!(alarm.status, 1, "{alarm:?}");
    assert!((alarm.output + &alarm.errors).contains("signed"));
}
