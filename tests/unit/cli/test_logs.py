from __future__ import annotations

import io
import sys

import pytest
import structlog

from cli.logs import configure_logs
from cli.main import _fail
from cli.screen import say


class FullDisk(io.StringIO):
    """Stderr that takes nothing."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def test_log_line_that_cannot_be_written_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    before = structlog.get_config()
    monkeypatch.setattr(sys, "stderr", FullDisk())
    configure_logs()
    try:
        structlog.get_logger().error("spill_failed", folder="/x")
    finally:
        structlog.configure(**before)


def test_remark_that_nobody_can_read_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", FullDisk())
    say("7 bytes wait")


def test_error_that_cannot_be_written_keeps_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", FullDisk())
    with pytest.raises(SystemExit) as ended:
        _fail("nothing fits", 3, debug=False)
    assert ended.value.code == 3
