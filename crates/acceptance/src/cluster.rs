//! Creates PostgreSQL clusters for tests. Each cluster has its own directory, and its server
//! listens only on a Unix socket. Dropping a `Cluster` stops the server and removes the directory.

use crate::client::Session;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The name of the superuser of every cluster.
const SUPERUSER: &str = "postgres";

/// The maximum length of the path of the socket's directory, in bytes. PostgreSQL limits the path
/// of the socket itself, which is longer, to 107 bytes.
const SOCKET_DIR_LIMIT: usize = 90;

/// The settings of a new cluster.
#[derive(Default)]
pub struct Builder {
    settings: Vec<String>,
    file_size_limit: Option<u64>,
    pg_config: Option<PathBuf>,
}

impl Builder {
    /// Adds a line to the cluster's postgresql.conf.
    #[must_use]
    pub fn setting(mut self, line: &str) -> Self {
        self.settings.push(line.to_owned());
        self
    }

    /// Adds the extension's library to shared_preload_libraries, so that the server loads the
    /// library at its start.
    #[must_use]
    pub fn preloaded(self) -> Self {
        self.setting("shared_preload_libraries = 'lead_audit'")
    }

    /// Limits the size of every file that the server writes.
    #[must_use]
    pub fn file_size_limit(mut self, kilobytes: u64) -> Self {
        self.file_size_limit = Some(kilobytes);
        self
    }

    /// Sets the PostgreSQL installation that the cluster uses, by the path of its program
    /// pg_config. The default is the pg_config that `LEAD_AUDIT_PG_CONFIG` names.
    #[must_use]
    pub fn installation(mut self, pg_config: PathBuf) -> Self {
        self.pg_config = Some(pg_config);
        self
    }

    /// Creates and starts the cluster.
    ///
    /// # Panics
    /// Panics if the cluster cannot be created or started.
    #[must_use]
    pub fn start(self) -> Cluster {
        let cluster = self.create();
        cluster.start_again();
        cluster
    }

    /// Creates the cluster, but does not start its server.
    ///
    /// # Panics
    /// Panics if the cluster cannot be created.
    #[must_use]
    pub fn create(self) -> Cluster {
        Cluster::make(&self, |cluster| {
            let data = cluster.data();
            let place = [
                "-D",
                text(&data),
                "-U",
                SUPERUSER,
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
            ];
            cluster.run_server_program("initdb", &[&place[..], &["--no-sync"]].concat());
            cluster.configure(&[
                "listen_addresses = ''".to_owned(),
                // Without fsync, written data survives a crash of the server, but not a crash of
                // the machine. No test crashes the machine.
                "fsync = off".to_owned(),
                "max_prepared_transactions = 20".to_owned(),
                "deadlock_timeout = 100ms".to_owned(),
                "log_min_messages = log".to_owned(),
            ]);
        })
    }

    /// Creates and starts a standby of `primary`.
    ///
    /// # Panics
    /// Panics if the standby cannot be created or started.
    #[must_use]
    pub fn start_standby_of(self, primary: &Cluster) -> Cluster {
        let cluster = Cluster::make(&self, |cluster| {
            let (data, socket) = (cluster.data(), text(primary.socket_directory()));
            let from = [
                "-h",
                socket,
                "-U",
                SUPERUSER,
                "-D",
                text(&data),
                "-R",
                "-c",
                "fast",
                "-X",
                "stream",
                "--no-sync",
            ];
            cluster.run_server_program("pg_basebackup", &from);
        });
        cluster.start_again();
        cluster
    }
}

/// A PostgreSQL cluster of a test. The cluster's server runs, except after `Builder::create`,
/// `stop` and `kill`.
pub struct Cluster {
    bin: PathBuf,
    server_user: Option<ServerUser>,
    file_size_limit: Option<u64>,
    directory: TempDir,
    /// The directory of the socket, if the path of `directory` is too long for a socket.
    short_directory: Option<TempDir>,
}

impl Cluster {
    /// Creates and starts a cluster with the default settings.
    #[must_use]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// Returns a builder for a cluster with other settings.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    fn make(builder: &Builder, initialise: impl FnOnce(&Self)) -> Self {
        let bin = bin_directory(builder.pg_config.as_deref());
        let state =
            std::env::var_os("LEAD_AUDIT_STATE_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        fs::create_dir_all(&state)
            .unwrap_or_else(|error| panic!("cannot make {}: {error}", state.display()));
        let directory = temporary_directory(&state);
        let short_directory = (directory.path().as_os_str().len() > SOCKET_DIR_LIMIT)
            .then(|| temporary_directory(Path::new("/tmp")));
        let server_user = ServerUser::needed();
        for directory in [Some(&directory), short_directory.as_ref()].into_iter().flatten() {
            if let Some(user) = &server_user {
                chown(directory.path(), Some(user.uid), Some(user.gid))
                    .expect("root may give a directory away");
            }
        }
        let cluster = Cluster {
            bin,
            server_user,
            file_size_limit: builder.file_size_limit,
            directory,
            short_directory,
        };
        initialise(&cluster);
        cluster.configure(&[format!(
            "unix_socket_directories = '{}'",
            cluster.socket_directory().display()
        )]);
        cluster.configure(&builder.settings);
        cluster
    }

    /// Adds lines to the cluster's postgresql.conf. The lines take effect at the next start of the
    /// server.
    ///
    /// # Panics
    /// Panics if the file cannot be written.
    pub fn configure(&self, lines: &[String]) {
        let file = self.data().join("postgresql.conf");
        let before = fs::read_to_string(&file).expect("initdb writes a postgresql.conf");
        fs::write(&file, before + "\n" + &lines.join("\n") + "\n")
            .expect("postgresql.conf can be written");
    }

    /// Starts the server, which must not be running.
    pub fn start_again(&self) {
        let (data, log) = (self.data(), self.log());
        self.run_server_program(
            "pg_ctl",
            &["-D", text(&data), "-l", text(&log), "-w", "-t", "60", "-s", "start"],
        );
    }

    /// Kills the postmaster with SIGKILL, and waits until the other processes of the server have
    /// ended.
    ///
    /// # Panics
    /// Panics if a process of the server does not end within a minute.
    pub fn kill(&self) {
        let killed = Command::new("kill")
            .args(["-9", &self.postmaster().to_string()])
            .status()
            .expect("kill runs");
        assert!(killed.success());
        let begin = Instant::now();
        while self.has_processes() {
            assert!(begin.elapsed() < Duration::from_secs(60), "processes of a killed server stay");
            std::thread::sleep(Duration::from_millis(10));
        }
        // In a container without a process that reaps dead processes, the process id of the killed
        // postmaster remains in use. Because of the old lock files, a new postmaster would then
        // assume that the old postmaster still runs. This loop therefore removes the lock files.
        for file in
            [self.data().join("postmaster.pid"), self.socket_directory().join(".s.PGSQL.5432.lock")]
        {
            fs::remove_file(file).expect("a killed server leaves its lock files");
        }
    }

    /// Returns whether a process of the server still exists. Finds the server's processes by their
    /// working directory, which is the data directory.
    fn has_processes(&self) -> bool {
        let processes = fs::read_dir("/proc").expect("there is a /proc");
        let data = self.data();
        processes.flatten().any(|process| {
            fs::read_link(process.path().join("cwd")).is_ok_and(|directory| directory == data)
        })
    }

    /// Promotes the server, which must be a standby.
    pub fn promote(&self) {
        self.run_server_program(
            "pg_ctl",
            &["-D", text(&self.data()), "-w", "-t", "60", "-s", "promote"],
        );
    }

    /// Returns the process id of the postmaster, which must be running.
    fn postmaster(&self) -> i32 {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).expect("the server runs");
        file.lines()
            .next()
            .and_then(|pid| pid.parse().ok())
            .expect("its first line is the process id")
    }

    /// Stops the server with pg_ctl, in the shutdown mode `mode`. The shutdown mode "immediate"
    /// has the effect of a crash.
    pub fn stop(&self, mode: &str) {
        self.run_server_program(
            "pg_ctl",
            &["-D", text(&self.data()), "-w", "-t", "60", "-s", "-m", mode, "stop"],
        );
    }

    /// Returns the directory that contains all files of this cluster. The operating-system user of
    /// the server owns this directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Makes the server's operating-system user the owner of a file or directory, and the only user
    /// who can access it.
    ///
    /// # Panics
    /// Panics if the owner cannot be changed.
    pub fn give_to_server(&self, path: &Path) {
        if let Some(user) = &self.server_user {
            chown(path, Some(user.uid), Some(user.gid)).expect("root may give a file away");
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .expect("its permissions can be set");
    }

    /// Opens a session of the superuser in a database.
    #[must_use]
    pub fn admin(&self, database: &str) -> Session {
        self.session(SUPERUSER, database)
    }

    /// Opens a session of a role in a database.
    ///
    /// # Panics
    /// Panics if the connection fails.
    #[must_use]
    pub fn session(&self, role: &str, database: &str) -> Session {
        self.try_session(role, database)
            .unwrap_or_else(|error| panic!("connection as {role} to {database} failed: {error}"))
    }

    /// Opens a session of a role in a database. In contrast to `session`, does not panic if the
    /// connection fails.
    ///
    /// # Errors
    /// Returns an error if the connection fails.
    pub fn try_session(&self, role: &str, database: &str) -> Result<Session, postgres::Error> {
        Session::connect(&self.config(role, database))
    }

    /// Opens a session of the superuser for the statements that a test examines. The session has
    /// the settings in `LEAD_AUDIT_ACCEPTANCE_SETTINGS`.
    ///
    /// # Panics
    /// Panics if the connection fails.
    #[must_use]
    pub fn examined(&self, database: &str) -> Session {
        let mut config = self.config(SUPERUSER, database);
        if let Ok(settings) = std::env::var("LEAD_AUDIT_ACCEPTANCE_SETTINGS") {
            config.options(&settings);
        }
        Session::connect(&config)
            .unwrap_or_else(|error| panic!("connection to {database} failed: {error}"))
    }

    fn config(&self, role: &str, database: &str) -> postgres::Config {
        let mut config = postgres::Config::new();
        config
            .host_path(self.socket_directory())
            .user(role)
            .dbname(database)
            .application_name("acceptance");
        config
    }

    /// Returns the connection string with which a role connects to a database of this cluster.
    #[must_use]
    pub fn connection_string(&self, role: &str, database: &str) -> String {
        format!("host={} user={role} dbname={database}", self.socket_directory().display())
    }

    /// Returns a command that runs a client program of PostgreSQL (psql, pg_dump, …). By default,
    /// the program connects to this cluster as the superuser.
    #[must_use]
    pub fn client_program(&self, name: &str) -> Command {
        let mut command = self.program(name);
        command
            .env("PGHOST", self.socket_directory())
            .env("PGUSER", SUPERUSER)
            .stdin(Stdio::null());
        command
    }

    /// Runs a client program of PostgreSQL, and returns the text of the program's standard output.
    ///
    /// # Panics
    /// Panics if the program fails.
    pub fn run(&self, name: &str, arguments: &[&str]) -> String {
        let output = self
            .client_program(name)
            .args(arguments)
            .output()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        succeeded(name, &output);
        String::from_utf8(output.stdout).expect("the output is UTF-8")
    }

    /// Returns the whole text of the server's log.
    #[must_use]
    pub fn log_text(&self) -> String {
        fs::read(self.log())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        clean(&mut command);
        command
    }

    /// Runs a program of PostgreSQL, for example initdb or pg_ctl, as the operating-system user of
    /// the server. The program's working directory is the directory of the cluster.
    ///
    /// # Panics
    /// Panics if the program fails.
    pub fn run_server_program(&self, name: &str, arguments: &[&str]) {
        let program = self.bin.join(name);
        let mut words: Vec<String> = Vec::new();
        if let Some(user) = &self.server_user {
            words.extend(["runuser", "-u", &user.name, "--"].map(str::to_owned));
        }
        if let Some(kilobytes) = self.file_size_limit {
            let script = format!("ulimit -f {}; exec \"$@\"", kilobytes * 2);
            words.extend(["sh".to_owned(), "-c".to_owned(), script, "sh".to_owned()]);
        }
        words.push(text(&program).to_owned());
        let mut command = Command::new(&words[0]);
        clean(&mut command);
        command
            .args(&words[1..])
            .args(arguments)
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        let output = command.output().unwrap_or_else(|error| panic!("{name}: {error}"));
        if !output.status.success() {
            eprintln!("{}", self.log_text());
        }
        succeeded(name, &output);
    }

    /// Returns a command that runs a program as the operating-system user of the server.
    #[must_use]
    pub fn as_server_user(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        clean(&mut command);
        if let Some(user) = &self.server_user {
            command.uid(user.uid).gid(user.gid);
        }
        command
    }

    /// Returns the data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// Returns the directory of PostgreSQL's programs.
    #[must_use]
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// Returns the directory of the server's socket.
    #[must_use]
    pub fn socket_directory(&self) -> &Path {
        self.short_directory.as_ref().unwrap_or(&self.directory).path()
    }
}

/// Returns whether a line of the server's log reports a failed assertion, a segmentation fault or
/// an abort. No test causes these crashes on purpose: the tests kill processes only with SIGKILL.
fn is_crash(line: &str) -> bool {
    line.starts_with("TRAP: ")
        || ["signal 11:", "signal 6:"].iter().any(|signal| line.contains(signal))
            && line.contains("was terminated by ")
}

impl Drop for Cluster {
    /// # Panics
    /// Panics if a process of the server has crashed, and the test has not failed already.
    fn drop(&mut self) {
        let log = self.log_text();
        if std::thread::panicking() {
            let lines: Vec<&str> = log.lines().collect();
            eprintln!(
                "--- the end of the server's log ---\n{}",
                lines[lines.len().saturating_sub(40)..].join("\n")
            );
        }
        self.stop_dropped();
        let crash = log.lines().find(|line| is_crash(line));
        assert!(crash.is_none() || std::thread::panicking(), "{}", crash.unwrap_or_default());
    }
}

impl Cluster {
    /// Stops the server if it runs. `drop` calls this function.
    fn stop_dropped(&self) {
        if !self.data().join("postmaster.pid").exists() {
            return;
        }
        // Nobody needs the data of a dropped cluster, so the default is "immediate", the fastest
        // shutdown mode. scripts/coverage.sh sets another shutdown mode, because a server process
        // writes its counts of executed lines only at a normal exit.
        let mode = std::env::var("LEAD_AUDIT_STOP_MODE").unwrap_or_else(|_| "immediate".to_owned());
        // If the server cannot be stopped, the test only prints a message. A panic of `drop` would
        // hide the panic of a failed test.
        let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.stop(&mode)));
        if stopped.is_err() {
            eprintln!("the server in {} could not be stopped", self.directory.path().display());
        }
    }
}

/// The operating-system user of the server, if root runs the tests. PostgreSQL refuses to run as
/// root.
struct ServerUser {
    name: String,
    uid: u32,
    gid: u32,
}

impl ServerUser {
    fn needed() -> Option<Self> {
        if id(&["-u"]) != Some(0) {
            return None;
        }
        let user = ["postgres", "nobody"].into_iter().find_map(|name| {
            Some(ServerUser {
                name: name.to_owned(),
                uid: id(&["-u", name])?,
                gid: id(&["-g", name])?,
            })
        });
        Some(user.expect(
            "PostgreSQL does not run as root, and there is neither a user postgres nor nobody",
        ))
    }
}

fn id(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().parse().ok())?
}

fn bin_directory(pg_config: Option<&Path>) -> PathBuf {
    PathBuf::from(ask_pg_config(pg_config, "--bindir"))
}

fn ask_pg_config(pg_config: Option<&Path>, option: &str) -> String {
    let Some(pg_config) = pg_config
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("LEAD_AUDIT_PG_CONFIG").map(PathBuf::from))
    else {
        panic!(
            "LEAD_AUDIT_PG_CONFIG is not set. The acceptance tests need a PostgreSQL into which \
             lead_audit is installed: cargo pgrx install --release --pg-config \
             PREFIX/bin/pg_config, then LEAD_AUDIT_PG_CONFIG=PREFIX/bin/pg_config"
        );
    };
    let output = Command::new(&pg_config)
        .arg(option)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", pg_config.display()));
    succeeded("pg_config", &output);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn temporary_directory(parent: &Path) -> TempDir {
    let made = tempfile::Builder::new().prefix("lead_audit_").tempdir_in(parent);
    made.unwrap_or_else(|error| panic!("cannot make a directory in {}: {error}", parent.display()))
}

/// Removes environment variables from a command. libpq's variables (PGHOST, PGOPTIONS, …) would
/// change the connection. RUST_BACKTRACE would change the DETAIL of errors.
fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("PG") || ["RUST_BACKTRACE", "RUST_LIB_BACKTRACE"].contains(&&*text) {
            command.env_remove(name);
        }
    }
    command.env("LC_ALL", "C.UTF-8");
}

fn succeeded(name: &str, output: &Output) {
    assert!(
        output.status.success(),
        "{name} failed ({}):\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths here are UTF-8")
}
