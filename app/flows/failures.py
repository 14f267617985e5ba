"""Why a host could not be reached: told by what ssh says, with what to do about it."""

from __future__ import annotations

from app.flows.model import Result, failed

_AUTH = ("permission denied (", "too many authentication failures", "no more authentication methods")
_HOST_KEY = (
    "host key verification failed",
    "remote host identification has changed",
    "host key is not trusted",
    "no matching host key",
)
_NETWORK = (
    "connection refused",
    "connection timed out",
    "operation timed out",
    "no route to host",
    "network is unreachable",
    "could not resolve",
    "connection reset",
    "connection closed",
    "connection lost",
    "broken pipe",
    "kex_exchange_identification",
    "banner exchange",
    "name or service not known",
    "temporary failure in name resolution",
)


def of_connection(host: str, said: str) -> Result:
    """The failure of a connection that was never made, by what ssh (or a library) said."""
    low = said.lower()
    if any(words in low for words in _HOST_KEY):
        return host_key(host, said)
    if any(words in low for words in _AUTH):
        return auth(host, said)
    return unreachable(host, said)


def is_of_connection(said: str) -> bool:
    """Whether these words of ssh tell that there was no connection, or no longer one."""
    low = said.lower()
    return any(words in low for words in (*_HOST_KEY, *_AUTH, *_NETWORK))


def auth(host: str, said: str) -> Result:
    """The host takes no key of ours: nothing that time mends."""
    return failed(
        "ssh_auth",
        f"{host} takes no key of the user of the io worker: {_short(said)}",
        hint=f"as that user: `ssh-keygen -t ed25519` unless there is a key, `ssh-copy-id {host}`, then try "
        f"`ssh -o BatchMode=yes {host} true`; a key with a passphrase needs an agent",
    )


def host_key(host: str, said: str) -> Result:
    """The host's key is not the one that is trusted: nothing that time mends."""
    return failed(
        "host_key",
        f"the host key of {host} is not trusted: {_short(said)}",
        hint="compare the key with the one that its administrator tells you, then put it into the known_hosts of the "
        f"user of the io worker: `ssh-keyscan {host.rpartition('@')[2]}` shows it",
    )


def unreachable(host: str, said: str) -> Result:
    """No connection came to be; it may do later."""
    return failed("unreachable", f"{host} cannot be reached: {_short(said)}", passing=True)


def unusable(host: str, said: str) -> Result:
    """No connection can come to be by its name, the configuration of ssh or what it says: nothing that time mends."""
    return failed("unreachable", f"{host} cannot be reached: {_short(said)}")


def unforeseen(host: str, problem: Exception) -> Result:
    """Something that nobody thought of, on our side of the connection."""
    return failed("internal", f"the flow on {host} met a fault here: {type(problem).__name__}: {problem}")


def _short(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip() and not set(line.strip()) <= {"@"}]
    return " / ".join(lines[-3:])[-500:] or "no reason was given"
