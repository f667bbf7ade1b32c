"""One pass over a loader. It knows batches, outputs and losses, and no model by name."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice, repeat
from typing import Any, Protocol, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from data_tools.batch import Batch
from data_tools.errors import DataError
from models.output import Output
from pipeline.progress import Reporter
from pipeline.training.device import Ranks, peak_bytes, start_peak
from pipeline.training.losses import Loss

T = TypeVar("T")
# Reading a loss waits for the device, so it is not done in every step.
CHECK_EVERY = 16


class TrainingError(DataError):
    """Training went off the rails; the message says where and what to change."""


class Batches(Sized, Protocol):
    """Anything with a length that gives batches: a DataLoader, a list."""

    def __iter__(self) -> Iterator[Batch]: ...


class Forward(Protocol):
    """A model on its device: `forward(batch) -> Output`."""

    device: torch.device

    @property
    def model(self) -> nn.Module:
        """The network itself."""

    def __call__(self, batch: Batch) -> Output:
        """The model's output for a batch on the device."""


class Trainer(Forward, Protocol):
    """A `Forward` that can take a training step, as `pipeline.training.engine.Engine`."""

    def without_exchange(self, enabled: bool = True) -> AbstractContextManager[Any]:
        """Context in which gradients stay in this process, where several train together."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`."""

    def step(self, clip_norm: float) -> None:
        """Clip the gradients, update the parameters, clear the gradients."""


@dataclass(frozen=True)
class Update:
    """Training step of a pass.

    clip_norm: largest norm of the gradients. accumulate: batches that share one step. parts: as many of what the
    loader gives make up each batch; None for one.
    """

    clip_norm: float
    accumulate: int = 1
    parts: Sequence[int] | None = None

    def sizes(self) -> Iterator[int]:
        """How much of what the loader gives goes into each step."""
        parts = repeat(1) if self.parts is None else iter(self.parts)
        while size := sum(islice(parts, self.accumulate)):
            yield size


@dataclass(frozen=True)
class Share:
    """Share of a pass that this process does. sizes: utterances of each batch, those of all processes together."""

    ranks: Ranks
    sizes: Sequence[int]


@dataclass(frozen=True)
class Pass:
    """Result of one pass; where several processes shared it, of all of them together.

    loss: mean over utterances. parts: its parts by name, the same.
    computed: `Output.computed` per utterance; a share (`face.share.1`) as the mean over utterances' batches.
    ids, logits (n, outputs) float32, labels (n, E), sentiment (n,): in the loader's order, on the CPU.
    batches, steps: how many; steps are those of the optimizer. seconds: wall clock of the pass.
    wait_s: of these, seconds in which the loop stood waiting for the loader. Both are this process' own.
    peak_bytes: as `pipeline.training.device.peak_bytes`, the largest of all processes.
    """

    loss: float
    parts: dict[str, float]
    computed: dict[str, float]
    ids: tuple[str, ...]
    logits: Tensor
    labels: Tensor
    sentiment: Tensor
    batches: int
    steps: int
    seconds: float
    wait_s: float
    peak_bytes: int


def run_epoch(
    engine: Forward,
    batches: Batches,
    objective: Callable[[Output, Batch], Loss],
    reporter: Reporter,
    label: str,
    update: Update | None = None,
    share: Share | None = None,
) -> Pass:
    """One pass: every batch once, forward and loss, and with `update` the training step of a `Trainer` too.

    Batches that share a step weigh by their utterances, so that `accumulate` batches of 4, or two parts of 4, give the
    gradient of one of 8 (batch norm apart). The same holds for the shares of several processes: `share` says what
    `batches` has of each whole batch; None where it has all.

    Raises:
        TrainingError: a loss is not finite; names `label` and the utterances of the first such batch.
    """
    started = time.perf_counter()
    start_peak(engine.device)
    tally = _Tally(label)
    waiting = _Waiting()
    steps = 0
    trainer = cast(Trainer, engine)
    source = waiting.timed(reporter.track(batches, len(batches), label, "batches", has_own_line=True))
    ranks, sizes = (share.ranks, iter(share.sizes)) if share else (Ranks(), None)
    engine.model.train(update is not None)
    with torch.set_grad_enabled(update is not None):
        for group in _groups(source, update.sizes() if update else repeat(1)):
            whole = [len(batch) if sizes is None else next(sizes) for batch in group]
            for number, (on_host, size) in enumerate(zip(group, whole, strict=True), start=1):
                counted = ranks.counted(size)
                batch = on_host.to(engine.device)
                with trainer.without_exchange(number < len(group)) if update else nullcontext():
                    output = engine(batch)
                    loss = objective(output, batch)
                    if update:
                        # What is averaged over processes is to be their sum.
                        trainer.backward(loss.total * (counted * ranks.world / sum(whole)))
                if counted:
                    tally.add(batch, output, loss)
            if update:
                trainer.step(update.clip_norm)
                steps += 1
    found = tally.finish(started, waiting.seconds, steps, peak_bytes(engine.device))
    return _joined(found, share) if share else found


def _groups(items: Iterator[T], sizes: Iterable[int]) -> Iterator[list[T]]:
    for size in sizes:
        if not (group := list(islice(items, size))):
            return
        yield group


@dataclass
class _Waiting:
    """Counts the seconds that a consumer spends in `next`."""

    seconds: float = 0.0

    def timed(self, items: Iterable[T]) -> Iterator[T]:
        iterator = iter(items)
        while True:
            started = time.perf_counter()
            item = next(iterator, None)
            self.seconds += time.perf_counter() - started
            if item is None:
                return
            yield item


@dataclass
class _Tally:
    """Sums over a pass, kept as tensors on the device so that nothing waits for it."""

    label: str
    loss_sums: dict[str, Tensor] = field(default_factory=dict)
    computed_sums: dict[str, Tensor] = field(default_factory=dict)
    logits: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)
    sentiment: list[Tensor] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    unchecked: list[tuple[Tensor, tuple[str, ...]]] = field(default_factory=list)
    batches: int = 0

    def add(self, batch: Batch, output: Output, loss: Loss) -> None:
        self.batches += 1
        self.ids += batch.ids
        self.logits.append(output.logits.detach().float())
        self.labels.append(batch.labels)
        self.sentiment.append(batch.sentiment)
        total = loss.total.detach()
        losses = {"": total} | {name: part.detach() for name, part in loss.parts.items()}
        _add(self.loss_sums, {name: value.double() * len(batch) for name, value in losses.items()})
        # Counts are of the whole batch already, a share is to count as often as the batch has utterances.
        _add(self.computed_sums, {n: v * len(batch) if ".share" in n else v for n, v in output.computed.items()})
        self.unchecked.append((total, batch.ids))
        if len(self.unchecked) == CHECK_EVERY:
            self.check()

    def check(self) -> None:
        """Refuse a loss that isn't finite, with the first batch that had one."""
        values = torch.stack([value for value, _ in self.unchecked]).tolist() if self.unchecked else []
        for value, (_, ids) in zip(values, self.unchecked, strict=True):
            if not math.isfinite(value):
                raise TrainingError(
                    f"{self.label}: the loss is {value} on the batch of {', '.join(ids)}; lower learning_rate or "
                    "clip_norm, try precision 32-true, and look at these utterances"
                )
        self.unchecked.clear()

    def finish(self, started: float, wait_s: float, steps: int, peak: int) -> Pass:
        self.check()
        means = {name: value.item() / len(self.ids) for name, value in self.loss_sums.items()}
        loss = means.pop("")
        return Pass(
            loss=loss,
            parts=means,
            computed={name: float(value) / len(self.ids) for name, value in self.computed_sums.items()},
            ids=tuple(self.ids),
            logits=torch.cat(self.logits).cpu(),
            labels=torch.cat(self.labels).cpu(),
            sentiment=torch.cat(self.sentiment).cpu(),
            batches=self.batches,
            steps=steps,
            seconds=time.perf_counter() - started,
            wait_s=wait_s,
            peak_bytes=peak,
        )


def _add(sums: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    for name, value in values.items():
        sums[name] = sums[name] + value if name in sums else value


def _joined(own: Pass, share: Share) -> Pass:
    """The passes of all processes as one, each utterance at the place where a single process would have it."""
    shared = [(own, share.ranks.rank)] * share.ranks.world
    dist.all_gather_object(shared, (own, share.ranks.rank))
    passes = [found for found, _ in sorted(shared, key=lambda pair: pair[1])]
    weights = [len(found.ids) / sum(share.sizes) for found in passes]
    world = share.ranks.world
    places = [place for rank in range(world) for place in Ranks(rank, world).places(share.sizes)]
    back = torch.tensor(places).argsort()
    ids = [name for found in passes for name in found.ids]
    return replace(
        own,
        loss=_mean([{"": found.loss} for found in passes], weights)[""],
        parts=_mean([found.parts for found in passes], weights),
        computed=_mean([found.computed for found in passes], weights),
        ids=tuple(ids[i] for i in back.tolist()),
        logits=torch.cat([found.logits for found in passes])[back],
        labels=torch.cat([found.labels for found in passes])[back],
        sentiment=torch.cat([found.sentiment for found in passes])[back],
        peak_bytes=max(found.peak_bytes for found in passes),
    )


def _mean(values: Sequence[Mapping[str, float]], weights: Sequence[float]) -> dict[str, float]:
    return {
        name: sum(weight * found[name] for found, weight in zip(values, weights, strict=True)) for name in values[0]
    }
