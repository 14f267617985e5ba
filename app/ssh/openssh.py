"""Connections by the `ssh` program: for places whose ssh_config does what nothing else can.

A master process holds the connection, and ends with this one; every session is an `ssh` of its own over the master's
socket, which is in a short private directory. The host's key must be the one that is trusted: no other is known.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from app.ssh.connection import BACKLOG, CONNECT_WITHIN, KEEPALIVE_EVERY, KEEPALIVE_MOST, wrong_host, wrong_key
from app.ssh.failures import Refused, Unreachable
from app.ssh.link import Listener
from app.ssh.target import Target

_CHUNK = 65_536
_LOST = 255
"""The exit code of `ssh` where it is its own, and not the command's."""


class OpensshSession:
    """One `ssh` over the master's socket."""

    def __init__(self, command: list[str], data: bytes, listener: Listener, keep: bool) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)
        self._listener = listener
        self._room = threading.Condition()
        self._waiting = 0
        self._closed = False
        self._writing = threading.Lock()
        threads = [
            threading.Thread(target=self._read, args=(kind, stream), daemon=True)
            for kind, stream in (("out", self._process.stdout), ("err", self._process.stderr))
        ]
        for thread in threads:
            thread.start()
        threading.Thread(target=self._feed, args=(data, keep), daemon=True).start()
        threading.Thread(target=self._see_out, args=(threads,), daemon=True).start()

    def write(self, data: bytes) -> None:
        with self._writing:
            try:
                if self._process.stdin is not None and not self._process.stdin.closed:
                    self._process.stdin.write(data)
            except OSError:
                # It has ended: the listener is told.
                pass

    def end_input(self) -> None:
        with self._writing:
            try:
                if self._process.stdin is not None:
                    self._process.stdin.close()
            except OSError:
                pass

    def taken(self, count: int) -> None:
        with self._room:
            self._waiting -= count
            self._room.notify_all()

    def close(self) -> None:
        with self._room:
            self._closed = True
            self._room.notify_all()
        if self._process.poll() is None:
            self._process.terminate()

    def _feed(self, data: bytes, keep: bool) -> None:
        view = memoryview(data)
        while len(view):
            self.write(bytes(view[:_CHUNK]))
            view = view[_CHUNK:]
        if not keep:
            self.end_input()

    def _read(self, kind: str, stream: object) -> None:
        descriptor = stream.fileno()  # type: ignore[attr-defined]
        while data := os.read(descriptor, _CHUNK):
            with self._room:
                self._room.wait_for(lambda: self._waiting < BACKLOG or self._closed)
                self._waiting += len(data)
            self._listener(kind, data)

    def _see_out(self, readers: list[threading.Thread]) -> None:
        status = self._process.wait()
        for reader in readers:
            reader.join()
        self.end_input()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        self._listener("closed", b"" if status in (_LOST,) or status < 0 else str(status).encode())


class OpensshLink:
    """A master that is logged in, and the directory that is its own."""

    def __init__(self, directory: Path, words: list[str], master: subprocess.Popen[bytes]) -> None:
        self._directory = directory
        self._words = words
        self._master = master

    @property
    def is_open(self) -> bool:
        return self._master.poll() is None

    def open(self, command: str, data: bytes, listener: Listener, *, keep: bool = False) -> OpensshSession:
        if not self.is_open:
            raise Unreachable("the connection is broken")
        try:
            return OpensshSession([*self._words, command], data, listener, keep)
        except OSError as error:
            raise Unreachable(f"`ssh` cannot be started: {error}") from None

    def close(self) -> None:
        _end(self._master)
        shutil.rmtree(self._directory, ignore_errors=True)


def connect(target: Target, *, config: str = "") -> OpensshLink:
    """Logs in by `ssh`, with the ssh_config at `config`, or with none. Raises `Refused` and `Unreachable`."""
    program = shutil.which("ssh")
    if program is None:
        raise Refused("ssh_key", "there is no `ssh` on this machine", hint="install the OpenSSH client")
    try:
        # Short, because a socket's path may have 107 bytes.
        directory = Path(tempfile.mkdtemp(prefix="muster-ssh-"))
        try:
            words = [program, *_options(target, directory, config), "--", f"{target.user}@{target.host}"]
            master = _master(program, target, directory, config)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
    except OSError as error:
        # Of this machine: too many open files, a full disk, no room for another process.
        raise Unreachable(f"`ssh` cannot be started: {error}") from None
    return OpensshLink(directory, words, master)


def _options(target: Target, directory: Path, config: str) -> list[str]:
    options = {
        "BatchMode": "yes",
        "ControlPath": str(directory / "s"),
        "ControlMaster": "no",
        # Without the master there is no way: nothing else may be connected to in its place.
        "ProxyCommand": "false",
        "LogLevel": "QUIET",
    }
    return _words(target, config, options)


def _master(program: str, target: Target, directory: Path, config: str) -> subprocess.Popen[bytes]:
    key, known = directory / "key", directory / "known_hosts"
    for path, text in ((key, target.private_key), (known, _known_hosts(target))):
        with open(path, "w", opener=lambda name, flags: os.open(name, flags | os.O_EXCL, 0o600)) as file:
            file.write(text if text.endswith("\n") else f"{text}\n")
    options = {
        "BatchMode": "yes",
        "ControlPath": str(directory / "s"),
        "ControlMaster": "yes",
        "ControlPersist": "no",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": str(known),
        "GlobalKnownHostsFile": "/dev/null",
        "HostKeyAlias": "muster",
        "UpdateHostKeys": "no",
        "IdentityFile": str(key),
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "PreferredAuthentications": "publickey",
        "ForwardAgent": "no",
        "ClearAllForwardings": "yes",
        "ConnectTimeout": str(int(CONNECT_WITHIN)),
        "ServerAliveInterval": str(KEEPALIVE_EVERY),
        "ServerAliveCountMax": str(KEEPALIVE_MOST),
        "LogLevel": "ERROR",
    }
    # Its own session ends with our end of the pipe, and so does the master: whatever becomes of this process.
    command = [f"{target.user}@{target.host}", "exec cat"]
    words = [program, *_words(target, config, options), "--", *command]
    said = directory / "said"
    with open(said, "wb") as file:
        master = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=file, stderr=file, start_new_session=True
        )
    deadline = time.monotonic() + CONNECT_WITHIN + 1.0
    while not (directory / "s").exists():
        if master.poll() is not None:
            _end(master)
            raise _failure(target, said.read_text(errors="replace"))
        if time.monotonic() > deadline:
            _end(master)
            raise Unreachable(f"{target.address} did not answer within {CONNECT_WITHIN:g} s")
        time.sleep(0.01)
    # It has read them; what is not there cannot be read by anybody else.
    key.unlink()
    return master


def _end(master: subprocess.Popen[bytes]) -> None:
    if master.stdin is not None:
        master.stdin.close()
    master.terminate()
    try:
        master.wait(5.0)
    except subprocess.TimeoutExpired:
        master.kill()
        master.wait()


def _words(target: Target, config: str, options: dict[str, str]) -> list[str]:
    found = ["-F", config or "none", "-T", "-p", str(target.port)]
    for name, value in options.items():
        found += ["-o", f"{name}={value}"]
    return found


def _known_hosts(target: Target) -> str:
    return f"muster {target.host_key}"


def _failure(target: Target, said: str) -> Refused | Unreachable:
    text = said.strip()
    if "Permission denied" in text or "Too many authentication failures" in text:
        return wrong_key(target)
    if "Host key verification failed" in text or "no matching host key" in text:
        return wrong_host(target)
    if "invalid format" in text or "error in libcrypto" in text:
        message = f"the private key for {target.address} cannot be used: {text[-200:]}"
        return Refused("ssh_key", message, hint="give a key without a passphrase, as `ssh-keygen` writes it")
    return Unreachable(f"{target.address} cannot be reached: {text[-300:] or 'ssh ended without a word'}")
