"""What to say about a name that is none of the known ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown(what: str, name: str, known: Iterable[str], where: str = "known", nearest: str | None = None) -> str:
    """Return the text of an error about a name that is none of the known ones; offers the nearest."""
    names = list(known)
    if nearest is None:
        nearest = next(iter(difflib.get_close_matches(name.strip().lower(), names, n=1)), None)
    hint = f": did you mean {nearest}?" if nearest is not None else ""
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return f"no {what} is called {name!r}{hint} ({where}: {shown or 'none'})"
