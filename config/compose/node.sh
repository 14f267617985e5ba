#!/bin/sh
# A node in a container, `sh node.sh FILE`: becomes one with the one-time token in FILE, unless its volume holds it
# already; then it is the node's worker.
set -eu
muster node enroll "$MUSTER_NODE" --if-needed --url "$MUSTER_URL" --dir "$MUSTER_NODE_DIR" --token-file "$1"
exec celery -A workers.node worker -E
