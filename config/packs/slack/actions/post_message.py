"""Posts a message by a webhook, or puts it into the outbox."""

import json
import os
import sys
import urllib.request

state = os.environ["directory"] or os.path.expanduser("~/.local/state/muster-packs")
os.makedirs(state, mode=0o700, exist_ok=True)
try:
    # A line with the name of an action in the file `fail` makes it fail: to see what a workflow does then.
    with open(os.path.join(state, "fail")) as file:
        if "slack.post_message" in file.read().split():
            sys.exit(f"slack.post_message is told to fail by {state}/fail")
except FileNotFoundError:
    pass

text = {"channel": os.environ["channel"], "text": os.environ["message"]}
if os.environ["webhook_url"]:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(os.environ["webhook_url"], json.dumps(text).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=20):
            delivered = "webhook"
    except OSError as error:
        # The URL is a secret, and the error may name it.
        sys.exit(f"the webhook did not take it: {type(error).__name__}")
else:
    with open(os.path.join(state, "outbox.jsonl"), "a") as file:
        file.write(json.dumps({**text, "execution": os.environ["MUSTER_EXECUTION"]}) + "\n")
    delivered = "outbox"
with open(os.environ["MUSTER_OUTPUT"], "w") as file:
    json.dump({"delivered": delivered}, file)
print(text["text"])
