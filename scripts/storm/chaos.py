"""Disturbs the sessions of the storm: cancels and ends them, rewrites catalogs, kills processes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import psycopg
from writers import Shared

CATALOGS = [
    "pg_class",
    "pg_attribute",
    "pg_trigger",
    "pg_proc",
    "pg_namespace",
    "pg_type",
    "pg_index",
    "pg_inherits",
    "pg_depend",
    "pg_constraint",
    "pg_attrdef",
    "pg_partitioned_table",
    "pg_event_trigger",
    "pg_extension",
    "pg_statistic",
    "pg_authid",
    "pg_database",
    "pg_opclass",
    "pg_cast",
]
WORKERS = "('lead_audit worker', 'lead_audit launcher')"


class Chaos(threading.Thread):
    """A session of a superuser that disturbs other sessions at random.

    With `kill`, the session also kills server processes. After each kill it waits until the server
    has restarted.
    """

    def __init__(self, shared: Shared, conninfo: str, seed: int, kill: bool, pause: float):
        super().__init__(name=f"chaos {seed}", daemon=True)
        self.shared, self.conninfo, self.kill, self.pause = shared, conninfo, kill, pause
        self.random = random.Random(seed)
        self.stop = threading.Event()
        self.killed: list[int] = []
        self.verified: list[str] = []
        self.done: Counter[str] = Counter()
        self.fault: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                try:
                    with psycopg.connect(
                        self.conninfo,
                        user="postgres",
                        autocommit=True,
                        options="-c lock_timeout=1s -c statement_timeout=20s",
                    ) as session:
                        while not self.stop.is_set():
                            time.sleep(self.random.random() * self.pause)
                            self.act(session)
                except psycopg.OperationalError as error:
                    self.note(error)
                    time.sleep(0.1)
        except BaseException as error:  # a defect of the test itself
            self.fault = error

    def note(self, error: psycopg.Error) -> None:
        self.done[f"failed with {error.sqlstate}"] += 1

    def act(self, session: psycopg.Connection) -> None:
        random = self.random
        acts = [
            (12, self.cancel),
            (8, self.terminate),
            (2, self.cancel_worker),
            (2, self.terminate_worker),
            (7, self.rewrite),
            (2, self.reindex),
            (1, self.administer),
            (1, self.verify),
            (4, self.end_prepared),
        ]
        if self.kill:
            acts = [
                (4, self.cancel),
                (2, self.terminate),
                (2, self.rewrite),
                (2, self.end_prepared),
                (3, self.kill_one),
            ]
        act = random.choices([act for _, act in acts], [weight for weight, _ in acts])[0]
        try:
            act(session)
            self.done[act.__name__] += 1
        except psycopg.Error as error:
            self.note(error)
            if session.closed or session.broken:
                raise

    def backend(self, session: psycopg.Connection, what: str) -> int | None:
        row = session.execute(
            f"SELECT pid FROM pg_stat_activity WHERE {what} AND pid <> pg_backend_pid()"
            " ORDER BY random() LIMIT 1"
        ).fetchone()
        return row[0] if row else None

    def cancel(self, session: psycopg.Connection) -> None:
        for _ in range(self.random.choice([1, 1, 4])):
            session.execute(
                "SELECT pg_cancel_backend(%s)",
                (
                    self.backend(
                        session,
                        "backend_type IN ('client backend', 'autovacuum worker')"
                        " AND usename IS DISTINCT FROM 'postgres'",
                    ),
                ),
            )

    def terminate(self, session: psycopg.Connection) -> None:
        what = (
            "backend_type IN ('client backend', 'autovacuum worker')"
            " AND usename IS DISTINCT FROM 'postgres'"
        )
        session.execute(
            "SELECT pg_terminate_backend(%s)",
            (
                self.backend(
                    session, what if self.random.random() < 0.95 else "backend_type = 'walsender'"
                ),
            ),
        )

    def cancel_worker(self, session: psycopg.Connection) -> None:
        session.execute(
            "SELECT pg_cancel_backend(%s)", (self.backend(session, f"backend_type IN {WORKERS}"),)
        )

    def terminate_worker(self, session: psycopg.Connection) -> None:
        session.execute(
            "SELECT pg_terminate_backend(%s)",
            (self.backend(session, f"backend_type IN {WORKERS}"),),
        )

    def rewrite(self, session: psycopg.Connection) -> None:
        session.execute(f"VACUUM FULL pg_catalog.{self.random.choice(CATALOGS)}")

    def reindex(self, session: psycopg.Connection) -> None:
        session.execute(
            self.random.choice(
                [
                    f"REINDEX TABLE pg_catalog.{self.random.choice(CATALOGS[:10])}",
                    "VACUUM FULL lead_audit.watched_relation",
                    "VACUUM lead_audit.entry",
                ]
            )
        )

    def administer(self, session: psycopg.Connection) -> None:
        session.execute(
            self.random.choice(
                [
                    "CHECKPOINT",
                    "SELECT pg_reload_conf()",
                    "SELECT lead_audit.seal()",
                    "SELECT * FROM lead_audit.check_watched()",
                    "ANALYZE",
                    "SELECT * FROM lead_audit.stats",
                    "SELECT count(*) FROM lead_audit.log",
                    "SELECT pg_switch_wal()",
                ]
            )
        )

    def verify(self, session: psycopg.Connection) -> None:
        session.execute("SET statement_timeout = 0; SET lock_timeout = 0")
        try:
            self.verified += [
                str(row)
                for row in session.execute(
                    "SELECT v::text FROM lead_audit.verify() v LIMIT 10"
                ).fetchall()
            ]
        finally:
            if not session.broken:
                session.execute("SET statement_timeout = '20s'; SET lock_timeout = '1s'")

    def end_prepared(self, session: psycopg.Connection) -> None:
        """Ends old prepared transactions, because they would hold their locks forever."""
        for (name,) in session.execute(
            "SELECT gid FROM pg_prepared_xacts WHERE prepared < now() - interval '1 second'"
        ).fetchall():
            session.execute(f"{self.random.choice(['COMMIT', 'ROLLBACK'])} PREPARED '{name}'")

    def kill_one(self, session: psycopg.Connection) -> None:
        what = self.random.choice(
            [
                "backend_type = 'lead_audit worker'",
                "backend_type = 'lead_audit launcher'",
                "backend_type = 'client backend' AND usename = 'writer'",
                "backend_type = 'client backend' AND usename = 'writer' AND state = 'active'",
            ]
        )
        pid = self.backend(session, what)
        if pid is None:
            return
        self.killed.append(pid)
        os.kill(pid, signal.SIGKILL)
        # After the kill, the server ends the session of this thread too. The server accepts a new
        # connection only after recovery.
        while not self.stop.wait(0.2):
            session.execute("SELECT 1")


class Smith(threading.Thread):
    """Runs sqlsmith repeatedly, because sqlsmith reads the list of tables only when it starts."""

    def __init__(self, shared: Shared, conninfo: str, seed: int, log: Path):
        super().__init__(name="sqlsmith", daemon=True)
        self.shared, self.conninfo, self.seed, self.log = shared, conninfo, seed, log
        self.runs = 0

    def run(self) -> None:
        while not self.shared.stop.is_set():
            self.runs += 1
            with self.log.open("ab") as log:
                smith = subprocess.Popen(
                    [
                        "sqlsmith",
                        f"--target={self.conninfo} user=smith",
                        "--exclude-catalog",
                        "--max-queries=400",
                        f"--seed={self.seed + self.runs}",
                        "--verbose",
                    ],
                    stdout=log,
                    stderr=log,
                )
                while smith.poll() is None and not self.shared.stop.wait(0.5):
                    pass
                smith.kill()
                smith.wait()
            self.shared.stop.wait(0.5)
