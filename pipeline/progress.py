"""What a person sees while a stage runs: lines, and a bar with rate and time left."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")


class Reporter:
    """Lines and progress on standard error, so that standard output stays the command's result.

    On a terminal a bar; elsewhere a plain line every `plain_every_s` seconds and one at the end.
    """

    def __init__(self, quiet: bool = False, plain_every_s: float = 10.0) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self.quiet = quiet
        self.plain_every_s = plain_every_s

    def say(self, text: str) -> None:
        """One line for a person."""
        self.console.print(text, markup=False)

    def track(self, items: Iterable[T], total: int, label: str, unit: str) -> Iterator[T]:
        """`items` unchanged, while the rate in `unit` a second and the time left are shown."""
        if self.quiet:
            yield from items
        elif sys.stderr.isatty():
            yield from self._track_bar(items, total, label, unit)
        else:
            yield from self._track_plain(items, total, label, unit)

    def _track_bar(self, items: Iterable[T], total: int, label: str, unit: str) -> Iterator[T]:
        rate = TextColumn("{task.fields[rate]}")
        left = (TextColumn("left"), TimeRemainingColumn())
        shown = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate, TimeElapsedColumn(), *left)
        with Progress(*shown, console=self.console) as progress:
            task = progress.add_task(label, total=total, rate="")
            started = time.monotonic()
            for done, item in enumerate(items, start=1):
                yield item
                progress.update(task, advance=1, rate=f"{done / max(time.monotonic() - started, 1e-9):.1f} {unit}/s")

    def _track_plain(self, items: Iterable[T], total: int, label: str, unit: str) -> Iterator[T]:
        started = last = time.monotonic()
        for done, item in enumerate(items, start=1):
            yield item
            now = time.monotonic()
            if now - last >= self.plain_every_s or (done == total and now - started >= 1.0):
                rate = done / max(now - started, 1e-9)
                self.say(f"{label}: {done}/{total} {unit}, {rate:.1f} {unit}/s, {(total - done) / rate:.0f} s left")
                last = now
