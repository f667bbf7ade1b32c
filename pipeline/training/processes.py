"""Several processes that share one training: who has which utterances, and who speaks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from data_tools.errors import DataError
from models.errors import ModelError
from pipeline.settings import ConfigError
from pipeline.training.state import seed_everything

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
