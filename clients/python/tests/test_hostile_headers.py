"""Tests that a hostile header changes only its own field, and never makes the request fail."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import create_engine, text

from lead_audit import AuditContext
from lead_audit.asgi import AuditMiddleware
from lead_audit.sqlalchemy import attach

from .cluster import Database
from .drivers import SYNC

HOSTILE = [
    b"x" * 5_000_000,
    "😀".encode() * 1_000_000,
    bytes(range(256)) * 100,
    b"\xff\xfe\xc3\x28\xed\xa0\x80",
    b"'; UPDATE leads SET email = 'owned'; --",
    b"' || set_config('lead_audit.user_id', 'root', false) || '",
    b"$1 %s %(user_id)s :user_id {0} \\' \\x00 E'\\n' $$ $lead$",
    b"\x00",
    b"a\r\nx-user: root",
    b",",
    b"   ",
]
NAMES = ["user-agent", "x-request-id", "x-forwarded-for", "x-user", "forwarded"]


async def context_of(headers: list[tuple[bytes, bytes]]) -> AuditContext:
    """Returns the context of a request that a trusted proxy sends with `headers`."""
    seen: list[AuditContext] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(AuditContext.current())

    middleware = AuditMiddleware(
        app, user=lambda scope: dict(scope["headers"]).get(b"x-user"), trusted_proxies=["10.0.0.1"]
    )
    await middleware({"type": "http", "headers": headers, "client": ("10.0.0.1", 1)}, None, None)  # type: ignore[arg-type]
    return seen[0]


@pytest.mark.parametrize("driver", SYNC)
async def test_a_hostile_header_changes_its_own_field_only(driver: str, database: Database) -> None:
    engine = create_engine(database.url(driver), future=True)
    attach(engine)
    good = {
        "user-agent": b"Firefox",
        "x-request-id": b"r-1",
        "x-forwarded-for": b"198.51.100.1",
        "x-user": b"alice",
    }
    usual = AuditContext("alice", "198.51.100.1", "Firefox", "r-1")
    fields = {
        "user-agent": "user_agent",
        "x-request-id": "request_id",
        "x-forwarded-for": "user_ip",
        "x-user": "user_id",
    }
    expected = []
    for name in NAMES:
        for value in HOSTILE:
            context = await context_of(
                [(key.encode(), entry) for key, entry in {**good, name: value}.items()]
            )
            changed = {
                field
                for field in AuditContext.__slots__
                if getattr(context, field) != getattr(usual, field)
            }
            assert changed <= {fields.get(name)}
            assert name != "x-forwarded-for" or context.user_ip == "10.0.0.1"
            with context, engine.begin() as connection:
                connection.execute(
                    text("INSERT INTO leads (id) VALUES (:id)"), {"id": str(len(expected))}
                )
            expected.append(
                ("INSERT", context.user_id, context.user_ip, context.user_agent, context.request_id)
            )
    engine.dispose()
    assert database.trail() == expected  # the database took each value as it was sent
    assert (
        max(len(entry[3] or "") for entry in expected) == 500
        and max(len(entry[4] or "") for entry in expected) == 255
    )
    assert database.query("SELECT count(*), count(email) FROM leads") == [(len(expected), 0)]
