"""What a tool left behind, judged: a state, or an error that says why there is none."""

from __future__ import annotations

from app.errors import InvalidInput
from app.flows.model import Flow, Result, Terms, failed
from app.flows.state import from_json


def of_files(flow: Flow, status: int, result: bytes | None, said: str) -> Result:
    """By the exit code of the tool, the result that it wrote, if any, and what it said on stderr."""
    if result is None:
        message = f"the flow ended on {flow.host} with exit code {status} and left no result"
        return failed(
            "remote", f"{message}: {said[-500:]}" if said else message, exit_code=status, stderr=said
        )
    try:
        return Result(from_json(result, flow.entry_point))
    except InvalidInput as problem:
        return failed("bad_result", problem.message, exit_code=status, stderr=said)


def too_large(size: int, most: int) -> Result:
    """A result that is not even fetched."""
    return failed("bad_result", f"the result of the flow has {size} bytes, {most} are allowed")


def timed_out(terms: Terms) -> Result:
    """Its time was over."""
    return failed("timeout", f"timed out after {terms.timeout or 0:g}s")


def given_up(flow: Flow) -> Result:
    """Nobody wants it any more."""
    return failed("cancelled", f"the flow was ended on {flow.host}: nobody waits for it any more")
