"""Dependencies that the routes for JSON and for HTML share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, HTTPException, Path, Query, Request
from fastapi.responses import PlainTextResponse

from leads_api.repository import LeadFilter, LeadRepository
from leads_api.trail import Trail
from leads_api.users import current_user


class LoginRequired(HTTPException):
    def __init__(self) -> None:
        super().__init__(401, "Choose a user first: POST /login with the form field user.")


def _repository(request: Request) -> LeadRepository:
    leads: LeadRepository = request.app.state.leads
    return leads


def _trail(request: Request) -> Trail:
    trail: Trail = request.app.state.trail
    return trail


def _user(request: Request) -> str:
    user = current_user(request)
    if user is None:
        raise LoginRequired
    return user


# The type of a search text without NUL. PostgreSQL cannot store NUL in a text.
Text = Annotated[str, Query(max_length=500, pattern=r"^[^\x00]*$")]
LeadId = Annotated[str, Path(max_length=500, pattern=r"^[^\x00]+$")]
EntryId = Annotated[int, Path(ge=0, lt=2**63)]
Before = Annotated[int | None, Query(ge=0, lt=2**63)]
PageNumber = Annotated[int, Query(ge=1, le=100_000)]


def proof_file(entry_id: int, proof: str) -> PlainTextResponse:
    """Returns the inclusion proof of an entry as a file for download."""
    return PlainTextResponse(
        proof,
        headers={"Content-Disposition": f'attachment; filename="entry-{entry_id}.tlog-proof"'},
    )


def _filter(
    search: Text = "", status: Text = "", source: Text = "", deleted: bool = False
) -> LeadFilter:
    return LeadFilter(search.strip(), status, source, deleted)


Leads = Annotated[LeadRepository, Depends(_repository)]
AuditTrail = Annotated[Trail, Depends(_trail)]
User = Annotated[str, Depends(_user)]
Wanted = Annotated[LeadFilter, Depends(_filter)]
