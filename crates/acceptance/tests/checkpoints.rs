//! Tests the publishing of checkpoints, also during crashes of the server. Each checkpoint is
//! published once, and only after its transaction has committed. Published checkpoints agree with
//! the database, in the same cluster and after a move to another cluster.

use acceptance::{
    Cluster, Random, Session, add_leads, app_database, assert_intact, assert_tree_whole, call,
    seal, setting, sqlstate, unsealed, value,
};
use ledger::checkpoint::Checkpoint;
use ledger::note::{Note, SigningKey};
use postgres::fallible_iterator::FallibleIterator;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Creates a directory beside the data directory. The operating-system user of the server becomes
/// its owner.
fn directory(cluster: &Cluster, name: &str) -> PathBuf {
    let directory = cluster.directory().join(name);
    fs::create_dir(&directory).expect("a directory can be made");
    cluster.give_to_server(&directory);
    directory
}

/// Creates a signing key, and a key file that the server can read.
fn key_file(cluster: &Cluster, name: &str) -> (SigningKey, PathBuf) {
    let key = SigningKey::generate(name).expect("a key");
    let file = cluster.directory().join(format!("{name}.key"));
    fs::write(&file, key.to_text().as_str()).expect("the key can be written");
    cluster.give_to_server(&file);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("its mode can be set");
    (key, file)
}

/// Returns the texts of the published files, by subdirectory and tree size. Omits unfinished
/// files.
fn published(directory: &Path) -> BTreeMap<(String, u64), String> {
    let mut files = BTreeMap::new();
    for folder in fs::read_dir(directory).expect("the directory can be read") {
        let folder = folder.expect("a folder");
        for file in fs::read_dir(folder.path()).expect("the folder can be read") {
            let file = file.expect("a file");
            let name = file.file_name().into_string().expect("UTF-8");
            if name.starts_with('.') {
                continue;
            }
            assert_eq!(name.len(), 20, "{name}");
            let text = fs::read_to_string(file.path()).expect("the file can be read");
            files.insert(
                (folder.file_name().into_string().expect("UTF-8"), name.parse().expect("a size")),
                text,
            );
        }
    }
    files
}

fn notes(session: &mut Session) -> BTreeMap<u64, String> {
    let rows = session
        .query("SELECT tree_size, note FROM lead_audit.checkpoint", &[])
        .expect("checkpoints can be read");
    rows.iter().map(|row| (row.get::<_, i64>(0) as u64, row.get(1))).collect()
}

/// Waits for the next notification, and returns a list with its payload.
fn hear(session: &mut Session) -> Vec<String> {
    let mut notifications = session.notifications();
    let next = notifications.timeout_iter(Duration::from_secs(60)).take(1);
    next.map(|one| Ok(one.payload().to_owned())).collect().expect("notifications come")
}

#[test]
fn checkpoints_are_signed_and_leave_by_file_log_and_notification() {
    let cluster = Cluster::builder().preloaded().setting("lead_audit.seal_interval = '1h'").start();
    let mut admin = app_database(&cluster, "signed");
    let mut app = cluster.session("app", "signed");
    let directory = directory(&cluster, "checkpoints");
    let (key, file) = key_file(&cluster, "example.org-crm");
    call(
        &mut admin,
        &format!(
            "ALTER DATABASE signed SET lead_audit.signing_key_file = '{}'; ALTER DATABASE signed SET lead_audit.checkpoint_dir = '{}'",
            file.display(),
            directory.display()
        ),
    );
    let mut admin = cluster.admin("signed");
    call(&mut app, "LISTEN lead_audit_checkpoint");
    add_leads(&mut app, 1, 300);
    call(&mut admin, "BEGIN");
    assert_eq!(seal(&mut admin), 300);
    assert!(published(&directory).is_empty(), "nothing leaves before the commit");
    call(&mut admin, "ROLLBACK");
    assert!(published(&directory).is_empty(), "nothing leaves that was rolled back");
    call(&mut admin, "BEGIN; SAVEPOINT s; SELECT lead_audit.seal(); ROLLBACK TO s; COMMIT");
    assert!(published(&directory).is_empty(), "nothing leaves that was rolled back to a savepoint");
    call(&mut admin, "BEGIN; SAVEPOINT s; SELECT lead_audit.seal(); RELEASE s; COMMIT");
    // When a session has sealed, the worker sends the notification of the new checkpoint. The
    // worker's first notification contains only the newest checkpoint.
    let mut heard = hear(&mut app);
    add_leads(&mut app, 301, 305);
    assert_eq!(seal(&mut admin), 305);
    assert_eq!(seal(&mut admin), 305);

    let notes = notes(&mut admin);
    let files: BTreeMap<u64, String> = published(&directory)
        .into_iter()
        .map(|((folder, size), text)| {
            assert_eq!(folder, "example.org-crm");
            (size, text)
        })
        .collect();
    assert_eq!(files, notes);
    assert_eq!(files.keys().copied().collect::<Vec<_>>(), [300, 305]);
    for (size, text) in &files {
        let note = Note::parse(text.as_bytes()).expect("a signed note");
        let (checkpoint, _) =
            Checkpoint::open(&note, key.verifier(), &[]).expect("its signature is good");
        assert_eq!(checkpoint.size(), *size);
    }
    assert_eq!(
        value::<String>(&mut admin, "SELECT lead_audit.verifier_key()"),
        key.verifier().to_string()
    );
    assert_eq!(value::<String>(&mut admin, "SELECT lead_audit.origin()"), "example.org-crm");
    assert!(value::<bool>(
        &mut admin,
        "SELECT last_checkpoint_signed AND publishing_errors = 0 FROM lead_audit.stats"
    ));

    heard.append(&mut hear(&mut app));
    assert_eq!(heard, notes.values().cloned().collect::<Vec<_>>());
    let logged: Vec<String> = cluster
        .log_text()
        .lines()
        .filter(|line| line.contains("lead_audit checkpoint \""))
        .map(str::to_owned)
        .collect();
    assert_eq!(logged.len(), 2, "{logged:#?}");
    for (line, note) in logged.iter().zip(notes.values()) {
        assert!(
            line.ends_with(&format!("lead_audit checkpoint \"{}\"", note.replace('\n', "\\n"))),
            "{line}"
        );
    }

    // If the server has the signing key, lead_audit.verify() finds a bad signature and a missing
    // signature. Without the signing key, a tamperer cannot make a valid signature.
    assert_intact(&mut admin);
    call(
        &mut admin,
        "ALTER TABLE lead_audit.checkpoint DISABLE TRIGGER ALL;
         UPDATE lead_audit.checkpoint SET note = overlay(note PLACING 'AAAA' FROM length(note) - 10 FOR 4) WHERE tree_size = 300;
         UPDATE lead_audit.checkpoint SET note = split_part(note, E'\\n\\n', 1) || E'\\n' WHERE tree_size = 305",
    );
    let faults: Vec<String> = admin
        .query("SELECT fault FROM lead_audit.verify()", &[])
        .expect("verify() works")
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(faults, ["signature", "signature"]);
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let cluster = Cluster::start();
    let mut admin = app_database(&cluster, "keys");
    add_leads(&mut cluster.session("app", "keys"), 1, 5);
    let (_, file) = key_file(&cluster, "log");
    let mut refused = |path: &str, detail: &str| {
        call(&mut admin, &format!("SET lead_audit.signing_key_file = '{path}'"));
        let error =
            admin.batch_execute("SELECT lead_audit.seal()").expect_err("this key is refused");
        let error = error.as_db_error().expect("an error of the server's");
        assert_eq!(error.code().code(), "F0000", "{error:?}");
        assert!(error.detail().is_some_and(|found| found.contains(detail)), "{error:?}");
    };
    let path = file.to_str().expect("UTF-8").to_owned();
    for mode in [0o640, 0o604, 0o660, 0o601] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("its mode can be set");
        refused(&path, &format!("{mode:04o}"));
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("its mode can be set");
    let inside = cluster.directory().join("data/log.key");
    fs::copy(&file, &inside).expect("a copy");
    cluster.give_to_server(&inside);
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o600)).expect("its mode can be set");
    refused(inside.to_str().expect("UTF-8"), "inside the data directory");
    let link = cluster.directory().join("link");
    std::os::unix::fs::symlink(&inside, &link).expect("a link");
    refused(link.to_str().expect("UTF-8"), "inside the data directory");
    refused("/nonexistent/key", "No such file");
    refused(cluster.directory().to_str().expect("UTF-8"), "not a regular file");
    let other = cluster.directory().join("other");
    fs::write(&other, "PRIVATE+KEY+log+00000000+AAAA\n").expect("written");
    cluster.give_to_server(&other);
    fs::set_permissions(&other, fs::Permissions::from_mode(0o400)).expect("its mode can be set");
    refused(other.to_str().expect("UTF-8"), "does not hold a signing key");
    call(
        &mut admin,
        &format!("SET lead_audit.signing_key_file = '{path}'; SET lead_audit.origin = 'another'"),
    );
    assert_eq!(sqlstate(&mut admin, "SELECT lead_audit.seal()"), "F0000");
    assert_eq!(
        value::<i64>(&mut admin, "SELECT count(*) FROM lead_audit.checkpoint"),
        0,
        "nothing was sealed unsigned instead"
    );
    call(&mut admin, "RESET lead_audit.origin");
    assert_eq!(seal(&mut admin), 5);
}

#[test]
fn unpublished_checkpoints_are_published_later() {
    let cluster = Cluster::start();
    let mut admin = app_database(&cluster, "later");
    let mut app = cluster.session("app", "later");
    let missing = cluster.directory().join("missing");
    call(&mut admin, &format!("SET lead_audit.checkpoint_dir = '{}'", missing.display()));
    let mut sealed = 0;
    for _ in 0..3 {
        add_leads(&mut app, sealed + 1, sealed + 10);
        sealed += 10;
        assert_eq!(seal(&mut admin), i64::from(sealed), "sealing goes on");
    }
    let warnings = admin.warnings();
    assert_eq!(warnings.len(), 1, "the same failure again is said once: {warnings:?}");
    assert!(
        warnings[0].contains("could not be published") && warnings[0].contains("No such file"),
        "{warnings:?}"
    );
    let errors: i64 = value(
        &mut admin,
        "SELECT publishing_errors FROM lead_audit.stats WHERE last_publishing_error LIKE '%No such file%'",
    );
    assert!(errors > 0);
    fs::create_dir(&missing).expect("a directory can be made");
    cluster.give_to_server(&missing);
    assert_eq!(seal(&mut admin), 30);
    let files: Vec<u64> = published(&missing).into_keys().map(|(_, size)| size).collect();
    assert_eq!(files, [10, 20, 30]);
    // A new session does not know which checkpoints other sessions have published. A new session
    // publishes each checkpoint that has no file.
    for file in fs::read_dir(
        fs::read_dir(&missing).expect("readable").next().expect("one").expect("folder").path(),
    )
    .expect("readable")
    {
        let path = file.expect("a file").path();
        if !path.ends_with(format!("{:020}", 10)) {
            fs::remove_file(path).expect("removed");
        }
    }
    let mut other = cluster.admin("later");
    call(&mut other, &format!("SET lead_audit.checkpoint_dir = '{}'", missing.display()));
    assert_eq!(seal(&mut other), 30);
    assert_eq!(
        published(&missing).into_keys().map(|(_, size)| size).collect::<Vec<_>>(),
        [10, 20, 30]
    );

    // Publishing never overwrites the file of a different checkpoint with the same tree size. The
    // database `copy` continues an older state of the log with a different entry, so its checkpoint
    // of size 31 differs from the published checkpoint of size 31.
    let before = published(&missing);
    cluster.run(
        "pg_dump",
        &["-Fc", "-d", "later", "-f", cluster.directory().join("old").to_str().expect("UTF-8")],
    );
    add_leads(&mut app, 31, 31);
    assert_eq!(seal(&mut other), 31);
    call(&mut cluster.admin("postgres"), "CREATE DATABASE copy");
    cluster.run(
        "pg_restore",
        &["-d", "copy", cluster.directory().join("old").to_str().expect("UTF-8")],
    );
    let mut copy = cluster.admin("copy");
    call(
        &mut copy,
        &format!(
            "SET lead_audit.checkpoint_dir = '{}'; INSERT INTO leads (id) VALUES ('another')",
            missing.display()
        ),
    );
    assert_eq!(seal(&mut copy), 31);
    let warnings = copy.warnings();
    assert!(warnings.iter().any(|warning| warning.contains("forked")), "{warnings:?}");
    let after = published(&missing);
    assert_eq!(after.len(), before.len() + 1);
    assert!(before.iter().all(|(key, text)| after.get(key) == Some(text)));
    assert_eq!(after.values().next_back(), notes(&mut other).values().next_back());
}

#[test]
fn a_crash_causes_neither_gap_nor_fork() {
    let crashes = setting("LEAD_AUDIT_ACCEPTANCE_CRASHES", 6);
    let cluster = Cluster::builder()
        .preloaded()
        .setting("restart_after_crash = on")
        .setting("lead_audit.seal_interval = '20ms'")
        .start();
    drop(app_database(&cluster, "crash"));
    let directory = directory(&cluster, "checkpoints");
    call(
        &mut cluster.admin("postgres"),
        &format!("ALTER SYSTEM SET lead_audit.checkpoint_dir = '{}'", directory.display()),
    );
    call(&mut cluster.admin("postgres"), "SELECT pg_reload_conf()");
    let mut random = Random::new(5100);
    let mut seen: BTreeMap<(String, u64), String> = BTreeMap::new();
    for round in 0..crashes {
        let stopped = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for writer in 0..3 {
                let (cluster, stopped) = (&cluster, &stopped);
                scope.spawn(move || write_until_the_end(cluster, stopped, round, writer));
            }
            std::thread::sleep(Duration::from_millis(100 + random.below(600)));
            // On a busy machine, the server can take longer than the pause above to publish three
            // checkpoints.
            let (before, begin) = (seen.len(), Instant::now());
            while published(&directory).len() < before + 3
                && begin.elapsed() < Duration::from_secs(60)
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            if round % 3 == 2 {
                cluster.stop("immediate");
            } else {
                kill_a_process(&cluster, round % 3 == 0);
            }
            stopped.store(true, Ordering::Relaxed);
        });
        if round % 3 == 2 {
            cluster.start_again();
        }
        let mut admin = wait_until_it_is_back(&cluster);
        // The database must still contain every checkpoint that was published before the crash.
        let notes = notes(&mut admin);
        for ((folder, size), text) in published(&directory) {
            assert_eq!(
                notes.get(&size),
                Some(&text),
                "round {round}: {folder}/{size} is not what the database has"
            );
            seen.insert((folder, size), text);
        }
        assert!(
            seen.keys().all(|(_, size)| notes.contains_key(size)),
            "round {round}: a published checkpoint is gone"
        );
        seal(&mut admin);
        assert_eq!(unsealed(&mut admin), 0, "round {round}");
        assert_tree_whole(&mut admin);
        assert_intact(&mut admin);
    }
    let mut admin = cluster.admin("crash");
    let (size, checkpoints) = (seal(&mut admin), notes(&mut admin).len());
    // A worker can be killed after it has committed a checkpoint and before it has written the
    // checkpoint's file. The next worker writes the missing file.
    let begin = Instant::now();
    while published(&directory).len() < notes(&mut admin).len() {
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "{} of {checkpoints} were published",
            published(&directory).len()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    println!(
        "{crashes} crashes; {size} entries in {checkpoints} checkpoints, all of which were published"
    );
    assert!(
        checkpoints as u64 > 2 * crashes,
        "only {checkpoints} checkpoints: this proves nothing"
    );
}

fn write_until_the_end(cluster: &Cluster, stopped: &AtomicBool, round: u64, writer: u64) {
    let mut random = Random::new(5200 + round * 10 + writer);
    let Ok(mut session) = cluster.try_session("app", "crash") else { return };
    for number in 0.. {
        if stopped.load(Ordering::Relaxed) {
            return;
        }
        let rows = if random.one_in(20) { 2000 } else { 1 + random.below(20) };
        let end = if random.one_in(4) { "ROLLBACK" } else { "COMMIT" };
        let sql = format!(
            "BEGIN; INSERT INTO leads (id) SELECT '{round}-{writer}-{number}-' || g FROM generate_series(1, {rows}) g; {end}"
        );
        if session.batch_execute(&sql).is_err() {
            return;
        }
    }
}

/// Kills a process with SIGKILL: the worker if `worker` is true, otherwise the server process of a
/// writer.
fn kill_a_process(cluster: &Cluster, worker: bool) {
    let condition = if worker { "backend_type = 'lead_audit worker'" } else { "usename = 'app'" };
    let sql =
        format!("SELECT min(pid) FROM pg_stat_activity WHERE datname = 'crash' AND {condition}");
    let begin = Instant::now();
    let pid = loop {
        if let Some(pid) = value::<Option<i32>>(&mut cluster.admin("postgres"), &sql) {
            break pid;
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "there is no such process: {condition}");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(
        Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill runs").success()
    );
}

fn wait_until_it_is_back(cluster: &Cluster) -> Session {
    let begin = Instant::now();
    loop {
        let back = || {
            let mut session = cluster.try_session("postgres", "crash").ok()?;
            session.batch_execute("SELECT pg_sleep(0.1); CREATE TEMP TABLE ready ()").ok()?;
            Some(session)
        };
        if let Some(session) = back() {
            return session;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "the server did not come back");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_tree_continues_after_dump_and_restore() {
    let cluster = Cluster::start();
    let mut admin = app_database(&cluster, "source");
    let (mut app, mut open) = (cluster.session("app", "source"), cluster.session("app", "source"));
    add_leads(&mut app, 1, 400);
    seal(&mut admin);
    // The test makes the dump in a difficult state of the log. The transaction of the session
    // `open` has not ended. The transaction of the session `ending` ends after the last sealing
    // before the dump. Five later entries are also unsealed.
    call(&mut open, "BEGIN; INSERT INTO leads (id) VALUES ('open')");
    let mut ending = cluster.session("app", "source");
    call(&mut ending, "BEGIN; INSERT INTO leads (id) VALUES ('ending')");
    add_leads(&mut app, 401, 405);
    assert_eq!(seal(&mut admin), 405);
    call(&mut ending, "COMMIT");
    add_leads(&mut app, 406, 410);
    let file = cluster.directory().join("source.dump");
    let file = file.to_str().expect("UTF-8");
    cluster.run("pg_dump", &["-Fc", "-d", "source", "-f", file]);
    let origin: String = value(&mut admin, "SELECT lead_audit.origin()");
    let checkpoint: String = value(&mut admin, "SELECT lead_audit.latest_checkpoint()");
    let root = |session: &mut Session, size: i64| -> String {
        value(
            session,
            &format!(
                "SELECT encode(root, 'hex') FROM lead_audit.checkpoint WHERE tree_size = {size}"
            ),
        )
    };

    // The worker of the cluster `other` seals every millisecond, even during the restore.
    let other = Cluster::builder().preloaded().setting("lead_audit.seal_interval = '1ms'").start();
    call(&mut other.admin("postgres"), "CREATE ROLE app LOGIN");
    for (name, arguments) in [
        ("serial", vec!["--single-transaction"]),
        ("plain", vec![]),
        ("parallel", vec!["-j", "4"]),
        ("again", vec!["-j", "4"]),
    ] {
        call(&mut other.admin("postgres"), &format!("CREATE DATABASE {name}"));
        let mut all = vec!["--exit-on-error", "-d", name];
        all.extend(arguments);
        all.push(file);
        other.run("pg_restore", &all);
        let mut admin = other.admin(name);
        assert_eq!(value::<String>(&mut admin, "SELECT lead_audit.origin()"), origin, "{name}");
        let size = seal(&mut admin);
        assert_eq!(
            size, 411,
            "{name}: what was not sealed before is now, the entry of the transaction that ended too"
        );
        assert_eq!(unsealed(&mut admin), 0);
        assert_eq!(
            value::<i64>(&mut admin, "SELECT count(*) FROM lead_audit.open_gap"),
            0,
            "{name}"
        );
        assert_eq!(value::<i64>(&mut admin, "SELECT count(*) FROM lead_audit.tree"), 1, "{name}");
        assert_eq!(root(&mut admin, 405), root(&mut cluster.admin("source"), 405));
        assert!(notes(&mut admin).values().any(|note| *note == checkpoint));
        add_leads(&mut other.session("app", name), 1001, 1100);
        assert_eq!(seal(&mut admin), 511);
        assert_tree_whole(&mut admin);
        assert_intact(&mut admin);
    }
    // The dump must have changed nothing in the database `source`.
    call(&mut open, "COMMIT");
    assert_eq!(seal(&mut admin), 412);
    assert_tree_whole(&mut admin);

    // A restore of the schema without the data creates an empty log, whose tree begins with the
    // size 0.
    call(&mut cluster.admin("postgres"), "CREATE DATABASE empty");
    let schema = cluster.directory().join("schema.sql");
    let schema = schema.to_str().expect("UTF-8");
    cluster.run("pg_dump", &["--schema-only", "-d", "source", "-f", schema]);
    cluster.run(
        "psql",
        &["-Xq", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-d", "empty", "-f", schema],
    );
    let mut admin = cluster.admin("empty");
    assert_eq!(seal(&mut admin), 0);
    add_leads(&mut cluster.session("app", "empty"), 1, 7);
    assert_eq!(seal(&mut admin), 7);
    assert_tree_whole(&mut admin);
    call(
        &mut admin,
        "DROP EXTENSION lead_audit CASCADE; CREATE EXTENSION lead_audit; DROP EXTENSION lead_audit CASCADE",
    );
    assert_eq!(
        value::<i64>(
            &mut admin,
            "SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace('lead_audit')"
        ),
        0
    );
}
