"""What only the SQLite log does: its file, its blocks, its errors."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.topics import blocks
from connectors.topics.registry import open_topics
from connectors.topics.sqlite import SqliteTopics
from connectors.topics.sqlite_file import ERRORS, SqliteFile
from market.errors import ConfigError, FatalError, InvariantViolation, PipelineError, Refused, SchemaMismatch, SourceDisconnected
from tests.records import numbered, offsets, payloads, read_all, records

TOPIC = "raw.trades.binance"
NOW_US = 1_700_000_000_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "topics.db"


@pytest.fixture
def log(path: Path) -> Iterator[SqliteTopics]:
    opened = SqliteTopics(f"sqlite:///{path}", now_us=lambda: NOW_US)
    opened.create(TOPIC, 2)
    yield opened
    opened.close()


def rows(path: Path, sql: str) -> list[tuple[int, ...]]:
    db = sqlite3.connect(path)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()


def block_sizes(path: Path) -> list[int]:
    return [n for (n,) in rows(path, "SELECT next_offset - first_offset FROM blocks ORDER BY topic_id, partition, next_offset")]


def change(path: Path, sql: str, *values: object) -> None:
    db = sqlite3.connect(path)
    with db:
        db.execute(sql, values)
    db.close()


def test_small_appends_are_merged_into_large_blocks(log: SqliteTopics, path: Path) -> None:
    for i in range(1_200):
        log.append(TOPIC, {0: numbered(i * 10, 10)})
    sizes = block_sizes(path)
    assert len(sizes) <= 2 * (blocks.MERGE_WIDTH - 1) + 12_000 // 2_560
    assert sum(sizes) == 12_000
    assert payloads(read_all(log, TOPIC, 0, 700)) == [b"%d" % i for i in range(12_000)]


@pytest.mark.parametrize(
    ("levels_from_end", "expected"),
    [
        ([], None),
        ([0] * 15, None),
        ([0] * 16, (0, 16)),
        ([0] * 15 + [1] + [0] * 15, None),
        ([1] * 15 + [2] + [1], None),
        ([0] * 3 + [1] * 16, (1, 19)),
        ([0, 1] * 16, (1, 32)),
        ([2] + [0] * 16, None),
    ],
)
def test_a_level_is_merged_when_the_end_holds_enough_of_it(levels_from_end: list[int], expected: tuple[int, int] | None) -> None:
    assert blocks.blocks_to_merge(levels_from_end) == expected


@pytest.mark.parametrize("seed", range(4))
def test_appends_of_any_sizes_keep_every_record_in_its_place(log: SqliteTopics, path: Path, seed: int) -> None:
    rng = random.Random(seed)
    ends = [0, 0]
    for _ in range(250):
        sizes = [rng.choice((0, 1, 3, 10, 10, 70, 200, 1_100)) for _ in ends]
        log.append(TOPIC, {p: numbered(ends[p], n) for p, n in enumerate(sizes)})
        ends = [end + n for end, n in zip(ends, sizes, strict=True)]
        if rng.random() < 0.2:
            partition = rng.randrange(2)
            offset = rng.randrange(ends[partition] + 1)
            batch = log.read(TOPIC, partition, offset, rng.choice((1, 50, 5_000)))
            got = [] if batch is None else payloads([batch])
            assert got == [b"%d" % i for i in range(offset, offset + len(got))]
            assert bool(got) == (offset < ends[partition])
    for partition, end in enumerate(ends):
        batches = read_all(log, TOPIC, partition, 999)
        assert payloads(batches) == [b"%d" % i for i in range(end)]
        assert offsets(batches) == list(range(end))


def test_merging_keeps_each_records_append_time(path: Path) -> None:
    clock = [NOW_US]
    log = SqliteTopics(f"sqlite:///{path}", now_us=lambda: clock[0])
    log.create(TOPIC, 1)
    for i in range(100):
        clock[0] = NOW_US + i
        log.append(TOPIC, {0: numbered(i, 1)})
    (batch,) = read_all(log, TOPIC, 0)
    assert batch.column("append_us").to_pylist() == [NOW_US + i for i in range(100)]
    log.close()


def test_a_merged_block_expires_with_its_youngest_record(path: Path) -> None:
    clock = [NOW_US]
    log = SqliteTopics(f"sqlite:///{path}", now_us=lambda: clock[0])
    log.create(TOPIC, 1)
    for i in range(blocks.MERGE_WIDTH):
        clock[0] = NOW_US + i
        log.append(TOPIC, {0: numbered(i, 1)})
    assert block_sizes(path) == [blocks.MERGE_WIDTH]
    assert log.expire(TOPIC, {0: blocks.MERGE_WIDTH}, clock[0]) == 0
    assert log.expire(TOPIC, {0: blocks.MERGE_WIDTH - 1}, clock[0] + 1) == 0
    assert log.expire(TOPIC, {0: blocks.MERGE_WIDTH}, clock[0] + 1) == blocks.MERGE_WIDTH
    log.close()


def test_blocks_have_a_bounded_number_of_records_and_bytes(log: SqliteTopics, path: Path) -> None:
    log.append(TOPIC, {0: numbered(0, 20_000), 1: records([os.urandom(1 << 20) for _ in range(20)])})
    assert max(block_sizes(path)) <= blocks.MAX_BLOCK_RECORDS
    assert max(n for (n,) in rows(path, "SELECT length(body) FROM blocks")) <= blocks.MAX_BLOCK_BYTES * 1.2


def test_one_read_is_bounded_in_bytes(log: SqliteTopics) -> None:
    frame = b"x" * (1 << 20)
    for _ in range(10):
        log.append(TOPIC, {0: records([frame] * 10)})
    batches = read_all(log, TOPIC, 0, 1_000)
    assert sum(b.num_rows for b in batches) == 100
    assert max(b.num_rows for b in batches) <= 80


def test_expiry_of_many_blocks_frees_space_that_is_used_again(log: SqliteTopics, path: Path) -> None:
    def fill() -> None:
        for _ in range(700):
            log.append(TOPIC, {0: records([os.urandom(300)] * 1_100)})
        log.close()  # the last one to close moves everything into the file itself

    fill()
    size = path.stat().st_size
    assert log.expire(TOPIC, {0: log.end_offsets(TOPIC)[0]}, NOW_US + 1) == 700 * 1_100
    fill()
    assert path.stat().st_size < 1.1 * size
    assert log.start_offsets(TOPIC)[0] == 700 * 1_100


def test_asking_about_a_log_that_does_not_exist_creates_nothing(path: Path) -> None:
    log = open_topics(f"sqlite:///{path}")
    assert log.topics() == []
    with pytest.raises(ConfigError, match=r"no topic raw\.trades\.binance in .*topics\.db \(topics: none\)"):
        log.end_offsets(TOPIC)
    assert not path.parent.exists()


def test_a_file_that_is_no_database_is_a_config_error(tmp_path: Path) -> None:
    path = tmp_path / "topics.db"
    path.write_bytes(b"this is a text file, and long enough to be looked at" * 100)
    for call in (lambda log: log.topics(), lambda log: log.create(TOPIC, 1)):
        with pytest.raises(ConfigError, match=r"topics\.db.*K2_TOPICS_URL"):
            call(open_topics(f"sqlite:///{path}"))
    assert path.read_bytes().startswith(b"this is a text")


def test_another_programs_database_is_a_config_error_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "topics.db"
    change(path, "CREATE TABLE mine (a)")
    before = path.read_bytes()
    for call in (lambda log: log.topics(), lambda log: log.create(TOPIC, 1)):
        with pytest.raises(ConfigError, match="no K2 topic log"):
            call(open_topics(f"sqlite:///{path}"))
    assert path.read_bytes() == before


def test_a_folder_in_the_place_of_the_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="K2_TOPICS_URL"):
        open_topics(f"sqlite:///{tmp_path}").topics()


def test_a_folder_that_cannot_be_made_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be created"):
        open_topics(f"sqlite:///{tmp_path}/file/topics.db").create(TOPIC, 1)


def test_a_log_of_another_version_is_a_schema_mismatch(log: SqliteTopics, path: Path) -> None:
    log.close()
    change(path, "PRAGMA user_version = 99")
    with pytest.raises(SchemaMismatch, match="version 99"):
        log.topics()


def test_a_damaged_block_is_named_with_the_way_out(log: SqliteTopics, path: Path) -> None:
    log.append(TOPIC, {0: numbered(0, 100)})
    change(path, "UPDATE blocks SET body = ?", b"\xff" * 500)
    with pytest.raises(FatalError, match=r"topics\.db is damaged.*backup"):
        log.read(TOPIC, 0, 0, 10)


def test_a_block_of_the_wrong_length_is_damage(log: SqliteTopics, path: Path) -> None:
    log.append(TOPIC, {0: numbered(0, 100)})
    change(path, "UPDATE blocks SET next_offset = 90")
    with pytest.raises(FatalError, match="a block of 90 records holds 100"):
        log.read(TOPIC, 0, 0, 10)


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_missing_block_is_damage_and_never_a_silent_skip(log: SqliteTopics, path: Path, lost: int) -> None:
    for i in range(3):
        log.append(TOPIC, {0: numbered(i * 2_000, 2_000)})
    change(path, "DELETE FROM blocks WHERE first_offset = ?", lost * 2_000)
    with pytest.raises(FatalError, match=rf"misses the records {lost * 2_000} to {lost * 2_000 + 1_999}"):
        read_all(log, TOPIC, 0, 10_000)


def test_a_truncated_file_is_damage(log: SqliteTopics, path: Path) -> None:
    for _ in range(20):
        log.append(TOPIC, {0: records([os.urandom(300)] * 1_100)})
    log.close()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(FatalError, match=r"topics\.db"):
        read_all(log, TOPIC, 0)


def test_a_file_that_was_replaced_stops_its_users(log: SqliteTopics, path: Path) -> None:
    path.rename(path.with_name("elsewhere.db"))
    with pytest.raises(Refused, match="removed or replaced"):
        log.read(TOPIC, 0, 0, 10)
    with pytest.raises(Refused, match="removed or replaced"):
        log.append(TOPIC, {0: numbered(0, 1)})


def test_a_writer_that_waits_too_long_may_try_again(log: SqliteTopics, path: Path) -> None:
    other = SqliteTopics(f"sqlite:///{path}?timeout=0.05")
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(SourceDisconnected, match="locked"):
        other.append(TOPIC, {0: numbered(0, 1)})
    assert other.read(TOPIC, 0, 0, 10) is None, "readers do not wait for writers"
    blocker.execute("COMMIT")
    blocker.close()
    other.append(TOPIC, {0: numbered(0, 1)})
    assert payloads(read_all(log, TOPIC, 0)) == [b"0"]
    other.close()


def test_a_full_disk_loses_nothing_that_was_acknowledged(log: SqliteTopics, path: Path) -> None:
    log.append(TOPIC, {0: numbered(0, 10)})
    with log._file.transaction() as db:
        db.execute("PRAGMA max_page_count = 20")
    with pytest.raises(SourceDisconnected, match="full"):
        log.append(TOPIC, {0: numbered(10, 1), 1: records([os.urandom(500_000)])})
    assert log.end_offsets(TOPIC) == [10, 0]
    assert payloads(read_all(log, TOPIC, 0)) == [b"%d" % i for i in range(10)]


def test_every_result_code_of_sqlite_has_a_reaction() -> None:
    codes = {
        value
        for name, value in vars(sqlite3).items()
        if name.startswith("SQLITE_") and isinstance(value, int) and value < 256 and sqlite3.sqlite_version_info and _is_result_code(name)
    }
    bugs = {
        sqlite3.SQLITE_OK, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_INTERNAL, sqlite3.SQLITE_ABORT, sqlite3.SQLITE_NOTFOUND, sqlite3.SQLITE_EMPTY,
        sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_MISUSE,
        sqlite3.SQLITE_NOLFS, sqlite3.SQLITE_RANGE, sqlite3.SQLITE_NOTICE, sqlite3.SQLITE_WARNING, sqlite3.SQLITE_ROW, sqlite3.SQLITE_DONE,
    }  # fmt: skip
    assert codes == bugs | ERRORS.keys()
    assert all(issubclass(kind, PipelineError) for kind in ERRORS.values())


def _is_result_code(name: str) -> bool:
    """The module also lists authoriser actions and limits, which share the numbers."""
    return name.removeprefix("SQLITE_") in {
        "OK", "ERROR", "INTERNAL", "PERM", "ABORT", "BUSY", "LOCKED", "NOMEM", "READONLY", "INTERRUPT", "IOERR", "CORRUPT", "NOTFOUND",
        "FULL", "CANTOPEN", "PROTOCOL", "EMPTY", "SCHEMA", "TOOBIG", "CONSTRAINT", "MISMATCH", "MISUSE", "NOLFS", "AUTH", "FORMAT", "RANGE",
        "NOTADB", "NOTICE", "WARNING", "ROW", "DONE",
    }  # fmt: skip


def test_a_mistake_in_our_own_statements_is_our_bug(log: SqliteTopics) -> None:
    with pytest.raises(InvariantViolation), log._file.transaction() as db:
        db.execute("SELECT nothing FROM nowhere")
    assert log.end_offsets(TOPIC) == [0, 0]


def test_a_file_must_be_opened_before_it_is_used(path: Path) -> None:
    with pytest.raises(InvariantViolation), SqliteFile(f"sqlite:///{path}").transaction():
        pass


@pytest.mark.parametrize(
    "url",
    ["sqlite://topics.db", "sqlite:///", "sqlite:///a.db?mode=ro", "sqlite:///a.db?timeout=soon", "sqlite:///a.db?synchronous=off"],
)
def test_a_url_that_says_something_else_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError, match=r"SQLite|sqlite:///"):
        open_topics(url)


@pytest.mark.parametrize("url", ["mysql://host/db", "topics.db", "", "sqlite:/x.db"])
def test_an_unknown_scheme_names_the_known_ones(url: str) -> None:
    with pytest.raises(ConfigError, match=r"sqlite:///.*kafka://"):
        open_topics(url)


def test_relative_paths_and_odd_names_are_taken_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    log = open_topics("sqlite:///my home %41/topics#1.db?timeout=1&synchronous=normal")
    log.create(TOPIC, 1)
    log.close()
    assert (tmp_path / "my home %41" / "topics#1.db").exists()


def test_processes_that_create_the_log_together_agree(path: Path) -> None:
    code = f"from connectors.topics.registry import open_topics; l = open_topics('sqlite:///{path}'); l.create('{TOPIC}', 4); print(l.generation('{TOPIC}'))"
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = set()
    for process in processes:
        with process:
            out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        answers.add(out)
    assert len(answers) == 1


def test_threads_may_share_one_log(log: SqliteTopics) -> None:
    failures: list[BaseException] = []

    def work(partition: int) -> None:
        try:
            for i in range(60):
                log.append(TOPIC, {partition: numbered(i * 5, 5)})
                read_all(log, TOPIC, partition, 7, offset=i * 5)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(p,)) for p in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for partition in (0, 1):
        assert payloads(read_all(log, TOPIC, partition)) == [b"%d" % i for i in range(300)]
