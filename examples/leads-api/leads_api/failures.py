"""Turns errors into HTTP responses: JSON for the API, and a page for a browser."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response

from leads_api.errors import (
    BadFile,
    LeadError,
    NoSuchEntry,
    NoSuchLead,
    NotSealed,
    Stale,
    Taken,
    WrongState,
)
from leads_api.routes.common import LoginRequired
from leads_api.routes.pages import error_page
from leads_api.schemas import LeadOut

STATUS = {
    NoSuchLead: 404,
    NoSuchEntry: 404,
    NotSealed: 409,
    Taken: 409,
    Stale: 412,
    WrongState: 409,
    BadFile: 422,
}


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

    # Replaces FastAPI's own response, which would repeat the body of the request. The body can
    # contain bytes that are not text.
    @app.exception_handler(RequestValidationError)
    async def wrong_request(request: Request, error: RequestValidationError) -> Response:
        problems = [
            {"loc": problem["loc"], "msg": problem["msg"].removeprefix("Value error, ")}
            for problem in error.errors()
        ]
        if not _wants_json(request):
            return error_page(request, 422, "This address or form is not one of ours.")
        return JSONResponse({"detail": problems}, 422)

    @app.exception_handler(LoginRequired)
    async def login_required(request: Request, error: LoginRequired) -> Response:
        if _wants_json(request):
            return JSONResponse({"detail": error.detail}, error.status_code)
        return RedirectResponse("/login", 303)


def _wants_json(request: Request) -> bool:
    return request.url.path.startswith("/api/")
