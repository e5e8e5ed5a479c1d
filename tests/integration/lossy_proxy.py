"""An HTTP proxy on loopback that loses or delays chosen requests and answers."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from enum import Enum


class Fate(Enum):
    PASS = "pass"
    LOSE_REQUEST = "lose the request"
    LOSE_ANSWER = "lose the answer"
    DELAY_REQUEST = "cut the client off, deliver the request when released"
    STALL = "deliver half of the request, and the rest when released"


class LossyProxy:
    """Speaks HTTP/1.1 with Content-Length bodies. `decide` sees the statement of each request."""

    def __init__(self, url: str, decide: Callable[[str], Fate]) -> None:
        parts = urllib.parse.urlsplit(url)
        self.server = (parts.hostname or "", parts.port or 0)
        self.decide = decide
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.release = threading.Event()  # delayed requests go on
        self.delivered: list[bytes] = []  # first lines of the answers to delayed requests
        self.threads: list[threading.Thread] = []
        self.start(self.accept)

    def start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                self.start(self.serve, client)

    def serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(self.server) as server:
            reader, answers = client.makefile("rb"), server.makefile("rb")
            with reader, answers:
                while (request := read_message(reader)) is not None:
                    head, body = request.split(b"\r\n\r\n", 1)  # the statement is in the address, or it is the body
                    statement = urllib.parse.unquote_plus(head.split(b"\r\n", 1)[0].decode()) + body[:500].decode(errors="replace")
                    fate = self.decide(statement)
                    if fate is Fate.LOSE_REQUEST:
                        return
                    if fate is Fate.DELAY_REQUEST:
                        self.start(self.deliver_later, request)
                        return
                    if fate is Fate.STALL:
                        server.sendall(request[: -len(request) // 3])
                        self.release.wait(60)
                        request = request[-len(request) // 3 :]
                    server.sendall(request)
                    answer = read_message(answers)
                    if fate is Fate.LOSE_ANSWER or answer is None:
                        return
                    client.sendall(answer)

    def deliver_later(self, request: bytes) -> None:
        self.release.wait(30)
        with socket.create_connection(self.server) as server, server.makefile("rb") as answers:
            server.sendall(request)
            self.delivered.append((read_message(answers) or b"").split(b"\r\n", 1)[0])

    def close(self) -> None:
        self.release.set()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def read_message(stream: object) -> bytes | None:
    """Return one whole request or answer; None at the end."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline()  # type: ignore[attr-defined]
        if not line:
            return None
        head += line
    if re.search(rb"(?i)transfer-encoding: *chunked", head):
        body = b""
        while True:
            size = stream.readline()  # type: ignore[attr-defined]
            body += size + stream.read(int(size, 16) + 2)  # type: ignore[attr-defined]
            if int(size, 16) == 0:
                return head + body
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    return head + (stream.read(int(length[1])) if length else b"")  # type: ignore[attr-defined]


@contextlib.contextmanager
def lossy(url: str, decide: Callable[[str], Fate]) -> Iterator[LossyProxy]:
    proxy = LossyProxy(url, decide)
    try:
        yield proxy
    finally:
        proxy.close()


class Once:
    """A rule that hits the first requests whose statement contains a text."""

    def __init__(self, needle: str, fate: Fate, *, times: int = 1) -> None:
        self.needle, self.fate, self.left = needle, fate, times
        self.guard = threading.Lock()

    def __call__(self, statement: str) -> Fate:
        with self.guard:
            if self.needle in statement and self.left > 0:
                self.left -= 1
                return self.fate
        return Fate.PASS
