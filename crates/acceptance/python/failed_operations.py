"""Executes failing statements of every kind with real clients.

The clients are psycopg and psql. The clients use the simple and the extended protocol, work inside
and outside of transactions, and connect directly or through PgBouncer. Each failed statement must
have exactly one entry, within a second and with the right fields.

    failed_operations.py SERVER_URL BOUNCER_URL PSQL

SERVER_URL connects the superuser to a database with the extension and without tables. BOUNCER_URL
connects the role `app` to the same database through PgBouncer. The program prints a line for each
kind of failed statement with each kind of connection. The exit status is 1 if an entry is wrong or
missing.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone

import psycopg

SCHEMA = """
CREATE ROLE app LOGIN;
CREATE TABLE leads (id text PRIMARY KEY, n int CHECK (n < 100), email text UNIQUE,
                    owner text NOT NULL DEFAULT 'x', during int4range,
                    EXCLUDE USING gist (during WITH &&));
CREATE TABLE notes (id int PRIMARY KEY, lead text REFERENCES leads,
                    late text REFERENCES leads DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE private (id int PRIMARY KEY);
CREATE TABLE rows_of_one (id int PRIMARY KEY, who text);
ALTER TABLE rows_of_one ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON rows_of_one USING (who = current_user);
CREATE TABLE guarded (id int PRIMARY KEY);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN RAISE EXCEPTION 'not %', NEW.id USING DETAIL = 'because', ERRCODE = 'LA001'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON guarded FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE TRIGGER refuse_later AFTER UPDATE ON guarded FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE TABLE unwatched (id int PRIMARY KEY);
SELECT lead_audit.enable(t::regclass)
  FROM unnest('{leads,notes,private,rows_of_one,guarded}'::text[]) t;
GRANT ALL ON leads, notes, rows_of_one, guarded, unwatched TO app;
INSERT INTO leads (id, n, email, during)
  VALUES ('a', 1, 'a@x', '[1,10)'), ('b', 2, 'b@x', '[10,20)'), ('linked', 3, NULL, NULL);
INSERT INTO notes VALUES (1, 'linked', NULL);
ALTER TABLE guarded DISABLE TRIGGER refuse;
INSERT INTO guarded VALUES (1);
ALTER TABLE guarded ENABLE TRIGGER refuse;
INSERT INTO unwatched VALUES (1);
CREATE FUNCTION try_it(new_id text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO leads (id) VALUES (new_id); RETURN 'done';
EXCEPTION WHEN unique_violation THEN RETURN 'caught'; END $$;
CREATE FUNCTION through_it(new_id text) RETURNS void LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO leads (id) VALUES (new_id); END $$;
"""


class Kind:
    """A statement that fails, with the expected fields of its entry."""

    def __init__(self, name, sql, params, code, operation, table, **expected):
        self.name, self.sql, self.params = name, sql, params
        self.code, self.operation, self.table, self.expected = code, operation, table, expected


NOT_GIVEN = object()
KINDS = [
    Kind(
        "unique",
        "INSERT INTO leads (id, n) VALUES (%s, %s)",
        ("a", 5),
        "23505",
        "INSERT",
        "leads",
        constraint="leads_pkey",
        key={"id": "a"},
        values={"id": "a", "n": 5, "email": None, "owner": "x", "during": None},
    ),
    Kind(
        "unique, not the key",
        "INSERT INTO leads (id, email) VALUES (%s, %s)",
        ("c", "a@x"),
        "23505",
        "INSERT",
        "leads",
        constraint="leads_email_key",
        key={"id": "c"},
    ),
    Kind(
        "unique, UPDATE",
        "UPDATE leads SET email = %s WHERE id = %s",
        ("a@x", "b"),
        "23505",
        "UPDATE",
        "leads",
        constraint="leads_email_key",
        key={"id": "b"},
        diff={"email": {"old": "b@x", "new": "a@x"}},
    ),
    Kind(
        "not null",
        "INSERT INTO leads (id, owner) VALUES (%s, NULL)",
        ("c",),
        "23502",
        "INSERT",
        "leads",
        column="owner",
        key={"id": "c"},
    ),
    Kind(
        "check",
        "UPDATE leads SET n = %s WHERE id = %s",
        (1000, "a"),
        "23514",
        "UPDATE",
        "leads",
        constraint="leads_n_check",
        key={"id": "a"},
        diff={"n": {"old": 1, "new": 1000}},
    ),
    Kind(
        "foreign key",
        "INSERT INTO notes (id, lead) VALUES (%s, %s)",
        (9, "nobody"),
        "23503",
        "INSERT",
        "notes",
        constraint="notes_lead_fkey",
        key={"id": 9},
    ),
    Kind(
        "foreign key, DELETE",
        "DELETE FROM leads WHERE id = %s",
        ("linked",),
        "23503",
        "DELETE",
        "leads",
        constraint="notes_lead_fkey",
        key={"id": "linked"},
    ),
    Kind(
        "exclusion",
        "INSERT INTO leads (id, during) VALUES (%s, %s)",
        ("c", "[5,12)"),
        "23P01",
        "INSERT",
        "leads",
        constraint="leads_during_excl",
        key={"id": "c"},
    ),
    Kind(
        "permission denied, INSERT",
        "INSERT INTO private VALUES (%s)",
        (1,),
        "42501",
        "INSERT",
        "private",
    ),
    Kind(
        "permission denied, DELETE",
        "DELETE FROM private WHERE id = %s",
        (1,),
        "42501",
        "DELETE",
        "private",
    ),
    Kind("permission denied, TRUNCATE", "TRUNCATE private", None, "42501", "TRUNCATE", "private"),
    Kind(
        "row-level security",
        "INSERT INTO rows_of_one VALUES (%s, %s)",
        (1, "other"),
        "42501",
        "INSERT",
        "rows_of_one",
        key={"id": 1},
    ),
    Kind(
        "trigger, BEFORE",
        "INSERT INTO guarded VALUES (%s)",
        (7,),
        "LA001",
        "INSERT",
        "guarded",
        key={"id": 7},
    ),
    Kind(
        "trigger, AFTER",
        "UPDATE guarded SET id = id + %s",
        (0,),
        "LA001",
        "UPDATE",
        "guarded",
        key={"id": 1},
    ),
    Kind(
        "bad input in the text",
        "INSERT INTO leads (id, n) VALUES ('c', 'many')",
        None,
        "22P02",
        "INSERT",
        "leads",
    ),
    Kind("bad input, UPDATE", "UPDATE leads SET n = 'many'", None, "22P02", "UPDATE", "leads"),
    Kind(
        "bad input, DELETE", "DELETE FROM leads WHERE n = 'many'", None, "22P02", "DELETE", "leads"
    ),
    Kind(
        "bad input while executing",
        "INSERT INTO leads (id, n) SELECT x, x::int FROM (VALUES (%s)) v(x)",
        ("many",),
        "22P02",
        "INSERT",
        "leads",
    ),
    Kind(
        "no such column",
        "INSERT INTO leads (id, nickname) VALUES (%s, 'x')",
        ("c",),
        "42703",
        "INSERT",
        "leads",
    ),
    Kind("division by zero", "UPDATE leads SET n = 1 / (n - n)", None, "22012", "UPDATE", "leads"),
    Kind("too long", "UPDATE leads SET n = n + 2147483647", None, "22003", "UPDATE", "leads"),
    Kind(
        "MERGE",
        "MERGE INTO leads l USING (VALUES (%s, 1000)) v(id, n) ON l.id = v.id"
        " WHEN MATCHED THEN UPDATE SET n = v.n",
        ("a",),
        "23514",
        "MERGE",
        "leads",
        constraint="leads_n_check",
        key=NOT_GIVEN,
    ),
    Kind(
        "ON CONFLICT",
        "INSERT INTO leads (id) VALUES (%s) ON CONFLICT (id) DO UPDATE SET n = 1000",
        ("a",),
        "23514",
        "INSERT",
        "leads",
        constraint="leads_n_check",
        key=NOT_GIVEN,
    ),
    Kind(
        "WITH",
        "WITH w AS (INSERT INTO leads (id) VALUES (%s) RETURNING id) SELECT * FROM w",
        ("a",),
        "23505",
        "INSERT",
        "leads",
        constraint="leads_pkey",
        key={"id": "a"},
    ),
    Kind(
        "within a function",
        "SELECT through_it(%s)",
        ("a",),
        "23505",
        "INSERT",
        "leads",
        constraint="leads_pkey",
        key={"id": "a"},
        statement="INSERT INTO leads (id) VALUES (new_id)",
    ),
    Kind(
        "caught in a block",
        "SELECT try_it(%s)",
        ("a",),
        None,
        "INSERT",
        "leads",
        constraint="leads_pkey",
        key={"id": "a"},
        statement="INSERT INTO leads (id) VALUES (new_id)",
        entry_code="23505",
        entry_message='duplicate key value violates unique constraint "leads_pkey"',
    ),
    Kind(
        "statement_timeout",
        "INSERT INTO leads (id, owner) SELECT 'c', pg_sleep(5)::text",
        None,
        "57014",
        "INSERT",
        "leads",
        before="SET LOCAL statement_timeout = '30ms'",
        only_in_transaction=True,
    ),
]


class Check:
    def __init__(self, server_url, bouncer_url, psql):
        self.server_url, self.bouncer_url, self.psql = server_url, bouncer_url, psql
        self.admin = psycopg.connect(server_url, autocommit=True)
        self.wrong = 0
        self.done = 0
        self.delays = []

    def app(self, bouncer=False, **settings):
        if bouncer:
            connection = psycopg.connect(self.bouncer_url, autocommit=True, prepare_threshold=None)
        else:
            connection = psycopg.connect(
                self.server_url, user="app", autocommit=True, application_name="clients"
            )
        return connection

    def one(self, sql, params=None):
        return self.admin.execute(sql, params).fetchone()

    def settle(self):
        """Waits until the queue is empty. Returns the duration of the wait in seconds."""
        begin = time.monotonic()
        while True:
            queued, written, dropped = self.one(
                "SELECT queued, written, dropped FROM lead_audit.stats"
            )
            if queued == written + dropped:
                return time.monotonic() - begin
            if time.monotonic() - begin > 10:
                raise AssertionError(f"queued {queued}, written {written}, dropped {dropped}")
            time.sleep(0.005)

    @contextlib.contextmanager
    def entries(self, what, expected):
        """Checks the entries of the statements that fail in the `with` block.

        The list `expected` contains a dict of fields for each expected entry.
        """
        self.settle()
        (last,) = self.one("SELECT coalesce(max(id), 0) FROM lead_audit.entry")
        begin = datetime.now(timezone.utc)
        yield
        self.delays.append(self.settle())
        end = datetime.now(timezone.utc) + timedelta(milliseconds=50)
        cursor = self.admin.execute(
            "SELECT * FROM lead_audit.log WHERE id > %s AND outcome <> 'ok' ORDER BY id", (last,)
        )
        names = [column.name for column in cursor.description]
        found = [dict(zip(names, row)) for row in cursor.fetchall()]
        faults = []
        if (end - begin).total_seconds() > 10:
            faults.append("too slow")
        if len(found) != len(expected):
            faults.append(f"{len(found)} entries instead of {len(expected)}: {found}")
        for entry, wanted in zip(found, expected):
            for name, value in wanted.items():
                if callable(value):
                    if not value(entry[name]):
                        faults.append(f"{name} is {entry[name]!r}")
                elif value is not NOT_GIVEN and entry[name] != value:
                    faults.append(f"{name} is {entry[name]!r}, not {value!r}")
            if not begin - timedelta(milliseconds=50) <= entry["occurred_at"] <= end:
                faults.append(
                    f"occurred_at is {entry['occurred_at']}, not between {begin} and {end}"
                )
        self.done += 1
        if faults:
            self.wrong += 1
            print(f"WRONG {what}: " + "; ".join(faults))
        else:
            print(f"ok    {what}")
        sys.stdout.flush()

    def fields(self, kind, error, statement, **more):
        """Returns the expected fields of the entry of a failed statement.

        `error` is the error that the client received.
        """
        expected = kind.expected
        details = {
            name: expected[name] for name in ("constraint", "column") if name in expected
        } or None
        fields = {
            "outcome": "failed",
            "operation": kind.operation,
            "table_schema": "public",
            "table_name": kind.table,
            "error_code": expected.get("entry_code", kind.code),
            "row_key": expected.get("key"),
            "details": details,
            "db_session_user": "app",
            "db_current_user": "app",
            "user_id": "u-7",
            "request_id": "r-1",
            "client_addr": None,
            "statement": expected.get("statement", statement),
            "relation": self.one("SELECT %s::regclass::oid", (kind.table,))[0],
        }
        if error is not None:
            fields["error_message"] = error.diag.message_primary
            fields["error_detail"] = error.diag.message_detail
        if "entry_message" in expected:
            fields["error_message"] = expected["entry_message"]
        if "values" in expected:
            fields["new_values"] = expected["values"]
        if "diff" in expected:
            fields["diff"] = expected["diff"]
        fields.update(more)
        return fields

    def run_kind(self, kind, bouncer, extended, transaction):
        if kind.expected.get("only_in_transaction") and not transaction:
            return
        if extended and kind.params is None and kind.sql.startswith("TRUNCATE"):
            return
        way = (
            f"{kind.name}: {'bouncer' if bouncer else 'direct'},"
            f" {'extended' if extended else 'simple'}, "
        ) + ("transaction" if transaction else "autocommit")
        expected = []
        with self.entries(way, expected):
            with self.app(bouncer) as connection:
                if not transaction:
                    connection.execute(
                        "SET lead_audit.user_id = 'u-7'; SET lead_audit.request_id = 'r-1'"
                    )
                cursor = connection.cursor() if extended else psycopg.ClientCursor(connection)
                statement = (
                    kind.sql.replace("%s", "{}").format(*[f"${n}" for n in range(1, 9)])
                    if extended
                    else (psycopg.ClientCursor(connection).mogrify(kind.sql, kind.params))
                )
                error, txid, pid = (
                    None,
                    NOT_GIVEN,
                    connection.execute("SELECT pg_backend_pid()").fetchone()[0],
                )
                try:
                    if transaction:
                        connection.execute(
                            "BEGIN; SET LOCAL lead_audit.user_id = 'u-7';"
                            " SET LOCAL lead_audit.request_id = 'r-1'"
                        )
                        pid = connection.execute("SELECT pg_backend_pid()").fetchone()[0]
                        txid = connection.execute("SELECT pg_current_xact_id()::text").fetchone()[0]
                        if "before" in kind.expected:
                            connection.execute(kind.expected["before"])
                    if extended and kind.params is None:
                        connection.pgconn.exec_params(
                            kind.sql.encode(), None
                        ) if kind.code is None else self.extended(connection, kind.sql)
                    else:
                        cursor.execute(kind.sql, kind.params)
                except psycopg.Error as caught:
                    error = caught
                if transaction:
                    connection.execute("ROLLBACK")
                else:
                    connection.execute("RESET ALL")
                if (error.sqlstate if error else None) != kind.code:
                    raise AssertionError(f"{way}: {error}")
                more = {"backend_pid": NOT_GIVEN if bouncer else pid}
                if transaction:
                    more["txid"] = lambda found, wanted=txid: str(found) == wanted
                expected.append(self.fields(kind, error, statement, **more))

    @staticmethod
    def extended(connection, sql):
        """Sends a statement without parameters through the extended protocol."""
        result = connection.pgconn.exec_params(sql.encode(), None)
        if result.status == psycopg.pq.ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(result)

    def run_psql(self, kind, transaction):
        if kind.expected.get("only_in_transaction"):
            return
        sql = psycopg.ClientCursor(self.admin).mogrify(kind.sql, kind.params)
        script = ["SET lead_audit.user_id = 'u-7'; SET lead_audit.request_id = 'r-1';"]
        script += ["BEGIN;", sql + ";", "ROLLBACK;"] if transaction else [sql + ";"]
        expected = []
        with self.entries(
            f"{kind.name}: psql, {'transaction' if transaction else 'autocommit'}", expected
        ):
            subprocess.run(
                [self.psql, "-Xq", "-f", "-", self.server_url.replace("postgres@", "app@", 1)],
                input="\n".join(script),
                text=True,
                capture_output=True,
                env={**os.environ, "PGOPTIONS": ""},
            )
            expected.append(self.fields(kind, None, sql, application_name="psql"))

    # ---- cases of several statements ------------------------------------------------------------

    def simple(self, operation, table, code, **more):
        return {
            "outcome": "failed",
            "operation": operation,
            "table_name": table,
            "error_code": code,
            **more,
        }

    def binding(self):
        """Sends a parameter whose text is not a value of the parameter's type."""
        with (
            self.entries(
                "bad input in a parameter",
                [
                    self.simple(
                        "INSERT",
                        "leads",
                        "22P02",
                        row_key=None,
                        statement=("INSERT INTO leads (id, n) VALUES ($1, $2)"),
                        user_id="u-8",
                    )
                ],
            ),
            self.app() as connection,
        ):
            connection.execute("SET lead_audit.user_id = 'u-8'")
            result = connection.pgconn.exec_params(
                b"INSERT INTO leads (id, n) VALUES ($1, $2)", [b"c", b"many"]
            )
            assert result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"22P02", (
                result.error_message
            )

    def first_statement(self):
        """Executes sessions whose first statement fails, in its analysis or in its execution."""
        for sql, code in [
            ("INSERT INTO leads (id, n) VALUES ('c', 'many')", "22P02"),
            ("INSERT INTO leads (id) VALUES ('a')", "23505"),
        ]:
            for bouncer in (False, True):
                with self.entries(
                    f"first statement, {code}, bouncer {bouncer}",
                    [self.simple("INSERT", "leads", code)],
                ):
                    with self.app(bouncer) as connection, contextlib.suppress(psycopg.Error):
                        connection.execute(sql)

    def not_about_watched_tables(self):
        for sql in [
            "INSERT INTO unwatched VALUES (1)",
            "SELECT * FROM leads WHERE n = 'many'",
            "SELECT 1/0",
            "INSERT leads",
            "INSERT INTO unwatched SELECT n FROM leads WHERE n = 'many'",
            "CREATE TABLE leads ()",
            "CREATE TEMP TABLE leads (n int); INSERT INTO leads VALUES ('many')",
            "INSERT INTO other.leads VALUES (1)",
        ]:
            with (
                self.entries(f"no entry: {sql}", []),
                self.app() as connection,
                contextlib.suppress(psycopg.Error),
            ):
                psycopg.ClientCursor(connection).execute(sql)

        for name in ("leads", "pg_temp.leads"):
            with (
                self.entries(f"no entry: {name}, a temporary table of the session's", []),
                self.app() as connection,
            ):
                connection.execute("CREATE TEMP TABLE leads (n int)")
                self.ignore(connection, f"INSERT INTO {name} VALUES ('many')")
        # A temporary table `leads` hides the watched table `leads`. Once the temporary table is
        # dropped or renamed, the name `leads` means the watched table again.
        for commands in (
            ["CREATE TEMP TABLE leads (n int)", "DROP TABLE leads"],
            ["BEGIN", "CREATE TEMP TABLE leads (n int)", "ROLLBACK"],
            ["BEGIN", "CREATE TEMP TABLE leads (n int) ON COMMIT DROP", "COMMIT"],
            ["CREATE TEMP TABLE leads (n int)", "DISCARD TEMP"],
            ["BEGIN", "SAVEPOINT a", "CREATE TEMP TABLE leads (n int)", "ROLLBACK TO a", "COMMIT"],
            ["CREATE TEMP TABLE leads (n int)", "ALTER TABLE leads RENAME TO others"],
        ):
            with (
                self.entries(f"after {commands}", [self.simple("INSERT", "leads", "22P02")]),
                self.app() as connection,
            ):
                for command in commands:
                    connection.execute(command)
                self.ignore(connection, "INSERT INTO leads (id, n) VALUES ('c', 'many')")

    def in_the_text(self):
        """Executes statements that fail before PostgreSQL knows the table that their text names."""
        for sql, operation, code in [
            ("EXPLAIN INSERT INTO leads (id, n) VALUES ('c', 'many')", "INSERT", "22P02"),
            ("PREPARE later AS UPDATE leads SET n = 'many'", "UPDATE", "22P02"),
            (
                "WITH w AS (DELETE FROM leads WHERE n = 'many' RETURNING id) SELECT * FROM w",
                "DELETE",
                "22P02",
            ),
            (
                "WITH w AS (SELECT 1) INSERT INTO leads (id, n) VALUES ('c', 'many')",
                "INSERT",
                "22P02",
            ),
            (
                (
                    "MERGE INTO leads USING (VALUES ('c')) v(id) ON leads.id = v.id"
                    " WHEN MATCHED THEN UPDATE SET n = 'many'"
                ),
                "MERGE",
                "22P02",
            ),
            ("COPY leads (nickname) FROM STDIN", "COPY", "42703"),
            ("TRUNCATE leads, nowhere", "TRUNCATE", "42P01"),
            (
                "/* of /* the */ form */ UPDATE \"leads\" SET n = 'many' -- and more",
                "UPDATE",
                "22P02",
            ),
            ("UPDATE public.leads SET owner = $x$it's$x$, n = E'ma\\'ny'", "UPDATE", "22P02"),
        ]:
            # From PostgreSQL 18 on, the server omits a comment before a statement from the text of
            # the statement.
            own = (
                sql.removeprefix("/* of /* the */ form */ ")
                if self.admin.info.server_version >= 180000
                else sql
            )
            with self.entries(
                f"in the text: {sql}",
                [self.simple(operation, "leads", code, statement=own, row_key=None)],
            ):
                with self.app() as connection:
                    self.ignore(connection, sql)

    def failing_rows(self):
        """An entry omits the rejected row if the row is too long for a record.

        The entry still has the row's key, because the message of the error contains the key.
        """
        self.admin.execute("ALTER TABLE leads ALTER owner SET STORAGE EXTERNAL")
        for owner, values in [
            ("x" * 60_000, lambda found: found["owner"] == "x" * 60_000),
            ("x" * 70_000, lambda found: found is None),
        ]:
            with (
                self.entries(
                    f"a row of {len(owner)} bytes",
                    [
                        self.simple(
                            "INSERT", "leads", "23505", row_key={"id": "a"}, new_values=values
                        )
                    ],
                ),
                self.app() as connection,
            ):
                with contextlib.suppress(psycopg.Error):
                    connection.execute("INSERT INTO leads (id, owner) VALUES ('a', %s)", (owner,))

    def why_it_was_rolled_back(self):
        """The entry of a rollback names the last error of the transaction.

        The statement that raised this error need not use a watched table.
        """
        rows = {
            "written": [
                {"operation": "INSERT", "rows": 1, "table_name": "leads", "table_schema": "public"},
                {"operation": "DELETE", "rows": 1, "table_name": "notes", "table_schema": "public"},
            ]
        }
        self.admin.execute("INSERT INTO notes (id) VALUES (77)")
        with (
            self.entries(
                "an error on no watched table, after writes to two that are",
                [
                    {
                        "outcome": "rolled_back",
                        "operation": "ROLLBACK",
                        "table_name": None,
                        "error_code": "22012",
                        "error_message": "division by zero",
                        "details": rows,
                    }
                ],
            ),
            self.app() as connection,
        ):
            connection.execute("BEGIN")
            connection.execute("INSERT INTO leads (id) VALUES ('r1')")
            connection.execute("DELETE FROM notes WHERE id = 77")
            self.ignore(connection, "SELECT 1/0")
            connection.execute("ROLLBACK")

    def deferred(self):
        insert = "INSERT INTO notes (id, late) VALUES (8, 'nobody')"
        failed = self.simple(
            "INSERT",
            "notes",
            "23503",
            details={"constraint": "notes_late_fkey"},
            statement=insert,
            error_detail='Key (late)=(nobody) is not present in table "leads".',
        )
        for bouncer in (False, True):
            with (
                self.entries(f"deferred foreign key, autocommit, bouncer {bouncer}", [failed]),
                self.app(bouncer) as connection,
            ):
                with contextlib.suppress(psycopg.Error):
                    psycopg.ClientCursor(connection).execute(insert)
            with (
                self.entries(f"deferred foreign key, extended, bouncer {bouncer}", [failed]),
                self.app(bouncer) as connection,
            ):
                connection.pgconn.exec_params(insert.encode(), None)
            rolled_back = {
                "outcome": "rolled_back",
                "operation": "ROLLBACK",
                "table_name": "notes",
                "details": {
                    "written": [
                        {
                            "operation": "INSERT",
                            "rows": 1,
                            "table_name": "notes",
                            "table_schema": "public",
                        }
                    ]
                },
                "error_code": "23503",
            }
            with self.entries(
                f"deferred foreign key, COMMIT, bouncer {bouncer}", [failed, rolled_back]
            ):
                with self.app(bouncer) as connection, contextlib.suppress(psycopg.Error):
                    connection.execute("BEGIN")
                    connection.execute(insert)
                    connection.execute("COMMIT")
        with (
            self.entries("deferred foreign key, SET CONSTRAINTS", [failed, rolled_back]),
            self.app() as connection,
        ):
            connection.execute("BEGIN")
            connection.execute(insert)
            with contextlib.suppress(psycopg.Error):
                connection.execute("SET CONSTRAINTS ALL IMMEDIATE")

    def copying(self):
        for rows, code, key in [
            ("c\tmany\n", "22P02", None),
            ("c\t1\na\t2\n", "23505", {"id": "a"}),
            ("c\t1000\n", "23514", None),
        ]:
            with (
                self.entries(f"COPY, {code}", [self.simple("COPY", "leads", code, row_key=key)]),
                self.app() as connection,
            ):
                with contextlib.suppress(psycopg.Error):
                    with connection.cursor().copy("COPY leads (id, n) FROM STDIN") as copy:
                        copy.write(rows)

    def cancelled(self):
        slow = "INSERT INTO leads (id, owner) SELECT 'c', pg_sleep(30)::text"
        for what, call, code in [
            ("cancel", lambda c: c.cancel(), "57014"),
            (
                "terminate",
                lambda c: self.one("SELECT pg_terminate_backend(%s)", (c.info.backend_pid,)),
                "57P01",
            ),
        ]:
            for transaction in (False, True):
                with self.entries(
                    f"{what}, transaction {transaction}",
                    [self.simple("INSERT", "leads", code, statement=slow, user_id="u-9")],
                ):
                    connection = self.app()
                    connection.execute("SET lead_audit.user_id = 'u-9'")
                    if transaction:
                        connection.execute("BEGIN")
                    thread = threading.Thread(target=lambda: self.ignore(connection, slow))
                    thread.start()
                    self.wait(
                        "SELECT count(*) = 1 FROM pg_stat_activity"
                        " WHERE pid = %s AND wait_event = 'PgSleep'",
                        connection.info.backend_pid,
                    )
                    call(connection)
                    thread.join()
                    connection.close()

    @staticmethod
    def ignore(connection, sql):
        with contextlib.suppress(psycopg.Error):
            connection.execute(sql)

    def wait(self, condition, *params):
        begin = time.monotonic()
        while not self.one(condition, params)[0]:
            assert time.monotonic() - begin < 20, condition
            time.sleep(0.005)

    def locks(self):
        with self.app() as holder, self.app() as other:
            holder.execute("BEGIN; UPDATE leads SET owner = owner WHERE id = 'a'")
            with self.entries("lock timeout, row", [self.simple("UPDATE", "leads", "55P03")]):
                self.ignore(other, "SET lock_timeout = '30ms'")
                self.ignore(other, "UPDATE leads SET owner = 'y' WHERE id = 'a'")
            holder.execute("COMMIT")
            self.admin.execute("BEGIN; LOCK TABLE leads IN ACCESS EXCLUSIVE MODE")
            watcher = psycopg.connect(self.server_url, autocommit=True)
            self.admin, admin = watcher, self.admin
            with self.entries("lock timeout, table", [self.simple("UPDATE", "leads", "55P03")]):
                self.ignore(other, "UPDATE leads SET owner = 'y' WHERE id = 'a'")
                admin.execute("COMMIT")
            self.admin = admin
            watcher.close()

        with self.app() as one, self.app() as two:
            with self.entries(
                "deadlock",
                [
                    self.simple("UPDATE", "leads", "40P01"),
                    {
                        "outcome": "rolled_back",
                        "details": {
                            "written": [
                                {
                                    "operation": "UPDATE",
                                    "rows": 1,
                                    "table_name": "leads",
                                    "table_schema": "public",
                                }
                            ]
                        },
                    },
                ],
            ):
                for connection, key in [(one, "a"), (two, "b")]:
                    connection.execute("BEGIN")
                    connection.execute(
                        "UPDATE leads SET owner = owner || '+' WHERE id = %s", (key,)
                    )
                threads = [
                    threading.Thread(
                        target=self.ignore,
                        args=(connection, f"UPDATE leads SET owner = 'z' WHERE id = '{key}'"),
                    )
                    for connection, key in [(one, "b"), (two, "a")]
                ]
                [thread.start() for thread in threads]
                [thread.join() for thread in threads]
                [connection.execute("COMMIT") for connection in (one, two)]

    def serialization(self):
        with self.app() as one, self.app() as two:
            with self.entries(
                "serialization failure, UPDATE", [self.simple("UPDATE", "leads", "40001")]
            ):
                one.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
                one.execute("SELECT count(*) FROM leads")
                two.execute("UPDATE leads SET owner = 'w' WHERE id = 'a'")
                self.ignore(one, "UPDATE leads SET owner = 'v' WHERE id = 'a'")
                one.execute("ROLLBACK")
            written = {
                "written": [
                    {
                        "operation": "INSERT",
                        "rows": 1,
                        "table_name": "notes",
                        "table_schema": "public",
                    }
                ]
            }
            with self.entries(
                "serialization failure, COMMIT",
                [
                    self.simple(
                        "INSERT",
                        "notes",
                        "40001",
                        statement="INSERT INTO notes (id) SELECT 50 + count(*) FROM notes",
                    ),
                    {"outcome": "rolled_back", "details": written, "error_code": "40001"},
                ],
            ):
                for connection in (one, two):
                    connection.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
                    connection.execute("SELECT count(*) FROM notes")
                one.execute("INSERT INTO notes (id) SELECT 50 + count(*) FROM notes")
                two.execute("INSERT INTO notes (id) SELECT 60 + count(*) FROM notes")
                two.execute("COMMIT")
                self.ignore(one, "COMMIT")
                one.execute("ROLLBACK")

    def savepoints_and_rollbacks(self):
        written = lambda rows: {
            "written": [
                {
                    "operation": "INSERT",
                    "rows": rows,
                    "table_name": "leads",
                    "table_schema": "public",
                }
            ]
        }
        failed = self.simple("INSERT", "leads", "23505", row_key={"id": "a"})
        with self.entries("ROLLBACK TO SAVEPOINT", [failed]), self.app() as connection:
            connection.execute("BEGIN; SAVEPOINT s")
            self.ignore(connection, "INSERT INTO leads (id) VALUES ('a')")
            connection.execute("ROLLBACK TO s")
            connection.execute("UPDATE leads SET owner = 'kept' WHERE id = 'a'")
            connection.execute("COMMIT")
        with (
            self.entries(
                "ROLLBACK",
                [
                    {
                        "outcome": "rolled_back",
                        "operation": "ROLLBACK",
                        "details": written(2),
                        "table_name": "leads",
                        "error_code": None,
                        "user_id": "local",
                    }
                ],
            ),
            self.app() as connection,
        ):
            connection.execute("BEGIN; SET LOCAL lead_audit.user_id = 'local'")
            connection.execute("INSERT INTO leads (id) VALUES ('r1'), ('r2')")
            connection.execute("ROLLBACK")
        with (
            self.entries(
                "fails after it had written",
                [failed, {"outcome": "rolled_back", "details": written(1), "error_code": "23505"}],
            ),
            self.app() as connection,
        ):
            connection.execute("BEGIN")
            connection.execute("INSERT INTO leads (id) VALUES ('r1')")
            self.ignore(connection, "INSERT INTO leads (id) VALUES ('r2'), ('r3'), ('a')")
            self.ignore(
                connection, "INSERT INTO leads (id) VALUES ('ignored: the transaction is aborted')"
            )
            connection.execute("ROLLBACK")
        with self.entries(
            "a statement on no watched table takes what was written",
            [
                {
                    "outcome": "rolled_back",
                    "details": written(1),
                    "error_code": "22012",
                    "error_message": "division by zero",
                }
            ],
        ):
            with self.app() as connection:
                self.ignore(
                    connection,
                    "DO $$ BEGIN INSERT INTO leads (id) VALUES ('r1'); PERFORM 1/0; END $$",
                )
        with self.entries(
            "the session ends within a transaction",
            [{"outcome": "rolled_back", "details": written(1)}],
        ):
            connection = self.app()
            connection.execute("BEGIN")
            connection.execute("INSERT INTO leads (id) VALUES ('r1')")
            pid = connection.info.backend_pid
            connection.close()
            self.wait("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = %s", pid)
        self.admin.execute("ALTER ROLE app SET lead_audit.log_rollbacks = off")
        with self.entries("log_rollbacks is off", []), self.app() as connection:
            connection.execute("BEGIN")
            connection.execute("INSERT INTO leads (id) VALUES ('r1')")
            connection.execute("ROLLBACK")
        self.admin.execute("ALTER ROLE app RESET lead_audit.log_rollbacks")

    def one_failure_through_many_hands(self):
        self.admin.execute("""
            CREATE FUNCTION pass_on() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
              BEGIN INSERT INTO notes (id) VALUES (NEW.n);
              EXCEPTION WHEN not_null_violation THEN NULL; END;
              RETURN NEW;
            END $$;
            CREATE TRIGGER pass_on BEFORE INSERT ON leads FOR EACH ROW
              WHEN (NEW.owner = 'pass on') EXECUTE FUNCTION pass_on()""")
        with self.entries(
            "through triggers and functions",
            [self.simple("INSERT", "notes", "23505", row_key={"id": 1})],
        ):
            with self.app() as connection:
                self.ignore(
                    connection, "INSERT INTO leads (id, n, owner) VALUES ('p', 1, 'pass on')"
                )
        with (
            self.entries(
                "an inner failure that was caught, and the statement goes on",
                [self.simple("INSERT", "notes", "23502", details={"column": "id"})],
            ),
            self.app() as connection,
        ):
            connection.execute("INSERT INTO leads (id, n, owner) VALUES ('p', NULL, 'pass on')")
        with (
            self.entries(
                "a loop of failures, each caught", [self.simple("INSERT", "leads", "23505")] * 5
            ),
            self.app() as connection,
        ):
            connection.execute(
                "DO $$ BEGIN FOR i IN 1..5 LOOP PERFORM try_it('a'); END LOOP; END $$"
            )

    def statements(self):
        long = "INSERT INTO leads (id) VALUES ('a') -- " + "é" * 3000
        for setting, expected in [
            ("2048", lambda text: 2040 < len(text.encode()) <= 2048),
            ("0", lambda text: text is None),
        ]:
            self.admin.execute(f"ALTER ROLE app SET lead_audit.log_statement_length = {setting}")
            with self.entries(
                f"log_statement_length {setting}",
                [self.simple("INSERT", "leads", "23505", statement=expected)],
            ):
                with self.app() as connection:
                    self.ignore(connection, long)
            with self.entries(
                f"log_statement_length {setting}, bad input",
                [
                    self.simple(
                        "INSERT",
                        "leads",
                        "22P02",
                        statement=lambda text: (text is None) == (setting == "0"),
                    )
                ],
            ):
                with self.app() as connection:
                    self.ignore(connection, "INSERT INTO leads (n) VALUES ('many')")
        self.admin.execute("ALTER ROLE app RESET lead_audit.log_statement_length")
        self.admin.execute("ALTER ROLE app SET lead_audit.log_parameters = on")
        with (
            self.entries(
                "log_parameters",
                [
                    self.simple(
                        "INSERT",
                        "leads",
                        "23505",
                        details={"constraint": "leads_pkey", "parameters": "$1 = 'a'"},
                    )
                ],
            ),
            self.app() as connection,
        ):
            with contextlib.suppress(psycopg.Error):
                connection.execute("INSERT INTO leads (id) VALUES (%s)", ("a",))
        self.admin.execute("ALTER ROLE app RESET lead_audit.log_parameters")
        with self.entries(
            "the failing one of several",
            [
                self.simple("UPDATE", "leads", "22P02", statement="UPDATE leads SET n = 'many'"),
                {"outcome": "rolled_back", "operation": "ROLLBACK", "error_code": "22P02"},
            ],
        ):
            with self.app() as connection:
                self.ignore(
                    connection,
                    "UPDATE leads SET owner = 'q' WHERE id = 'a'; UPDATE leads SET n = 'many';"
                    " DELETE FROM leads",
                )

    def all(self):
        self.admin.execute(SCHEMA)
        for kind in KINDS:
            for bouncer in (False, True):
                for extended in (False, True):
                    for transaction in (False, True):
                        self.run_kind(kind, bouncer, extended, transaction)
            for transaction in (False, True):
                self.run_psql(kind, transaction)
        self.binding()
        self.first_statement()
        self.not_about_watched_tables()
        self.in_the_text()
        self.failing_rows()
        self.why_it_was_rolled_back()
        self.deferred()
        self.copying()
        self.cancelled()
        self.locks()
        self.serialization()
        self.savepoints_and_rollbacks()
        self.one_failure_through_many_hands()
        self.statements()
        faults = self.admin.execute("SELECT * FROM lead_audit.verify()").fetchall()
        if faults:
            self.wrong += 1
            print("WRONG verify():", faults)
        failed, summed = self.one("""
            SELECT count(*) FILTER (WHERE row_key = '{"id": "a"}' AND table_name = 'leads'),
              (SELECT failed FROM lead_audit.summary('leads', 'a'))
            FROM lead_audit.log WHERE outcome = 'failed'""")
        if failed != summed:
            self.wrong += 1
            print(f"WRONG summary: {summed} failed instead of {failed}")
        # The limit of one second holds for the median of the delays, because a busy machine can
        # delay a single entry.
        if statistics.median(self.delays) > 1:
            self.wrong += 1
            print("WRONG delay: entries come more than a second after their failures")
        print(
            f"{self.done} checked, {self.wrong} wrong;"
            f" entries were there after {1000 * statistics.median(self.delays):.1f} ms "
            f"(median), {1000 * max(self.delays):.1f} ms (longest)"
        )
        return self.wrong == 0


if __name__ == "__main__":
    sys.exit(0 if Check(*sys.argv[1:]).all() else 1)
