"""`python -m bench.raw_client QUEUE`: a client started for one task. Sends `true`, prints its result as JSON."""

from __future__ import annotations

import json
import os
import sys

from bench.raw_wire import SHELL, make_result_app

if __name__ == "__main__":
    app = make_result_app(os.environ["RAW_BROKER"])
    print(json.dumps(app.send_task(SHELL, args=(["true"],), queue=sys.argv[1]).get(timeout=60)))
