"""Asks for a URL, and fails where the status is another than expected."""

import json
import os
import sys
import urllib.error
import urllib.request

MOST = 65536
state = os.environ["directory"] or os.path.expanduser("~/.local/state/muster-packs")
try:
    # A line with the name of an action in the file `fail` makes it fail: to see what a workflow does then.
    with open(os.path.join(state, "fail")) as file:
        if "http.get" in file.read().split():
            sys.exit(f"http.get is told to fail by {state}/fail")
except FileNotFoundError:
    pass

url, expected = os.environ["url"], int(os.environ["expected_status"])
if not url.startswith(("http://", "https://", "file://")):
    sys.exit(f"the URL must begin with http://, https:// or file://: {url}")
try:
    with urllib.request.urlopen(url, timeout=float(os.environ["seconds"])) as response:
        status, body = response.status or 200, response.read(MOST)
except urllib.error.HTTPError as error:
    status, body = error.code, error.read(MOST)
except OSError as error:
    sys.exit(f"{url}: {error}")
with open(os.environ["MUSTER_OUTPUT"], "w") as file:
    json.dump({"status": status, "body": body.decode("utf-8", "replace")}, file)
print(f"{url}: {status}")
if status != expected:
    sys.exit(f"{status}, expected {expected}")
