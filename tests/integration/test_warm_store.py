"""The served engine as a process: start, restart, stop, users, two homes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import multiprocessing
import os
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from config.run_file import read_run, run_path
from market.errors import ConfigError, FatalError
from sinks import warm_files, warm_store
from sinks.endpoint import Endpoint, ask


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "home"
    yield folder
    warm_store.stop(folder)


def ensured_url(home: Path) -> str:
    return warm_store.ensure(home).url


def refused_code(endpoint: Endpoint, sql: str) -> str:
    """Return the engine's error code for a statement that must not work."""
    import clickhouse_connect
    from clickhouse_connect.driver.exceptions import DatabaseError

    host, port = endpoint.url.removeprefix("http://").split(":")
    login = {"username": endpoint.user, "password": endpoint.password}
    with clickhouse_connect.get_client(host=host, port=int(port), **login) as client, pytest.raises(DatabaseError) as caught:
        client.command(sql)
    return str(caught.value.name)


def send(pid: int | None, number: signal.Signals) -> None:
    assert pid  # 0 would be our own process group
    os.kill(pid, number)


def gone(pid: int | None) -> bool:
    assert pid
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def wait_until(condition: object, seconds: float = 20) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_it_starts_once_publishes_itself_and_stops(home: Path) -> None:
    endpoint = warm_store.ensure(home)
    run = read_run(home)
    assert run["warm"] == {
        "url": endpoint.url,
        "user": "k2_writer",
        "password": endpoint.password,
        "reader_user": "k2_reader",
        "reader_password": endpoint.reader_password,
    }
    assert psutil.Process(run["pids"]["warm"]).cmdline()[-1] == str(home.resolve())
    assert warm_store.ensure(home) == endpoint
    assert read_run(home)["pids"]["warm"] == run["pids"]["warm"], "not started twice"
    assert warm_store.stop(home)
    assert gone(run["pids"]["warm"])
    assert "warm" not in read_run(home)["pids"]
    assert not warm_store.status(home).running
    assert not warm_store.stop(home)


def test_passwords_are_readable_by_the_owner_only_and_not_shown(home: Path) -> None:
    endpoint = warm_store.ensure(home)
    assert endpoint.password not in repr(endpoint)
    assert endpoint.reader_password not in repr(endpoint)
    private = [run_path(home), *(p for p in (home / "engine").rglob("*") if p.suffix in {".xml", ".json"})]
    assert len(private) == 4
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}


def test_only_our_users_get_in_and_the_reader_only_reads(home: Path) -> None:
    writer = warm_store.ensure(home)
    reader = writer.reader()
    assert ask(Endpoint(writer.url, "default", ""), "SELECT 1") is None
    assert ask(Endpoint(writer.url, writer.user, "wrong"), "SELECT 1") is None
    assert ask(writer, "CREATE DATABASE k2") == ""
    assert ask(writer, "CREATE TABLE k2.t (x Int64) ENGINE = MergeTree ORDER BY x") == ""
    assert ask(writer, "INSERT INTO k2.t VALUES (7)") == ""
    assert ask(reader, "SELECT x FROM k2.t") == "7"
    assert ask(reader, "SELECT name FROM system.tables WHERE database = 'k2'") == "t"
    for forbidden in (
        "INSERT INTO k2.t VALUES (8)",
        "DROP TABLE k2.t",
        "SELECT * FROM file('/etc/hostname', LineAsString)",
        "SELECT * FROM url('http://127.0.0.1:1/x', LineAsString)",
        "SELECT * FROM system.query_log",
        "KILL QUERY WHERE 1",
    ):
        assert refused_code(reader, forbidden) in {"ACCESS_DENIED", "READONLY", "UNKNOWN_TABLE"}, forbidden


def test_a_killed_engine_comes_back_at_the_same_address_with_its_data(home: Path) -> None:
    endpoint = warm_store.ensure(home)
    ask(endpoint, "CREATE DATABASE k2")
    ask(endpoint, "CREATE TABLE k2.t (x Int64) ENGINE = MergeTree ORDER BY x")
    ask(endpoint, "INSERT INTO k2.t VALUES (7)")
    for _ in range(2):
        killed = read_run(home)["pids"]["warm"]
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda killed=killed: read_run(home)["pids"].get("warm") != killed and ask(endpoint, "SELECT x FROM k2.t") == "7")
    assert warm_store.ensure(home) == endpoint


@pytest.mark.parametrize("both", [False, True])
def test_a_killed_supervisor_takes_its_engine_along_and_ensure_starts_anew(home: Path, *, both: bool) -> None:
    endpoint = warm_store.ensure(home)
    before = warm_store.status(home)
    send(before.supervisor_pid, signal.SIGKILL)
    if both:
        send(before.engine_pid, signal.SIGKILL)
    wait_until(lambda: gone(before.engine_pid))
    assert warm_store.ensure(home) == endpoint
    after = warm_store.status(home)
    assert after.running
    assert after.supervisor_pid not in {None, before.supervisor_pid}


def test_a_frozen_engine_without_a_supervisor_is_replaced(home: Path) -> None:
    endpoint = warm_store.ensure(home)
    before = warm_store.status(home)
    send(before.engine_pid, signal.SIGSTOP)
    send(before.supervisor_pid, signal.SIGKILL)
    wait_until(lambda: warm_store.status(home).supervisor_pid is None)
    assert warm_store.ensure(home) == endpoint
    assert gone(before.engine_pid)


def test_stop_ends_frozen_processes(home: Path) -> None:
    warm_store.ensure(home)
    before = warm_store.status(home)
    for pid in (before.supervisor_pid, before.engine_pid):
        send(pid, signal.SIGSTOP)
    assert warm_store.stop(home, timeout_s=0.5)
    wait_until(lambda: gone(before.engine_pid) and gone(before.supervisor_pid))


def test_several_processes_start_one_engine(home: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        urls = pool.map(ensured_url, [home] * 4)
        pool.close()
        pool.join()
    assert len(set(urls)) == 1
    log = [json.loads(line) for line in (home / "logs/warm-supervisor.log").read_text().splitlines() if line.startswith("{")]
    assert [line["event"] for line in log] == ["warm_engine_ready"]


def test_two_homes_run_side_by_side(tmp_path: Path) -> None:
    homes = [tmp_path / "a", tmp_path / "b"]
    try:
        first, second = (warm_store.ensure(home) for home in homes)
        assert first.url != second.url
        assert ask(first, "CREATE DATABASE k2") == ""
        assert ask(second, "SELECT count() FROM system.databases WHERE name = 'k2'") == "0"
        assert ask(Endpoint(first.url, second.user, second.password), "SELECT 1") is None
        assert warm_store.stop(homes[0])
        assert ask(second, "SELECT 1") == "1"
    finally:
        for home in homes:
            warm_store.stop(home)


def test_a_removed_run_file_is_written_again(home: Path) -> None:
    endpoint = warm_store.ensure(home)
    content = read_run(home)
    run_path(home).unlink()
    assert warm_store.ensure(home) == endpoint
    assert read_run(home) == content


def test_a_port_that_somebody_took_is_replaced(home: Path) -> None:
    import socket

    before = warm_store.ensure(home)
    warm_store.stop(home)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", warm_files.Files(home).port() or 0))
        other.listen()
        after = warm_store.ensure(home)
    assert after.url != before.url
    assert after.password == before.password
    assert read_run(home)["warm"]["url"] == after.url


def test_leftover_scratch_files_are_swept(home: Path) -> None:
    warm_store.ensure(home)
    warm_store.stop(home)
    orphan = home / "engine/tmp/tmp1234.raw"
    orphan.write_bytes(b"x")
    warm_store.ensure(home)
    assert not orphan.exists()


def test_a_store_that_cannot_start_says_why(home: Path) -> None:
    home.mkdir()
    (home / "warm").write_text("not a folder")
    with pytest.raises(ConfigError, match="cannot be made"):
        warm_store.ensure(home)
    (home / "warm").unlink()
    (home / "warm").mkdir()
    with (home / "warm" / "status").open("w") as status:
        fcntl.flock(status, fcntl.LOCK_EX)  # as another ClickHouse in that folder would
        with pytest.raises(FatalError, match=r"does not start(.|\n)*logs end with:\n(.|\n)*Cannot lock file"):
            warm_store.ensure(home)


def test_another_engine_version_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"26\.7\.3.*made for 26\.9\.\*.*make setup"):
        warm_store.check_version("26.7.3.1")


def test_the_engine_reads_below_the_home(home: Path) -> None:
    endpoint = warm_store.ensure(home)
    (home / "cold").mkdir()
    (home / "cold" / "x.csv").write_text("1\n2\n")
    assert ask(endpoint, "SELECT sum(c1) FROM file('cold/x.csv', CSV, 'c1 Int64')") == "3"


def test_a_store_whose_home_was_removed_ends(home: Path) -> None:
    warm_store.ensure(home)
    pids = [warm_files.holder(path) for path in (warm_files.Files(home).supervisor_lock, warm_files.Files(home).engine_lock)]
    moved = home.rename(home.with_name("moved"))  # as good as removed: nobody finds it there
    wait_until(lambda: all(gone(pid) for pid in pids))
    assert not home.exists()
    moved.rename(home)
