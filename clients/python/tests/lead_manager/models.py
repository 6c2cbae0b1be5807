from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import Boolean, Column, DateTime, String, func
from sqlalchemy.orm import declarative_base

Base: Any = declarative_base()


class User(Base):
    __tablename__ = "users"

    name = Column(String, primary_key=True)


class Lead(Base):
    __tablename__ = "leads"

    id = Column(String, primary_key=True, default=lambda: uuid.uuid4().hex)
    email = Column(String(255), unique=True)
    company = Column(String(500))
    status = Column(String(20), nullable=False, default="NEW")
    is_deleted = Column(Boolean, nullable=False, default=False)
    updated_at = Column(DateTime, server_default=func.now(), onupdate=func.now())
