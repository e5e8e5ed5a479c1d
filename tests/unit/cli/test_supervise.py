from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable

import pytest
from rich.console import Console

from cli.supervise import Part, Supervisor, readable
from market.errors import FatalError


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


UNTIL_TERM = "import signal, time; print('here', flush=True); signal.signal(signal.SIGTERM, lambda *_: exit(0)); time.sleep(60)"


class Screen(io.StringIO):
    def lines(self) -> list[str]:
        return [line.split(" ", 1)[1].rstrip() for line in self.getvalue().splitlines()]


@pytest.fixture
def screen() -> Screen:
    return Screen()


def supervisor(screen: Screen, *parts: Part, status: Callable[[], str] = str) -> Supervisor:
    return Supervisor(parts, status=status, console=Console(file=screen, width=200, soft_wrap=True))


def shown(screen: Screen, text: str) -> Callable[[], bool]:
    deadline = time.monotonic() + 20

    def found() -> bool:
        assert time.monotonic() < deadline, screen.getvalue()
        return text in screen.getvalue()

    return found


def test_lines_of_all_parts_come_with_their_name(screen: Screen) -> None:
    parts = (Part("a", python("print('one')")), Part("long", python("import sys; print('two', file=sys.stderr)")))
    supervisor(screen, *parts).run()
    assert sorted(screen.lines()) == ["a    one", "long two"]


def test_a_part_starts_when_the_one_before_is_ready_and_all_are_stopped(screen: Screen) -> None:
    slow = "import time; time.sleep(0.3); print('listening on x', flush=True); " + UNTIL_TERM
    supervisor(screen, Part("first", python(slow), ready="listening on"), Part("second", python(UNTIL_TERM))).run(
        shown(screen, "second here")
    )
    assert [line.split()[0] for line in screen.lines()] == ["first", "first", "second"]


def test_lines_that_nobody_wants_are_not_shown(screen: Screen) -> None:
    supervisor(screen, Part("a", python("print('one'); print('two'); print('three')"), mute=("one", "tw"))).run()
    assert screen.lines() == ["a three"]


def test_a_part_may_be_stopped_before_the_others_and_another_after_them(screen: Screen) -> None:
    code = UNTIL_TERM.replace("exit(0)", "(print('bye', flush=True), exit(0))")
    running = supervisor(
        screen, Part("last", python(code), ready="here", stop_order=1), Part("a", python(code)), Part("early", python(code))
    )

    def ended() -> bool:
        if screen.getvalue().count("here") < 3:
            return False
        running.end("early")
        return True

    running.run(ended)
    assert [line.split()[0] for line in screen.lines() if "bye" in line] == ["early", "a", "last"]
    assert not running.was_told


def test_failed_part_is_started_again(screen: Screen) -> None:
    code = "import os; print('pid', os.getpid(), flush=True); os._exit(4)"
    with pytest.raises(FatalError, match="code 4"):
        supervisor(screen, Part("a", python(code))).run(lambda: screen.getvalue().count("pid") == 2)
    assert "ended with code 4; starts again in 1 s" in screen.getvalue()


@pytest.mark.parametrize("code", [2, 3])
def test_wrong_setting_or_refusal_ends_everything_with_its_code(screen: Screen, code: int) -> None:
    with pytest.raises(FatalError) as raised:
        supervisor(screen, Part("a", python(UNTIL_TERM)), Part("b", python(f"print('no'); exit({code})"))).run()
    assert raised.value.exit_code == code
    assert "b no" in screen.lines()


def test_environment_of_a_part_is_its_own(screen: Screen) -> None:
    supervisor(screen, Part("a", python("import os; print(os.environ['K2_HOME'])"), env={"K2_HOME": "there"})).run()
    assert screen.lines() == ["a there"]
    assert os.environ.get("K2_HOME") != "there"


@pytest.mark.parametrize(
    ("line", "told", "style"),
    [
        ('{"event": "feed_connected", "level": "info", "timestamp": "x", "symbols": 2, "detail": ""}', "feed connected  symbols=2", ""),
        ('{"event": "topic_unreachable", "level": "warning"}', "topic unreachable", "yellow"),
        ("plain text", "plain text", ""),
        ("[1]", "[1]", ""),
        ('{"no": "event"}', '{"no": "event"}', ""),
    ],
)
def test_log_lines_are_made_readable(line: str, told: str, style: str) -> None:
    assert readable(line) == (told, style)
