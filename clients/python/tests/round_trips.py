"""Relays messages between a client and the server, and counts the client's round trips.

Each Query, each Sync, and each Flush that does not follow a Sync counts as a round trip. (psycopg
sends a Flush right after a Sync, and this Flush requests nothing.) The server sends its answers
only after one of these messages, so a client never waits for an answer before it has sent one of
these messages.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from .cluster import Database

QUERY, SYNC, FLUSH = b"Q", b"S", b"H"


class Counter:
    """A directory with a socket whose connections are relayed to the server until close()."""

    def __init__(self, server: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="lead_audit-", dir="/tmp"))
        self.round_trips = 0
        self._server = f"{server}/.s.PGSQL.5432"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.directory / ".s.PGSQL.5432"))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def database(self, database: Database) -> Database:
        """Returns the database `database`, reached through the counter."""
        return Database(str(self.directory), database.name, database.user)

    @contextmanager
    def expect(self, round_trips: int) -> Iterator[None]:
        """Asserts that the statements in the block take `round_trips` round trips."""
        before = self.round_trips
        yield
        taken = self.round_trips - before
        assert taken == round_trips, f"{taken} round trips instead of {round_trips}"

    def close(self) -> None:
        self._listener.close()
        shutil.rmtree(self.directory)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # close() has closed the socket
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._server)
            threading.Thread(
                target=self._pass_on_counting, args=(client, server), daemon=True
            ).start()
            threading.Thread(target=_pass_on, args=(server, client), daemon=True).start()

    def _pass_on_counting(self, client: socket.socket, server: socket.socket) -> None:
        """Counts messages before relaying them, so the count is complete when an answer arrives."""
        unread, started, asked = b"", False, True
        while data := _receive(client):
            unread += data
            while True:
                head = (
                    1 if started else 0
                )  # the first message, which starts the session, has no type byte
                if len(unread) < head + 4:
                    break
                length = head + int.from_bytes(unread[head : head + 4], "big")
                if len(unread) < length:
                    break
                message = unread[:1]
                asks = started and (message in (QUERY, SYNC) or message == FLUSH and not asked)
                self.round_trips += asks
                asked = asks or (asked and message == FLUSH)
                unread, started = unread[length:], True
            server.sendall(data)
        _shut(server)


def _receive(source: socket.socket) -> bytes:
    try:
        return source.recv(1 << 16)
    except OSError:
        return b""


def _shut(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    while data := _receive(source):
        try:
            target.sendall(data)
        except OSError:
            return
    _shut(target)
