from __future__ import annotations

import csv
import io
from typing import Any, Iterable, Optional

from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from .models import Lead


class Duplicate(Exception):
    pass


class LeadRepository:
    def __init__(self, session: Session) -> None:
        self.session = session

    def get(self, id: str, deleted: bool = False) -> Optional[Lead]:
        return self.session.query(Lead).filter(Lead.id == id, Lead.is_deleted.is_(deleted)).first()

    def list(self) -> list[Lead]:
        return (
            self.session.query(Lead).filter(Lead.is_deleted.is_(False)).order_by(Lead.email).all()
        )

    def create(self, **values: Any) -> Lead:
        lead = Lead(**values)
        self.session.add(lead)
        self._commit()
        self.session.refresh(lead)
        return lead

    def update(self, id: str, **values: Any) -> Optional[Lead]:
        lead = self.get(id)
        if lead is not None:
            for name, value in values.items():
                setattr(lead, name, value)
            self._commit()
        return lead

    def delete(self, id: str) -> bool:
        return self.update(id, is_deleted=True) is not None

    def restore(self, id: str) -> bool:
        lead = self.get(id, deleted=True)
        if lead is None:
            return False
        lead.is_deleted = False
        self._commit()
        return True

    def purge(self) -> int:
        """Runs a bulk DELETE, for which SQLAlchemy calls no listener of mapper events."""
        count = (
            self.session.query(Lead)
            .filter(Lead.is_deleted.is_(True))
            .delete(synchronize_session=False)
        )
        self._commit()
        return count

    def import_all(self, rows: Iterable[dict[str, Any]]) -> None:
        """Inserts many rows in one statement of SQLAlchemy Core."""
        self.session.execute(insert(Lead), list(rows))
        self._commit()

    def import_each(self, rows: Iterable[dict[str, Any]]) -> list[str]:
        """Inserts each row in its own savepoint. Returns the addresses that already exist."""
        taken = []
        for row in rows:
            try:
                with self.session.begin_nested():
                    self.session.add(Lead(**row))
                    self.session.flush()
            except IntegrityError:
                taken.append(row["email"])
        self._commit()
        return taken

    def copy(self, rows: Iterable[dict[str, Any]]) -> None:
        """Inserts rows with the driver's COPY, which bypasses SQLAlchemy."""
        text = io.StringIO()
        csv.writer(text).writerows([row["id"], row["email"]] for row in rows)
        raw: Any = self.session.connection().connection.dbapi_connection
        command = "COPY leads (id, email, status, is_deleted) FROM STDIN (FORMAT csv)"
        lines = "".join(f"{line},NEW,false\n" for line in text.getvalue().splitlines())
        with raw.cursor() as cursor:
            if hasattr(cursor, "copy_expert"):  # the driver is psycopg2
                cursor.copy_expert(command, io.StringIO(lines))
            else:
                with cursor.copy(command) as copy:
                    copy.write(lines)
        self._commit()

    def _commit(self) -> None:
        try:
            self.session.commit()
        except IntegrityError:
            self.session.rollback()
            raise Duplicate from None
