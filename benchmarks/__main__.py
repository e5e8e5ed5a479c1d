"""`make bench`: rates of every part, the whole flow, its limits and the naive flow, all in one run.

Prints a table and writes `benchmarks/results/bench.json`; `--docs` also writes docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import tempfile
from pathlib import Path

from benchmarks import measure
from benchmarks.generate import Workload
from benchmarks.report import Figure, page, table

RESULTS = Path(__file__).parent / "results" / "bench.json"
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"


def main() -> None:
    """Run the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trades", type=int, default=1_000_000)
    parser.add_argument("--naive-trades", type=int, default=100_000, help="the naive flow is measured on fewer trades")
    parser.add_argument("--only", nargs="*", help="names of groups to run", choices=list(measure.GROUPS))
    parser.add_argument("--docs", action="store_true", help="write docs/performance.md")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="k2-bench-"))
    figures: list[Figure] = []
    try:
        bench = measure.Bench(folder, Workload(trades=options.trades), options.naive_trades)
        try:
            for name in options.only or measure.GROUPS:
                print(f"… {name}", flush=True)
                figures += measure.GROUPS[name](bench)
        finally:
            bench.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(table(figures))
    RESULTS.parent.mkdir(exist_ok=True)
    machine = {"cpu_count": measure.cores(), "python": platform.python_version(), "machine": platform.machine()}
    RESULTS.write_text(json.dumps({"machine": machine, "trades": options.trades, "figures": [f.__dict__ for f in figures]}, indent=1))
    print(f"written to {RESULTS}")
    if options.docs:
        _, heading, beside = PAGE.read_text().partition("\n## ")  # what was measured otherwise stays
        PAGE.write_text(page(figures, options.trades, machine) + heading + beside)


if __name__ == "__main__":
    main()
