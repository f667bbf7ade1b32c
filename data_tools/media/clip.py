"""One clip being written: H.264 picture of a region, AAC sound, in an mp4 file."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
from av.video.frame import VideoFrame

from data_tools.errors import DataError
from data_tools.media.decode import SAME_S
from data_tools.media.orientation import filters, orientation
from data_tools.media.source import STEADY_X264, ClipError, local_url

# Time stamps count in 1/90000 s: a whole number of them for 24, 25, 30, 29.97 and 60 frames a second.
_CLOCK = Fraction(1, 90_000)
# What ffmpeg's filters and encoders answer to pictures that they can't take; files and disks have errors of their own.
_PICTURE_ERRORS = (
    av.error.ArgumentError,
    av.error.ExternalError,
    av.error.InvalidDataError,
    av.error.PatchWelcomeError,
)
_SOUND_BIT_RATE = 64_000
_SOUND_BLOCK = 1 << 16


class Clip:
    """An mp4 file that appears under its name when `finish` is called, and not before.

    start_s: the clip's zero on the source's clock, with which its sound begins. A first picture that is nearer to it
    than half a frame is shown from there on, one that comes later keeps its distance.
    box: (left, top, width, height) in pixels of the source, upright. sound: a mono wav. fps: the source's average rate.
    pixel_shape: width by height of a source pixel, 1 for square ones. crf: x264 quality.
    Every method raises ClipError when the target cannot be written, and DataError when the source's pictures are of a
    kind that cannot be encoded (a region outside the picture, a size of 1 pixel).
    """

    def __init__(
        self,
        out: Path,
        *,
        start_s: float,
        box: tuple[int, int, int, int] | None,
        sound: Path | None,
        fps: float,
        pixel_shape: Fraction,
        crf: int,
    ) -> None:
        self.frames = 0
        self._out = out
        self._temporary = out.with_name(f".{out.stem}.{os.getpid()}.tmp.mp4")
        self._box, self._sound, self._pixel_shape = box, sound, pixel_shape
        self._start_s, self._half_frame_s = start_s, 0.5 / fps
        self._last_pts = -1
        self._graph: av.filter.Graph | None = None
        self._graph_for: tuple[object, ...] = ()
        self._opened = ExitStack()
        with self._writing():
            out.parent.mkdir(parents=True, exist_ok=True)
            self._container = self._opened.enter_context(
                av.open(local_url(self._temporary), "w", format="mp4", container_options={"fflags": "+bitexact"})
            )
            self._stream = self._container.add_stream("libx264", rate=Fraction(fps).limit_denominator(100_000))
            self._stream.codec_context.options = {"crf": str(crf), "preset": "veryfast", "x264-params": STEADY_X264}
            self._stream.codec_context.thread_count = 1
            self._stream.codec_context.time_base = _CLOCK
            self._stream.pix_fmt = "yuv420p"
            self._sound_stream = None
            if sound is not None:
                rate_hz = soundfile.info(str(sound)).samplerate
                self._sound_stream = self._container.add_stream("aac", rate=rate_hz, layout="mono")
                self._sound_stream.bit_rate = _SOUND_BIT_RATE

    def write(self, frame: VideoFrame, time_s: float) -> None:
        """Add a picture shown from `time_s` on, in the source's clock."""
        with self._writing():
            picture = self._cropped(frame)
            if not self.frames:
                self._start(picture, time_s, turned=orientation(frame).transposed)
            # Two frames never share a time stamp, whatever the source says: the container refuses that.
            self._last_pts = max(round((time_s - self._start_s) / _CLOCK), self._last_pts + 1)
            picture.pts, picture.time_base = self._last_pts, _CLOCK
            self._container.mux(self._stream.encode(picture))
            self.frames += 1

    def finish(self) -> None:
        """Write what the encoder still holds, close the file and give it its name."""
        with self._writing():
            self._container.mux(self._stream.encode(None))
            self._opened.close()
            self._temporary.replace(self._out)

    def drop(self) -> None:
        """Close and delete the unfinished file."""
        with suppress(av.error.FFmpegError, OSError):
            self._opened.close()
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)

    def _start(self, picture: VideoFrame, time_s: float, turned: bool) -> None:
        if time_s - self._start_s <= self._half_frame_s + SAME_S:
            self._start_s = time_s
        context = self._stream.codec_context
        context.width, context.height = picture.width, picture.height
        context.sample_aspect_ratio = 1 / self._pixel_shape if turned else self._pixel_shape
        context.color_range, context.colorspace = picture.color_range, picture.colorspace
        for packet in self._encoded_sound():
            self._container.mux(packet)

    def _encoded_sound(self) -> Iterator[av.Packet]:
        if self._sound is None or self._sound_stream is None:
            return
        at = 0
        with soundfile.SoundFile(str(self._sound)) as file:
            for block in file.blocks(_SOUND_BLOCK, dtype="float32"):
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block[None]), format="fltp", layout="mono")
                frame.sample_rate, frame.pts = file.samplerate, at
                at += len(block)
                yield from self._sound_stream.encode(frame)
        yield from self._sound_stream.encode(None)

    def _cropped(self, frame: VideoFrame) -> VideoFrame:
        """The region of `frame`, upright, with even sides, as yuv420p, in the size that the clip began with."""
        if self._graph is None or self._graph_for != _shape(frame):
            self._graph, self._graph_for = self._new_graph(frame), _shape(frame)
        self._graph.push(frame)
        picture = self._graph.pull()
        assert isinstance(picture, VideoFrame)
        return picture

    def _new_graph(self, frame: VideoFrame) -> av.filter.Graph:
        graph = av.filter.Graph()
        nodes = [
            graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or _CLOCK
            )
        ]
        turn = orientation(frame)
        nodes += [graph.add(name, arguments) for name, arguments in filters(turn)]
        width, height = (frame.height, frame.width) if turn.transposed else (frame.width, frame.height)
        left, top, wide, high = self._box or (0, 0, width, height)
        nodes.append(graph.add("crop", f"{wide - wide % 2}:{high - high % 2}:{left}:{top}"))
        if self.frames:  # the source changes its size on the way; the clip can't
            context = self._stream.codec_context
            nodes.append(graph.add("scale", f"{context.width}:{context.height}"))
        nodes += [graph.add("format", "yuv420p"), graph.add("buffersink")]
        graph.link_nodes(*nodes).configure()
        return graph

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (av.error.FFmpegError, OSError, soundfile.LibsndfileError) as error:
            self.drop()
            if isinstance(error, _PICTURE_ERRORS):
                raise DataError(f"its pictures cannot be cut or encoded: {error.strerror or error}") from error
            raise ClipError(f"cannot write {self._out}: {error}; check permissions and free space") from error


def _shape(frame: VideoFrame) -> tuple[object, ...]:
    return frame.width, frame.height, frame.format.name, orientation(frame)
