"""YAML files read together with the line of every key, so that an error can name the place."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from market.errors import ConfigError


@dataclass(frozen=True, slots=True)
class YamlMapping:
    """The top level of one YAML file: values, and the line (from 1) where each key stands."""

    path: Path
    values: dict[str, Any]
    lines: dict[str, int]

    def place(self, key: str) -> str:
        """Return `file:line` of a key, for messages."""
        return f"{self.path}:{self.lines[key]}" if key in self.lines else str(self.path)


class _Loader(yaml.SafeLoader):
    """Safe, and strict about keys that are written twice: the second would win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 the base's signature
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is written twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


# PyYAML lets through what its constructors raise: a date with a 13th month, a list as a key.
_UNREADABLE: Final = (yaml.YAMLError, RecursionError, ValueError, TypeError)


def read_yaml_mapping(path: Path, *, what: str) -> YamlMapping:
    """Read a file whose top level is a mapping with text keys; an empty file is an empty mapping.

    Args:
        path: the file.
        what: what the file is, and how it is chosen, for messages: `the settings file (K2_CONFIG)`.

    Raises:
        ConfigError: it cannot be read, is not YAML, or has another shape.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{what} {path} cannot be read: {reason}") from error
    try:
        node, values = _document(text)
    except _UNREADABLE as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        # A text that no YAML may hold has a reason and a position, and no mark.
        why = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be parsed"
        raise ConfigError(f"{path}{line}: {what} is not valid YAML: {why}") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{path}: {what} must be a mapping of names to values")
    lines = {key.value: key.start_mark.line + 1 for key, _ in node.value} if isinstance(node, yaml.MappingNode) else {}
    return YamlMapping(path, values, lines)


def _document(text: str) -> tuple[yaml.Node | None, Any]:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        values = None if node is None else loader.construct_document(node)
        return node, {} if values is None else values
    finally:
        loader.dispose()
