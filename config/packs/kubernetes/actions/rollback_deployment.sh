#!/bin/sh
# Takes back the last change of a deployment.
set -eu
state=${directory:-$HOME/.local/state/muster-packs}

# A line with the name of an action in the file `fail` makes it fail: to see what a workflow does then.
if grep -qx 'kubernetes.rollback_deployment' "$state/fail" 2>/dev/null; then
    echo "kubernetes.rollback_deployment is told to fail by $state/fail" >&2
    exit 1
fi

# What becomes part of a path or of JSON has nothing in it that means something there.
for value in "$app_name" "$namespace"; do
    case $value in
    '' | .* | *[!A-Za-z0-9._:/@-]*) echo "cannot be a name: $value" >&2; exit 2 ;;
    esac
done

if [ "$tool" = auto ]; then
    tool=files
    if command -v kubectl >/dev/null && kubectl config current-context >/dev/null 2>&1; then tool=kubectl; fi
fi
mkdir -p "$state/kubernetes"
file="$state/kubernetes/$app_name.json"

rolled_back=true
if [ "$tool" = kubectl ]; then
    kubectl --namespace "$namespace" rollout undo "deployment/$app_name"
elif [ -e "$file.previous" ]; then
    mv -f "$file.previous" "$file"
elif [ -e "$file" ]; then
    rm -f "$file"
else
    rolled_back=false
fi
printf '{"rolled_back": %s}\n' "$rolled_back" >"$MUSTER_OUTPUT"
echo "$app_name: rolled_back=$rolled_back"
