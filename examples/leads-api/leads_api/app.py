"""Builds the application. Comments with "for lead_audit" mark the lines that lead_audit needs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from starlette.middleware.sessions import SessionMiddleware

from lead_audit.sqlalchemy import attach
from lead_audit.starlette import AuditMiddleware
from leads_api.failures import add_failure_handlers
from leads_api.repository import LeadRepository
from leads_api.routes import api, pages
from leads_api.settings import Settings
from leads_api.trail import Trail
from leads_api.users import current_user
from leads_api.web_security import SameOrigin


def create_app(settings: Settings) -> FastAPI:
    writer = create_async_engine(
        settings.database_url, connect_args={"application_name": "leads-api"}
    )
    auditor = create_async_engine(
        settings.auditor_url, connect_args={"application_name": "leads-api"}, pool_size=2
    )
    attach(writer)  # for lead_audit: gives each transaction its context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await writer.dispose()
        await auditor.dispose()

    app = FastAPI(
        title="Leads", lifespan=lifespan, docs_url=None, redoc_url=None
    )  # the pages of FastAPI's documentation load scripts from other sites
    app.state.leads = LeadRepository(
        async_sessionmaker(writer, class_=AsyncSession, expire_on_commit=False)
    )
    app.state.trail = Trail(auditor)
    # For lead_audit: gives each request its user, address, user agent and id. The session
    # middleware must run before AuditMiddleware, because `current_user` reads the session. So the
    # session middleware is added after AuditMiddleware, because Starlette first runs the middleware
    # that was added last.
    app.add_middleware(AuditMiddleware, user=current_user, trusted_proxies=settings.trusted_proxies)
    app.add_middleware(
        SessionMiddleware, secret_key=settings.secret, session_cookie="leads", same_site="lax"
    )
    app.add_middleware(SameOrigin)
    app.include_router(api.router)
    app.include_router(pages.router)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))
    add_failure_handlers(app)
    return app
