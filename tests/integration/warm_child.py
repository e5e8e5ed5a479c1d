"""A process that feeds the warm sink as a flow would: `python -m tests.integration.warm_child HOME STATE END PAUSE_S`.

STATE is the engine's saved position: written after each barrier, read at the start. Exits with the error's exit code.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from market.errors import PipelineError
from sinks import warm_store
from sinks.clickhouse.warm import ClickHouseWarm
from tests.integration.warm_outputs import EXCHANGE, GENERATION, TABLES, TOPIC, raw_batch

BATCH = 50
EPOCH = 8


def main() -> None:
    home, state, end, pause = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    position = int(state.read_text()) if state.exists() else None
    sink = ClickHouseWarm(lambda: warm_store.ensure(home), TABLES)
    part = sink.open(EXCHANGE, TOPIC, 0, GENERATION, position)
    print("open", flush=True)
    offset, batches = position or 0, 0
    while offset < end:
        count = min(BATCH, end - offset)
        for output in raw_batch(offset, count):
            part.write(output)
        offset, batches = offset + count, batches + 1
        if batches % EPOCH == 0 or offset == end:
            part.commit()
            new = state.with_suffix(".new")
            new.write_text(str(offset))
            new.replace(state)
        print(offset, flush=True)
        time.sleep(pause)
    sink.close()


if __name__ == "__main__":
    try:
        main()
    except PipelineError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        sys.exit(error.exit_code)
