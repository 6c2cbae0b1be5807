"""Reads and writes the leads in the database, without audit code. Each method is a transaction."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, DateTime, func, insert, or_, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from leads_api.errors import NoSuchLead, Stale, Taken, WrongState
from leads_api.models import Lead
from leads_api.schemas import LeadChanges, LeadDraft

PAGE_SIZE = 20

# An SQL expression for the next version of a lead. The next version is higher than the current
# version, even if somebody sets the clock back.
_NEXT_VERSION = func.greatest(
    func.timezone("UTC", func.statement_timestamp(), type_=DateTime),
    Lead.updated_at + text("interval '1 microsecond'"),
)
_UNIQUE_COLUMNS = {"leads_pkey": "id", "leads_email_key": "email"}


@dataclass(frozen=True)
class LeadFilter:
    search: str = ""
    status: str = ""
    source: str = ""
    deleted: bool = False


@dataclass(frozen=True)
class Page:
    leads: Sequence[Lead]
    total: int
    number: int

    @property
    def count(self) -> int:
        return max(1, -(-self.total // PAGE_SIZE))


class LeadRepository:
    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions

    async def page(self, wanted: LeadFilter, number: int = 1) -> Page:
        conditions: list[ColumnElement[bool]] = [Lead.is_deleted == wanted.deleted]
        if wanted.search:
            columns = (Lead.company_name, Lead.contact_name, Lead.email, Lead.domain)
            conditions.append(
                or_(*(column.icontains(wanted.search, autoescape=True) for column in columns))
            )
        if wanted.status:
            conditions.append(Lead.enrichment_status == wanted.status)
        if wanted.source:
            conditions.append(Lead.source == wanted.source)
        async with self._sessions() as session:
            total = (
                await session.scalar(select(func.count()).select_from(Lead).where(*conditions)) or 0
            )
            newest_first = select(Lead).where(*conditions).order_by(Lead.updated_at.desc(), Lead.id)
            leads = await session.scalars(
                newest_first.limit(PAGE_SIZE).offset((number - 1) * PAGE_SIZE)
            )
            return Page(leads.all(), total, number)

    async def sources(self) -> Sequence[str]:
        async with self._sessions() as session:
            found = await session.scalars(
                select(Lead.source).where(Lead.source.is_not(None)).distinct().order_by(Lead.source)
            )
            return [source for source in found if source]

    async def get(self, lead_id: str) -> Lead:
        async with self._sessions() as session:
            return await self._get(session, lead_id)

    async def find(self, lead_id: str) -> Lead | None:
        async with self._sessions() as session:
            return await session.get(Lead, lead_id)

    async def create(self, draft: LeadDraft, by: str) -> Lead:
        try:
            async with self._sessions.begin() as session:
                return (
                    await session.scalars(insert(Lead).returning(Lead), [_row(draft, by)])
                ).one()
        except IntegrityError as error:
            raise _taken(error) from error

    async def import_all(self, drafts: Sequence[LeadDraft], by: str) -> list[str]:
        """Inserts all drafts or none. Each statement inserts up to a thousand drafts."""
        try:
            async with self._sessions.begin() as session:
                return list(
                    await session.scalars(
                        insert(Lead).returning(Lead.id), [_row(draft, by) for draft in drafts]
                    )
                )
        except IntegrityError as error:
            raise _taken(error) from error

    async def edit(self, lead_id: str, version: str, changes: LeadChanges, by: str) -> Lead:
        return await self._change(
            lead_id, version, by, False, changes.model_dump(mode="json", exclude_unset=True)
        )

    async def delete(self, lead_id: str, version: str, by: str) -> Lead:
        gone = {"is_deleted": True, "deleted_at": _NEXT_VERSION, "deleted_by": by}
        return await self._change(lead_id, version, by, False, gone)

    async def restore(self, lead_id: str, version: str, by: str) -> Lead:
        back = {"is_deleted": False, "deleted_at": None, "deleted_by": None}
        return await self._change(lead_id, version, by, True, back)

    async def _change(
        self, lead_id: str, version: str, by: str, while_deleted: bool, values: dict[str, Any]
    ) -> Lead:
        """Changes the lead in one statement if the lead still has the version that the user saw."""
        seen = func.to_char(Lead.updated_at, 'YYYY-MM-DD"T"HH24:MI:SS.US') == version
        statement = (
            update(Lead)
            .where(Lead.id == lead_id, seen, Lead.is_deleted == while_deleted)
            .values(**values, updated_at=_NEXT_VERSION, updated_by=by)
            .returning(Lead)
            .execution_options(synchronize_session=False)
        )
        try:
            async with self._sessions.begin() as session:
                if lead := (await session.scalars(statement)).one_or_none():
                    return lead
                current = await self._get(session, lead_id)
        except IntegrityError as error:
            raise _taken(error) from error
        if current.version != version:
            raise Stale(current)
        raise WrongState(
            "This lead is not deleted."
            if while_deleted
            else "This lead is deleted. Restore it first."
        )

    @staticmethod
    async def _get(session: AsyncSession, lead_id: str) -> Lead:
        if lead := await session.get(Lead, lead_id):
            return lead
        raise NoSuchLead(lead_id)


def _row(draft: LeadDraft, by: str) -> dict[str, Any]:
    return {
        **draft.model_dump(mode="json"),
        "id": draft.id or uuid.uuid4().hex,
        "created_by": by,
        "updated_by": by,
    }


def _taken(error: IntegrityError) -> Exception:
    diagnostics = error.orig.diag  # type: ignore[union-attr]
    column = _UNIQUE_COLUMNS.get(diagnostics.constraint_name or "")
    return Taken(column, diagnostics.message_detail) if column else error
