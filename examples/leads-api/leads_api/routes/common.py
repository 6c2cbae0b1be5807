"""What both kinds of routes depend on."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, HTTPException, Request

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


def _filter(search: str = "", status: str = "", source: str = "", deleted: bool = False) -> LeadFilter:
    return LeadFilter(search.strip(), status, source, deleted)


Leads = Annotated[LeadRepository, Depends(_repository)]
AuditTrail = Annotated[Trail, Depends(_trail)]
User = Annotated[str, Depends(_user)]
Wanted = Annotated[LeadFilter, Depends(_filter)]
