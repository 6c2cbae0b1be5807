"""The audit trail as the application shows it, held against what the database has."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import httpx
import psycopg
import pytest

from leads_api.setup_database import READER, WRITER
from tests.conftest import DATABASE, Database, Person


def changes(event: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {change["column"]: (change["old"], change["new"]) for change in event["changes"]}


def test_each_event_is_right_in_every_field(maria: Person, tom: Person, database: Database) -> None:
    lead = maria.create(company_name="Field", email="field@timeline.example", is_manual=True)
    edited = tom.edit(lead, company_name="Fields", is_manual=False).json()
    gone = maria.delete(edited).json()
    back = tom.restore(gone).json()
    events = tom.history(lead["id"])

    assert [event["kind"] for event in events] == ["created", "edited", "deleted", "restored"]
    assert changes(events[0]) == {
        "id": (None, lead["id"]), "company_name": (None, "Field"), "email": (None, "field@timeline.example"), "is_manual": (None, True),
        "enrichment_status": (None, "PENDING"), "is_deleted": (None, False), "created_by": (None, "maria"), "updated_by": (None, "maria"),
        "created_at": (None, lead["created_at"]), "updated_at": (None, lead["updated_at"]),
    }  # fmt: skip
    assert changes(events[1]) == {
        "company_name": ("Field", "Fields"), "is_manual": (True, False), "updated_by": ("maria", "tom"),
        "updated_at": (lead["updated_at"], edited["updated_at"]),
    }  # fmt: skip
    assert changes(events[2]) == {
        "is_deleted": (False, True), "deleted_by": (None, "maria"), "deleted_at": (None, gone["deleted_at"]), "updated_by": ("tom", "maria"),
        "updated_at": (edited["updated_at"], gone["updated_at"]),
    }  # fmt: skip
    assert changes(events[3]) == {
        "is_deleted": (True, False), "deleted_by": ("maria", None), "deleted_at": (gone["deleted_at"], None), "updated_by": ("maria", "tom"),
        "updated_at": (gone["updated_at"], back["updated_at"]),
    }  # fmt: skip

    said = [(event["user_id"], event["user_ip"], event["user_agent"]) for event in events]
    hers, his = ("maria", "203.0.113.7", "maria's browser"), ("tom", "2001:db8::23", "tom's browser")
    assert said == [hers, his, hers, his]
    assert len({event["request_id"] for event in events}) == 4, "each request has an id of its own"

    for event, entry in zip(events, database.entries(lead["id"]), strict=True):
        for column in event.keys() - {"kind", "changes", "checksum", "is_intact", "occurred_at", "txid"}:
            assert event[column] == entry[column], column
        assert datetime.fromisoformat(event["occurred_at"]) == entry["occurred_at"]
        assert (str(event["txid"]), event["checksum"]) == (str(entry["txid"]), entry["checksum"].hex())
        assert (event["db_session_user"], event["db_current_user"], event["application_name"]) == (WRITER, WRITER, "leads-api")
        assert event["is_intact"] is True


def test_the_request_id_of_a_caller_is_kept(maria: Person) -> None:
    answer = maria.client.post("/api/leads", json={}, headers={"X-Request-ID": "from-the-gateway-17"})
    assert maria.history(answer.json()["id"])[0]["request_id"] == "from-the-gateway-17"


def test_concurrent_requests_keep_their_contexts_apart(server: str, maria: Person, tom: Person, database: Database) -> None:
    async def write(client: httpx.AsyncClient, person: Person, number: int) -> None:
        cookie = f"leads={person.client.cookies['leads']}"
        headers = {**person.client.headers, "Cookie": cookie, "X-Request-ID": f"{person.name}-{number}"}
        lead = {"id": f"together-{person.name}-{number}", "source": person.name}
        answer = await client.post("/api/leads", json=lead, headers=headers)
        assert answer.status_code == 201, answer.text

    async def write_all() -> None:
        async with httpx.AsyncClient(base_url=server, timeout=60) as client:
            await asyncio.gather(*(write(client, person, number) for number in range(50) for person in (maria, tom)))

    asyncio.run(write_all())
    entries = database.rows("SELECT * FROM lead_audit.log WHERE row_key ->> 'id' LIKE 'together-%'")
    assert len(entries) == 100
    for entry in entries:
        user, number = entry["row_key"]["id"].split("-")[1:]
        assert (entry["user_id"], entry["request_id"]) == (user, f"{user}-{number}")
        assert entry["user_agent"] == f"{user}'s browser"


def test_a_race_leaves_one_entry_for_the_one_who_won(maria: Person, tom: Person, database: Database) -> None:
    seen = maria.create(company_name="Race")
    assert tom.edit(seen, company_name="Tom's").status_code == 200
    assert maria.edit(seen, company_name="Maria's").status_code == 412
    events = maria.history(seen["id"])
    assert [(event["kind"], event["user_id"]) for event in events] == [("created", "maria"), ("edited", "tom")]
    assert changes(events[1])["company_name"] == ("Race", "Tom's")


def test_what_goes_around_the_application_is_there_too(maria: Person, database: Database) -> None:
    lead = maria.create(company_name="Around")
    database.rows("UPDATE leads SET company_name = 'By hand' WHERE id = %s RETURNING id", lead["id"])
    database.rows("DELETE FROM leads WHERE id = %s RETURNING id", lead["id"])
    events = maria.history(lead["id"])
    assert [(event["kind"], event["user_id"]) for event in events] == [("created", "maria"), ("edited", None), ("purged", None)]
    assert changes(events[1]) == {"company_name": ("Around", "By hand")}
    assert changes(events[2])["company_name"] == ("By hand", None)
    assert {event["db_session_user"] for event in events[1:]} == {"postgres"}


def test_a_long_timeline_comes_in_parts(maria: Person, database: Database) -> None:
    lead = maria.create(company_name="Long 0")
    for number in range(1, 121):
        database.rows("UPDATE leads SET company_name = %s WHERE id = %s RETURNING id", f"Long {number}", lead["id"])
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
    with database.connection.transaction():
        database.connection.execute("ALTER TABLE lead_audit.entry DISABLE TRIGGER ALL")
        database.connection.execute("UPDATE lead_audit.entry SET user_id = 'tom' WHERE id = %s", [victim])
        database.connection.execute("ALTER TABLE lead_audit.entry ENABLE ALWAYS TRIGGER append_only")
    after = maria.client.get(url).json()
    assert [(fault["id"], fault["fault"]) for fault in after["faults"]] == [(victim, "checksum")]
    assert [event["is_intact"] for event in maria.history(lead["id"])] == [True, False]
    page = maria.client.get(f"/leads/{lead['id']}").text
    assert "The trail was tampered with" in page and f'href="#entry-{victim}"' in page and "This entry was changed" in page


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
def test_neither_role_can_do_more_than_it_should(superuser_url: str, server: str, role: str, query: str) -> None:
    with psycopg.connect(superuser_url, dbname=DATABASE, user=role) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(query)
