"""compose.yaml cannot run everywhere, so what can be known without running it is checked here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from connectors.topics.kafka_settings import parse_url

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "compose.yaml").read_text()
FILE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
RUNNING = {name: s for name, s in SERVICES.items() if s.get("restart") != "no"}


def test_the_servers_of_a_production_set_up_are_there() -> None:
    assert RUNNING.keys() == {"kafka", "clickhouse", "s3", "catalog"}


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_pinned(name: str) -> None:
    _, _, tag = SERVICES[name]["image"].rpartition(":")
    assert re.fullmatch(r"v?\d+(\.\d+)+", tag)


@pytest.mark.parametrize("name", RUNNING)
def test_a_server_listens_on_the_loopback_interface_only_and_is_checked(name: str) -> None:
    service = SERVICES[name]
    assert service["ports"]
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in service["ports"])
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["volumes"][0].split(":")[0] in FILE["volumes"]


@pytest.mark.parametrize("name", SERVICES)
def test_secrets_come_from_the_environment_and_have_no_default(name: str) -> None:
    for variable, value in SERVICES[name].get("environment", {}).items():
        if re.search(r"PASSWORD|SECRET|(^|_)KEY($|_)", variable):
            assert re.fullmatch(r"\$\{K2_\w+:\?[\w ]+\}", value), variable


def test_what_the_header_tells_to_export_fits_the_ports() -> None:
    exported = dict(re.findall(r"(K2_\w+_URL)='?([^\s']+)", TEXT))
    published = {port.split(":")[1] for service in RUNNING.values() for port in service["ports"]}
    assert parse_url(exported["K2_TOPICS_URL"]).servers == "127.0.0.1:9092"
    assert set(re.findall(r"127\.0\.0\.1:(\d+)", " ".join(exported.values()))) == published


def test_the_broker_is_the_version_that_is_tested_with() -> None:
    pom = (ROOT / "tests" / "servers" / "kafka_node" / "pom.xml").read_text()
    assert f"<version>{SERVICES['kafka']['image'].rpartition(':')[2]}</version>" in pom
