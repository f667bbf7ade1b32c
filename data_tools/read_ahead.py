"""Threads that read the next items while the caller is at work on the last ones."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from queue import Empty, Queue
from threading import Event
from typing import Any, TypeVar

T = TypeVar("T")
Source = Callable[[], Generator[T, None, None]]
_END = object()


def read_ahead(sources: Sequence[Source[T]], threads: int, depth: int) -> Generator[T, None, None]:
    """The items of the first source, then of the second, and so on; `threads` sources are being read at any time.

    No source is read more than `depth` items ahead, and none is begun before all but `threads` of those before it have
    been handed over: (`threads` + 1) x (`depth` + 1) items are in memory at most, however many short sources there are.
    What a source raises is raised here, after the items before it. When the iterator is closed, or an
    exception leaves it, the threads end and every source that was begun is closed.

    sources: functions that open an iterator; they and the reading run in a thread.
    """
    stopped = Event()
    queues: list[Queue[Any]] = [Queue(depth) for _ in sources]
    pool = ThreadPoolExecutor(threads, thread_name_prefix="read-ahead")
    try:
        # Begun in this order: the source whose items are wanted next is never behind one that waits for room.
        waiting = iter(zip(queues, sources, strict=True))
        jobs = deque(pool.submit(_fill, queue, source, stopped) for queue, source in islice(waiting, threads + 1))
        for queue in queues:
            while (item := queue.get()) is not _END:
                yield item
            jobs.popleft().result()
            jobs.extend(pool.submit(_fill, queue, source, stopped) for queue, source in islice(waiting, 1))
    finally:
        stopped.set()
        for queue in queues:
            _drain(queue)
        pool.shutdown(cancel_futures=True)


def _fill(queue: "Queue[Any]", source: Source[T], stopped: Event) -> None:
    try:
        with closing(source()) as items:
            for item in items:
                if stopped.is_set():
                    return
                queue.put(item)
    finally:
        if not stopped.is_set():
            queue.put(_END)


def _drain(queue: "Queue[Any]") -> None:
    """Make room: a thread that waits to put its item then sees that it is to stop."""
    while True:
        try:
            queue.get_nowait()
        except Empty:
            return
