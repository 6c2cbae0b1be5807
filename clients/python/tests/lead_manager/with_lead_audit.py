"""Replaces own_audit.py: it has the same interface, but uses lead_audit."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session

import lead_audit.trail
from lead_audit import identify
from lead_audit.sqlalchemy import apply_context, attach
from lead_audit.starlette import AuditMiddleware

from .models import Lead

__all__ = ["before_raw", "identify", "install", "trail"]


def install(app: FastAPI, engine: Engine) -> None:
    attach(engine)
    app.add_middleware(AuditMiddleware)


before_raw = apply_context


def trail(session: Session, id: str) -> list[tuple[Any, ...]]:
    history = lead_audit.trail.history(session, Lead, id)
    return [
        (entry.operation, entry.user_id, entry.user_ip, entry.user_agent)
        for entry in history
        if entry.outcome == "ok"
    ]
