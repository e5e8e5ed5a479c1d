"""The little HTTP that a venue's REST interface needs: requests without a body, answers with one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

MOST_HEAD_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request. Names of headers are lower case; of a repeated query parameter the last counts."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]

    @property
    def is_upgrade(self) -> bool:
        """Whether it asks for a WebSocket."""
        return self.headers.get("upgrade", "").lower() == "websocket"

    @property
    def keeps_alive(self) -> bool:
        """Whether the connection stays open for another request."""
        return self.headers.get("connection", "").lower() != "close"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. `delay`: seconds before it is sent."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    kind: str = "application/json"
    delay: float = 0.0


def json_reply(document: Any, status: int = 200, **headers: str) -> Reply:
    """Return an answer with a compact JSON body; header names are given with underscores."""
    body = json.dumps(document, separators=(",", ":")).encode()
    return Reply(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


def parse_request(head: bytes) -> Request | None:
    """Return the request of a head (up to its empty line), or None if it is none."""
    first, *rest = head.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        return None
    target = urlsplit(parts[1])
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    return Request(parts[0], unquote(target.path), dict(parse_qsl(target.query, keep_blank_values=True)), headers)


def rendered(reply: Reply, *, keep_alive: bool) -> bytes:
    """Return an answer as bytes."""
    try:
        phrase = HTTPStatus(reply.status).phrase
    except ValueError:
        phrase = "Unknown"
    headers = {"Content-Type": reply.kind, "Content-Length": str(len(reply.body)), **reply.headers}
    headers["Connection"] = "keep-alive" if keep_alive else "close"
    lines = [f"HTTP/1.1 {reply.status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + reply.body
