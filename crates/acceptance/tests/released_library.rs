//! Tests the released library of version 1.0, and the update to the present version. If a database
//! has the SQL objects of one of these versions and a session has the library of the other version,
//! each write must be recorded or refused. upgrade.rs tests the update with only the library of the
//! present version.
//!
//! `scripts/test.sh released` runs this test. scripts/test.sh provides the released package, and a
//! copy of the installation in which the test can replace the library.

use acceptance::{
    Cluster, Session, add_leads, app_database, assert_intact, call, seal, sqlstate, value,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const THIS: &str = concat!(env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR"));

fn variable(name: &str) -> PathBuf {
    std::env::var_os(name)
        .unwrap_or_else(|| panic!("{name} is not set: run scripts/test.sh released"))
        .into()
}

/// Returns a directory that pg_config names.
fn ask(pg_config: &Path, option: &str) -> PathBuf {
    let output = Command::new(pg_config).arg(option).output().expect("pg_config can be run");
    String::from_utf8(output.stdout).expect("UTF-8").trim().into()
}

/// The directories of an installation that contain the library and the extension's files.
struct Package {
    library: PathBuf,
    files: PathBuf,
}

impl Package {
    fn of(pg_config: &Path) -> Self {
        Package {
            library: ask(pg_config, "--pkglibdir"),
            files: ask(pg_config, "--sharedir").join("extension"),
        }
    }

    fn names(&self) -> Vec<(PathBuf, String)> {
        let files = |directory: &PathBuf| -> Vec<(PathBuf, String)> {
            let names = fs::read_dir(directory)
                .expect("a directory")
                .map(|file| file.expect("a file").file_name());
            names.filter_map(|name| Some((directory.clone(), name.into_string().ok()?))).collect()
        };
        let all = [files(&self.library), files(&self.files)].concat();
        all.into_iter().filter(|(_, name)| name.starts_with("lead_audit")).collect()
    }

    /// Installs this package over another package, as a package manager does. Removes the old files
    /// instead of overwriting them, so a session with the old library continues to use the old
    /// library.
    fn install_over(&self, other: &Package) {
        for (directory, name) in other.names() {
            fs::remove_file(directory.join(name)).expect("the file can be removed");
        }
        for (directory, name) in self.names() {
            let target = if directory == self.library { &other.library } else { &other.files };
            fs::copy(directory.join(&name), target.join(&name)).expect("the file can be copied");
        }
    }
}

/// Returns the SQLSTATE and the message of the error of a statement that must fail.
fn refused(session: &mut Session, sql: &str) -> String {
    let error = session.batch_execute(sql).expect_err(sql);
    let error = error.as_db_error().expect("an error of the server's");
    format!("{} {}", error.code().code(), error.message())
}

fn version(session: &mut Session) -> String {
    value(session, "SELECT extversion FROM pg_extension WHERE extname = 'lead_audit'")
}

fn update(preloaded: bool) {
    let pg_config = variable("LEAD_AUDIT_RELEASED_PG_CONFIG");
    let installed = Package::of(&pg_config);
    let released = variable("LEAD_AUDIT_RELEASED_PACKAGE");
    let new = Package::of(&variable("LEAD_AUDIT_PG_CONFIG"));
    Package { library: released.join("lib"), files: released.join("extension") }
        .install_over(&installed);

    let builder = Cluster::builder().installation(pg_config);
    let cluster = if preloaded { builder.preloaded() } else { builder }.start();
    let mut admin = app_database(&cluster, "db");
    assert_eq!(version(&mut admin), "1.0");
    let mut app = cluster.session("app", "db");
    add_leads(&mut app, 1, 100);
    let sealed = seal(&mut admin);
    let refusal =
        format!("55000 the library lead_audit 1.0 cannot work with SQL objects of version {THIS}");

    new.install_over(&installed);
    // A session that has loaded the library of 1.0 can continue to write, but cannot run ALTER
    // EXTENSION UPDATE.
    call(&mut app, "UPDATE leads SET source = 'a' WHERE created_by = 'user-1'");
    assert_eq!(refused(&mut admin, "ALTER EXTENSION lead_audit UPDATE"), refusal);
    assert_eq!(version(&mut admin), "1.0");
    assert_intact(&mut admin);
    if preloaded {
        assert_eq!(refused(&mut cluster.admin("db"), "ALTER EXTENSION lead_audit UPDATE"), refusal);
        drop((admin, app));
        cluster.stop("fast");
        cluster.start_again();
        app = cluster.session("app", "db");
    }

    // A session that loads the new library can work with the SQL objects of 1.0, and can run ALTER
    // EXTENSION UPDATE.
    let mut admin = cluster.admin("db");
    call(&mut admin, "UPDATE leads SET source = 'b' WHERE created_by = 'user-2'");
    assert!(seal(&mut admin) > sealed);
    assert_intact(&mut admin);
    call(&mut admin, "ALTER EXTENSION lead_audit UPDATE");
    assert_eq!(version(&mut admin), THIS);

    // Without preloading, the session `app` still has the library of 1.0. After the update, this
    // library still records writes, but refuses the functions of the extension.
    call(
        &mut app,
        "INSERT INTO leads (id) VALUES ('c'); UPDATE leads SET source = 'c' WHERE id = 'c'; DELETE FROM leads WHERE id = 'c'",
    );
    assert_eq!(sqlstate(&mut app, "INSERT INTO leads (id) VALUES (NULL)"), "23502");
    call(&mut app, "UPDATE leads SET source = 'd' WHERE created_by = 'user-3'; TRUNCATE leads");
    assert_eq!(app.warnings(), [""; 0]);
    if !preloaded {
        call(
            &mut admin,
            "GRANT USAGE ON SCHEMA lead_audit TO app; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA lead_audit TO app",
        );
        assert_eq!(refused(&mut app, "SELECT * FROM lead_audit.verify()"), refusal);
        assert_eq!(refused(&mut app, "SELECT lead_audit.seal()"), refusal);
    }
    let written = "SELECT string_agg(n::text, ' ' ORDER BY operation) FROM (SELECT operation, count(*) AS n FROM lead_audit.entry \
                   WHERE outcome = 'ok' AND operation IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE') GROUP BY operation) x";
    assert_eq!(value::<String>(&mut admin, written), "1 101 1 7");
    assert_eq!(value::<i64>(&mut admin, "SELECT entries_not_written FROM lead_audit.stats"), 0);
    seal(&mut admin);
    assert_intact(&mut admin);
}

#[test]
#[ignore = "needs the released package: scripts/test.sh released"]
fn the_update_from_the_released_library() {
    // The two rounds do not run in parallel, because both replace the files of the same
    // installation.
    for preloaded in [false, true] {
        update(preloaded);
    }
}
