"""What the runner is told of a job: its deploy plan taken apart, in the words that every runner understands.

A runner outlives its worker, and may be older: what is new here is left alone by a runner that does not know it.
"""

from __future__ import annotations

from typing import Any

from app.transport.messages import Job


def told(job: Job, workdir: str = "") -> dict[str, Any]:
    """The job as the runner's `start` takes it. `workdir` is the directory of its workspace, if it has one."""
    flat = job.to_json()
    del flat["files"], flat["commands"]
    flat.update(argv=job.argv, script=job.script, shell=job.shell, timeout=job.timeout)
    for file in job.files:
        flat.update(file=file.path, mode=file.mode, cleanup=len(job.commands) > 1)
    if workdir:
        flat["workdir"] = workdir
        # A runner that does not know the word goes there all the same; from a path that is relative to it, nowhere.
        flat["cwd"] = job.cwd or workdir
    return flat
