"""`python -m bench.raw_asyncssh KEY PORT SCRIPT HOST…`: a connection for each host, all at once, and what they say."""

from __future__ import annotations

import asyncio
import getpass
import sys

import asyncssh


async def _run(key: str, port: int, script: str, host: str) -> tuple[str, int | None, str]:
    connecting = asyncssh.connect(
        host, port, username=getpass.getuser(), client_keys=[key], known_hosts=None, config=None
    )
    async with connecting as connection:
        done = await connection.run(script)
        return host, done.exit_status, str(done.stdout)


async def main() -> None:
    key, port, script, *hosts = sys.argv[1:]
    for answer in await asyncio.gather(*(_run(key, int(port), script, host) for host in hosts)):
        print(*answer)


if __name__ == "__main__":
    asyncio.run(main())
