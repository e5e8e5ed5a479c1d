"""What people see: tables on stdout, progress and remarks on stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

RIGHT: Final = ">"  # first character of a heading whose column is aligned to the right


def stdout() -> Console:
    """Return the console for results; as wide as the content where it is no terminal."""
    return Console(width=None if sys.stdout.isatty() else 160, soft_wrap=not sys.stdout.isatty(), highlight=False)


def say(text: str) -> None:
    """Tell a person something that is not the result; nobody hears it where stderr cannot be written."""
    with contextlib.suppress(OSError):
        typer.echo(text, err=True)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """Print rows under headings; a heading that begins with `>` aligns its column to the right.

    Where stdout is no terminal, or one that is too narrow, the same columns come as plain text, separated by two spaces or more.
    """
    texts = [["" if cell is None else _cell(cell) for cell in row] for row in rows]
    names = [heading.removeprefix(RIGHT) for heading in headings]
    widths = [max(len(line[i]) for line in [names, *texts]) for i in range(len(names))]
    if sys.stdout.isatty() and sum(widths) + 2 * (len(widths) - 1) <= stdout().width:  # else every cell would be folded
        table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
        for heading in headings:
            table.add_column(heading.removeprefix(RIGHT), justify="right" if heading.startswith(RIGHT) else "left", overflow="fold")
        for line in texts:
            table.add_row(*line)
        stdout().print(table)
        return
    if title is not None:
        typer.echo(title)
    for line in [names, *texts]:
        cells = (f"{cell:{'>' if h.startswith(RIGHT) else '<'}{width}}" for h, cell, width in zip(headings, line, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


class Meter:
    """One line of progress; silent where nobody watches."""

    def __init__(self, progress: Progress | None, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def show(self, done: int, total: int | None = None, text: str | None = None) -> None:
        """Show how far it is."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done, total=total, description=text)

    def step(self, text: str, done: int, total: int | None) -> None:
        """Show what is being done and how far it is."""
        self.show(done, total, text)


@contextlib.contextmanager
def meter(text: str, *, quiet: bool = False) -> Iterator[Meter]:
    """Show a progress line on stderr while the block runs, if stderr is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield Meter(None, TaskID(0))
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield Meter(progress, progress.add_task(text, total=None))
