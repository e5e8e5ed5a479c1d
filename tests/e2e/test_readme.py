"""The README's snippets run as they stand, against a home with the demo's recordings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.demo_market import recordings
from tests.e2e.harness import Home, home

README = Path(__file__).parents[2] / "README.md"
SNIPPETS = {
    name: (language, text)
    for name, language, text in re.findall(r"<!-- snippet: (\w+) -->\n```(\w+)\n(.*?)```", README.read_text(), flags=re.DOTALL)
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    # Loaded, which is quicker than the demo itself: tests/integration/test_cli_demo.py plays that.
    with home(tmp_path_factory.mktemp("demo") / "home") as where:
        for exchange, path in recordings():
            where.k2("load", "-e", exchange, str(path))
        where.k2("run", "--until-end")
        yield where


def test_readme_shows_how_to_query_with_all_three() -> None:
    assert set(SNIPPETS) == {"clickhouse", "polars", "duckdb"}


@pytest.mark.parametrize("name", sorted(SNIPPETS))
def test_readme_snippet_runs_as_written(demo: Home, name: str, tmp_path: Path) -> None:
    language, text = SNIPPETS[name]
    command = [sys.executable, "-c", text] if language == "python" else ["bash", "-euo", "pipefail", "-c", text]
    env = {**os.environ, "K2_HOME": str(demo.folder)}
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert {"clickhouse": "close_price", "polars": "close_price", "duckdb": "BTC/USDT"}[name] in done.stdout, done.stdout + done.stderr
