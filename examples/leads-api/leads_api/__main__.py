"""Serves the application on 127.0.0.1: `python -m leads_api [PORT]`.

The default port is 8000. If another program uses port 8000, the default is a free port. When the
application accepts connections, the program prints one line with the application's URL."""

from __future__ import annotations

import contextlib
import socket
import sys

import uvicorn

from leads_api.app import create_app
from leads_api.settings import Settings


def listen(port: int | None) -> socket.socket:
    for candidate in (port,) if port else (8000, 0):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", candidate))
            listener.listen(128)
            return listener
        listener.close()
    sys.exit(f"error: port {port} is taken")


def main() -> None:
    listener = listen(int(sys.argv[1]) if len(sys.argv) > 1 else None)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/", flush=True)
    # uvicorn must not take the client's address from a header. AuditMiddleware takes the address
    # from the header, but only if a proxy in LEADS_TRUSTED_PROXIES has sent the request.
    config = uvicorn.Config(
        create_app(Settings.from_environment()), proxy_headers=False, server_header=False
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
