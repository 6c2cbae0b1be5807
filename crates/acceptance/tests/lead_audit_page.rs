//! Runs the commands in `docs/lead-audit.md`.

use acceptance::{Answer, Cluster, LeadAudit, add_leads, app_database, call, seal, text_of};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn the_commands_of_the_page() {
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/lead-audit.md"))
            .unwrap();
    let blocks: Vec<&str> =
        page.split("```sh\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    let [commands, of_another_key] = blocks[..] else {
        panic!("{} blocks of commands", blocks.len())
    };
    let cluster = Cluster::start();
    drop(app_database(&cluster, "page"));
    // The commands before "# Every night" give the log a signing key. After these commands, the
    // test inserts leads.
    let at = commands.find("# Every night").unwrap();
    let (first, then) = commands.split_at(at);
    let directory = tempfile::tempdir().unwrap();
    let program = std::env::var("LEAD_AUDIT_COMMAND").unwrap();
    let path = format!(
        "{}:{}",
        text_of(Path::new(&program).parent().unwrap()),
        std::env::var("PATH").unwrap()
    );
    let run = |script: &str| {
        let output = Command::new("bash")
            .args(["-euc", &format!("give_to_server() {{ :; }}\n{script}")])
            .current_dir(directory.path())
            .env("PATH", &path)
            .env("DATABASE", cluster.connection_string("postgres", "page"))
            .env("SERVER_KEYS", cluster.directory())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let answer = Answer::of(output);
        assert_eq!(answer.status, 0, "{}{}", answer.output, answer.errors);
        answer.output
    };
    run(first);
    let key = cluster.directory().join("log.key");
    cluster.give_to_server(&key);
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    call(
        &mut cluster.admin("postgres"),
        &format!("ALTER DATABASE page SET lead_audit.signing_key_file = '{}'", key.display()),
    );
    add_leads(&mut cluster.session("app", "page"), 1, 100);
    seal(&mut cluster.admin("page"));
    let said = run(then);
    assert_eq!(said.matches("INTACT up to tree size 100").count(), 3, "{said}");
    assert!(said.contains("INTACT: entry 42 is leaf 41"), "{said}");
    assert!(!directory.path().join("alarms").exists());
    // Runs the page's nightly commands a second time, after new entries were sealed.
    add_leads(&mut cluster.session("app", "page"), 101, 150);
    seal(&mut cluster.admin("page"));
    let said = run(&then
        .lines()
        .take_while(|line| !line.starts_with("# On another"))
        .collect::<Vec<_>>()
        .join("\n"));
    assert!(said.contains("INTACT up to tree size 150"), "{said}");
    // The log gets a new key with a new name.
    let at = of_another_key.find("# With only the old key").unwrap();
    let (first, then) = of_another_key.split_at(at);
    run(first);
    let new = cluster.directory().join("new.key");
    cluster.give_to_server(&new);
    fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    for (name, file) in [("previous_signing_key_file", &key), ("signing_key_file", &new)] {
        call(
            &mut cluster.admin("postgres"),
            &format!("ALTER DATABASE page SET lead_audit.{name} = '{}'", file.display()),
        );
    }
    add_leads(&mut cluster.session("app", "page"), 151, 160);
    assert_eq!(seal(&mut cluster.admin("page")), 161);
    let said = run(then);
    assert!(said.contains("COULD NOT TELL; something vouches up to tree size 151"), "{said}");
    assert!(said.contains("INTACT up to tree size 161"), "{said}");
    assert!(said.contains("checkpoint 161: extends the one before; cosigned"), "{said}");
    // For an unknown command, `lead-audit` ends with exit status 2.
    assert_eq!(LeadAudit::new().run(&["no-such-command"]).status, 2);
}
