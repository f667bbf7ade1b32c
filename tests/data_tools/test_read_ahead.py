"""Items come in order, no more than allowed is read ahead, and the threads end however the reading ends."""

import threading

import pytest

from data_tools.read_ahead import read_ahead


def names():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("read-ahead")]


class Source:
    """Opens an iterator over `count` items; counts what was read and remembers that it was closed."""

    def __init__(self, name, count, fails=None):
        self.name, self.count, self.fails = name, count, fails
        self.read, self.closed, self.read_one = 0, False, threading.Event()

    def __call__(self):
        try:
            for number in range(self.count):
                self.read += 1
                self.read_one.set()
                yield f"{self.name}{number}"
            if self.fails:
                raise self.fails
        finally:
            self.closed = True


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("depth", [1, 50])
def test_all_items_in_order(threads, depth):
    counts = [3, 0, 20, 1, 7]
    sources = [Source("abcde"[place], count) for place, count in enumerate(counts)]
    expected = [f"{'abcde'[place]}{number}" for place, count in enumerate(counts) for number in range(count)]
    assert list(read_ahead(sources, threads, depth)) == expected
    assert all(source.closed for source in sources)
    assert names() == []


def test_nothing_to_read():
    assert list(read_ahead([], 2, 1)) == []


def test_sources_are_read_at_the_same_time():
    """With two threads the second source is read while nothing of the first has been taken but one item."""
    sources = [Source("a", 100), Source("b", 100)]
    items = read_ahead(sources, threads=2, depth=2)
    assert next(items) == "a0"
    assert sources[1].read_one.wait(timeout=60)
    items.close()


def test_no_source_is_read_further_ahead_than_allowed():
    source = Source("a", 100)
    items = read_ahead([source], threads=1, depth=3)
    for taken in range(1, 50):
        next(items)
        # In the queue at most 3, and one in the hand of the thread.
        assert source.read <= taken + 3 + 1
    items.close()


def test_what_a_source_raises_comes_after_its_items():
    sources = [Source("a", 2, fails=ValueError("broken")), Source("b", 100)]
    items = read_ahead(sources, threads=2, depth=1)
    assert [next(items), next(items)] == ["a0", "a1"]
    with pytest.raises(ValueError, match="broken"):
        next(items)
    assert names() == []
    assert sources[1].closed or not sources[1].read


@pytest.mark.parametrize("depth", [1, 2, 200])
def test_closing_early_ends_the_threads(depth):
    sources = [Source(name, 100) for name in "abcdef"]
    items = read_ahead(sources, threads=3, depth=depth)
    assert next(items) == "a0"
    items.close()
    assert names() == []
    assert all(source.closed or not source.read for source in sources)
    assert sources[5].read == 0 or depth == 200  # what had not begun never begins


def test_short_sources_are_not_all_read_at_once():
    begun = []

    def source(number):
        def read():
            begun.append(number)
            yield number

        return read

    items = read_ahead([source(number) for number in range(50)], threads=2, depth=8)
    for expected in range(50):
        assert next(items) == expected
        assert max(begun) <= expected + 2
    assert list(items) == []
