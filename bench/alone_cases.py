"""What is measured without a fleet: our compiler and our engine against themselves, on more of the same work.

The peer of a ratio is the small case, of a cache the miss; `compile52` has none, and its ratio is its milliseconds.
"""

from __future__ import annotations

from operator import attrgetter, methodcaller

from bench.cases import Case

COMPILING = (
    Case(
        name="compile52",
        title="parse, validate and compile a workflow of 52 tasks, no template seen before, against 1 ms",
        unit="ms",
        goal=25.0,
        more_is_better=False,
        scripts=0,
        ours=methodcaller("compile", 52),
        peer=attrgetter("one"),
    ),
    Case(
        name="compile520_ratio",
        title="the same of 520 tasks, against 52",
        unit="ms",
        goal=11.0,
        more_is_better=False,
        scripts=0,
        ours=methodcaller("compile", 520),
        peer=methodcaller("compile", 52),
    ),
    Case(
        name="advance500_ratio",
        title="one step of the engine in an execution of 500 tasks, against 20",
        unit="us",
        goal=1.3,
        more_is_better=False,
        scripts=0,
        ours=methodcaller("advance", 500),
        peer=methodcaller("advance", 20),
    ),
    Case(
        name="loop1000_ratio",
        title="an item of a loop over 1,000, submit to end, in the control services on SQLite, against one of 50",
        unit="ms",
        goal=1.2,
        more_is_better=False,
        scripts=0,
        ours=methodcaller("loop", 1000),
        peer=methodcaller("loop", 50),
    ),
    Case(
        name="plan_cache",
        title="the plan of 52 tasks that a process has, against reading it from the database",
        unit="us",
        goal=0.05,
        more_is_better=False,
        scripts=0,
        ours=methodcaller("plan", seen=True),
        peer=methodcaller("plan", seen=False),
    ),
    Case(
        name="template_cache",
        title="a template rendered that was rendered before, against one that was not",
        unit="us",
        goal=0.1,
        more_is_better=False,
        scripts=0,
        ours=methodcaller("template", seen=True),
        peer=methodcaller("template", seen=False),
    ),
)
