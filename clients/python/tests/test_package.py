"""Tests of the built Python package and of the examples in its README."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from lead_audit import __version__

from .cluster import ROOT, Database
from .drivers import ASYNC, SQLALCHEMY_14
from .test_fastapi import client

PACKAGE = ROOT / "clients" / "python"


def test_the_wheel_is_typed_and_needs_nothing(tmp_path: Path) -> None:
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
        str(PACKAGE),
    ]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(f"lead_audit-{__version__}.dist-info/METADATA").decode()
    assert {"lead_audit/py.typed", "lead_audit/django/apps.py", "lead_audit/sqlalchemy.py"} <= set(
        names
    )
    assert (
        "License-Expression: PostgreSQL" in metadata
        and "Author: the lead_audit authors" in metadata
    )
    assert not re.search(r"^Requires-Dist: (?!.*extra ==)", metadata, re.MULTILINE)


def test_the_version_is_the_extensions() -> None:
    control = (ROOT / "lead_audit.control").read_text()
    assert f"default_version = '{__version__.rpartition('.')[0]}'" in control


def test_the_core_imports_nothing_that_is_not_pythons_own() -> None:
    script = (
        "import sys, lead_audit, lead_audit.asgi; "
        "print(sorted(set(name.partition('.')[0] for name in sys.modules)"
        " & {'sqlalchemy', 'starlette', 'django', 'alembic', 'psycopg'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


TYPED = """
from lead_audit import AuditContext, MissingContext, TrustedProxies
from lead_audit import audit_context, detached, identify, request_context
from lead_audit.alembic import include_name
from lead_audit.asgi import AuditMiddleware
from lead_audit.django import AuditMiddleware as DjangoMiddleware
from lead_audit.sqlalchemy import apply_context, attach, detach, watch
from lead_audit.trail import Check, Entry, Fault, Summary


def operation(entry: Entry) -> str:
    return entry.operation


with audit_context(user_id="x"), detached():
    identify("y")
"""


@pytest.mark.skipif(
    SQLALCHEMY_14 or sys.version_info < (3, 11),
    reason="SQLAlchemy 1.4 has no types; the README is for Python 3.10 and later",
)
def test_an_application_passes_mypy(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "app.py").write_text(readme_application())
    (tmp_path / "imports.py").write_text(TYPED)
    check = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--python-version",
        "3.11",
        "app.py",
        "imports.py",
    ]
    done = subprocess.run(
        check,
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(PACKAGE / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def readme_application() -> str:
    found = re.search(
        r"^```python file=app.py\n(.*?)^```$",
        (PACKAGE / "README.md").read_text(),
        re.DOTALL | re.MULTILINE,
    )
    assert found
    return found[1]


@pytest.mark.parametrize("driver", ASYNC)
async def test_the_application_in_the_readme(
    driver: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "DATABASE_URL", Database(database.socket, database.name, "postgres").url(driver)
    )
    application: dict[str, Any] = {"__name__": "app"}
    exec(readme_application(), application)
    headers = {
        "x-user": "alice",
        "user-agent": "Firefox",
        "x-request-id": "r-1",
        "x-forwarded-for": "198.51.100.1",
    }
    async with client(application["app"], "10.0.0.1") as http:
        for _ in range(2):
            assert (await http.put("/leads/1", headers=headers)).status_code == 200
        entries = (await http.get("/leads/1/history")).json()
    await application["engine"].dispose()
    assert entries == [{"user": "alice", "did": "INSERT"}, {"user": "alice", "did": "UPDATE"}]
    assert [entry[1:] for entry in database.trail()] == [
        ("alice", "198.51.100.1", "Firefox", "r-1")
    ] * 2
