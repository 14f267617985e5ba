"""RabbitMQ's transport, such that no message that a node may write ends a worker or fills its memory.

    a message                                 where py-amqp or kombu breaks      closed by
    a property that is no UTF-8               UnicodeDecodeError in the loop     frame_handler()
    headers 3,000 deep                        RecursionError in the loop         frame_handler()
    a compressed body                         decompress(), unasked: a bomb      Channel.message_to_python()
    a body of 100 MB                          taken, decoded and kept            Channel.message_to_python()

What is wrong with it is told by the gate, which gets an empty part in place of what cannot be looked at. RabbitMQ
hands a message out again when its consumer dies, so that one of the first two would end every worker, one after the
other.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import unpack_from
from typing import Any

from amqp import method_framing
from amqp.basic_message import Message
from kombu.transport import pyamqp

BODY_BYTES = 8_000_000

_HEADER = 2
"""The kind of frame that holds a message's properties."""
_FIXED = 12
"""Bytes of it before them: the class, a weight and the size of the body."""
_NO_PROPERTIES = b"\0\0"


def frame_handler(connection: Any, callback: Callable[..., Any]) -> Callable[[Any], bool]:
    """py-amqp's handler of frames; properties that it cannot read are taken for none."""
    on_frame: Callable[[Any], bool] = method_framing.frame_handler(connection, callback)

    def on_checked_frame(frame: Any) -> bool:
        kind, channel, content = frame
        if kind == _HEADER and not _is_readable(content):
            frame = kind, channel, bytes(content[:_FIXED]) + _NO_PROPERTIES
        return on_frame(frame)

    return on_checked_frame


def _is_readable(content: Any) -> bool:
    try:
        class_id = unpack_from(">H", content, 0)[0]
        Message()._load_properties(class_id, content, _FIXED)
    except Exception:  # noqa: BLE001 - the edge: whatever py-amqp makes of a stranger's bytes
        return False
    return True


class Channel(pyamqp.Channel):
    def message_to_python(self, raw_message: Any) -> Any:
        headers = raw_message.properties.get("application_headers")
        is_compressed = isinstance(headers, dict) and headers.pop("compression", None) is not None
        if is_compressed or len(raw_message.body) > BODY_BYTES:
            raw_message.body = b""
        return super().message_to_python(raw_message)


class Connection(pyamqp.Connection):
    Channel = Channel

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, frame_handler=frame_handler, **options)


class Transport(pyamqp.Transport):
    Connection = Connection


class SSLTransport(pyamqp.SSLTransport):
    Connection = Connection


OURS = {pyamqp.Transport: Transport, pyamqp.SSLTransport: SSLTransport}
"""In place of kombu's own."""
