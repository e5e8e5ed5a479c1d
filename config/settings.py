"""Every setting of the platform: environment (`K2_*`) over a YAML file (`K2_CONFIG`) over the defaults below.

Read once, in a composition root; below that plain values are passed. `docs/settings.md` and `config/k2.yaml` are
generated from this model (`python -m config.reference`).
"""

from __future__ import annotations

import difflib
import os
import re
import warnings
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import SplitResult, urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from config.durations import parse_seconds, to_us
from config.yaml_file import YamlMapping, read_yaml_mapping
from market.errors import ConfigError
from market.rules import Rules

PREFIX: Final = "K2_"
CONFIG_VARIABLE: Final = "K2_CONFIG"
PACKAGED: Final = Path(__file__).parent
NOT_SETTINGS: Final = (CONFIG_VARIABLE, "K2_TEST_", "K2_KAFKA_", "K2_S3_", "K2_DEMO_")
"""Variables, or their beginnings, that others read: drivers' secrets and the test suite's own switches."""

METRICS_OFF: Final = "off"

Seconds = Annotated[Decimal, BeforeValidator(parse_seconds)]


def _absolute(value: Any) -> Any:
    if isinstance(value, str | Path) and str(value):
        return Path(os.path.abspath(Path(value).expanduser()))  # noqa: PTH100 not resolve(): links stay as the user wrote them
    raise ValueError("is not a path")


Folder = Annotated[Path, BeforeValidator(_absolute)]


def _one_line(value: Any) -> Any:
    if isinstance(value, str) and not value.isprintable():
        raise ValueError("holds a line break or another control character")
    return value


Url = Annotated[str, BeforeValidator(_one_line)]


def _parts(url: str) -> SplitResult:
    parts = urlsplit(url)
    try:
        is_port = parts.port != 0
    except ValueError:
        is_port = False
    if not is_port:
        raise ValueError("has no port from 1 to 65535 behind its host")
    return parts


def _below_home(name: str) -> Callable[[dict[str, Any]], Path]:
    return lambda validated: Path(validated["home"]) / name


def _in_home(form: str) -> Callable[[dict[str, Any]], str]:
    return lambda validated: form.format(home=validated["home"])


class Settings(BaseSettings):
    """What a platform needs to know; immutable. Durations are exact seconds."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True, hide_input_in_errors=True, validate_default=True
    )

    home: Folder = Field(Path(".k2"), description="folder that holds everything of the embedded mode, and run.json")
    topics_url: Url = Field(
        default_factory=_in_home("sqlite:///{home}/topics.db"),
        description="raw topics: `sqlite:///path/topics.db` or `kafka://host:9092`; empty: `sqlite:///HOME/topics.db`",
    )
    kafka_password: SecretStr = Field(SecretStr(""), description="password of the user in a `kafka://` URL; only from the environment")
    warm_url: Url = Field(
        "", description="ClickHouse server, `http://host:8123` or `https://…`; empty: the embedded one is started in the home"
    )
    warm_user: str = Field("default", description="user of `warm_url`; the embedded store has users of its own", min_length=1)
    warm_password: SecretStr = Field(SecretStr(""), description="password of `warm_user`; only from the environment")
    cold_url: Url = Field(
        default_factory=_in_home("sqlite:///{home}/cold/catalog.db"),
        description="Iceberg catalog: `sqlite:///path/catalog.db` or `rest+https://host/…`; empty: `sqlite:///HOME/cold/catalog.db`",
    )
    recovery_dir: Folder = Field(default_factory=_below_home("recovery"), description="saved state of the flow; empty: `HOME/recovery`")
    instruments: Folder = Field(PACKAGED / "instruments.yaml", description="which instruments of which exchanges; empty: the packaged file")

    lateness: Seconds = Field(Decimal(2), description="how long a closed window waits for stragglers behind the covered time")
    gap_grace: Seconds = Field(
        default_factory=lambda validated: min(Decimal(1), validated["lateness"]),
        description="how long a missing id may be mere reordering; at most `lateness`; empty: `1s`, or `lateness` if that is less",
    )
    horizon: Seconds = Field(Decimal(600), description="how long closed candles stay in memory; later trades revise the stored row")
    dedup_horizon: Seconds = Field(Decimal(7200), description="how long ids are remembered on venues whose ids jump or are not numbers")

    epoch_interval: Seconds = Field(Decimal(10), description="how often the flow saves its state", gt=0)
    commit_interval: Seconds = Field(Decimal(10), description="Iceberg commits come at most this often")
    poll_interval: Seconds = Field(Decimal("0.05"), description="how often an idle topic partition is asked for new records", gt=0)
    batch_records: int = Field(20_000, description="records read from a topic partition at once, at most", ge=1, le=1_000_000)
    epoch_records: int = Field(
        1_000_000, description="records read from a topic partition within one epoch, at most: bounds what waits for a slow worker", ge=1
    )

    partitions: int = Field(4, description="partitions of a new raw topic; fixed for its life", ge=1, le=1024)
    raw_retention: Seconds = Field(
        Decimal(0),
        description="how long raw records are kept once every table has them; 0: for ever. SQLite only: Kafka topics have `retention.ms`, also as an option of the URL",
    )

    venues_url: Url = Field(
        "",
        description="what stands in for every venue, `http://host:port` (the simulator, a proxy): feeds connect to `/EXCHANGE/…` there; empty: the venues themselves",
    )
    feed_spill_limit: int = Field(
        4096, description="megabytes that a feed keeps on disk while a topic is slow or down; beyond it sockets are not read", ge=1
    )
    feed_metrics: str = Field(
        "127.0.0.1:0", description="address of a feed's `/metrics`, `host:port`; port 0: any free one, named in run.json; `off`: none"
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_is_absent(cls, values: Any) -> Any:
        # `instruments:` with nothing behind it in YAML is null, and means the default, as an empty variable does.
        return {k: v for k, v in values.items() if v is not None and v != ""} if isinstance(values, dict) else values

    @field_validator("warm_url")
    @classmethod
    def _is_server(cls, url: str) -> str:
        parts = _parts(url)
        if parts.username is not None:
            raise ValueError("holds a user: put it in K2_WARM_USER and the password in K2_WARM_PASSWORD, since URLs are logged and saved")
        if url and (parts.scheme not in {"http", "https"} or not parts.hostname):
            raise ValueError("is not http://host:port or https://host:port")
        return url

    @field_validator("venues_url")
    @classmethod
    def _is_base(cls, url: str) -> str:
        parts = _parts(url)
        if parts.username is not None or parts.password is not None:
            raise ValueError("holds a user, which nothing reads: URLs are logged and saved")
        if url and (parts.scheme not in {"http", "https"} or not parts.hostname or parts.path not in {"", "/"} or parts.query):
            raise ValueError("is not http://host:port")
        return url.rstrip("/")

    @field_validator("feed_metrics")
    @classmethod
    def _is_address(cls, address: str) -> str:
        host, _, port = address.rpartition(":")
        if address != METRICS_OFF and not (host and port.isdigit() and int(port) < 65_536):
            raise ValueError(f"is not host:port or {METRICS_OFF}")
        return address

    @model_validator(mode="after")
    def _complete(self) -> Settings:
        if self.gap_grace > self.lateness:
            raise ValueError(
                f"gap_grace ({self.gap_grace} s) is longer than lateness ({self.lateness} s): a gap would open after its candle closed. "
                "Lower K2_GAP_GRACE or raise K2_LATENESS"
            )
        return self

    @property
    def warm_is_embedded(self) -> bool:
        """Whether the warm store is the process in the home."""
        return not self.warm_url

    def rules(self, contiguous_ids: bool = True) -> Rules:  # noqa: FBT001, FBT002 it is the venue's one property that decides
        """Return the rules for one venue.

        Args:
            contiguous_ids: whether the venue numbers trades without holes.
        """
        return Rules(
            lateness_us=to_us(self.lateness),
            gap_grace_us=to_us(self.gap_grace),
            horizon_us=to_us(self.horizon),
            dedup_horizon_us=to_us(self.dedup_horizon),
            contiguous_ids=contiguous_ids,
        )

    def topic_options(self) -> dict[str, Any]:
        """Return what the topic log's constructor takes beside its URL."""
        if self.topics_url.startswith("kafka:"):
            return {"password": self.kafka_password.get_secret_value() or None}
        return {}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over what the caller gives (the YAML file); no dotenv, no secrets folder."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings


def load_settings() -> Settings:
    """Read the environment and the settings file.

    Raises:
        ConfigError: naming the variable or the file and line, the value, and what would be right.
    """
    file = read_settings_file()
    _check_variables(os.environ)
    try:
        return Settings(**file.values)
    except ValidationError as error:
        raise ConfigError(_explain(error, file)) from None


def read_settings_file() -> YamlMapping:
    """Return the settings file: the one `K2_CONFIG` names, else the packaged one."""
    chosen = os.environ.get(CONFIG_VARIABLE, "")
    path = Path(chosen).expanduser() if chosen else PACKAGED / "k2.yaml"
    what = "the settings file" if not chosen else f"the settings file ({CONFIG_VARIABLE})"
    file = read_yaml_mapping(path, what=what)
    for name in ("warm_password", "kafka_password"):
        if name in file.values:
            raise ConfigError(f"{file.place(name)}: passwords come from the environment only: set {PREFIX}{name.upper()}")
    return file


def _check_variables(environ: Mapping[str, str]) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {CONFIG_VARIABLE}
    for name in sorted(environ):
        if not name.upper().startswith(PREFIX) or name.upper() in known or name.upper().startswith(NOT_SETTINGS):
            continue
        near = difflib.get_close_matches(name.upper(), sorted(known), n=1, cutoff=0.8)
        if near:  # a setting that silently does nothing is the worst answer to a slip of the pen
            raise ConfigError(f"{name} is no setting: did you mean {near[0]}? (All settings: docs/settings.md)")
        warnings.warn(f"{name} is no setting of this version and does nothing (all settings: docs/settings.md)", stacklevel=3)


def _explain(error: ValidationError, file: YamlMapping) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        if problem["type"] == "default_factory_not_called":  # a consequence of another line
            continue
        message = str(problem["msg"]).removeprefix("Value error, ")
        name = str(problem["loc"][0]) if problem["loc"] else ""
        variable = PREFIX + name.upper()
        value = os.environ.get(variable) if name else None
        if not name:
            lines.append(message)
        elif value:
            lines.append(f"{variable}={_shown(name, value)}: {_lower(message)}")
        elif problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(name, list(Settings.model_fields), n=1)
            hint = f": did you mean {near[0]}?" if near else " (all settings: docs/settings.md)"
            lines.append(f"{file.place(name)}: {name} is no setting{hint}")
        else:
            lines.append(f"{file.place(name)}: {name}: {_shown(name, file.values.get(name))}: {_lower(message)}")
    return "\n".join(lines)


def _shown(name: str, value: Any) -> str:
    return "********" if "password" in name else re.sub(r"(://[^/@:]*:)[^@]*@", r"\1********@", repr(value))


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]
