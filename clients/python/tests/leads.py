"""The table `leads` as an ORM class that works with SQLAlchemy 1.4 and 2."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Boolean, Column, String
from sqlalchemy.orm import declarative_base

Base: Any = declarative_base()


class Lead(Base):
    __tablename__ = "leads"

    id = Column(String, primary_key=True)
    email = Column(String(255))
    company_name = Column(String(500))
    source = Column(String(100))
    is_deleted = Column(Boolean, nullable=False, default=False)
