from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any, AsyncIterator, Iterator

from fastapi import BackgroundTasks, Body, Depends, FastAPI, Header, HTTPException
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session, sessionmaker

from .models import Lead, User
from .repository import Duplicate, LeadRepository


def shown(lead: Lead) -> dict[str, Any]:
    return {
        name: getattr(lead, name) for name in ("id", "email", "company", "status", "is_deleted")
    }


def create_application(engine: Engine, audit: Any, factory: Any = None) -> FastAPI:
    """Makes the FastAPI application.

    audit: the module own_audit or the module with_lead_audit. factory: the session factory.
    """
    make_session = factory or sessionmaker(engine, future=True)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with make_session() as session:  # this session writes without a user
            session.merge(Lead(id="welcome", email="welcome@example.com"))
            session.commit()
        yield

    app = FastAPI(lifespan=lifespan)
    audit.install(app, engine)

    def get_session() -> Iterator[Session]:
        with make_session() as session:
            yield session

    def current_user(x_user: str = Header(), session: Session = Depends(get_session)) -> str:
        """Reads the user from the database. So a transaction begins before the user is known."""
        if session.get(User, x_user) is None:
            raise HTTPException(401)
        audit.identify(x_user)
        return x_user

    def repository(
        session: Session = Depends(get_session), user: str = Depends(current_user)
    ) -> LeadRepository:
        return LeadRepository(session)

    def enrich(id: str) -> None:
        with make_session() as session:
            LeadRepository(session).update(id, status="ENRICHED")

    @app.exception_handler(Duplicate)
    async def duplicate(request: Any, error: Any) -> Any:
        from fastapi.responses import JSONResponse

        return JSONResponse({"detail": "there is a lead with this address"}, 409)

    @app.get("/leads")
    def list_leads(leads: LeadRepository = Depends(repository)) -> Any:
        return [shown(lead) for lead in leads.list()]

    @app.post("/leads", status_code=201)
    def create(leads: LeadRepository = Depends(repository), values: dict[str, Any] = Body()) -> Any:
        return shown(leads.create(**values))

    @app.put("/leads/{id}")
    async def update(
        id: str, leads: LeadRepository = Depends(repository), values: dict[str, Any] = Body()
    ) -> Any:
        """Updates a lead: an async endpoint that uses a sync session."""
        lead = leads.update(id, **values)
        if lead is None:
            raise HTTPException(404)
        return shown(lead)

    @app.post("/leads/{id}/enrich", status_code=202)
    def start_enriching(id: str, tasks: BackgroundTasks, user: str = Depends(current_user)) -> None:
        tasks.add_task(enrich, id)

    @app.delete("/leads/{id}", status_code=204)
    def delete(id: str, leads: LeadRepository = Depends(repository)) -> None:
        if not leads.delete(id):
            raise HTTPException(404)

    @app.post("/leads/{id}/restore", status_code=204)
    def restore(id: str, leads: LeadRepository = Depends(repository)) -> None:
        if not leads.restore(id):
            raise HTTPException(404)

    @app.post("/purge")
    def purge(leads: LeadRepository = Depends(repository)) -> int:
        return leads.purge()

    @app.post("/import/{how}")
    def import_leads(
        how: str, leads: LeadRepository = Depends(repository), rows: list[dict[str, Any]] = Body()
    ) -> Any:
        if how == "copy":
            audit.before_raw(leads.session)
        return {"all": leads.import_all, "each": leads.import_each, "copy": leads.copy}[how](rows)

    @app.get("/leads/{id}/trail")
    def trail(id: str, leads: LeadRepository = Depends(repository)) -> Any:
        return audit.trail(leads.session, id)

    return app
