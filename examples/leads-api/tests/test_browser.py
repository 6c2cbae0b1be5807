"""Tests with two users in two browsers. pytest skips these tests if Chromium is missing."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, expect, sync_playwright

from leads_api.setup_database import WRITER
from tests.conftest import Database, wait_for

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
# Options with which Chromium does not use the network, and works without its sandbox. The sandbox
# does not work for root.
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Visitor:
    """A user with a browser of their own, which has its own cookies, address and user agent."""

    page: Page
    agent: str
    complaints: list[str] = field(default_factory=list)

    def event(self, number: int) -> Locator:
        """Returns an event of the shown timeline. The event with the number 0 is the newest."""
        return self.page.locator("article.event").nth(number)

    def kinds(self) -> list[str]:
        return [
            str(event.get_attribute("data-kind"))
            for event in self.page.locator("article.event").all()
        ]


def visit(browser: Browser, server: str, name: str, address: str, viewport: Any = DESK) -> Visitor:
    agent = f"Browser of {name} (X11; Linux)"
    context = browser.new_context(
        user_agent=agent,
        extra_http_headers={"X-Forwarded-For": address},
        viewport=viewport,
        base_url=server,
    )
    visitor = Visitor(context.new_page(), agent)

    def complain(message: ConsoleMessage) -> None:
        # Ignores the message that Chromium logs for each response with an error status, because the
        # tests cause such responses on purpose.
        if (
            message.type in ("error", "warning")
            and "the server responded with a status" not in message.text
        ):
            visitor.complaints.append(message.text)

    visitor.page.on("console", complain)
    visitor.page.on("pageerror", lambda error: visitor.complaints.append(str(error)))
    visitor.page.goto("/")
    expect(visitor.page).to_have_url(f"{server}/login")
    visitor.page.get_by_role("button", name=name).click()
    expect(visitor.page.locator("#user")).to_have_text(name)
    return visitor


def table(event: Locator, caption: str) -> dict[str, tuple[str | None, str | None]]:
    """Returns the shown diff: column → (before, after), with None for a missing value."""
    found = {}
    for row in (
        event.locator("table", has=event.page.locator(f"caption:text-is('{caption}')"))
        .locator("tbody tr")
        .all()
    ):
        cells = [row.locator(f"td.{side}") for side in ("old", "new")]
        found[str(row.get_attribute("data-column"))] = tuple(
            cell.text_content() if cell.count() else None for cell in cells
        )
    return found  # type: ignore[return-value]


def origin(event: Locator) -> dict[str, str]:
    """Returns the contents of the section "Where this came from"."""
    if event.locator("details[open]").count() == 0:
        event.locator("summary").click()
    terms = event.locator(".origins dt").all_inner_texts()
    return dict(zip(terms, event.locator(".origins dd").all_inner_texts(), strict=True))


def test_two_people_and_one_lead(browser: Browser, server: str, database: Database) -> None:
    maria = visit(browser, server, "Maria Okafor", "203.0.113.7")
    tom = visit(browser, server, "Tom Lindqvist", "198.51.100.23")

    # Maria enters two leads. Later in this test, Tom tries to use the e-mail address of the second
    # lead.
    for company, email in (
        ("Globex", "info@globex.example"),
        ("Duet Records", "duet@browser.example"),
    ):
        maria.page.get_by_role("link", name="All leads").first.click()
        maria.page.get_by_role("link", name="New lead").click()
        maria.page.get_by_label("Company name").fill(company)
        maria.page.get_by_label("E-mail").fill(email)
        maria.page.get_by_role("button", name="Create lead").click()
        expect(maria.page.get_by_role("status")).to_have_text("The lead was created.")
    address = maria.page.url
    lead_id = address.rsplit("/", 1)[1]

    # Maria and Tom open the lead for editing. Tom saves the lead first.
    for visitor in (maria, tom):
        visitor.page.goto(f"{address}/edit")
    tom.page.get_by_label("Company name").fill("Duet Records Ltd.")
    tom.page.get_by_label("Enrichment").select_option("COMPLETED")
    tom.page.get_by_role("button", name="Save").click()
    expect(tom.page.get_by_role("status")).to_have_text("The lead was saved.")
    maria.page.get_by_label("Company name").fill("Duet GmbH")
    maria.page.get_by_role("button", name="Save").click()
    conflict = maria.page.get_by_role("alert")
    expect(conflict).to_contain_text("Tom Lindqvist was faster")
    expect(conflict).to_contain_text("Nothing of yours was saved.")
    rows = [row.locator("th, td").all_inner_texts() for row in conflict.locator("tbody tr").all()]
    assert rows == [
        ["Company name", "Duet Records Ltd.", "Duet GmbH"],
        ["Enrichment status", "COMPLETED", "PENDING"],
    ]
    expect(maria.page.get_by_label("Company name")).to_have_value("Duet GmbH")

    # The form keeps Maria's input and shows the stored values. Maria saves again.
    maria.page.get_by_label("Enrichment").select_option("COMPLETED")
    maria.page.get_by_role("button", name="Save").click()
    expect(maria.page.get_by_role("status")).to_have_text("The lead was saved.")

    # Tom enters the e-mail address of another lead. The database refuses the change.
    tom.page.goto(f"{address}/edit")
    tom.page.get_by_label("E-mail").fill("Info@Globex.example")
    tom.page.get_by_role("button", name="Save").click()
    expect(tom.page.locator("#email-problem")).to_have_text(
        "Another lead has that e-mail address already."
    )

    # Tom deletes the lead, and Maria restores it.
    tom.page.goto(address)
    tom.page.get_by_role("button", name="Delete").click()
    expect(tom.page.get_by_role("heading", level=1)).to_contain_text("Deleted")
    maria.page.goto("/?deleted=true&search=Duet")
    maria.page.get_by_role("link", name="Duet GmbH").click()
    maria.page.get_by_role("button", name="Restore").click()
    expect(maria.page.get_by_role("status")).to_have_text("The lead was restored.")

    kinds = ["restored", "deleted", "refused", "edited", "edited", "created"]
    wait_for(lambda: maria.page.reload() and len(maria.kinds()) == len(kinds))
    assert maria.kinds() == kinds
    entries = database.entries(lead_id)[::-1]
    for number, entry in enumerate(entries):
        event = maria.event(number)
        tag = {"deleted": "Soft delete", "restored": "Restored", "refused": "Refused"}.get(
            kinds[number]
        )
        assert event.locator(".tag").all_inner_texts() == ([tag] if tag else [])
        visitor, who = (
            (maria, "Maria Okafor") if entry["user_id"] == "maria" else (tom, "Tom Lindqvist")
        )
        expect(event.locator(".actor")).to_have_text(who)
        assert (
            event.locator("time").first.get_attribute("datetime")
            == entry["occurred_at"].isoformat()
        )
        assert origin(event) == {
            "User": "maria" if visitor is maria else "tom",
            "Address": "203.0.113.7" if visitor is maria else "198.51.100.23",
            "User agent": visitor.agent,
            "Request": entry["request_id"],
            "Logged in as": WRITER,
            "Acting as": WRITER,
            "Client address": "Unix socket",
            "Program": "leads-api",
            "Server process": str(entry["backend_pid"]),
            "Transaction": str(entry["txid"]),
        }
        expect(event.locator(".ip")).to_have_text(
            "203.0.113.7" if visitor is maria else "198.51.100.23"
        )
        expect(event.locator(".checksum code")).to_have_text(entry["checksum"].hex())
        expect(event.locator(".checksum")).to_contain_text("matches this entry")
        expect(event.locator(".entry-number")).to_have_text(f"entry {entry['id']}")
    assert [entry["user_id"] for entry in entries] == [
        "maria",
        "tom",
        "tom",
        "maria",
        "tom",
        "maria",
    ]
    assert len({entry["request_id"] for entry in entries}) == len(entries)

    what, books = "What changed", "Book-keeping columns"
    restored, deleted, refused, second, first, created = (
        maria.event(number) for number in range(6)
    )
    assert table(restored, what) == {"is_deleted": ("yes", "no")}
    assert table(deleted, what) == {"is_deleted": ("no", "yes")}
    assert table(deleted, books)["deleted_by"] == ("empty", "tom")
    expect(refused.locator("h3")).to_have_text(
        re.compile(r"Tom Lindqvist\s+tried to change\s+this lead")
    )
    expect(refused.locator(".refusal")).to_contain_text(
        'duplicate key value violates unique constraint "leads_email_key"'
    )
    expect(refused.locator(".refusal")).to_contain_text(
        "Key (lower(email::text))=(info@globex.example) already exists."
    )
    expect(refused.locator(".refusal code")).to_have_text("23505")
    assert table(refused, "What was tried") == {
        "email": ("duet@browser.example", "Info@Globex.example")
    }
    assert table(second, what) == {"company_name": ("Duet Records Ltd.", "Duet GmbH")}
    assert table(first, what) == {
        "company_name": ("Duet Records", "Duet Records Ltd."),
        "enrichment_status": ("PENDING", "COMPLETED")
    }  # fmt: skip
    assert table(first, books)["updated_by"] == ("maria", "tom")
    assert table(created, what) == {
        "company_name": (None, "Duet Records"), "email": (None, "duet@browser.example"),
        "enrichment_status": (None, "PENDING"), "is_manual": (None, "no"),
        "is_deleted": (None, "no"),
    }  # fmt: skip
    expect(maria.page.locator("#verification")).to_contain_text(
        f"All {len(kinds)} entries of this lead are as they were written."
    )
    assert maria.complaints == tom.complaints == []


def test_deleting_what_someone_else_has_just_changed(browser: Browser, server: str) -> None:
    maria = visit(browser, server, "Maria Okafor", "203.0.113.7")
    maria.page.goto("/leads/new")
    maria.page.get_by_label("Company name").fill("Stale")
    maria.page.get_by_role("button", name="Create lead").click()
    tom = visit(browser, server, "Tom Lindqvist", "198.51.100.23")
    tom.page.goto(f"{maria.page.url}/edit")
    tom.page.get_by_label("Source").fill("fair")
    tom.page.get_by_role("button", name="Save").click()
    maria.page.get_by_role("button", name="Delete").click()
    expect(maria.page.get_by_role("status")).to_contain_text("Nothing of yours was saved.")
    assert maria.kinds() == ["edited", "created"]


def test_an_import(browser: Browser, server: str) -> None:
    aisha = visit(browser, server, "Aisha Rahman", "2001:db8::42")
    aisha.page.get_by_role("link", name="Import CSV").click()
    for content, told in (
        (b"email\nnot an address\n", "Line 2, email: is not an e-mail address"),
        (b"company_name,email\nAlpha,a@csv.example\n", None),
    ):
        aisha.page.get_by_label("File").set_input_files(
            {"name": "leads.csv", "mimeType": "text/csv", "buffer": content}
        )
        aisha.page.get_by_role("button", name="Import").click()
        if told:
            expect(aisha.page.get_by_role("alert")).to_contain_text(told)
    expect(aisha.page.get_by_role("status")).to_have_text("1 lead was imported.")
    aisha.page.get_by_role("link", name="Alpha").click()
    assert origin(aisha.event(0))["Address"] == "2001:db8::42"


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_pages_fit_and_can_be_used_by_everybody(
    browser: Browser, server: str, database: Database, viewport: Any
) -> None:
    """Each page fits the screen's width, and has a heading, a language and named controls."""
    visitor = visit(browser, server, "Aisha Rahman", "203.0.113.42", viewport)
    page = visitor.page
    page.goto("/leads/new")
    page.get_by_label("Company name").fill("W" * 200)
    page.get_by_role("button", name="Create lead").click()
    lead = page.url
    for entry in database.entries(lead.rsplit("/", 1)[1]):
        database.tamper(entry["id"])  # the page of a lead with a tampered entry is the longest
    for address in (
        "/",
        lead,
        f"{lead}/edit",
        "/leads/new",
        "/leads/import",
        "/refused",
        "/login",
        "/leads/nobody",
    ):
        page.goto(address)
        for summary in page.locator("summary").all():
            summary.click()
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= viewport["width"], address
        assert page.locator("html").get_attribute("lang") == "en"
        assert page.locator("h1").count() == 1, address
        nameless = page.locator("button, a, input:not([type=hidden]), select").evaluate_all(
            "all => all.filter(e => !(e.labels?.length || e.innerText.trim() || e.ariaLabel))"
            ".map(e => e.outerHTML)"
        )
        assert nameless == [], address
    assert visitor.complaints == []
