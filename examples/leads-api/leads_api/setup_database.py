"""Creates the roles, the database and the audit trail.

`python -m leads_api.setup_database URL [KEY_FILE CHECKPOINTS]`

URL is the connection URL of a superuser. KEY_FILE is a key from `lead-audit keygen`, with which the
log signs its checkpoints. CHECKPOINTS is the directory to which the log publishes its checkpoints.

A real application would execute these statements in its migrations. If the database exists, the
program changes nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy import URL, make_url

SQL = Path(__file__).parent / "sql"
WRITER, READER = "leads_app", "leads_auditor"


def set_up(
    superuser_url: str,
    database: str = "leads",
    key_file: str | None = None,
    checkpoints: str | None = None,
) -> bool:
    """Creates the database, or returns False if the database already exists."""
    with psycopg.connect(superuser_url, autocommit=True) as server:
        for role in (WRITER, READER):
            if not server.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).rowcount:
                server.execute(f"CREATE ROLE {role} LOGIN")
        if server.execute("SELECT FROM pg_database WHERE datname = %s", [database]).rowcount:
            return False
        server.execute(f'CREATE DATABASE "{database}" OWNER {WRITER}')
        # The timestamps of the table have no time zone. The setting TimeZone makes PostgreSQL write
        # the timestamps in UTC on every machine.
        settings = {
            "timezone": "UTC",
            "lead_audit.signing_key_file": key_file,
            "lead_audit.checkpoint_dir": checkpoints,
        }
        for setting, value in settings.items():
            if value is not None:
                server.execute(
                    sql.SQL(f'ALTER DATABASE "{database}" SET {setting} = {{}}').format(value)
                )
    try:
        with psycopg.connect(superuser_url, dbname=database, user=WRITER) as connection:
            connection.execute((SQL / "schema.sql").read_bytes())
        with psycopg.connect(superuser_url, dbname=database) as connection:
            connection.execute((SQL / "audit.sql").read_bytes())
    except psycopg.Error:
        with psycopg.connect(superuser_url, autocommit=True) as server:
            server.execute(f'DROP DATABASE "{database}"')  # so that the next run can create it
        raise
    return True


def url_for(superuser_url: str, role: str, database: str = "leads") -> URL:
    """Returns the URL of the database for the role `role`."""
    return make_url(superuser_url).set(
        drivername="postgresql+psycopg", username=role, database=database
    )


if __name__ == "__main__":
    print("made" if set_up(sys.argv[1], "leads", *sys.argv[2:4]) else "there already")
