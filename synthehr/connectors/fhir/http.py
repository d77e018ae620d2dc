"""Requests to a FHIR server: tried again when the server is busy or the line breaks, and never telling a token."""

from __future__ import annotations

import email.utils
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from synthehr.connectors.fhir.authorization import Authorization, Nobody
from synthehr.errors import ConfigError, DataError

__all__ = ["Answer", "Client", "origin_of"]

_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_TRIES = 6
_LONGEST_WAIT = 300.0
_TIMEOUT = 60.0
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, EOFError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the server said: status, headers, and the body unless it went into a file."""

    status: int
    headers: Message
    body: bytes = b""

    def wait(self, default: float) -> float:
        """Seconds to wait by ``Retry-After`` (a number or a date), at most five minutes."""
        text = (self.headers.get("Retry-After") or "").strip()
        seconds = default
        if text.isdigit():
            seconds = float(text)
        elif text:
            try:
                seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
            except (TypeError, ValueError):
                seconds = default
        return min(max(seconds, 0.0), _LONGEST_WAIT)


class _SameOrigin(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but takes no token to another server, and never from https to http."""

    def redirect_request(  # noqa: PLR0917 - urllib's signature
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        """The request to go on with."""
        onward = super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
        if onward is None or origin_of(onward.full_url) == origin_of(req.full_url):
            return onward
        if not onward.full_url.startswith("https://"):
            fp.close()
            raise DataError("the FHIR server redirects to an address that is not https: that is not followed")
        onward.remove_header("Authorization")
        return onward


class Client:
    """Asks one server, and whatever it leads to.

    Args:
        base: address of the server; https, or http on this machine alone.
        sleep: waits; a test gives its own.
    """

    def __init__(self, base: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        parts = urlsplit(base)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError("a FHIR server is given as fhir+https://server/base")
        if parts.username or parts.password:
            raise ConfigError("a FHIR server's address must hold no password: set SYNTHEHR_FHIR_TOKEN")
        here = parts.hostname in _LOOPBACK
        if parts.scheme == "http" and not here:
            raise ConfigError("a FHIR server is asked over https alone, but on this machine: use fhir+https://")
        self.origin = origin_of(base)
        self.authorization: Authorization = Nobody()
        self._sleep = sleep
        direct = [urllib.request.ProxyHandler({})] if here else []
        self._opener = urllib.request.build_opener(_SameOrigin, *direct)

    def get(
        self,
        url: str,
        *,
        what: str,
        headers: Mapping[str, str] | None = None,
        into: Path | None = None,
        known: bool = True,
        accept: frozenset[int] = frozenset(),
    ) -> Answer:
        """Fetch an address, patiently.

        Args:
            url: the address.
            what: names it in messages; addresses may hold what must not be shown.
            headers: beside Accept and Authorization.
            into: file for the body.
            known: send the token; only ever to the server itself.
            accept: statuses to give back beside those of success.

        Raises:
            DataError: it leads to another server than asked, or fails for good.
        """
        if known and origin_of(url) != self.origin:
            raise DataError(f"{what}: the FHIR server leads to another server, which gets no token: it is not followed")
        return self._patiently(url, None, what=what, headers=headers or {}, into=into, known=known, accept=accept)

    def post(self, url: str, form: bytes, *, what: str) -> bytes:
        """Send a form, without token, and give the answer's body."""
        if not url.startswith("https://") and urlsplit(url).hostname not in _LOOPBACK:
            raise ConfigError(f"{what}: must be an https address")
        kind = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        return self._patiently(url, form, what=what, headers=kind, into=None, known=False, accept=frozenset()).body

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self._sleep(seconds)

    def _patiently(
        self,
        url: str,
        data: bytes | None,
        *,
        what: str,
        headers: Mapping[str, str],
        into: Path | None,
        known: bool,
        accept: frozenset[int],
    ) -> Answer:
        renewed = False
        for attempt in range(1, _TRIES + 1):
            pause = min(0.5 * 2.0 ** (attempt - 1), 30.0)
            try:
                answer = self._once(url, data, headers=headers, into=into, known=known)
            except _BROKEN:
                if attempt == _TRIES:
                    raise DataError(f"{what}: the connection to the FHIR server breaks: try again later") from None
                self._sleep(pause)
                continue
            if answer.status < 300 or answer.status in accept:
                return answer
            if answer.status == 401 and known and not renewed and self.authorization.refuse():
                renewed = True
                continue
            if answer.status not in _AGAIN or attempt == _TRIES:
                raise DataError(f"{what}: the FHIR server answers {answer.status}{_hint(answer.status)}")
            self._sleep(answer.wait(pause))
        raise AssertionError("the last attempt returns or raises")

    def _once(
        self, url: str, data: bytes | None, *, headers: Mapping[str, str], into: Path | None, known: bool
    ) -> Answer:
        request = urllib.request.Request(url, data=data, headers={"Accept": "application/fhir+json", **headers})  # noqa: S310 - http and https alone, by the constructor
        token = self.authorization.header() if known else None
        if token is not None:
            request.add_unredirected_header("Authorization", token)
        try:
            with self._opener.open(request, timeout=_TIMEOUT) as response:
                return _taken(response, into)
        except urllib.error.HTTPError as error:
            with error:
                return Answer(status=error.code, headers=error.headers)


def origin_of(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of an address."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname or "", port


def _taken(response: Any, into: Path | None) -> Answer:
    """The answer; a body that ends before it should is a broken connection."""
    if into is None:
        return Answer(status=response.status, headers=response.headers, body=response.read())
    with into.open("wb") as out:
        while block := response.read(1 << 20):
            out.write(block)
    length = response.headers.get("Content-Length")
    if length is not None and length.isdigit() and into.stat().st_size != int(length):
        raise ConnectionError
    return Answer(status=response.status, headers=response.headers)


def _hint(status: int) -> str:
    hints = {
        401: ": set SYNTHEHR_FHIR_TOKEN, or the variables of a SMART backend service",
        403: ": the token does not allow this: ask for a wider scope",
        404: ": it has no such thing: check the address",
    }
    return hints.get(status, ": try again later" if status >= 500 or status == 429 else "")
