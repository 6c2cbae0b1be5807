"""A small Django project on the table leads: a model, views, urls."""

from __future__ import annotations

from typing import Any, AsyncIterator, Iterator

from django.contrib.auth import authenticate, login
from django.db import models, transaction
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path


class Lead(models.Model):
    id = models.CharField(primary_key=True, max_length=36)
    email = models.CharField(max_length=255, null=True)
    is_deleted = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    is_manual = models.BooleanField(default=False)
    enrichment_status = models.CharField(max_length=20, default="PENDING")

    class Meta:
        app_label = "auth"
        managed = False
        db_table = "leads"


def create(request: HttpRequest, id: str) -> HttpResponse:
    Lead.objects.create(id=id)
    return HttpResponse()


async def create_async(request: HttpRequest, id: str) -> HttpResponse:
    await Lead.objects.acreate(id=id)
    return HttpResponse()


@transaction.atomic
def create_atomic(request: HttpRequest, id: str) -> HttpResponse:
    lead = Lead.objects.create(id=id)
    try:
        with transaction.atomic():
            lead.email = "lost@example.com"
            lead.save()
            raise ValueError
    except ValueError:
        pass
    Lead.objects.filter(id=id).update(email="kept@example.com")
    return HttpResponse()


def log_in(request: HttpRequest, id: str) -> HttpResponse:
    login(request, authenticate(request, username="alice", password="secret"))  # type: ignore[arg-type]
    Lead.objects.create(id=id)
    return HttpResponse()


def stream(request: HttpRequest, id: str) -> StreamingHttpResponse:
    def pieces() -> Iterator[str]:
        for i in range(2):
            Lead.objects.create(id=f"{id}-{i}")
            yield "."

    return StreamingHttpResponse(pieces())


async def stream_async(request: HttpRequest, id: str) -> StreamingHttpResponse:
    async def pieces() -> AsyncIterator[str]:
        for i in range(2):
            await Lead.objects.acreate(id=f"{id}-{i}")
            yield "."

    return StreamingHttpResponse(pieces())


VIEWS: dict[str, Any] = {
    "create": create,
    "create_async": create_async,
    "create_atomic": create_atomic,
    "log_in": log_in,
    "stream": stream,
    "stream_async": stream_async,
}
urlpatterns = [path(f"{name}/<id>", view) for name, view in VIEWS.items()]
