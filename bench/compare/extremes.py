"""Measures the memory of a large UPDATE, the cost by size, and the speed of seal() and verify()."""

import pathlib
import statistics
import threading
import time

from .statements import Timer, measure, timed


class Memory:
    """Samples the private memory of a server process while the `with` block runs.

    `growth` is the number of bytes by which the largest sample exceeds the memory before the block.
    """

    def __init__(self, pid):
        self.status, self.most, self.done = (
            pathlib.Path(f"/proc/{pid}/status"),
            0,
            threading.Event(),
        )
        self.before = self._now()
        self.thread = threading.Thread(target=self._watch)

    def _now(self):
        line = next(
            line for line in self.status.read_text().splitlines() if line.startswith("RssAnon:")
        )
        return int(line.split()[1]) * 1024

    def _watch(self):
        while not self.done.wait(0.02):
            self.most = max(self.most, self._now())

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()

    @property
    def growth(self):
        return max(0, self.most - self.before)


def memory(system, rows):
    """Measures the memory of an UPDATE of `rows` rows. First fills the table up to `rows` rows."""
    connection = system.connection("leads")
    have = connection.execute("SELECT count(*) FROM leads").fetchone()[0]
    with connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")
        connection.execute(f"""INSERT INTO leads (id, email, company_name, source)
            SELECT 'more-' || g, 'contact' || g || '@example.com', 'Example Company ' || g, 'web'
            FROM generate_series(1, {rows - have}) g""")
    connection.execute("VACUUM leads")
    with (
        system.cluster.connect(system.database("leads")) as fresh,
        Memory(fresh.info.backend_pid) as watched,
    ):
        fresh.execute("UPDATE leads SET enrichment_status = 'DONE'")
    with connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")
        connection.execute("DELETE FROM leads WHERE id LIKE 'more-%'")
    connection.execute("VACUUM leads")
    return watched.growth


def growth(system, unaudited, sizes, rows, rounds):
    """Measures, for each size of the log, the processor time that the audit adds to an UPDATE.

    Also measures an INSERT … SELECT that inserts the entries of the UPDATE into `twin`, a copy of
    the log.
    """
    connection = system.connection("leads")
    count = lambda: connection.execute("SELECT count(*) FROM twin").fetchone()[0]
    found = []
    connection.execute("TRUNCATE twin")
    connection.execute("SET enable_seqscan = off")  # the log has no statistics
    for size in sizes:
        while (
            have := connection.execute("SELECT count(*) FROM lead_audit.entry").fetchone()[0]
        ) < size:
            connection.execute(
                "UPDATE leads SET enrichment_status = enrichment_status || '!'"
                f" WHERE id IN (SELECT id FROM leads LIMIT {min(rows, size - have)})"
            )
            with connection.transaction():
                connection.execute("SET LOCAL session_replication_role = replica")
                connection.execute(
                    "UPDATE leads SET enrichment_status = 'PENDING'"
                    " WHERE enrichment_status LIKE '%!'"
                )
            connection.execute("VACUUM leads")
        connection.execute(
            "INSERT INTO twin SELECT * FROM lead_audit.entry e"
            " WHERE id > (SELECT coalesce(max(id), 0) FROM twin)"
        )
        connection.execute("CHECKPOINT")
        times = []
        for _ in range(rounds):
            plain = measure(unaudited, "leads", "UPDATE", rows)["cpu"]
            audited = measure(system, "leads", "UPDATE", rows)["cpu"]
            last = count()
            copied = timed(
                connection,
                "INSERT INTO twin SELECT * FROM lead_audit.entry e"
                " WHERE id > (SELECT max(id) FROM twin)",
            ).cpu
            times.append((audited - plain, copied, count() - last))
        entries = times[-1][2]
        found.append(
            {
                "entries": size,
                "added": statistics.median(t[0] for t in times) / entries,
                "copied": statistics.median(t[1] for t in times) / entries,
            }
        )
    return found


def by_statement_size(system, unaudited, sizes, rounds):
    """Measures the processor time that the audit adds to each row of an UPDATE, by number of rows.

    A small UPDATE runs up to 200 times in one transaction, each time on different rows. Together
    these UPDATEs change at most as many rows as the largest UPDATE.
    """

    def run(connection, size):
        repeats = min(200, max(1, sizes[-1] // size))
        with Timer(connection) as timer, connection.transaction():
            for number in range(repeats):
                connection.execute(
                    "UPDATE leads SET enrichment_status = CASE enrichment_status"
                    " WHEN 'DONE' THEN 'PENDING' ELSE 'DONE' END, updated_at = now()"
                    f" WHERE id BETWEEN lpad(to_hex({number * size + 1}), 32, '0')"
                    f" AND lpad(to_hex({(number + 1) * size}), 32, '0')"
                )
        connection.execute("VACUUM leads")
        return timer.cpu / repeats / size

    times = {size: [] for size in sizes}
    for _ in range(rounds):
        for size in sizes:
            plain = run(unaudited.connection("leads"), size)
            times[size].append(run(system.connection("leads"), size) - plain)
    return [{"rows": size, "added": statistics.median(t)} for size, t in times.items()]


def sealing(system):
    """Measures how many entries per second seal() and verify() process."""
    connection = system.connection("leads")
    began = time.perf_counter()
    size = connection.execute("SELECT lead_audit.seal()").fetchone()[0]
    sealed = time.perf_counter()
    faults = connection.execute("SELECT count(*) FROM lead_audit.verify()").fetchone()[0]
    return {
        "entries": size,
        "seal": size / (sealed - began),
        "verify": size / (time.perf_counter() - sealed),
        "faults": faults,
    }
