from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
import websockets
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from simulator.config import SimulatorConfig
from simulator.exchange import Conditions
from simulator.faults import parse_fault
from simulator.simulator import Simulator

RELAXED = Conditions(enforces_limits=False)
SYMBOLS = {"binance": "BTC/USDT", "kraken": "BTC/USD", "coinbase": "BTC/USD"}
START_US = 1_790_000_000_000_000


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 60))


@asynccontextmanager
async def simulated(**options: Any) -> AsyncIterator[Simulator]:
    config: dict[str, Any] = {"rate": 600.0, "symbols": 2, "conditions": RELAXED} | options
    async with Simulator(SimulatorConfig(**config)) as sim:
        yield sim


def socket_url(sim: Simulator, path: str) -> str:
    return sim.url.replace("http", "ws") + path


async def subscribe(sim: Simulator, exchange: str) -> ClientConnection:
    """Connect as a feed would and subscribe to the first symbol."""
    path, message = {
        "binance": ("/binance/ws", {"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": 1}),
        "kraken": ("/kraken/v2", {"method": "subscribe", "params": {"channel": "trade", "symbol": ["BTC/USD"], "snapshot": False}}),
        "coinbase": ("/coinbase/", {"type": "subscribe", "product_ids": ["BTC-USD"], "channel": "market_trades"}),
    }[exchange]
    client = await connect(socket_url(sim, path), ping_interval=None, max_queue=None)
    await client.send(json.dumps(message))
    return client


def trade_ids(exchange: str, frame: Any) -> list[int]:
    text = frame if isinstance(frame, str) else frame.decode()
    key = "t" if exchange == "binance" else "trade_id"
    return sorted(int(number) for number in re.findall(rf'"{key}":"?(\d+)', text))


async def listen(client: ClientConnection, exchange: str, ids: set[int], *, until: Callable[[], bool]) -> None:
    while not until():
        try:
            ids.update(trade_ids(exchange, await asyncio.wait_for(client.recv(), 0.1)))
        except TimeoutError:
            continue


async def past_ids(http: httpx.AsyncClient, exchange: str, first: int, last: int) -> set[int]:
    """Ask the venue's REST interface for trades as a feed would."""
    found: set[int] = set()
    if exchange == "binance":
        while first <= last:
            rows = (await http.get("/binance/api/v3/historicalTrades", params={"symbol": "BTCUSDT", "fromId": first})).json()
            found |= {row["id"] for row in rows}
            first = rows[-1]["id"] + 1 if rows else last + 1
    elif exchange == "kraken":
        since = "0"
        while not found or max(found) < last:
            result = (await http.get("/kraken/0/public/Trades", params={"pair": "XBTUSD", "since": since})).json()["result"]
            found |= {row[6] for row in result["XXBTZUSD"]}
            since = result["last"]
            if not result["XXBTZUSD"]:
                break
    else:
        after = last + 1
        while rows := (await http.get("/coinbase/products/BTC-USD/trades", params={"after": after})).json():
            found |= {row["trade_id"] for row in rows}
            after = min(row["trade_id"] for row in rows)
    return found


@pytest.mark.parametrize("exchange", ["binance", "kraken", "coinbase"])
def test_live_and_rest_together_are_the_books_but_for_lost_trades(exchange: str) -> None:
    async def scenario() -> None:
        faults = tuple(
            parse_fault(f"{text}:exchange={exchange}")
            for text in (
                "skip@0.8:count=7:symbols=" + SYMBOLS[exchange],
                "drop@1.2:how=reset",
                "lost@1.8:count=5:symbols=" + SYMBOLS[exchange],
            )
        )
        async with simulated(seconds=3, exchanges=(exchange,), faults=faults) as sim, httpx.AsyncClient(base_url=sim.url) as http:
            ids: set[int] = set()

            def over() -> bool:
                return bool(sim.books.state()["has_ended"])

            dropped = 0
            while not over():
                client = await subscribe(sim, exchange)
                try:
                    await listen(client, exchange, ids, until=over)
                    await listen(client, exchange, ids, until=_after(0.5))
                except ConnectionClosed:
                    dropped += 1
                await client.close()
            table = sim.books.trades(exchange, SYMBOLS[exchange])
            made = set(table["trade_id"].to_pylist())
            lost = {number for first, last in sim.books.lost(exchange, SYMBOLS[exchange]) for number in range(first, last + 1)}
            assert dropped == 1
            assert len(lost) == 5
            assert len(made - ids) >= 12
            ids |= await past_ids(http, exchange, min(made), max(made))
            assert ids == made - lost
            (skip,) = [fault for fault in sim.books.faults() if fault["kind"] == "skip"]
            assert sum(last - first + 1 for first, last in skip["ids"][SYMBOLS[exchange]]) == 7

    run(scenario)


def _after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def test_several_clients_have_subscriptions_of_their_own() -> None:
    async def scenario() -> None:
        async with simulated(exchanges=("binance",)) as sim:
            async with (
                connect(socket_url(sim, "/binance/stream?streams=btcusdt@trade"), max_queue=None) as first,
                connect(socket_url(sim, "/binance/ws/ethusdt@trade"), max_queue=None) as second,
            ):
                for _ in range(20):
                    assert json.loads(await first.recv())["stream"] == "btcusdt@trade"
                    assert json.loads(await second.recv())["s"] == "ETHUSDT"
                assert len(sim.books.state()["exchanges"]["binance"]["connections"]) == 2
            events = sim.books.events()
            assert [event["what"] for event in events][:2] == ["opened", "opened"]

    run(scenario)


def test_pings_are_answered_both_ways() -> None:
    async def scenario() -> None:
        conditions = Conditions(ping_seconds=0.1, pong_seconds=0.5)
        async with (
            simulated(exchanges=("binance",), conditions=conditions) as sim,
            connect(socket_url(sim, "/binance/ws"), ping_interval=None) as client,
        ):
            await (await client.ping())
            await asyncio.sleep(1.0)
            await (await client.ping())
            assert client.state is websockets.State.OPEN

    run(scenario)


def test_a_half_open_connection_does_not_answer() -> None:
    async def scenario() -> None:
        async with simulated(exchanges=("kraken",)) as sim:
            client = await subscribe(sim, "kraken")
            await client.recv()
            sim.inject(parse_fault("half_open@0:seconds=1"))
            await asyncio.sleep(0.1)
            pong = await client.ping()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(pong), 0.5)
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(_drain(client), 5)
            pong.cancelled() or pong.exception()

    run(scenario)


async def _drain(client: ClientConnection) -> None:
    while True:
        await client.recv()


def test_fragmented_messages_are_put_together_by_a_client() -> None:
    async def scenario() -> None:
        async with simulated(exchanges=("coinbase",), faults=(parse_fault("fragment@0:seconds=60"),)) as sim:
            client = await subscribe(sim, "coinbase")
            numbers = [json.loads(await client.recv())["sequence_num"] for _ in range(6)]
            assert numbers == list(range(6))
            await client.close()

    run(scenario)


def test_closing_and_resetting_are_seen_as_such() -> None:
    async def scenario() -> None:
        async with simulated(exchanges=("binance",)) as sim:
            for how, code in (("close", 1001), ("reset", None)):
                client = await subscribe(sim, "binance")
                await client.recv()
                sim.inject(parse_fault(f"drop@0:how={how}"))
                with pytest.raises(ConnectionClosed) as error:
                    await _drain(client)
                assert (error.value.rcvd.code if error.value.rcvd else None) == code

    run(scenario)


def test_maintenance_answers_503_to_handshakes() -> None:
    async def scenario() -> None:
        async with simulated(exchanges=("coinbase",), faults=(parse_fault("maintenance@0:seconds=0.5"),)) as sim:
            await asyncio.sleep(0.05)
            with pytest.raises(InvalidStatus) as error:
                await connect(socket_url(sim, "/coinbase/"))
            assert error.value.response.status_code == 503
            await asyncio.sleep(0.7)
            await (await subscribe(sim, "coinbase")).close()

    run(scenario)


def test_paths_that_do_not_exist_are_refused() -> None:
    async def scenario() -> None:
        async with simulated(exchanges=("binance",)) as sim, httpx.AsyncClient(base_url=sim.url) as http:
            for path in ("/binance/v2", "/nyse/ws"):
                with pytest.raises(InvalidStatus):
                    await connect(socket_url(sim, path))
            assert (await http.get("/nyse/x")).status_code == 404
            assert (await http.get("/books/nothing")).status_code == 404
            assert (await http.get("/books/trades", params={"exchange": "nyse", "symbol": "x"})).status_code == 400
            assert (await http.post("/binance/api/v3/ping")).status_code == 405

    run(scenario)


def test_rest_connections_are_kept_and_late_answers_stay_in_order() -> None:
    async def scenario() -> None:
        async with simulated(exchanges=("binance",), faults=(parse_fault("slow_rest@0:seconds=60:by=0.2"),)) as sim:
            await asyncio.sleep(0.05)
            reader, writer = await asyncio.open_connection(*sim.url.removeprefix("http://").split(":"))
            for path in ("time", "ping"):
                writer.write(f"GET /binance/api/v3/{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            data = b""
            while data.count(b"HTTP/1.1 200") < 2 or not data.endswith(b"{}"):
                data += await reader.read(10_000)
            assert data.index(b"serverTime") < data.rindex(b"HTTP/1.1")
            writer.close()
            await writer.wait_closed()

    run(scenario)


def test_nonsense_is_refused() -> None:
    async def scenario() -> None:
        async with simulated(exchanges=("binance",)) as sim:
            for sent, status in ((b"hello\r\n\r\n", b"400"), (b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000, b"431")):
                reader, writer = await asyncio.open_connection(*sim.url.removeprefix("http://").split(":"))
                writer.write(sent)
                assert status in await reader.read()
                writer.close()
                await writer.wait_closed()

    run(scenario)


def test_the_books_are_on_the_same_port() -> None:
    async def scenario() -> None:
        async with simulated(trades=500, quiet_symbols=1, start_us=START_US) as sim, httpx.AsyncClient(base_url=sim.url) as http:
            await sim.ended()
            state = (await http.get("/books/state")).json()
            assert state["released"] == 500
            assert state["exchanges"]["kraken"]["symbols"]["ETH/USD"]["quiet"] is True
            query = {"exchange": "kraken", "symbol": "BTC/USD"}
            lines = [json.loads(line) for line in (await http.get("/books/trades", params=query)).text.splitlines()]
            arrow = pa.ipc.open_stream((await http.get("/books/trades", params=query | {"format": "arrow"})).content).read_all()
            assert [line["trade_id"] for line in lines] == arrow["trade_id"].to_pylist()
            assert [line["price"] for line in lines[:3]] == [f"{price:.2f}" for price in arrow["price"].to_pylist()[:3]]
            klines = [json.loads(line) for line in (await http.get("/books/klines", params=query | {"interval": "1m"})).text.splitlines()]
            assert sum(kline["trade_count"] for kline in klines) == len(lines)
            assert (await http.get("/books/instruments")).text.startswith("binance:\n  - BTC/USDT\n  - ETH/USDT\nkraken:")
            assert (await http.get("/books/faults")).json() == []
            assert (await http.get("/books/events")).json() == []

    run(scenario)


def test_two_runs_of_one_seed_trade_the_same() -> None:
    async def traded() -> list[Any]:
        async with simulated(trades=900, start_us=START_US, seed=5, speed=4.0, faults=(parse_fault("lost@0.2:count=4"),)) as sim:
            await sim.ended()
            return [sim.books.trades(name, symbol).to_pylist() for name, symbol in SYMBOLS.items()]

    async def scenario() -> None:
        assert await traded() == await traded()

    run(scenario)


def test_recordings_are_traded_again() -> None:
    async def scenario() -> None:
        path = Path(__file__).parents[1] / "data" / "kraken" / "live-btc-eth_20260707.ndjson.gz"
        options: dict[str, Any] = {"exchanges": ("kraken",), "recordings": {"kraken": (path,)}, "once": True, "as_recorded": True}
        async with simulated(speed=20.0, **options) as sim:
            client = await connect(socket_url(sim, "/kraken/v2"))
            params = {"channel": "trade", "symbol": ["BTC/USD", "ETH/USD"], "snapshot": True}
            await client.send(json.dumps({"method": "subscribe", "params": params}))
            ids: set[int] = set()
            await listen(client, "kraken", ids, until=lambda: len(ids) >= 17)
            await client.close()
            await sim.ended()
            table = sim.books.trades("kraken", "BTC/USD")
            assert table["trade_id"].to_pylist() == list(range(103436768, 103436780))
            assert table["timestamp"][0].as_py() == 1783465204590753

    run(scenario)


def test_stopping_closes_everything() -> None:
    async def scenario() -> None:
        async with simulated() as sim:
            client = await subscribe(sim, "kraken")
            await client.recv()
        with pytest.raises(ConnectionClosed):
            await _drain(client)
        with pytest.raises(OSError, match="Connect call failed"):
            await connect(socket_url(sim, "/kraken/v2"))

    run(scenario)


def test_the_command_runs_until_it_is_told_to_stop(tmp_path: Path) -> None:
    instruments = tmp_path / "instruments.yaml"
    faults = tmp_path / "faults.yaml"
    faults.write_text("- {kind: drop, at: 0.1, exchange: kraken}\n")
    options = ["--port", "0", "--symbols", "2", "--rate", "200", "--seconds", "30", "--write-instruments", str(instruments)]
    options += ["--fault-file", str(faults), "--fault", "lost@0.2:count=1:exchange=binance", "--faults", "20"]
    command = [sys.executable, "-m", "cli.main", "simulate", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert process.stderr is not None
    try:
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stderr.readline())
        assert found is not None
        time.sleep(0.5)
        with httpx.Client(base_url=found[0]) as http:
            shown = http.get("/books/faults").json()
            assert {fault["kind"] for fault in shown} >= {"drop", "lost"}
            assert instruments.read_text() == http.get("/books/instruments").text
    finally:
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(10) == 0, rest
        process.stderr.close()


def test_the_command_can_end_by_itself_and_says_what_is_wrong() -> None:
    def simulate(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cli.main", "simulate", "--port", "0", *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=Path(__file__).parents[2])

    ended = simulate("--symbols", "1", "--trades", "50", "--rate", "500", "--exit-after", "0")
    assert ended.returncode == 0, ended.stderr
    assert "trading is over: 50 trades" in ended.stderr
    wrong = simulate("--fault", "dorp@1")
    assert wrong.returncode == 2
    assert "no fault is called 'dorp'" in wrong.stderr
