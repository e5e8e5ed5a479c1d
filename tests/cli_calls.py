"""Commands in this process, as they would answer in their own: no interpreter to start for each of them."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from unittest import mock

import structlog

from cli.main import main


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command left."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """What it wrote to stdout, as text."""
        return self.out.decode()


def call(env: Mapping[str, str], *arguments: str, code: int | None = 0) -> Answer:
    """Run a `k2` command with this environment; `code` None: any exit code will do."""
    out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.StringIO()
    shown = warnings.showwarning
    try:
        with mock.patch.dict(os.environ, env, clear=True), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(arguments)
    except SystemExit as exit_:
        got = int(exit_.code or 0)
    finally:
        warnings.showwarning = shown
        structlog.reset_defaults()
    out.flush()
    answer = Answer(got, out.buffer.getvalue(), err.getvalue())  # type: ignore[attr-defined]
    assert code in {None, got}, f"k2 {' '.join(arguments)} exited {got}\n{answer.text[-3000:]}\n{answer.err[-3000:]}"
    return answer
