from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli.supervise import k2
from dataflows.lock import ExecutionLock


def test_command_whose_starter_is_gone_ends_as_if_it_were_told(tmp_path: Path) -> None:
    env = {**os.environ, "K2_HOME": str(tmp_path)}
    command = k2("simulate", "--port", "0")
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        while b"listening on" not in process.stdout.readline():
            assert process.poll() is None
        process.stdout.close()
        process.stdin.close()
        assert process.wait(20) == 0


SUPERVISING = """
import sys
from cli.supervise import Part, Supervisor, k2
Supervisor([Part("a", k2("simulate", "--port", "0"))]).run()
"""


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
def test_part_ends_with_its_supervisor(tmp_path: Path, number: signal.Signals) -> None:
    env = {**os.environ, "K2_HOME": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", SUPERVISING], env=env, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        while b"listening on" not in process.stderr.readline():
            assert process.poll() is None
        part = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
        end = os.pidfd_open(part)
        process.send_signal(number)
        assert process.wait(30) == (0 if number == signal.SIGHUP else -number)
        assert ended_within(end, 30)
        os.close(end)


ON_A_TERMINAL = """
import os, sys
terminal = os.open(sys.argv[1], os.O_RDWR)
for number in (0, 1, 2):
    os.dup2(terminal, number)
"""
SAYING = """
print("was told:", supervisor.was_told, flush=True)
open(sys.argv[2], "w").write("ended well")
"""


def test_terminal_that_is_gone_can_still_be_printed_to(tmp_path: Path) -> None:
    env = {**os.environ, "K2_HOME": str(tmp_path)}
    ours, theirs = os.openpty()
    said = tmp_path / "said"
    supervising = SUPERVISING.replace("Supervisor([", "supervisor = Supervisor([").replace(".run()", "\nsupervisor.run()")
    command = [sys.executable, "-c", ON_A_TERMINAL + supervising + SAYING, os.ttyname(theirs), str(said)]
    with subprocess.Popen(command, env=env, start_new_session=True) as process:
        printed = b""
        while b"listening on" not in printed:
            printed += os.read(ours, 1000)
        os.close(theirs)
        os.close(ours)
        assert process.wait(30) == 0
    assert said.read_text() == "ended well"


def ended_within(pidfd: int, seconds: float) -> bool:
    with select.epoll() as poll:
        poll.register(pidfd, select.EPOLLIN)
        return bool(poll.poll(seconds))


def test_live_beside_a_running_flow_is_refused_before_anything_starts(tmp_path: Path) -> None:
    home, listed = tmp_path / "home", tmp_path / "instruments.yaml"
    listed.write_text("kraken: [BTC/USD]")
    env = {**os.environ, "K2_HOME": str(home), "K2_INSTRUMENTS": str(listed)}
    with ExecutionLock(home / "recovery") as lock:
        lock.acquire()
        done = subprocess.run([sys.executable, "-m", "cli.main", "live"], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "a flow is running here" in done.stderr) == (3, True)
    assert sorted(path.name for path in home.iterdir()) == ["recovery.lock"]
