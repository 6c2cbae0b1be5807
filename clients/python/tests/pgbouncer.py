"""Starts PgBouncer in front of the cluster, on a separate Unix socket."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import psycopg

from .cluster import SERVER_USER, Database

# The configuration of PgBouncer that docs/clients.md describes.
CONFIGURATION = """
[databases]
* = host={server} port=5432

[pgbouncer]
listen_addr =
unix_socket_dir = {directory}
listen_port = 5432
auth_type = trust
auth_file = {directory}/users.txt
pool_mode = {mode}
default_pool_size = {pool_size}
max_client_conn = 300
server_reset_query = DISCARD ALL
ignore_startup_parameters = extra_float_digits
logfile = {directory}/log
"""


# The beginning of the message with which PgBouncer ends after an internal error. PgBouncer 1.18 of
# Debian 12 has several internal errors if a query is cancelled while its client disconnects, for
# example "bad client state". The class PgBouncer then starts PgBouncer again, as systemd would.
INTERNAL_ERROR = "FATAL @src/"


class PgBouncer:
    """A running PgBouncer, which is started again if it ends with an internal error."""

    def __init__(self, server: str, mode: str, pool_size: int, *settings: str) -> None:
        # The directory is in /tmp, because the path of a directory under target/ can be too long
        # for a socket.
        self.directory = Path(tempfile.mkdtemp(prefix="lead_audit-", dir="/tmp"))
        (self.directory / "users.txt").write_text('"app" ""\n"postgres" ""\n')
        configuration = CONFIGURATION.format(
            server=server, directory=self.directory, mode=mode, pool_size=pool_size
        )
        configuration += "".join(f"{setting}\n" for setting in settings)
        (self.directory / "pgbouncer.ini").write_text(configuration)
        command = ["pgbouncer", "-q", str(self.directory / "pgbouncer.ini")]
        if SERVER_USER:
            shutil.chown(self.directory, SERVER_USER)
            group = subprocess.run(
                ["id", "-g", SERVER_USER], check=True, capture_output=True, text=True
            ).stdout.strip()
            command = [
                "setpriv",
                "--reuid",
                SERVER_USER,
                "--regid",
                group,
                "--clear-groups",
                *command,
            ]
        self._command = command
        self._stopping = False
        self._process = self._start()
        self.wait()
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)
        self._supervisor.start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, cwd="/", stdin=subprocess.DEVNULL)

    def _supervise(self) -> None:
        known = 0
        while True:
            self._process.wait()
            if self._stopping or self.ends() <= known:
                return
            known = self.ends()
            self._process = self._start()

    def ends(self) -> int:
        """Returns how often PgBouncer has ended with an internal error."""
        return self.log().count(INTERNAL_ERROR)

    def log(self) -> str:
        """Returns the text of PgBouncer's log."""
        log = self.directory / "log"
        return log.read_text() if log.exists() else ""

    def database(self, database: Database) -> Database:
        """Returns the database `database`, reached through PgBouncer."""
        return Database(str(self.directory), database.name, database.user)

    def wait(self) -> None:
        """Waits until PgBouncer accepts connections."""
        until = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(f"host={self.directory} dbname=postgres user=app").close()
                return
            except psycopg.OperationalError:
                assert time.monotonic() < until, (
                    f"PgBouncer does not accept connections: {self.log()[-3000:]}"
                )
                time.sleep(0.05)

    def stop(self) -> None:
        """Stops PgBouncer. Fails if PgBouncer has ended without an internal error."""
        ended, said = self._process.poll(), self.log()
        self._stopping = True
        self._process.terminate()
        self._supervisor.join(30)
        shutil.rmtree(self.directory)
        assert ended is None, f"PgBouncer ended with {ended}: {said[-3000:]}"
