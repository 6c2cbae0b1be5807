"""PgBouncer in front of the cluster, on a Unix socket of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

from .cluster import SERVER_USER, Database

# What docs/clients.md says about PgBouncer's settings is this.
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


class PgBouncer:
    """Started when it is made."""

    def __init__(self, server: str, mode: str, pool_size: int) -> None:
        # Not under target/, whose path may be too long for a socket.
        self.directory = Path(tempfile.mkdtemp(prefix="lead_audit-", dir="/tmp"))
        (self.directory / "users.txt").write_text('"app" ""\n"postgres" ""\n')
        configuration = CONFIGURATION.format(server=server, directory=self.directory, mode=mode, pool_size=pool_size)
        (self.directory / "pgbouncer.ini").write_text(configuration)
        command = ["pgbouncer", "-q", str(self.directory / "pgbouncer.ini")]
        if SERVER_USER:
            shutil.chown(self.directory, SERVER_USER)
            group = subprocess.run(["id", "-g", SERVER_USER], check=True, capture_output=True, text=True).stdout.strip()
            command = ["setpriv", "--reuid", SERVER_USER, "--regid", group, "--clear-groups", *command]
        self._process = subprocess.Popen(command, cwd="/", stdin=subprocess.DEVNULL, env=os.environ.copy())
        self._wait()

    def database(self, database: Database) -> Database:
        """The same database, through the pooler."""
        return Database(str(self.directory), database.name, database.user)

    def _wait(self) -> None:
        until = time.monotonic() + 30
        while True:
            assert self._process.poll() is None, "PgBouncer did not start"
            try:
                psycopg.connect(f"host={self.directory} dbname=postgres user=app").close()
                return
            except psycopg.OperationalError:
                assert time.monotonic() < until, "PgBouncer does not accept connections"
                time.sleep(0.05)

    def stop(self) -> None:
        """Stops it, and says so if it had ended by itself."""
        ended, log = self._process.poll(), self.directory / "log"
        said = log.read_text() if log.exists() else ""
        self._process.terminate()
        self._process.wait(30)
        shutil.rmtree(self.directory)
        assert ended is None, f"PgBouncer ended with {ended}: {said[-3000:]}"
