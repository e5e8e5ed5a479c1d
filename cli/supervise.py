"""Several `k2` processes as one: started in order, restarted when they fail, stopped in order, on one readable console."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from rich.console import Console
from rich.text import Text

from market.errors import FatalError

STOP_SECONDS: Final = 75.0
_LOOK_S: Final = 0.1
STATUS_S: Final = 10.0
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
_STABLE_S: Final = 60.0  # a process that lived so long starts again at once
_FINAL_CODES: Final = (2, 3)  # a wrong setting, or not safe: starting again would not help
_COLOURS: Final = ("cyan", "green", "magenta", "yellow", "blue")
_LEVELS: Final = {"warning": "yellow", "error": "bold red", "critical": "bold red"}


@dataclass(frozen=True, slots=True)
class Part:
    """One process.

    `ready`: what it prints once the next part may start; empty: it may start at once. `stop_order`: lower ones are stopped
    first. `mute`: lines that hold one of these are not shown.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    ready: str = ""
    stop_order: int = 0
    mute: tuple[str, ...] = ()


def k2(*arguments: str) -> list[str]:
    """Return the command line of a `k2` command of this installation that does not outlive its supervisor."""
    return [sys.executable, "-m", "cli.tied", *arguments]


class _Running:
    """A part and its process of now."""

    def __init__(self, part: Part, show: Callable[[str, str], None]) -> None:
        self.part = part
        self.is_ready = threading.Event()
        self.started_at = 0.0
        self.pause = _FIRST_PAUSE_S
        self.due: float | None = None  # when it is to be started again
        self._show = show
        self._reader: threading.Thread | None = None
        self.process = self._start()

    def restart(self) -> None:
        self.due = None
        self._let_go()
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        self.started_at = time.monotonic()
        # A session of its own: Ctrl-C comes to us alone, and we stop the parts one after the other.
        process = subprocess.Popen(  # noqa: S603 our own commands
            self.part.command,
            env={**os.environ, **self.part.env},
            stdin=subprocess.PIPE,  # its end tells the part when we are killed (cli.tied)
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._reader.start()
        return process

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.closing(process.stdout or open(os.devnull, "rb")) as output:  # noqa: PTH123 closed by closing
            for line in output:
                text = line.decode(errors="replace").rstrip()
                if self.part.ready and self.part.ready in text:
                    self.is_ready.set()
                if text and not any(word in text for word in self.part.mute):
                    self._show(self.part.name, text)

    def stop(self, seconds: float) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._show(self.part.name, f"has not ended within {seconds:.0f} s and is killed")
                self.process.kill()
                self.process.wait()
        self._let_go()
        if self._reader is not None:
            self._reader.join(2)
        return self.process.returncode

    def _let_go(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()


class Supervisor:
    """Runs parts until Ctrl-C, SIGTERM, the end of its terminal, or a condition.

    Args:
        parts: in the order of their start; they are stopped in the same order unless they say otherwise, sources before what reads them.
        status: a line to show now and then; empty: nothing to say.
        status_seconds: how often.
        console: where lines go.
    """

    def __init__(
        self, parts: Sequence[Part], *, status: Callable[[], str] = str, status_seconds: float = STATUS_S, console: Console | None = None
    ) -> None:
        self._parts = list(parts)
        self._status, self._status_s = status, status_seconds
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._colours = {part.name: _COLOURS[i % len(_COLOURS)] for i, part in enumerate(self._parts)}
        self._width = max((len(part.name) for part in self._parts), default=0)
        self._stop = threading.Event()
        self._running: list[_Running] = []

    def run(self, until: Callable[[], bool] = bool) -> None:
        """Start the parts; return when all are stopped again.

        Args:
            until: asked now and then; true ends the run.

        Raises:
            FatalError: a part ended in a way that starting it again would not help; with its exit code.
        """
        with _signals(self._stop.set):
            try:
                for part in self._parts:
                    if self._stop.is_set():
                        break
                    self._begin(part)
                self._mind(until)
            finally:
                codes = {r.part.name: r.stop(STOP_SECONDS) for r in sorted(self._running, key=lambda r: r.part.stop_order)}
        failed = {name: code for name, code in codes.items() if code not in {0, -signal.SIGTERM}}
        if failed:
            name, code = next(iter(failed.items()))
            error = FatalError(f"{name} ended with code {code}: its last lines above say why")
            error.exit_code = code if code in _FINAL_CODES else FatalError.exit_code
            raise error

    @property
    def was_told(self) -> bool:
        """Whether a signal ended the run."""
        return self._stop.is_set()

    def end(self, name: str) -> None:
        """Stop one part, before the others."""
        for running in self._running:
            if running.part.name == name:
                running.stop(STOP_SECONDS)

    def _begin(self, part: Part) -> None:
        running = _Running(part, self._show)
        self._running.append(running)
        while part.ready and not running.is_ready.wait(_LOOK_S) and running.process.poll() is None and not self._stop.is_set():
            pass

    def _mind(self, until: Callable[[], bool]) -> None:
        status_at = time.monotonic() + self._status_s
        while not self._stop.wait(_LOOK_S) and not until():
            if not all(self._minded(running) for running in self._running):
                return
            if all(running.process.poll() == 0 for running in self._running):
                return
            if time.monotonic() >= status_at:
                status_at += self._status_s
                if text := self._status():
                    self._show("", text)

    def _minded(self, running: _Running) -> bool:
        # Whether to go on.
        if running.due is not None:
            if time.monotonic() >= running.due:
                running.restart()
            return True
        code = running.process.poll()
        if code is None or code == 0:  # 0: it was told to end, by `k2 down` perhaps
            return True
        if code in _FINAL_CODES:
            return False
        if time.monotonic() - running.started_at > _STABLE_S:
            running.pause = _FIRST_PAUSE_S
        self._show(running.part.name, f"ended with code {code}; starts again in {running.pause:.0f} s")
        running.due = time.monotonic() + running.pause
        running.pause = min(2 * running.pause, _LONGEST_PAUSE_S)
        return True

    def _show(self, name: str, text: str) -> None:
        clock = time.strftime("%H:%M:%S", time.gmtime())
        line = Text(f"{clock} ", style="dim")
        line.append(f"{name:<{self._width}} ", style=self._colours.get(name, "bold"))
        told, style = readable(text)
        line.append(told, style=style)
        with contextlib.suppress(OSError):  # a terminal that is gone
            self._console.print(line)


def readable(text: str) -> tuple[str, str]:
    """Return a log line for a person, and its style: JSON becomes `event key=value …`; anything else stays."""
    try:
        found: Any = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text, ""
    if not isinstance(found, dict) or "event" not in found:
        return text, ""
    level = str(found.pop("level", ""))
    found.pop("timestamp", None)
    event = str(found.pop("event")).replace("_", " ")
    facts = " ".join(f"{key}={value}" for key, value in found.items() if value not in ("", None))
    return f"{event}  {facts}".rstrip(), _LEVELS.get(level, "")


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    def asked(number: int, _frame: object) -> None:
        if number == signal.SIGHUP:
            _leave_terminal()
        stop()

    is_detached = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # nohup
    numbers = (signal.SIGINT, signal.SIGTERM) if is_detached else (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, asked) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave_terminal() -> None:
    # Nothing can be printed to a terminal that is gone; files and pipes are not.
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (1, 2):
        if stat.S_ISCHR(os.fstat(number).st_mode):
            os.dup2(nothing, number)
    os.close(nothing)
