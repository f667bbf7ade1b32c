"""The most memory that a piece of work holds resident, measured in a process of its own."""

import multiprocessing
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from pipeline.progress import Reporter

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def resident_peak() -> int:
    """The most bytes that this process held resident so far."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Linux keeps ru_maxrss of the parent across the start of a process; this figure starts anew.
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def with_peak(
    function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> tuple[Result, int]:
    """What `function` returns in a fresh process, and the most bytes that this process held resident.

    The function and its arguments must be picklable; the process has imported the function's module and nothing else.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measured, function, args, kwargs).result()


def quietly(stage: Callable[[Any, Reporter], Any], settings: Any) -> None:
    """Run a stage without a word: a reporter can't travel to another process."""
    stage(settings, Reporter(quiet=True))


def _measured(function: Callable[..., Result], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Result, int]:
    result = function(*args, **kwargs)
    return result, resident_peak()
