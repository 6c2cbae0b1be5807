"""Measures pgbench's transactions per second, with single-row writes and small transactions."""

import pathlib
import re
import tempfile
from dataclasses import dataclass

# Each session of pgbench writes to its own part of the table, so no session waits for a row lock.
OWN_ROW = "\\set row 1 + :client_id * :part + random(0, :part - 1)\n"
UPDATE = (
    "UPDATE leads SET enrichment_status = 'DONE', enrichment_task_id = :row::text,"
    " updated_at = now() WHERE id = lpad(to_hex(:row::integer), 32, '0');\n"
)
NEW_ID = ":series::text || '-' || :client_id::text || '-' || :row::text"
NEW_ROW = "\\set row :row + 1\n"
SCRIPTS = {
    "UPDATE": OWN_ROW + UPDATE,
    "INSERT": NEW_ROW
    + (
        "INSERT INTO leads (id, email, domain, company_name, contact_name, source, created_by)"
        " VALUES ("
    )
    + NEW_ID
    + ", "
    "'new' || :row::text || '@example.com', 'example.com',"
    " 'Example Company ' || :row::text || ' Holdings Ltd.', 'Contact Person', 'web', 'user-1');\n",
    # The load "DELETE" deletes the rows that the load "INSERT" has inserted.
    "DELETE": NEW_ROW + "DELETE FROM leads WHERE id = " + NEW_ID + ";\n",
    "floor": OWN_ROW
    + "WITH changed AS ("
    + UPDATE.replace(";\n", " RETURNING id)\n")
    + (
        "INSERT INTO finished (id, key_hash) SELECT nextval('finished_id'), hashtextextended(id, 0)"
        " FROM changed;\n"
    ),
    "ten UPDATEs": "BEGIN;\n" + 10 * (OWN_ROW + UPDATE) + "COMMIT;\n",
}


@dataclass(frozen=True)
class Load:
    """A script of pgbench, the number of sessions, and whether a commit waits for the disk."""

    script: str
    sessions: int
    durable: bool

    def __str__(self):
        return (
            f"{self.script}, {self.sessions} session{'s' * (self.sessions > 1)},"
            f" synchronous_commit {'on' if self.durable else 'off'}"
        )


QUICK = [
    Load("UPDATE", 1, False),
    Load("UPDATE", 16, False),
    Load("UPDATE", 1, True),
    Load("UPDATE", 16, True),
    Load("INSERT", 1, False),
    Load("DELETE", 1, False),
    Load("ten UPDATEs", 1, False),
]
FULL = [
    Load(script, sessions, durable)
    for durable in (False, True)
    for sessions in (1, 4, 16)
    for script in SCRIPTS
    if script != "floor"
]

# Creates the table `finished` with the columns of lead_audit.entry. The defaults of its columns are
# the values of one entry.
FLOOR = """
    UPDATE leads SET enrichment_status = 'DONE', enrichment_task_id = '1', updated_at = now()
      WHERE id = lpad('1', 32, '0');
    CREATE TABLE finished (LIKE lead_audit.entry INCLUDING ALL);
    CREATE SEQUENCE finished_id;
    DO $$
    DECLARE
      member record;
    BEGIN
      FOR member IN SELECT m.* FROM json_each_text((
          SELECT row_to_json(e) FROM lead_audit.entry e ORDER BY id DESC LIMIT 1)) m
        WHERE m.key NOT IN ('id', 'key_hash') AND m.value IS NOT NULL LOOP
        EXECUTE format('ALTER TABLE finished ALTER %I SET DEFAULT %L', member.key, member.value);
      END LOOP;
    END
    $$"""


class Runner:
    """Runs loads. Every system runs the same number of transactions of a load."""

    def __init__(self, rows, seconds):
        self.rows, self.seconds, self.counts = rows, seconds, {}
        self.folder = tempfile.TemporaryDirectory()
        self.files = {}
        for number, (name, text) in enumerate(SCRIPTS.items()):
            self.files[name] = pathlib.Path(self.folder.name) / f"{number}.sql"
            self.files[name].write_text(text)

    def tps(self, system, load, series):
        """Runs a load, whose new keys contain `series`. Returns the transactions per second."""
        if load not in self.counts:
            raise KeyError(f"{load} has not been calibrated")
        return self._run(system, load, series, self.counts[load])

    def calibrate(self, system, load):
        """Finds the number of transactions that take about `self.seconds` seconds."""
        if load.script == "DELETE":  # one transaction for each row that INSERT has inserted
            self.counts[load] = self.counts[Load("INSERT", load.sessions, load.durable)]
            return
        series = f"{load.sessions}.{int(load.durable)}"
        few = self._run(system, load, f"few.{series}", 100)
        several = max(20, int(few * self.seconds / 4 / load.sessions))
        self.counts[load] = max(
            20,
            int(
                self._run(system, load, f"several.{series}", several) * self.seconds / load.sessions
            ),
        )

    def floor(self, system, load):
        """Returns the speed of a statement that updates a row and inserts an entry.

        session_replication_role = replica turns the audit trigger off. Returns None if the load is
        not UPDATE.
        """
        if load.script != "UPDATE":
            return None
        return self._run(
            system, load, "floor", self.counts[load], "floor", "-c session_replication_role=replica"
        )

    def _run(self, system, load, series, count, script=None, options=""):
        output = system.cluster.run(
            "pgbench",
            "-n",
            "-M",
            "prepared",
            "-c",
            str(load.sessions),
            "-j",
            str(min(load.sessions, 2)),
            "-t",
            str(count),
            "-D",
            "row=0",
            "-D",
            f"series={series}",
            "-D",
            f"part={self.rows // load.sessions}",
            "-f",
            self.files[script or load.script],
            system.database("leads"),
            options=f"{options} -c synchronous_commit={'on' if load.durable else 'off'}",
        )
        return float(re.search(r"^tps = ([\d.]+)", output, re.M)[1])
