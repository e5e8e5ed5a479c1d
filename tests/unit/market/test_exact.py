from __future__ import annotations

import random
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from market import exact
from market.schema import DECIMAL


def half_even(numerator: int, denominator: int) -> int:
    whole, rest = divmod(numerator, denominator)
    return whole + (2 * rest > denominator or (2 * rest == denominator and whole % 2 == 1))


def numbers(dice: random.Random, count: int, bits: int) -> list[int]:
    return [dice.getrandbits(dice.randint(1, bits)) for _ in range(count)]


def test_decimals_and_arrow_arrays_share_memory() -> None:
    values = exact.from_ints([1, -1, 10**37, 0])
    column = exact.to_arrow(values)
    assert column.type == DECIMAL
    assert column.to_pylist() == [Decimal("1e-18"), Decimal("-1e-18"), Decimal("1e19"), Decimal(0)]
    assert np.shares_memory(exact.from_arrow(column), values)
    assert exact.to_ints(exact.from_arrow(column.slice(1, 2))) == [-1, 10**37]


@pytest.mark.parametrize("column", [pa.array([None], DECIMAL), pa.array([Decimal(1)], pa.decimal128(38, 2))])
def test_other_columns_are_refused(column: pa.Array) -> None:
    with pytest.raises(TypeError):
        exact.from_arrow(column)


def test_integers_at_a_scale_are_exact() -> None:
    largest = 2**63 - 1
    for scale in range(19):
        assert exact.to_ints(exact.from_int64(np.array([0, 12345, largest]), scale)) == [
            0,
            12345 * 10 ** (18 - scale),
            largest * 10 ** (18 - scale),
        ]


def test_python_decimals_are_exact_both_ways() -> None:
    values = [Decimal("1.000000000000000001"), Decimal("999999999999999.999999999999999999"), Decimal(0), Decimal("1e14")]
    assert exact.to_decimals(exact.from_decimals(values)) == values


def test_nineteenth_decimal_is_refused() -> None:
    with pytest.raises(ValueError, match="18 decimals"):
        exact.from_decimals([Decimal("1.0000000000000000001")])


def test_products_are_rounded_half_even_once() -> None:
    dice = random.Random(5)
    a, b = numbers(dice, 5000, 110), numbers(dice, 5000, 110)
    a += [k * 10**9 for k in range(1, 500)]
    b += [5 * 10**8] * 499
    got, overflow = exact.multiply(exact.from_ints(a), exact.from_ints(b))
    wanted = [half_even(x * y, 10**18) for x, y in zip(a, b, strict=True)]
    assert overflow.tolist() == [value >= 2**127 for value in wanted]
    assert [g for g, w in zip(exact.to_ints(got), wanted, strict=True) if w < 2**127] == [w for w in wanted if w < 2**127]


def test_quotients_are_rounded_half_even_once() -> None:
    dice = random.Random(6)
    special = [1, 2, 3, 4, 8, 10**18, 2 * 10**18, 4 * 10**18, 2**32, 2**32 - 1, 2**64, 2**64 - 1, 2**96, 2**96 - 1, 2**126]
    pairs = [
        (dice.getrandbits(dice.randint(1, 126)), dice.choice([dice.getrandbits(dice.randint(1, 126)) or 1, *special])) for _ in range(9000)
    ]
    pairs = [(x, y) for x, y in pairs if x * 10**18 // y < 10**38]
    got = exact.divide(exact.from_ints([x for x, _ in pairs]), exact.from_ints([y for _, y in pairs]))
    assert exact.to_ints(got) == [half_even(x * 10**18, y) for x, y in pairs]


def test_quotient_by_zero_is_zero() -> None:
    assert exact.to_ints(exact.divide(exact.from_ints([0, 5]), exact.from_ints([0, 0]))) == [0, 0]


def test_long_division_equals_integer_division_at_awkward_digits() -> None:
    # Digits at the edges of their range reach the steps that random ones do not: a guess too high once, twice, and to be taken back.
    dice = random.Random(7)
    edges = [0, 1, 2, 3, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 2, 2**32 - 1]
    for _ in range(20_000):
        v = [dice.choice(edges) for _ in range(3)] + [dice.choice([e for e in edges if e >= 2**31])]
        u = [dice.choice(edges) for _ in range(7)]
        divisor, dividend = (sum(digit << 32 * k for k, digit in enumerate(digits)) for digits in (v, u))
        digits = np.array([*u, 0], np.uint64)
        quotient = np.zeros(4, np.uint64)
        exact._long_divide(digits, np.array(v, np.uint64), quotient)
        assert sum(int(d) << 32 * k for k, d in enumerate(quotient)) == dividend // divisor
        assert sum(int(d) << 32 * k for k, d in enumerate(digits)) == dividend % divisor


def test_values_of_ten_to_the_fifteen_are_too_large() -> None:
    limit = 10**33
    assert exact.too_large(exact.from_ints([limit - 1, limit, limit + 1, 0, 2**126])).tolist() == [False, True, True, False, True]


def test_quote_volume_is_the_rounded_product() -> None:
    price, quantity = exact.from_decimals([Decimal("0.000000000000000003")]), exact.from_decimals([Decimal("0.5")])
    assert exact.to_decimals(exact.quote_volume(price, quantity)) == [Decimal("2e-18")]


def test_zeros_of_any_number() -> None:
    assert exact.to_ints(exact.empty(2)) == [0, 0]
    assert len(exact.from_ints([])) == len(exact.to_arrow(exact.empty(0))) == 0
