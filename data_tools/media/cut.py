"""Many clips out of one video in a single decoding pass."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from av.container import InputContainer
from av.video.stream import VideoStream

from data_tools.errors import DataError
from data_tools.media.clip import Clip
from data_tools.media.decode import SAME_S, Shown, before_is_first, decoded
from data_tools.media.source import ClipError, frame_rate, open_media, pixel_shape, video_stream

# An interval may end, or begin before the first picture, by this much: labels are often a little longer than the file.
END_SLACK_S = 0.5


@dataclass(frozen=True)
class Cut:
    """One clip to be made: [start_s, end_s) of the source, in the clock a player shows; end_s may be infinite.

    out: an .mp4 file. box: (left, top, width, height) in source pixels, None for the whole picture.
    sound: a mono wav that becomes the clip's sound track, beginning with the clip.
    """

    start_s: float
    end_s: float
    out: Path
    box: tuple[int, int, int, int] | None = None
    sound: Path | None = None


@dataclass(frozen=True)
class CutOutcome:
    """Outcome of one Cut.

    failure: None, or a short code: `interval:outside`, `video:damaged`, `video:unreadable`; then no file was left.
    detail: one sentence about the failure. frames: written. fps: average rate of the source.
    end_s: of the clip in the source; before the Cut's where the video ends a little earlier.
    """

    failure: str | None
    detail: str
    frames: int
    fps: float
    end_s: float


def cut_video(source: Path, cuts: Sequence[Cut], crf: int) -> list[CutOutcome]:
    """Write every cut as H.264 (yuv420p) with AAC sound; one outcome a cut, in the order of `cuts`.

    The source is decoded once, from its beginning to the last cut's end; a clip's encoder lives just as long as its
    interval passes, so memory does not grow with the length of the video. A clip begins with the frame nearest to
    start_s (the one on display where frames are far apart), ends with the last one before end_s, and keeps the
    source's time stamps and pixel shape. Each encoder has one thread: the same source gives the same bytes.

    crf: x264 quality, 0 (lossless) to 51.

    Raises:
        DataError: a clip cannot be written. Trouble with the source is an outcome, not an exception.
    """
    job = _Pass(source, cuts, crf)
    try:
        with open_media(source) as container:
            stream = video_stream(source, container)
            job.run(container, stream)
    except ClipError:
        raise
    except DataError as error:
        job.fail_rest("video:unreadable", str(error))
    finally:
        job.drop_open()
    return [job.outcomes[number] for number in range(len(cuts))]


class _Pass:
    """One walk over a source: cuts that wait for their start, clips that are open, outcomes."""

    def __init__(self, source: Path, cuts: Sequence[Cut], crf: int) -> None:
        self.source, self.cuts, self.crf = source, cuts, crf
        self.waiting = sorted(range(len(cuts)), key=lambda number: cuts[number].start_s, reverse=True)
        self.open: dict[int, Clip] = {}
        self.outcomes: dict[int, CutOutcome] = {}
        self.fps, self.pixel_shape = 0.0, Fraction(1)
        self.frame_s = 0.0
        self.before: Shown | None = None

    def run(self, container: InputContainer, stream: VideoStream) -> None:
        """Decode until every cut has its outcome."""
        self.fps = float(frame_rate(stream))
        self.pixel_shape = pixel_shape(stream)
        self.frame_s = float(1 / frame_rate(stream))
        end_s, damaged = 0.0, False
        last_s, longest_s = None, 0.0
        for shown in decoded(self.source, container, stream):
            if shown:
                longest_s = max(longest_s, shown.time_s - last_s) if last_s is not None else 0.0
                # The last frame's length is the header's word: it is taken for no longer than any frame really was.
                end_s = shown.time_s + min(self.frame_s, longest_s or self.frame_s)
                last_s = shown.time_s
            if shown is None or shown.damaged or (damaged and not shown.frame.key_frame):
                damaged, self.before = True, None
                self._fail(list(self.open), "video:damaged", f"{self.source.name} is damaged near {end_s:.2f} s")
                continue
            self._close_until(shown.time_s)
            self._open_until(shown, damaged)
            for clip in self.open.values():
                clip.write(shown.frame, shown.time_s)
            if not self.open and not self.waiting:
                return
            damaged, self.before = False, shown
        for number, cut in [(n, self.cuts[n]) for n in self.open]:
            if cut.end_s <= end_s + END_SLACK_S or (math.isinf(cut.end_s) and not damaged):
                self._finish(number, end_s)
        where = f"after the end of {self.source.name}, which has pictures up to {end_s:.2f} s"
        self.fail_rest("video:damaged" if damaged else "interval:outside", f"the interval ends {where}")

    def fail_rest(self, failure: str, detail: str) -> None:
        """Give every cut that is not finished this failure."""
        self._fail([*self.open, *self.waiting], failure, detail)
        self.waiting.clear()

    def drop_open(self) -> None:
        """Delete what unfinished clips have written so far."""
        for clip in self.open.values():
            clip.drop()
        self.open.clear()

    def _open_until(self, shown: Shown, damaged: bool) -> None:
        time_s = shown.time_s
        while self.waiting and self.cuts[self.waiting[-1]].start_s <= time_s + SAME_S:
            number = self.waiting.pop()
            cut = self.cuts[number]
            late_s = time_s - cut.start_s
            # A file that is taken whole may begin with sound alone: nobody named the time of a picture.
            slack_s = math.inf if cut.start_s <= 0 and math.isinf(cut.end_s) else END_SLACK_S
            if self.before is None and late_s > (self.frame_s / 2 if damaged else slack_s):
                reason = "video:damaged" if damaged else "interval:outside"
                self._fail([number], reason, f"{self.source.name} has no picture until {time_s:.2f} s")
                continue
            clip = self.open[number] = Clip(
                cut.out,
                start_s=cut.start_s,
                box=cut.box,
                sound=cut.sound,
                fps=self.fps,
                pixel_shape=self.pixel_shape,
                crf=self.crf,
            )
            if self.before and before_is_first(cut.start_s, self.before.time_s, time_s, self.frame_s):
                # A frame that stays on display for long is shown from the interval's start on.
                near = cut.start_s - self.before.time_s <= self.frame_s / 2 + SAME_S
                clip.write(self.before.frame, self.before.time_s if near else cut.start_s)
            elif cut.end_s <= time_s + SAME_S:
                clip.write(shown.frame, time_s)  # shorter than a frame, and this is the only one there is
            if cut.end_s <= time_s + SAME_S:
                self._finish(number, cut.end_s)

    def _close_until(self, time_s: float) -> None:
        for number in [n for n in self.open if self.cuts[n].end_s <= time_s + SAME_S]:
            self._finish(number, self.cuts[number].end_s)

    def _finish(self, number: int, video_end_s: float) -> None:
        clip = self.open[number]
        clip.finish()
        del self.open[number]
        self.outcomes[number] = CutOutcome(None, "", clip.frames, self.fps, min(self.cuts[number].end_s, video_end_s))

    def _fail(self, numbers: list[int], failure: str, detail: str) -> None:
        for number in numbers:
            if number in self.open:
                self.open.pop(number).drop()
            self.outcomes[number] = CutOutcome(failure, detail, 0, self.fps, 0.0)
