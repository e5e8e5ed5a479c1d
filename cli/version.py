"""What runs here."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

_SHOWN = ("bytewax", "chdb-core", "pyiceberg", "pyarrow", "polars", "confluent-kafka")


def version_line() -> str:
    """Return `k2 0.1.0`."""
    return f"k2 {_version('k2-market-data')}"


def version_lines() -> Iterator[str]:
    """Yield the version of K2, Python and the engines."""
    yield version_line()
    yield f"python {platform.python_version()}"
    for name in _SHOWN:
        yield f"{name} {_version(name)}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
