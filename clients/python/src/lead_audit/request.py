"""Makes the context of a request, for all web frameworks."""

from __future__ import annotations

import uuid
from typing import Callable, Iterable, Optional

from . import sanitize
from .client_address import X_FORWARDED_FOR, TrustedProxies
from .context import AuditContext

REQUEST_ID_HEADER = "x-request-id"


class RequestReader:
    """Makes the context of a request from its headers and its connection.

    request_id_header: the name of the header that contains the request's id. If request_id_header
    is None, or if the request lacks this header, the request gets a new id.
    """

    def __init__(
        self,
        trusted_proxies: Iterable[str] = (),
        proxy_header: str = X_FORWARDED_FOR,
        request_id_header: Optional[str] = REQUEST_ID_HEADER,
    ) -> None:
        self._proxies = TrustedProxies(trusted_proxies, proxy_header)
        self._request_id_header = request_id_header.lower() if request_id_header else None

    def read(self, peer: Optional[str], header: Callable[[str], list[bytes]]) -> AuditContext:
        """Returns the context of one request.

        peer: the address from which the connection comes, or None for a Unix socket. header: a
        function that returns the values of a header. Its argument is the header's name in lower
        case.
        """
        given = header(self._request_id_header) if self._request_id_header else []
        agent = header("user-agent")
        return AuditContext(
            user_ip=self._proxies.client_address(peer, header(self._proxies.header)),
            user_agent=agent[0] if agent else None,
            request_id=(sanitize.text(given[0], sanitize.REQUEST_ID_LENGTH) if given else None)
            or uuid.uuid4().hex,
        )
