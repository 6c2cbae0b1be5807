//! A tamperer has all rights in the database and knows docs/FORMAT.md. The tamperer has neither the
//! log's signing key nor the state directory of the witness. For each way to rewrite history,
//! `lead-audit verify` on an export or `lead-audit witness` must end with exit status 1.
//! Verification must name the changed entry if the stored values show which entry was changed. The
//! Python verifier must reach the same verdict as `lead-audit verify`. The test also covers
//! attempts that no verifier can find, and honest operations that no verifier may report.
//!
//! The functions in `sql/rewriting_history.sql` recompute checksums, leaves, nodes and roots. The
//! functions were written from docs/FORMAT.md. If `LEAD_AUDIT_ACCEPTANCE_ONLY` is set, only the
//! attempts run whose names contain the value of this variable.

mod attempts;
mod honest;
mod outside;

use acceptance::{
    Cluster, LeadAudit, Session, add_leads, app_database, assert_tree_whole, call, python_verifier,
    seal, text_of, try_call, value,
};
use attempts::{Attempt, Expected, From, Step, attempts};
use ledger::checkpoint::Checkpoint;
use ledger::note::SigningKey;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const KIT: &str = include_str!("../../sql/rewriting_history.sql");
const ORIGIN: &str = "example.com/leads";

/// The number of databases in which attempts run in parallel.
const AT_ONCE: usize = 2;

/// The honest log, the auditor's kept checkpoint and the witness's state directory.
struct Stage {
    cluster: Cluster,
    tool: LeadAudit,
    directory: tempfile::TempDir,
    key: String,
    /// The verifier key of a signing key that has the log's name, but is not the log's key.
    same_name: String,
    kept: PathBuf,
    witness: PathBuf,
    facts: Facts,
}

/// Facts about the honest log that the attempts need.
pub struct Facts {
    /// The tree sizes of the checkpoints.
    pub sizes: Vec<i64>,
    /// The ids of sealed entries of INSERT, several from each checkpoint.
    pub inserts: Vec<i64>,
    /// Ids that rolled-back transactions took from the sequence.
    pub gaps: Vec<i64>,
    /// The first and the last sealed id.
    pub sealed: (i64, i64),
    /// The id of an unsealed entry.
    pub unsealed: i64,
    /// The ids of the entries of one transaction.
    pub transaction: Vec<i64>,
    /// The ids of the entries of one table.
    pub table: Vec<i64>,
    /// The ids that only the last checkpoint contains.
    pub newest: Vec<i64>,
    /// The files of two signing keys that do not belong to the log. The server can read the files.
    /// The first key has the name of the log's key, and the second key has a different name.
    pub other_keys: [PathBuf; 2],
}

impl Stage {
    fn new() -> Self {
        let cluster =
            Cluster::builder().preloaded().setting("lead_audit.seal_interval = 0").start();
        let tool = LeadAudit::new();
        let make_key = |file: &str, name: &str| {
            let path = cluster.directory().join(file);
            let key =
                tool.expect(0, &["keygen", "--name", name, "-o", text_of(&path)]).trim().to_owned();
            cluster.give_to_server(&path);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            (path, key)
        };
        let (secret, key) = make_key("key", ORIGIN);
        let (same_name_file, same_name) = make_key("same-name", ORIGIN);
        let other_keys = [same_name_file, make_key("other-name", "example.com/other").0];
        drop(app_database(&cluster, "honest"));
        call(
            &mut cluster.admin("postgres"),
            &format!("ALTER SYSTEM SET lead_audit.signing_key_file = '{}'", secret.display()),
        );
        call(&mut cluster.admin("postgres"), "SELECT pg_reload_conf()");
        write_failures(&cluster);
        // CREATE DATABASE … TEMPLATE fails while a background worker is connected to the template.
        // The server therefore restarts without workers. The restart is also an honest operation
        // that verifiers must not report.
        cluster.stop("fast");
        cluster.configure(&["shared_preload_libraries = ''".to_owned()]);
        cluster.start_again();
        let directory = tempfile::tempdir().unwrap();
        let witness = directory.path().join("witness");
        let stage = |facts| Stage {
            kept: directory.path().join("kept"),
            cluster,
            tool,
            key,
            same_name,
            witness,
            directory,
            facts,
        };
        let mut stage = stage(Facts {
            sizes: Vec::new(),
            inserts: Vec::new(),
            gaps: Vec::new(),
            sealed: (0, 0),
            unsealed: 0,
            transaction: Vec::new(),
            table: Vec::new(),
            newest: Vec::new(),
            other_keys,
        });
        stage.write_history();
        stage
    }

    fn url(&self, database: &str) -> String {
        self.cluster.connection_string("postgres", database)
    }

    fn look(&self, database: &str, state: &Path) -> i32 {
        let arguments = [
            "-q",
            "witness",
            "--once",
            "--database",
            &self.url(database),
            "--state",
            text_of(state),
            "--key",
            &self.key,
        ];
        self.tool.run(&arguments).status
    }

    /// Writes a log with six checkpoints. The auditor keeps the second checkpoint. The witness
    /// reads some of the checkpoints, including the last. After the fourth checkpoint, makes a copy
    /// of the database.
    fn write_history(&mut self) {
        let mut admin = self.cluster.admin("honest");
        let mut app = self.cluster.session("app", "honest");
        call(
            &mut app,
            "SET lead_audit.user_id = 'u-1'; SET lead_audit.user_ip = '192.0.2.1'; SET lead_audit.user_agent = E'a \"b\"\\\\\\tc é'",
        );
        add_leads(&mut app, 1, 40);
        seal(&mut admin);
        assert_eq!(self.look("honest", &self.witness), 0);
        // Two sessions write, with savepoints and rollbacks.
        let mut other = self.cluster.session("app", "honest");
        call(&mut other, "BEGIN");
        add_leads(&mut other, 41, 45);
        call(
            &mut app,
            "BEGIN; UPDATE leads SET source = 'x' WHERE created_by = 'user-3'; SAVEPOINT s; DELETE FROM leads WHERE created_by = 'user-4';
             ROLLBACK TO s; UPDATE leads SET is_deleted = true WHERE created_by = 'user-5'; COMMIT;
             BEGIN; INSERT INTO leads (id) VALUES ('undone-1'), ('undone-2'), ('undone-3'), ('undone-4'); ROLLBACK",
        );
        call(&mut other, "COMMIT");
        seal(&mut admin);
        fs::write(&self.kept, value::<String>(&mut admin, "SELECT lead_audit.latest_checkpoint()"))
            .unwrap();
        // The transaction of `other` stays prepared while entries of other transactions are
        // sealed.
        call(
            &mut other,
            "BEGIN; UPDATE leads SET source = 'late' WHERE created_by = 'user-6'; PREPARE TRANSACTION 'late'",
        );
        call(
            &mut app,
            "UPDATE leads SET id = 'moved ' || id WHERE created_by = 'user-7'; DELETE FROM leads WHERE created_by = 'user-8'",
        );
        seal(&mut admin);
        assert_eq!(self.look("honest", &self.witness), 0);
        call(
            &mut other,
            "BEGIN; INSERT INTO leads (id) VALUES ('never'); PREPARE TRANSACTION 'never'",
        );
        call(&mut app, "UPDATE leads SET source = 'y' WHERE created_by = 'user-9'");
        call(&mut other, "COMMIT PREPARED 'late'");
        call(&mut other, "ROLLBACK PREPARED 'never'");
        seal(&mut admin);
        drop((admin, app, other));
        call(&mut self.cluster.admin("postgres"), "CREATE DATABASE older TEMPLATE honest");
        let mut admin = self.cluster.admin("honest");
        let mut app = self.cluster.session("app", "honest");
        call(
            &mut admin,
            "CREATE TABLE other (a int, b text, PRIMARY KEY (b, a)); SELECT lead_audit.enable('other');
             INSERT INTO other SELECT g, 'Other ' || g FROM generate_series(1, 12) g; TRUNCATE other",
        );
        add_leads(&mut app, 101, 330);
        seal(&mut admin);
        call(
            &mut app,
            "BEGIN; INSERT INTO leads (id) VALUES ('a'); UPDATE leads SET email = 'b' WHERE id = 'a'; DELETE FROM leads WHERE id = 'a'; COMMIT",
        );
        add_leads(&mut app, 331, 335);
        seal(&mut admin);
        assert_eq!(self.look("honest", &self.witness), 0);
        add_leads(&mut app, 336, 340);
        assert_tree_whole(&mut admin);
        for database in ["older", "honest"] {
            let mut admin = self.cluster.admin(database);
            call(&mut admin, KIT);
            // Checks that the functions of the schema `kit` compute the right values: for unchanged
            // entries, the computed values must equal the stored values.
            let differing: i64 = value(
                &mut admin,
                "SELECT (SELECT count(*) FROM lead_audit.entry e WHERE checksum <> kit.checksum(e) OR key_hash <> kit.key_hash(e))
                   + (SELECT count(*) FROM lead_audit.checkpoint WHERE root <> kit.root((kit.stored_leaves())[1 : tree_size]))",
            );
            assert_eq!(differing, 0);
        }
        let ids = |admin: &mut Session, sql: &str| -> Vec<i64> {
            admin.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
        };
        let facts = &mut self.facts;
        facts.sizes = ids(&mut admin, "SELECT tree_size FROM lead_audit.checkpoint ORDER BY 1");
        facts.inserts = ids(
            &mut admin,
            "SELECT id FROM (SELECT e.id, row_number() OVER (PARTITION BY tree_size ORDER BY e.id) AS n FROM lead_audit.entry e, lead_audit.checkpoint
             WHERE entry_ids @> e.id AND operation = 'INSERT' AND outcome = 'ok' AND table_name = 'leads') e WHERE n IN (1, 2, 4, 5) ORDER BY id",
        );
        facts.gaps = ids(
            &mut admin,
            "SELECT g FROM generate_series(1, (SELECT max(last_id) FROM lead_audit.leaf_range)) g
             WHERE NOT EXISTS (SELECT FROM lead_audit.entry WHERE id = g) ORDER BY g",
        );
        facts.sealed = (
            value(&mut admin, "SELECT min(first_id) FROM lead_audit.leaf_range"),
            value(&mut admin, "SELECT max(last_id) FROM lead_audit.leaf_range"),
        );
        facts.unsealed = facts.sealed.1 + 2;
        facts.transaction = ids(
            &mut admin,
            "SELECT id FROM lead_audit.entry WHERE row_key->>'id' = 'a' ORDER BY id",
        );
        facts.table = ids(
            &mut admin,
            "SELECT id FROM lead_audit.entry WHERE table_name = 'other' ORDER BY id",
        );
        facts.newest = ids(
            &mut admin,
            "SELECT e.id FROM lead_audit.entry e, lead_audit.checkpoint WHERE entry_ids @> e.id AND tree_size = (SELECT max(tree_size) FROM lead_audit.checkpoint)",
        );
        assert!(
            facts.sizes.len() == 6
                && facts.gaps.len() >= 4
                && facts.transaction.len() == 3
                && facts.table.len() > 12
        );
        assert!(facts.inserts.len() >= 10, "{:?}", facts.inserts);
    }
}

/// Executes failing statements, and waits until the worker has written their entries.
fn write_failures(cluster: &Cluster) {
    let mut app = cluster.session("app", "honest");
    call(&mut app, "INSERT INTO leads (id) VALUES ('there')");
    for _ in 0..2 {
        assert!(app.batch_execute("INSERT INTO leads (id, email) VALUES ('there', 'x')").is_err());
    }
    assert!(app.batch_execute("UPDATE leads SET enrichment_status = repeat('x', 50)").is_err());
    let mut admin = cluster.admin("honest");
    let begin = Instant::now();
    while value::<i64>(&mut admin, "SELECT count(*) FROM lead_audit.entry WHERE outcome = 'failed'")
        < 3
    {
        assert!(begin.elapsed() < Duration::from_secs(60), "failed statements have entries");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The findings of all verifiers. The status of a verifier is 0 for "intact", 1 for "tampered", or
/// 2 for "could not tell".
#[derive(Debug, Clone, Default)]
struct Findings {
    /// The faults that `lead_audit.verify()` returns, or the error that it raises.
    sql: Vec<(Option<i64>, String)>,
    database: i32,
    offline: i32,
    python: i32,
    witness: i32,
    /// The faults that offline verification printed. Each value contains the first id, the last id
    /// and the line of the fault.
    named: Vec<(Option<(i64, i64)>, String)>,
    text: String,
    /// The reason why a step of the attempt failed.
    failed: Option<String>,
}

impl Stage {
    /// Runs all verifiers with the log's key.
    fn findings(&self, database: &str) -> Findings {
        self.findings_with(database, &[&self.key])
    }

    /// Runs all verifiers with the given verifier keys.
    fn findings_with(&self, database: &str, keys: &[&str]) -> Findings {
        let keys: Vec<&str> = keys.iter().flat_map(|key| ["--key", key]).collect();
        let mut found = Findings::default();
        let mut admin = self.cluster.admin(database);
        call(&mut admin, "SET statement_timeout = '30s'");
        found.sql =
            match admin.query("SELECT id, fault || ': ' || detail FROM lead_audit.verify()", &[]) {
                Ok(rows) => rows.iter().map(|row| (row.get(0), row.get(1))).collect(),
                Err(error) => vec![(None, format!("error: {error:?}"))],
            };
        drop(admin);
        let (url, kept) = (self.url(database), text_of(&self.kept).to_owned());
        let trust = [&keys[..], &["--checkpoint", &kept]].concat();
        let live =
            self.tool.run(&[&["verify", "--json", "-q", "--database", &url], &trust[..]].concat());
        found.database = live.status;
        found.text = format!("{}{}", live.output, live.errors);
        let file = self.directory.path().join(format!("{database}.ndjson"));
        _ = fs::remove_file(&file);
        let export = self.tool.run(&["-q", "export", "--database", &url, "-o", text_of(&file)]);
        found.text += &export.errors;
        if export.status == 0 {
            let offline =
                self.tool.run(&[&["verify", "--json", "-q", text_of(&file)], &trust[..]].concat());
            found.offline = offline.status;
            found.text += &format!("{}{}", offline.output, offline.errors);
            found.named = offline
                .output
                .lines()
                .filter(|line| line.contains("\"fault\":"))
                .map(|line| (ids_of(line), line.to_owned()))
                .collect();
            (found.python, _) = self.python(&[&trust[..], &[text_of(&file)]].concat());
        } else {
            (found.offline, found.python) = (2, 2);
        }
        let state = self.directory.path().join(format!("witness-of-{database}"));
        _ = fs::remove_dir_all(&state);
        copy(&self.witness, &state);
        let arguments = ["-q", "witness", "--once", "--database", &url, "--state", text_of(&state)];
        let witness = self.tool.run(&[&arguments[..], &keys].concat());
        found.witness = witness.status;
        found.text += &format!("witness: {}{}", witness.output, witness.errors);
        found
    }

    fn python(&self, arguments: &[&str]) -> (i32, String) {
        let answer = Command::new("python3")
            .arg(python_verifier())
            .arg("export")
            .args(arguments)
            .output()
            .expect("python3 starts");
        let text = String::from_utf8_lossy(&answer.stdout).into_owned()
            + &String::from_utf8_lossy(&answer.stderr);
        (answer.status.code().unwrap_or(2), text)
    }

    /// Makes a tampering attempt in a database of its own.
    fn make(&self, attempt: &Attempt, database: &str) -> Result<(), String> {
        let mut postgres = self.cluster.admin("postgres");
        call(&mut postgres, &format!("DROP DATABASE IF EXISTS {database}"));
        let from = if attempt.from == From::Older { "older" } else { "honest" };
        call(&mut postgres, &format!("CREATE DATABASE {database} TEMPLATE {from}"));
        let mut admin = self.cluster.admin(database);
        if attempt.unguarded {
            try_call(&mut admin, "SELECT kit.unguard()")?;
        }
        for step in &attempt.steps {
            match step {
                Step::Sql(sql) => {
                    try_call(&mut admin, sql).map_err(|error| format!("{error}\n{sql}"))?
                }
                Step::Refused(sql) => match try_call(&mut admin, sql) {
                    Err(error) if error.starts_with("42501") => {}
                    other => return Err(format!("not refused: {other:?}\n{sql}")),
                },
                Step::App(sql) => try_call(&mut self.cluster.session("app", database), sql)?,
                Step::Reconnect => admin = self.cluster.admin(database),
                Step::ForgeNotes(condition) => forge_notes(&mut admin, condition),
            }
        }
        Ok(())
    }
}

/// Replaces the signatures of the checkpoints that match an SQL condition. The new signatures are
/// made with a different key that has the name of the log's key.
fn forge_notes(admin: &mut Session, condition: &str) {
    let key = SigningKey::from_seed(ORIGIN, &[7; 32]).expect("a name");
    let rows = admin
        .query(&format!("SELECT tree_size, root FROM lead_audit.checkpoint WHERE {condition}"), &[])
        .unwrap();
    for row in &rows {
        let (size, root): (i64, Vec<u8>) = (row.get(0), row.get(1));
        let checkpoint = Checkpoint::new(ORIGIN, size as u64, root.try_into().unwrap()).unwrap();
        let note = checkpoint.sign(&key).unwrap().to_string();
        admin
            .execute(
                "UPDATE lead_audit.checkpoint SET note = $2 WHERE tree_size = $1",
                &[&size, &note],
            )
            .unwrap();
    }
}

fn ids_of(line: &str) -> Option<(i64, i64)> {
    let number = |name: &str| -> Option<i64> {
        let (_, rest) = line.split_once(&format!("\"{name}\":"))?;
        rest.split([',', '}']).next()?.parse().ok()
    };
    number("from_id").zip(number("to_id"))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

impl Findings {
    fn assert_nothing(&self, what: &str) {
        let statuses = [self.database, self.offline, self.python, self.witness];
        assert!(self.sql.is_empty() && statuses == [0; 4], "{what}: {self:#?}");
    }
}

/// Compares the findings for an attempt with the expected findings. Returns a description of each
/// difference.
fn complaints(attempt: &Attempt, found: &Findings) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut expect = |holds: bool, what: &str| {
        if !holds {
            wrong.push(what.to_owned());
        }
    };
    expect(found.database == found.offline, "verify --database and verify of an export differ");
    expect(found.python == found.offline, "Python comes to another verdict");
    expect(found.failed.is_none(), "the attempt could not be made");
    let outside = found.offline == 1 || found.witness == 1;
    match attempt.expected {
        Expected::Found => expect(outside, "neither offline verification nor the witness found it"),
        Expected::ByServer => {
            expect(!found.sql.is_empty(), "verify() did not find it");
            expect(!outside, "somebody found it who was not expected to");
        }
        Expected::Nobody => {
            expect(!outside && found.sql.is_empty(), "somebody found it who was not expected to")
        }
    }
    if !attempt.about.is_empty() && attempt.expected == Expected::Found {
        for (id, text) in &found.sql {
            expect(
                id.is_none_or(|id| attempt.about.contains(&id)),
                &format!("verify() names another entry: {id:?} {text}"),
            );
        }
        for (ids, line) in &found.named {
            let other = ids
                .is_some_and(|(from, to)| !attempt.about.iter().any(|id| (from..=to).contains(id)));
            expect(!other, &format!("offline verification names another entry: {line}"));
        }
        if attempt.named {
            let range = |id: i64| {
                found
                    .named
                    .iter()
                    .any(|(ids, _)| ids.is_some_and(|(from, to)| (from..=to).contains(&id)))
            };
            let unnamed: Vec<i64> =
                attempt.about.iter().copied().filter(|&id| !range(id)).collect();
            expect(unnamed.is_empty(), &format!("offline verification does not name {unnamed:?}"));
        }
    }
    wrong
}

#[test]
fn each_rewriting_of_history_is_found() {
    let stage = Stage::new();
    stage.findings("honest").assert_nothing("honest");
    let only = std::env::var("LEAD_AUDIT_ACCEPTANCE_ONLY").unwrap_or_default();
    let all: Vec<Attempt> =
        attempts(&stage.facts).into_iter().filter(|attempt| attempt.name.contains(&only)).collect();
    assert!(!only.is_empty() || all.len() >= 100, "{} attempts", all.len());
    let (next, results) = (Mutex::new(all.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for number in 0..AT_ONCE {
            let (stage, next, results) = (&stage, &next, &results);
            scope.spawn(move || {
                loop {
                    let Some(attempt) = next.lock().unwrap().next() else { break };
                    let database = format!("victim_{number}");
                    let made = stage.make(attempt, &database);
                    let mut found = stage.findings(&database);
                    found.failed = made.err();
                    println!("{}: {:?}", attempt.name, complaints(attempt, &found));
                    results.lock().unwrap().push((attempt, found));
                }
            });
        }
    });
    let results = results.into_inner().unwrap();
    assert_eq!(results.len(), all.len());
    show(&results);
    let wrong: Vec<String> = results
        .iter()
        .filter_map(|(attempt, found)| {
            let complaints = complaints(attempt, found);
            (!complaints.is_empty()).then(|| {
                format!(
                    "== {}: {}\n{:?}\n{:?}\n{}",
                    attempt.name,
                    complaints.join("; "),
                    found.failed,
                    found.sql,
                    found.text
                )
            })
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} attempts:\n{}", wrong.len(), all.len(), wrong.join("\n"));
}

/// Prints a table of the attempts, with the verifiers that found them.
fn show(results: &[(&Attempt, Findings)]) {
    let mut kinds: BTreeMap<&str, [usize; 6]> = BTreeMap::new();
    for (attempt, found) in results {
        let row = kinds.entry(attempt.kind).or_default();
        let found = [
            true,
            !found.sql.is_empty(),
            found.database == 1,
            found.offline == 1,
            found.python == 1,
            found.witness == 1,
        ];
        for (count, found) in row.iter_mut().zip(found) {
            *count += usize::from(found);
        }
    }
    println!(
        "{:<40} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "", "attempts", "verify()", "database", "export", "Python", "witness"
    );
    for (kind, row) in kinds {
        print!("{kind:<40}");
        row.iter().for_each(|count| print!(" {count:>8}"));
        println!();
    }
}
