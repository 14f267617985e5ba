"""`python -m bench.raw_relay NAME`: runs what is asked for on the Redis list raw:relay:NAME, and relays its lines.

Each line is an entry of the stream that the request names: at once where they come one by one, in pieces of up to
64 KiB where they come together. The last entry is `end`; then the number of bytes is pushed to the list KEY:over.
RAW_BROKER tells where Redis is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import cast

from bench.raw_wire import connect

_PIECE = 65_536
_ENTRIES = 1000


def main() -> None:
    client = connect(os.environ["RAW_BROKER"])
    while True:
        _, asked = cast("tuple[bytes, bytes]", client.blpop([f"raw:relay:{sys.argv[1]}"]))
        request = json.loads(asked)
        key, relayed = request["key"], 0
        with subprocess.Popen(request["argv"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            while piece := os.read(process.stdout.fileno(), _PIECE):
                client.xadd(key, {"d": piece}, maxlen=_ENTRIES)
                relayed += len(piece)
        client.xadd(key, {"end": process.returncode}, maxlen=_ENTRIES)
        client.rpush(f"{key}:over", relayed if process.returncode == 0 else -1)


if __name__ == "__main__":
    main()
