"""Processes beside the main one: workers that end with it, and readers that may break down without it."""

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence

from data_tools.errors import DataError

# A script that `read_apart` runs ends with this when it cannot use the file, and says why on standard error.
REFUSED = 3


def end_with_parent() -> None:
    """Call it first in a worker: it ends at once when its parent has ended, however that went.

    Without it, the workers of a killed run would wait for work for ever, and what one of them is at would be written
    into a folder that the next run may hold by then.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)


def read_apart(
    script: str, arguments: Sequence[str], problem: str, time_limit_s: float, extra: Mapping[str, str] | None = None
) -> bytes:
    """What a script of ours writes to standard output, run in a process of its own that may crash or hang.

    Some libraries do that on a damaged file. script: a module's `__file__`. extra: environment variables.

    Raises:
        DataError: `problem`, then what happened: it refused the file, broke down or took longer than the limit.
    """
    # -P: the folder of the script holds modules of ours that are none of the script's.
    command = [sys.executable, "-P", script, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **(extra or {})}
    try:
        done = subprocess.run(command, capture_output=True, timeout=time_limit_s, env=environment, check=False)
    except subprocess.TimeoutExpired:
        raise DataError(f"{problem}: reading it took more than {time_limit_s:g} s; copy it again") from None
    if done.returncode == REFUSED:
        raise DataError(f"{problem}: {done.stderr.decode(errors='replace').strip()[-300:]}")
    if done.returncode:
        raise DataError(f"{problem}: its library broke down on it (exit status {done.returncode}); copy it again")
    return done.stdout
