"""The routes of the JSON interface.

The ETag of a lead is its version. A request that changes a lead must contain this ETag in the
header If-Match."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, HTTPException, Response, UploadFile
from fastapi.responses import PlainTextResponse

from leads_api.csv_file import MAX_BYTES, read_leads
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
from leads_api.schemas import Imported, LeadChanges, LeadDraft, LeadOut, LeadPage
from leads_api.trail import Event, Verification

router = APIRouter(prefix="/api", tags=["leads"])


def seen_version(if_match: Annotated[str | None, Header()] = None) -> str:
    if if_match is None:
        raise HTTPException(428, "Say with If-Match which version of the lead you saw (its ETag).")
    return if_match.strip().strip('"')


SeenVersion = Annotated[str, Depends(seen_version)]


def _with_etag(lead: Lead, response: Response) -> Lead:
    response.headers["ETag"] = f'"{lead.version}"'
    return lead


@router.get("/leads", response_model=LeadPage)
async def list_leads(leads: Leads, user: User, wanted: Wanted, page: PageNumber = 1) -> object:
    found = await leads.page(wanted, page)
    return {"total": found.total, "page": page, "pages": found.count, "leads": found.leads}


@router.post("/leads", response_model=LeadOut, status_code=201)
async def create_lead(draft: LeadDraft, leads: Leads, user: User, response: Response) -> Lead:
    lead = await leads.create(draft, user)
    response.headers["Location"] = f"/api/leads/{lead.id}"
    return _with_etag(lead, response)


@router.post("/leads/import", status_code=201)
async def import_leads(file: UploadFile, leads: Leads, user: User) -> Imported:
    ids = await leads.import_all(read_leads(await file.read(MAX_BYTES + 1)), user)
    return Imported(imported=len(ids), ids=ids)


@router.get("/leads/{lead_id}", response_model=LeadOut)
async def get_lead(lead_id: LeadId, leads: Leads, user: User, response: Response) -> Lead:
    return _with_etag(await leads.get(lead_id), response)


@router.patch("/leads/{lead_id}", response_model=LeadOut)
async def edit_lead(
    lead_id: LeadId,
    changes: LeadChanges,
    version: SeenVersion,
    leads: Leads,
    user: User,
    response: Response,
) -> Lead:
    return _with_etag(await leads.edit(lead_id, version, changes, user), response)


@router.delete("/leads/{lead_id}", response_model=LeadOut)
async def delete_lead(
    lead_id: LeadId, version: SeenVersion, leads: Leads, user: User, response: Response
) -> Lead:
    return _with_etag(await leads.delete(lead_id, version, user), response)


@router.post("/leads/{lead_id}/restore", response_model=LeadOut)
async def restore_lead(
    lead_id: LeadId, version: SeenVersion, leads: Leads, user: User, response: Response
) -> Lead:
    return _with_etag(await leads.restore(lead_id, version, user), response)


@router.get("/leads/{lead_id}/history", tags=["audit"])
async def history(
    lead_id: LeadId, trail: AuditTrail, user: User, before: Before = None
) -> list[Event]:
    return list((await trail.timeline(lead_id, before)).events)


@router.get("/leads/{lead_id}/verification", tags=["audit"])
async def verification(lead_id: LeadId, trail: AuditTrail, user: User) -> Verification:
    return await trail.verification(lead_id)


@router.get(
    "/leads/{lead_id}/history/{entry_id}/proof", tags=["audit"], response_class=PlainTextResponse
)
async def inclusion_proof(
    lead_id: LeadId, entry_id: EntryId, trail: AuditTrail, user: User
) -> Response:
    """Returns the inclusion proof of an entry in C2SP's format tlog-proof.

    Somebody who has the entry and the log's public key can check with the proof that the entry is
    in the log."""
    return proof_file(entry_id, await trail.inclusion_proof(lead_id, entry_id))
