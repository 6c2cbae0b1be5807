"""The routes of the HTML pages. The server renders the pages, which work without JavaScript."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Request, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.templating import Jinja2Templates
from pydantic import BaseModel, ValidationError

from leads_api import csv_file
from leads_api.csv_file import MAX_BYTES, read_leads
from leads_api.errors import BadFile, NoSuchLead, Stale, Taken, WrongState
from leads_api.models import Lead
from leads_api.routes.common import (
    AuditTrail,
    Before,
    EntryId,
    LeadId,
    Leads,
    PageNumber,
    User,
    Wanted,
    proof_file,
)
from leads_api.schemas import EnrichmentStatus, LeadChanges, LeadDraft
from leads_api.trail import COLUMNS
from leads_api.users import USERS, current_user

router = APIRouter(include_in_schema=False)
FIELDS = tuple(LeadChanges.model_fields)
Model = TypeVar("Model", bound=BaseModel)


def _shared(request: Request) -> dict[str, Any]:
    user = current_user(request)
    return {
        "user": user,
        "user_name": USERS.get(user or ""),
        "notice": request.session.pop("notice", None),
    }


templates = Jinja2Templates(
    Path(__file__).parent.parent / "templates", context_processors=[_shared]
)
templates.env.trim_blocks = templates.env.lstrip_blocks = True
templates.env.globals |= {
    "lead_columns": COLUMNS,
    "statuses": [status.value for status in EnrichmentStatus],
    "name_of": lambda user: USERS.get(user, user),
    "label_of": lambda column: {"id": "ID", "is_manual": "Entered by hand", "email": "E-mail"}.get(
        column, column.removeprefix("is_").replace("_", " ").capitalize()
    ),
}
templates.env.filters["when"] = lambda time: _utc(time).strftime("%-d %b %Y, %H:%M:%S UTC")
templates.env.filters["iso"] = lambda time: _utc(time).isoformat()


def _utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _page(request: Request, template: str, status: int = 200, **context: object) -> HTMLResponse:
    return templates.TemplateResponse(request, template, context, status_code=status)


def error_page(request: Request, status: int, message: str) -> Response:
    return _page(request, "error.html", status, message=message)


def _to_lead(request: Request, lead: Lead, notice: str) -> RedirectResponse:
    request.session["notice"] = notice
    return RedirectResponse(f"/leads/{lead.id}", 303)


# ---- the substitute for a login -----------------------------------------------------------------


@router.get("/login")
async def choose_user(request: Request) -> Response:
    return _page(request, "login.html", users=USERS)


@router.post("/login")
async def log_in(request: Request, user: Annotated[str, Form()]) -> Response:
    if user not in USERS:
        return _page(request, "login.html", 422, users=USERS)
    request.session["user"] = user
    return RedirectResponse("/", 303)


@router.post("/logout")
async def log_out(request: Request) -> Response:
    request.session.clear()
    return RedirectResponse("/login", 303)


# ---- lists --------------------------------------------------------------------------------------


@router.get("/")
async def list_leads(
    request: Request, leads: Leads, user: User, wanted: Wanted, page: PageNumber = 1
) -> Response:
    def link(number: int) -> str:
        filters = {
            "search": wanted.search,
            "status": wanted.status,
            "source": wanted.source,
            "deleted": wanted.deleted or "",
        }
        return "?" + urlencode(
            {name: value for name, value in {**filters, "page": number}.items() if value}
        )

    found = await leads.page(wanted, page)
    return _page(
        request, "leads.html", found=found, wanted=wanted, sources=await leads.sources(), link=link
    )


@router.get("/refused")
async def refused(request: Request, trail: AuditTrail, user: User) -> Response:
    return _page(request, "refused.html", events=await trail.refused(50))


# ---- one lead and its history ------------------------------------------------------------


@router.get("/leads/new")
async def new_lead(request: Request, user: User) -> Response:
    return _page(
        request, "form.html", lead=None, values={"enrichment_status": "PENDING"}, problems={}
    )


@router.post("/leads/new")
async def create_lead(request: Request, leads: Leads, user: User) -> Response:
    values = await _form(request)
    try:
        lead = await leads.create(_checked(LeadDraft, values), user)
    except (ValidationError, Taken) as error:
        return _page(request, "form.html", 422, lead=None, values=values, problems=_problems(error))
    return _to_lead(request, lead, "The lead was created.")


@router.get("/leads/import")
async def choose_file(request: Request, user: User) -> Response:
    return _page(request, "import.html", columns=csv_file.COLUMNS, problems=[])


@router.post("/leads/import")
async def import_leads(request: Request, leads: Leads, user: User, file: UploadFile) -> Response:
    try:
        ids = await leads.import_all(read_leads(await file.read(MAX_BYTES + 1)), user)
    except BadFile as error:
        return _page(request, "import.html", 422, columns=csv_file.COLUMNS, problems=error.problems)
    except Taken as error:
        return _page(
            request,
            "import.html",
            409,
            columns=csv_file.COLUMNS,
            problems=[f"{error} {error.detail or ''}"],
        )
    request.session["notice"] = (
        "1 lead was imported." if len(ids) == 1 else f"{len(ids)} leads were imported."
    )
    return RedirectResponse("/", 303)


@router.get("/leads/{lead_id}")
async def show_lead(
    request: Request,
    lead_id: LeadId,
    leads: Leads,
    trail: AuditTrail,
    user: User,
    before: Before = None,
) -> Response:
    lead = await leads.find(lead_id)
    timeline = await trail.timeline(lead_id, before)
    if lead is None and not timeline.events:
        raise NoSuchLead(lead_id)
    # The page shows the history, because a lead that was deleted from the table still has a
    # history.
    return _page(
        request,
        "lead.html",
        lead=lead,
        id=lead_id,
        timeline=timeline,
        verification=await trail.verification(lead_id),
    )


@router.get("/leads/{lead_id}/history/{entry_id}/proof")
async def inclusion_proof(
    lead_id: LeadId, entry_id: EntryId, trail: AuditTrail, user: User
) -> Response:
    return proof_file(entry_id, await trail.inclusion_proof(lead_id, entry_id))


@router.get("/leads/{lead_id}/edit")
async def open_lead(request: Request, lead_id: LeadId, leads: Leads, user: User) -> Response:
    lead = await leads.get(lead_id)
    return _page(
        request,
        "form.html",
        lead=lead,
        values={name: getattr(lead, name) for name in FIELDS},
        problems={},
    )


@router.post("/leads/{lead_id}/edit")
async def edit_lead(request: Request, lead_id: LeadId, leads: Leads, user: User) -> Response:
    values = await _form(request)
    version = values.pop("version", "")
    try:
        lead = await leads.edit(lead_id, version, _checked(LeadChanges, values), user)
    except Stale as error:
        # The form keeps the user's input and shows the stored values beside it, so that the user
        # can save again.
        differences = _differences(error.current, values)
        return _page(
            request,
            "form.html",
            409,
            lead=error.current,
            values=values,
            problems={},
            conflict=error,
            conflict_rows=differences,
        )
    except (ValidationError, Taken, WrongState) as error:
        lead = await leads.get(lead_id)
        return _page(
            request,
            "form.html",
            422,
            lead=lead,
            version=version,
            values=values,
            problems=_problems(error),
        )
    return _to_lead(request, lead, "The lead was saved.")


@router.post("/leads/{lead_id}/delete")
async def delete_lead(
    request: Request, lead_id: LeadId, leads: Leads, user: User, version: Annotated[str, Form()]
) -> Response:
    try:
        return _to_lead(
            request,
            await leads.delete(lead_id, version, user),
            "The lead was deleted. It can be restored.",
        )
    except (Stale, WrongState) as error:
        return _to_lead(request, await leads.get(lead_id), str(error))


@router.post("/leads/{lead_id}/restore")
async def restore_lead(
    request: Request, lead_id: LeadId, leads: Leads, user: User, version: Annotated[str, Form()]
) -> Response:
    try:
        return _to_lead(
            request, await leads.restore(lead_id, version, user), "The lead was restored."
        )
    except (Stale, WrongState, Taken) as error:
        return _to_lead(request, await leads.get(lead_id), str(error))


async def _form(request: Request) -> dict[str, Any]:
    return {name: value for name, value in (await request.form()).items() if isinstance(value, str)}


def _checked(model: type[Model], values: dict[str, Any]) -> Model:
    """Validates a form. Adds False for an unchecked checkbox, because the browser sends only
    checked ones."""
    return model.model_validate({"is_manual": False} | values)


def _differences(stored: Lead, values: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    typed = _checked(LeadChanges, values)
    fields = [(name, getattr(stored, name), getattr(typed, name)) for name in FIELDS]
    return [field for field in fields if field[1] != field[2]]


def _problems(error: ValidationError | Taken | WrongState) -> dict[str, str]:
    """Returns {field: error message}. The field "" stands for the whole form."""
    match error:
        case ValidationError():
            return {
                str(e["loc"][0]): e["msg"].removeprefix("Value error, ")
                for e in error.errors()
                if e["loc"]
            }
        case Taken():
            return {error.column if error.column in FIELDS else "": str(error)}
        case WrongState():
            return {"": str(error)}
