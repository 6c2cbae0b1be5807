//! A witness follows a log. The witness keeps and cosigns each checkpoint that extends the newest
//! kept checkpoint. The witness continues after restarts, after a move of the log to another
//! database, and after its own crash. The witness raises an alarm if an old backup is restored, if
//! history is rewritten, and if signatures are missing or wrong.

use acceptance::{
    Cluster, LeadAudit, Session, add_leads, app_database, call, seal, text_of, value,
};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const ORIGIN: &str = "example.com/leads";

struct Witnessed {
    cluster: Cluster,
    tool: LeadAudit,
    directory: TempDir,
    key: String,
    witness_key: String,
    secret: PathBuf,
    leads: u32,
}

impl Witnessed {
    fn new() -> Self {
        let cluster = Cluster::start();
        let tool = LeadAudit::new();
        let directory = tempfile::tempdir().unwrap();
        let secret = cluster.directory().join("key");
        let key =
            tool.expect(0, &["keygen", "--name", ORIGIN, "-o", text_of(&secret)]).trim().to_owned();
        cluster.give_to_server(&secret);
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let own = directory.path().join("witness-key");
        let name = "witness.example.com";
        let witness_key = tool
            .expect(0, &["keygen", "--witness", "--name", name, "-o", text_of(&own)])
            .trim()
            .to_owned();
        let witnessed = Witnessed { cluster, tool, directory, key, witness_key, secret, leads: 0 };
        drop(app_database(&witnessed.cluster, "live"));
        witnessed.sign("live");
        witnessed
    }

    /// Sets the signing key for a database. A restored or copied database needs its own call of
    /// `sign`, because neither a dump nor a template contains the settings of a database.
    fn sign(&self, database: &str) {
        let setting = format!(
            "ALTER DATABASE {database} SET lead_audit.signing_key_file = '{}'",
            self.secret.display()
        );
        call(&mut self.cluster.admin("postgres"), &setting);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes leads and seals their entries. Returns the size of the tree.
    fn grow(&mut self, database: &str, leads: u32) -> i64 {
        add_leads(&mut self.cluster.session("app", database), self.leads + 1, self.leads + leads);
        self.leads += leads;
        seal(&mut self.cluster.admin(database))
    }

    fn arguments(&self, database: &str) -> Vec<String> {
        let url = self.cluster.connection_string("postgres", database);
        let (state, publish, own, alarm) = (
            self.path("state"),
            self.path("published"),
            self.path("witness-key"),
            self.path("alarm"),
        );
        let alarm = format!("env | grep ^LEAD_AUDIT_ | sort > {}", alarm.display());
        [
            "witness",
            "--database",
            &url,
            "--state",
            text_of(&state),
            "--key",
            &self.key,
            "--signing-key",
            text_of(&own),
            "--publish",
            text_of(&publish),
            "--alarm",
            &alarm,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    #[track_caller]
    fn look(&self, database: &str, status: i32) -> String {
        let mut arguments = self.arguments(database);
        arguments.push("--once".to_owned());
        self.tool.expect(status, &arguments)
    }

    fn alarm(&self) -> String {
        fs::read_to_string(self.path("alarm")).expect("the alarm command has run")
    }

    /// Replaces the database `live` with the database `backup`.
    fn restore(&self, backup: &str) {
        let mut postgres = self.cluster.admin("postgres");
        call(&mut postgres, "DROP DATABASE live");
        call(&mut postgres, &format!("ALTER DATABASE {backup} RENAME TO live"));
        self.sign("live");
    }

    fn back_up(&self, backup: &str) {
        call(
            &mut self.cluster.admin("postgres"),
            &format!("CREATE DATABASE {backup} TEMPLATE live"),
        );
    }
}

#[test]
fn an_extending_checkpoint_is_kept_cosigned_and_published() {
    let mut witnessed = Witnessed::new();
    assert_eq!(witnessed.look("live", 0), "", "nothing was sealed yet");
    witnessed.grow("live", 10);
    assert!(witnessed.look("live", 0).contains("checkpoint 10: the first one"));
    assert_eq!(witnessed.look("live", 0), "");
    // The log has several new checkpoints at once. The witness checks each checkpoint against the
    // checkpoint before it.
    witnessed.grow("live", 300);
    witnessed.grow("live", 1);
    let said = witnessed.look("live", 0);
    assert!(
        said.contains("checkpoint 310: extends the one before; cosigned")
            && said.contains("checkpoint 311:"),
        "{said}"
    );
    let published = fs::read_to_string(witnessed.path("published").join("checkpoint")).unwrap();
    assert!(
        published.starts_with(&format!("{ORIGIN}\n311\n"))
            && published.contains("— witness.example.com "),
        "{published}"
    );
    // `lead-audit verify` reads the checkpoint from the directory in which the witness publishes,
    // and requires the witness's cosignature.
    let url = witnessed.cluster.connection_string("postgres", "live");
    let published = witnessed.path("published");
    let verify = [
        "verify",
        "--database",
        &url,
        "--key",
        &witnessed.key,
        "--checkpoint",
        text_of(&published),
    ];
    let with_witness = [&verify[..], &["--witness-key", &witnessed.witness_key]].concat();
    assert!(witnessed.tool.expect(0, &with_witness).contains("INTACT"));
    // A checkpoint with only the log's signature does not replace a cosigned checkpoint.
    let note: String =
        value(&mut witnessed.cluster.admin("live"), "SELECT lead_audit.latest_checkpoint()");
    let bare = witnessed.path("bare");
    fs::write(&bare, note).unwrap();
    let not_cosigned = [
        "verify",
        "--database",
        &url,
        "--checkpoint",
        text_of(&bare),
        "--witness-key",
        &witnessed.witness_key,
    ];
    witnessed.tool.expect(2, &not_cosigned);
    // After a dump and a restore, the restored log continues the old log, and the witness raises
    // no alarm.
    let dump = witnessed.path("dump");
    witnessed.cluster.run("pg_dump", &["-Fc", "-f", text_of(&dump), "live"]);
    call(&mut witnessed.cluster.admin("postgres"), "CREATE DATABASE moved");
    witnessed.cluster.run("pg_restore", &["-d", "moved", text_of(&dump)]);
    witnessed.sign("moved");
    assert_eq!(witnessed.look("moved", 0), "");
    witnessed.grow("moved", 5);
    assert!(witnessed.look("moved", 0).contains("checkpoint 316: extends"));
}

#[test]
fn a_restored_backup_is_an_alarm() {
    let mut witnessed = Witnessed::new();
    witnessed.grow("live", 20);
    witnessed.look("live", 0);
    witnessed.back_up("backup");
    witnessed.back_up("older");
    witnessed.grow("live", 30);
    witnessed.look("live", 0);
    witnessed.restore("backup");
    let said = witnessed.look("live", 1);
    assert!(
        said.contains("ALARM: history gone back")
            && said.contains("restoring an old backup")
            && said.contains("last 30 entries"),
        "{said}"
    );
    let alarm = witnessed.alarm();
    for fact in [
        "LEAD_AUDIT_ALARM=history gone back",
        &format!("LEAD_AUDIT_ORIGIN={ORIGIN}"),
        "LEAD_AUDIT_HELD_SIZE=50",
        "LEAD_AUDIT_FOUND_SIZE=20",
        "LEAD_AUDIT_MESSAGE=the database is back",
    ] {
        assert!(alarm.contains(fact), "{fact} is not in\n{alarm}");
    }
    assert!(!alarm.contains("DATABASE_URL"), "{alarm}");
    // The witness raises the alarm each time that it reads the log. When the restored log has more
    // leaves than the kept checkpoint, the alarm reports a fork.
    witnessed.look("live", 1);
    witnessed.leads += 1000;
    witnessed.grow("live", 10);
    assert!(witnessed.look("live", 1).contains("history gone back"));
    witnessed.grow("live", 60);
    let said = witnessed.look("live", 1);
    assert!(
        said.contains("ALARM: history forked")
            && said.contains("agrees with what was witnessed up to 20 leaves"),
        "{said}"
    );
    // The test restores the backup `older`. The restored log then grows to as many leaves as the
    // kept checkpoint has, but with different entries.
    witnessed.restore("older");
    witnessed.grow("live", 30);
    let said = witnessed.look("live", 1);
    assert!(
        said.contains("history forked") && said.contains("another checkpoint of 50 leaves"),
        "{said}"
    );
    // The witness keeps the evidence of the fork in its state directory, and has cosigned no
    // forked checkpoint.
    let evidence = fs::read_dir(witnessed.path("state")).unwrap().filter(|entry| {
        entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("evidence-")
    });
    assert!(evidence.count() >= 3);
    assert!(
        fs::read_to_string(witnessed.path("published").join("checkpoint"))
            .unwrap()
            .starts_with(&format!("{ORIGIN}\n50\n"))
    );
}

#[test]
fn a_rewritten_history_and_removed_signatures_are_alarms() {
    let mut witnessed = Witnessed::new();
    witnessed.grow("live", 20);
    witnessed.look("live", 0);
    let unguarded = "ALTER TABLE lead_audit.entry DISABLE TRIGGER ALL; ALTER TABLE lead_audit.checkpoint DISABLE TRIGGER ALL;
         ALTER TABLE lead_audit.tree_tile DISABLE TRIGGER ALL; ALTER TABLE lead_audit.tree_edge DISABLE TRIGGER ALL;
         ALTER TABLE lead_audit.tree DISABLE TRIGGER ALL; ALTER TABLE lead_audit.leaf_range DISABLE TRIGGER ALL;
         ALTER TABLE lead_audit.open_gap DISABLE TRIGGER ALL";
    call(&mut witnessed.cluster.admin("live"), unguarded);
    witnessed.back_up("honest");
    let strip = "UPDATE lead_audit.checkpoint SET note = split_part(note, E'\\n\\n', 1) || E'\\n' WHERE tree_size > 20";
    witnessed.grow("live", 5);
    call(&mut witnessed.cluster.admin("live"), strip);
    let said = witnessed.look("live", 1);
    assert!(
        said.contains("ALARM: signature bad: checkpoint 25 is not signed by the log's key"),
        "{said}"
    );
    witnessed.restore("honest");
    let mut admin: Session = witnessed.cluster.admin("live");
    call(&mut admin, "DELETE FROM lead_audit.entry WHERE id = 7");
    call(
        &mut admin,
        "TRUNCATE lead_audit.checkpoint, lead_audit.tree_tile, lead_audit.tree_edge, lead_audit.leaf_range, lead_audit.open_gap;
         UPDATE lead_audit.tree SET tree_size = 0, looked_to = 0, open_gaps = 0, waits_for = '{}'",
    );
    drop(admin);
    witnessed.grow("live", 10);
    let said = witnessed.look("live", 1);
    assert!(
        said.contains("ALARM: history forked") && said.contains("agrees with nothing"),
        "{said}"
    );
    // The next witness has a verifier key with the log's name that is not the log's key.
    let other = witnessed.path("other-key");
    let other_key = witnessed.tool.expect(0, &["keygen", "--name", ORIGIN, "-o", text_of(&other)]);
    let url = witnessed.cluster.connection_string("postgres", "live");
    let state = witnessed.path("other-state");
    let arguments = [
        "witness",
        "--once",
        "--database",
        &url,
        "--state",
        text_of(&state),
        "--key",
        other_key.trim(),
    ];
    assert!(witnessed.tool.expect(1, &arguments).contains("signature bad"));
}

#[test]
fn a_witness_survives_outages_and_its_own_kill() {
    let mut witnessed = Witnessed::new();
    witnessed.grow("live", 3);
    let start = |witnessed: &Witnessed| {
        let mut arguments = witnessed.arguments("live");
        arguments.extend(["--interval", "1"].map(str::to_owned));
        witnessed
            .tool
            .command(&arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let until_kept = |witnessed: &Witnessed, size: i64| {
        let kept = witnessed.path("published").join(format!("{size:020}"));
        let deadline = Instant::now() + Duration::from_secs(120);
        while !kept.exists() {
            assert!(Instant::now() < deadline, "{} is not published", kept.display());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let mut running = start(&witnessed);
    until_kept(&witnessed, 3);
    // If two witnesses used one state directory, they could cosign contradicting checkpoints. The
    // second witness must therefore not start.
    let second =
        witnessed.tool.run(&[witnessed.arguments("live"), vec!["--once".to_owned()]].concat());
    assert_eq!(second.status, 2);
    assert!(second.errors.contains("another witness"), "{}", second.errors);
    witnessed.cluster.stop("fast");
    witnessed.cluster.start_again();
    let size = witnessed.grow("live", 4);
    until_kept(&witnessed, size);
    assert!(running.try_wait().unwrap().is_none(), "it is still running");
    // The test kills the witness with SIGKILL at an arbitrary moment.
    running.kill().unwrap();
    running.wait().unwrap();
    let size = witnessed.grow("live", 5);
    let mut running = start(&witnessed);
    until_kept(&witnessed, size);
    running.kill().unwrap();
    running.wait().unwrap();
    witnessed.look("live", 0);
}

#[test]
fn a_directory_of_checkpoints_is_followed() {
    let mut witnessed = Witnessed::new();
    let published = witnessed.cluster.directory().join("checkpoints");
    fs::create_dir(&published).unwrap();
    witnessed.cluster.give_to_server(&published);
    let setting =
        format!("ALTER DATABASE live SET lead_audit.checkpoint_dir = '{}'", published.display());
    call(&mut witnessed.cluster.admin("postgres"), &setting);
    let state = witnessed.path("directory-state");
    let own = witnessed.path("witness-key");
    let key = witnessed.key.clone();
    let follow = [
        "witness",
        "--once",
        "--checkpoints",
        text_of(&published),
        "--state",
        text_of(&state),
        "--key",
        &key,
    ];
    assert_eq!(witnessed.tool.expect(0, &follow), "");
    witnessed.grow("live", 5);
    assert!(witnessed.tool.expect(0, &follow).contains("checkpoint 5: the first one"));
    witnessed.back_up("backup");
    witnessed.grow("live", 5);
    // Without access to the tree, the witness cannot check that the new checkpoint extends the
    // kept checkpoint. Without this check, the witness does not cosign the new checkpoint.
    let with_key = [&follow[..], &["--signing-key", text_of(&own)]].concat();
    let said = witnessed.tool.expect(0, &with_key);
    assert!(
        said.contains("checkpoint 10: not proven to extend the one before, and so not cosigned"),
        "{said}"
    );
    // With access to the tree, the witness cosigns the new checkpoint.
    witnessed.grow("live", 5);
    let url = witnessed.cluster.connection_string("postgres", "live");
    let both = [&with_key[..], &["--database", &url]].concat();
    assert!(
        witnessed.tool.expect(0, &both).contains("checkpoint 15: extends the one before; cosigned")
    );
    // A copy of the database now publishes a checkpoint into the same directory. The copy has the
    // name of the log, but a different history.
    witnessed.sign("backup");
    let setting =
        format!("ALTER DATABASE backup SET lead_audit.checkpoint_dir = '{}'", published.display());
    call(&mut witnessed.cluster.admin("postgres"), &setting);
    witnessed.leads += 100;
    witnessed.grow("backup", 2);
    let said = witnessed.tool.expect(1, &follow);
    assert!(said.contains("ALARM: history forked"), "{said}");
}
