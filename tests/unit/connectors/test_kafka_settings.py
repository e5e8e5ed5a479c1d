from __future__ import annotations

from pathlib import Path

import pytest

from connectors.topics.kafka import KafkaTopics
from connectors.topics.kafka_settings import PASSWORD_VARIABLE, parse_url
from market.errors import ConfigError


def test_a_host_alone_is_a_plain_connection_to_the_usual_port() -> None:
    settings = parse_url("kafka://broker")
    assert settings.servers == "broker:9092"
    assert settings.client == {"security.protocol": "PLAINTEXT"}


def test_several_hosts_and_addresses_are_taken() -> None:
    assert parse_url("kafka://a:1,b-2.example:65535,[::1]:9092/").servers == "a:1,b-2.example:65535,[::1]:9092"


def test_a_user_means_an_encrypted_login() -> None:
    settings = parse_url("kafka://al%40ice@broker:9093", "secret")
    assert settings.client == {"sasl.username": "al@ice", "security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512"}
    assert settings.connection()["sasl.password"] == "secret"


def test_the_password_shows_nowhere() -> None:
    assert "secret" not in repr(parse_url("kafka://alice@broker", "secret"))


def test_a_password_without_a_user_is_not_sent() -> None:
    assert "sasl.password" not in parse_url("kafka://broker", "secret").connection()


def test_options_go_to_topics_and_clients(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.touch()
    settings = parse_url(f"kafka://b?security.protocol=ssl&ssl.ca.location={ca}&retention.ms=-1&replication.factor=3&min.insync.replicas=2")
    assert settings.connection()["ssl.ca.location"] == str(ca)
    assert settings.replication_factor == 3
    assert settings.topic()["retention.ms"] == "-1"
    assert settings.topic()["min.insync.replicas"] == "2"


def test_without_options_the_broker_decides_about_retention_and_replicas() -> None:
    settings = parse_url("kafka://b")
    assert "retention.ms" not in settings.topic()
    assert settings.replication_factor == -1
    assert parse_url("kafka://b?compression.type=none").topic()["compression.type"] == "uncompressed"


@pytest.mark.parametrize(
    ("url", "password", "said"),
    [
        ("kafka://", None, "no broker address"),
        ("kafka:///tmp/x", None, "no broker address"),
        ("kafka://a:99999", None, "no broker address"),
        ("kafka://a b:9092", None, "no broker address"),
        ("kafka://a,,b", None, "no broker address"),
        ("http://a:9092", None, "no broker address"),
        ("kafka://u:pw@a", None, PASSWORD_VARIABLE),
        ("kafka://a?sasl.password=pw", None, PASSWORD_VARIABLE),
        ("kafka://u@a", None, PASSWORD_VARIABLE),
        ("kafka://u@a?security.protocol=SASL_PLAINTEXT", None, PASSWORD_VARIABLE),
        ("kafka://a?security.protocol=SASL_SSL", "pw", "needs a user"),
        ("kafka://u@a?security.protocol=SSL", "pw", "need security.protocol=SASL_SSL"),
        ("kafka://u@a?sasl.mechanism=GSSAPI", "pw", "SCRAM-SHA-256"),
        ("kafka://a?security.protocol=TLS", None, "SASL_PLAINTEXT"),
        ("kafka://a?ssl.ca.location=/x", None, "need security.protocol=SSL"),
        ("kafka://a?retention.hours=5", None, "unknown option retention.hours; known are"),
        ("kafka://a?timeout=5&timeout=6", None, "timeout is given twice"),
        ("kafka://a?timeout=soon", None, "timeout='soon' is no number from 1 to 600"),
        ("kafka://a?replication.factor=0", None, "from 1 to"),
        ("kafka://a?compression.type=brotli", None, "none of gzip"),
    ],
)
def test_what_is_wrong_with_a_url_is_said(url: str, password: str | None, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_url(url, password)
    assert said in str(caught.value)


def test_a_password_in_a_url_is_not_repeated_in_the_error() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_url("kafka://alice:hunter2@broker")
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_not_there_is_named() -> None:
    settings = parse_url("kafka://a?security.protocol=SSL&ssl.ca.location=/nowhere.pem")
    with pytest.raises(ConfigError, match=r"ssl\.ca\.location=/nowhere\.pem is no file"):
        settings.connection()


def test_a_log_can_be_built_and_closed_without_a_broker() -> None:
    KafkaTopics("kafka://127.0.0.1:1").close()


def test_operators_find_every_option_in_the_docs() -> None:
    text = (Path(__file__).parents[3] / "docs" / "kafka.md").read_text()
    with pytest.raises(ConfigError) as caught:
        parse_url("kafka://a?x=1")
    options = str(caught.value).partition("known are ")[2].split(", ")
    assert len(options) > 10
    assert [name for name in options if f"`{name}`" not in text] == []
