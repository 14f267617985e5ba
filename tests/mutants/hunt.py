"""`python tests/mutants/hunt.py [NAME …]`: the simulation against each fault made by hand, as `make mutants` does.

Each fault is put into a copy of the program, which a process of its own simulates until something is wrong, for 60 s
at the most. The last line is `mutants: found n/24`; ends with 1 below that.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from mutate import ROOT, WANTED, Misfit, Mutant, mutants

SECONDS = 60.0
MANY = 10_000_000


@dataclass(frozen=True, slots=True)
class Hunted:
    name: str
    found: bool
    seconds: float
    words: str


def hunt(mutant: Mutant) -> Hunted:
    """Raises Misfit."""
    with tempfile.TemporaryDirectory(prefix="muster-mutant-") as directory:
        mutant.build(Path(directory))
        command = [sys.executable, str(ROOT / "tests" / "engine" / "simulate.py")]
        environment = {**os.environ, "PYTHONPATH": directory, "PYTHONDONTWRITEBYTECODE": "1"}
        began = time.monotonic()
        ran = subprocess.run(
            [*command, "--schedules", str(MANY), "--most", "1", "--within", str(SECONDS)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        took = time.monotonic() - began
    lines = ran.stdout.splitlines()
    if not lines or not lines[-1].startswith("simulate: "):
        raise Misfit(f"{mutant.name}: the simulation did not run: {(ran.stderr or ran.stdout)[-500:]}")
    return Hunted(mutant.name, ran.returncode == 1, took, lines[0][:150])


def main() -> int:
    wanted = [one for one in mutants() if not sys.argv[1:] or one.name in sys.argv[1:]]
    found = 0
    try:
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for one in pool.map(hunt, wanted):
                found += one.found
                words = one.words if one.found else f"nothing in {one.seconds:.0f} s"
                print(
                    f"{'found' if one.found else 'NOT FOUND'} {one.seconds:5.1f} s  {one.name}: {words}",
                    flush=True,
                )
    except Misfit as misfit:
        print(f"mutants: {misfit}", file=sys.stderr)
        return 1
    print(f"mutants: found {found}/{len(wanted)}")
    return 0 if found == len(wanted) == (len(wanted) if sys.argv[1:] else WANTED) else 1


if __name__ == "__main__":
    sys.exit(main())
