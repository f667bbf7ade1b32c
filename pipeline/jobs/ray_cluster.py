"""Independent jobs over a Ray cluster, whose machines share the folders that the jobs read and write."""

import faulthandler
import logging
import math
import os
import re
import socket
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from data_tools.errors import DataError
from pipeline.jobs.local import Lost, died, timed_out
from pipeline.settings import ConfigError

# Both are read when Ray is imported or started. No statistics leave the machine; and under `uv run` Ray would copy the
# working folder, with all its videos, to every node.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

import ray
from ray import exceptions

Job = TypeVar("Job")
Result = TypeVar("Result")

# Other versions of these would give other bytes.
_SAME_EVERYWHERE = (
    "emotion-pipeline",
    "av",
    "numpy",
    "soundfile",
    "torch",
    "facenet-pytorch",
    "librosa",
    "scikit-image",
    "transformers",
)
# So many names of a folder show well enough that it is the same one.
_NAMES = 20
_MOUNT = "every node must mount the release and the data folder under the same paths"
_ANSWER_WITHIN_S = 10.0
_END_WITHIN_S = 30.0
_DEATHS = (
    exceptions.WorkerCrashedError,
    exceptions.OutOfMemoryError,
    exceptions.NodeDiedError,
    exceptions.ObjectLostError,
)


@dataclass(frozen=True)
class _Seen:
    """Names that the driver finds in a folder; a node that doesn't find them has something else there."""

    folder: Path
    names: tuple[str, ...]


@dataclass(frozen=True)
class _Expected:
    """Requirements of every node: the same folders, and the same (package, version) pairs."""

    folders: tuple[_Seen, ...]
    versions: tuple[tuple[str, str], ...]


def run_on_ray(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    address: str | None,
    workers: int | None,
    reads: Path | None,
    writes: Path | None,
    on_gpu: bool,
    limit_s: Callable[[Job], float] | None = None,
) -> Iterator[tuple[Job, Result | Lost[Job]]]:
    """As `pipeline.jobs.run.run_jobs`, with one Ray task of one CPU (and one GPU with `on_gpu`) for each of `jobs`.

    A killed worker costs its own job alone; that one goes to the end of the queue for a second and last trial, and so
    does one that took longer than `limit_s` says, as its worker ends then. When
    this ends early, by Ctrl-C or an error, jobs under way are cancelled, and their workers are gone before it returns.

    address: HOST:PORT of a cluster, or None for the one that RAY_ADDRESS or this machine's `ray start` names, else for
    one of this machine alone that ends with the run. workers: most jobs under way at once; None for all that fit.

    Raises:
        ConfigError: no such cluster, or a node without the folders, the GPU or the package versions of this machine.
        DataError: the cluster broke down.
    """
    with _connected(address), _expected(reads, writes) as expected:
        _check_resources(on_gpu)
        work: Any = ray.remote(num_cpus=1, num_gpus=int(on_gpu), max_retries=0, scheduling_strategy="SPREAD")(_work)
        todo = deque(range(len(jobs)))
        suspects: set[int] = set()
        running: dict[ray.ObjectRef, tuple[int, float]] = {}
        try:
            while todo or running:
                # Twice as many as fit, so that no node waits; not all, so that there is little to cancel.
                most = workers or 2 * _slots(on_gpu)
                while todo and len(running) < most:
                    index = todo.popleft()
                    limit = limit_s(jobs[index]) if limit_s else math.inf
                    running[work.remote(function, jobs[index], expected, limit)] = index, time.monotonic() + limit
                (finished,), _ = ray.wait(list(running), num_returns=1)
                index, ends_s = running.pop(finished)
                try:
                    result = ray.get(finished)
                except _DEATHS:
                    if index not in suspects:
                        suspects.add(index)
                        todo.append(index)
                        continue
                    # A worker that ends itself at the limit leaves no word; earlier than that it cannot.
                    limit = limit_s(jobs[index]) if limit_s else math.inf
                    result = timed_out(jobs[index], limit) if time.monotonic() > ends_s else died(jobs[index])
                yield jobs[index], result
        except exceptions.RayTaskError as error:
            if missing := re.search(r"No module named \S+", str(error.cause)):
                raise ConfigError(f"a node says: {missing[0]}; install this project on every node") from error
            raise error.cause from error
        except exceptions.RayError as error:
            raise DataError(f"the Ray cluster failed ({error}); what was finished is kept: start again") from error
        finally:
            _cancel(list(running))


def check_cluster(address: str | None) -> None:
    """Raise ConfigError where nobody listens: Ray itself would go on trying for minutes. None: as for `run_on_ray`."""
    named = address or os.environ.get("RAY_ADDRESS")
    if not named:
        return
    host, _, port = named.rpartition(":")
    if not host or not port.isdecimal():
        raise _no_cluster(named, "expected HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_WITHIN_S).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(named, f"nobody answers there ({error})") from error


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _no_cluster(address or "of this machine", error) from error
    try:
        yield
    finally:
        ray.shutdown()


def _no_cluster(name: str, why: object) -> ConfigError:
    return ConfigError(
        f"executor is 'ray' with the cluster {name!r}: {why}. Start Ray with the same versions on this machine too, "
        "`ray start --address=HOST:PORT`, or leave the address out"
    )


def _slots(on_gpu: bool) -> int:
    """Number of jobs that the cluster can run at once; at least 1."""
    resources = ray.cluster_resources()
    return max(1, int(min(resources.get("CPU", 0), resources.get("GPU", 0) if on_gpu else math.inf)))


def _check_resources(on_gpu: bool) -> None:
    """Raise ConfigError where the jobs would wait for ever."""
    found = ray.cluster_resources()
    for kind in ("CPU", "GPU") if on_gpu else ("CPU",):
        if found.get(kind, 0) < 1:
            raise ConfigError(f"the Ray cluster has no {kind}; each job needs one: add a node that has")


@contextmanager
def _expected(reads: Path | None, writes: Path | None) -> Iterator[_Expected]:
    """Files that the nodes must find; in `writes` one made for it, as an old copy could hold all other names."""
    versions = tuple((name, version(name)) for name in _SAME_EVERYWHERE)
    folders = [_Seen(reads, tuple(sorted(_names(reads))[:_NAMES]))] if reads else []
    if writes is None:
        yield _Expected(tuple(folders), versions)
        return
    # A name that data_tools.files.sweep knows, should this process be killed.
    mark = writes / f".shared.{uuid.uuid4().hex}.tmp"
    try:
        mark.touch()
        yield _Expected((*folders, _Seen(writes, (mark.name,))), versions)
    finally:
        mark.unlink(missing_ok=True)


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _work(function: Callable[[Job], Result], job: Job, expected: _Expected, limit_s: float = math.inf) -> Result:
    """Run one job on a node, after the check of the node. The worker ends itself after `limit_s` seconds."""
    _check_here(expected)
    if "torch" in sys.modules:  # imported with `function`
        sys.modules["torch"].set_num_threads(1)
    if math.isinf(limit_s):
        return function(job)
    # A thread in C ends the process, whatever holds up Python; the worker's log (2, its standard error) says where.
    faulthandler.dump_traceback_later(limit_s, exit=True, file=2)
    try:
        return function(job)
    finally:
        faulthandler.cancel_dump_traceback_later()


@lru_cache(maxsize=1)
def _check_here(expected: _Expected) -> None:
    """Raise ConfigError where this node would make other files than the driver's, or none.

    In every worker before its first job, as nodes come and go.
    """
    node = socket.gethostname()
    for seen in expected.folders:
        try:
            missing = set(seen.names) - _names(seen.folder)
        except OSError as error:
            raise ConfigError(f"node {node} cannot read {seen.folder} ({error.strerror}); {_MOUNT}") from None
        if missing:
            raise ConfigError(f"node {node} has another {seen.folder}, without {sorted(missing)[0]!r}; {_MOUNT}")
    for name, wanted in expected.versions:
        found = version(name)
        if found != wanted:
            raise ConfigError(f"node {node} has {name} {found}, this machine {wanted}: install the same lock on both")


def _cancel(running: Sequence[ray.ObjectRef]) -> None:
    """End the workers of `running` and wait for it: the next run may write where they write."""
    with suppress(exceptions.RayError):
        for reference in running:
            ray.cancel(reference, force=True)
        if running:
            ray.wait(list(running), num_returns=len(running), timeout=_END_WITHIN_S)
