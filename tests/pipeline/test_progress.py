"""Progress lines against hand-counted times; the clock is the test's own."""

import io
import re

import pytest
from rich.console import Console

from pipeline.progress import Reporter, Work, duration


class Clock:
    now = 100.0

    def __call__(self):
        return self.now

    def working(self, items, seconds):
        """`items`, each after the time that `seconds` gives."""
        for item in items:
            self.now += seconds(item)
            yield item


class Listening(Reporter):
    def __init__(self, clock):
        super().__init__(clock=clock)
        self.said = []

    def say(self, text):
        self.said.append(text)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def terminal(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    return screen


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def reporter(clock, monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())  # not a terminal
    return Listening(clock)


def test_lines_tell_count_hours_rate_and_time_left(clock, reporter):
    # 4 items of 1 h of media, each done in 6 minutes.
    work = Work(seconds=lambda item: 3600.0, total_s=4 * 3600.0)
    items = list(range(4))
    assert list(reporter.track(clock.working(items, lambda _: 360), 4, "reorganize", "dialogues", work)) == items
    assert reporter.said == [
        "reorganize: 1/4 dialogues, 1.0 of 4.0 h, 10.0 x real time, 18 min left",
        "reorganize: 2/4 dialogues, 2.0 of 4.0 h, 10.0 x real time, 12 min left",
        "reorganize: 3/4 dialogues, 3.0 of 4.0 h, 10.0 x real time, 6 min left",
        "reorganize: 4/4 dialogues, 4.0 of 4.0 h, 10.0 x real time, in 24 min",
    ]


def test_the_time_left_is_right_whatever_the_lengths_are(clock, reporter):
    # Longest first, as stage 1 has them; all at 10 x real time. By count the first line would promise 99 x 100 s.
    lengths = [1000.0, *[10.0] * 99]
    work = Work(seconds=lambda item: item, total_s=sum(lengths))
    list(reporter.track(clock.working(lengths, lambda item: item / 10), 100, "x", "videos", work))
    assert reporter.said[0] == "x: 1/100 videos, 16.7 of 33.2 min, 10.0 x real time, 99 s left"


def test_a_second_start_goes_on_where_the_first_one_stopped(clock, reporter):
    # 2 of 4 h are done; this start does its half at 20 x real time: no more than its own work is in the rate.
    work = Work(seconds=lambda item: 3600.0, total_s=4 * 3600.0, done=2, done_s=2 * 3600.0)
    list(reporter.track(clock.working(range(2), lambda _: 180), 4, "reorganize", "dialogues", work))
    assert reporter.said == [
        "reorganize: 3/4 dialogues, 3.0 of 4.0 h, 20.0 x real time, 3 min left",
        "reorganize: 4/4 dialogues, 4.0 of 4.0 h, 20.0 x real time, in 6 min",
    ]


def test_what_comes_and_was_done_already_is_not_in_the_rate(clock, reporter):
    # 100 kept items in half a second each, then 4 of 100 s of media in 50 s each.
    items = [True] * 100 + [False] * 4
    work = Work(seconds=lambda kept: 100.0, total_s=10_400.0, kept=lambda kept: kept)
    list(reporter.track(clock.working(items, lambda kept: 0.5 if kept else 50), 104, "preprocess", "dialogues", work))
    assert reporter.said[0] == "preprocess: 20/104 dialogues, 0.6 of 2.9 h"
    assert [line.split(", ", 1)[1] for line in reporter.said[-4:]] == [
        "2.8 of 2.9 h, 2.0 x real time, 2 min left",
        "2.8 of 2.9 h, 2.0 x real time, 2 min left",
        "2.9 of 2.9 h, 2.0 x real time, 50 s left",
        "2.9 of 2.9 h, 2.0 x real time, in 4 min",
    ]


def test_what_was_done_already_and_comes_between_does_not_slow_the_rate(clock, reporter):
    items = [False, *[True] * 30, False]
    work = Work(seconds=lambda kept: 100.0, total_s=3200.0, kept=lambda kept: kept)
    list(reporter.track(clock.working(items, lambda kept: 1 if kept else 50), 32, "preprocess", "dialogues", work))
    assert all(", 2.0 x real time" in line for line in reporter.said[:-1])


def test_bursts_of_several_workers_even_out(clock, reporter):
    # 4 workers, items of 60 s of media, 4 finish together every 40 s: 6 x real time. Lines come with the first of four.
    work = Work(seconds=lambda item: 60.0, total_s=400 * 60.0)
    list(reporter.track(clock.working(range(400), lambda i: 0 if i % 4 else 40), 400, "x", "videos", work))
    rates = [float(re.search(r"([0-9.]+) x real time", line).group(1)) for line in reporter.said]
    assert rates == sorted(rates)
    assert rates[10] >= 5.5
    assert rates[-1] == 6.0


def test_without_seconds_it_counts(clock, reporter):
    list(reporter.track(clock.working(range(40), lambda _: 0.5), 40, "predict", "files"))
    assert reporter.said == [
        "predict: 20/40 files, 2.0 files/s, 10 s left",
        "predict: 40/40 files, 2.0 files/s, in 20 s",
    ]
    reporter.said.clear()
    list(reporter.track(clock.working(range(2), lambda _: 30), 3, "predict", "files", Work(done=1)))
    assert reporter.said == [
        "predict: 2/3 files, 2.0 files/min, 30 s left",
        "predict: 3/3 files, 2.0 files/min, in 60 s",
    ]


def test_a_long_log_stays_short_but_not_silent(clock, reporter):
    ten_hours = 36_000
    said_at = []
    for _ in reporter.track(clock.working(range(ten_hours), lambda _: 1), ten_hours, "x", "files"):
        said_at += [clock.now - 1] * (len(reporter.said) - len(said_at))
    gaps = [after - before for before, after in zip([100.0, *said_at], said_at, strict=False)]
    assert gaps[0] == 10
    assert max(gaps) == 60
    assert gaps == sorted(gaps)
    assert len(reporter.said) < 650


def test_short_work_says_nothing(clock, reporter):
    list(reporter.track(clock.working(range(5), lambda _: 0.1), 5, "x", "files"))
    assert reporter.said == []


def test_a_terminal_gets_a_bar_with_the_same_facts(clock, monkeypatch):
    screen = terminal(monkeypatch)
    reporter = Reporter(clock=clock)
    reporter.console = Console(file=screen, force_terminal=True, width=150, highlight=False)
    work = Work(seconds=lambda item: 3600.0, total_s=4 * 3600.0, done=1, done_s=3600.0)
    list(reporter.track(clock.working(range(3), lambda _: 360), 4, "reorganize", "dialogues", work))
    last = screen.getvalue().rsplit("reorganize", 1)[1]
    assert "4/4 dialogues, 4.0 of 4.0 h, 10.0 x real time, in 18 min" in last


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (42.4, "42 s"), (99.6, "2 min"), (3540, "59 min"), (3599, "1 h 00 min"), (3960, "1 h 06 min"),
     (100_000, "27 h 47 min")],
)  # fmt: skip
def test_durations_for_a_person(seconds, text):
    assert duration(seconds) == text


def test_a_pass_with_a_line_of_its_own_is_silent_for_a_minute_and_at_its_end(clock, reporter):
    items = clock.working(range(5), lambda _: 25)
    assert list(reporter.track(items, 5, "epoch 1/3", "batches", has_own_line=True)) == list(range(5))
    assert reporter.said == ["epoch 1/3: 3/5 batches, 2.4 batches/min, 50 s left"]
