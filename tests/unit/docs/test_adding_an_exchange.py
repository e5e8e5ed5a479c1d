"""The guide to a new exchange says what the code says."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from connectors.venues.layout import Layout
from connectors.venues.registry import VENUES

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs" / "adding-an-exchange.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
FILES = ("connectors/venues/bitstamp.py", "connectors/venues/registry.py")


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.strip().splitlines()[0][:40])
def test_its_blocks_are_excerpts_of_the_code(block: str) -> None:
    assert any(block in (ROOT / name).read_text() for name in FILES)


def test_it_has_blocks() -> None:
    assert len(BLOCKS) >= 5


def test_the_files_it_names_exist() -> None:
    for name in set(re.findall(r"`((?:tests|connectors|config)/[a-z_/]+\.(?:py|yaml))`", GUIDE)):
        assert (ROOT / name).is_file(), name
    for name in set(re.findall(r"`([a-z_]+\.py)`", GUIDE)):
        found = [*(ROOT / "connectors" / "venues").glob(name), *(ROOT / "tests" / "unit" / "venues").glob(name)]
        assert found, name
    (recording,) = set(re.findall(r"k2 load --exchange bitstamp (\S+)", GUIDE))
    assert (ROOT / recording).is_file()


def test_it_names_every_part_of_a_layout() -> None:
    for field in dataclasses.fields(Layout):
        assert re.search(rf"\b{field.name}\b", GUIDE), field.name


def test_examples_of_the_instruments_file_name_every_venue() -> None:
    text = (ROOT / "config" / "instruments.yaml").read_text()
    assert [name for name in VENUES if not re.search(rf"^(# )?{name}:", text, re.MULTILINE)] == []
