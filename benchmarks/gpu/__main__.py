"""`python -m benchmarks.gpu`, from the root of the repository with any Python, the project installed or not.

Imports nothing that a bare machine could lack before it has said so.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from benchmarks.gpu.bench_gpu import BUDGET_S, gpu_test, write_not_measured
from benchmarks.gpu.plan import SIZES
from benchmarks.rows import RESULTS
from data_tools.errors import DataError


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Exit status 1: no GPU, or a test failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description="Check and time on a GPU all that needs one."
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for gpu.json and gpu.md")
    parser.add_argument("--budget-s", type=float, default=BUDGET_S, help="seconds in all; the rest is not measured")
    parser.add_argument("--not-measured", action="store_true", help="write rows that say so, and measure nothing")
    parser.add_argument("--device", default="cuda", help="cpu walks through it for a test")
    parser.add_argument("--sizes", choices=SIZES, default="full", help="tiny walks through it for a test")
    given = parser.parse_args(arguments)
    needed = [name for name in ("filelock", "safetensors") if find_spec(name) is None]
    if needed:
        sys.stderr.write(f"error: install {' and '.join(needed)} first: no row can be written without\n")
        return 1

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")

    try:
        if given.not_measured:
            result = write_not_measured(given.out)
        else:
            result = gpu_test(given.out, say, given.device, given.sizes, given.budget_s)
    except DataError as error:
        say(f"error: {error}")
        return 1
    for problem in result["problems"]:
        say(f"error: {problem}")
    return 1 if result["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
