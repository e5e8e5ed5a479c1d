"""Catalog URLs."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from market.errors import ConfigError, SinkUnavailable
from sinks.iceberg.catalog import open_catalog


def test_the_warehouse_lies_beside_the_catalog_unless_the_url_says_otherwise(tmp_path: Path) -> None:
    beside = open_catalog(f"sqlite:///{tmp_path}/cold/catalog.db")
    assert beside.properties["warehouse"] == f"file://{tmp_path}/cold/warehouse"
    assert (tmp_path / "cold/catalog.db").exists()
    elsewhere = open_catalog(f"sqlite:///{tmp_path}/cold/catalog.db?warehouse=file://{tmp_path}/else")
    assert elsewhere.properties["warehouse"] == f"file://{tmp_path}/else"


def test_a_relative_path_is_taken_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_catalog("sqlite:///cold/catalog.db").properties["warehouse"] == f"file://{tmp_path}/cold/warehouse"


def test_commits_wait_for_a_locked_catalog_file(tmp_path: Path) -> None:
    assert "timeout=30" in str(open_catalog(f"sqlite:///{tmp_path}/catalog.db").properties["uri"])


@pytest.mark.parametrize(
    "url",
    [
        "",
        "catalog.db",
        "postgres://x/y",
        "sqlite://",
        "sqlite:///",
        "sqlite://host/catalog.db",
        "http://localhost:1",
        "rest+https://",
        "rest+http:///x",
    ],
)
def test_other_urls_are_refused_with_what_would_do(url: str) -> None:
    with pytest.raises(ConfigError, match="cold store URL"):
        open_catalog(url)


@pytest.mark.parametrize(
    "option", ["token=x", "credential=a:b", "s3.secret-access-key=x", "s3.access-key-id=x", "s3.session-token=x", "password=x"]
)
def test_secrets_belong_into_the_environment(option: str) -> None:
    with pytest.raises(ConfigError, match="PYICEBERG_CATALOG__K2__") as caught:
        open_catalog(f"rest+https://localhost:1?{option}")
    assert option.partition("=")[2] not in str(caught.value).partition("PYICEBERG")[0].replace("the cold store URL holds the secret", "")


def test_user_and_password_in_the_url_are_refused_without_being_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        open_catalog("rest+https://me:hunter2@localhost:1")
    assert "hunter2" not in str(caught.value)


def test_a_timeout_that_is_no_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="request-timeout-s"):
        open_catalog("rest+https://localhost:1?request-timeout-s=soon")


def test_an_option_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="twice"):
        open_catalog("rest+https://localhost:1?warehouse=a&warehouse=b")


def test_a_catalog_that_nobody_serves_is_unavailable() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(SinkUnavailable, match=f"open the catalog http://127.0.0.1:{port}"):
        open_catalog(f"rest+http://127.0.0.1:{port}")


def test_requests_to_a_silent_catalog_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []
        thread = threading.Thread(target=lambda: held.append(server.accept()[0]))
        thread.start()
        started = time.monotonic()
        with pytest.raises(SinkUnavailable, match="Timeout"):
            open_catalog(f"rest+http://127.0.0.1:{server.getsockname()[1]}?request-timeout-s=0.5")
        assert time.monotonic() - started < 20
        thread.join()
        for connection in held:
            connection.close()
