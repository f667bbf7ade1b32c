"""Processes beside the main one: workers that end with it, readers and programs that may break down without it."""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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
    """Output of one of our scripts, run in a process of its own that may crash or hang.

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


@dataclass(frozen=True)
class Ended:
    """Outcome of a program. output: both of its streams together. code: None where it took too long and was ended."""

    output: str
    code: int | None
    seconds: float


def run_at_most(
    command: Sequence[str], limit_s: float, folder: Path | None = None, extra: Mapping[str, str] | None = None
) -> Ended:
    """Run a program in `folder`; after `limit_s` it is ended, with all that it started.

    extra: environment variables.

    Raises:
        OSError: there is no such program.
    """
    started = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        # A session of its own, so that a compiler or a loader that it started ends with it.
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **(extra or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        output.seek(0)
        return Ended(output.read(), code, time.monotonic() - started)


def resident_peak() -> int:
    """The most bytes that this process held resident so far."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Linux keeps ru_maxrss of the parent across the start of a process; this figure starts anew.
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
