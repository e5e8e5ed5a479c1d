from __future__ import annotations

import pytest

from connectors.topics.headers import from_json, to_json
from market.errors import InvariantViolation


def test_text_stays_readable() -> None:
    assert to_json([("trace", "é".encode()), ("empty", b"")]) == '{"trace":"é","empty":""}'


def test_no_headers_are_no_object() -> None:
    assert to_json([]) is None


def test_bytes_repetition_and_absence_have_their_own_form() -> None:
    assert to_json([("a", b"\xff"), ("b", None), ("c", b"1"), ("c", b"2")]) == '{"a":{"b64":"/w=="},"b":null,"c":["1","2"]}'


def test_plain_json_values_of_others_are_taken_as_text() -> None:
    assert from_json('{"a":5}') == [("a", b"5")]


@pytest.mark.parametrize("text", ["", "[]", "5", '{"a":{"b64":"?"}}', '{"a":{"c":1}}', '{"a"'])
def test_what_is_no_object_of_headers_is_our_bug(text: str) -> None:
    with pytest.raises(InvariantViolation, match="extra headers"):
        from_json(text)
