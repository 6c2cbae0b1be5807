"""Audit code that is typical of applications: listeners on mapper events, and an audit table.

In this code, each request has its own context, so that the comparison with lead_audit is fair. Many
applications have only one context for the whole process.
"""

from __future__ import annotations

import hashlib
import json
from contextvars import ContextVar
from typing import Any

from fastapi import FastAPI
from sqlalchemy import Column, Integer, String, Text, event, insert, inspect
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session

from .models import Base, Lead

_request: ContextVar[dict[str, Any]] = ContextVar("request", default={})  # noqa: B039 (one of the faults of such code)


class AuditLog(Base):
    __tablename__ = "audit_log"

    id = Column(Integer, primary_key=True)
    lead_id = Column(String, nullable=False)
    action = Column(String, nullable=False)
    user_id = Column(String)
    user_ip = Column(String)
    user_agent = Column(String)
    old_values = Column(Text)
    new_values = Column(Text)
    checksum = Column(String, nullable=False)


class Middleware:
    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            _request.set(
                {
                    "user_ip": scope["client"][0],
                    "user_agent": headers.get(b"user-agent", b"").decode(),
                }
            )
        await self.app(scope, receive, send)


def install(app: FastAPI, engine: Engine) -> None:
    app.add_middleware(Middleware)
    for name in _LISTENERS:
        if not event.contains(Lead, name, _LISTENERS[name]):
            event.listen(Lead, name, _LISTENERS[name])


def remove() -> None:
    for name in _LISTENERS:
        event.remove(Lead, name, _LISTENERS[name])


def identify(user: str) -> None:
    _request.get()["user_id"] = user


def before_raw(session: Session) -> None:
    pass


def trail(session: Session, id: str) -> list[tuple[Any, ...]]:
    logs = session.query(AuditLog).filter(AuditLog.lead_id == id).order_by(AuditLog.id)
    return [(log.action, log.user_id, log.user_ip, log.user_agent) for log in logs]


def _values(lead: Lead) -> dict[str, Any]:
    return {column.key: str(getattr(lead, column.key)) for column in Lead.__table__.columns}


def _log(connection: Any, lead: Lead, action: str, old: Any, new: Any) -> None:
    values = {
        "lead_id": lead.id,
        "action": action,
        "old_values": json.dumps(old),
        "new_values": json.dumps(new),
    }
    checksum = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    connection.execute(insert(AuditLog), {**values, **_request.get(), "checksum": checksum})


def _inserted(mapper: Any, connection: Any, lead: Lead) -> None:
    _log(connection, lead, "INSERT", None, _values(lead))


def _updated(mapper: Any, connection: Any, lead: Lead) -> None:
    changed = {
        a.key: str(a.history.deleted[0])
        for a in inspect(lead).attrs
        if a.history.has_changes() and a.history.deleted
    }
    if changed:
        _log(connection, lead, "UPDATE", changed, _values(lead))


def _deleted(mapper: Any, connection: Any, lead: Lead) -> None:
    _log(connection, lead, "DELETE", _values(lead), None)


_LISTENERS = {"after_insert": _inserted, "after_update": _updated, "after_delete": _deleted}
