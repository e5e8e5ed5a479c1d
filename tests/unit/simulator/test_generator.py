from __future__ import annotations

import numpy as np
import pytest

from simulator.block import Block
from simulator.generator import BLOCK_US, Generator, mean_fills, zipf_weights
from simulator.listing import default_symbols, listing_of


def generator(*, seed: int = 1, rate: float = 2000.0, symbols: int = 5, quiet: int = 0, **options: int) -> Generator:
    weights = zipf_weights(symbols, quiet=quiet, rate=rate, quiet_rate=0.05)
    listings = [
        listing_of(name, n, lot_digits=8, weight=weight, is_quiet=n >= symbols - quiet)
        for n, (name, weight) in enumerate(zip(default_symbols("USDT", symbols), weights, strict=True))
    ]
    return Generator("binance", listings, seed=seed, rate=rate, **options)


def blocks(source: Generator, count: int) -> list[Block]:
    found = [source.next_block() for _ in range(count)]
    return [block for block in found if block is not None]


def test_one_seed_makes_the_same_trades() -> None:
    for a, b in zip(blocks(generator(), 8), blocks(generator(), 8), strict=True):
        for name in Block.__slots__:
            assert np.array_equal(getattr(a, name), getattr(b, name)), name
    other = blocks(generator(seed=2), 8)
    assert not np.array_equal(blocks(generator(), 8)[0].price, other[0].price)


def test_rate_and_shares_are_what_was_asked_for() -> None:
    made = blocks(generator(rate=4000), 80)
    total = sum(map(len, made))
    assert total == pytest.approx(4000 * 20, rel=0.05)
    counts = sum(np.bincount(block.symbol, minlength=5) for block in made)
    assert counts[0] / counts[1] == pytest.approx(2.0, rel=0.1)
    assert 1.5 < mean_fills() < 1.8


def test_orders_are_in_time_and_their_fills_together() -> None:
    for block in blocks(generator(), 20):
        assert (np.diff(block.due_us) >= 0).all()
        assert (np.diff(block.order) >= 0).all()
        assert (block.run_us < block.end_us).all()
        assert (block.run_us >= block.end_us - BLOCK_US).all()
        assert (block.due_us >= block.run_us).all()
        for order in np.unique(block.order):
            fills = np.flatnonzero(block.order == order)
            assert len(np.unique(block.symbol[fills])) == len(np.unique(block.run_us[fills])) == 1
        assert (block.price > 0).all()
        assert (block.quantity > 0).all()
    assert any((np.diff(block.order) == 0).any() for block in blocks(generator(), 4)), "several trades at one time"


def test_it_ends_where_it_should() -> None:
    assert sum(map(len, blocks(generator(trades=1234), 50))) == 1234
    timed = blocks(generator(end_us=1_100_000), 50)
    assert len(timed) == 5
    assert max(int(block.run_us.max()) for block in timed) < 1_100_000
    assert generator(trades=0).next_block() is None


def test_quiet_symbols_trade_rarely() -> None:
    made = blocks(generator(rate=1000, symbols=6, quiet=2), 400)
    counts = sum(np.bincount(block.symbol, minlength=6) for block in made)
    assert all(0 < counts[code] < 30 for code in (4, 5))
    assert counts[3] > 1000


def test_a_slow_market_has_empty_blocks() -> None:
    made = blocks(generator(rate=0.5), 100)
    assert len(made) == 100
    assert any(len(block) == 0 for block in made)


def test_prices_stay_plausible() -> None:
    made = blocks(generator(rate=20_000, symbols=1), 100)
    price = np.concatenate([block.price for block in made])
    assert price.min() > 6183763 // 3
    assert price.max() < 6183763 * 3
    assert len(np.unique(price)) > 100
