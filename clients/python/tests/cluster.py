"""Starts a private PostgreSQL cluster with the extension, on a Unix socket."""

from __future__ import annotations

import itertools
import os
import pwd
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Sequence
from urllib.parse import quote

import psycopg

ROOT = Path(__file__).resolve().parents[3]
TARGET = ROOT / "target"
TEMPLATE = "leads_template"


def _server_user() -> Optional[str]:
    """Returns the user that scripts/lib.sh chooses for the server, or None if not run by root."""
    if os.geteuid() != 0:
        return None
    return "postgres" if any(entry.pw_name == "postgres" for entry in pwd.getpwall()) else "nobody"


SERVER_USER = _server_user()

_SET_CONFIG = "set_config('lead_audit"
_CATALOG = "FROM pg_catalog.pg_proc"

_numbers = itertools.count(1)


def script(name: str, *arguments: str) -> str:
    """Runs one of the project's scripts and returns its output."""
    done = subprocess.run(
        [ROOT / "scripts" / name, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{name} {arguments}: {done.stderr}{done.stdout}"
    return done.stdout.strip()


@dataclass(frozen=True)
class Database:
    """A database of the cluster, reached through the socket of the server or of a pooler."""

    socket: str
    name: str
    user: str = "app"

    def url(self, driver: str = "psycopg") -> str:
        """Returns the URL for SQLAlchemy."""
        return f"postgresql+{driver}://{self.user}@/{self.name}?host={quote(self.socket, safe='/')}"

    def dsn(self) -> str:
        """Returns the connection string for libpq."""
        return f"host={self.socket} dbname={self.name} user={self.user}"

    def connect(self, user: Optional[str] = None) -> psycopg.Connection[Any]:
        return psycopg.connect(
            f"host={self.socket} dbname={self.name} user={user or self.user}", autocommit=True
        )

    def query(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Runs a statement as the superuser, and returns the rows of its result."""
        with self.connect("postgres") as connection:
            cursor = connection.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def trail(self) -> list[tuple[Any, ...]]:
        """Returns (operation, user_id, user_ip, user_agent, request_id) of each entry, in order."""
        return self.query(
            "SELECT operation, user_id, user_ip, user_agent, request_id FROM lead_audit.log"
            " ORDER BY id"
        )

    def users(self) -> list[Optional[str]]:
        """Returns the user_id of each entry, ordered by id."""
        return [entry[1] for entry in self.trail()]


class StatementLog:
    """The statements that the server has logged since the creation of this object."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._start = log.stat().st_size

    def statements(self) -> list[str]:
        """Returns the first word of each logged statement.

        For a statement that sets the context, the result contains "set_config" instead of the first
        word. For `catalog.QUERY`, the result contains "catalog".
        """
        with self._log.open("rb") as file:
            file.seek(self._start)
            found = re.findall(
                r"LOG:  (?:statement|execute [^:]*): (.*(?:\n\t.*)*)", file.read().decode()
            )
        words: list[str] = []
        for text in found:
            if _CATALOG in text:
                words.append("catalog")
                continue
            parts = re.split(r";\s+", text) if _SET_CONFIG in text else [text]
            words += [
                "set_config" if _SET_CONFIG in part else re.split(r"[\s;]", part)[0].upper()
                for part in parts
            ]
        return words


class Cluster:
    """A cluster that the constructor starts. remove() stops and deletes the cluster."""

    SETTINGS = (
        "fsync = off",
        "max_connections = 60",
        "max_prepared_transactions = 5",
        "log_statement = 'all'",
    )

    def __init__(self, name: str) -> None:
        self.directory = str(TARGET / "python" / name)
        script("cluster.sh", "remove", self.directory)
        script("cluster.sh", "start", self.directory, *self.SETTINGS)
        self.socket = script("cluster.sh", "socket", self.directory)
        self.log = Path(script("cluster.sh", "log", self.directory))
        template = Database(self.socket, TEMPLATE)
        Database(self.socket, "postgres").query("CREATE ROLE app LOGIN")
        Database(self.socket, "postgres").query(f"CREATE DATABASE {TEMPLATE}")
        template.query((ROOT / "crates/acceptance/sql/leads.sql").read_text())
        template.query("ALTER TABLE leads OWNER TO app")
        template.query("CREATE EXTENSION lead_audit")

    def database(self) -> Database:
        """Creates a database with the watched table `leads`, which the role `app` owns."""
        database = Database(self.socket, f"leads_{next(_numbers)}")
        Database(self.socket, "postgres").query(
            f"CREATE DATABASE {database.name} TEMPLATE {TEMPLATE} OWNER app"
        )
        return database

    def remove(self) -> None:
        script("cluster.sh", "remove", self.directory)
