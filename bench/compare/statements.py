"""Measures time, WAL and bytes of a statement that writes many rows, and of the floor (`Floor`)."""

import pathlib
import time

NEW = {
    "leads": """SELECT 'new-' || g, 'contact' || g || '@example.com', 'example' || g || '.com',
        'Example Company ' || g || ' Holdings Ltd.', 'Contact Person ' || g, 'PENDING',
        'task-' || g, NULL, true, 'web', false, now()::timestamp, now()::timestamp,
        NULL::timestamp, 'user-1', NULL, NULL
        FROM generate_series(1, {n}) g""",
    "wide": "SELECT ('new-' || l.id)::varchar, {others} FROM leads l LIMIT {n}",
    "toasted": "SELECT 'new-' || id, 'PENDING', note FROM leads LIMIT {n}",
}
CHANGES = {
    "leads": [
        (
            "UPDATE",
            (
                "enrichment_status = CASE enrichment_status"
                " WHEN 'DONE' THEN 'PENDING' ELSE 'DONE' END, updated_at = now()"
            ),
        )
    ],
    "wide": [
        ("UPDATE of 2 of 100 columns", "column_05 = column_05 || '+', column_06 = column_06 + 1")
    ],
    "toasted": [
        ("UPDATE beside a text of 16 kB", "status = status || '+'"),
        ("UPDATE of a text of 16 kB", "note = reverse(note)"),
    ],
}
OPERATIONS = {"leads": ["UPDATE", "INSERT", "DELETE", "COPY"]} | {
    table: [name for name, _ in CHANGES[table]]
    + ([] if table == "leads" else [f"INSERT, {table}", f"DELETE, {table}"])
    for table in ("wide", "toasted")
}


class Timer:
    """Measures the elapsed time of a `with` block, and the processor time of the server process."""

    def __init__(self, connection):
        self.schedule = pathlib.Path(f"/proc/{connection.info.backend_pid}/schedstat")

    def _processor(self):
        return int(self.schedule.read_text().split()[0]) / 1e9

    def __enter__(self):
        self.cpu, self.seconds = self._processor(), time.perf_counter()
        return self

    def __exit__(self, *_):
        self.seconds = time.perf_counter() - self.seconds
        self.cpu = self._processor() - self.cpu


def timed(connection, sql):
    with Timer(connection) as timer:
        connection.execute(sql)
    return timer


def wal(connection):
    return int(connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()[0])


def own_columns(system, table):
    """Returns the columns of the table, without columns that an audit system has added."""
    with system.cluster.connect(f"table_{table}") as connection:
        return [
            row[0]
            for row in connection.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = 'leads'::regclass"
                " AND attnum > 0 ORDER BY attnum"
            )
        ]


def new_rows(columns, table, count):
    """Returns a query whose result is `count` rows with new keys."""
    return NEW[table].format(n=count, others=", ".join(columns[1:]))


class Copy:
    """Measures COPY. Makes the text that COPY reads only once for each number of rows."""

    def __init__(self):
        self.text = {}

    def timed(self, connection, columns, count):
        if count not in self.text:
            with connection.cursor().copy(
                f"COPY ({new_rows(columns, 'leads', count)}) TO STDOUT"
            ) as copy:
                self.text[count] = b"".join(copy)
        with (
            Timer(connection) as timer,
            connection.cursor().copy(f"COPY leads ({', '.join(columns)}) FROM STDIN") as copy,
        ):
            copy.write(self.text[count])
        return timer


COPY = Copy()


def measure(system, table, operation, rows):
    """Runs the operation once. Returns {"seconds", "cpu", "wal", "bytes"}.

    After the call, the table has the same keys as before. The new values of an UPDATE stay in the
    table.
    """
    connection = system.connection(table)
    size = lambda: connection.execute("SELECT pg_database_size(current_database())").fetchone()[0]
    columns = own_columns(system, table)
    insert = (
        f"INSERT INTO leads ({', '.join(columns)}) {new_rows(columns, table, rows)}"
        if operation.startswith(("INSERT", "DELETE"))
        else None
    )
    unaudited(connection, insert if operation.startswith("DELETE") else None)
    before, before_wal = size(), wal(connection)
    if operation == "COPY":
        took = COPY.timed(connection, columns, rows)
    elif operation.startswith("INSERT"):
        took = timed(connection, insert)
    elif operation.startswith("DELETE"):
        took = timed(connection, "DELETE FROM leads WHERE id LIKE 'new-%'")
    else:
        took = timed(connection, f"UPDATE leads SET {dict(CHANGES[table])[operation]}")
    result = {
        "seconds": took.seconds,
        "cpu": took.cpu,
        "wal": wal(connection) - before_wal,
        "bytes": size() - before,
    }
    if not operation.startswith(("UPDATE", "DELETE")):
        unaudited(connection, "DELETE FROM leads WHERE id LIKE 'new-%'")
    connection.execute("VACUUM leads")
    return result


def unaudited(connection, sql):
    if sql:
        with connection.transaction():
            connection.execute("SET LOCAL session_replication_role = replica")
            connection.execute(sql)


class Floor:
    """Measures two parts of the floor: INSERT … SELECT and SHA-256.

    Copies the newest entries of lead_audit to `twin`, a copy of the log. Computes SHA-256 over as
    many bytes as the preimages of these entries have.
    """

    def __init__(self, system, table):
        self.connection = system.connection(table)
        self.connection.execute("CREATE TABLE twin (LIKE lead_audit.entry INCLUDING ALL)")
        self.connection.execute("CREATE TABLE preimages (preimage bytea)")
        self.connection.execute("ALTER TABLE preimages ALTER COLUMN preimage SET STORAGE EXTERNAL")
        self.last = self._last()

    def _last(self):
        return self.connection.execute(
            "SELECT coalesce(max(id), 0) FROM lead_audit.entry"
        ).fetchone()[0]

    def measure(self):
        """Copies and hashes the entries since the last call.

        Returns {"seconds", "cpu", "hash", …}.
        """
        connection, first, last = self.connection, self.last, self._last()
        self.last = last
        before = wal(connection)
        connection.execute("SET enable_seqscan = off")  # the log has no statistics
        took = timed(
            connection, f"INSERT INTO twin SELECT * FROM lead_audit.entry WHERE id > {first}"
        )
        connection.execute("RESET enable_seqscan")
        written = wal(connection) - before
        # A computed preimage has the members of the real preimage, but in a different order.
        connection.execute("TRUNCATE preimages")
        connection.execute(f"""INSERT INTO preimages SELECT (
              SELECT convert_to(
                '{{' || string_agg(format('"%s":%s', m.key, m.value), ',') || '}}', 'UTF8')
              FROM json_each(row_to_json(e)) m
              WHERE m.key <> 'checksum' AND m.value::text <> 'null')
            FROM lead_audit.entry e WHERE id > {first}""")
        reading = min(
            timed(connection, "SELECT count(length(preimage || '')) FROM preimages").cpu
            for _ in range(3)
        )
        hashing = min(
            timed(connection, "SELECT count(sha256(preimage || '')) FROM preimages").cpu
            for _ in range(3)
        )
        entries = connection.execute("SELECT count(*) FROM preimages").fetchone()[0]
        return {
            "seconds": took.seconds,
            "cpu": took.cpu,
            "hash": hashing - reading,
            "wal": written,
            "entries": entries,
        }
