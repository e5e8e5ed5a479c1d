"""What a live feed costs: `python -m benchmarks.feed --rate 5000`; a simulated market and `k2 feed` as processes of their own.

Prints messages a second, the feed's share of a core, its resident memory, and how long frames took from the socket to the
topic's acknowledgement (upper bounds of histogram buckets). Simulator and feed share the machine with each other.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families

K2 = [sys.executable, "-m", "cli.main"]
SHARES = (0.5, 0.9, 0.99)


@contextlib.contextmanager
def started(log: Path, env: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a `k2` command while the block runs."""
    with log.open("wb") as out:
        process = subprocess.Popen([*K2, *arguments], env=env, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def waited_for(path: Path, pattern: str) -> str:
    """Return what a pattern finds in a file, once it does."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = re.search(pattern, path.read_text()) if path.exists() else None
        if found is not None:
            return found[1]
        time.sleep(0.1)
    sys.exit(f"{path} does not say {pattern!r}:\n{path.read_text() if path.exists() else ''}")


class Metrics:
    """Messages, and latencies by bucket, at one moment."""

    def __init__(self, url: str) -> None:
        with urllib.request.urlopen(url, timeout=10) as answer:
            families = {f.name: f.samples for f in text_string_to_metric_families(answer.read().decode())}
        self.messages = sum(s.value for s in families["k2_feed_messages"] if s.name.endswith("_total"))
        self.buckets: dict[float, float] = {}
        for sample in families["k2_feed_topic_latency_seconds"]:
            if sample.name.endswith("_bucket"):
                bound = float(sample.labels["le"])
                self.buckets[bound] = self.buckets.get(bound, 0.0) + sample.value


def quantiles(before: Metrics, after: Metrics, shares: Sequence[float]) -> list[float]:
    """Return an upper bound (seconds) of each share of the frames between two moments."""
    counts = {bound: count - before.buckets.get(bound, 0.0) for bound, count in sorted(after.buckets.items())}
    total = max(counts.values(), default=0.0)
    return [next(bound for bound, count in counts.items() if count >= share * total) for share in shares]


def main() -> None:
    """Measure one rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=5_000, help="trades a second, all venues together")
    parser.add_argument("--exchange", action="append", help="repeat for more; default: binance (one trade a message)")
    parser.add_argument("--symbols", type=int, default=50, help="of each exchange")
    parser.add_argument("--seconds", type=float, default=15)
    options = parser.parse_args()
    exchanges = list(itertools.chain.from_iterable(("-e", e) for e in options.exchange or ["binance"]))
    folder = Path(tempfile.mkdtemp(prefix="k2-bench-feed-"))
    env = {**os.environ, "K2_HOME": str(folder / "home"), "K2_INSTRUMENTS": str(folder / "instruments.yaml")}
    market = ("simulate", "--port", "0", "--symbols", str(options.symbols), "--rate", str(options.rate), *exchanges)
    try:
        with started(folder / "market.log", env, *market, "--write-instruments", env["K2_INSTRUMENTS"]):
            env["K2_VENUES_URL"] = waited_for(folder / "market.log", r"listening on (\S+)")
            with started(folder / "feed.log", env, "feed", "--name", "bench") as feed:
                waited_for(folder / "feed.log", "feed_(connected)")
                url = json.loads((folder / "home" / "run.json").read_text())["feeds"]["bench"]["metrics"]
                process = psutil.Process(feed.pid)
                time.sleep(3)
                before, cpu, began = Metrics(url), sum(process.cpu_times()[:2]), time.monotonic()
                time.sleep(options.seconds)
                after, cpu, took = Metrics(url), sum(process.cpu_times()[:2]) - cpu, time.monotonic() - began
                memory = process.memory_info().rss / (1 << 20)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    bounds = " ".join(
        f"p{share * 100:g} ≤ {bound * 1000:g} ms" for share, bound in zip(SHARES, quantiles(before, after, SHARES), strict=True)
    )
    messages = (after.messages - before.messages) / took
    print(f"{messages:,.0f} messages/s   {100 * cpu / took:.0f} % of a core   {memory:.0f} MB   socket to topic {bounds}")


if __name__ == "__main__":
    main()
