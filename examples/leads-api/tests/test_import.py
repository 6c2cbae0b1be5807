"""Tests of the CSV import: it imports all lines or none, and explains each invalid line."""

from __future__ import annotations

import httpx
import pytest

from leads_api import csv_file
from leads_api.errors import BadFile
from tests.conftest import Database, Person


def send(person: Person, content: bytes) -> httpx.Response:
    return person.client.post(
        "/api/leads/import", files={"file": ("leads.csv", content, "text/csv")}
    )


def test_a_large_file_is_one_transaction(maria: Person, database: Database) -> None:
    lines = [f'big-{n},"Company, No. {n}",big{n}@import.example,{n % 2 == 0}' for n in range(2_500)]
    answer = send(
        maria, "\ufeffid,company_name,email,is_manual\r\n".encode() + "\r\n".join(lines).encode()
    )
    assert answer.status_code == 201, answer.text
    assert answer.json() == {"imported": 2_500, "ids": [f"big-{n}" for n in range(2_500)]}

    entries = database.rows(
        "SELECT * FROM lead_audit.log WHERE row_key ->> 'id' LIKE 'big-%' ORDER BY id"
    )
    assert [entry["row_key"]["id"] for entry in entries] == [f"big-{n}" for n in range(2_500)]
    same = {
        "operation": "INSERT",
        "outcome": "ok",
        "user_id": "maria",
        "user_ip": "203.0.113.7",
        "user_agent": "maria's browser",
    }
    for column, value in same.items():
        assert {entry[column] for entry in entries} == {value}
    assert len({entry["txid"] for entry in entries}) == 1
    [request] = {entry["request_id"] for entry in entries}
    assert request
    assert entries[7]["new_values"]["company_name"] == "Company, No. 7"
    assert maria.client.get("/api/leads/big-7/verification").json()["faults"] == []


def test_one_lead_that_is_taken_stops_all(maria: Person, database: Database) -> None:
    maria.create(id="taken-1", email="taken@import.example")
    answer = send(maria, b"id,email\nfree-1,free1@import.example\nfree-2,Taken@import.example\n")
    assert (answer.status_code, answer.json()["column"]) == (409, "email")
    assert maria.client.get("/api/leads/free-1").status_code == 404
    assert [entry for entry in database.entries("free-1") if entry["outcome"] == "ok"] == []


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "The first line must name columns"),
        (b"email,is_deleted\n", "The first line must name columns"),
        (b"email\n", "no leads"),
        (b"email\nada@csv.example\nno address\n", "Line 3, email: is not an e-mail address"),
        (b"email,source\nada@csv.example\n", "Line 2: not as many fields"),
        (b"email\nada@csv.example,web\n", "Line 2: not as many fields"),
        (b"email\nada@csv.example\n\nADA@csv.example\n", "Line 4, email: the same as in line 2"),
        (b'email\n"ada', "not a CSV file"),
        ("company_name\nGl\u00fcck".encode("latin-1"), "not in UTF-8"),
        (b"company_name\n" + b"x" * csv_file.MAX_BYTES, "larger than 5 MB"),
        (b"company_name\n" + b"x\n" * (csv_file.MAX_LEADS + 1), "more than 10000"),
    ],
)
def test_a_wrong_file_is_refused_with_the_reason(content: bytes, problem: str) -> None:
    with pytest.raises(BadFile) as refused:
        csv_file.read_leads(content)
    assert problem in " ".join(refused.value.problems)


def test_the_reasons_are_shown(maria: Person) -> None:
    assert send(maria, b"email\nno address\n").json()["problems"] == [
        "Line 2, email: is not an e-mail address"
    ]
    page = maria.client.post("/leads/import", files={"file": ("x.csv", b"email\nno address\n")})
    assert page.status_code == 422 and "Line 2, email: is not an e-mail address" in page.text
