//! Runs ALTER EXTENSION lead_audit UPDATE from every released version. An upgraded database must
//! have the same catalog as a new database, must keep its audit trail, and must let sessions write
//! during the update. Until the update, the new library must work with the old SQL objects. A dump
//! of a database with a released version must be restorable into a server with the present version.

use acceptance::{
    Cluster, Session, add_leads, app_database, assert_intact, call, seal, sqlstate, try_call,
    unsealed, value,
};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The default version of the control file. ALTER EXTENSION UPDATE without TO updates to this
/// version.
const THIS: &str = concat!(env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR"));
const CATALOG: &str = include_str!("../sql/catalog.sql");

/// A query that returns the number of audit triggers that do not fire for the writes of a
/// subscription.
const OLD_TRIGGERS: &str =
    "SELECT count(*) FROM lead_audit.audit_trigger WHERE is_on AND NOT is_current";

fn catalog(admin: &mut Session) -> BTreeSet<String> {
    call(admin, "SET search_path = pg_catalog");
    let facts: Vec<String> = admin
        .query(CATALOG, &[])
        .expect("the catalog can be read")
        .iter()
        .map(|row| row.get(0))
        .collect();
    call(admin, "RESET search_path");
    assert!(facts.len() > 300, "the query has lost most of the catalog: {facts:#?}");
    facts.into_iter().collect()
}

/// Returns the released versions before the present version, from the oldest version on. The
/// directory sql/released contains the install scripts of the released versions.
fn released() -> Vec<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sql/released");
    let files = directory
        .read_dir()
        .expect("sql/released")
        .map(|file| file.expect("a file").file_name().into_string().expect("UTF-8"));
    let mut versions: Vec<String> = files
        .filter_map(|name| {
            Some(name.strip_prefix("lead_audit--")?.strip_suffix(".sql")?.to_owned())
        })
        .collect();
    versions.sort_by_key(|version| {
        version.split('.').map(|part| part.parse::<u32>().expect("a number")).collect::<Vec<_>>()
    });
    assert!(
        versions.starts_with(&["1.0".to_owned()]) && !versions.contains(&THIS.to_owned()),
        "{versions:?}"
    );
    versions
}

/// Returns the ways to update from a version to the present version. The first way is a single
/// statement. If other versions lie between these two versions, a second way has one statement for
/// each later version.
fn ways(from: &str) -> Vec<Vec<String>> {
    let straight = vec!["ALTER EXTENSION lead_audit UPDATE".to_owned()];
    let later = released()
        .into_iter()
        .skip_while(|version| version != from)
        .skip(1)
        .chain([THIS.to_owned()]);
    let steps: Vec<String> =
        later.map(|version| format!("ALTER EXTENSION lead_audit UPDATE TO '{version}'")).collect();
    if steps.len() > 1 { vec![straight, steps] } else { vec![straight] }
}

/// Creates a database with the extension in the earlier version `version_then`, the table `leads`
/// and the role `app`.
fn database_of(version_then: &str, cluster: &Cluster, name: &str) -> Session {
    let mut admin = app_database(cluster, name);
    call(
        &mut admin,
        &format!(
            "DROP EXTENSION lead_audit CASCADE; DROP SCHEMA IF EXISTS lead_audit; CREATE EXTENSION lead_audit VERSION '{version_then}'"
        ),
    );
    assert_eq!(version(&mut admin), version_then);
    admin
}

fn version(admin: &mut Session) -> String {
    value(admin, "SELECT extversion FROM pg_extension WHERE extname = 'lead_audit'")
}

/// Returns a digest of all entries up to the id `last`.
fn digest(admin: &mut Session, last: i64) -> String {
    value(
        admin,
        &format!(
            "SELECT md5(string_agg(concat_ws(' ', id, encode(checksum, 'hex'), row_key, row_values, changed_values), E'\\n' ORDER BY id))
             FROM lead_audit.entry WHERE id <= {last}"
        ),
    )
}

/// Executes statements in a new database, and returns a description of the database's catalog.
fn catalog_after(cluster: &Cluster, name: &str, statements: &[String]) -> BTreeSet<String> {
    call(&mut cluster.admin("postgres"), &format!("CREATE DATABASE {name}"));
    let mut admin = cluster.admin(name);
    for statement in statements {
        call(&mut admin, statement);
    }
    catalog(&mut admin)
}

fn assert_same(upgraded: &BTreeSet<String>, new: &BTreeSet<String>, how: &str) {
    let only = |these: &BTreeSet<String>, those: &BTreeSet<String>| {
        these.difference(those).cloned().collect::<Vec<_>>().join("\n")
    };
    assert!(
        new == upgraded,
        "{how} does not make what CREATE EXTENSION makes: see docs/decisions/004-upgrade-scripts.md\n\
         --- only in a new database:\n{}\n--- only in an upgraded one:\n{}\n---",
        only(new, upgraded),
        only(upgraded, new)
    );
}

#[test]
fn an_upgraded_database_equals_a_new_one() {
    let cluster = Cluster::start();
    let create = |version: &str| format!("CREATE EXTENSION lead_audit VERSION '{version}'");
    let versions: Vec<String> = released().into_iter().chain([THIS.to_owned()]).collect();
    for (number, to) in versions.iter().enumerate().skip(1) {
        let new = catalog_after(&cluster, &format!("new_{number}"), &[create(to)]);
        for (other, from) in versions[..number].iter().enumerate() {
            let update = format!("ALTER EXTENSION lead_audit UPDATE TO '{to}'");
            let upgraded = catalog_after(
                &cluster,
                &format!("from_{other}_to_{number}"),
                &[create(from), update],
            );
            assert_same(&upgraded, &new, &format!("ALTER EXTENSION UPDATE from {from} to {to}"));
        }
    }
    let new = catalog_after(&cluster, "new", &["CREATE EXTENSION lead_audit".to_owned()]);
    let steps = [vec![create(&versions[0])], ways(&versions[0]).pop().expect("a way")].concat();
    assert_same(
        &catalog_after(&cluster, "by_steps", &steps),
        &new,
        "ALTER EXTENSION UPDATE, a step for each version,",
    );
}

#[test]
fn the_trail_continues_after_the_update() {
    for cluster in [Cluster::start(), Cluster::builder().preloaded().start()] {
        call(&mut cluster.admin("postgres"), "CREATE ROLE auditor");
        for (number, from) in released().iter().enumerate() {
            for (other, steps) in ways(from).iter().enumerate() {
                trail_stays(&cluster, &format!("older_{number}_{other}"), from, steps);
            }
        }
    }
}

/// Executes a failing statement. If the library is preloaded, waits until the failed statement has
/// an entry.
fn fails_and_is_kept(app: &mut Session, admin: &mut Session, number: i64) {
    assert_eq!(sqlstate(app, "INSERT INTO leads (id) VALUES (NULL)"), "23502");
    let begin = Instant::now();
    while value::<bool>(admin, "SELECT current_setting('shared_preload_libraries') <> ''")
        && value::<i64>(
            admin,
            "SELECT count(*) FROM lead_audit.entry WHERE outcome = 'failed' AND error_code = '23502'",
        ) < number
    {
        assert!(begin.elapsed() < Duration::from_secs(60), "what failed has no entry");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn trail_stays(cluster: &Cluster, name: &str, from: &str, steps: &[String]) {
    let mut admin = database_of(from, cluster, name);
    let mut app = cluster.session("app", name);
    add_leads(&mut app, 1, 500);

    // With the new library, all features of the old version must work with the old SQL objects.
    call(
        &mut app,
        "UPDATE leads SET is_deleted = true WHERE created_by = 'user-1'; DELETE FROM leads WHERE created_by = 'user-2'",
    );
    call(
            &mut admin,
            "CREATE TABLE other (id int PRIMARY KEY, note text); INSERT INTO other VALUES (1, 'there before');
             SELECT lead_audit.enable('other', baseline => true); TRUNCATE other; INSERT INTO other VALUES (2, 'x');
             CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id); SELECT lead_audit.enable('parted');
             CREATE TABLE part PARTITION OF parted DEFAULT; INSERT INTO parted VALUES (1);
             ALTER TABLE other RENAME TO another; ALTER TABLE another ADD COLUMN more int; UPDATE another SET more = 1;
             CREATE TABLE gone (id int); SELECT lead_audit.enable('gone'); DROP TABLE gone;
             GRANT USAGE ON SCHEMA lead_audit TO auditor; GRANT SELECT ON lead_audit.log, lead_audit.stats TO auditor;
             GRANT EXECUTE ON FUNCTION lead_audit.history(regclass, text), lead_audit.verify(bigint, bigint, timestamptz, timestamptz) TO auditor;
             CREATE VIEW public.mine AS SELECT id, new_values FROM lead_audit.log WHERE user_id IS NULL",
        );
    assert_eq!((app.warnings(), admin.warnings()), (vec![], vec![]));
    let refused = app
        .batch_execute("ALTER TABLE leads DISABLE TRIGGER \"00_lead_audit_row\"")
        .expect_err("the owner may not");
    assert_eq!(refused.code().map(|code| code.code().to_owned()).as_deref(), Some("42501"));
    let history =
        "SELECT string_agg(operation, ' ' ORDER BY id) FROM lead_audit.history('another', '2')";
    assert_eq!(value::<String>(&mut admin, history), "INSERT UPDATE");
    assert_eq!(value::<i64>(&mut admin, "SELECT entries_not_written FROM lead_audit.stats"), 0);
    let recording = "SELECT state || ': ' || coalesce(reason, '') FROM lead_audit.status() WHERE part = 'recording'";
    let older = format!("on: by a library that is newer than the SQL objects of version {from}");
    assert_eq!(value::<String>(&mut admin, recording), older);
    let sealed = seal(&mut admin);
    fails_and_is_kept(&mut app, &mut admin, 1);
    assert_intact(&mut admin);
    let before: i64 = value(&mut admin, "SELECT max(id) FROM lead_audit.entry");
    let digest_before = digest(&mut admin, before);
    let watching = "SELECT md5(string_agg(concat_ws(' ', watch_id, table_schema, table_name, soft_delete_column, state, enabled_at, ended_at, baseline_at), ' ' ORDER BY watch_id)) FROM lead_audit.watch";
    let watching_before: String = value(&mut admin, watching);

    // Three sessions write before and during the update, and stay connected all the time.
    let (stop, written) = (AtomicBool::new(false), AtomicBool::new(false));
    let changes: i64 = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
                .map(|writer| {
                    let mut session = cluster.session("app", name);
                    let (stop, written) = (&stop, &written);
                    scope.spawn(move || {
                        let mut changes = 0;
                        while changes < 20 || !stop.load(Ordering::Relaxed) {
                            call(
                                &mut session,
                                &format!("INSERT INTO leads (id) VALUES ('{writer}-{changes}'); UPDATE leads SET source = 'b' WHERE id = '{writer}-{changes}'"),
                            );
                            changes += 2;
                            written.store(true, Ordering::Relaxed);
                        }
                        assert_eq!(session.warnings(), [""; 0]);
                        changes
                    })
                })
                .collect();
        while !written.load(Ordering::Relaxed)
            && !writers.iter().any(std::thread::ScopedJoinHandle::is_finished)
        {
            std::thread::yield_now();
        }
        let failed = steps.iter().find_map(|step| try_call(&mut admin, step).err());
        stop.store(true, Ordering::Relaxed);
        assert_eq!(failed, None);
        writers.into_iter().map(|writer| writer.join().expect("each writer ends")).sum()
    });
    assert_eq!(version(&mut admin), THIS);
    assert_eq!(value::<String>(&mut admin, recording), "on: ");
    let entries = format!(
        "SELECT count(*) FROM lead_audit.entry WHERE id > {before} AND operation IN ('INSERT', 'UPDATE')"
    );
    assert_eq!(value::<i64>(&mut admin, &entries), changes);

    assert_eq!(value::<i64>(&mut admin, OLD_TRIGGERS), 0);

    assert_eq!(digest(&mut admin, before), digest_before);
    assert_eq!(value::<String>(&mut admin, watching), watching_before);
    assert_eq!(value::<String>(&mut admin, history), "INSERT UPDATE");
    call(
        &mut app,
        "UPDATE leads SET is_deleted = false WHERE created_by = 'user-1'; TRUNCATE leads",
    );
    call(&mut app, "INSERT INTO leads (id) VALUES ('at last')");
    call(
            &mut admin,
            "INSERT INTO parted VALUES (2); CREATE TABLE new_one (id int PRIMARY KEY); SELECT lead_audit.enable('new_one'); INSERT INTO new_one VALUES (1);
             SELECT lead_audit.disable('another'); SELECT lead_audit.enable('another'); INSERT INTO another VALUES (3)",
        );
    assert_eq!((app.warnings(), admin.warnings()), (vec![], vec![]));
    fails_and_is_kept(&mut app, &mut admin, 2);
    assert_eq!(value::<i64>(&mut admin, "SELECT entries_not_written FROM lead_audit.stats"), 0);
    assert!(seal(&mut admin) > sealed, "the tree grows");
    assert_eq!(unsealed(&mut admin), 0);
    assert_intact(&mut admin);
    call(&mut admin, "DELETE FROM another; INSERT INTO leads SELECT * FROM leads LIMIT 0");

    // After the update, the rights that were granted before must still exist.
    call(
            &mut admin,
            "SET ROLE auditor; SELECT * FROM lead_audit.log LIMIT 1; SELECT * FROM lead_audit.history('leads', 'at last'); SELECT * FROM lead_audit.verify();
             SELECT * FROM lead_audit.stats; RESET ROLE; SELECT count(*) FROM public.mine",
        );
    assert!(admin.batch_execute("SET ROLE auditor; SELECT lead_audit.disable('leads')").is_err());
}

/// Before the update from 1.0, the schema lead_audit_internal does not exist. Any role with the
/// right to create schemas can create a schema lead_audit_internal.
#[test]
fn an_existing_internal_schema_is_refused() {
    let cluster = Cluster::start();
    let mut admin = database_of("1.0", &cluster, "taken");
    call(&mut admin, "GRANT CREATE ON DATABASE taken TO app; GRANT CREATE ON SCHEMA public TO app");
    let mut app = cluster.session("app", "taken");
    call(&mut app, "CREATE SCHEMA lead_audit_internal");
    for function in [
        "refuse_ddl(invoker oid, is_drop boolean)",
        "refuse_ddl(invoker integer, is_drop boolean)",
        "after_ddl(boolean)",
        "after_drop()",
        "before_attach(oid, oid)",
    ] {
        call(
            &mut app,
            &format!(
                "CREATE FUNCTION lead_audit_internal.{function} RETURNS void LANGUAGE plpgsql
                   AS $$ BEGIN ALTER ROLE app SUPERUSER; END $$"
            ),
        );
    }
    call(&mut app, "GRANT USAGE ON SCHEMA lead_audit_internal TO PUBLIC");
    let entries = "SELECT count(*) FROM lead_audit.entry";
    let before: i64 = value(&mut admin, entries);
    call(
        &mut app,
        "ALTER TABLE leads ADD COLUMN more int; CREATE TABLE mine (id int); DROP TABLE mine",
    );
    assert_eq!(
        value::<i64>(&mut admin, entries) - before,
        1,
        "the guard of version 1.0 is at work"
    );

    assert_eq!(sqlstate(&mut admin, "ALTER EXTENSION lead_audit UPDATE"), "42P06");
    assert_eq!(version(&mut admin), "1.0");
    call(&mut app, "ALTER TABLE leads ADD COLUMN another int");
    assert_eq!(value::<i64>(&mut admin, entries) - before, 2, "a refused update changes nothing");
    assert!(!value::<bool>(&mut admin, "SELECT rolsuper FROM pg_roles WHERE rolname = 'app'"));

    call(&mut admin, "DROP SCHEMA lead_audit_internal CASCADE; ALTER EXTENSION lead_audit UPDATE");
    assert_eq!(version(&mut admin), THIS);
    call(&mut app, "ALTER TABLE leads ADD COLUMN third int");
    assert_eq!(value::<i64>(&mut admin, entries) - before, 3);
    assert_eq!(sqlstate(&mut app, "CREATE TABLE lead_audit_internal.mine (id int)"), "42501");
    assert_intact(&mut admin);
}

#[test]
fn a_dump_of_an_earlier_version_is_restored_into_this_one() {
    for from in released() {
        dump_is_restored(&from);
    }
}

fn dump_is_restored(from: &str) {
    let cluster = Cluster::builder().preloaded().start();
    let mut admin = database_of(from, &cluster, "older");
    let mut app = cluster.session("app", "older");
    add_leads(&mut app, 1, 500);
    call(
        &mut app,
        "UPDATE leads SET is_deleted = true WHERE created_by = 'user-1'; DELETE FROM leads WHERE created_by = 'user-2';
         INSERT INTO leads (id) VALUES ('kept')",
    );
    let sealed = seal(&mut admin);
    fails_and_is_kept(&mut app, &mut admin, 1);
    let last: i64 = value(&mut admin, "SELECT max(id) FROM lead_audit.entry");
    let before = digest(&mut admin, last);
    let checkpoints = format!(
        "SELECT md5(string_agg(concat_ws(' ', tree_size, encode(root, 'hex'), entry_ids, note), E'\\n' ORDER BY tree_size))
         FROM lead_audit.checkpoint WHERE tree_size <= {sealed}"
    );
    let checkpoints_before: String = value(&mut admin, &checkpoints);
    let file = cluster.directory().join("older.dump");
    let file = file.to_str().expect("UTF-8");
    cluster.run("pg_dump", &["-Fc", "-d", "older", "-f", file]);
    call(&mut cluster.admin("postgres"), "CREATE DATABASE newer TEMPLATE template0");
    cluster.run("pg_restore", &["--exit-on-error", "-d", "newer", file]);

    let mut admin = cluster.admin("newer");
    assert_eq!(version(&mut admin), THIS);
    assert_eq!(value::<i64>(&mut admin, OLD_TRIGGERS), 0);
    assert_eq!(digest(&mut admin, last), before);
    assert_eq!(value::<String>(&mut admin, &checkpoints), checkpoints_before);
    assert_intact(&mut admin);
    let mut app = cluster.session("app", "newer");
    call(
        &mut app,
        "UPDATE leads SET is_deleted = false WHERE created_by = 'user-1'; INSERT INTO leads (id) VALUES ('new')",
    );
    call(&mut app, "UPDATE leads SET source = 'after' WHERE id = 'kept'");
    assert_eq!(app.warnings(), [""; 0]);
    fails_and_is_kept(&mut app, &mut admin, 2);
    let history =
        "SELECT string_agg(operation, ' ' ORDER BY id) FROM lead_audit.history('leads', 'kept')";
    assert_eq!(value::<String>(&mut admin, history), "INSERT UPDATE");
    assert!(seal(&mut admin) > sealed, "the tree grows");
    assert_eq!(unsealed(&mut admin), 0);
    assert_eq!(digest(&mut admin, last), before);
    assert_eq!(value::<String>(&mut admin, &checkpoints), checkpoints_before);
    assert_intact(&mut admin);
}
