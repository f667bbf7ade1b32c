"""From clips to tensors: threads decode ahead while the detector works."""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from data_tools import mel
from data_tools.errors import DataError
from data_tools.faces.crop import FaceCrops, crop_each
from data_tools.faces.detector import FaceDetector
from data_tools.faces.mouth import GREY_PX, Grey, Watched
from data_tools.media.audio import read_audio
from data_tools.media.frames import read_frames
from data_tools.read_ahead import read_ahead
from data_tools.store import SampleTensors
from pipeline.settings import Settings

FaceChoice = Literal["largest", "speaking"]


class FaceSettings(Settings):
    """Choice and crop of faces; part of the store's fingerprint."""

    sample_every_ms: int = Field(500, gt=0)
    margin_px: int = Field(2, ge=0, le=24, description="added to the detected box's side, of the crop's 48 pixels")
    min_face_px: int = Field(40, ge=12, description="faces in IEMOCAP are 60-100 px; 20 finds more and costs double")
    batch_frames: int = Field(16, ge=1, description="frames in one detector pass")
    choice: FaceChoice = Field(
        "speaking",
        description="of several faces: the large and steady one, or the one whose mouth moves with the voice",
    )

    @property
    def grey_px(self) -> int | None:
        """Longer side of the pictures in which mouths are watched; None where they are not."""
        return GREY_PX if self.choice == "speaking" else None


class MelSettings(Settings):
    """Audio into chunks; part of the store's fingerprint. See data_tools/mel.py for the constants."""

    n_fft: int = Field(1024, ge=400, le=16_384, description="the paper's 400 leaves 4 of 128 filters empty")


# Video and audio of a clip; None for an absent one, which gives 0 faces or 0 rows.
ClipFiles = tuple[Path | None, Path | None]


@dataclass(frozen=True)
class _End:
    """End of a clip, after its last frame.

    times_s: of its frames. logmel: of its audio, or why it cannot be read. greys: the pictures after the last frame.
    """

    times_s: list[float]
    logmel: torch.Tensor | DataError
    greys: list[Grey]


def extract_features(
    video: Path | None,
    audio: Path | None,
    detector: FaceDetector,
    faces: FaceSettings,
    mel_settings: MelSettings,
    voice: Path | None = None,
) -> SampleTensors:
    """The tensors of one clip; stage 2 and `predict` see the same.

    video, audio: files to take the picture and the audio from; None for an absent one. voice: a file whose sound tells
    who speaks, where `audio` is None.

    Raises:
        DataError: a file that is there cannot be decoded.
    """
    (result,) = extract_each([(video, audio)], detector, faces, mel_settings, voices=[audio or voice])
    if isinstance(result, DataError):
        raise result
    return result


def extract_each(
    clips: Sequence[ClipFiles],
    detector: FaceDetector,
    faces: FaceSettings,
    mel_settings: MelSettings,
    decoders: int = 1,
    voices: Sequence[Path | None] | None = None,
) -> Iterator[SampleTensors | DataError]:
    """The tensors of each clip in turn; in their place the error, where a file that is there cannot be decoded.

    While the detector works, `decoders` threads decode as many clips, each at most faces.batch_frames frames ahead.
    The number of them changes no result. voices: files whose sounds tell who speaks, read of clips with several faces;
    by default the clips' audio.
    """
    heard = voices or [audio for _, audio in clips]
    sound_of = (lambda number: _sound_of(heard[number])) if faces.choice == "speaking" else None
    sources = [partial(_read, video, audio, faces, mel_settings) for video, audio in clips]
    ends: deque[_End] = deque()
    with closing(read_ahead(sources, decoders, faces.batch_frames)) as items:
        cuts = crop_each(
            _frames(items, ends),
            detector,
            margin_px=faces.margin_px,
            batch_frames=faces.batch_frames,
            sound_of=sound_of,
        )
        for cut in cuts:
            end = ends.popleft()
            if isinstance(end.logmel, DataError):
                yield end.logmel
                continue
            yield as_tensors(cut, end.times_s, end.logmel)


def as_tensors(crops: FaceCrops, times_s: Sequence[float], logmel: torch.Tensor) -> SampleTensors:
    """The tensors of one utterance. times_s: of its frames. logmel: (M, 128) float16."""
    return SampleTensors(
        faces=torch.from_numpy(crops.crops),
        face_time_s=torch.tensor(times_s, dtype=torch.float32),
        face_score=torch.from_numpy(crops.scores),
        face_landmarks=torch.from_numpy(crops.landmarks),
        face_box=torch.from_numpy(crops.boxes),
        logmel=logmel,
        chosen_by=crops.chosen_by,
    )


def _sound_of(path: Path | None) -> np.ndarray:
    """(S,) float32 at 16 kHz; (0,) where there is none that can be read."""
    try:
        return read_audio(path) if path else np.zeros(0, np.float32)
    except DataError:
        return np.zeros(0, np.float32)


def _read(
    video: Path | None, audio: Path | None, faces: FaceSettings, mel_settings: MelSettings
) -> Generator[Watched | _End, None, None]:
    times_s: list[float] = []
    greys: list[Grey] = []
    try:
        for time_s, frame in read_frames(video, faces.sample_every_ms, grey_px=faces.grey_px) if video else ():
            if frame.ndim == 2:
                greys.append((time_s, frame))
                continue
            times_s.append(time_s)
            yield Watched(frame, time_s, greys)
            greys = []
        waveform = read_audio(audio, mel.RATE_HZ) if audio else np.zeros(0, np.float32)
    except DataError as error:
        yield _End(times_s, error, greys)
        return
    yield _End(times_s, mel.log_mel(torch.from_numpy(waveform), mel_settings.n_fft).half(), greys)


def _frames(items: Iterator[Watched | _End], ends: deque[_End]) -> Iterator[Watched]:
    """The frames, and one that is None after each clip; its end is put into `ends`."""
    for item in items:
        if isinstance(item, _End):
            ends.append(item)
            yield Watched(None, item.times_s[-1] if item.times_s else 0.0, item.greys)
        else:
            yield item
