"""A small Django project with views, urls, and a model of the table `leads`."""

from __future__ import annotations

from typing import Any, AsyncIterator, Iterator

from django.contrib.auth import authenticate, login, logout
from django.db import models, transaction
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

from lead_audit import identify


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


def stream_identified(request: HttpRequest, id: str) -> StreamingHttpResponse:
    """Calls identify() within the generator that makes the response."""

    def pieces() -> Iterator[str]:
        identify("streamer")
        for i in range(3):
            Lead.objects.create(id=f"{id}-{i}")
            yield "."

    return StreamingHttpResponse(pieces())


async def stream_identified_async(request: HttpRequest, id: str) -> StreamingHttpResponse:
    async def pieces() -> AsyncIterator[str]:
        identify("streamer")
        for i in range(3):
            await Lead.objects.acreate(id=f"{id}-{i}")
            yield "."

    return StreamingHttpResponse(pieces())


def count_and_create(request: HttpRequest, id: str) -> HttpResponse:
    Lead.objects.count()
    Lead.objects.create(id=id)
    Lead.objects.filter(id=id).update(email="x@example.com")
    return HttpResponse()


def identified(request: HttpRequest, id: str) -> HttpResponse:
    identify("by the view")
    Lead.objects.create(id=id)
    return HttpResponse()


def log_out(request: HttpRequest, id: str) -> HttpResponse:
    Lead.objects.create(id=f"{id}-before")
    logout(request)
    Lead.objects.create(id=f"{id}-after")
    return HttpResponse()


def rest(request: HttpRequest, id: str) -> HttpResponse:
    """A view of Django REST framework, which authenticates the user within the view."""
    from django.contrib.auth.models import User
    from rest_framework.authentication import BaseAuthentication
    from rest_framework.renderers import JSONRenderer
    from rest_framework.response import Response
    from rest_framework.views import APIView

    class ByHeader(BaseAuthentication):
        def authenticate(self, request: Any) -> Any:
            Lead.objects.create(id=f"{id}-before")
            return User.objects.get(username=request.headers["x-user"]), None

    class View(APIView):
        authentication_classes = [ByHeader]
        renderer_classes = [JSONRenderer]

        def get(self, request: Any, id: str) -> Any:
            Lead.objects.create(id=f"{id}-after")
            return Response({})

    response: HttpResponse = View.as_view()(request, id=id)
    return response


VIEWS: dict[str, Any] = {
    "create": create,
    "create_async": create_async,
    "create_atomic": create_atomic,
    "log_in": log_in,
    "stream": stream,
    "stream_async": stream_async,
    "stream_identified": stream_identified,
    "stream_identified_async": stream_identified_async,
    "count_and_create": count_and_create,
    "identified": identified,
    "log_out": log_out,
    "rest": rest,
}
urlpatterns = [path(f"{name}/<id>", view) for name, view in VIEWS.items()]
