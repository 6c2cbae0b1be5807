"""The writers of the storm.

Each writer runs random DML, and random DDL on tables that other writers use.
"""

from __future__ import annotations

import itertools
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable

import psycopg
from psycopg import Connection, pq

FIXED = [
    f"s.{name}"
    for name in "plain_0 plain_1 plain_2 nokey unlogged owner item remark part list inh".split()
]
LEAVES = [
    f"s.{name}"
    for name in (
        "part_0 part_1 part_1_0 part_1_1 part_2 part_rest list_0 list_rest inh_0 inh_1".split()
    )
]
WITH_KEY = [name for name in FIXED if name not in ("s.nokey", "s.inh", "s.list")]
TEXTS = [
    "NULL",
    "''",
    "'a'",
    r"E'it''s \\ \n\t'",
    "'ünï ☃ 𝄞'",
    "repeat('long ', 900)",
    "md5(random()::text)",
    "'{\"a\": 1}'",
    "repeat(md5('x'), 500)",
]
TYPES = [
    "int",
    "bigint",
    "numeric(12,2)",
    "text",
    "date",
    "int[]",
    "jsonb",
    "varchar(20)",
    "timestamptz",
    "bytea",
    "float4",
]
ISOLATIONS = ["READ COMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]


class Shared:
    """The state that all writers share: counts, and the names of tables that writers created."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        # Whether writers may create unlogged tables. Storm.end_unlogged sets `unlogged` to False
        # before the kills begin. The docstring of end_unlogged gives the reason.
        self.unlogged = True
        self.lock = threading.Lock()
        self.numbers = itertools.count(1)
        self.names: list[str] = []
        self.errors: Counter[str] = Counter()
        self.messages: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        # `failed` counts, for each request id, the statements of Writer.fail whose error the client
        # saw. `unsure` counts, for each request id, the statements of Writer.fail that may have
        # failed although the client saw no error.
        self.failed: Counter[str] = Counter()
        self.unsure: Counter[str] = Counter()

    def new_name(self, schema: str = "s") -> str:
        return f"{schema}.d{next(self.numbers)}"

    def add(self, name: str) -> None:
        """Adds the name of a new table.

        Other writers can use the table after its transaction commits.
        """
        with self.lock:
            self.names.append(name)

    def refresh(self, names: list[str]) -> None:
        """Replaces the shared names by the names of the tables that exist."""
        with self.lock:
            self.names = names

    def some_name(self, random: random.Random) -> str:
        with self.lock:
            return random.choice(self.names) if self.names else "s.plain_0"


class Writer(threading.Thread):
    def __init__(self, shared: Shared, conninfo: str, number: int, seed: int):
        super().__init__(name=f"writer {number}", daemon=True)
        self.shared, self.conninfo, self.number = shared, conninfo, number
        self.random = random.Random(seed * 1000 + number)
        self.requests = 0
        self.request = ""
        self.doing = "transaction"  # the name of the running step, for the counts of errors
        self.fault: BaseException | None = None
        self.writes: list[tuple[int, Callable[[Connection], None]]] = [
            (8, self.insert),
            (8, self.update),
            (5, self.delete),
            (4, self.on_conflict),
            (4, self.merge),
            (4, self.copy),
            (3, self.by_cursor),
            (3, self.do_block),
            (3, self.function),
            (3, self.with_query),
            (4, self.move),
            (4, self.cascade),
            (1, self.truncate),
            (3, self.fail),
            (2, self.temporary),
            (2, self.update_extra),
            (1, self.select),
        ]
        self.ddl: list[tuple[int, Callable[[Connection], None]]] = [
            (4, self.create_table),
            (3, self.drop_table),
            (3, self.add_column),
            (3, self.drop_column),
            (3, self.alter_type),
            (3, self.attach),
            (3, self.detach),
            (2, self.inherit),
            (2, self.no_inherit),
            (2, self.rename),
            (2, self.index),
            (1, self.constraint),
            (1, self.comment),
            (1, self.grant),
            (1, self.logged),
            (1, self.partition_of),
            (1, self.create_as),
        ]

    # ---- sessions and transactions --------------------------------------------------------------

    def run(self) -> None:
        try:
            while not self.shared.stop.is_set():
                try:
                    with psycopg.connect(
                        self.conninfo,
                        user="writer",
                        autocommit=True,
                        prepare_threshold=self.random.choice([None, 0, 2]),
                    ) as session:
                        self.session(session)
                except psycopg.OperationalError as error:
                    self.note(error)
                    time.sleep(0.05)
        except BaseException as error:  # a defect of the test itself fails the storm
            self.fault = error

    def session(self, session: Connection) -> None:
        random = self.random
        session.execute(
            f"SET search_path = {random.choice(['s, public', 'pg_catalog', 's2, s', 'public'])}"
        )
        for _ in range(random.randint(1, 60)):
            if self.shared.stop.is_set():
                return
            try:
                self.transaction(session)
            except psycopg.Error as error:
                self.note(error)
                if session.closed or session.broken:
                    return
                if session.info.transaction_status != pq.TransactionStatus.IDLE:
                    session.execute("ROLLBACK")

    def transaction(self, session: Connection) -> None:
        random = self.random
        self.requests += 1
        self.request = f"{self.number}-{self.requests}"
        session.execute(
            "SELECT set_config('lead_audit.request_id', %s, false),"
            " set_config('lead_audit.user_id', %s, false),"
            " set_config('lock_timeout', %s, false), set_config('statement_timeout', %s, false)",
            (
                self.request,
                f"user {self.number}",
                random.choice(["20ms", "200ms", "1s"]),
                random.choice(["15ms", "1s", "3s", "3s", "5s"]),
            ),
        )
        if random.random() < 0.2:
            self.step(session)
            self.shared.done["alone"] += 1
            return
        session.execute(f"BEGIN ISOLATION LEVEL {random.choice(ISOLATIONS)}")
        for _ in range(random.randint(1, 7)):
            self.within(session, 0)
        end = random.random()
        if end < 0.1:
            session.execute("ROLLBACK")
            self.shared.done["rolled back"] += 1
        elif end < 0.2:
            name = f"p{self.request}"
            session.execute(f"PREPARE TRANSACTION '{name}'")
            if random.random() < 0.3:
                time.sleep(random.random() * 0.3)
            session.execute(f"{random.choice(['COMMIT', 'COMMIT', 'ROLLBACK'])} PREPARED '{name}'")
            self.shared.done["prepared"] += 1
        else:
            commit = (
                "COMMIT"
                if random.random() < 0.9
                else "COMMIT AND CHAIN; INSERT INTO s.nokey VALUES (1, 1, 'chained'); COMMIT"
            )
            session.execute(commit, prepare=False)
            self.shared.done["committed"] += 1

    def within(self, session: Connection, depth: int) -> None:
        """Runs a step of a transaction, sometimes in a savepoint."""
        random = self.random
        if random.random() < 0.6:
            return self.step(session)
        name = f"p{depth}"
        session.execute(f"SAVEPOINT {name}")
        try:
            for _ in range(random.randint(1, 2)):
                self.within(session, depth + 1) if depth < 3 else self.step(session)
        except psycopg.Error as error:
            self.note(error)
            if session.closed or session.broken:
                raise
            session.execute(f"ROLLBACK TO {name}")
            return
        if random.random() < 0.2:
            session.execute(f"ROLLBACK TO {name}")
        elif random.random() < 0.5:
            session.execute(f"RELEASE {name}")

    def step(self, session: Connection) -> None:
        steps = self.writes if self.random.random() < 0.88 else self.ddl
        step = self.random.choices([step for _, step in steps], [weight for weight, _ in steps])[0]
        self.doing = step.__name__
        step(session)
        self.shared.done[step.__name__] += 1
        self.doing = "transaction"

    def note(self, error: psycopg.Error) -> None:
        code = error.sqlstate or type(error).__name__
        self.shared.errors[code] += 1
        # Replaces numbers, so that messages that differ only in numbers count as the same message.
        message = error.diag.message_primary or (str(error).splitlines() or [""])[0]
        context = " [lead_audit]" if "lead_audit" in (error.diag.context or "") else ""
        message = f"{code} {re.sub('[0-9]+', 'N', message)} ({self.doing}){context}"
        self.shared.messages[message] += 1
        self.doing = "transaction"

    # ---- rows -----------------------------------------------------------------------------------

    def table(self, among: list[str] | None = None) -> str:
        random = self.random
        if among is None:
            among = FIXED if random.random() < 0.7 else LEAVES
            if random.random() < 0.15:
                return self.shared.some_name(random)
        return random.choice(among)

    def key(self) -> int:
        return self.random.randint(0, 330)

    def text(self) -> str:
        return self.random.choice(TEXTS)

    def row(self) -> str:
        return f"({self.key()}, {self.random.choice(['NULL', *map(str, range(9))])}, {self.text()})"

    def where(self) -> str:
        first = self.key()
        return self.random.choice(
            [
                f"id = {first}",
                f"id BETWEEN {first} AND {first + 5}",
                f"a = {first % 9}",
                f"id < {first % 20}",
                "b IS NULL",
            ]
        )

    def insert(self, session: Connection) -> None:
        table, first = self.table(), self.key()
        source = self.random.choice(
            [
                f"VALUES {self.row()}",
                f"VALUES {', '.join(self.row() for _ in range(4))}",
                (
                    f"SELECT i, i % 9, {self.text()}"
                    f" FROM generate_series({first}, {first + self.random.choice([3, 30, 300])}) i"
                ),
            ]
        )
        if self.random.random() < 0.5:
            source += " ON CONFLICT DO NOTHING"
        session.execute(
            f"INSERT INTO {table} (id, a, b) {source}" + self.random.choice(["", " RETURNING *"])
        )

    def update(self, session: Connection) -> None:
        only = self.random.choice(["", "", "ONLY "])
        change = self.random.choice(
            [
                f"a = {self.key() % 9}",
                f"b = {self.text()}",
                "b = b",
                f"a = a + 1, b = {self.text()}",
                "a = NULL",
            ]
        )
        session.execute(f"UPDATE {only}{self.table()} SET {change} WHERE {self.where()}")

    def delete(self, session: Connection) -> None:
        session.execute(f"DELETE FROM {self.table()} WHERE {self.where()}")

    def on_conflict(self, session: Connection) -> None:
        table = self.table(WITH_KEY)
        session.execute(
            f"INSERT INTO {table} AS t (id, a, b)"
            f" VALUES {self.row()}, ({500 + self.key()}, 1, {self.text()})"
            f" ON CONFLICT (id) DO UPDATE SET b = excluded.b, a = excluded.a WHERE t.id % 3 > 0"
        )

    def merge(self, session: Connection) -> None:
        table, first = self.table(), self.key()
        session.execute(
            f"MERGE INTO {table} t"
            f" USING (SELECT i FROM generate_series({first}, {first + 12}) i) n ON t.id = n.i"
            " WHEN MATCHED AND n.i % 3 = 0 THEN DELETE"
            f" WHEN MATCHED AND n.i % 3 = 1 THEN UPDATE SET b = {self.text()}"
            " WHEN NOT MATCHED AND n.i % 4 = 0 THEN DO NOTHING"
            f" WHEN NOT MATCHED THEN INSERT (id, a, b) VALUES (n.i, n.i % 9, {self.text()})"
        )

    def copy(self, session: Connection) -> None:
        random = self.random
        with session.cursor().copy(f"COPY {self.table()} (id, a, b) FROM STDIN") as copy:
            for _ in range(random.choice([1, 10, 200])):
                copy.write_row(
                    (
                        1000 + random.randrange(1_000_000),
                        random.randrange(9),
                        random.choice([None, "", "c\\o\tp\ny", "é" * 100]),
                    )
                )
            if random.random() < 0.1:
                copy.write("no number\t1\tx\n")

    def by_cursor(self, session: Connection) -> None:
        if session.info.transaction_status != pq.TransactionStatus.INTRANS:
            return self.update(session)
        table, name = self.table(WITH_KEY), f"c{self.random.randrange(10**9)}"
        session.execute(
            f"DECLARE {name} CURSOR FOR SELECT * FROM {table} WHERE id < {self.key()} FOR UPDATE"
        )
        for _ in range(self.random.randint(1, 3)):
            if session.execute(f"FETCH 1 FROM {name}").fetchone() is None:
                break
            change = self.random.choice(
                [f"UPDATE {table} SET b = {self.text()}", f"DELETE FROM {table}"]
            )
            session.execute(f"{change} WHERE CURRENT OF {name}")
        if self.random.random() < 0.7:
            session.execute(f"CLOSE {name}")

    def do_block(self, session: Connection) -> None:
        table, first = self.table(), self.key()
        session.execute(
            f"DO $do$ BEGIN FOR i IN {first}..{first + 8} LOOP BEGIN"
            f" INSERT INTO {table} (id, a, b) VALUES (i, i % 9, 'in a block');"
            " IF i % 3 = 0 THEN PERFORM 1 / (i % 3); END IF;"
            " EXCEPTION WHEN division_by_zero OR unique_violation OR check_violation"
            f" THEN DELETE FROM {table} WHERE id = i; END; END LOOP; END $do$"
        )

    def function(self, session: Connection) -> None:
        session.execute(
            f"SELECT s.work('{self.table()}', {self.key()}, {self.random.randint(0, 12)})"
        )

    def with_query(self, session: Connection) -> None:
        session.execute(
            f"WITH gone AS (DELETE FROM {self.table()} WHERE {self.where()} RETURNING id, a, b),"
            f" changed AS (UPDATE {self.table()} SET b = {self.text()}"
            f" WHERE {self.where()} RETURNING id)"
            f" INSERT INTO {self.table()} (id, a, b)"
            " SELECT id, coalesce(a, 0), b FROM gone WHERE id NOT IN (SELECT id FROM changed)"
            " ON CONFLICT DO NOTHING"
        )

    def move(self, session: Connection) -> None:
        session.execute(
            self.random.choice(
                [
                    (
                        f"UPDATE s.part SET id = id + {self.random.choice([100, -100, 37])}"
                        f" WHERE {self.where()}"
                    ),
                    f"UPDATE s.list SET a = {self.key() % 9} WHERE {self.where()}",
                    f"UPDATE s.part SET id = {self.key()} WHERE id = {self.key()}",
                ]
            )
        )

    def cascade(self, session: Connection) -> None:
        key = self.key() % 40
        session.execute(
            self.random.choice(
                [
                    (
                        f"INSERT INTO s.owner (id, a, b) VALUES ({key}, 1, 'owner')"
                        " ON CONFLICT DO NOTHING"
                    ),
                    (
                        "INSERT INTO s.item (id, a, b, owner)"
                        f" SELECT {key} * 10 + i, i, 'item', {key} FROM generate_series(0, 6) i"
                        " ON CONFLICT DO NOTHING"
                    ),
                    (
                        "INSERT INTO s.remark (id, a, b, item)"
                        f" SELECT id * 10, 1, 'remark', id FROM s.item WHERE owner = {key}"
                        " ON CONFLICT DO NOTHING"
                    ),
                    f"DELETE FROM s.owner WHERE id = {key}",
                    f"UPDATE s.owner SET id = id + 40 WHERE id = {key}",
                    f"DELETE FROM s.item WHERE id < {key}",
                ]
            )
        )

    def truncate(self, session: Connection) -> None:
        table = self.random.choice(
            [
                "s.nokey",
                "s.plain_2, s.nokey",
                "s.part_2",
                "s.part",
                "s.inh",
                "ONLY s.inh",
                "s.owner CASCADE",
                "s.unlogged",
                "s.list_rest RESTART IDENTITY",
                self.shared.some_name(self.random),
            ]
        )
        session.execute(f"TRUNCATE {table}")

    def fail(self, session: Connection) -> None:
        """Runs a statement that fails, and counts its error.

        The failed statement must be recorded.
        """
        self.shared.unsure[self.request] += 1
        try:
            session.execute("INSERT INTO s.fixed VALUES (1)")
        except psycopg.errors.UniqueViolation:
            self.shared.failed[self.request] += 1
            self.shared.unsure[self.request] -= 1
            raise

    def temporary(self, session: Connection) -> None:
        name = f"pg_temp.t{self.random.randrange(10**9)}"
        in_transaction = session.info.transaction_status == pq.TransactionStatus.INTRANS
        at_end = " ON COMMIT DROP" if in_transaction else ""
        session.execute(f"CREATE TEMP TABLE {name} (id int){at_end}")
        session.execute(f"INSERT INTO {name} VALUES (1)")
        session.execute(
            f"INSERT INTO {self.table()} (id, a, b) SELECT id, 1, 'from a temporary table'"
            f" FROM {name} ON CONFLICT DO NOTHING"
        )

    def update_extra(self, session: Connection) -> None:
        session.execute(
            f"UPDATE {self.table()} SET x{self.random.randint(1, 3)} = DEFAULT WHERE {self.where()}"
        )

    def select(self, session: Connection) -> None:
        session.execute(f"SELECT count(*), max(b) FROM {self.table()} WHERE {self.where()}")

    # ---- DDL ------------------------------------------------------------------------------------

    def create_table(self, session: Connection) -> None:
        name = self.shared.new_name(self.random.choice(["s", "s", "s2"]))
        session.execute(
            self.random.choice(
                [
                    f"CREATE TABLE {name} (id bigint PRIMARY KEY, a int, b text)",
                    f"CREATE TABLE {name} (LIKE s.part INCLUDING ALL)",
                    f"CREATE TABLE {name} (LIKE s.part INCLUDING ALL)",
                    f"CREATE TABLE {name} (LIKE s.inh)",
                    f"CREATE TABLE {name} (y text) INHERITS (s.inh)",
                    f"CREATE TABLE {name} (id bigint, a int, b text)",
                    (
                        f"CREATE {'UNLOGGED ' if self.shared.unlogged else ''}TABLE {name}"
                        " (id bigint, a int, b text)"
                    ),
                ]
            )
        )
        self.shared.add(name)
        if self.random.random() < 0.6:
            session.execute(
                f"INSERT INTO {name} (id, a, b) SELECT 100000 + i, i, 'first'"
                f" FROM generate_series(1, {self.random.randint(1, 20)}) i"
            )

    def create_as(self, session: Connection) -> None:
        name = self.shared.new_name()
        session.execute(f"CREATE TABLE {name} AS SELECT id, a, b FROM {self.table()} LIMIT 20")
        self.shared.add(name)

    def drop_table(self, session: Connection) -> None:
        # Drops several tables at once if many tables exist, so that the number of tables stays
        # limited.
        names = {
            self.shared.some_name(self.random) for _ in range(1 + len(self.shared.names) // 20)
        } - {"s.plain_0"}
        if names:
            session.execute(
                f"DROP TABLE {', '.join(sorted(names))}{self.random.choice(['', ' CASCADE'])}"
            )

    def add_column(self, session: Connection) -> None:
        default = self.random.choice(
            ["", "", " DEFAULT NULL", " GENERATED ALWAYS AS (NULL) STORED"]
        )
        session.execute(
            f"ALTER TABLE {self.table()} ADD COLUMN x{self.random.randint(1, 3)}"
            f" {self.random.choice(TYPES)}{default}"
        )

    def drop_column(self, session: Connection) -> None:
        session.execute(
            f"ALTER TABLE {self.table()} DROP COLUMN x{self.random.randint(1, 3)}"
            f"{self.random.choice(['', ' CASCADE'])}"
        )

    def alter_type(self, session: Connection) -> None:
        column = self.random.choice(["x1", "x2", "x3", "a"])
        kind = self.random.choice(["int", "bigint"]) if column == "a" else self.random.choice(TYPES)
        session.execute(
            f"ALTER TABLE {self.table()} ALTER COLUMN {column} TYPE {kind}"
            f" USING {column if column == 'a' else f'NULL::{kind}'}"
        )

    def attach(self, session: Connection) -> None:
        name = self.shared.some_name(self.random)
        first = (
            100_000
            if self.random.random() < 0.3
            else 2_000_000 + 1000 * self.random.randrange(1000)
        )
        if self.random.random() < 0.5:  # rows outside of the partition's range make ATTACH fail
            session.execute(f"DELETE FROM {name} WHERE id NOT BETWEEN {first} AND {first + 900}")
        session.execute(
            f"ALTER TABLE s.part ATTACH PARTITION {name}"
            f" FOR VALUES FROM ({first}) TO ({first + 1000})"
        )

    def detach(self, session: Connection) -> None:
        partition = self.shared.some_name(self.random)
        if (
            session.info.transaction_status == pq.TransactionStatus.IDLE
            and self.random.random() < 0.4
        ):
            session.execute(f"ALTER TABLE s.part DETACH PARTITION {partition} CONCURRENTLY")
        elif self.random.random() < 0.3:
            # Detaches a permanent partition, writes to it, and attaches it again.
            session.execute("ALTER TABLE s.part DETACH PARTITION s.part_2")
            session.execute("UPDATE s.part_2 SET b = 'alone' WHERE id % 9 = 0")
            session.execute(
                "ALTER TABLE s.part ATTACH PARTITION s.part_2 FOR VALUES FROM (200) TO (300)"
            )
        else:
            session.execute(f"ALTER TABLE s.part DETACH PARTITION {partition}")

    def partition_of(self, session: Connection) -> None:
        name, first = self.shared.new_name(), 3_000_000 + 1000 * self.random.randrange(1000)
        session.execute(
            f"CREATE TABLE {name} PARTITION OF s.part FOR VALUES FROM ({first}) TO ({first + 1000})"
        )
        self.shared.add(name)

    def inherit(self, session: Connection) -> None:
        child = self.random.choice([self.shared.some_name(self.random), "s.inh_0", "s.inh_1"])
        session.execute(f"ALTER TABLE {child} INHERIT s.inh")

    def no_inherit(self, session: Connection) -> None:
        child = self.random.choice([self.shared.some_name(self.random), "s.inh_0", "s.inh_1"])
        session.execute(f"ALTER TABLE {child} NO INHERIT s.inh")

    def rename(self, session: Connection) -> None:
        name, new = self.shared.some_name(self.random), self.shared.new_name()
        kind = self.random.randrange(4)
        if kind == 0:
            session.execute(f"ALTER TABLE {self.table()} RENAME COLUMN x1 TO x2")
        elif kind == 1 and not name.startswith("s2."):
            session.execute(f"ALTER TABLE {name} SET SCHEMA s2")
            self.shared.add(name.replace("s.", "s2."))
        elif kind == 2:
            # Renames a table that all writers use, writes to it, and renames it back.
            session.execute("ALTER TABLE s.plain_2 RENAME TO plain_two")
            session.execute(
                "INSERT INTO s.plain_two (id, a, b) VALUES (-1, 1, 'renamed')"
                " ON CONFLICT (id) DO UPDATE SET b = 'again'"
            )
            session.execute("ALTER TABLE s.plain_two RENAME TO plain_2")
        else:
            session.execute(f"ALTER TABLE {name} RENAME TO {new.split('.')[1]}")
            self.shared.add(f"{name.split('.')[0]}.{new.split('.')[1]}")

    def index(self, session: Connection) -> None:
        name = f"i{self.random.randrange(20)}"
        alone = session.info.transaction_status == pq.TransactionStatus.IDLE
        if self.random.random() < 0.4:
            session.execute(f"DROP INDEX IF EXISTS s.{name}")
        elif alone and self.random.random() < 0.3:
            session.execute(f"REINDEX TABLE CONCURRENTLY {self.table(WITH_KEY)}")
        else:
            how = "CONCURRENTLY " if alone and self.random.random() < 0.5 else ""
            session.execute(f"CREATE INDEX {how}{name} ON {self.table()} (a)")

    def constraint(self, session: Connection) -> None:
        table = self.table()
        session.execute(
            self.random.choice(
                [
                    f"ALTER TABLE {table} ADD CONSTRAINT k CHECK (id > -5) NOT VALID",
                    f"ALTER TABLE {table} VALIDATE CONSTRAINT k",
                    f"ALTER TABLE {table} DROP CONSTRAINT k",
                    f"ALTER TABLE {table} ALTER a SET DEFAULT {self.key()}",
                ]
            )
        )

    def comment(self, session: Connection) -> None:
        table = self.table()
        session.execute(
            self.random.choice(
                [
                    f"COMMENT ON TABLE {table} IS 'c'",
                    f"ANALYZE {table}",
                    f"ALTER TABLE {table} SET (fillfactor = {self.random.randint(50, 100)})",
                ]
            )
        )

    def grant(self, session: Connection) -> None:
        # GRANT itself takes no lock on the table. PostgreSQL raises the internal error "tuple
        # concurrently updated" if two sessions change a table's row in pg_class at once, and one of
        # these sessions runs GRANT. LOCK TABLE prevents this error.
        table = self.table()
        session.execute(
            f"DO 'BEGIN LOCK TABLE ONLY {table} IN SHARE UPDATE EXCLUSIVE MODE;"
            f" GRANT SELECT ON {table} TO smith; END'"
        )

    def logged(self, session: Connection) -> None:
        session.execute(
            f"ALTER TABLE {self.shared.some_name(self.random)} SET"
            f" {self.random.choice(['LOGGED', 'UNLOGGED']) if self.shared.unlogged else 'LOGGED'}"
        )
