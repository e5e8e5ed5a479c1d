"""A venue's REST interface as a refill uses it: paced, bounded in time and size, one answer or one kind of failure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from ipaddress import ip_address
from typing import Final

import httpx

from connectors.pacing import LONGEST_WAIT_S, Pacer, asked_seconds
from connectors.venues.feeding import Limit, RestRules
from market.errors import SourceDisconnected
from market.interval import SECOND

TIMEOUT_S: Final = 20.0
_CONNECT_S: Final = 5.0
_MAX_BODY: Final = 16 << 20

DRIVER_ERRORS: Final = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, httpx.CookieConflict, OSError)
"""Everything httpx raises, and what the socket below it may let through."""


class RestUnreachable(SourceDisconnected):
    """No answer, or none that could be read whole: asking again later may work."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response of any status. `retry_after`: the seconds it asks to wait, if it does."""

    status: int
    body: bytes
    retry_after: float | None = None


class RestClient:
    """GET requests to one venue. Connects when first used; `close` it.

    Args:
        base_url: scheme, host and perhaps a path; the paths asked for are appended.
        rules: the venue's pace.
        now_us: wall clock, epoch µs, for waits that are given as a date.
        timeout_s: for one whole request.
    """

    def __init__(self, base_url: str, rules: RestRules, *, now_us: Callable[[], int], timeout_s: float = TIMEOUT_S) -> None:
        self._base_url = base_url.rstrip("/")
        self._pacer = Pacer(Limit(max(1, rules.requests.count // rules.weight), rules.requests.seconds))
        self._turn = asyncio.Lock()
        self._now_us, self._timeout_s = now_us, timeout_s
        self._client: httpx.AsyncClient | None = None

    async def turn(self) -> None:
        """Wait until the pace allows a request, and count it."""
        async with self._turn:
            while (seconds := self._pacer.wait_seconds(asyncio.get_running_loop().time())) > 0:  # noqa: ASYNC110 - a clock is waited for
                await asyncio.sleep(seconds)
            self._pacer.take(asyncio.get_running_loop().time())

    async def get(self, path: str) -> Answer:
        """Return the answer for a path and query, whatever its status. Redirects are answers.

        Raises:
            RestUnreachable: no connection, no answer in time, or one of more than 16 MB.
        """
        url = f"{self._base_url}{path}"
        try:
            async with asyncio.timeout(self._timeout_s):
                client = await self._connected()
                async with client.stream("GET", url) as response:
                    body = bytearray()
                    async for piece in response.aiter_bytes():
                        body += piece
                        if len(body) > _MAX_BODY:
                            raise RestUnreachable(f"{url}: the answer has more than {_MAX_BODY >> 20} MB")
                    return Answer(response.status_code, bytes(body), self._retry_after(response.headers.get("Retry-After")))
        except TimeoutError as error:
            raise RestUnreachable(f"{url}: no answer within {self._timeout_s:g} s") from error
        except DRIVER_ERRORS as error:
            raise RestUnreachable(f"{url}: {type(error).__name__} {error}".rstrip()) from error

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _connected(self) -> httpx.AsyncClient:
        if self._client is None:
            # Reading the certificates of the system takes tens of ms: not on the loop.
            self._client = await asyncio.to_thread(_client, self._base_url)
        return self._client

    def _retry_after(self, value: str | None) -> float | None:
        if value is None:
            return None
        seconds = asked_seconds(value)
        return self._until(value) if seconds is None else seconds

    def _until(self, date: str) -> float | None:
        try:
            moment = parsedate_to_datetime(date)
            moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
            return min(max(moment.timestamp() - self._now_us() / SECOND, 0.0), LONGEST_WAIT_S)
        except (ValueError, OverflowError):
            return None


def _client(base_url: str) -> httpx.AsyncClient:
    timeout = httpx.Timeout(TIMEOUT_S, connect=_CONNECT_S)
    limits = httpx.Limits(max_connections=2, max_keepalive_connections=1)
    headers = {"Accept": "application/json", "User-Agent": "k2"}
    plain = base_url.startswith("http://")  # needs no certificates
    return httpx.AsyncClient(timeout=timeout, limits=limits, headers=headers, verify=not plain, trust_env=not _is_loopback(base_url))


def _is_loopback(base_url: str) -> bool:
    # A proxy of the environment is for the venues, not for a simulator on this machine.
    host = httpx.URL(base_url).host
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_busy(status: int) -> bool:
    """Return whether a status means that the whole venue is to be left alone for a while."""
    return status in (HTTPStatus.TOO_MANY_REQUESTS, 418, HTTPStatus.FORBIDDEN)


def is_refusal(status: int) -> bool:
    """Return whether asking the same again cannot help."""
    passing = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_EARLY)
    return HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR and not is_busy(status) and status not in passing
