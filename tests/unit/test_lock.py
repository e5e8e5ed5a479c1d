import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dataflows.lock import ExecutionLock
from market.errors import ConfigError, Locked

HOLD = """
import signal, sys, time
from pathlib import Path
from dataflows.lock import ExecutionLock
if sys.argv[2] == "deaf": signal.signal(signal.SIGTERM, signal.SIG_IGN)
lock = ExecutionLock(Path(sys.argv[1])); lock.acquire()
print("held", flush=True)
time.sleep(60)
"""


def hold(folder: Path, manner: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder), manner], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def freeze(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGSTOP)
    deadline = time.monotonic() + 10  # the kernel stops it a moment later: until then it would still take a SIGTERM
    while Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":
        assert time.monotonic() < deadline, "not stopped"
        time.sleep(0.01)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "recovery"


def test_place_where_no_lock_can_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"/file/recovery.lock of the recovery folder cannot be made: "):
        ExecutionLock(tmp_path / "file" / "recovery").acquire()


def test_second_holder_is_refused_and_told_who_holds(folder: Path) -> None:
    process = hold(folder, "polite")
    try:
        with pytest.raises(Locked, match=f"process {process.pid}"):
            ExecutionLock(folder).acquire()
    finally:
        process.kill()
        process.communicate()


def test_lock_is_free_again_after_kill(folder: Path) -> None:
    process = hold(folder, "polite")
    process.kill()
    process.communicate()
    lock = ExecutionLock(folder)
    lock.acquire()
    lock.release()


@pytest.mark.parametrize("manner", ["polite", "frozen"])
def test_take_over_ends_the_holder(folder: Path, manner: str) -> None:
    process = hold(folder, manner)
    if manner == "frozen":
        freeze(process)
    lock = ExecutionLock(folder)
    lock.acquire(take_over=True)
    lock.release()
    process.communicate(timeout=10)
    assert process.returncode == (-signal.SIGKILL if manner == "frozen" else -signal.SIGTERM)


def test_released_lock_can_be_taken_by_the_same_process(folder: Path) -> None:
    with ExecutionLock(folder) as first:
        first.acquire()
    with ExecutionLock(folder) as second:
        second.acquire()
