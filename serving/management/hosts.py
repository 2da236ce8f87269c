"""Protects a server on this machine's own address from pages that a browser on this machine shows.

The name of a page's site can be made to lead to 127.0.0.1 (DNS rebinding): the browser then takes this server for the
site. It still says the name in ``Host``, so names that are not local are refused.
"""

from ipaddress import ip_address
from urllib.parse import urlsplit

from litestar.types import ASGIApp, Receive, Scope, Send

from serving.api.problems import ForeignHost


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a server that listens at a host."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def local_only(app: ASGIApp) -> ASGIApp:
    """Return the same application for requests whose ``Host`` is a local name or an address.

    Raises:
        ForeignHost: the request names another host.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
            if not all(_is_local(host) for host in hosts):
                raise ForeignHost(
                    f"expected Host to be localhost or an address, got {', '.join(hosts)}; behind a proxy have it send "
                    "one of these, or listen on another address than this machine's own (--admin-host)"
                )
        await app(scope, receive, send)

    return answer


def _is_local(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost" or name.endswith(".localhost"):
            return True
        ip_address(name)
    except ValueError:
        return False
    return True
