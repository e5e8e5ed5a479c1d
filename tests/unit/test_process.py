"""What a flow asks of its own process. In a process of its own: nothing of it can be taken back."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SETTLED = """
import gc, json, pathlib
from dataflows.process import settle
settle()
status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
print(json.dumps([gc.get_freeze_count(), gc.isenabled(), gc.get_threshold()[0], status.get("THP_enabled", "0").strip()]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="huge pages are Linux's")
def test_settled_process_looks_at_new_objects_only_and_has_no_huge_pages() -> None:
    done = subprocess.run([sys.executable, "-c", SETTLED], capture_output=True, text=True, check=True)
    frozen, collects, threshold, huge = json.loads(done.stdout)
    assert frozen > 1_000
    assert collects
    assert threshold == 10_000
    assert huge == "0"
