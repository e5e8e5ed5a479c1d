"""Write `docs/commands.md` from the command line's own help: `python -m cli.reference`."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Final

import typer

from cli import formats
from cli.main import app

PAGE: Final = Path(__file__).parents[1] / "docs" / "commands.md"
_INTRO: Final = """\
# Commands

Generated from the commands' own help by `python -m cli.reference`; do not edit.

"""
_WIDTH: Final = 110


def page() -> str:
    """Return the Markdown page of all commands."""
    names = [command.name or str(getattr(command.callback, "__name__", "")) for command in app.registered_commands]
    parts = [f"## k2{' ' if name else ''}{name}\n\n```\n{_help(name)}\n```\n" for name in ["", *names]]
    described = str(formats.__doc__).partition("\n\n")[2].strip()
    return _INTRO + "\n".join([*parts, f"## Formats of k2 export\n\n```\n{described}\n```\n"])


def _help(name: str) -> str:
    out = io.StringIO()
    # The help is as wide as the terminal, unless told otherwise.
    with contextlib.redirect_stdout(out):
        typer.main.get_command(app).main([*filter(None, [name]), "--help"], "k2", standalone_mode=False, terminal_width=_WIDTH)
    return "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines())


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
