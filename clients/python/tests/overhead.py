"""Measures the cost of the client: compares an engine with attach() and a plain engine.

    python -m tests.overhead [ROUNDS]

The two engines connect to the server on a Unix socket, and run in turns in many short rounds. Each
figure is the difference in microseconds between the best rounds of the two engines. Other processes
hardly affect the best rounds. CPU is the CPU time of this process, without the CPU time of the
server. The exit code is 1 if a CPU time exceeds its limit.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import Any, Callable

from sqlalchemy import create_engine, text

from lead_audit import AuditContext
from lead_audit.sqlalchemy import attach

from .cluster import Cluster
from .drivers import SYNC

INSERT = text("INSERT INTO leads (id) SELECT gen_random_uuid()")
ONE = text("SELECT 1")
WIDE = text(
    f"SELECT {', '.join(f'lower(l.source) AS column_{number}' for number in range(40))}"
    " FROM leads l WHERE l.id = 'x'"
)
PER_ROUND = 30

TRANSACTION, STATEMENT, AUTOCOMMIT_READ, AUTOCOMMIT_NEW, AUTOCOMMIT_WRITE = (
    "a transaction that writes",
    "a further statement in it",
    "a SELECT of 40 columns in AUTOCOMMIT",
    "the same with a text that is new each time",
    "an INSERT in AUTOCOMMIT",
)

LIMITS = {TRANSACTION: 100, STATEMENT: 20, AUTOCOMMIT_READ: 20}


def measured(engine: Any) -> dict[str, tuple[float, float]]:
    """Returns the elapsed seconds and the CPU seconds that each operation takes."""
    found: dict[str, tuple[float, float]] = {}

    def measure(name: str, work: Callable[[int], None]) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        for number in range(PER_ROUND):
            work(number)
        found[name] = (
            (time.perf_counter() - wall) / PER_ROUND,
            (time.process_time() - cpu) / PER_ROUND,
        )

    def transaction(number: int) -> None:
        with engine.begin() as connection:
            connection.execute(INSERT)

    measure(TRANSACTION, transaction)
    with engine.begin() as connection:
        connection.execute(ONE)
        measure(STATEMENT, lambda number: connection.execute(ONE))
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(ONE)
        measure(AUTOCOMMIT_READ, lambda number: connection.execute(WIDE))
        start = time.monotonic_ns()
        measure(
            AUTOCOMMIT_NEW,
            lambda number: connection.exec_driver_sql(f"{WIDE} AND l.email <> '{start + number}'"),
        )
        measure(AUTOCOMMIT_WRITE, lambda number: connection.execute(INSERT))
    return found


def main(rounds: int) -> int:
    logging.disable(logging.CRITICAL)
    cluster = Cluster(f"cluster-{os.getpid()}")
    try:
        database = cluster.database()
        # Ends the watching of the table, because the script measures only the client. The cost of
        # the audit triggers depends on the context, and would distort the comparison.
        database.query("SELECT lead_audit.disable('leads')")
        database.query(f"ALTER DATABASE {database.name} SET log_statement = 'none'")
        print("| microseconds | " + " | ".join(f"{driver}: clock | CPU" for driver in SYNC) + " |")
        print("| --- |" + " --- | --- |" * len(SYNC))
        rows: dict[str, list[str]] = {}
        exceeded = 0
        for driver in SYNC:
            plain, attached = (create_engine(database.url(driver), future=True) for _ in range(2))
            attach(attached)
            without, with_it = [], []
            with AuditContext(
                "alice",
                "203.0.113.7",
                "Mozilla/5.0 (X11; Linux x86_64)",
                "0f0e0d0c0b0a09080706050403020100",
            ):
                for number in range(rounds + 3):
                    pair = (
                        (measured(plain), measured(attached))
                        if number % 2
                        else (measured(attached), measured(plain))[::-1]
                    )
                    if number >= 3:  # the first three rounds only warm up
                        without.append(pair[0])
                        with_it.append(pair[1])
            for name in without[0]:
                for kind in range(2):
                    difference = min(found[name][kind] for found in with_it) - min(
                        found[name][kind] for found in without
                    )
                    rows.setdefault(name, []).append(f"{difference * 1e6:.0f}")
                    exceeded += kind == 1 and difference * 1e6 > LIMITS.get(name, float("inf"))
            plain.dispose()
            attached.dispose()
        for name, figures in rows.items():
            print(f"| {name} | {' | '.join(figures)} |")
        return 1 if exceeded else 0
    finally:
        cluster.remove()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 300))
