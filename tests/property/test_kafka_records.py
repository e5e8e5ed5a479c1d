"""Kafka messages ↔ raw records: nothing is lost, and how messages are cut into runs changes nothing."""

from __future__ import annotations

import pyarrow as pa
from confluent_kafka import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.topics.headers import from_json, to_json
from connectors.topics.kafka_records import to_batch, to_messages
from market.record import RAW_SCHEMA

NAMES = st.sampled_from(["source", "received_us", "kind", "trace", "k2.key", ""])
VALUES = st.one_of(
    st.none(), st.binary(max_size=4), st.sampled_from([b"live", b"17", b"-17", b"0x1", b"1_0", b"", b" 5", b"9" * 19, b"marker"])
)
FRAME = st.tuples(st.sampled_from([b"live", b"refill"]), st.integers(0, 10**16)).map(
    lambda v: [("source", v[0]), ("received_us", b"%d" % v[1])]
)
MARKER = st.integers(0, 10**16).map(lambda v: [("received_us", b"%d" % v), ("kind", b"marker")])
FOREIGN = st.one_of(st.none(), st.lists(st.tuples(NAMES, VALUES), max_size=4))
HEADERS = st.one_of(FRAME, FRAME, FRAME, MARKER, FOREIGN)
KEYS = st.one_of(st.sampled_from([b"BTC-USDT", b"", None]), st.binary(max_size=3))
MESSAGES = st.lists(st.tuples(KEYS, HEADERS, st.one_of(st.none(), st.binary(max_size=5))), min_size=1, max_size=12)


def messages(given_: list[tuple[bytes | None, list[tuple[str, bytes | None]] | None, bytes | None]]) -> list[Message]:
    return [
        Message(topic="t", partition=0, offset=3 * i, key=key, value=value, headers=headers, timestamp=(2, 1_700_000_000_000 + i))
        for i, (key, headers, value) in enumerate(given_)
    ]


@settings(deadline=None)
@given(MESSAGES, st.data())
def test_runs_do_not_matter(
    given_: list[tuple[bytes | None, list[tuple[str, bytes | None]] | None, bytes | None]], data: st.DataObject
) -> None:
    every = messages(given_)
    whole = to_batch(every)
    cut = data.draw(st.integers(0, len(every)))
    parts = [to_batch(part) for part in (every[:cut], every[cut:]) if part]
    assert whole.schema.equals(RAW_SCHEMA)
    assert pa.Table.from_batches(parts).equals(pa.Table.from_batches([whole]))
    assert whole.equals(pa.concat_batches([to_batch([m]) for m in every]))
    whole.validate(full=True)


@settings(deadline=None)
@given(MESSAGES)
def test_every_header_key_and_payload_survives(
    given_: list[tuple[bytes | None, list[tuple[str, bytes | None]] | None, bytes | None]],
) -> None:
    batch = to_batch(messages(given_))
    again = list(to_messages(batch.drop_columns(["offset", "append_us"])))
    for (key, headers, value), (new_key, new_value, new_headers) in zip(given_, again, strict=True):
        assert (new_key.encode() if isinstance(new_key, str) else new_key) == (key or b"")
        assert new_value == (value or b"")
        encoded = [(name, v.encode() if isinstance(v, str) else v) for name, v in new_headers]
        assert sorted(map(canonical, encoded)) == sorted(map(canonical, headers or []))


def canonical(header: tuple[str, bytes | None]) -> tuple[str, str]:
    # A receive time is kept as a number: leading zeros go.
    name, value = header
    if name == "received_us" and value is not None and value.removeprefix(b"-").isdigit() and len(value.removeprefix(b"-")) <= 18:
        return name, str(int(value))
    return name, repr(value)


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=3), VALUES), max_size=6))
def test_extra_headers_are_json_and_back(headers: list[tuple[str, bytes | None]]) -> None:
    text = to_json(headers)
    assert (text is None) == (not headers)
    back = from_json(text) if text is not None else []
    assert sorted(back, key=repr) == sorted(headers, key=repr)
    for name in {n for n, _ in headers}:
        assert [v for n, v in back if n == name] == [v for n, v in headers if n == name], "order within a name"
