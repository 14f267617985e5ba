#!/bin/sh
# Lets so many replicas of an image run.
set -eu
state=${directory:-$HOME/.local/state/muster-packs}

# A line with the name of an action in the file `fail` makes it fail: to see what a workflow does then.
if grep -qx 'kubernetes.apply_deployment' "$state/fail" 2>/dev/null; then
    echo "kubernetes.apply_deployment is told to fail by $state/fail" >&2
    exit 1
fi

# What becomes part of a path or of JSON has nothing in it that means something there.
for value in "$app_name" "$image" "$namespace"; do
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

if [ "$tool" = kubectl ]; then
    kubectl --namespace "$namespace" create deployment "$app_name" --image "$image" --replicas "$replicas" \
        --dry-run=client --output yaml | kubectl --namespace "$namespace" apply --filename -
else
    if [ -e "$file" ]; then mv -f "$file" "$file.previous"; fi
    printf '{"image": "%s", "replicas": %s, "ready": %s}\n' "$image" "$replicas" "$replicas" >"$file.new"
    mv "$file.new" "$file"
fi
printf '{"image": "%s", "replicas": %s}\n' "$image" "$replicas" >"$MUSTER_OUTPUT"
echo "$app_name: $replicas x $image"
