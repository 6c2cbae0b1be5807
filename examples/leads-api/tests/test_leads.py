"""Tests of the application's own behaviour, without its audit trail."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.conftest import Person


def test_a_stranger_gets_nothing(server: str) -> None:
    assert httpx.get(f"{server}/api/leads").status_code == 401
    page = httpx.get(f"{server}/")
    assert (page.status_code, page.headers["location"]) == (303, "/login")
    forged = httpx.get(
        f"{server}/api/leads", cookies={"leads": "eyJ1c2VyIjogIm1hcmlhIn0=.aaaaaa.bbbb"}
    )
    assert forged.status_code == 401


def test_a_lead_lives(maria: Person, tom: Person) -> None:
    lead = maria.create(email="ada@life.example", company_name="  Life  ", contact_name="")
    assert (lead["company_name"], lead["contact_name"], lead["enrichment_status"]) == (
        "Life",
        None,
        "PENDING",
    )
    assert (lead["created_by"], lead["is_deleted"]) == ("maria", False)

    edited = tom.edit(lead, enrichment_status="COMPLETED")
    assert edited.status_code == 200
    assert (edited.json()["enrichment_status"], edited.json()["updated_by"]) == ("COMPLETED", "tom")
    assert edited.json()["email"] == "ada@life.example", "a field that is not given stays"
    assert edited.headers["etag"] == f'"{edited.json()["version"]}"'

    gone = tom.delete(edited.json()).json()
    assert (gone["is_deleted"], gone["deleted_by"]) == (True, "tom")
    assert gone["deleted_at"] is not None
    assert tom.delete(gone).status_code == 409
    assert tom.edit(gone, source="web").status_code == 409
    back = maria.restore(gone).json()
    assert (back["is_deleted"], back["deleted_by"], back["deleted_at"]) == (False, None, None)
    assert maria.restore(back).status_code == 409
    assert maria.client.get(f"/api/leads/{lead['id']}").json() == back


def test_nobody_overwrites_what_they_have_not_seen(maria: Person, tom: Person) -> None:
    seen = maria.create(company_name="Race")
    assert tom.edit(seen, company_name="Tom's").status_code == 200
    late = maria.edit(seen, company_name="Maria's")
    assert late.status_code == 412
    assert (late.json()["current"]["company_name"], late.json()["current"]["updated_by"]) == (
        "Tom's",
        "tom",
    )
    assert maria.delete(seen).status_code == 412
    assert maria.edit(late.json()["current"], company_name="Maria's").status_code == 200
    blind = maria.client.patch(f"/api/leads/{seen['id']}", json={"company_name": "blind"})
    assert blind.status_code == 428


def test_the_list_is_paged_searched_and_filtered(maria: Person) -> None:
    for number in range(45):
        status = "FAILED" if number % 3 else "PENDING"
        maria.create(
            company_name=f"Paging {number:02} 100%_sure", source="paging", enrichment_status=status
        )

    def found(**query: Any) -> Any:
        answer = maria.client.get("/api/leads", params=query)
        assert answer.status_code == 200
        return answer.json()

    pages = [found(source="paging", page=number) for number in (1, 2, 3, 4)]
    assert [page["total"] for page in pages] == [45] * 4
    assert [len(page["leads"]) for page in pages] == [20, 20, 5, 0]
    names = [lead["company_name"] for page in pages for lead in page["leads"]]
    assert names == [f"Paging {number:02} 100%_sure" for number in reversed(range(45))]
    assert found(source="paging", status="FAILED")["total"] == 30
    assert found(search="PAGING 07 100%_s")["total"] == 1
    assert found(search="Paging 07 100__s")["total"] == 0, "% and _ stand for themselves"
    assert maria.client.get("/api/leads", params={"page": 0}).status_code == 422

    page = maria.client.get("/", params={"source": "paging", "page": 2}).text
    assert "Page 2 of 3" in page and "Paging 24" in page and "Paging 25" not in page


@pytest.mark.parametrize(
    "wrong",
    [
        {"email": "no address"},
        {"company_name": "x" * 501},
        {"contact_name": "zero\x00byte"},
        {"enrichment_status": "DONE"},
        {"is_deleted": True},
        {"created_by": "tom"},
        {"id": "../up"},
    ],
)
def test_wrong_values_are_refused(maria: Person, wrong: dict[str, object]) -> None:
    assert maria.client.post("/api/leads", json=wrong).status_code == 422


def test_unique_values_are_told(maria: Person) -> None:
    lead = maria.create(id="only-one", email="one@unique.example")
    answer = maria.client.post("/api/leads", json={"id": "only-one"})
    assert (answer.status_code, answer.json()["column"]) == (409, "id")
    answer = maria.client.post("/api/leads", json={"email": "ONE@unique.example"})
    assert (answer.status_code, answer.json()["column"]) == (409, "email")
    # Another lead can take the e-mail address of a deleted lead, after which the deleted lead
    # cannot be restored.
    gone = maria.delete(lead).json()
    maria.create(email="one@unique.example")
    assert maria.restore(gone).status_code == 409


def test_a_lead_that_is_not_there(maria: Person) -> None:
    assert maria.client.get("/api/leads/nobody").status_code == 404
    assert maria.edit({"id": "nobody", "version": "x"}, source="web").status_code == 404
    page = maria.client.get("/leads/nobody")
    assert page.status_code == 404 and "There is no lead nobody." in page.text


def test_another_sites_page_cannot_write(maria: Person, server: str) -> None:
    answer = maria.client.post("/api/leads", json={}, headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403
    assert maria.client.post("/api/leads", json={}, headers={"Origin": server}).status_code == 201


def test_what_users_type_is_text(maria: Person) -> None:
    lead = maria.create(company_name="<script>alert(1)</script>", contact_name='"><img src=x>')
    page = maria.client.get(f"/leads/{lead['id']}")
    assert "<script>alert" not in page.text and "<img src=x" not in page.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]


@pytest.mark.parametrize(
    "address",
    [
        "/leads/%00", "/api/leads/%00", "/api/leads/%ff", "/?search=%00",
        "/api/leads?search=%00&status=%00", "/api/leads?search=%ff",
        "/api/leads?page=99999999999999999999",
        "/api/leads/x/history?before=99999999999999999999", "/leads/x?before=-1", "/leads/x/edit",
        "/static/../app.py", "/static/%2e%2e/app.py", "/api/leads/" + "x" * 10_000,
    ],
)  # fmt: skip
def test_odd_addresses_are_no_errors_of_ours(maria: Person, address: str) -> None:
    assert maria.client.get(address).status_code < 500


@pytest.mark.parametrize(
    "content",
    [
        b'{"company_name": "\\ud800"}',
        b'{"company_name": "\\u0000"}',
        b"{",
        b"[]",
        b"\\xff",
        b'{"email": 1}',
    ],
)
def test_odd_bodies_are_no_errors_of_ours(maria: Person, content: bytes) -> None:
    answer = maria.client.post(
        "/api/leads", content=content, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422
    form = {"company_name": content, "is_manual": "perhaps", "enrichment_status": "?"}
    assert maria.client.post("/leads/new", data=form).status_code == 422
