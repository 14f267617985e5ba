#!/bin/sh
# Waits until all replicas of a deployment are ready.
set -eu
state=${directory:-$HOME/.local/state/muster-packs}

# A line with the name of an action in the file `fail` makes it fail: to see what a workflow does then.
if grep -qx 'kubernetes.wait_for_ready' "$state/fail" 2>/dev/null; then
    echo "kubernetes.wait_for_ready is told to fail by $state/fail" >&2
    exit 1
fi

# What becomes part of a path or of JSON has nothing in it that means something there.
for value in "$deployment" "$namespace"; do
    case $value in
    '' | .* | *[!A-Za-z0-9._:/@-]*) echo "cannot be a name: $value" >&2; exit 2 ;;
    esac
done

if [ "$tool" = auto ]; then
    tool=files
    if command -v kubectl >/dev/null && kubectl config current-context >/dev/null 2>&1; then tool=kubectl; fi
fi
mkdir -p "$state/kubernetes"
file="$state/kubernetes/$deployment.json"

if [ "$tool" = kubectl ]; then
    kubectl --namespace "$namespace" rollout status "deployment/$deployment" --timeout "${timeout}s"
else
    waited=0
    until grep -Eq '"replicas": ([0-9]+), "ready": \1\}' "$file" 2>/dev/null; do
        if [ "$waited" -ge "$timeout" ]; then
            echo "$deployment is not ready after $timeout s" >&2
            exit 1
        fi
        sleep 1
        waited=$((waited + 1))
    done
fi
echo '{"ready": true}' >"$MUSTER_OUTPUT"
echo "$deployment is ready"
