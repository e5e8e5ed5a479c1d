"""Open the catalog that a URL names.

    sqlite:////abs/catalog.db[?warehouse=file:///abs/dir]                  embedded; the warehouse is the folder beside the catalog
    rest+https://host[:port][/path][?warehouse=name&s3.endpoint=…]         an Iceberg REST catalog

Options of the query are pyiceberg catalog properties, and `request-timeout-s` of a REST catalog. Secrets come from the environment only, by pyiceberg's own rule:
`PYICEBERG_CATALOG__K2__TOKEN`, `PYICEBERG_CATALOG__K2__S3__SECRET_ACCESS_KEY`, or the usual `AWS_*`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from pyiceberg.catalog import Catalog
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.utils.config import Config
from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter

from market.errors import ConfigError
from sinks.iceberg.errors import translate

CATALOG_NAME: Final = "k2"
NAMESPACE: Final = "cold"
SQLITE_TIMEOUT_S: Final = 30  # a commit waits this long for another process's lock on the catalog file
CONNECT_TIMEOUT_S: Final = 5.0
REQUEST_TIMEOUT_S: Final = 30.0  # between two bytes of an answer; pyiceberg itself waits for ever
TIMEOUT_OPTION: Final = "request-timeout-s"
_FILE_IO: Final = "sinks.iceberg.durable.DurableFileIO"
_SECRETS: Final = ("token", "credential", "secret", "password", "access-key-id")


class _Bounded(HTTPAdapter):
    def __init__(self, timeout_s: float) -> None:
        super().__init__()
        self._timeout_s = timeout_s

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = (min(CONNECT_TIMEOUT_S, self._timeout_s), self._timeout_s)
        return super().send(request, *args, **kwargs)


class BoundedRestCatalog(RestCatalog):
    """A REST catalog whose requests end."""

    def _create_session(self) -> Session:
        session: Session = super()._create_session()
        for scheme in ("http://", "https://"):
            session.mount(scheme, _Bounded(float(self.properties.get(TIMEOUT_OPTION, REQUEST_TIMEOUT_S))))
        return session


def open_catalog(url: str) -> Catalog:
    """Open the catalog of a URL (forms above); creates the SQLite file and its folder when absent.

    Raises:
        ConfigError: the URL is not one of the forms above, or holds a secret, or the catalog refuses us.
        SinkUnavailable: the catalog cannot be reached.
    """
    scheme = urlsplit(url).scheme
    if scheme == "sqlite":
        return _open_sqlite(url)
    if scheme in ("rest+http", "rest+https"):
        return _open_rest(url)
    raise ConfigError(f"cold store URL {url!r}: use sqlite:///path/catalog.db, or rest+http(s)://host:port for an Iceberg REST catalog")


def _open_sqlite(url: str) -> Catalog:
    parts = urlsplit(url)
    path = Path(parts.path[1:]) if parts.path else Path()
    if parts.netloc or not path.name:
        raise ConfigError(f"cold store URL {url!r}: write sqlite:///relative/catalog.db or sqlite:////absolute/catalog.db")
    options = _options(url)
    path = path.absolute()
    timeout = options.pop("timeout", str(SQLITE_TIMEOUT_S))
    options.setdefault("warehouse", f"file://{path.parent / 'warehouse'}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return SqlCatalog(CATALOG_NAME, uri=f"sqlite:///{path}?timeout={timeout}", **{"py-io-impl": _FILE_IO}, **options)
    except Exception as error:
        raise translate(error, f"open the catalog {path}") from error


def _open_rest(url: str) -> Catalog:
    parts = urlsplit(url)
    if not parts.hostname:
        raise ConfigError(f"cold store URL {url!r} names no host")
    if parts.username is not None or parts.password is not None:
        raise ConfigError("the cold store URL holds a user or password: put PYICEBERG_CATALOG__K2__CREDENTIAL into the environment")
    timeout = _options(url).get(TIMEOUT_OPTION)
    if timeout is not None and not (timeout.replace(".", "", 1).isdecimal() and float(timeout) > 0):
        raise ConfigError(f"the cold store URL gives {TIMEOUT_OPTION}={timeout!r}: use seconds, like {REQUEST_TIMEOUT_S:g}")
    options = {
        "py-io-impl": _FILE_IO,
        "s3.connect-timeout": "5",
        "s3.request-timeout": "30",
        **_from_environment(),
        **_options(url),
        "uri": urlunsplit((parts.scheme.removeprefix("rest+"), parts.netloc, parts.path.rstrip("/"), "", "")),
    }
    try:
        return BoundedRestCatalog(CATALOG_NAME, **options)
    except Exception as error:
        raise translate(error, f"open the catalog {options['uri']}") from error


def _from_environment() -> dict[str, Any]:
    return dict(Config().get_catalog_config(CATALOG_NAME) or {})


def _options(url: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parse_qsl(urlsplit(url).query, keep_blank_values=True):
        if any(word in name.lower() for word in _SECRETS):
            variable = "PYICEBERG_CATALOG__K2__" + name.upper().replace(".", "__").replace("-", "_")
            raise ConfigError(
                f"the cold store URL holds the secret {name!r}: put it into the environment as {variable}, since URLs are logged"
            )
        if name in options:
            raise ConfigError(f"the cold store URL gives {name!r} twice")
        options[name] = value
    return options
