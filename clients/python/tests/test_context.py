"""Tests of AuditContext and its functions, without a database."""

from __future__ import annotations

import asyncio
import ipaddress
import pickle
import threading
import uuid
from typing import Iterator

import pytest

from lead_audit import AuditContext, audit_context, detached, identify, request_context

EMPTY = AuditContext()


def user() -> object:
    return AuditContext.current().user_id


def test_blocks_nest_and_end() -> None:
    with AuditContext("a", request_id="r"):
        with audit_context(user_id="b"):
            assert AuditContext.current() == AuditContext("b", request_id="r")
            with AuditContext(user_ip="192.0.2.1"):
                assert AuditContext.current() == AuditContext(user_ip="192.0.2.1")
            with pytest.raises(ValueError), audit_context(request_id=None):
                assert AuditContext.current() == AuditContext("b")
                raise ValueError
            assert user() == "b"
        assert user() == "a"
        same = AuditContext.current()
        with same, same:
            assert user() == "a"
        assert user() == "a"
    assert AuditContext.current() == EMPTY and not EMPTY


def test_set_and_clear_last_until_the_block_ends() -> None:
    with AuditContext("a"):
        AuditContext.set(AuditContext("b"))
        AuditContext.set(AuditContext("c"))
        assert user() == "c"
        AuditContext.clear()
        assert AuditContext.current() == EMPTY
    assert AuditContext.current() == EMPTY
    AuditContext.set(AuditContext("d"))
    with AuditContext("e"):
        pass
    assert user() == "d"


def test_set_over_and_over_needs_no_memory() -> None:
    from lead_audit.context import _scope

    with request_context(EMPTY):
        for number in range(100):
            AuditContext.set(AuditContext(number))
        depth, scope = 0, _scope.get()
        while scope.around is not None:
            depth, scope = depth + 1, scope.around
        assert depth <= 3
    assert AuditContext.current() == EMPTY
    identify("a")
    assert user() == "a"  # after the request, identify() sets the context of the thread


async def test_tasks_inherit_and_do_not_leak() -> None:
    async def child(name: str) -> None:
        assert user() == "parent"
        AuditContext.set(AuditContext(name))
        await asyncio.sleep(0)
        with audit_context(request_id=name):
            await asyncio.sleep(0)
            assert AuditContext.current() == AuditContext(name, request_id=name)
        assert user() == name

    with AuditContext("parent"):
        await asyncio.gather(*(child(f"child-{i}") for i in range(50)))
        assert user() == "parent"


def test_threads_begin_empty() -> None:
    seen: list[object] = []

    def work() -> None:
        seen.append(AuditContext.current())
        AuditContext.set(AuditContext("thread"))

    with AuditContext("a"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert seen == [EMPTY] and user() == "a"


async def test_identify_reaches_the_whole_request_and_no_other() -> None:
    async def request(name: str) -> None:
        with request_context(AuditContext(request_id=name)):
            await asyncio.to_thread(identify, name)
            await asyncio.sleep(0)
            assert AuditContext.current() == AuditContext(name, request_id=name)
            with audit_context(user_id="system"):
                identify(user_agent="Firefox")
                # The block overrides only the field user_id, which it got as an argument.
                assert AuditContext.current() == AuditContext(
                    "system", user_agent="Firefox", request_id=name
                )
            assert AuditContext.current() == AuditContext(
                name, user_agent="Firefox", request_id=name
            )
        assert AuditContext.current() == EMPTY

    await asyncio.gather(*(request(f"r-{i}") for i in range(50)))
    identify("alone")
    assert user() == "alone"


def test_a_request_in_a_generator_that_another_context_closes() -> None:
    def work() -> Iterator[None]:
        with request_context(AuditContext("a")):
            yield

    import contextvars

    generator = work()
    contextvars.copy_context().run(next, generator)
    generator.close()
    assert AuditContext.current() == EMPTY


def test_values_are_made_to_fit() -> None:
    key = uuid.uuid4()
    assert AuditContext(key).user_id == str(key)
    assert AuditContext(17).user_id == "17"
    assert AuditContext(0).user_id == "0"
    assert AuditContext("  ").user_id is None
    assert AuditContext("x" * 300).user_id == "x" * 255
    assert AuditContext(request_id="é" * 300).request_id == "é" * 255
    assert AuditContext(user_agent=b"\xff" * 3 + "é".encode()).user_agent == "\ufffd" * 3 + "é"
    assert AuditContext(user_agent="😀".encode() * 10**6).user_agent == "😀" * 500
    assert (
        AuditContext("a\0\r\n\x1b[31m\x85\ud800b").user_id
        == "a\ufffd\ufffd\ufffd\ufffd[31m\ufffd\ufffdb"
    )


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("192.0.2.1", "192.0.2.1"),
        (" 2001:DB8::0:1 ", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        (ipaddress.ip_address("192.0.2.1"), "192.0.2.1"),
        ("testclient", None),
        ("192.0.2.1:80", None),
        ("192.0.2.0/24", None),
        ("1" * 10**6, None),
        ("127.1", None),
        (7, None),
        ("", None),
    ],
)
def test_addresses(given: object, kept: object) -> None:
    assert AuditContext(user_ip=given).user_ip == kept


def test_contexts_do_not_change() -> None:
    context = AuditContext("a", "192.0.2.1", "Firefox", "r")
    with pytest.raises(AttributeError, match="replace"):
        context.user_id = "b"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del context.user_id
    assert pickle.loads(pickle.dumps(context)) == context and hash(context) == hash(
        AuditContext(*context.settings())
    )
    assert repr(AuditContext("a")) == "AuditContext(user_id='a')"


def test_identify_in_a_block_that_was_not_given_a_user() -> None:
    with request_context(AuditContext(request_id="r-1")), audit_context(request_id="r-2"):
        identify("anna")
        assert AuditContext.current() == AuditContext("anna", request_id="r-2")
        with audit_context(user_ip="192.0.2.1"), audit_context(user_agent="Firefox"):
            identify("berta", request_id="r-3")
            assert AuditContext.current() == AuditContext("berta", "192.0.2.1", "Firefox", "r-2")
        with AuditContext(request_id="r-4"):  # this block sets all fields
            identify("carla")
            assert AuditContext.current() == AuditContext(request_id="r-4")
        assert user() == "carla"
    with audit_context(request_id="r-5"):  # this block is outside of a request
        identify("dora")
        assert AuditContext.current() == AuditContext("dora", request_id="r-5")
    assert AuditContext.current() == EMPTY


async def test_a_task_that_outlives_its_request() -> None:
    from lead_audit.context import outlived

    async def work() -> tuple[object, bool, bool]:
        assert not outlived()
        await over.wait()
        found = user(), outlived()
        with audit_context(request_id="r-2"):
            assert outlived() is found[1]
        with audit_context(user_id="system"):
            assert not outlived() and user() == "system"
        identify("worker")
        return (*found, outlived())

    over = asyncio.Event()
    with request_context(AuditContext("anna")):
        task = asyncio.ensure_future(work())
        await asyncio.sleep(0)
        with detached():
            assert AuditContext.current() == EMPTY and not outlived()
            identify("nobody of the request's")
            AuditContext.set(AuditContext("set"))
            identify("again")
            assert user() == "again"
            worker = asyncio.ensure_future(work())
        assert user() == "anna"
    over.set()
    assert await task == ("anna", True, False) and await worker == ("again", False, False)
    assert AuditContext.current() == EMPTY


class _Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")


def test_what_is_no_user(caplog: pytest.LogCaptureFixture) -> None:
    with request_context(EMPTY):
        identify("anna")
        identify(_Hostile())
        assert user() is None and "_Hostile cannot be made a text" in caplog.text
        identify(False)
        assert user() is None
        identify(True)
        assert user() is None
        identify(0)
        assert user() == "0"
    assert AuditContext("a\u202eb\u2066c\u061cd\u200ee").user_id == "a\ufffdb\ufffdc\ufffdd\ufffde"
