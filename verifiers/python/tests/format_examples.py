#!/usr/bin/env python3
"""Prints the examples of docs/FORMAT.md, section 10: the fenced blocks of each entry.

crates/ledger/tests/format_examples.rs and test_format_page.py check that docs/FORMAT.md contains
each block.
"""

import hashlib
import json
import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lead_audit_verifier import entries as verifier

COLUMNS = """id format txid occurred_at watch_id key_hash previous_key_hash relation backend_pid
    table_schema table_name operation outcome soft_delete row_key row_values changed_values details
    user_id user_ip user_agent request_id db_session_user db_current_user client_addr
    application_name error_code error_message error_detail statement""".split()
LEAD = """{"id": "0000000000000000000000000000002a", "email": "contact42@example42.com",
    "is_manual": true, "company_name": "Example Company 42 Holdings Ltd.",
    "enrichment_status": "PENDING", "is_deleted": false,
    "created_at": "2026-02-03T04:05:06.789", "deleted_at": null}"""
ODD = r"""{"id": "0000000000000000000000000000002a", "price": 1.10, "tiny": -0.000001,
    "big": 123456789012345678901234567890, "é": "é", "\ud83d\ude00": "astral: surrogates D83D DE00",
    "note": "tab\there, quote \" and backslash \\, bell \u0007, delete \u007f, slash /",
    "\ue000": "above the surrogates", "Z": [true, null, {"b": [], "a": {}}],
    "\n": "a control as key"}"""
KEY = '{"id": "0000000000000000000000000000002a"}'
SHARED = dict(
    format=1,
    watch_id="7d4c1f0e-52a9-4b7e-9d3b-0c6f5e1a2b84",
    relation="16412",
    backend_pid=4711,
    table_schema="public",
    table_name="leads",
    outcome="ok",
    db_session_user="lead_app",
    db_current_user="lead_app",
)
EXAMPLES = [
    dict(
        id="1",
        txid="742",
        occurred_at="2026-02-03T04:05:06.789012Z",
        operation="INSERT",
        row_key=KEY,
        row_values=LEAD,
        application_name="psql",
    ),
    dict(
        id="2",
        txid="18446744073709551615",
        occurred_at="2026-02-03T04:05:07.000000Z",
        operation="UPDATE",
        row_key=KEY,
        row_values=ODD,
        changed_values=r'{"price": 1.1, "note": "line\nbreak\r\f\b\u001f"}',
        user_id="u-17",
        user_ip="2001:db8::17",
        user_agent='Mozilla/5.0 ("quoted"; back\\slash)\tПривет 𝄞',
        request_id="req-1",
        client_addr="192.0.2.7",
        application_name="lead manager",
    ),
    dict(
        id="3",
        txid="744",
        occurred_at="2026-12-31T23:59:59.999999Z",
        operation="UPDATE",
        soft_delete="deleted",
        row_key=KEY,
        row_values=LEAD,
        changed_values='{"is_deleted": true, "deleted_at": "2026-12-31T23:59:59.999"}',
        user_id="u-17",
        user_ip="192.0.2.1",
    ),
    dict(
        id="4",
        txid="745",
        occurred_at="2027-01-01T00:00:00.000001Z",
        operation="TRUNCATE",
        details='{"row_count": 100000}',
    ),
    dict(
        id="9223372036854775807",
        txid="746",
        occurred_at="10000-01-01T00:00:00.000000Z",
        operation="DELETE",
        outcome="failed",
        table_schema="crm",
        table_name='Kunden "alt"',
        relation="4294967295",
        backend_pid=-1,
        row_key='{"tenant": 7, "no": 10.0}',
        row_values='{"tenant": 7, "no": 10.0, "name": null}',
        error_code="23503",
        error_message='update or delete on table "Kunden ""alt""" violates foreign key constraint'
        ' "fk" on table "orders"',
        error_detail='Key (tenant, no)=(7, 10.0) is still referenced from table "orders".',
        statement='DELETE FROM crm."Kunden ""alt"""\n\tWHERE no = 10.0',
    ),
    dict(
        id="5",
        txid="747",
        occurred_at="2027-01-01T00:00:00.000002Z",
        operation="UPDATE",
        row_key='{"id": "lead-1"}',
        row_values=LEAD,
        changed_values='{"id": "lead-1"}',
        previous_key=KEY,
    ),
]


def row_of(columns):
    """Returns all columns of an example entry, including the columns that all examples share."""
    columns = {**SHARED, **columns}
    previous = columns.pop("previous_key", None)
    for name in verifier.JSONS & columns.keys():
        columns[name] = verifier.emit(verifier.parse(columns[name]))
    hashes = dict(
        key_hash=columns.get("row_key"),
        previous_key_hash=previous and verifier.emit(verifier.parse(previous)),
    )
    for name, key in hashes.items():
        if key is not None:
            columns[name] = str(verifier.key_hash(columns["watch_id"], key))
    row = {name: columns.pop(name, None) for name in COLUMNS}
    assert not columns, columns
    return row


def preimage_of(columns):
    return verifier.preimage(row_of(columns))


def blocks(columns, with_nulls):
    row = row_of(columns)
    preimage = verifier.preimage(row)
    checksum = hashlib.sha256(preimage)
    found = verifier.faults({**row, "checksum": checksum.hexdigest()})
    assert not found, found
    shown = {name: value for name, value in row.items() if with_nulls or value is not None}
    return f"""```json entry
{json.dumps(shown, indent=2)}
```
```text preimage
{preimage.decode()}
```
```text hashes
length    {len(preimage)}
checksum  {checksum.hexdigest()}
leaf      {hashlib.sha256(bytes(1) + checksum.digest()).hexdigest()}
```
"""


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    print(
        "\n".join(blocks(columns, number == 0) for number, columns in enumerate(EXAMPLES)), end=""
    )
