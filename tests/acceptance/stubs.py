"""Programs that stand for those of a deployment: they leave a line each time they run, and fail as they are told.

What runs is written to `<place>/<execution>.ran`, a line `TASK NODE` each time. `<execution>.mended` ends all failing,
`<execution>.go` all waiting.
"""

from __future__ import annotations

from pathlib import Path

EXAMPLE = ("make", "install-image", "curl")
"""The programs of docs/examples/deploy-workflow.yaml: what they meet is in the version, "1.4 TASK,… HOW"."""

_EXAMPLE = """\
#!/bin/sh
place=@place@/$MUSTER_EXECUTION
echo "$MUSTER_TASK $MUSTER_NODE" >> "$place.ran"
case ${0##*/} in make) echo "${2#VERSION=}" > "$place.version" ;; esac
read -r version tasks how < "$place.version"
case ,$tasks, in *,"$MUSTER_TASK",*) ;; *) how= ;; esac
[ ! -e "$place.mended" ] || how=
case $how in
    killed) kill -KILL 0 ;;
    fails) [ "$MUSTER_NODE" = web-1 ] || exit 7 ;;
    ill) echo ill; exit 0 ;;
    waits) until [ -e "$place.go" ]; do sleep 0.02; done ;;
esac
case ${0##*/} in make) echo "app:$version" ;; curl) echo ok ;; esac
"""

_STEP = """\
#!/bin/sh
# step TASK,… NAME=VALUE …: fails where its task is named, else its result has these values.
echo "$MUSTER_TASK $MUSTER_NODE" >> "@place@/$MUSTER_EXECUTION.ran"
case ,$1, in *,"$MUSTER_TASK",*) exit 1 ;; esac
shift
begin='{'
for pair; do printf '%s"%s": "%s"' "$begin" "${pair%%=*}" "${pair#*=}"; begin=', '; done > "$MUSTER_OUTPUT"
[ $# -eq 0 ] || echo '}' >> "$MUSTER_OUTPUT"
"""


def install(directory: Path, place: Path) -> None:
    """Puts them into a directory on the PATH of the nodes."""
    place.mkdir()
    for name, text in (*((one, _EXAMPLE) for one in EXAMPLE), ("step", _STEP)):
        path = directory / name
        path.write_text(text.replace("@place@", str(place)))
        path.chmod(0o755)
