#!/usr/bin/env python3
"""storm.py SECONDS SEED SOCKET LOG DIRECTORY: runs the storm, which scripts/storm.sh describes.

SOCKET is the directory of the server's socket, and LOG is the server's log. The script writes four
files to DIRECTORY: decoded (the counts of decoded changes), oracle (the differences between the
entries and the WAL), errors (the errors of the writers) and sqlsmith.log. The script prints a line
for each fault. The script ends with exit code 1 if there are faults.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg
from chaos import Chaos, Smith
from writers import Shared, Writer

FILES = Path(__file__).parent
SUITES = FILES.parent / "postgres_suites"
WRITERS = 7
DATABASE = "storm"
# Matches lines of the server's log that are written after a process has died or an assertion has
# failed.
DEATHS = re.compile(
    r"terminated by signal|terminating any other active server processes|shutting down due to"
    r"|PANIC:|TRAP:|fatal runtime error|panicked at|memory allocation of"
)
# INTERNAL matches errors that the statements of the writers must not cause. ACCEPTED matches three
# exceptions:
# - DROP TABLE looks up the parent of a partition before it locks the partition. PostgreSQL raises
#   the first error if another session detaches the partition at this moment.
# - Before ATTACH PARTITION, lead_audit looks up the partition, and renames its row trigger.
#   PostgreSQL raises the second error if the session that creates the partition commits after
#   this look-up and before PostgreSQL's own look-up.
# - ALTER COLUMN … TYPE reads constraints with the snapshot of the transaction. Under REPEATABLE
#   READ, PostgreSQL raises the third error for a constraint that is newer than the snapshot.
INTERNAL = re.compile(r"^(XX|58|53)|^(?!57|55P03|40).*lead_audit")
ACCEPTED = re.compile(
    r"^XX000 could not find tuple for parent of relation N \(drop_table\)$"
    r'|^42710 trigger "N_lead_audit_row" for relation "dN" already exists \(attach\)$'
    r"|^XX000 could not find tuple for constraint N \(alter_type\)$"
)


def row(session: psycopg.Connection, query: str, *parameters: object) -> tuple[Any, ...]:
    """Runs a query and returns its only row."""
    found = session.execute(query, parameters or None).fetchone()
    assert found is not None
    return found


class Storm:
    def __init__(self, seconds: int, seed: int, socket: str, log: Path, directory: Path):
        self.seconds, self.seed, self.socket, self.log, self.directory = (
            seconds,
            seed,
            socket,
            log,
            directory,
        )
        self.conninfo = f"host={socket} port=5432 dbname={DATABASE}"
        self.shared = Shared()
        self.faults: list[str] = []
        self.decoded = directory / "decoded"

    def admin(self) -> psycopg.Connection:
        return psycopg.connect(self.conninfo, user="postgres", autocommit=True)

    # ---- the run --------------------------------------------------------------------------------

    def run(self) -> int:
        self.prepare()
        writers = [
            Writer(self.shared, self.conninfo, number, self.seed) for number in range(WRITERS)
        ]
        smith = Smith(self.shared, self.conninfo, self.seed, self.directory / "sqlsmith.log")
        for thread in [*writers, smith]:
            thread.start()
        quiet = self.disturb(self.seconds * 5 // 6, kill=False)
        self.end_unlogged()
        restarts_from = self.log.stat().st_size
        violent = self.disturb(self.seconds - self.seconds * 5 // 6, kill=True)
        self.shared.stop.set()
        for thread in [*writers, smith]:
            thread.join(120)
            if thread.is_alive():
                self.faults.append(f"{thread.name} does not end")
        for fault in [*(writer.fault for writer in writers), quiet.fault, violent.fault]:
            if fault is not None:
                raise fault
        self.faults += [f"verify() found during the storm: {found}" for found in quiet.verified]
        self.look_at_log(restarts_from, violent.killed)
        with self.wait_for_end() as session:
            self.look_at_log(restarts_from, violent.killed)
            self.check(session)
            self.ask_oracle(session)
            self.summarise(session, smith, quiet, violent)
        (self.directory / "errors").write_text(
            "".join(f"{count} {message}\n" for message, count in self.shared.messages.most_common())
        )
        for text in self.faults[:60]:
            print(f"FAULT: {text}")
        print(f"{len(self.faults)} faults")
        return 1 if self.faults else 0

    def prepare(self) -> None:
        with psycopg.connect(
            f"host={self.socket} port=5432 dbname=postgres", user="postgres", autocommit=True
        ) as session:
            session.execute(f"CREATE DATABASE {DATABASE} TEMPLATE template0")
        with self.admin() as session:
            session.execute("CREATE EXTENSION lead_audit")
            # With held.refuse = on, CREATE TABLE fails if lead_audit cannot watch the new table
            # (see watch.sql).
            session.execute(f"ALTER DATABASE {DATABASE} SET held.refuse = 'on'")
        for script in (SUITES / "watch.sql", FILES / "schema.sql"):
            if script.parent == FILES:
                self.start_oracle()
            with self.admin() as session:
                session.execute(script.read_text())

    def disturb(self, seconds: float, kill: bool) -> Chaos:
        chaos = Chaos(self.shared, self.conninfo, self.seed + kill, kill, pause=0.4)
        end = time.monotonic() + seconds
        chaos.start()
        while time.monotonic() < end:
            self.refresh_names()
            time.sleep(1)
        chaos.stop.set()
        chaos.join(60)
        return chaos

    def end_unlogged(self) -> None:
        """Sets all unlogged tables LOGGED before the kills begin.

        If CREATE UNLOGGED TABLE is rolled back and the server is killed soon afterwards, PostgreSQL
        can fail to start ("could not create file ...: File exists"). PostgreSQL's recovery replays
        the creation of the table's init fork, but not the rollback. The file of the init fork
        exists until PostgreSQL's next checkpoint.
        """
        self.shared.unlogged = False
        with self.admin() as session:
            while True:
                try:
                    session.execute(
                        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                        " WHERE usename IN ('writer', 'smith')"
                    )
                    for (name,) in session.execute("SELECT gid FROM pg_prepared_xacts").fetchall():
                        session.execute(f"ROLLBACK PREPARED '{name}'")
                    for (name,) in session.execute(
                        "SELECT oid::regclass::text FROM pg_class WHERE relpersistence = 'u'"
                        " AND relkind = 'r'"
                    ).fetchall():
                        session.execute(f"ALTER TABLE {name} SET LOGGED")
                    session.execute("CHECKPOINT")
                    return
                except psycopg.errors.DatabaseError as error:  # for example, a table was dropped
                    if session.broken:
                        raise
                    self.shared.errors[f"end_unlogged {error.sqlstate}"] += 1

    def refresh_names(self) -> None:
        try:
            with self.admin() as session:
                names = session.execute(
                    "SELECT format('%I.%I', relnamespace::regnamespace, relname) FROM pg_class"
                    " WHERE relname ~ '^d[0-9]+$' AND relkind = 'r'"
                )
                self.shared.refresh([name for (name,) in names])
        except psycopg.Error:  # a catalog is being rewritten, or the server restarts
            pass

    # ---- afterwards -----------------------------------------------------------------------------

    def wait_for_end(self) -> psycopg.Connection:
        """Waits until the writers' sessions have ended and the queue is empty.

        First commits or rolls back the prepared transactions. Returns a session of the superuser.
        """
        end = time.monotonic() + 180
        while True:
            try:
                session = self.admin()
                for number, (name,) in enumerate(
                    session.execute("SELECT gid FROM pg_prepared_xacts").fetchall()
                ):
                    session.execute(f"{'COMMIT' if number % 2 else 'ROLLBACK'} PREPARED '{name}'")
                while True:
                    # The queue becomes empty even if the worker has ended, because the launcher
                    # starts a new worker.
                    if session.execute(
                        "SELECT NOT EXISTS (SELECT FROM pg_stat_activity"
                        " WHERE usename IN ('writer', 'smith'))"
                        " AND EXISTS (SELECT FROM lead_audit.queue()"
                        f" WHERE database_name = '{DATABASE}' AND waiting = 0)"
                    ).fetchone() == (True,):
                        return session
                    if time.monotonic() > end:
                        self.faults.append(
                            "the queue did not drain: "
                            + str(session.execute("SELECT * FROM lead_audit.queue()").fetchall())
                        )
                        return session
                    time.sleep(0.3)
            except psycopg.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)

    def look_at_log(self, restarts_from: int, killed: list[int]) -> None:
        with self.log.open("rb") as log:
            text = log.read(restarts_from).decode(errors="replace")
            later = log.read().decode(errors="replace")
        unexpected = [line for line in text.splitlines() if DEATHS.search(line)]
        for line in later.splitlines():
            death = re.search(r"\(PID (\d+)\) was terminated by signal 9", line)
            expected = (
                death
                and int(death[1]) in killed
                or "terminating any other active server processes" in line
            )
            if DEATHS.search(line) and not expected:
                unexpected.append(line)
        restarts = later.count("terminating any other active server processes")
        if restarts > len(killed):
            unexpected.append(f"{restarts} restarts, {len(killed)} kills")
        self.restarts = restarts
        self.faults += [
            fault
            for line in unexpected
            if (fault := f"the server's log says: {line}") not in self.faults
        ]

    def check(self, session: psycopg.Connection) -> None:
        session.execute("SELECT lead_audit.seal()")
        self.faults += [
            f"verify() found: {row[0]}"
            for row in session.execute("SELECT v::text FROM lead_audit.verify() v LIMIT 20")
        ]
        self.faults += [
            f"check_watched() found: {row}"
            for row in session.execute("SELECT * FROM lead_audit.check_watched()")
        ]
        self.faults += [
            f"not on: {row}"
            for row in session.execute(
                "SELECT relation::text, state FROM lead_audit.watched"
                " WHERE state <> 'on' OR NOT row_trigger_on"
            )
        ]
        unwritten, queued, written, dropped, quarantined = row(
            session,
            "SELECT entries_not_written, queued, written, dropped, quarantined"
            " FROM lead_audit.stats",
        )
        self.check_gaps(session, unwritten)
        (recorded,) = row(session, "SELECT count(*) FROM lead_audit.entry WHERE outcome <> 'ok'")
        logged = sum("has no audit entry" in line for line in self.log.open(errors="replace"))
        print(
            f"failures: {queued} queued, {written} written, {dropped} dropped,"
            f" {quarantined} quarantined; {recorded} entries, {logged} in the server's log"
        )
        # The counter `queued` includes some of the dropped records, but not all of them.
        if not written <= queued <= written + dropped or (recorded, logged) != (written, dropped):
            self.faults.append("the counts of failures do not agree")
        self.check_failures(session)
        for message, count in self.shared.messages.items():
            if INTERNAL.search(message) and not ACCEPTED.search(message):
                self.faults.append(f"clients saw {count} times: {message}")

    def check_gaps(self, session: psycopg.Connection, unwritten: int) -> None:
        """Checks that a gap entry or a line of the log stands for each unwritten entry.

        The check accepts an unwritten entry only if its cause is a lock timeout or a deadlock, for
        example with VACUUM FULL.
        """
        for line in self.log.open(errors="replace"):
            if "has no audit entry" in line and '"outcome":"gap"' in line:
                gap = json.loads(line[line.index("{") :])
                session.execute(
                    "INSERT INTO held.gap VALUES (%s::text::xid8, %s, %s, %s, %s,"
                    " timestamptz '2000-01-01 UTC' + %s * interval '1 microsecond')",
                    (
                        gap["txid"],
                        gap["table"]["relation"],
                        gap["table"]["schema"],
                        gap["table"]["name"],
                        gap["operation"],
                        gap["occurred_at"],
                    ),
                )
        (logged,) = row(session, "SELECT count(*) FROM held.gap")
        codes: dict[str, int] = dict(
            session.execute(
                "SELECT error_code, count(*) FROM lead_audit.entry WHERE outcome = 'gap' GROUP BY 1"
            ).fetchall()
        )
        print(f"{unwritten} entries not written; gaps: {codes}, {logged} in the server's log")
        if unwritten != sum(codes.values()) + logged or not codes.keys() <= {"55P03", "40P01"}:
            self.faults.append(
                f"{unwritten} entries were not written; gaps: {codes}, {logged} in the server's log"
            )

    def check_failures(self, session: psycopg.Connection) -> None:
        """Checks that each error that a writer saw has an entry or a line in the server's log."""
        found: Counter[str] = Counter(
            dict(
                session.execute(
                    "SELECT request_id, count(*) FROM lead_audit.entry"
                    " WHERE outcome = 'failed' AND table_name = 'fixed' AND error_code = '23505'"
                    # Statements of sqlsmith on this table can also fail, but only the writers'
                    # statements have a request id.
                    " AND request_id IS NOT NULL GROUP BY 1"
                ).fetchall()
            )
        )
        for line in self.log.open(errors="replace"):
            if (
                "has no audit entry" in line
                and '"outcome":"failed"' in line
                and '"name":"fixed"' in line
                and '"23505"' in line
                and (named := re.search(r'"request_id":"([^"]*)"', line))
            ):
                found[named[1]] += 1
        for request in {*found, *self.shared.failed}:
            known = self.shared.failed[request]
            if not known <= found[request] <= known + self.shared.unsure[request]:
                self.faults.append(
                    f"request {request} failed {known} times"
                    f" (perhaps {self.shared.unsure[request]} more); {found[request]} records"
                )
        print(
            f"{self.shared.failed.total()} failures that clients know of, {found.total()} records"
        )

    # ---- the oracle -----------------------------------------------------------------------------

    def start_oracle(self) -> None:
        with self.admin() as session:
            session.execute("SELECT pg_create_logical_replication_slot('oracle', 'test_decoding')")
        # After a restart, pg_recvlogical connects again and receives unconfirmed transactions a
        # second time. count_changes.py counts a transaction once, even if pg_recvlogical receives
        # it twice.
        self.receiver = subprocess.Popen(
            [
                "pg_recvlogical",
                "-h",
                self.socket,
                "-U",
                "postgres",
                "-d",
                DATABASE,
                "-S",
                "oracle",
                "--start",
                "--status-interval=1",
                "-f",
                "-",
                "-o",
                "include-xids=1",
                "-o",
                "skip-empty-xacts=1",
            ],
            stdout=subprocess.PIPE,
            stderr=(self.directory / "recvlogical.log").open("wb"),
        )
        self.counter = subprocess.Popen(
            [sys.executable, str(SUITES / "count_changes.py")],
            stdin=self.receiver.stdout,
            stdout=self.decoded.open("wb"),
        )

    def ask_oracle(self, session: psycopg.Connection) -> None:
        (end,) = row(session, "SELECT pg_current_wal_lsn()")
        deadline = time.monotonic() + 600
        while row(
            session,
            "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots"
            " WHERE slot_name = 'oracle'",
            end,
        ) != (True,):
            if self.receiver.poll() is not None or time.monotonic() > deadline:
                self.faults.append(f"logical decoding did not reach {end}: see recvlogical.log")
                break
            time.sleep(1)
        self.receiver.terminate()
        self.receiver.wait()
        self.counter.wait()
        with session.cursor().copy("COPY held.decoded FROM STDIN") as copy:
            copy.write(self.decoded.read_bytes())
        # oracle.sql expects no entries for a table name if every row of held.note with this name
        # has watched = false. The storm watches every table, also a later table of the same name.
        # So this statement removes the name from these rows, and oracle.sql expects entries for
        # every table.
        session.execute("UPDATE held.note SET name = '' WHERE NOT watched")
        with (self.directory / "oracle").open("wb") as output:
            subprocess.run(
                [
                    "psql",
                    "-h",
                    self.socket,
                    "-U",
                    "postgres",
                    "-d",
                    DATABASE,
                    "-XqAt",
                    "-v",
                    "ON_ERROR_STOP=1",
                    "-f",
                    str(SUITES / "oracle.sql"),
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        self.faults += [
            f"oracle: {line}" for line in (self.directory / "oracle").read_text().splitlines()
        ]

    def summarise(
        self, session: psycopg.Connection, smith: Smith, quiet: Chaos, violent: Chaos
    ) -> None:
        shared = self.shared
        entries = session.execute(
            "SELECT outcome, operation, count(*) FROM lead_audit.entry GROUP BY 1, 2"
            " ORDER BY 3 DESC"
        ).fetchall()
        (changes,) = row(session, "SELECT coalesce(sum(n), 0) FROM held.decoded")
        print(
            f"{changes} changes were decoded; entries: "
            + ", ".join(f"{outcome} {operation} {count}" for outcome, operation, count in entries)
        )
        for what, counted in (
            ("done", shared.done),
            ("refused", shared.errors),
            ("chaos", quiet.done),
            ("chaos with kills", violent.done),
        ):
            print(f"{what}: " + ", ".join(f"{key} {count}" for key, count in counted.most_common()))
        print(
            f"{len(violent.killed)} kills, {self.restarts} restarts,"
            f" {smith.runs} runs of sqlsmith, seed {self.seed}"
        )
        # A storm with few changes tests too little, so it counts as a fault.
        if changes < 10 * self.seconds:
            self.faults.append(f"only {changes} changes in {self.seconds} s")


if __name__ == "__main__":
    storm = Storm(
        int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), Path(sys.argv[5])
    )
    try:
        sys.exit(storm.run())
    finally:
        storm.receiver.kill()
