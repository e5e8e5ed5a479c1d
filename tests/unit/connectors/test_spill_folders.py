from __future__ import annotations

from pathlib import Path

import pytest

from connectors.live.spill import Spill
from connectors.live.spill_folders import open_spills
from market.errors import ConfigError, Locked
from tests.feeding import chunk


def leave(folder: Path, name: str, text: str) -> None:
    """What a killed feed of this name leaves behind."""
    (folder / name).mkdir(parents=True)
    (folder / name / "lock").touch()
    spill = Spill(folder / name)
    spill.append(chunk(text))
    spill.close()


def texts(spill: Spill) -> list[str]:
    return [p.decode() for c in spill.read(1 << 30) for p in c.records.column("payload").to_pylist()]


def test_a_name_is_used_once_at_a_time(tmp_path: Path) -> None:
    first = open_spills(tmp_path, "a")
    with pytest.raises(Locked, match="a feed called 'a' runs"):
        open_spills(tmp_path, "a")
    second = open_spills(tmp_path, "b")
    assert second.older == []
    first.close()
    second.close()
    assert list(tmp_path.iterdir()) == []
    open_spills(tmp_path, "a").close()


def test_left_over_of_ended_feeds_is_taken_over_once(tmp_path: Path) -> None:
    leave(tmp_path, "x", "of x")
    leave(tmp_path, "a", "of a")
    mine = open_spills(tmp_path, "a")
    other = open_spills(tmp_path, "b")
    assert sorted(text for spill in mine.older for text in texts(spill)) == ["of a", "of x"]
    assert other.older == []
    mine.own.append(chunk("new"))
    assert texts(mine.own) == ["new"]
    for spill in mine.older:
        spill.ack(spill.end)
    mine.close()
    other.close()
    assert [p.name for p in tmp_path.iterdir()] == ["a"]  # its own spill waits for the next


def test_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "feed").write_text("a file")
    with pytest.raises(ConfigError, match="feed"):
        open_spills(tmp_path / "feed", "a")


def test_a_name_whose_left_over_another_feed_writes_may_be_used_again(tmp_path: Path) -> None:
    leave(tmp_path, "x", "of x")
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "lock").touch()
    other = open_spills(tmp_path, "b")
    assert [text for spill in other.older for text in texts(spill)] == ["of x"]
    for name in ("x", "y"):
        again = open_spills(tmp_path, name)
        assert again.older == []
        again.close()
    other.close()
    left = open_spills(tmp_path, "c")  # b ended before it had written what x left
    assert [text for spill in left.older for text in texts(spill)] == ["of x"]
    left.close()


def test_segment_that_got_its_name_back_is_taken_over(tmp_path: Path) -> None:
    leave(tmp_path, "x", "of x")
    kept = tmp_path / "x" / "000001.spill.refused"
    (tmp_path / "x" / "000001.spill").rename(kept)
    first = open_spills(tmp_path, "a")
    assert first.older == []
    first.close()
    assert list((tmp_path / "x").iterdir()) == [kept]
    kept.rename(tmp_path / "x" / "000001.spill")
    second = open_spills(tmp_path, "a")
    assert [text for spill in second.older for text in texts(spill)] == ["of x"]
    second.close()


def test_empty_segment_of_a_full_disk_is_removed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "000001.spill").touch()
    open_spills(tmp_path, "a").close()
    assert list(tmp_path.iterdir()) == []


def test_a_running_feed_adopts_what_had_no_owner_at_two_looks(tmp_path: Path) -> None:
    mine, living = open_spills(tmp_path, "a"), open_spills(tmp_path, "b")
    living.own.append(chunk("of the living"))
    leave(tmp_path, "killed", "of the killed")
    assert mine.adopt() == []
    back = open_spills(tmp_path, "killed")  # started again at once: its own is its own
    assert mine.adopt() == []
    back.close()
    assert mine.adopt() == []
    (adopted,) = mine.adopt()
    assert texts(adopted) == ["of the killed"]
    assert adopted in mine.older
    assert mine.adopt() == []
    adopted.ack(adopted.end)
    mine.close()
    living.close()
    assert [p.name for p in tmp_path.iterdir()] == ["b"]
