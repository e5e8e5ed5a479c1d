"""Where a ClickHouse server is and how to speak to it."""

from __future__ import annotations

import base64
import http.client
import urllib.parse
from dataclasses import dataclass, field

from market.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A ClickHouse HTTP interface with a writing user and a user who may only read."""

    url: str  # http://127.0.0.1:8123, without credentials
    user: str
    password: str = field(repr=False)
    reader_user: str = ""
    reader_password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Take apart `http[s]://user:password@host[:port][/path]`.

        Raises:
            ConfigError: it is not such an address.
        """
        parts = urllib.parse.urlsplit(url)
        try:
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"the warm store's url has a port that is no number: {_masked(url)}") from error
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError(f"the warm store's url must look like http://user:password@host:8123, not {_masked(url)}")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        plain = f"{parts.scheme}://{host}:{port or (8443 if parts.scheme == 'https' else 8123)}{parts.path.rstrip('/')}"
        user = urllib.parse.unquote(parts.username or "default")
        password = urllib.parse.unquote(parts.password or "")
        return cls(plain, user, password, user, password)

    def reader(self) -> Endpoint:
        """Return the same server as seen by the user who may only read."""
        if not self.reader_user:
            return self
        return Endpoint(self.url, self.reader_user, self.reader_password, self.reader_user, self.reader_password)


def ask(endpoint: Endpoint, sql: str, timeout_s: float = 2.0) -> str | None:
    """Run a statement over one fresh plain connection, without any driver.

    Returns:
        The answer as tab-separated text, or None when the server cannot be reached, does not know us or refuses.
    """
    parts = urllib.parse.urlsplit(endpoint.url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
    token = base64.b64encode(f"{endpoint.user}:{endpoint.password}".encode()).decode()
    try:
        connection.request("POST", f"{parts.path}/", sql.encode(), {"Authorization": f"Basic {token}"})
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return text.strip() if answer.status == http.client.OK and "X-ClickHouse-Query-Id" in answer.headers else None


def _masked(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return url.replace(f":{parts.password}@", ":***@") if parts.password else url
