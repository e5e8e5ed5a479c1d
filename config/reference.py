"""Write `docs/settings.md` and `config/k2.yaml` from the settings model: `python -m config.reference`."""

from __future__ import annotations

import textwrap
from decimal import Decimal
from pathlib import Path
from typing import Final

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from config.durations import human
from config.settings import PREFIX, Settings

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "settings.md"
TEMPLATE: Final = Path(__file__).parent / "k2.yaml"

_INTRO: Final = """\
# Settings

Generated from `config/settings.py` by `python -m config.reference`; do not edit.

A setting is taken from the environment variable `K2_…`, else from the YAML file that `K2_CONFIG` names (default: the packaged
`config/k2.yaml`, where every line is a comment), else from the default below. An empty variable counts as not set. A variable
or key that is nearly a setting is an error, and so is a value out of range: `k2` then names the variable or the file and line,
and exits with 2.

Durations are decimal seconds (`2`, `0.05`) or a number with a unit (`500ms`, `10m`, `2h`, `7d`). Paths may start with `~`.

| variable | key in YAML | default | meaning |
|---|---|---|---|
"""
_OUTRO: Final = """
`K2_LATENESS`, `K2_GAP_GRACE`, `K2_HORIZON` and `K2_DEDUP_HORIZON` decide what candles say about missing and late trades:
change them only together with a replay into a new home, or rows written before and after follow different rules.

Secrets are never in a file: `K2_WARM_PASSWORD`, `K2_KAFKA_PASSWORD`, and for object stores the variables that pyiceberg
reads (`PYICEBERG_CATALOG__…`, `AWS_…`).
"""
_YAML_INTRO: Final = """\
# Settings of a platform, with their defaults; generated from config/settings.py by `python -m config.reference`.
# Copy it, take out the # where a value is to differ, and name the copy in K2_CONFIG. Variables K2_... win over it.
"""


def page() -> str:
    """Return the Markdown page of all settings."""
    rows = [
        f"| `{PREFIX}{name.upper()}` | {'–' if isinstance(field.default, SecretStr) else f'`{name}`'} | {_default(field) or 'see meaning'} | {field.description} |\n"
        for name, field in Settings.model_fields.items()
    ]
    return _INTRO + "".join(rows) + _OUTRO


def template() -> str:
    """Return the packaged settings file: every key as a comment."""
    parts = [_YAML_INTRO]
    for name, field in Settings.model_fields.items():
        if not isinstance(field.default, SecretStr):
            meaning = textwrap.fill(str(field.description), 118, initial_indent="# ", subsequent_indent="# ")
            parts.append(f"\n{meaning}\n# {name}: {_default(field).strip('`')}".rstrip() + "\n")
    return "".join(parts)


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined or isinstance(value, SecretStr) or not str(value):
        return ""
    if isinstance(value, Decimal):
        return f"`{human(value)}`"
    if isinstance(value, Path) and value.is_absolute():
        return ""
    return f"`{value}`"


def main() -> None:
    """Write both files."""
    PAGE.write_text(page(), encoding="utf-8")
    TEMPLATE.write_text(template(), encoding="utf-8")


if __name__ == "__main__":
    main()
