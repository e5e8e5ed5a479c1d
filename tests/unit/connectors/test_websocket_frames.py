"""Bytes of a WebSocket connection into messages: cut anywhere, with everything the protocol allows in between."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from connectors.sockets.frames import MAX_MESSAGE_BYTES, FrameReader, retry_after


class Server:
    """The library's own server side, as the peer."""

    def __init__(self, reader: FrameReader) -> None:
        self.protocol = ServerProtocol()
        self.hear(reader)
        (request,) = self.protocol.events_received()
        self.protocol.send_response(self.protocol.accept(request))  # type: ignore[arg-type]

    def hear(self, reader: FrameReader) -> None:
        for piece in reader.to_send():
            if piece:
                self.protocol.receive_data(piece)

    def sent(self) -> bytes:
        return b"".join(self.protocol.data_to_send())


def opened() -> tuple[FrameReader, Server]:
    reader = FrameReader("ws://exchange.test/ws?a=b")
    server = Server(reader)
    reader.receive(server.sent())
    assert reader.is_open
    return reader, server


def wire(*frames: Frame) -> bytes:
    return b"".join(frame.serialize(mask=False) for frame in frames)


SIZES = st.sampled_from([0, 1, 125, 126, 127, 300, 65_535, 65_536])
MESSAGE = st.one_of(SIZES.map(lambda size: b"x" * size), st.binary(max_size=200))


@given(messages=st.lists(st.tuples(MESSAGE, st.sampled_from(["text", "binary", "fragments", "ping", "pong"])), max_size=12), data=st.data())
def test_messages_come_out_verbatim_however_the_bytes_are_cut(messages: list[tuple[bytes, str]], data: st.DataObject) -> None:
    reader = FrameReader("ws://exchange.test")
    server = Server(reader)
    stream, expected, pongs = server.sent(), [], []
    for payload, how in messages:
        if how in ("ping", "pong"):
            stream += wire(Frame(Opcode.PING if how == "ping" else Opcode.PONG, payload[:125]))
            pongs += [payload[:125]] if how == "pong" else []
            continue
        expected.append(payload)
        if how == "fragments":
            half = len(payload) // 2
            stream += wire(Frame(Opcode.TEXT, payload[:half], fin=False), Frame(Opcode.PING, b"!"), Frame(Opcode.CONT, payload[half:]))
        else:
            stream += wire(Frame(Opcode.TEXT if how == "text" else Opcode.BINARY, payload))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    got, got_pongs = [], []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        arrived = reader.receive(stream[start:stop])
        got += arrived.messages
        got_pongs += [arrived.pong] if arrived.pong is not None else []
    assert got == expected
    assert set(got_pongs) <= set(pongs)
    assert bool(got_pongs) == bool(pongs)


def test_messages_behind_the_handshake_s_answer_are_not_lost() -> None:
    reader = FrameReader("ws://exchange.test")
    server = Server(reader)
    assert reader.receive(server.sent() + wire(Frame(Opcode.TEXT, b"first"))).messages == [b"first"]


def test_a_ping_is_answered_with_its_payload() -> None:
    reader, server = opened()
    assert reader.receive(wire(Frame(Opcode.PING, b"1234"))).is_pinged
    server.hear(reader)
    (pong,) = server.protocol.events_received()
    assert isinstance(pong, Frame)
    assert (pong.opcode, bytes(pong.data)) == (Opcode.PONG, b"1234")


def test_what_we_send_arrives() -> None:
    reader, server = opened()
    reader.text('{"op":"subscribe"}')
    reader.ping(b"7")
    server.hear(reader)
    frames = [(event.opcode, bytes(event.data)) for event in server.protocol.events_received() if isinstance(event, Frame)]
    assert frames == [(Opcode.TEXT, b'{"op":"subscribe"}'), (Opcode.PING, b"7")]


def test_text_that_is_not_utf_8_is_a_message_like_any_other() -> None:
    reader, _ = opened()
    assert reader.receive(wire(Frame(Opcode.TEXT, b"\xff\xfe"))).messages == [b"\xff\xfe"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x81\x85abcdefghi", "incorrect masking"),
        (b"\xc1\x01a", "reserved bits must be 0"),
        (b"\x83\x01a", "invalid opcode"),
        (b"\x80\x01a", "unexpected continuation frame"),
        (b"\x01\x01a\x81\x01b", "expected a continuation frame"),
        (b"\x81\x7f" + (MAX_MESSAGE_BYTES + 1).to_bytes(8, "big"), "exceeds limit"),
    ],
)
def test_a_breach_of_the_protocol_ends_the_connection(data: bytes, why: str) -> None:
    reader, _ = opened()
    good = wire(Frame(Opcode.TEXT, b"before"))
    assert reader.receive(good + data).messages == [b"before"]
    assert reader.close_expected
    assert reader.receive(good).messages == []
    assert why in reader.why_closed()


def test_nothing_counts_after_the_venue_s_close() -> None:
    reader, server = opened()
    server.protocol.send_close(1001, "maintenance")
    data = server.sent() + wire(Frame(Opcode.TEXT, b"after"))
    assert reader.receive(wire(Frame(Opcode.TEXT, b"before")) + data).messages == [b"before"]
    assert reader.close_expected
    assert reader.why_closed() == "closed by the venue: 1001 (going away) maintenance"
    server.hear(reader)
    reader.receive_eof()


def test_messages_still_count_after_our_own_close() -> None:
    reader, server = opened()
    reader.close()
    assert reader.receive(wire(Frame(Opcode.TEXT, b"late"))).messages == [b"late"]
    server.hear(reader)
    reader.receive(server.sent())
    reader.receive_eof()
    assert "1000" in reader.why_closed()


def test_a_socket_that_just_ends_says_so() -> None:
    reader, _ = opened()
    reader.receive_eof()
    assert reader.why_closed() == "the socket was closed"


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 17\r\nContent-Length: 4\r\n\r\nslow", 17.0),
        (b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 99999999999\r\nContent-Length: 0\r\n\r\n", 3 * 86_400.0),
        (b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: \xb2\r\nContent-Length: 0\r\n\r\n", None),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", None),
        (b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\nContent-Length: 0\r\n\r\n", None),
        (b"nonsense\r\n\r\n", None),
    ],
)
def test_a_refused_handshake_says_why_and_how_long_to_wait(answer: bytes, seconds: float | None) -> None:
    for size in (len(answer), 1):
        reader = FrameReader("ws://exchange.test")
        for start in range(0, len(answer), size):
            assert reader.receive(answer[start : start + size]).messages == []
        reader.receive_eof()
        assert not reader.is_open
        assert reader.handshake_error is not None
        assert retry_after(reader.handshake_error) == seconds


def test_a_handshake_whose_head_never_ends_is_refused() -> None:
    reader = FrameReader("ws://exchange.test")
    reader.receive(b"HTTP/1.1 101 Switching Protocols\r\n" + b"X-Filler: y\r\n" * 10_000)
    assert reader.handshake_error is not None
