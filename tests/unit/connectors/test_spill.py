from __future__ import annotations

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from connectors.live.outgoing import Chunk
from connectors.live.spill import Spill
from tests.feeding import chunk, marker

MANY = 1 << 30


def texts(chunks: list[Chunk]) -> list[str]:
    return [p.decode() for c in chunks for p in c.records.column("payload").to_pylist()]


def test_chunks_come_back_in_order_with_all_they_hold(tmp_path: Path) -> None:
    spill = Spill(tmp_path)
    given = [chunk("a", "b"), marker("m"), chunk("c", topic="raw.trades.kraken", symbol="ETH/USD")]
    for one in given:
        spill.append(one)
    found = spill.read(MANY)
    assert [(c.topic, c.markers) for c in found] == [(c.topic, c.markers) for c in given]
    assert all(a.records.equals(b.records) for a, b in zip(found, given, strict=True))
    assert spill.read(MANY) == []
    spill.close()


def test_reading_stops_near_the_limit_and_goes_on(tmp_path: Path) -> None:
    spill = Spill(tmp_path, segment_bytes=1_000)
    for number in range(20):
        spill.append(chunk(str(number)))
    found: list[str] = []
    while piece := texts(spill.read(1)):
        assert len(piece) == 1
        found += piece
    assert found == [str(n) for n in range(20)]
    spill.close()


def test_acknowledged_segments_are_removed_and_the_rest_survives_the_process(tmp_path: Path) -> None:
    spill = Spill(tmp_path, segment_bytes=1_000)
    ends = [spill.append(chunk(str(number))) for number in range(20)]
    files = sorted(tmp_path.iterdir())
    before = len(files)
    assert all(file.stat().st_size >= 1_000 for file in files[:-1])
    spill.ack(ends[9])
    assert spill.nbytes == ends[-1] - ends[9]
    assert len(list(tmp_path.iterdir())) < before
    spill.close()
    again = texts(Spill(tmp_path).read(MANY))
    assert again[-10:] == [str(n) for n in range(10, 20)]  # a whole segment at a time is forgotten


def test_all_acknowledged_leaves_no_file_and_goes_on(tmp_path: Path) -> None:
    spill = Spill(tmp_path)
    spill.ack(spill.append(chunk("a")))
    assert list(tmp_path.iterdir()) == []
    spill.append(chunk("b"))
    assert texts(spill.read(MANY)) == ["b"]
    spill.close()


def test_rewind_reads_again_what_is_not_acknowledged(tmp_path: Path) -> None:
    spill = Spill(tmp_path)
    end = spill.append(chunk("a"))
    spill.append(chunk("b"))
    spill.read(MANY)
    spill.ack(end)
    spill.rewind()
    assert texts(spill.read(MANY)) == ["b"]
    spill.close()


def test_new_segments_stand_behind_those_that_were_left(tmp_path: Path) -> None:
    first = Spill(tmp_path)
    first.append(chunk("old"))
    first.close()
    left = Spill(tmp_path)
    own = Spill(tmp_path, after=left)
    own.append(chunk("new"))
    assert texts(left.read(MANY)) == ["old"]
    assert texts(own.read(MANY)) == ["new"]
    left.ack(left.read_at)
    own.close()
    assert texts(Spill(tmp_path).read(MANY)) == ["new"]


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_torn_entry_ends_its_segment_and_later_markers_are_not_believed(tmp_path: Path, cut: int) -> None:
    spill = Spill(tmp_path, segment_bytes=1)
    for one in (chunk("a"), chunk("b"), marker("m"), chunk("c")):
        spill.append(one)
    spill.close()
    torn = sorted(tmp_path.iterdir())[1]
    torn.write_bytes(torn.read_bytes()[:-cut])
    again = Spill(tmp_path)
    assert texts(again.read(MANY)) == ["a", "c"]
    assert [(d.path, d.at, d.lost_bytes) for d in again.damage] == [(torn, 0, torn.stat().st_size)]
    again.ack(again.read_at)
    assert [p.name for p in tmp_path.iterdir()] == ["000002.spill.damaged"]
    new = Spill(tmp_path)
    new.append(chunk("d"))  # the name is not used again
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000002.spill.damaged", "000003.spill"]
    new.close()


def test_flipped_byte_is_noticed(tmp_path: Path) -> None:
    spill = Spill(tmp_path)
    spill.append(chunk("a" * 100))
    spill.close()
    path = next(tmp_path.iterdir())
    body = bytearray(path.read_bytes())
    body[-60] ^= 1
    path.write_bytes(body)
    again = Spill(tmp_path)
    assert again.read(MANY) == []
    assert again.damage
    assert again.read_at == again.end


def test_damage_is_said_with_file_and_bytes_once(tmp_path: Path) -> None:
    (tmp_path / "000001.spill").write_bytes(b"not a spill")
    spill = Spill(tmp_path)
    with capture_logs() as said:
        assert spill.read(MANY) == []
        spill.ack(spill.read_at)
    kept = str(tmp_path / "000001.spill.damaged")
    assert [(line["event"], line["file"], line["bytes"]) for line in said] == [("spill_set_aside", kept, 11)]
    assert (tmp_path / "000001.spill.damaged").read_bytes() == b"not a spill"


def test_entry_that_was_refused_keeps_its_file_and_ends_what_later_markers_say(tmp_path: Path) -> None:
    spill = Spill(tmp_path)
    for one in (chunk("a"), chunk("b"), marker("m"), chunk("c")):
        spill.append(one)
    spill.close()
    again = Spill(tmp_path)
    assert texts(again.read(1)) == ["a"]
    again.refuse("too large")
    assert texts(again.read(MANY)) == ["b", "c"]
    again.ack(again.read_at)
    kept = tmp_path / "000001.spill.refused"
    assert list(tmp_path.iterdir()) == [kept]
    kept.rename(tmp_path / "000001.spill")
    assert texts(Spill(tmp_path).read(MANY)) == ["a", "b", "m", "c"]


def test_write_that_was_cut_and_cannot_be_taken_back_is_not_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(descriptor: int, entry: bytes) -> int:
        if len(entry) < 10:
            raise OSError(28, "No space left on device")
        return write(descriptor, entry[:-5])

    def refused(descriptor: int, length: int) -> None:
        raise OSError(5, "Input/output error")

    spill = Spill(tmp_path)
    spill.append(chunk("a"))
    write = os.write
    with monkeypatch.context() as broken:
        broken.setattr(os, "write", cut)
        broken.setattr(os, "ftruncate", refused)
        with pytest.raises(OSError, match="No space left"):
            spill.append(chunk("lost"))
    spill.append(chunk("b"))
    assert texts(spill.read(MANY)) == ["a", "b"]
    spill.close()
