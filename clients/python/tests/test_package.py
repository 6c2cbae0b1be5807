"""The package as others get it: built, and as its README shows it."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from lead_audit import __version__

from .cluster import ROOT, Database
from .drivers import ASYNC
from .test_fastapi import client

PACKAGE = ROOT / "clients" / "python"


def test_the_wheel_is_typed_and_needs_nothing(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(PACKAGE)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(f"lead_audit-{__version__}.dist-info/METADATA").decode()
    assert {"lead_audit/py.typed", "lead_audit/django/apps.py", "lead_audit/sqlalchemy.py"} <= set(names)
    assert not re.search(r"^Requires-Dist: (?!.*extra ==)", metadata, re.MULTILINE)


def test_the_version_is_the_extensions() -> None:
    control = (ROOT / "lead_audit.control").read_text()
    assert f"default_version = '{__version__.rpartition('.')[0]}'" in control


def test_the_core_imports_nothing_that_is_not_pythons_own() -> None:
    script = (
        "import sys, lead_audit, lead_audit.asgi; "
        "print(sorted(set(name.partition('.')[0] for name in sys.modules) & {'sqlalchemy', 'starlette', 'django', 'alembic', 'psycopg'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("driver", ASYNC)
async def test_the_application_in_the_readme(driver: str, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    found = re.search(r"^```python file=app.py\n(.*?)^```$", (PACKAGE / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert found
    monkeypatch.setenv("DATABASE_URL", Database(database.socket, database.name, "postgres").url(driver))
    application: dict[str, Any] = {"__name__": "app"}
    exec(found[1], application)
    headers = {"x-user": "alice", "user-agent": "Firefox", "x-request-id": "r-1", "x-forwarded-for": "198.51.100.1"}
    async with client(application["app"], "10.0.0.1") as http:
        for _ in range(2):
            assert (await http.put("/leads/1", headers=headers)).status_code == 200
        entries = (await http.get("/leads/1/history")).json()
    await application["engine"].dispose()
    assert entries == [{"user": "alice", "did": "INSERT"}, {"user": "alice", "did": "UPDATE"}]
    assert [entry[1:] for entry in database.trail()] == [("alice", "198.51.100.1", "Firefox", "r-1")] * 2
