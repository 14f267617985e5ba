"""asyncssh's own server, in this process, with a shell for each session: another SSH implementation on the far side."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import asyncssh
from sshd import make_key
from waiting import PATIENCE

from app.node.shells import SEARCH_PATH
from app.ssh.target import Target


class ShellServer:
    """Listens at a port of 127.0.0.1 between `start` and `stop`. It has no SFTP. `sh` there is `shell`."""

    def __init__(self, directory: Path, shell: str = "/bin/sh") -> None:
        self._directory = directory / "shell-server"
        self._directory.mkdir(parents=True)
        for name in ("host", "user"):
            make_key(self._directory / name)
        (self._directory / "bin").mkdir()
        (self._directory / "bin" / "sh").symlink_to(shell)
        self._loop = asyncio.new_event_loop()
        self._server: asyncssh.SSHAcceptor | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> Target:
        """Where it is."""
        self._thread.start()
        self._server = self._do(self._listen())
        key = " ".join((self._directory / "host.pub").read_text().split()[:2])
        private = (self._directory / "user").read_text()
        return Target("anybody", "127.0.0.1", self._server.get_port(), private, key)

    def stop(self) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    async def _listen(self) -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[str(self._directory / "host")],
            authorized_client_keys=str(self._directory / "user.pub"),
            process_factory=self._serve,
            encoding=None,
        )

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        environment = {name: os.environ[name] for name in ("HOME", "USER", "LOGNAME") if name in os.environ}
        environment |= {
            "XDG_STATE_HOME": str(self._directory),
            "SHELL": "/bin/sh",
            "PATH": f"{self._directory}/bin:{SEARCH_PATH}",
        }
        pipe = asyncio.subprocess.PIPE
        shell = await asyncio.create_subprocess_exec(
            str(self._directory / "bin" / "sh"),
            "-c",
            process.command or "",
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            env=environment,
        )
        assert shell.stdin is not None
        assert shell.stdout is not None
        assert shell.stderr is not None
        feeding = asyncio.create_task(_copy(process.stdin, shell.stdin))
        await asyncio.gather(_copy(shell.stdout, process.stdout), _copy(shell.stderr, process.stderr))
        status = await shell.wait()
        feeding.cancel()
        process.exit(status)

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


async def _copy(source: Any, target: Any) -> None:
    """Until the end of the source, which is the target's; a connection that breaks is an end as well."""
    try:
        while data := await source.read(65_536):
            target.write(data)
            await target.drain()
        target.write_eof()
    except (OSError, asyncssh.Error):
        pass
