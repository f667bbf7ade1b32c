"""Devices of a training: the one that is used, its precision and memory, and processes that share a training."""

import ctypes
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from data_tools.errors import DataError
from data_tools.processes import resident_peak
from models.errors import ModelError
from pipeline.settings import ConfigError

# From malloc.h: M_TRIM_THRESHOLD and M_MMAP_THRESHOLD.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# No activation of a batch that fits a CPU's memory is larger; the parameters of mallopt are ints.
_LARGEST_KEPT = 2**30


def start_peak(device: torch.device) -> None:
    """From now on `peak_bytes` counts anew, on a GPU; the peak of a process can't be set back."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int:
    """The most bytes: on a GPU allocated by torch since `start_peak`, on a CPU resident since this process began."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else resident_peak()


def peak_of(device: torch.device) -> str:
    """Kind of memory that `peak_bytes` counts, in words."""
    return "allocated on the GPU" if device.type == "cuda" else "resident in the process"


def keep_freed_memory() -> bool:
    """Keep blocks up to 1 GiB in the heap of this process from now on; returns True if this malloc can.

    By default malloc maps every large block anew and gives it back when it is freed, so that the system has to clear
    and map each page of each activation again in every step: 350,000 page faults in a training step at batch 8.
    Freed memory is reused and stays with the process, so the resident size stays at its peak. Another malloc than
    glibc's is left as it is.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))


def choose_device(device: str) -> torch.device:
    """The device called auto, cpu or cuda; `auto` takes CUDA where torch sees it.

    Raises:
        ConfigError: CUDA is asked for and not there.
    """
    cuda = torch.cuda.is_available()
    if device == "cuda" and not cuda:
        raise ConfigError("device is 'cuda', but torch sees no CUDA device; use device cpu or auto")
    if cuda and device != "cpu":
        return torch.device("cuda", torch.cuda.current_device())
    keep_freed_memory()
    return torch.device("cpu")


def check_compiler() -> None:
    """Raises ConfigError where torch.compile has no C++ compiler to work with."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise ConfigError(
            f"compile needs a C++ compiler, and {compiler!r} is not there; install g++ (or name another one in the "
            "environment variable CXX), or leave --compile out"
        )


def resolve_precision(precision: str, device: str) -> str:
    """`auto` as bf16-mixed where the device multiplies bfloat16 itself, else as 32-true; others as they are.

    At the papers' sizes bfloat16 steps take a third of the time on such a processor; see docs/performance.md.
    """
    if precision != "auto":
        return precision
    if device != "cpu" and torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported()
    else:
        native = torch.cpu._is_avx512_bf16_supported()  # torch has no public name for it before 2.12
    return "bf16-mixed" if native else "32-true"


if TYPE_CHECKING:  # importing it takes seconds
    from lightning_fabric import Fabric

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process, number `rank` of `world` that train together. Alone by default."""

    rank: int = 0
    world: int = 1

    @classmethod
    def from_fabric(cls, fabric: "Fabric") -> "Ranks":
        """Those of a started fabric."""
        return cls(fabric.global_rank, fabric.world_size)

    @property
    def first(self) -> bool:
        """True in the process that writes the run folder and speaks."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """True where there is no other process."""
        return self.world == 1

    def own(self, positions: Sequence[int]) -> list[int]:
        """The positions of one batch that this process takes: every `world`-th.

        At least one: all processes step together. A process that has none takes the first, which then counts nothing.
        """
        return list(positions[self.rank :: self.world]) or list(positions[:1])

    def counted(self, size: int) -> int:
        """Number of a batch's `size` utterances that this process counts; the sum over processes is `size`."""
        return len(range(self.rank, size, self.world))

    def places(self, sizes: Sequence[int]) -> list[int]:
        """Positions among all of the utterances that this process counts; batches of `sizes` follow one another."""
        starts = accumulate(sizes, initial=0)
        return [place for start, size in zip(starts, sizes, strict=False) for place in self._within(start, size)]

    def _within(self, start: int, size: int) -> Iterator[int]:
        yield from range(start + self.rank, start + size, self.world)

    def seed_epoch(self, seed: int, epoch: int) -> None:
        """Give this process an own stream of random numbers, for other dropout than its neighbours'.

        It follows from (seed, epoch, rank), so that a resumed run needs no state of it. The first process keeps its
        stream, which the run's state holds: a run of one process draws what it always drew.
        """
        if not self.first:
            seed_everything(int(np.random.SeedSequence([seed, epoch, self.rank]).generate_state(1)[0]))


def from_first_process(fabric: "Fabric", function: Callable[[], T]) -> T:
    """Return in all processes what `function` returns in the first; where it fails there, all fail with its error."""
    if fabric.world_size == 1:
        return function()
    found: tuple[Any, Exception | None] = (None, None)
    if fabric.global_rank == 0:
        try:
            found = function(), None
        except (ConfigError, DataError, ModelError) as error:
            found = None, error
    value, failure = fabric.broadcast(found)
    if failure is not None:
        raise failure
    made: T = value
    return made


def seed_everything(seed: int) -> None:
    """Seed the generators of python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
