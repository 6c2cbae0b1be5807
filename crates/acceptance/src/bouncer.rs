//! Starts a PgBouncer for a test. The PgBouncer listens on a Unix socket, and connects its clients
//! to the server of a cluster.

use crate::cluster::Cluster;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PORT: u16 = 6432;

/// A running PgBouncer in transaction mode. Dropping a `Bouncer` ends the process.
pub struct Bouncer {
    process: Child,
    directory: PathBuf,
    database: String,
    role: String,
}

impl Bouncer {
    /// Starts a PgBouncer for one database of a cluster. The PgBouncer connects to the server as
    /// `role`. The program `pgbouncer` must be on the PATH.
    ///
    /// # Panics
    /// Panics if PgBouncer does not start.
    #[must_use]
    pub fn start(cluster: &Cluster, database: &str, role: &str) -> Self {
        let directory = cluster.socket_directory().join("bouncer");
        fs::create_dir_all(&directory).expect("a directory can be made beside the socket");
        let file = directory.join("pgbouncer.ini");
        let server = cluster.socket_directory().display();
        let own = directory.display();
        let configuration = format!(
            "[databases]\n{database} = host={server} user={role}\n\
             [pgbouncer]\nlisten_addr =\nlisten_port = {PORT}\n\
             unix_socket_dir = {own}\nauth_type = any\npool_mode = transaction\n"
        );
        fs::write(&file, configuration).expect("the configuration can be written");
        cluster.give_to_server(&file);
        cluster.give_to_server(&directory);
        let mut command = cluster.as_server_user("pgbouncer".as_ref());
        let log = fs::File::create(directory.join("log")).expect("the log can be made");
        let process =
            command.arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let bouncer = Bouncer {
            process: process.unwrap_or_else(|error| panic!("pgbouncer: {error}")),
            directory,
            database: database.to_owned(),
            role: role.to_owned(),
        };
        let socket = bouncer.directory.join(format!(".s.PGSQL.{PORT}"));
        let begin = Instant::now();
        while !socket.exists() {
            assert!(
                begin.elapsed() < Duration::from_secs(20),
                "pgbouncer did not start:\n{}",
                fs::read_to_string(bouncer.directory.join("log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        bouncer
    }

    /// Returns the connection string with which a client connects to this PgBouncer.
    #[must_use]
    pub fn url(&self) -> String {
        format!(
            "postgresql://{}@/{}?host={}&port={PORT}",
            self.role,
            self.database,
            self.directory.display()
        )
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}
