"""Compares the audit trail that the application shows with the audit trail in the database."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from datetime import datetime
from typing import Any

import httpx
import psycopg
import pytest

from leads_api.setup_database import READER, WRITER
from tests.conftest import DATABASE, Database, Person, wait_for


def changes(event: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {
        change["column"]: (
            plain(change["column"], change["old"]),
            plain(change["column"], change["new"]),
        )
        for change in event["changes"]
    }


def plain(column: str, value: Any) -> Any:
    """Parses a timestamp, because PostgreSQL omits trailing zeros and Python writes them."""
    return datetime.fromisoformat(value) if value and column.endswith("_at") else value


def test_each_event_is_right_in_every_field(maria: Person, tom: Person, database: Database) -> None:
    lead = maria.create(company_name="Field", email="field@timeline.example", is_manual=True)
    edited = tom.edit(lead, company_name="Fields", is_manual=False).json()
    gone = maria.delete(edited).json()
    back = tom.restore(gone).json()
    events = tom.history(lead["id"])

    def time(state: dict[str, Any], column: str) -> datetime:
        return datetime.fromisoformat(state[column])

    assert [event["kind"] for event in events] == ["created", "edited", "deleted", "restored"]
    assert changes(events[0]) == {
        "id": (None, lead["id"]), "company_name": (None, "Field"),
        "email": (None, "field@timeline.example"), "is_manual": (None, True),
        "enrichment_status": (None, "PENDING"), "is_deleted": (None, False),
        "created_by": (None, "maria"), "updated_by": (None, "maria"),
        "created_at": (None, time(lead, "created_at")),
        "updated_at": (None, time(lead, "updated_at")),
    }  # fmt: skip
    assert changes(events[1]) == {
        "company_name": ("Field", "Fields"), "is_manual": (True, False),
        "updated_by": ("maria", "tom"),
        "updated_at": (time(lead, "updated_at"), time(edited, "updated_at")),
    }  # fmt: skip
    assert changes(events[2]) == {
        "is_deleted": (False, True), "deleted_by": (None, "maria"),
        "deleted_at": (None, time(gone, "deleted_at")), "updated_by": ("tom", "maria"),
        "updated_at": (time(edited, "updated_at"), time(gone, "updated_at")),
    }  # fmt: skip
    assert changes(events[3]) == {
        "is_deleted": (True, False), "deleted_by": ("maria", None),
        "deleted_at": (time(gone, "deleted_at"), None), "updated_by": ("maria", "tom"),
        "updated_at": (time(gone, "updated_at"), time(back, "updated_at")),
    }  # fmt: skip

    said = [(event["user_id"], event["user_ip"], event["user_agent"]) for event in events]
    hers, his = (
        ("maria", "203.0.113.7", "maria's browser"),
        ("tom", "2001:db8::23", "tom's browser"),
    )
    assert said == [hers, his, hers, his]
    assert len({event["request_id"] for event in events}) == 4, "each request has an id of its own"

    for event, entry in zip(events, database.entries(lead["id"]), strict=True):
        for column in event.keys() - {
            "lead_id",
            "kind",
            "undone",
            "changes",
            "checksum",
            "is_intact",
            "occurred_at",
            "txid",
        }:
            assert event[column] == entry[column], column
        assert datetime.fromisoformat(event["occurred_at"]) == entry["occurred_at"]
        assert (str(event["txid"]), event["checksum"]) == (
            str(entry["txid"]),
            entry["checksum"].hex(),
        )
        assert (event["db_session_user"], event["db_current_user"], event["application_name"]) == (
            WRITER,
            WRITER,
            "leads-api",
        )
        assert event["is_intact"] is True


def test_the_request_id_of_a_caller_is_kept(maria: Person) -> None:
    answer = maria.client.post(
        "/api/leads", json={}, headers={"X-Request-ID": "from-the-gateway-17"}
    )
    assert maria.history(answer.json()["id"])[0]["request_id"] == "from-the-gateway-17"


def test_concurrent_requests_keep_their_contexts_apart(
    server: str, maria: Person, tom: Person, database: Database
) -> None:
    async def write(client: httpx.AsyncClient, person: Person, number: int) -> None:
        cookie = f"leads={person.client.cookies['leads']}"
        headers = {
            **person.client.headers,
            "Cookie": cookie,
            "X-Request-ID": f"{person.name}-{number}",
        }
        lead = {"id": f"together-{person.name}-{number}", "source": person.name}
        answer = await client.post("/api/leads", json=lead, headers=headers)
        assert answer.status_code == 201, answer.text

    async def write_all() -> None:
        async with httpx.AsyncClient(base_url=server, timeout=60) as client:
            await asyncio.gather(
                *(write(client, person, number) for number in range(50) for person in (maria, tom))
            )

    asyncio.run(write_all())
    entries = database.rows("SELECT * FROM lead_audit.log WHERE row_key ->> 'id' LIKE 'together-%'")
    assert len(entries) == 100
    for entry in entries:
        user, number = entry["row_key"]["id"].split("-")[1:]
        assert (entry["user_id"], entry["request_id"]) == (user, f"{user}-{number}")
        assert entry["user_agent"] == f"{user}'s browser"


def test_a_race_leaves_one_entry_for_the_one_who_won(
    maria: Person, tom: Person, database: Database
) -> None:
    seen = maria.create(company_name="Race")
    assert tom.edit(seen, company_name="Tom's").status_code == 200
    assert maria.edit(seen, company_name="Maria's").status_code == 412
    events = maria.history(seen["id"])
    assert [(event["kind"], event["user_id"]) for event in events] == [
        ("created", "maria"),
        ("edited", "tom"),
    ]
    assert changes(events[1])["company_name"] == ("Race", "Tom's")


def test_what_goes_around_the_application_is_there_too(maria: Person, database: Database) -> None:
    lead = maria.create(company_name="Around")
    database.rows(
        "UPDATE leads SET company_name = 'By hand' WHERE id = %s RETURNING id", lead["id"]
    )
    database.rows("DELETE FROM leads WHERE id = %s RETURNING id", lead["id"])
    events = maria.history(lead["id"])
    assert [(event["kind"], event["user_id"]) for event in events] == [
        ("created", "maria"),
        ("edited", None),
        ("purged", None),
    ]
    assert changes(events[1]) == {"company_name": ("Around", "By hand")}
    assert changes(events[2])["company_name"] == ("By hand", None)
    assert {event["db_session_user"] for event in events[1:]} == {"postgres"}
    page = maria.client.get(f"/leads/{lead['id']}")
    assert page.status_code == 200, "the row is gone, its history is not"
    assert (
        "Gone for good" in page.text
        and "removed the row for good" in page.text
        and "Not through the application" in page.text
    )


def test_what_was_refused_is_there_too(maria: Person, tom: Person) -> None:
    maria.create(email="wanted@refused.example")
    lead = maria.create(id="refused-1", email="mine@refused.example")
    assert tom.edit(lead, email="wanted@refused.example").status_code == 409
    assert (
        tom.client.post("/api/leads", json={"id": "refused-1", "source": "fair"}).status_code == 409
    )
    events = wait_for(lambda: found if len(found := maria.history("refused-1")) == 3 else None)
    assert [
        (event["kind"], event["operation"], event["user_id"], event["user_ip"]) for event in events
    ] == [
        ("created", "INSERT", "maria", "203.0.113.7"),
        ("refused", "UPDATE", "tom", "2001:db8::23"),
        ("refused", "INSERT", "tom", "2001:db8::23"),
    ]
    assert changes(events[1])["email"] == ("mine@refused.example", "wanted@refused.example")
    assert changes(events[2])["source"] == (None, "fair")
    for event, constraint in ((events[1], "leads_email_key"), (events[2], "leads_pkey")):
        assert event["error_code"] == "23505"
        assert (
            event["error_message"]
            == f'duplicate key value violates unique constraint "{constraint}"'
        )
        assert event["is_intact"] is True
    page = maria.client.get("/refused").text
    assert 'href="/leads/refused-1"' in page and "wanted@refused.example" in page


def test_an_import_that_is_undone_says_how_much_of_it(tom: Person, maria: Person) -> None:
    maria.create(email="last@undone.example")
    lines = [f"Undone {n},{n}@undone.example" for n in range(1_500)]
    content = "company_name,email\n" + "\n".join([*lines, "Last,last@undone.example"])
    assert (
        tom.client.post(
            "/api/leads/import", files={"file": ("x.csv", content.encode())}
        ).status_code
        == 409
    )
    page = wait_for(
        lambda: (
            found
            if "Undone: INSERT of 1000 leads" in (found := maria.client.get("/refused").text)
            else None
        )
    )
    assert "had a transaction rolled back" in page
    assert maria.client.get("/api/leads", params={"search": "Undone 7"}).json()["total"] == 0


def test_a_long_timeline_comes_in_parts(maria: Person, database: Database) -> None:
    lead = maria.create(company_name="Long 0")
    for number in range(1, 121):
        database.rows(
            "UPDATE leads SET company_name = %s WHERE id = %s RETURNING id",
            f"Long {number}",
            lead["id"],
        )
    seen: list[int] = []
    page: str | None = f"/leads/{lead['id']}"
    pages = 0
    while page:
        text = maria.client.get(page).text
        seen += [int(part.split('"')[0]) for part in text.split('id="entry-')[1:]]
        pages += 1
        page = f"/leads/{lead['id']}?before={seen[-1]}" if ">Older</a>" in text else None
    assert pages == 3
    assert seen == [entry["id"] for entry in reversed(database.entries(lead["id"]))]


def test_a_changed_entry_is_named(maria: Person, database: Database) -> None:
    lead = maria.create(company_name="Tampered")
    maria.edit(lead, company_name="With")
    url = f"/api/leads/{lead['id']}/verification"
    before = maria.client.get(url).json()
    assert (before["entries"], before["faults"]) == (2, [])
    assert "The trail is intact" in maria.client.get(f"/leads/{lead['id']}").text

    victim = database.entries(lead["id"])[1]["id"]
    database.tamper(victim)
    after = maria.client.get(url).json()
    assert [(fault["id"], fault["fault"]) for fault in after["faults"]] == [(victim, "checksum")]
    assert [event["is_intact"] for event in maria.history(lead["id"])] == [True, False]
    page = maria.client.get(f"/leads/{lead['id']}").text
    assert (
        "The trail was tampered with" in page
        and f'href="#entry-{victim}"' in page
        and "This entry was changed" in page
    )


def test_an_entry_can_be_proved_to_be_in_the_log(
    maria: Person, tom: Person, database: Database
) -> None:
    lead = maria.create(company_name="Proof")
    [entry] = database.entries(lead["id"])
    url = f"/api/leads/{lead['id']}/history/{entry['id']}/proof"
    # Repeats the request, because its status is 409 until the worker has sealed the entry.
    answer = wait_for(
        lambda: found if (found := maria.client.get(url)).status_code != 409 else None
    )
    assert answer.status_code == 200, answer.text
    assert (
        answer.headers["content-disposition"]
        == f'attachment; filename="entry-{entry["id"]}.tlog-proof"'
    )

    proof, checkpoint = answer.text.split("\n\n", 1)
    index = int(next(line for line in proof.splitlines() if line.startswith("index ")).split()[1])
    hashes = [base64.b64decode(line) for line in proof.splitlines() if len(line) == 44]
    size, root = int(checkpoint.splitlines()[1]), base64.b64decode(checkpoint.splitlines()[2])
    assert root_of(bytes(entry["checksum"]), index, size, hashes) == root
    [[stored]] = [
        row.values()
        for row in database.rows(
            "SELECT root FROM lead_audit.checkpoint WHERE tree_size = %s", size
        )
    ]
    assert stored == root

    shown = maria.client.get(f"/api/leads/{lead['id']}/verification").json()["checkpoint"]
    assert shown["tree_size"] >= size and shown["is_signed"] is False
    other = tom.create(company_name="Other")
    assert (
        tom.client.get(f"/api/leads/{other['id']}/history/{entry['id']}/proof").status_code == 404
    ), "of another lead"
    assert (
        maria.client.get(f"/leads/{lead['id']}/history/{entry['id']}/proof").text.splitlines()[1]
        == proof.splitlines()[1]
    )


def root_of(leaf: bytes, index: int, size: int, hashes: list[bytes]) -> bytes:
    """Computes the root from an inclusion proof (RFC 9162, section 2.1.3.2)."""
    fn, sn = index, size - 1
    root = hashlib.sha256(b"\0" + leaf).digest()
    for sibling in hashes:
        assert sn > 0
        if fn & 1 or fn == sn:
            root = hashlib.sha256(b"\1" + sibling + root).digest()
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            root = hashlib.sha256(b"\1" + root + sibling).digest()
        fn, sn = fn >> 1, sn >> 1
    assert sn == 0
    return root


@pytest.mark.parametrize(
    ("role", "query"),
    [
        (WRITER, "SELECT * FROM lead_audit.log"),
        (WRITER, "SELECT * FROM lead_audit.history('leads', 'x')"),
        (WRITER, "SELECT lead_audit.disable('leads')"),
        (WRITER, "ALTER TABLE leads DISABLE TRIGGER ALL"),
        (READER, "SELECT * FROM leads"),
        (READER, "UPDATE lead_audit.entry SET user_id = 'x'"),
        (READER, "SELECT lead_audit.disable('leads')"),
    ],
)
def test_neither_role_can_do_more_than_it_should(
    superuser_url: str, server: str, role: str, query: str
) -> None:
    with psycopg.connect(superuser_url, dbname=DATABASE, user=role) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(query)
