"""Most memory that a piece of work holds resident, measured in a process of its own.

Imports little: all that it imports counts.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, ParamSpec, TypeVar

from data_tools.processes import resident_peak
from pipeline.progress import Reporter

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def with_peak(
    function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> tuple[Result, int]:
    """Call `function` in a fresh process; returns its result and the most bytes that the process held resident.

    The function and its arguments must be picklable; the process has imported the function's module and nothing else.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_call, function, args, kwargs).result()


def run_quietly(stage: Callable[[Any, Reporter], Any], settings: Any) -> None:
    """Run a stage without a word: a reporter can't travel to another process."""
    stage(settings, Reporter(quiet=True))


def _call(function: Callable[..., Result], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Result, int]:
    result = function(*args, **kwargs)
    return result, resident_peak()
