"""The application's errors as HTTP: JSON for the API, a page for a browser."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from leads_api.errors import BadFile, LeadError, NoSuchLead, Stale, Taken, WrongState
from leads_api.routes.common import LoginRequired
from leads_api.routes.pages import error_page
from leads_api.schemas import LeadOut

STATUS = {NoSuchLead: 404, Taken: 409, Stale: 412, WrongState: 409, BadFile: 422}


def add_failure_handlers(app: FastAPI) -> None:
    @app.exception_handler(LeadError)
    async def lead_error(request: Request, error: LeadError) -> Response:
        status = STATUS[type(error)]
        if not _wants_json(request):
            return error_page(request, status, str(error))
        body: dict[str, object] = {"detail": str(error)}
        match error:
            case Stale():
                body["current"] = LeadOut.model_validate(error.current).model_dump(mode="json")
            case Taken():
                body["column"] = error.column
            case BadFile():
                body["problems"] = error.problems
        return JSONResponse(body, status)

    @app.exception_handler(LoginRequired)
    async def login_required(request: Request, error: LoginRequired) -> Response:
        if _wants_json(request):
            return JSONResponse({"detail": error.detail}, error.status_code)
        return RedirectResponse("/login", 303)


def _wants_json(request: Request) -> bool:
    return request.url.path.startswith("/api/")
