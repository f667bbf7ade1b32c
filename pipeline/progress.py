"""Progress for a person while a stage runs: lines, and a bar with rate and time left."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from data_tools.names import for_terminal

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

# An overnight run gets a line a minute, a short one a line every ten seconds.
_LONGEST_GAP_S = 60.0
_GAP_SHARE = 0.1


@dataclass(frozen=True)
class Work(Generic[T]):
    """Facts about the items of a long piece of work, for a rate and a time left that hold.

    seconds: of media in an item, as items differ a hundredfold in length; None where that is not known. total_s: of
    all items. done, done_s: items that an earlier run finished and that do not come again, and their seconds.
    kept: whether an item that comes was found finished; it counts as done, but not into the rate.
    """

    seconds: Callable[[T], float] | None = None
    total_s: float = 0.0
    done: int = 0
    done_s: float = 0.0
    kept: Callable[[T], bool] | None = None


class Reporter:
    """Lines and progress on standard error, so that standard output stays the command's result.

    On a terminal a bar; elsewhere plain lines, the first after `plain_every_s` seconds, then at growing distances up to
    a minute, and one at the end. clock: seconds that only grow.
    """

    def __init__(
        self, quiet: bool = False, plain_every_s: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.quiet = quiet
        self.plain_every_s = plain_every_s
        self.clock = clock

    @cached_property
    def console(self) -> "Console":
        """Standard error, as rich writes to it; a quiet reporter needs no rich."""
        from rich.console import Console

        return Console(stderr=True, quiet=self.quiet, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """One line for a person."""
        if not self.quiet:
            self.console.print(for_terminal(text), markup=False)

    def track(
        self,
        items: Iterable[T],
        total: int,
        label: str,
        unit: str,
        work: Work[T] | None = None,
        has_own_line: bool = False,
    ) -> Iterator[T]:
        """`items` unchanged, while the rate and the time left are shown.

        total: how many there are, with those of `work.done`. unit: what they are, in the plural.
        has_own_line: a line of its own follows, as after an epoch: plain lines come only after the first minute, and
        none at the end.
        """
        pace = _Pace(total, unit, work or Work(), self.clock)
        if self.quiet:
            yield from items
        elif sys.stderr.isatty():
            yield from self._track_bar(items, label, pace)
        else:
            yield from self._track_plain(items, label, pace, has_own_line)

    def _track_bar(self, items: Iterable[T], label: str, pace: "_Pace") -> Iterator[T]:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        shown = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[facts]}"), TimeElapsedColumn())
        with Progress(*shown, console=self.console) as progress:
            task = progress.add_task(label, total=pace.whole, facts=str(pace))
            progress.update(task, completed=pace.finished)
            for item in items:
                yield item
                pace.add(item)
                progress.update(task, completed=pace.finished, facts=str(pace))

    def _track_plain(self, items: Iterable[T], label: str, pace: "_Pace", has_own_line: bool) -> Iterator[T]:
        said_s = 0.0
        for item in items:
            yield item
            pace.add(item)
            elapsed_s = pace.elapsed_s
            gap_s = max(self.plain_every_s, min(_GAP_SHARE * elapsed_s, _LONGEST_GAP_S))
            if has_own_line:
                due = elapsed_s - said_s >= _LONGEST_GAP_S and not pace.is_over
            else:
                due = elapsed_s - said_s >= gap_s or (pace.is_over and elapsed_s >= 1.0)
            if due:
                self.say(f"{label}: {pace}")
                said_s = elapsed_s


class _Pace:
    """Counts finished items; `finished` of `whole` is in seconds of media where those are known, else in items."""

    def __init__(self, total: int, unit: str, work: Work[Any], clock: Callable[[], float]) -> None:
        self.total, self.unit, self.work, self.clock = total, unit, work, clock
        self.count = work.done
        self.whole, self.finished = (work.total_s, work.done_s) if work.seconds else (float(total), float(work.done))
        # This run's own work, and how long it took up to its last item: kept ones that follow don't slow the rate.
        self.fresh = 0.0
        self.fresh_took_s = 0.0
        self.started = self.began = clock()

    def add(self, item: Any) -> None:
        """One more is finished."""
        size = self.work.seconds(item) if self.work.seconds else 1.0
        self.count += 1
        self.finished += size
        if not (self.work.kept and self.work.kept(item)):
            self.fresh += size
            self.fresh_took_s = self.clock() - self.began
        elif not self.fresh:
            self.began = self.clock()

    @property
    def elapsed_s(self) -> float:
        return self.clock() - self.started

    @property
    def is_over(self) -> bool:
        return self.count >= self.total

    def __str__(self) -> str:
        facts = [f"{self.count}/{self.total} {self.unit}"]
        if self.work.seconds:
            facts.append(_share(self.finished, self.whole))
        if self.fresh:
            rate = self.fresh / max(self.fresh_took_s, 1e-9)
            facts.append(f"{rate:.1f} x real time" if self.work.seconds else _per_time(rate, self.unit))
            if not self.is_over:
                facts.append(f"{duration((self.whole - self.finished) / rate)} left")
        if self.is_over:
            facts.append(f"in {duration(self.elapsed_s)}")
        return ", ".join(facts)


def duration(seconds: float) -> str:
    """For a person: `42 s`, `12 min`, `1 h 06 min`."""
    if seconds < 99.5:
        return f"{max(seconds, 0.0):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def _share(done_s: float, total_s: float) -> str:
    unit, size = next((u, s) for u, s in (("h", 3600.0), ("min", 60.0), ("s", 1.0)) if total_s >= 2 * s or s == 1.0)
    return f"{done_s / size:.1f} of {total_s / size:.1f} {unit}"


def _per_time(rate: float, unit: str) -> str:
    return f"{rate:.1f} {unit}/s" if rate >= 1 else f"{60 * rate:.1f} {unit}/min"
