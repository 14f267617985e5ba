#!/bin/sh
# Builds an image and pushes it.
set -eu
state=${directory:-$HOME/.local/state/muster-packs}

# A line with the name of an action in the file `fail` makes it fail: to see what a workflow does then.
if grep -qx 'docker.build_and_push' "$state/fail" 2>/dev/null; then
    echo "docker.build_and_push is told to fail by $state/fail" >&2
    exit 1
fi

# What becomes part of a path or of JSON has nothing in it that means something there.
for value in "$app_name" "$version" "$registry"; do
    case $value in
    '' | .* | *[!A-Za-z0-9._:/@-]*) echo "cannot be a name: $value" >&2; exit 2 ;;
    esac
done

image="$registry/$app_name:$version"
if [ -n "$context" ] && command -v docker >/dev/null; then
    docker build --tag "$image" -- "$context"
    docker push "$image"
    pushed=true
else
    mkdir -p "$state/registry"
    printf '{"image": "%s"}\n' "$image" >"$state/registry/$(echo "$image" | tr / _).json"
    pushed=false
fi
printf '{"image_uri": "%s", "pushed": %s}\n' "$image" "$pushed" >"$MUSTER_OUTPUT"
echo "$image"
