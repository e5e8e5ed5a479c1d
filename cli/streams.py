"""The streams that a home's symbols come from, remembered in its run file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from config.run_file import read_run, update_run
from connectors.streams import check_streams, streams_of
from market.instrument import Instruments

_SECTION: Final = "streams"


def keep_streams(home: Path, listed: Mapping[str, Instruments]) -> None:
    """Remember the streams of a list.

    Raises:
        ConfigError: the home holds a symbol's trades of another stream; nothing has changed.
    """
    known = read_run(home).get(_SECTION, {})
    check_streams(known, listed)
    new = streams_of(listed)
    if new.items() - known.items():
        update_run(home, **{_SECTION: new})
