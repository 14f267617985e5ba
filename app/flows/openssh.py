"""Lines by the `ssh` program: whatever its configuration says holds, proxies and agents too.

One `ssh` is the master of a line and holds the connection; what is asked for goes by clients of its socket. It ends
when its stdin does, which is with this process at the latest.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from dataclasses import dataclass

from app.flows import failures, hosts
from app.flows.lines import ALIVE_EVERY, ALIVE_MISSED, CONNECT_WITHIN, MOST_SAID, Line, LineLost, NoLine, Said

_READY = b"muster-ready\n"
_LOST = 255
_CHUNK = 65_536


def options(config: str = "") -> list[str]:
    """The options that every `ssh` of ours has: it asks nobody anything and trusts known hosts only. `config` is a file
    that is read instead of the user's own."""
    said = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "PasswordAuthentication": "no",
        "ConnectTimeout": f"{CONNECT_WITHIN:g}",
        "ServerAliveInterval": f"{ALIVE_EVERY:g}",
        "ServerAliveCountMax": str(ALIVE_MISSED),
        "ClearAllForwardings": "yes",
        "LogLevel": "ERROR",
    }
    named = [word for name, value in said.items() for word in ("-o", f"{name}={value}")]
    return [*(["-F", config] if config else []), *named]


@dataclass(frozen=True, slots=True)
class OpenSsh:
    """Opens lines. `config` is as for `options`."""

    config: str = ""

    async def __call__(self, host: str) -> Line:
        """Raises NoLine."""
        if shutil.which("ssh") is None:
            raise NoLine(failures.unreachable(host, "there is no `ssh` on the PATH of the io worker"))
        where = hosts.read(host)
        # Short, for the path of a socket has 107 bytes at the most.
        directory = tempfile.mkdtemp(prefix="muster-", dir="/tmp")
        socket = f"{directory}/s"
        port = ["-p", str(where.port)] if where.port else []
        ssh = [
            "ssh",
            *options(self.config),
            *port,
            "-o",
            f"ControlPath={socket}",
            "-o",
            "ControlPersist=no",
            "-T",
        ]
        master = await asyncio.create_subprocess_exec(
            *[*ssh, "-o", "ControlMaster=yes", "--", where.login, "echo muster-ready; cat"],
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            start_new_session=True,
        )
        line = _Line(host, master, [*ssh, "-o", "ControlMaster=no", "--", where.login], directory)
        try:
            async with asyncio.timeout(2 * CONNECT_WITHIN):
                await line.begun()
        except TimeoutError:
            await line.close()
            raise NoLine(failures.unreachable(host, f"no answer within {2 * CONNECT_WITHIN:g} s")) from None
        except BaseException:
            await line.close()
            raise
        return line


class _Line:
    def __init__(self, host: str, master: Process, client: Sequence[str], directory: str) -> None:
        self._host = host
        self._master = master
        self._client = client
        self._directory = directory

    async def begun(self) -> None:
        """Wait until the host let us in. Raises NoLine."""
        assert self._master.stdout is not None
        assert self._master.stderr is not None
        try:
            while line := await self._master.stdout.readline():
                if line.endswith(_READY):
                    return
        except ValueError:
            said = f"it wrote more than {_CHUNK} bytes without a line break before it did as it was asked"
            raise NoLine(failures.unusable(self._host, said)) from None
        said = (await self._master.stderr.read(MOST_SAID)).decode("utf-8", "replace")
        raise NoLine(failures.of_connection(self._host, said))

    async def ask(
        self, command: str, given: bytes = b"", *, most: int, held: asyncio.Event | None = None
    ) -> Said:
        client = await asyncio.create_subprocess_exec(
            *self._client, command, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True
        )
        feeding = asyncio.create_task(_feed(client, given, held))
        try:
            out, err = await asyncio.gather(_read(client.stdout, most), _read(client.stderr, MOST_SAID))
            status = await client.wait()
        finally:
            feeding.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await feeding
            if client.returncode is None:
                # Not waited for: the master holds its pipes until the host is done with it, which may hang.
                client.kill()
        if status == _LOST or status < 0:
            # Nothing that is asked for here ends so: it is what `ssh` itself says.
            raise LineLost(err.decode("utf-8", "replace").strip() or "the connection is gone")
        return Said(status, out, err)

    async def close(self) -> None:
        if self._master.returncode is None:
            assert self._master.stdin is not None
            self._master.stdin.close()
            with contextlib.suppress(ProcessLookupError):
                self._master.terminate()
            try:
                async with asyncio.timeout(2):
                    await self._master.wait()
            except TimeoutError:
                self._master.kill()
                await self._master.wait()
        shutil.rmtree(self._directory, ignore_errors=True)


async def _feed(client: Process, given: bytes, held: asyncio.Event | None) -> None:
    assert client.stdin is not None
    with contextlib.suppress(OSError):
        client.stdin.write(given)
        await client.stdin.drain()
        if held is not None:
            await held.wait()
        client.stdin.close()


async def _read(stream: asyncio.StreamReader | None, most: int) -> bytes:
    """All that comes, of which the first `most` bytes are kept."""
    assert stream is not None
    kept = bytearray()
    while part := await stream.read(_CHUNK):
        kept += part[: most - len(kept)]
    return bytes(kept)
