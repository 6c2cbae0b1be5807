"""The compared audit systems. An SQL file sets up a system in one database for each table."""

import pathlib
import re
import subprocess
from dataclasses import dataclass, field

import psycopg

BENCH = pathlib.Path(__file__).resolve().parent.parent
TABLES = {
    "leads": BENCH.parent / "demo" / "leads.sql",
    "wide": BENCH / "tables" / "wide.sql",
    "toasted": BENCH / "tables" / "toasted.sql",
}
# Settings with the context that an application would set. Some systems do not read these settings.
CONTEXT = (
    "-c lead_audit.user_id=u-17 -c lead_audit.user_ip=203.0.113.7"
    " -c lead_audit.request_id=req-000123"
)


@dataclass
class Cluster:
    """A PostgreSQL server. `socket` is the directory of the server's Unix socket."""

    socket: str
    tools: pathlib.Path
    library: str

    def connect(self, database, options=CONTEXT):
        return psycopg.connect(
            host=self.socket,
            user="postgres",
            dbname=database,
            options=options,
            autocommit=True,
            prepare_threshold=None,
        )

    def run(self, tool, *arguments, options="", **keywords):
        """Runs one of PostgreSQL's programs and returns its output."""
        environment = {
            "PGHOST": self.socket,
            "PGUSER": "postgres",
            "PGOPTIONS": f"{CONTEXT} {options}",
            "LC_ALL": "C.UTF-8",
        }
        done = subprocess.run(
            [self.tools / tool, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            **keywords,
        )
        if done.returncode != 0:
            raise SystemExit(
                f"{tool} {' '.join(map(str, arguments))} failed:\n{done.stdout}{done.stderr}"
            )
        return done.stdout

    def script(self, database, file, **variables):
        settings = [part for name, value in variables.items() for part in ("-v", f"{name}={value}")]
        self.run("psql", "-Xq", "-v", "ON_ERROR_STOP=1", *settings, "-d", database, "-f", file)


@dataclass
class System:
    """One way to audit a table, for example with lead_audit or with PL/pgSQL triggers."""

    file: pathlib.Path
    name: str
    label: str
    preloaded: bool
    full: bool  # whether the system runs only with --full
    cluster: Cluster = None
    connections: dict = field(default_factory=dict)

    @classmethod
    def read(cls, file):
        text = file.read_text()
        label = re.search(r"^-- label: (.*)$", text, re.M)
        flag = lambda name: re.search(rf"^-- {name}$", text, re.M) is not None
        return cls(
            file.resolve(),
            file.stem,
            label[1] if label else file.stem,
            flag("preloaded"),
            flag("full"),
        )

    def database(self, table):
        return f"{self.name}_{table}"

    def connection(self, table):
        """Returns a session on the system's database for `table`.

        The first call opens the session.
        """
        if table not in self.connections:
            self.connections[table] = self.cluster.connect(
                self.database(table), CONTEXT + " -c synchronous_commit=off"
            )
        return self.connections[table]

    def set_up(self, table):
        """Copies the table's template database, and runs the system's SQL file in the copy."""
        database = self.database(table)
        with self.cluster.connect("postgres") as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')
            connection.execute(f'CREATE DATABASE "{database}" TEMPLATE "table_{table}"')
        self.cluster.script(database, self.file, library=self.cluster.library)

    def drop(self, table):
        if table in self.connections:
            self.connections.pop(table).close()
        with self.cluster.connect("postgres") as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{self.database(table)}" WITH (FORCE)')


def make_table(cluster, table, rows):
    """Creates the template database of a table. All systems copy this database."""
    with cluster.connect("postgres") as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "table_{table}"')
        connection.execute(f'CREATE DATABASE "table_{table}"')
    cluster.script(f"table_{table}", TABLES[table], n=rows)
    cluster.run("vacuumdb", "-q", "-d", f"table_{table}")
