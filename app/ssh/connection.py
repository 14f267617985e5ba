"""Connections by asyncssh: one event loop in a thread of its own for the whole process, any number of machines.

Nothing of the user's own configuration is read: no agent, no ssh_config, no other key than the target's. The host's key
must be the one that is trusted.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import asyncssh

from app.ssh.failures import Refused, Unreachable
from app.ssh.link import Listener
from app.ssh.target import Target

CONNECT_WITHIN = 15.0
"""Seconds for a connection, from the name's look-up to the login: a machine may hang in each of these."""
OPEN_WITHIN = 15.0
"""Seconds for a session on a connection that is there."""
KEEPALIVE_EVERY, KEEPALIVE_MOST = 5, 3
BACKLOG = 4 << 20
"""Bytes of a session that may wait to be worked off; then the machine has to wait."""

_T = TypeVar("_T")


_making = threading.Lock()


def _loop() -> asyncio.AbstractEventLoop:
    # Many may come at once, and there must be one loop only.
    with _making:
        return _made_loop()


@functools.cache
def _made_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="ssh", daemon=True).start()
    return loop


def _wait(work: Coroutine[Any, Any, _T], seconds: float) -> _T:
    """The result of what the loop does. TimeoutError after `seconds`, and then it is given up."""
    future = asyncio.run_coroutine_threadsafe(work, _loop())
    try:
        return future.result(seconds)
    except concurrent.futures.TimeoutError:
        future.cancel()
        raise TimeoutError from None


class AsyncsshSession(asyncssh.SSHClientSession[bytes]):
    """One command. Its methods with `_received`, `_made` and `_lost` are the loop's."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._status = b""
        self._waiting = 0
        self._is_paused = False

    def write(self, data: bytes) -> None:
        _loop().call_soon_threadsafe(self._write, data)

    def end_input(self) -> None:
        _loop().call_soon_threadsafe(self._end_input)

    def taken(self, count: int) -> None:
        if self._is_paused or self._waiting > BACKLOG // 2:
            _loop().call_soon_threadsafe(self._take, count)
        else:
            self._waiting -= count

    def close(self) -> None:
        _loop().call_soon_threadsafe(self._close)

    def _write(self, data: bytes) -> None:
        if self._channel is not None and not self._channel.is_closing():
            self._channel.write(data)

    def _end_input(self) -> None:
        if self._channel is not None and not self._channel.is_closing():
            self._channel.write_eof()

    def _take(self, count: int) -> None:
        self._waiting -= count
        if self._is_paused and self._waiting <= BACKLOG // 2 and self._channel is not None:
            self._is_paused = False
            self._channel.resume_reading()

    def _close(self) -> None:
        if self._channel is not None:
            # Who does not listen must not keep what is still to come in memory.
            self._is_paused = False
            self._channel.resume_reading()
            self._channel.close()

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._channel = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._waiting += len(data)
        if self._waiting > BACKLOG and not self._is_paused and self._channel is not None:
            self._is_paused = True
            self._channel.pause_reading()
        self._listener("out" if datatype is None else "err", data)

    def exit_status_received(self, status: int) -> None:
        self._status = str(status).encode()

    def connection_lost(self, exc: Exception | None) -> None:
        self._listener("closed", self._status)


class AsyncsshLink:
    """A connection that is logged in."""

    def __init__(self, connection: asyncssh.SSHClientConnection) -> None:
        self._connection = connection

    @property
    def is_open(self) -> bool:
        return not self._connection.is_closed()

    def open(self, command: str, data: bytes, listener: Listener, *, keep: bool = False) -> AsyncsshSession:
        try:
            return _wait(self._open(command, data, listener, keep), OPEN_WITHIN)
        except TimeoutError:
            raise Unreachable(f"the machine opened no session within {OPEN_WITHIN:g} s") from None
        except (OSError, asyncssh.Error) as error:
            raise Unreachable(f"the machine opened no session: {_words(error)}") from None

    def close(self) -> None:
        _loop().call_soon_threadsafe(self._connection.abort)

    async def _open(self, command: str, data: bytes, listener: Listener, keep: bool) -> AsyncsshSession:
        session = AsyncsshSession(listener)
        channel, _ = await self._connection.create_session(lambda: session, command, encoding=None)
        if data:
            channel.write(data)
        if not keep:
            channel.write_eof()
        return session


def connect(target: Target) -> AsyncsshLink:
    """Logs in. Raises `Refused` for a wrong key, on either side, and `Unreachable`."""
    try:
        key = asyncssh.import_private_key(target.private_key)
        trusted = asyncssh.import_public_key(target.host_key)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        message = f"the private key or the host key for {target.address} cannot be used: {_words(error)}"
        raise Refused(
            "ssh_key", message, hint="give a key without a passphrase, as `ssh-keygen` writes it"
        ) from None
    try:
        # A little more than it gives itself, so that it is the one who gives up and cleans up.
        return AsyncsshLink(_wait(_connect(target, key, trusted), CONNECT_WITHIN + 1.0))
    except asyncssh.PermissionDenied:
        raise wrong_key(target) from None
    except (asyncssh.HostKeyNotVerifiable, asyncssh.KeyExchangeFailed):
        raise wrong_host(target) from None
    except TimeoutError:
        raise Unreachable(f"{target.address} did not answer within {CONNECT_WITHIN:g} s") from None
    except (OSError, asyncssh.Error) as error:
        raise Unreachable(f"{target.address} cannot be reached: {_words(error)}") from None


def offered_host_key(host: str, port: int) -> str:
    """The key that whoever answers there says is its own, `TYPE BASE64`; nothing is proved by that, and nothing sent.

    Raises `Unreachable`.
    """
    try:
        key = _wait(asyncssh.get_server_host_key(host, port, config=None), CONNECT_WITHIN)
    except TimeoutError:
        raise Unreachable(f"{host}:{port} did not answer within {CONNECT_WITHIN:g} s") from None
    except (OSError, asyncssh.Error) as error:
        raise Unreachable(f"{host}:{port} cannot be reached: {_words(error)}") from None
    if key is None:
        raise Unreachable(f"{host}:{port} offers no key")
    return " ".join(key.export_public_key("openssh").decode().split()[:2])


def fingerprint(host_key: str) -> str:
    """`SHA256:…`, as `ssh-keygen -l` shows it. Raises `Refused` for a text that is no key."""
    try:
        return asyncssh.import_public_key(host_key).get_fingerprint()
    except asyncssh.KeyImportError as error:
        raise Refused("ssh_key", f"this is not a host key: {_words(error)}") from None


def wrong_key(target: Target) -> Refused:
    """What is said where the machine does not take the key."""
    return Refused(
        "ssh_auth",
        f"{target.address} does not accept the key for the user {target.user}",
        hint=f"put its public half there: `ssh-copy-id -i KEY.pub -p {target.port} {target.user}@{target.host}`,"
        " and check that this user may log in by key",
    )


def wrong_host(target: Target) -> Refused:
    """What is said where another machine than the trusted one answers."""
    return Refused(
        "ssh_host_key",
        f"{target.address} does not prove that it is the machine that is trusted: its host key is another one",
        hint="where the machine was set up anew, compare the fingerprint there"
        " (`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`) and run `muster node trust NODE`;"
        " otherwise somebody may be in between",
    )


async def _connect(
    target: Target, key: asyncssh.SSHKey, trusted: asyncssh.SSHKey
) -> asyncssh.SSHClientConnection:
    return await asyncssh.connect(
        target.host,
        target.port,
        username=target.user,
        client_keys=[key],
        client_certs=[],
        known_hosts=([trusted], [], []),
        x509_trusted_certs=None,
        agent_path=None,
        config=None,
        gss_host=None,
        preferred_auth="publickey",
        compression_algs=None,
        # First, for what asyncssh does for each packet of its own first choice takes four times as long.
        encryption_algs="^aes256-gcm@openssh.com,aes128-gcm@openssh.com",
        keepalive_interval=KEEPALIVE_EVERY,
        keepalive_count_max=KEEPALIVE_MOST,
        connect_timeout=CONNECT_WITHIN,
        login_timeout=CONNECT_WITHIN,
    )


def _words(error: BaseException) -> str:
    return str(error).strip() or type(error).__name__
