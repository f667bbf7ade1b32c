"""The stand-in IEMOCAP on disk: `IEMOCAP_full_release`, laid out as the real one."""

import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from zlib import crc32

import numpy as np
import soundfile

from data_tools.files import atomic_path, write_text
from data_tools.media.write import write_video
from data_tools.standin.cast import iemocap_performer
from data_tools.standin.expressions import blended
from data_tools.standin.faces import Puppet
from data_tools.standin.iemocap_plan import SIX_CLASSES, DialoguePlan, plan_dialogues
from data_tools.standin.iemocap_text import TimedLine, write_apple_double, write_dialogue_texts, write_word_alignment
from data_tools.standin.performance import Turn, face_track
from data_tools.standin.portraits import HEIGHT_PX, WIDTH_PX, make_portrait
from data_tools.standin.record import Made, Truth
from data_tools.standin.speech import RATE_HZ, Synthesiser

FOLDER = "IEMOCAP_full_release"
FPS = Fraction(30000, 1001)
VIDEO_SIZE_PX = (720, 480)
TOP_PX, LEFT_PX, RIGHT_PX = 120, 5, 365  # where the two pictures stand in the black frame
_TIME_STEP = 8  # samples, 0.5 ms: times with 4 decimals then name samples exactly
_CROSSTALK = 0.15
_ROOM_RMS = 0.0006


@dataclass(frozen=True)
class _Spoken:
    line: TimedLine
    speaker: str
    turn: Turn


def plan(utterances: int, seed: int, noise: float) -> list[DialoguePlan]:
    """One job a dialogue; see `plan_dialogues`. `utterances` counts those labelled with one of the six classes."""
    return plan_dialogues(utterances, seed, noise)


def make(job: DialoguePlan, root: Path, seed: int) -> Made:
    """Write everything of one dialogue under `root`, and say what it shows."""
    rng = random.Random(f"iemocap {seed} {job.name}")
    noise = np.random.default_rng([seed, crc32(job.name.encode())])
    spoken = _perform(job, rng, noise)
    lines = [part.line for part in spoken]
    session = root / f"Session{job.session}"
    dialog = session / "dialog"
    sound = _mixed(spoken, noise)
    wav = dialog / "wav" / f"{job.name}.wav"
    _write_pcm(wav, sound)
    for part in spoken:
        if part.line.label is not None:
            _write_sentence(session / "sentences", job.name, part, sound)
    write_dialogue_texts(dialog, job.name, lines, job.first_of_session, rng)
    avi = dialog / "avi" / "DivX" / f"{job.name}.avi"
    frames = _frames(job, spoken, len(sound) / RATE_HZ, noise)
    write_video(avi, frames, VIDEO_SIZE_PX, FPS, codec="mpeg4", tag="DIVX", audio=wav)
    if job.session == 1 and job.first_of_session:
        texts = (dialog / folder / f"{job.name}.txt" for folder in ("EmoEvaluation", "transcriptions"))
        for path in (avi, wav, *texts):
            write_apple_double(path)
    truths = tuple(
        Truth(part.line.utterance_id, (part.line.label,), line.cues)
        for part, line in zip(spoken, job.lines, strict=True)
        if part.line.label is not None
    )
    return Made(truths, len(sound) / RATE_HZ)


def finish(root: Path, made: list[Made], seed: int) -> None:  # noqa: ARG001 - one signature for all corpora
    """Nothing spans dialogues but the Documentation folder, empty of the real one's files."""
    write_text(root / "Documentation" / "STANDIN.txt", "The real release's documentation is not part of a stand-in.\n")


def counted(truths: list[Truth]) -> int:
    """Number of utterances that carry one of the six classes."""
    return sum(truth.label[0] in SIX_CLASSES for truth in truths)


def _perform(job: DialoguePlan, rng: random.Random, noise: np.random.Generator) -> list[_Spoken]:
    """Every line spoken and placed in time: small gaps, and now and then a turn that begins before the other ends."""
    synthesiser = Synthesiser()
    spoken: list[_Spoken] = []
    numbers = {"F": 0, "M": 0, "XX": 0}
    last_end = {"F": 0.0, "M": 0.0}
    now_s = 1.2
    for line in job.lines:
        manner, voice = blended(line.cues.audio), iemocap_performer(job.session, line.speaker).voice
        samples = synthesiser.say(line.spoken, voice, manner.prosody, noise)
        samples = np.pad(samples, (0, -len(samples) % _TIME_STEP))
        start_s = max(now_s, last_end[line.speaker] + 0.1)
        start_s = np.ceil(start_s * RATE_HZ / _TIME_STEP) * _TIME_STEP / RATE_HZ
        kind = line.speaker if line.label is not None else "XX"
        number = f"{numbers[kind]:03d}" if kind != "XX" else f"XX{numbers[kind]}"
        numbers[kind] += 1
        turn = Turn(start_s, samples, blended(line.cues.video), strength=rng.uniform(0.8, 1.05))
        timed = TimedLine(f"{job.name}_{line.speaker}{number}", start_s, turn.end_s, line.label, line.text)
        spoken.append(_Spoken(timed, line.speaker, turn))
        last_end[line.speaker] = turn.end_s
        now_s = turn.end_s + (-0.25 if rng.random() < 0.12 else rng.uniform(0.1, 0.5))
    return spoken


def _mixed(spoken: list[_Spoken], noise: np.random.Generator) -> np.ndarray:
    """(S, 2) int16: one microphone an actor, each hearing the other faintly.

    Which channel is whose is not established for the real release; here the actress is channel 0.
    """
    seconds = max(part.turn.end_s for part in spoken) + 0.8
    sound = _ROOM_RMS * noise.standard_normal((round(seconds * RATE_HZ), 2))
    for part in spoken:
        first = round(part.turn.start_s * RATE_HZ)
        near = "FM".index(part.speaker)
        sound[first : first + len(part.turn.samples), near] += part.turn.samples
        sound[first : first + len(part.turn.samples), 1 - near] += _CROSSTALK * part.turn.samples
    return np.round(np.clip(sound, -1, 32767 / 32768) * 32768).astype(np.int16)


def _write_sentence(sentences: Path, name: str, part: _Spoken, sound: np.ndarray) -> None:
    line = part.line
    cut = sound[round(line.start_s * RATE_HZ) : round(line.end_s * RATE_HZ), "FM".index(part.speaker)]
    _write_pcm(sentences / "wav" / name / f"{line.utterance_id}.wav", cut)
    write_word_alignment(sentences / "ForcedAlignment" / name / f"{line.utterance_id}.wdseg", line)


def _write_pcm(path: Path, samples: np.ndarray) -> None:
    whole = io.BytesIO()
    soundfile.write(whole, samples, RATE_HZ, subtype="PCM_16", format="WAV")
    with atomic_path(path) as temporary:
        temporary.write_bytes(whole.getvalue())  # libsndfile's own writing would hide the cause of a full disk


def _frames(
    job: DialoguePlan, spoken: list[_Spoken], seconds: float, noise: np.random.Generator
) -> Iterator[np.ndarray]:
    """(480, 720, 3) uint8 frames; one array, changed in place. The wearer of the markers sits on the left."""
    count = int(seconds * FPS)
    places = []
    for letter, left in ((job.marker, LEFT_PX), ("M" if job.marker == "F" else "F", RIGHT_PX)):
        puppet = Puppet(make_portrait(iemocap_performer(job.session, letter).actor))
        track = face_track([part.turn for part in spoken if part.speaker == letter], count, float(FPS), noise)
        places.append((puppet, track, left))
    frame = np.zeros((VIDEO_SIZE_PX[1], VIDEO_SIZE_PX[0], 3), np.uint8)
    for number in range(count):
        for puppet, track, left in places:
            frame[TOP_PX : TOP_PX + HEIGHT_PX, left : left + WIDTH_PX] = puppet.draw(track[number])
        yield frame
