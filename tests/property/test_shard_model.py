"""A shard and the sinks' merge against the rules in executable form, on random logs cut anywhere."""

from __future__ import annotations

import random

import pytest

from market.rules import Rules
from tests.shard_logs import SECOND, compare, expected, random_log, run, stretched


def rules_of(dice: random.Random, *, contiguous: bool = True) -> Rules:
    """Small horizons, so that deltas and status changes are common."""
    lateness = dice.choice([0, 1, 2, 5])
    return Rules(
        lateness_us=lateness * SECOND,
        gap_grace_us=dice.randint(0, lateness) * SECOND,
        horizon_us=dice.choice([0, 30, 120, 600, 7_200]) * SECOND,
        dedup_horizon_us=10**15,  # the model forgets nothing
        contiguous_ids=contiguous,
    )


def check(seed: int, sizes: list[int], *, contiguous: bool = True) -> None:
    dice = random.Random(seed)
    rules = rules_of(dice, contiguous=contiguous)
    log = random_log(
        dice, records=dice.choice(sizes), spread=dice.choice([2, 10, 60]), trouble=dice.choice([0.05, 0.3, 0.8]), jumping=not contiguous
    )
    if seed % 2:
        log = stretched(log, grid_us=dice.choice([1, 5, 30]) * SECOND, factor=dice.choice([1, 7, 60]))
    models = expected(log, rules)
    other_tables = run(log, rules=rules).rows
    for cut_count in (dice.choice([0, 3, 20]), len(log)):
        cuts = sorted(dice.sample(range(1, len(log)), min(len(log) - 1, cut_count)))
        store = run(log, rules=rules, cuts=cuts, reloads=dice.random() < 0.5)
        compare(store, models, log)
        assert store.rows == other_tables


@pytest.mark.parametrize("seed", range(40))
def test_every_column_of_every_newest_row_equals_the_model(seed: int) -> None:
    check(seed, [40, 80])


@pytest.mark.parametrize("seed", range(10_000, 10_010))
def test_jumping_ids_equal_the_model_without_gaps_and_bridges(seed: int) -> None:
    check(seed, [60], contiguous=False)


@pytest.mark.prove
@pytest.mark.parametrize("seed", range(20_000, 20_400))
def test_longer_logs_equal_the_model(seed: int) -> None:
    check(seed, [150, 300])


@pytest.mark.prove
@pytest.mark.parametrize("seed", range(30_000, 30_050))
def test_longer_logs_of_jumping_ids_equal_the_model(seed: int) -> None:
    check(seed, [150, 300], contiguous=False)
