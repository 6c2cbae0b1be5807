//! Tests the reference pages under docs/. Runs the pages' examples with scripts/pages.py. Compares
//! the pages' lists of settings, functions, views and columns with the catalog.
//! scripts/messages.py (`make check`) compares the pages' lists of messages with the source.

use acceptance::{Cluster, Session, call};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Pages of docs/ whose examples this test runs.
const RUN_HERE: &[&str] = &[
    "install",
    "quick-start",
    "settings",
    "functions",
    "views",
    "privileges",
    "operating",
    "upgrade",
    "removal",
];
/// Pages of docs/ whose examples other tests run.
const RUN_ELSEWHERE: &[&str] = &["clients", "lead-audit", "FORMAT"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join(format!("docs/{name}.md"))).expect("the page is there")
}

/// Runs the examples on one page.
fn run(page: &str) {
    let cluster = Cluster::builder().preloaded().start();
    let directory = tempfile::tempdir().expect("a directory for the shell's files");
    // If the program lead-audit was built, its directory is on the PATH of the examples.
    let command = std::env::var_os("LEAD_AUDIT_COMMAND").map(PathBuf::from);
    let command = command.as_deref().and_then(Path::parent).unwrap_or(cluster.bin());
    let path = format!(
        "{}:{}:{}",
        cluster.bin().display(),
        command.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let output =
        Command::new(std::env::var("LEAD_AUDIT_PYTHON").unwrap_or_else(|_| "python3".to_owned()))
            .arg(root().join("scripts/pages.py"))
            .arg("--directory")
            .arg(directory.path())
            .arg(root().join(page))
            .env("PATH", path)
            .env("PGHOST", cluster.socket_directory())
            .env("LC_ALL", "C.UTF-8")
            .env_remove("PGOPTIONS")
            .output()
            .expect("Python can be run");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "scripts/pages.py --fill writes into the page what came out:\n{said}"
    );
}

macro_rules! pages {
    ($($test:ident $name:literal),*) => {$(
        #[test]
        fn $test() {
            run(concat!("docs/", $name, ".md"));
        }
    )*};
}
pages!(
    install "install", quick_start "quick-start", settings "settings", functions "functions", views "views", privileges "privileges",
    operating "operating", upgrade "upgrade", removal "removal"
);

#[test]
fn readme() {
    run("README.md");
}

#[test]
fn no_example_is_forgotten() {
    for file in fs::read_dir(root().join("docs")).expect("docs/").flatten() {
        let path = file.path();
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = page(&name);
        let has_examples =
            ["console", "sql", "sh"].iter().any(|kind| text.contains(&format!("\n```{kind}")));
        let is_run = [RUN_HERE, RUN_ELSEWHERE].iter().any(|names| names.contains(&&*name));
        assert!(!has_examples || is_run, "docs/{name}.md has examples that nothing runs");
    }
}

#[test]
fn links_lead_somewhere() {
    let docs = fs::read_dir(root().join("docs")).expect("docs/").flatten().map(|file| file.path());
    let pages = docs.chain(["README.md", "CHANGELOG.md"].map(|name| root().join(name)));
    for path in pages.filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let text = fs::read_to_string(&path).expect("a page");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") {
                let directory = path.parent().expect("a page lies somewhere");
                assert!(directory.join(file).exists(), "{}: {link}", path.display());
            }
        }
    }
}

fn admin(cluster: &Cluster) -> Session {
    let mut admin = cluster.admin("postgres");
    call(&mut admin, "CREATE EXTENSION lead_audit");
    admin
}

/// Returns the cells of a page's table rows. Omits rows that do not begin with a name in
/// backticks.
fn rows(text: &str) -> Vec<Vec<String>> {
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()
    })
    .collect()
}

fn strings(session: &mut Session, query: &str) -> Vec<Vec<String>> {
    let rows = session.query(query, &[]).expect("the catalog can be read");
    rows.iter().map(|row| (0..row.len()).map(|column| row.get(column)).collect()).collect()
}

/// Returns the name of a type in the short form that the pages use.
fn short(text: &str) -> String {
    text.replace("timestamp with time zone", "timestamptz")
}

#[test]
fn settings_match_the_catalog() {
    let cluster = Cluster::builder().preloaded().start();
    let found: BTreeSet<Vec<String>> = strings(
        &mut cluster.admin("postgres"),
        "SELECT name,
                format('Type: %s. Default: %s. Set by: %s.',
                       CASE WHEN vartype = 'bool' THEN 'boolean' WHEN vartype = 'string' THEN 'text'
                            WHEN unit IN ('ms', 's') THEN 'interval' WHEN unit IN ('B', 'kB') THEN 'memory size'
                            ELSE vartype END,
                       CASE current_setting(name) WHEN '' THEN 'unset' ELSE format('`%s`', current_setting(name)) END,
                       CASE context WHEN 'user' THEN 'every role' WHEN 'superuser' THEN 'superusers'
                                    WHEN 'sighup' THEN 'postgresql.conf' WHEN 'postmaster' THEN 'server start' END)
         FROM pg_settings WHERE name LIKE 'lead\\_audit.%'",
    )
    .into_iter()
    .collect();
    let page = page("settings");
    let sections = page.split("\n### ").skip(1);
    let on_page: BTreeSet<Vec<String>> = sections
        .map(|section| {
            let line = section
                .lines()
                .find(|line| line.starts_with("Type: "))
                .expect("a line with type, default and context");
            assert!(section.contains("\n\nSpecifies "), "{section}");
            vec![section.lines().next().expect("a heading").to_owned(), line.to_owned()]
        })
        .collect();
    assert_eq!(on_page, found);
}

#[test]
fn functions_match_the_catalog() {
    let cluster = Cluster::start();
    let mut admin = admin(&cluster);
    let text = page("functions");
    let (public, internal) =
        text.split_once("## Internal").expect("the page ends with what is internal");
    let public: BTreeSet<Vec<String>> = public
        .lines()
        .filter_map(|line| line.trim_end_matches('\\').split_once("` → `"))
        .map(|(function, returns)| {
            vec![format!("{function}`"), returns.trim_end_matches('`').to_owned()]
        })
        .collect();
    let internal: BTreeSet<String> =
        internal.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    let all = strings(
        &mut admin,
        "SELECT proname::text, regexp_replace(regexp_replace(pg_get_function_arguments(oid), ',? ?OUT .*', ''), 'NULL::[a-z ]+', 'NULL', 'g'),
                pg_get_function_result(oid)
         FROM pg_proc WHERE pronamespace = 'lead_audit'::regnamespace",
    );
    let names: BTreeSet<&str> =
        public.iter().filter_map(|row| row[0].trim_matches('`').split('(').next()).collect();
    let mut found = BTreeSet::new();
    let mut others = BTreeSet::new();
    for function in &all {
        if names.contains(&*function[0]) {
            found.insert(vec![
                format!("`{}({})`", function[0], short(&function[1])),
                short(&function[2]),
            ]);
        } else {
            others.insert(function[0].clone());
        }
    }
    assert_eq!(public, found);
    assert_eq!(internal, others);
}

#[test]
fn views_and_columns_match_the_catalog() {
    let cluster = Cluster::start();
    let mut admin = admin(&cluster);
    let text = page("views");
    let (public, internal) =
        text.split_once("## Internal").expect("the page ends with what is internal");
    let mut named: BTreeSet<String> =
        internal.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    for section in public.split("\n## lead_audit.").skip(1) {
        let name = section.lines().next().expect("a heading").to_owned();
        let section = section.split("\n## ").next().unwrap_or_default();
        let on_page: Vec<Vec<String>> =
            rows(section).into_iter().map(|row| row[..2].to_vec()).collect();
        let columns = format!(
            "SELECT format('`%s`', attname), format_type(atttypid, atttypmod) FROM pg_attribute
             WHERE attrelid = 'lead_audit.{name}'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
        );
        let found: Vec<Vec<String>> = strings(&mut admin, &columns)
            .into_iter()
            .map(|row| row.iter().map(|cell| short(cell)).collect())
            .collect();
        assert_eq!(on_page, found, "lead_audit.{name}");
        named.insert(name);
    }
    let relations = "SELECT relname::text FROM pg_class WHERE relnamespace = 'lead_audit'::regnamespace AND relkind IN ('r', 'v', 'S')";
    let found: BTreeSet<String> = strings(&mut admin, relations).into_iter().flatten().collect();
    assert_eq!(named, found);
}
