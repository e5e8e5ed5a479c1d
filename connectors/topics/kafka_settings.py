"""What a `kafka://` URL says: where the brokers are, how to log in, how topics are created."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from market.errors import ConfigError

EXAMPLE: Final = "kafka://host:9092,host2:9092?security.protocol=SASL_SSL&sasl.mechanism=SCRAM-SHA-512"
PASSWORD_VARIABLE: Final = "K2_KAFKA_PASSWORD"  # noqa: S105 a name
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?")

_PROTOCOLS: Final = frozenset({"PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"})
_MECHANISMS: Final = frozenset({"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"})
_COMPRESSIONS: Final = frozenset({"none", "gzip", "snappy", "lz4", "zstd"})
_CLIENT: Final = frozenset(
    {
        "security.protocol",
        "sasl.mechanism",
        "sasl.username",
        "ssl.ca.location",
        "ssl.certificate.location",
        "ssl.key.location",
        "ssl.endpoint.identification.algorithm",
        "client.id",
    }
)
_NUMBERS: Final[Mapping[str, tuple[int, int]]] = {
    "replication.factor": (1, 32_767),
    "min.insync.replicas": (1, 32_767),
    "retention.ms": (-1, 1 << 62),
    "max.message.bytes": (1_000, 100_000_000),
    "timeout": (1, 600),
    "delivery.timeout": (1, 3_600),
    "patience": (1, 86_400),
}


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """One cluster and how this program uses it. Times are in seconds where no unit is named."""

    servers: str
    client: Mapping[str, str]
    password: str | None = field(default=None, repr=False)
    replication_factor: int = -1  # -1: the broker's default
    min_insync_replicas: int | None = None
    retention_ms: int | None = None  # None: the broker's default; -1: for ever
    compression: str = "zstd"
    max_message_bytes: int = 8 << 20
    timeout_s: int = 15  # a request that somebody waits for
    delivery_timeout_s: int = 60  # an append
    patience_s: int = 60  # how long reading goes on without a broker

    def connection(self) -> dict[str, Any]:
        """Return what every client of librdkafka needs to connect.

        Raises:
            ConfigError: a file that the URL names is not there; the driver's own message would not say which.
        """
        for name, value in self.client.items():
            if name.endswith(".location") and not Path(value).is_file():
                raise ConfigError(f"kafka URL: {name}={value} is no file")
        config: dict[str, Any] = {
            "bootstrap.servers": self.servers,
            "client.id": "k2",
            "log_level": 2,  # what matters comes as errors, which we report; its own log lines go to stderr
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 1_000,
            "topic.metadata.refresh.interval.ms": 30_000,
            **self.client,
        }
        if self.password is not None:
            config["sasl.password"] = self.password
        return config

    def topic(self) -> dict[str, str]:
        """Return the settings of a topic that is created."""
        config = {
            # Retention counts from record timestamps: the broker's own clock, so that old recordings are not expired at once.
            "message.timestamp.type": "LogAppendTime",
            "cleanup.policy": "delete",
            "max.message.bytes": str(self.max_message_bytes),
            "compression.type": "uncompressed" if self.compression == "none" else self.compression,
        }
        if self.retention_ms is not None:
            config["retention.ms"] = str(self.retention_ms)
        if self.min_insync_replicas is not None:
            config["min.insync.replicas"] = str(self.min_insync_replicas)
        return config


def parse_url(url: str, password: str | None = None) -> KafkaSettings:
    """Read a `kafka://` URL.

    Raises:
        ConfigError: something in it is unknown, missing or contradicts something else; names the way out.
    """
    location, _, query = url.removeprefix("kafka://").partition("?")
    user, at, hosts = location.rpartition("@")
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in options:
            raise ConfigError(f"kafka URL: {name} is given twice")
        options[name] = value
    if ":" in user or "sasl.password" in options:
        raise ConfigError(f"kafka URL: a password does not belong in a URL, which is logged and saved; put it in {PASSWORD_VARIABLE}")
    if at:
        options.setdefault("sasl.username", unquote(user))
    client = {name: options.pop(name) for name in sorted(_CLIENT & options.keys())}
    compression = options.pop("compression.type", "zstd")
    if compression not in _COMPRESSIONS:
        raise ConfigError(f"kafka URL: compression.type={compression!r} is none of {', '.join(sorted(_COMPRESSIONS))}")
    numbers = {name: _number(name, options.pop(name)) for name in list(options) if name in _NUMBERS}
    if options:
        known = ", ".join(sorted({*_CLIENT, *_NUMBERS, "compression.type"}))
        raise ConfigError(f"kafka URL: unknown option {', '.join(sorted(options))}; known are {known}")
    _check_login(client, password)
    return KafkaSettings(
        servers=_servers(hosts.rstrip("/"), url),
        client=client,
        password=password if "sasl.username" in client else None,
        compression=compression,
        **{_FIELDS[name]: value for name, value in numbers.items()},
    )


_FIELDS: Final = {
    "replication.factor": "replication_factor",
    "min.insync.replicas": "min_insync_replicas",
    "retention.ms": "retention_ms",
    "max.message.bytes": "max_message_bytes",
    "timeout": "timeout_s",
    "delivery.timeout": "delivery_timeout_s",
    "patience": "patience_s",
}


def _number(name: str, text: str) -> int:
    least, most = _NUMBERS[name]
    if not re.fullmatch(r"-?\d{1,19}", text) or not least <= int(text) <= most:
        raise ConfigError(f"kafka URL: {name}={text!r} is no number from {least} to {most}")
    return int(text)


def _servers(hosts: str, url: str) -> str:
    found = []
    for host in hosts.split(","):
        match = _HOST.fullmatch(host)
        if match is None or not url.startswith("kafka://") or int(match[1] or 1) > 65_535:
            raise ConfigError(f"{host!r} is no broker address: write {EXAMPLE}")
        found.append(host if match[1] else f"{host}:9092")
    return ",".join(found)


def _check_login(client: dict[str, str], password: str | None) -> None:
    # Completes what follows from the rest, and refuses what librdkafka would report late or not at all.
    logs_in = any(name.startswith("sasl.") for name in client)
    protocol = client.setdefault("security.protocol", "SASL_SSL" if logs_in else "PLAINTEXT").upper()
    client["security.protocol"] = protocol
    if protocol not in _PROTOCOLS:
        raise ConfigError(f"kafka URL: security.protocol={protocol!r} is none of {', '.join(sorted(_PROTOCOLS))}")
    if not protocol.startswith("SASL"):
        if logs_in:
            raise ConfigError(f"kafka URL: sasl.* settings need security.protocol=SASL_SSL (or SASL_PLAINTEXT), not {protocol}")
    else:
        mechanism = client.setdefault("sasl.mechanism", "SCRAM-SHA-512").upper()
        client["sasl.mechanism"] = mechanism
        if mechanism not in _MECHANISMS:
            raise ConfigError(f"kafka URL: sasl.mechanism={mechanism!r} is none of {', '.join(sorted(_MECHANISMS))}")
        if not client.get("sasl.username") or not password:
            raise ConfigError(f"{protocol} needs a user (kafka://user@host:9092) and its password in {PASSWORD_VARIABLE}")
    if not protocol.endswith("SSL") and any(name.startswith("ssl.") for name in client):
        raise ConfigError(f"kafka URL: ssl.* settings need security.protocol=SSL or SASL_SSL, not {protocol}")
