from __future__ import annotations

from decimal import Context, Decimal

import pytest

from connectors.venues.text import NumberText, Unusable, digits, mantissa, read_json, rfc3339_us, shown, whole


def reason(text: object, kind: type[str] = str) -> str:
    with pytest.raises(Unusable) as error:
        mantissa(text, kind, "price")
    assert error.value.detail.isprintable()
    assert len(error.value.detail) < 200
    return error.value.reason


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("61837.63000000", "61837.63"),
        ("1", "1"),
        ("0.0000052", "0.0000052"),
        ("3.844E-5", "0.00003844"),
        ("1e+3", "1000"),
        ("0.000000000000000001", "0.000000000000000001"),
        ("999999999999999.999999999999999999", "999999999999999.999999999999999999"),
        ("0.1000000000000000000000000", "0.1"),
        ("10000000000000000000e-10", "1000000000"),
        ("0001.5", "1.5"),
        ("1e14", "100000000000000"),
        ("0.00000000000000000000001e20", "0.001"),
    ],
)
def test_decimals_are_exact(text: str, value: str) -> None:
    assert mantissa(text, str, "price") == int(Decimal(value).scaleb(18, Context(prec=40)))


@pytest.mark.parametrize("text", ["1.1234567890123456789", "1e-19", "0.0000000000000000001", "1e-99999999999999999999"])
def test_a_nineteenth_decimal_is_never_rounded(text: str) -> None:
    assert reason(text) == "too_many_decimals"


@pytest.mark.parametrize("text", ["1000000000000000", "1e15", "1e400", "9" * 6000, "1e99999999999999999999", "0.1e16"])
def test_values_from_ten_to_the_fifteenth_are_out_of_range(text: str) -> None:
    assert reason(text) == "out_of_range"


@pytest.mark.parametrize(
    "text",
    ["", "0", "0.000", "0e5", "-1", "+1", "1.", ".5", "1,5", " 1", "1 ", "NaN", "Infinity", "0x1", "1_000", "٣", "1e", None, True, 5, []],
)
def test_what_is_no_positive_decimal_is_a_bad_price(text: object) -> None:
    assert reason(text) == "bad_price"


def test_strings_and_numbers_are_not_taken_for_each_other() -> None:
    assert reason("1.5", NumberText) == "bad_price"
    assert reason(NumberText("1.5"), str) == "bad_price"


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("007", 7), ("9223372036854775807", 2**63 - 1), ("0" * 30 + "5", 5)])
def test_digits(text: str, value: int) -> None:
    assert digits(text) == value
    assert whole(NumberText(text)) == value
    assert whole(value) == value


@pytest.mark.parametrize("text", ["", "-1", "1.0", "1e3", "9223372036854775808", "9" * 5000, "²", "٣", " 1"])
def test_what_is_no_id(text: str) -> None:
    assert digits(text) is None
    assert whole(NumberText(text)) is None


@pytest.mark.parametrize("value", ["5", True, None, 1.0, -1, 2**63])
def test_what_is_no_json_integer(value: object) -> None:
    assert whole(value) is None


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-07-07T23:00:04.590753Z", 1_783_465_204_590_753),
        ("2026-08-09T21:05:38.50436Z", 1_786_309_538_504_360),
        ("2026-08-09T21:05:48.228568804Z", 1_786_309_548_228_568),
        ("2024-02-29T23:59:59.9Z", 1_709_251_199_900_000),
        ("0001-01-01T00:00:00.000000Z", -62_135_596_800_000_000),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("2026-01-01T01:00:00+01:00", 1_767_225_600_000_000),
        ("2025-12-31T23:30:00-00:30", 1_767_225_600_000_000),
    ],
)
def test_times_are_cut_to_microseconds(text: str, us: int) -> None:
    assert rfc3339_us(text) == us


@pytest.mark.parametrize(
    "text",
    [
        *("", "2026-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:60:00Z", "2026-01-01T00:00:60Z"),
        *(
            "2026-01-01 00:00:00Z",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00.1234567890Z",
            "0000-01-01T00:00:00Z",
        ),
        *("2026-01-01T00:00:00z", "2026-01-01T00:00:00+24:00", "2026-01-01T00:00:00+00:60", "2026-1-01T00:00:00Z", None, 5),
    ],
)
def test_what_is_no_time(text: object) -> None:
    assert rfc3339_us(text) is None


def test_json_keeps_the_text_of_numbers_and_the_last_of_duplicate_keys() -> None:
    document = read_json(b' {"a":1.10,"b":123456789012345678901234567890,"a":2.50} ')
    assert document == {"a": "2.50", "b": "123456789012345678901234567890"}
    assert all(type(value) is NumberText for value in document.values())


@pytest.mark.parametrize(
    ("frame", "detail"),
    [
        (b"", "blank frame"),
        (b" \n", "blank frame"),
        (b'{"a":"\xff"}', "not UTF-8 at byte 6"),
        (b'{"a":NaN}', "NaN is not JSON"),
        (b'{"a":-Infinity}', "-Infinity is not JSON"),
        (b"[" * 1_000_000, "nested more than 100 deep"),
        (b'{"a":' * 101 + b"1" + b"}" * 101, "nested more than 100 deep"),
        (b'{"a":1}{"b":2}', "Extra data: line 1 column 8 (char 7)"),
        (b'\xef\xbb\xbf{"a":1}', "Expecting value: line 1 column 1 (char 0)"),
    ],
)
def test_what_is_no_json(frame: bytes, detail: str) -> None:
    with pytest.raises(Unusable) as error:
        read_json(frame)
    assert (error.value.reason, error.value.detail) == ("bad_json", detail)


def test_brackets_in_texts_and_in_a_row_are_not_nesting() -> None:
    assert read_json(b'["' + b"[" * 200 + b'\\"[{"]') == ["[" * 200 + '"[{']
    assert read_json(b"[" + b",".join([b"[]"] * 200) + b"]") == [[]] * 200
    assert isinstance(read_json(b"[" * 100 + b"]" * 100), list)


def test_values_are_shown_short_and_printable() -> None:
    assert shown(None) == "nothing"
    assert shown(True) == "true"
    assert shown({"a": 1}) == "an object"
    assert shown([]) == "a list"
    assert shown(NumberText("-5")) == "-5"
    assert shown("a\nb\ud800é") == r"'a\nb\ud800\xe9'"
    assert shown("x" * 5000) == f"'{'x' * 80}'… (5000 characters)"
