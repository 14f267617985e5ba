"""Whether RabbitMQ takes this process in. Bounded: a server that is stopped in the middle is told within seconds."""

from __future__ import annotations

from amqp import exceptions
from kombu import Connection
from kombu.exceptions import KombuError

from app.errors import Unavailable

SECONDS = 3.0
"""How long the server may take for each of its answers; there are three until the door is open."""


def ping(url: str, *, seconds: float = SECONDS) -> None:
    """Connects as the user in `url`, and leaves again.

    Raises Unavailable, whose message says what is wrong and nothing of the URL.
    """
    options = {"read_timeout": seconds, "write_timeout": seconds}
    connection = Connection(url, connect_timeout=seconds, transport_options=options)
    transport = connection.transport
    try:
        # kombu's own `connect` would wait, and try once more.
        transport.close_connection(transport.establish_connection())
    except exceptions.NotAllowed:
        raise Unavailable("does not let the user into the virtual host, or there is none") from None
    except exceptions.AccessRefused:
        raise Unavailable("refuses the user or the password") from None
    except (exceptions.AMQPError, KombuError, OSError, ValueError) as error:
        raise Unavailable(f"does not answer ({type(error).__name__})") from None
