//! Over TLS, `lead-audit` authenticates a server as libpq does. The settings of TLS come from the
//! connection string or from environment variables. Text that a server sends must not control the
//! user's terminal.

use acceptance::{Cluster, LeadAudit, app_database, text_of};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output().expect("openssl runs");
    assert!(
        output.status.success(),
        "openssl {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Creates a certificate authority. The file `NAME.crt` contains the authority's certificate.
fn authority(directory: &Path, name: &str) {
    let (key, certificate) =
        (directory.join(format!("{name}.key")), directory.join(format!("{name}.crt")));
    let subject = format!("/CN={name}");
    let new = [
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        &subject,
        "-keyout",
        text_of(&key),
        "-out",
    ];
    openssl(&[&new[..], &[text_of(&certificate)]].concat());
}

#[test]
fn servers_are_authenticated_as_by_libpq() {
    let cluster = Cluster::start();
    drop(app_database(&cluster, "tls"));
    let directory = cluster.directory().to_owned();
    let path = |name: &str| directory.join(name).display().to_string();
    authority(&directory, "known");
    authority(&directory, "other");
    // The certificate authority "known" signs the server's certificate. The host name in the
    // server's certificate is not the host name to which the test connects.
    openssl(&[
        "req",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=elsewhere",
        "-keyout",
        &path("server.key"),
        "-out",
        &path("server.csr"),
    ]);
    fs::write(path("names"), "subjectAltName = DNS:elsewhere\n").unwrap();
    openssl(&[
        "x509",
        "-req",
        "-days",
        "2",
        "-CAcreateserial",
        "-in",
        &path("server.csr"),
        "-CA",
        &path("known.crt"),
        "-CAkey",
        &path("known.key"),
        "-extfile",
        &path("names"),
        "-out",
        &path("server.crt"),
    ]);
    fs::set_permissions(path("server.key"), fs::Permissions::from_mode(0o600)).unwrap();
    for name in ["server.key", "server.crt"] {
        cluster.give_to_server(Path::new(&path(name)));
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    cluster.stop("fast");
    cluster.configure(&[
        "ssl = on".to_owned(),
        format!("ssl_cert_file = '{}'", path("server.crt")),
        format!("ssl_key_file = '{}'", path("server.key")),
        "listen_addresses = '127.0.0.1'".to_owned(),
        format!("port = {port}"),
    ]);
    // Over TCP, the server accepts only connections with TLS.
    let hba = cluster.data().join("pg_hba.conf");
    fs::write(&hba, "local all all trust\nhostssl all all 127.0.0.1/32 trust\n").unwrap();
    cluster.start_again();

    let tool = LeadAudit::new();
    let base = format!("host=127.0.0.1 port={port} user=postgres dbname=tls");
    let (known, other, missing) =
        (path("known.crt"), path("other.crt"), "/nonexistent/root.crt".to_owned());
    let output = path("export.ndjson");
    let connects = |options: &str, variables: &[(&str, &str)]| {
        _ = fs::remove_file(&output);
        let url = format!("{base} {options}");
        let mut command = tool.command(&["export", "--database", url.trim(), "-o", &output]);
        command.envs(variables.iter().copied()).env("HOME", "/nonexistent");
        command.output().expect("it runs").status.success()
    };
    assert!(connects("", &[]));
    assert!(!connects("sslmode=disable", &[]));
    for mode in ["allow", "prefer", "require"] {
        assert!(connects(&format!("sslmode={mode}"), &[]), "{mode}");
        assert!(connects("", &[("PGSSLMODE", mode)]), "{mode}");
    }
    // If the file of root certificates exists, sslmode `require` means `verify-ca`. The mode
    // `verify-ca` does not check the name of the host.
    for mode in ["require", "verify-ca"] {
        for (roots, is_known) in [(&known, true), (&other, false), (&missing, false)] {
            assert_eq!(
                connects(&format!("sslmode={mode} sslrootcert={roots}"), &[]),
                is_known,
                "{mode} {roots}"
            );
            assert_eq!(
                connects(&format!("sslmode={mode}"), &[("PGSSLROOTCERT", roots)]),
                is_known,
                "{mode} {roots}"
            );
            assert_eq!(
                connects("", &[("PGSSLMODE", mode), ("PGSSLROOTCERT", roots)]),
                is_known,
                "{mode} {roots}"
            );
        }
    }
    assert!(
        !connects("sslmode=verify-full", &[("PGSSLROOTCERT", &known)]),
        "the name is another one"
    );
    assert!(!connects("", &[("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", &known)]));
    // Settings in the connection string have precedence over environment variables.
    assert!(connects("sslmode=prefer", &[("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", &known)]));
    assert!(!connects("", &[("PGSSLMODE", "whatever")]));
    // A connection through a Unix socket does not use TLS, no matter which environment variables
    // are set.
    let url = format!(
        "host={} port={port} user=postgres dbname=tls",
        cluster.socket_directory().display()
    );
    _ = fs::remove_file(&output);
    let mut command = tool.command(&["export", "--database", &url, "-o", &output]);
    assert!(
        command
            .env("PGSSLMODE", "verify-full")
            .env("PGSSLROOTCERT", &known)
            .output()
            .unwrap()
            .status
            .success()
    );
}

#[test]
fn text_of_a_server_does_not_control_the_terminal() {
    let cluster = Cluster::start();
    let url = format!(
        "host={} user='\u{1b}[2J\u{202e}x\u{9b}1m' dbname=postgres",
        cluster.socket_directory().display()
    );
    let answer = LeadAudit::new().run(&["export", "--database", &url, "-o", "/dev/null"]);
    assert_eq!(answer.status, 2);
    assert!(
        answer.errors.contains("\\u{1b}[2J") && answer.errors.contains("does not exist"),
        "{}",
        answer.errors
    );
    assert!(
        !answer.errors.chars().any(|c| c.is_control() && c != '\n' || c == '\u{202e}'),
        "{:?}",
        answer.errors
    );
}
