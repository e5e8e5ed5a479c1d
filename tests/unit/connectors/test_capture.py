from __future__ import annotations

import base64
import gzip
import json
from decimal import ROUND_FLOOR, Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.files.capture import CapturedFrame, read_capture, read_chunks, seconds_to_us
from market.errors import ConfigError

FRAMES = [b'{"a": %d}' % i for i in range(5)]


def write(folder: Path, content: bytes, name: str = "capture") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def payloads(path: Path) -> list[bytes]:
    return [f.payload for f in read_capture(path)]


def envelope(t: str, **fields: object) -> bytes:
    return json.dumps({"t": t, **fields}).encode() + b"\n"


def test_plain_frames_have_no_receive_time(tmp_path: Path) -> None:
    path = write(tmp_path, b"\n".join(FRAMES))
    assert list(read_capture(path)) == [CapturedFrame(None, frame, line) for line, frame in enumerate(FRAMES, 1)]


def test_nanoseconds_in_front_are_cut_to_microseconds(tmp_path: Path) -> None:
    path = write(tmp_path, b'1723161253937085768 {"a":1}\n1723161253937085999  {"b":2} \n')
    assert list(read_capture(path)) == [
        CapturedFrame(1723161253937085, b'{"a":1}', 1),
        CapturedFrame(1723161253937085, b' {"b":2} ', 2),
    ]


def test_blank_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path, b'\n{"a":1}\r\n\r\n   \n{"b":2}\n\n')
    assert list(read_capture(path)) == [CapturedFrame(None, b'{"a":1}', 2), CapturedFrame(None, b'{"b":2}', 5)]


def test_a_byte_order_mark_is_no_part_of_the_first_frame(tmp_path: Path) -> None:
    assert payloads(write(tmp_path, b'\xef\xbb\xbf{"a":1}\n')) == [b'{"a":1}']


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_compression_is_told_by_content_not_name(tmp_path: Path, codec: str) -> None:
    text = b"\n".join(b'%d {"a": "%s"}' % (1_700_000_000_000_000_000 + i, b"x" * (i % 300)) for i in range(30_000))
    compressed = pa.compress(text, codec, asbytes=True) if codec == "zstd" else gzip.compress(text)
    path = write(tmp_path, compressed, "capture.txt")
    frames = list(read_capture(path))
    assert [f.line for f in frames] == list(range(1, 30_001))
    assert b"\n".join(b"%d000 %s" % (f.receive_us or 0, f.payload) for f in frames) == b"\n".join(
        b"%d000 %s" % ((1_700_000_000_000_000_000 + i) // 1000, b'{"a": "%s"}' % (b"x" * (i % 300))) for i in range(30_000)
    )


def test_files_packed_one_after_the_other_are_one_file(tmp_path: Path) -> None:
    assert payloads(write(tmp_path, gzip.compress(b'{"a":1}\n') + gzip.compress(b'{"b":2}\n'))) == [b'{"a":1}', b'{"b":2}']


def test_lines_longer_than_a_piece_stay_whole(tmp_path: Path) -> None:
    long = b'{"a":"' + b"x" * (3 << 20) + b'"}'
    assert payloads(write(tmp_path, b'{"b":1}\n' + long + b"\n" + FRAMES[0])) == [b'{"b":1}', long, FRAMES[0]]


def test_envelopes_give_received_frames_only(tmp_path: Path) -> None:
    content = (
        envelope("header", format=2, exchange="COINBASE")
        + envelope("http", ts=1.0, url="https://x/", data="{}")
        + envelope("connect", conn="ws.1", ts=1.0, addr="wss://x")
        + envelope("send", conn="ws.1", ts=1.5, data='{"op":"subscribe"}')
        + b'{"t":"recv","conn":"ws.1","ts":1786309548.0313299,"data":"{\\"p\\":\\"1\\u00e9\\"}"}\n'
        + envelope("recv", conn="ws.1", ts=2, b64=base64.b64encode(b"\x00\xff").decode())
        + envelope("checkpoint", what=[1, 2])
    )
    frames = list(read_capture(write(tmp_path, content)))
    assert frames == [CapturedFrame(1786309548031329, '{"p":"1é"}'.encode(), 5), CapturedFrame(2_000_000, b"\x00\xff", 6)]


def test_a_connection_that_connects_again_is_another_one(tmp_path: Path) -> None:
    content = (
        envelope("connect", conn="a")
        + envelope("recv", conn="a", ts=1, data="{}")
        + envelope("recv", conn="b", ts=2, data="{}")
        + envelope("connect", conn="a")
        + envelope("recv", conn="b", ts=3, data="{}")
        + envelope("recv", conn="a", ts=4, data="{}")
    )
    (chunk,) = read_chunks(write(tmp_path, content))
    assert chunk.connections == [0, 1, 1, 2]


def test_an_envelope_that_cannot_be_read_is_kept_whole_as_a_frame(tmp_path: Path) -> None:
    good = envelope("recv", conn="a", ts=1, data="{}")
    broken = [b'{"t":"recv","data":"{', b'{"no":"type"}', b"[]", b'{"t":"recv","ts":1}', b'{"t":"recv","ts":1,"b64":"!"}']
    assert payloads(write(tmp_path, good + b"\n".join(broken))) == [b"{}", *broken]


def test_half_a_surrogate_pair_does_not_stop_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, b'{"t":"recv","ts":1.5,"data":"\\ud800"}\n{"t":"recv","ts":2.5,"data":"{}","conn":7}\n')
    assert [(f.receive_us, f.payload) for f in read_capture(path)] == [(1_500_000, b"\xed\xa0\x80"), (2_500_000, b"{}")]


def test_a_venue_with_a_number_in_t_is_no_envelope(tmp_path: Path) -> None:
    frame = b'{"e":"trade","E":1,"s":"BTCUSDT","t":17,"p":"1","data":"x"}'
    assert payloads(write(tmp_path, frame + b"\n")) == [frame]


def test_a_line_without_its_receive_time_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path, b'1723161253937085768 {"a":1}\nrubbish and more\n17231')
    assert [(f.receive_us, f.payload) for f in read_capture(path)] == [
        (1723161253937085, b'{"a":1}'),
        (None, b"rubbish and more"),
        (None, b"17231"),
    ]


def test_an_empty_file_holds_no_frames(tmp_path: Path) -> None:
    assert payloads(write(tmp_path, b"")) == []
    assert payloads(write(tmp_path, b"\n\n")) == []


def test_a_truncated_file_is_named_with_its_line(tmp_path: Path) -> None:
    text = b"".join(b'{"a": %d}\n' % (i * 7_919 % 100_003) for i in range(400_000))
    for compressed in (gzip.compress(text), pa.compress(text, "zstd", asbytes=True)):
        path = write(tmp_path, compressed[: len(compressed) * 3 // 4])
        with pytest.raises(ConfigError, match=rf"{path}: cannot be read at line [1-9]\d{{4,}}: .*[Tt]runcated"):
            payloads(path)


@pytest.mark.parametrize("content", [b"PAR1\x15\x04\x15\n\x00", b"time,price,amount\n1,2,3\n", b"\x89PNG\r\n\x1a\n"])
def test_a_file_of_another_kind_is_refused_with_its_first_line(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path, b"\n" + content)
    with pytest.raises(ConfigError, match=rf"{path}: line 2 is no captured frame"):
        payloads(path)


def test_rubbish_before_the_first_frame_is_kept(tmp_path: Path) -> None:
    assert payloads(write(tmp_path, b'rubbish\n{"a":1}\n')) == [b"rubbish", b'{"a":1}']


def test_a_path_that_cannot_be_opened_is_a_config_error(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(ConfigError, match=str(path)):
            payloads(path)


@given(st.decimals(min_value=0, max_value=10**11, allow_nan=False, allow_infinity=False))
def test_seconds_become_microseconds_without_rounding(seconds: Decimal) -> None:
    expected = int((seconds * 1_000_000).to_integral_value(ROUND_FLOOR))
    assert seconds_to_us(str(seconds).encode()) == expected
    assert seconds_to_us(f"{seconds:f}".encode()) == expected


@pytest.mark.parametrize("text", [b"", b"null", b'"x"', b"-1.5", b"NaN", b"Infinity", b"1e99999999", b"9" * 40, b"[1]", b"\xff"])
def test_what_is_no_time_is_none(text: bytes) -> None:
    assert seconds_to_us(text) is None
