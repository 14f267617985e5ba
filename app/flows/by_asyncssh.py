"""Lines by the `asyncssh` package (the extra `ssh`): no process a connection. Keys, known hosts and configuration are
those that `ssh` has; no passphrase is ever asked for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from app.flows import failures, hosts
from app.flows.lines import ALIVE_EVERY, ALIVE_MISSED, CONNECT_WITHIN, MOST_SAID, Line, LineLost, NoLine, Said

asyncssh: ModuleType | None
try:
    import asyncssh
except ImportError:  # an extra that may be missing
    asyncssh = None

_CHUNK = 65_536


def is_there() -> bool:
    """Whether the package is installed."""
    return asyncssh is not None


@dataclass(frozen=True, slots=True)
class AsyncSsh:
    """Opens lines. `config` is a file that is read instead of the user's own ~/.ssh/config."""

    config: str = ""

    async def __call__(self, host: str) -> Line:
        """Raises NoLine."""
        assert asyncssh is not None, "who builds one has looked"
        # It logs every command otherwise.
        logging.getLogger("asyncssh").setLevel(logging.WARNING)
        where = hosts.read(host)
        given: dict[str, Any] = {"username": where.user} if where.user else {}
        given |= {"port": where.port} if where.port else {}
        given |= {"config": [self.config]} if self.config else {}
        try:
            async with asyncio.timeout(2 * CONNECT_WITHIN):
                connection = await asyncssh.connect(
                    where.name,
                    **given,
                    connect_timeout=CONNECT_WITHIN,
                    login_timeout=CONNECT_WITHIN,
                    keepalive_interval=ALIVE_EVERY,
                    keepalive_count_max=ALIVE_MISSED,
                    preferred_auth="publickey",
                )
        except asyncssh.HostKeyNotVerifiable as problem:
            raise NoLine(failures.host_key(host, str(problem))) from None
        except asyncssh.PermissionDenied as problem:
            raise NoLine(failures.auth(host, str(problem))) from None
        except (OSError, TimeoutError, asyncssh.Error) as problem:
            said = str(problem) or f"no answer within {CONNECT_WITHIN:g} s"
            raise NoLine(failures.of_connection(host, said)) from None
        except (ValueError, RecursionError) as problem:
            # Names that DNS cannot have, configurations and keys that it cannot read, jumps that lead to themselves.
            raise NoLine(failures.unusable(host, str(problem))) from None
        return _Line(connection, (OSError, asyncssh.Error))


class _Line:
    def __init__(self, connection: Any, errors: tuple[type[Exception], ...]) -> None:
        self._connection = connection
        self._errors = errors

    async def ask(
        self, command: str, given: bytes = b"", *, most: int, held: asyncio.Event | None = None
    ) -> Said:
        try:
            process = await self._connection.create_process(command, encoding=None)
            feeding = asyncio.create_task(self._feed(process, given, held))
            try:
                out, err = await asyncio.gather(_read(process.stdout, most), _read(process.stderr, MOST_SAID))
                await process.wait_closed()
            finally:
                # Not waited for: on a host that hangs it may never come to its end.
                process.close()
                feeding.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await feeding
            status = process.exit_status
        except self._errors as problem:
            raise LineLost(str(problem)) from None
        if status is None:
            raise LineLost("the connection is gone")
        return Said(status, out, err)

    async def _feed(self, process: Any, given: bytes, held: asyncio.Event | None) -> None:
        with contextlib.suppress(*self._errors):
            process.stdin.write(given)
            await process.stdin.drain()
            if held is not None:
                await held.wait()
            process.stdin.write_eof()

    async def close(self) -> None:
        self._connection.abort()
        with contextlib.suppress(*self._errors):
            await self._connection.wait_closed()


async def _read(stream: Any, most: int) -> bytes:
    """All that comes, of which the first `most` bytes are kept."""
    kept = bytearray()
    while part := await stream.read(_CHUNK):
        kept += part[: most - len(kept)]
    return bytes(kept)
