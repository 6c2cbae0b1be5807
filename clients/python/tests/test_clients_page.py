"""Runs the programs on docs/clients.md whose languages are installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Iterator, Mapping, Sequence

import pytest

from .cluster import ROOT, TARGET, Cluster, Database
from .pgbouncer import CONFIGURATION, PgBouncer

PAGE = ROOT / "docs" / "clients.md"
WORK = TARGET / "clients-page"
PACKAGES = Path(os.environ.get("LEAD_AUDIT_PACKAGES") or TARGET / "packages")
NODE_POSTGRES = "8.23.1"
SQLX = """
[package]
name = "leads"
version = "0.0.0"
edition = "2024"

[dependencies]
sqlx = { version = "=0.8.6", default-features = false, features = ["postgres", "runtime-tokio"] }
tokio = { version = "1", features = ["macros", "rt"] }

[workspace]
"""
POOLED = """
import java.sql.Connection;
import java.sql.DriverManager;

public class Pooled {
    public static void main(String[] arguments) throws Exception {
        String url = System.getenv("JDBC_URL");
        try (Connection a = DriverManager.getConnection(url);
                Connection b = DriverManager.getConnection(url)) {
            a.setAutoCommit(false);
            b.setAutoCommit(false);
            for (int number = 0; number < 20; number++) {
                Leads.insert(a, new Leads.AuditContext("a", null, "A", "r-" + number),
                        "a" + number);
                Leads.insert(b, new Leads.AuditContext("b", null, "B", "r-" + number),
                        "b" + number);
            }
        }
    }
}
"""
JAVA = PACKAGES / "usr/share/java", Path("/usr/share/java")


def program(name: str) -> str:
    """Returns the program with the file name `name` from the page."""
    found = re.search(
        rf"^```\w+ file={re.escape(name)}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    assert found, f"{name} is not on the page"
    return found[1]


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> Path:
    made = WORK / request.node.name
    made.mkdir(parents=True, exist_ok=True)
    return made


EXPECTED = [
    ("INSERT", "u-17", "203.0.113.7", "Firefox", "r-1"),
    ("INSERT", None, None, None, None),
]


def execute(
    database: Database, command: Sequence[object], environment: Mapping[str, str] = {}
) -> None:
    """Runs a command with the environment variables with which it finds the database."""
    where = {"PGHOST": database.socket, "PGDATABASE": database.name, "PGUSER": "app"}
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **where, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def run(database: Database, command: Sequence[object], environment: Mapping[str, str] = {}) -> None:
    """Runs a program of the page, and checks the entries of its writes."""
    execute(database, command, environment)
    assert database.trail() == EXPECTED


def need(*programs: str) -> None:
    for name in programs:
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")


def need_jars(*names: str) -> str:
    found = [str(folder / name) for name in names for folder in JAVA if (folder / name).exists()]
    if len(found) < len(names):
        pytest.skip(f"not there: {' or '.join(names)}")
    return ":".join(found)


def node(folder: Path) -> list[object]:
    need("node", "npm")
    if f'"version": "{NODE_POSTGRES}"' not in _text(folder / "node_modules/pg/package.json"):
        install = [
            "npm",
            "install",
            "--prefix",
            str(folder),
            "--no-audit",
            "--no-fund",
            "--no-save",
            f"pg@{NODE_POSTGRES}",
        ]
        subprocess.run(install, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    (folder / "leads.mjs").write_text(program("leads.mjs"))
    return ["node", folder / "leads.mjs"]


def test_node_postgres(folder: Path, database: Database) -> None:
    run(database, node(folder))


def ruby() -> dict[str, str]:
    """Returns the environment for Ruby, whose Debian packages are installed or only unpacked."""
    need("ruby")
    private = PACKAGES / "usr"
    if not (private / "bin/ruby").exists():
        return {}
    libraries = [
        *private.glob("lib/ruby/3.*"),
        *private.glob("lib/*-linux-gnu/ruby/3.*"),
        private / "lib/ruby/vendor_ruby",
        *private.glob("lib/ruby/vendor_ruby/3.*"),
        *private.glob("lib/*-linux-gnu/ruby/vendor_ruby/3.*"),
        *private.glob("share/rubygems-integration/*/gems/*/lib"),
        *private.glob("share/rubygems-integration/*/gems/concurrent-ruby-*/lib/concurrent-ruby"),
    ]
    gems = [
        *private.glob("share/rubygems-integration/*"),
        *private.glob("lib/*-linux-gnu/rubygems-integration/*"),
    ]
    return {"RUBYLIB": ":".join(map(str, libraries)), "GEM_PATH": ":".join(map(str, gems))}


@pytest.mark.parametrize("name", ["leads.rb", "records.rb"])
def test_ruby(name: str, folder: Path, database: Database) -> None:
    environment = ruby()
    (folder / name).write_text(program(name))
    run(database, ["ruby", folder / name], environment)


def java(folder: Path, jars: Sequence[str], *names: str) -> list[object]:
    """Compiles the programs `names` of the page. Returns the command that runs the last one."""
    need("java", "javac")
    path = need_jars("postgresql.jar", "junixsocket-common.jar", *jars)
    for name in names:
        if not (folder / name).exists():
            (folder / name).write_text(program(name))
    subprocess.run(
        ["javac", "-cp", path, "-d", str(folder), *(str(folder / name) for name in names)],
        check=True,
    )
    natives = ":".join(
        str(path.parent)
        for path in [
            *PACKAGES.glob("usr/lib/**/libjunixsocket*.so"),
            *Path("/usr/lib").glob("**/libjunixsocket*.so"),
        ]
    )
    return [
        "java",
        f"-Djava.library.path={natives}",
        "-cp",
        f"{folder}:{path}",
        Path(names[-1]).stem,
    ]


def jdbc_url(database: Database) -> str:
    return (
        f"jdbc:postgresql://localhost/{database.name}?user=app&sslmode=disable"
        f"&socketFactory=org.newsclub.net.unix.AFUNIXSocketFactory$FactoryArg&socketFactoryArg={database.socket}/.s.PGSQL.5432"
    )


def test_jdbc(folder: Path, database: Database) -> None:
    run(database, java(folder, [], "Leads.java"), {"JDBC_URL": jdbc_url(database)})


def test_spring(folder: Path, database: Database) -> None:
    command = java(
        folder,
        [f"spring3-{name}.jar" for name in ("core", "beans", "jdbc", "transaction")]
        + ["commons-logging.jar"],
        "Leads.java",
        "SpringLeads.java",
    )
    run(database, command, {"JDBC_URL": jdbc_url(database)})


def go() -> dict[str, str]:
    """Returns the environment for Go, whose Debian packages are installed or only unpacked."""
    need("go")
    private = PACKAGES / "usr"
    unpacked = Path(shutil.which("go") or "").is_relative_to(private)
    gocode = private / "share/gocode" if unpacked else Path("/usr/share/gocode")
    if not (gocode / "src/github.com/jackc/pgx/v4").exists():
        pytest.skip("Debian's golang-github-jackc-pgx-v4-dev is not installed")
    environment = {
        "GO111MODULE": "off",
        "GOPATH": str(gocode),
        "GOCACHE": str(WORK / "go-cache"),
        "GOFLAGS": "",
        "CGO_ENABLED": "0",
    }
    return {**environment, "GOROOT": str(private / "lib/go")} if unpacked else environment


def test_go(folder: Path, database: Database) -> None:
    environment = go()
    (folder / "main.go").write_text(program("main.go"))
    run(database, ["go", "run", folder / "main.go"], environment)


@pytest.mark.skipif(
    not os.environ.get("LEAD_AUDIT_SQLX"),
    reason="LEAD_AUDIT_SQLX=1 runs it: sqlx takes minutes to compile",
)
def test_sqlx(folder: Path, database: Database) -> None:
    need("cargo")
    (folder / "src").mkdir(exist_ok=True)
    (folder / "src/main.rs").write_text(program("sqlx.rs"))
    (folder / "Cargo.toml").write_text(SQLX)
    run(
        database,
        ["cargo", "run", "--quiet", "--manifest-path", folder / "Cargo.toml"],
        {"CARGO_TARGET_DIR": str(WORK / "sqlx-target")},
    )


# ---- through PgBouncer in transaction mode, with the one connection to the server that all share -


@pytest.fixture
def pooler(cluster: Cluster) -> Iterator[PgBouncer]:
    made = PgBouncer(cluster.socket, "transaction", 1)
    yield made
    made.stop()


def run_pooled(
    pooler: PgBouncer,
    database: Database,
    command: Sequence[object],
    environment: Mapping[str, str] = {},
) -> None:
    """Runs a program twice. The two runs share a server connection, which can keep state."""
    for _ in range(2):
        execute(pooler.database(database), command, environment)
        database.query("DELETE FROM leads")
    assert [entry for entry in database.trail() if entry[0] == "INSERT"] == 2 * EXPECTED


def test_node_postgres_through_pgbouncer(
    folder: Path, pooler: PgBouncer, database: Database
) -> None:
    run_pooled(pooler, database, node(folder))


def test_ruby_through_pgbouncer(folder: Path, pooler: PgBouncer, database: Database) -> None:
    environment = ruby()
    (folder / "leads.rb").write_text(program("leads.rb"))
    run_pooled(pooler, database, ["ruby", folder / "leads.rb"], environment)


def test_activerecord_through_pgbouncer(
    folder: Path, pooler: PgBouncer, database: Database
) -> None:
    environment = ruby()
    reads = 'Lead.find("2")\n'  # by default, ActiveRecord prepares reads, but no writes
    (folder / "records.rb").write_text(
        _with(program("records.rb"), "pool: 1", "pool: 1, prepared_statements: false") + reads
    )
    run_pooled(pooler, database, ["ruby", folder / "records.rb"], environment)


def test_go_through_pgbouncer(folder: Path, pooler: PgBouncer, database: Database) -> None:
    environment = go()
    (folder / "main.go").write_text(
        _with(
            program("main.go"),
            '"pool_max_conns=1"',
            '"pool_max_conns=1 statement_cache_mode=describe"',
        )
    )
    run_pooled(pooler, database, ["go", "run", folder / "main.go"], environment)


def test_jdbc_through_pgbouncer(folder: Path, pooler: PgBouncer, database: Database) -> None:
    """Two clients execute a statement in turns until JDBC prepares the statement."""
    (folder / "Pooled.java").write_text(POOLED)
    command = java(folder, [], "Leads.java", "Pooled.java")
    execute(
        database, command, {"JDBC_URL": jdbc_url(pooler.database(database)) + "&prepareThreshold=0"}
    )
    assert database.trail() == [
        ("INSERT", user, None, user.upper(), f"r-{number}")
        for number in range(20)
        for user in ("a", "b")
    ]


def test_the_page_says_what_pgbouncer_is_run_with() -> None:
    for line in (
        "server_reset_query = DISCARD ALL",
        "ignore_startup_parameters = extra_float_digits",
    ):
        name, value = line.split(" = ")
        assert (
            line in CONFIGURATION
            and f"`{name}`" in PAGE.read_text()
            and f"`{value}`" in PAGE.read_text()
        )


def _with(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
