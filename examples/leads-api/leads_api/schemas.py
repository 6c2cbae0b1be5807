"""Validates leads. The same rules apply to JSON, to forms and to lines of a CSV file."""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


class EnrichmentStatus(StrEnum):
    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


def _tidy(value: object) -> object:
    """Removes blanks at both ends of a text. If nothing is left, returns None."""
    return (value.strip() or None) if isinstance(value, str) else value


def _printable(value: str | None) -> str | None:
    if value is not None and not value.isprintable():
        raise ValueError("must be one line of text without control characters")
    return value


def _email(value: str | None) -> str | None:
    # The check finds typing errors, but not whether the e-mail address exists.
    if value is not None and not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s.]+", value):
        raise ValueError("is not an e-mail address")
    return value


def _text(limit: int) -> object:
    return Annotated[
        str | None, Field(max_length=limit), BeforeValidator(_tidy), AfterValidator(_printable)
    ]


class LeadChanges(BaseModel):
    """An edit of a lead, which changes only the given fields."""

    model_config = ConfigDict(extra="forbid")

    email: Annotated[_text(255), AfterValidator(_email)] = None  # type: ignore[valid-type]
    domain: _text(255) = None  # type: ignore[valid-type]
    company_name: _text(500) = None  # type: ignore[valid-type]
    contact_name: _text(255) = None  # type: ignore[valid-type]
    enrichment_status: EnrichmentStatus = EnrichmentStatus.PENDING
    is_manual: bool = False
    source: _text(100) = None  # type: ignore[valid-type]


class LeadDraft(LeadChanges):
    """A new lead. A line of a CSV file can contain an id. A lead without an id gets a new id."""

    id: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = None


class LeadOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str
    email: str | None
    domain: str | None
    company_name: str | None
    contact_name: str | None
    enrichment_status: str
    is_manual: bool
    source: str | None
    is_deleted: bool
    created_at: datetime
    created_by: str | None
    updated_at: datetime
    updated_by: str | None
    deleted_at: datetime | None
    deleted_by: str | None
    version: str


class LeadPage(BaseModel):
    total: int
    page: int
    pages: int
    leads: list[LeadOut]


class Imported(BaseModel):
    imported: int
    ids: list[str]
