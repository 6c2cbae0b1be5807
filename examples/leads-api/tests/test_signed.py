"""Tests of signed checkpoints, on the page and with the `lead-audit` command."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest

from leads_api.setup_database import set_up
from tests.conftest import person, serving, wait_for

COMMAND = os.environ.get("LEAD_AUDIT_COMMAND", "")
pytestmark = pytest.mark.skipif(
    not Path(COMMAND).is_file(), reason="the lead-audit command is not built (cargo build -p cli)"
)
DATABASE = "leads_signed"


def lead_audit(*arguments: object, status: int = 0) -> str:
    done = subprocess.run(
        [COMMAND, "--quiet", *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def test_a_proof_convinces_someone_who_has_only_the_public_key(
    superuser_url: str, tmp_path: Path
) -> None:
    with psycopg.connect(superuser_url) as server:
        data = Path(server.execute("SHOW data_directory").fetchone()[0])  # type: ignore[index]
    # Only the server can read the key, and only the server can write to the directory of the
    # checkpoints.
    key, checkpoints = data.parent / "signing.key", data.parent / "checkpoints"
    public = lead_audit("keygen", "--name", "example.com/leads", "--output", key).strip()
    other = lead_audit(
        "keygen", "--name", "example.com/leads", "--output", tmp_path / "other.key"
    ).strip()
    checkpoints.mkdir(0o700)
    for path in (key, checkpoints):
        os.chown(path, data.stat().st_uid, data.stat().st_gid)
    assert set_up(superuser_url, DATABASE, str(key), str(checkpoints))

    with serving(superuser_url, DATABASE) as url:
        maria = person(url, "maria", "203.0.113.7")
        lead = maria.create(id="signed", company_name="Signed")
        assert maria.edit(lead, company_name="And sealed").status_code == 200
        [_, edited] = maria.history("signed")

        def proof_of_the_edit() -> str | None:
            answer = maria.client.get(f"/api/leads/signed/history/{edited['id']}/proof")
            return answer.text if answer.status_code == 200 else None

        proof = tmp_path / "entry.tlog-proof"
        proof.write_text(wait_for(proof_of_the_edit))
        checkpoint: dict[str, Any] = maria.client.get("/api/leads/signed/verification").json()[
            "checkpoint"
        ]
        page = maria.client.get("/leads/signed").text
    assert checkpoint["is_signed"] is True
    assert ">Signed</span>" in page and "Unsigned" not in page

    database = superuser_url.replace("/postgres?", f"/{DATABASE}?")
    entry, forged, exported = (
        tmp_path / "entry.json",
        tmp_path / "forged.json",
        tmp_path / "export.jsonl",
    )
    lead_audit(
        "prove",
        "--database",
        database,
        "--id",
        edited["id"],
        "--entry",
        entry,
        "--output",
        tmp_path / "same.tlog-proof",
    )
    assert '"user_id":"maria"' in entry.read_text()
    lead_audit("verify-proof", proof, "--entry", entry, "--key", public)
    # The key `other` has the name of the log, but has not signed the proof. The log may have
    # changed its key, so the command cannot tell whether the proof is good.
    lead_audit("verify-proof", proof, "--entry", entry, "--key", other, status=2)
    forged.write_text(entry.read_text().replace('"user_id":"maria"', '"user_id":"tom"'))
    lead_audit("verify-proof", proof, "--entry", forged, "--key", public, status=1)
    lead_audit("export", "--database", database, "--output", exported)
    lead_audit("verify", exported, "--key", public, "--checkpoint", checkpoints)
