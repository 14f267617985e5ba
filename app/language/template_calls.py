"""The few calls that a template may hold: which one it is, and whether its arguments will do."""

from __future__ import annotations

from jinja2 import nodes


def call_name(node: nodes.Call) -> str | None:
    """`range`, `kv.get` or `kv.get_secret` if that is what is called; None for anything else."""
    callee = node.node
    if isinstance(callee, nodes.Name) and callee.name == "range":
        return "range"
    if isinstance(callee, nodes.Getattr) and isinstance(callee.node, nodes.Name) and callee.node.name == "kv":
        return f"kv.{callee.attr}" if callee.attr in ("get", "get_secret") else None
    return None


def written_range(node: nodes.Call) -> int | None:
    """How many numbers a range has whose arguments are written out; None where they are not, or cannot be."""
    given = []
    for arg in node.args:
        sign, inner = (-1, arg.node) if isinstance(arg, nodes.Neg) else (1, arg)
        value = inner.value if isinstance(inner, nodes.Const) else None
        if not isinstance(value, int) or isinstance(value, bool):
            return None
        given.append(sign * value)
    if len(given) == 3 and not given[2]:
        return None
    numbers = range(*given)
    # Not `len`: it cannot say numbers beyond 64 bits.
    return max(
        0, (numbers.stop - numbers.start + numbers.step - (1 if numbers.step > 0 else -1)) // numbers.step
    )


def kv_arguments(node: nodes.Call, default_allowed: bool) -> bool:
    """Whether a call of kv has a key that is written out, and a default at the most."""
    if not node.args or not isinstance(node.args[0], nodes.Const) or not isinstance(node.args[0].value, str):
        return False
    defaults = len(node.args) - 1 + len(node.kwargs)
    return defaults <= int(default_allowed) and all(pair.key == "default" for pair in node.kwargs)
