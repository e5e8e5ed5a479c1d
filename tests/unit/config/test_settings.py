from __future__ import annotations

import re
import warnings
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import ValidationError

from config import reference
from config.settings import Settings, load_settings, read_settings_file
from market.errors import ConfigError


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in [n for n in os.environ if n.upper().startswith("K2_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def use_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text(text)
    monkeypatch.setenv("K2_CONFIG", str(path))
    return path


def test_defaults_put_everything_below_the_home(tmp_path: Path) -> None:
    settings = load_settings()
    assert settings.home == tmp_path / ".k2"
    assert settings.topics_url == f"sqlite:///{tmp_path}/.k2/topics.db"
    assert settings.cold_url == f"sqlite:///{tmp_path}/.k2/cold/catalog.db"
    assert settings.recovery_dir == tmp_path / ".k2" / "recovery"
    assert settings.warm_is_embedded
    assert settings.instruments.is_file()


def test_another_home_moves_what_is_derived_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2_HOME", "/elsewhere/home")
    settings = load_settings()
    assert settings.topics_url == "sqlite:////elsewhere/home/topics.db"
    assert settings.recovery_dir == Path("/elsewhere/home/recovery")


def test_environment_wins_over_file_over_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_file(monkeypatch, tmp_path, "lateness: 3\nhorizon: 20m\n")
    monkeypatch.setenv("K2_LATENESS", "4.5")
    settings = load_settings()
    assert (settings.lateness, settings.horizon, settings.commit_interval) == (Decimal("4.5"), Decimal(1200), Decimal(10))


@pytest.mark.parametrize("text", ["", "lateness:\n", "topics_url: ''\n", "# nothing\n"])
def test_empty_means_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    plain = load_settings()
    use_file(monkeypatch, tmp_path, text)
    monkeypatch.setenv("K2_WARM_URL", "")
    monkeypatch.setenv("K2_HOME", "")
    assert load_settings() == plain


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        load_settings().partitions = 8  # type: ignore[misc]


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("2", "2"), ("0.05", "0.05"), ("500ms", "0.5"), ("10m", "600"), ("2h", "7200"), ("7d", "604800"), ("1.5 s", "1.5"), ("0", "0")],
)
def test_durations_are_exact_seconds_with_or_without_unit(monkeypatch: pytest.MonkeyPatch, written: str, seconds: str) -> None:
    monkeypatch.setenv("K2_DEDUP_HORIZON", written)
    assert load_settings().dedup_horizon == Decimal(seconds)


def test_rules_are_in_microseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2_LATENESS", "2.000001")
    rules = load_settings().rules(False)
    assert (rules.lateness_us, rules.gap_grace_us, rules.horizon_us, rules.dedup_horizon_us) == (
        2_000_001,
        1_000_000,
        600_000_000,
        7_200_000_000,
    )
    assert not rules.contiguous_ids


def test_gap_grace_follows_a_short_lateness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2_LATENESS", "0.25")
    assert load_settings().gap_grace == Decimal("0.25")


def test_gap_grace_beyond_lateness_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2_GAP_GRACE", "3")
    with pytest.raises(ConfigError, match=r"gap_grace \(3 s\) is longer than lateness \(2 s\).*K2_GAP_GRACE"):
        load_settings()


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("K2_LATENESS", "soon", "K2_LATENESS='soon': is not a duration"),
        ("K2_LATENESS", "-1", "K2_LATENESS='-1': is not a duration"),
        ("K2_LATENESS", "nan", "K2_LATENESS='nan': is not a duration"),
        ("K2_LATENESS", "0.0000001", "finer than a microsecond"),
        ("K2_HORIZON", "99999999999999", "longer than a century"),
        ("K2_PARTITIONS", "0", "K2_PARTITIONS='0': input should be greater than or equal to 1"),
        ("K2_PARTITIONS", "four", "K2_PARTITIONS='four': "),
        ("K2_EPOCH_INTERVAL", "0", "greater than 0"),
        ("K2_TOPICS_URL", "sqlite:///a\nb", "control character"),
        ("K2_VENUES_URL", "ws://127.0.0.1:9100", "is not http://host:port"),
        ("K2_VENUES_URL", "http://127.0.0.1:9100/path", "is not http://host:port"),
        ("K2_VENUES_URL", "http://127.0.0.1:99999", "K2_VENUES_URL='http://127.0.0.1:99999': has no port from 1 to 65535"),
        ("K2_VENUES_URL", "http://127.0.0.1:0", "has no port from 1 to 65535"),
        ("K2_VENUES_URL", "http://bob@127.0.0.1:1", "holds a user"),
        ("K2_WARM_URL", "http://127.0.0.1:99999", "K2_WARM_URL='http://127.0.0.1:99999': has no port from 1 to 65535"),
        ("K2_WARM_URL", "ftp://host:8123", "K2_WARM_URL='ftp://host:8123': is not http://host:port or https://host:port"),
        ("K2_WARM_URL", "host", "is not http://host:port"),
        ("K2_FEED_METRICS", "here", "is not host:port or off"),
        ("K2_FEED_METRICS", "127.0.0.1:99999", "is not host:port or off"),
        ("K2_FEED_SPILL_LIMIT", "0", "greater than or equal to 1"),
    ],
)
def test_bad_variable_is_named_with_its_value(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_settings()


def test_every_bad_variable_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2_LATENESS", "x")
    monkeypatch.setenv("K2_PARTITIONS", "y")
    with pytest.raises(ConfigError, match=r"(?s)K2_LATENESS='x'.*\nK2_PARTITIONS='y'"):
        load_settings()


def test_bad_value_in_the_file_is_named_with_its_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = use_file(monkeypatch, tmp_path, "\nhorizon: 20m\nlateness: soon\n")
    with pytest.raises(ConfigError, match=re.escape(f"{path}:3: lateness: 'soon': is not a duration")):
        load_settings()


def test_unknown_key_in_the_file_is_named_with_the_nearest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = use_file(monkeypatch, tmp_path, "horizon: 20m\nlatenes: 1\n")
    with pytest.raises(ConfigError, match=re.escape(f"{path}:2: latenes is no setting: did you mean lateness?")):
        load_settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n", "must be a mapping"),
        ("1: 2\n", "must be a mapping"),
        ("a: [\n", ":2: the settings file"),
        ("a: 1\nhorizon: 1\nhorizon: 2\n", ":3: the settings file (K2_CONFIG) is not valid YAML: 'horizon' is written twice"),
        ("warm_password: x\n", "passwords come from the environment only: set K2_WARM_PASSWORD"),
        ("kafka_password: x\n", "passwords come from the environment only: set K2_KAFKA_PASSWORD"),
    ],
)
def test_file_of_another_shape_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, message: str) -> None:
    use_file(monkeypatch, tmp_path, text)
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_settings()


def test_missing_settings_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2_CONFIG", "/nowhere/k2.yaml")
    with pytest.raises(ConfigError, match=r"K2_CONFIG\) /nowhere/k2.yaml cannot be read: No such file"):
        load_settings()


def test_slip_in_a_variable_is_an_error_and_a_stranger_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2_LATENES", "1")
    with pytest.raises(ConfigError, match="K2_LATENES is no setting: did you mean K2_LATENESS"):
        load_settings()
    monkeypatch.delenv("K2_LATENES")
    monkeypatch.setenv("K2_SOMETHING_ELSE_ENTIRELY", "1")
    with pytest.warns(UserWarning, match="K2_SOMETHING_ELSE_ENTIRELY is no setting"):
        load_settings()


@pytest.mark.parametrize("name", ["K2_TEST_KAFKA", "K2_KAFKA_PASSWORD"])
def test_variables_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_settings()


def test_password_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2_WARM_PASSWORD", "hunter2")
    settings = load_settings()
    assert "hunter2" not in repr(settings)
    assert settings.warm_password.get_secret_value() == "hunter2"


def test_the_kafka_log_gets_its_password_and_no_other_log_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2_KAFKA_PASSWORD", "hunter2")
    assert load_settings().topic_options() == {}
    monkeypatch.setenv("K2_TOPICS_URL", "kafka://alice@broker")
    settings = load_settings()
    assert settings.topic_options() == {"password": "hunter2"}
    assert "hunter2" not in repr(settings)


def test_password_in_a_url_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2_WARM_URL", "http://me:hunter2@host:8123")
    with pytest.raises(ConfigError, match="K2_WARM_PASSWORD") as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)


def test_packaged_file_changes_nothing_and_names_every_setting() -> None:
    assert read_settings_file().values == {}
    text = reference.TEMPLATE.read_text()
    assert all(f"# {name}:" in text for name in Settings.model_fields if not name.endswith("_password"))


def test_packaged_file_with_every_comment_taken_out_loads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plain = load_settings()
    keys = [line[2:] for line in reference.TEMPLATE.read_text().splitlines() if re.match(r"# [a-z_]+:( \S+)?$", line)]
    assert len(keys) == sum(not name.endswith("_password") for name in Settings.model_fields)
    use_file(monkeypatch, tmp_path, "\n".join(keys) + "\n")
    assert load_settings() == plain


def test_settings_reference_is_current() -> None:
    assert reference.PAGE.read_text() == reference.page(), "run `python -m config.reference`"
    assert reference.TEMPLATE.read_text() == reference.template(), "run `python -m config.reference`"


def test_password_in_the_venues_url_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2_VENUES_URL", "http://bob:s3cret@127.0.0.1:9100")
    with pytest.raises(ConfigError, match=r"K2_VENUES_URL=.*holds a user") as raised:
        load_settings()
    assert "s3cret" not in str(raised.value)
