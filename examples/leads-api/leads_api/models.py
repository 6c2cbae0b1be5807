"""The table `leads` (sql/schema.sql) for SQLAlchemy. The model contains no audit code."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import FetchedValue, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Lead(Base):
    __tablename__ = "leads"

    id: Mapped[str] = mapped_column(String, primary_key=True)
    email: Mapped[str | None] = mapped_column(String(255))
    domain: Mapped[str | None] = mapped_column(String(255))
    company_name: Mapped[str | None] = mapped_column(String(500))
    contact_name: Mapped[str | None] = mapped_column(String(255))
    enrichment_status: Mapped[str] = mapped_column(String(20), server_default=FetchedValue())
    enrichment_task_id: Mapped[str | None] = mapped_column(String(255))
    enrichment_error: Mapped[str | None] = mapped_column(Text)
    is_manual: Mapped[bool] = mapped_column(server_default=FetchedValue())
    source: Mapped[str | None] = mapped_column(String(100))
    is_deleted: Mapped[bool] = mapped_column(server_default=FetchedValue())
    created_at: Mapped[datetime] = mapped_column(server_default=FetchedValue())
    updated_at: Mapped[datetime] = mapped_column(server_default=FetchedValue())
    deleted_at: Mapped[datetime | None]
    created_by: Mapped[str | None] = mapped_column(String(255))
    updated_by: Mapped[str | None] = mapped_column(String(255))
    deleted_by: Mapped[str | None] = mapped_column(String(255))

    @property
    def version(self) -> str:
        """Returns the version of the lead, which the ETag of the lead contains.

        The version is `updated_at`. Every write changes `updated_at` (repository.py), so two states
        of a lead have different versions."""
        return self.updated_at.isoformat(timespec="microseconds")

    @property
    def title(self) -> str:
        return self.company_name or self.contact_name or self.email or self.id
