"""Who may ask the local page for what. Pure: from a request's few facts to a refusal or none.

Three doors are closed. A foreign web page that makes its own name point to 127.0.0.1 (DNS rebinding) arrives with that
name in Host. A foreign page that posts to us (CSRF) has another Origin, and the cookie does not travel with it
(SameSite=Strict). Another user of this machine does not know the token, which lies in a file of this user alone.
"""

import hmac
from collections.abc import Collection, Mapping
from typing import NamedTuple

COOKIE = "kinoswarm_page"
MARK = "x-kinoswarm"
"""A header that a form of another site can't send without asking us first, which we never allow."""


class Refusal(NamedTuple):
    """An HTTP status and a sentence for whoever sees it."""

    status: int
    sentence: str


class Asked(NamedTuple):
    """What the guard looks at. Header names are lower case."""

    method: str
    headers: Mapping[str, str]
    cookies: Mapping[str, str]


class Guard:
    """Knows the page's own names and its token."""

    def __init__(self, token: str, hosts: Collection[str], scheme: str) -> None:
        """`hosts` are the values of Host, port included, under which the page may be asked."""
        self._token = token
        self._hosts = frozenset(hosts)
        self._origins = frozenset(f"{scheme}://{host}" for host in hosts)

    def knows(self, token: str) -> bool:
        """Whether `token` is the page's; takes equally long for any wrong one."""
        return hmac.compare_digest(token.encode("utf-8", "replace"), self._token.encode())

    def refusal_of_host(self, headers: Mapping[str, str]) -> Refusal | None:
        """Whether the request came to this page by one of its own names."""
        host = headers.get("host", "")
        if host in self._hosts:
            return None
        return Refusal(421, "this page answers only under its own address; run `kinoswarm page`")

    def refusal(self, asked: Asked) -> Refusal | None:
        """Why a request for anything but the way in is refused."""
        wrong_host = self.refusal_of_host(asked.headers)
        if wrong_host is not None:
            return wrong_host
        if not self.knows(asked.cookies.get(COOKIE, "")):
            return Refusal(401, "open the address that `kinoswarm page` prints")
        if asked.method in ("GET", "HEAD"):
            return None
        if asked.headers.get("origin", "") not in self._origins or MARK not in asked.headers:
            return Refusal(403, "changes are taken from this page alone")
        return None
