"""The stand-in CMU-MOSEI on disk: `CMU_MOSEI/Raw`, laid out as CMU_MOSEI.zip."""

import random
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import cv2
import numpy as np

from data_tools.files import write_text
from data_tools.media.audio import write_wav
from data_tools.media.write import write_video
from data_tools.standin.cast import Performer, drawn_performer
from data_tools.standin.expressions import blended
from data_tools.standin.faces import Puppet
from data_tools.standin.mosei_labels import write_label_files
from data_tools.standin.mosei_plan import EMOTIONS, VideoPlan, plan_videos
from data_tools.standin.performance import Turn, face_track
from data_tools.standin.portraits import make_portrait
from data_tools.standin.record import Made, Truth
from data_tools.standin.speech import RATE_HZ, Synthesiser

FOLDER = "CMU_MOSEI"
_PADDING_S = 0.5  # segments of the real release reach this far into their neighbours
_ROOM_RMS = 0.0006


def plan(utterances: int, seed: int, noise: float) -> list[VideoPlan]:
    """One job a video; see `plan_videos`. `utterances` counts the labelled segments."""
    return plan_videos(utterances, seed, noise)


def make(job: VideoPlan, root: Path, seed: int) -> Made:
    """Write video, sound and transcript of one video under `root`, and say what its segments show."""
    rng = random.Random(f"mosei {seed} {job.place}")
    noise = np.random.default_rng([seed, crc32(job.video_id.encode())])
    performer = drawn_performer(rng)
    turns = _perform(job, performer, rng, noise)
    sound = _ROOM_RMS * noise.standard_normal(round((turns[-1].end_s + 0.3) * RATE_HZ))
    for turn in turns:
        first = round(turn.start_s * RATE_HZ)
        sound[first : first + len(turn.samples)] += turn.samples
    raw = root / "Raw"
    wav = raw / "Audio" / "Full" / "WAV_16000" / f"{job.video_id}.wav"
    write_wav(wav, sound.astype(np.float32), RATE_HZ)
    write_text(raw / "Transcript" / "Segmented" / "Combined" / f"{job.video_id}.txt", _transcript(job, turns))
    mp4 = raw / "Videos" / "Full" / "Combined" / f"{job.video_id}.mp4"
    frames = _frames(job, performer, turns, len(sound) / RATE_HZ, noise)
    write_video(mp4, frames, job.size_px, job.fps, codec="libx264", audio=wav)
    truths = tuple(
        Truth(f"{job.video_id}_{part.number}", tuple(EMOTIONS[code] for code in part.label), part.cues)
        for part in job.segments
        if part.labelled
    )
    return Made(truths, len(sound) / RATE_HZ)


def finish(root: Path, made: list[Made], seed: int) -> None:
    """The annotators' tables, which span videos."""
    write_label_files(root / "Raw" / "Labels", [truth for part in made for truth in part.truths], seed)


def counted(truths: list[Truth]) -> int:
    """Number of labelled segments."""
    return len(truths)


def _perform(job: VideoPlan, performer: Performer, rng: random.Random, noise: np.random.Generator) -> list[Turn]:
    synthesiser = Synthesiser()
    turns: list[Turn] = []
    now_s = 0.15 if job.starts_early else 0.8
    for segment in job.segments:
        samples = synthesiser.say(segment.spoken, performer.voice, blended(segment.cues.audio).prosody, noise)
        now_s += segment.gap_before_s if turns else 0.0
        turns.append(Turn(now_s, samples, blended(segment.cues.video), strength=rng.uniform(0.85, 1.05)))
        now_s = turns[-1].end_s
    return turns


def _transcript(job: VideoPlan, turns: list[Turn]) -> str:
    """`id___clip___start___end___text` lines; padded, so that neighbours overlap and a start can be below 0."""
    rows = []
    for segment, turn in zip(job.segments, turns, strict=True):
        start_s, end_s = turn.start_s - _PADDING_S, turn.end_s + _PADDING_S / 2
        if not job.starts_early:
            start_s = max(start_s, 0.0)
        rows.append(f"{job.video_id}___{segment.number}___{start_s:.4f}___{end_s:.4f}___{segment.text}\n")
    return "".join(rows)


def _frames(
    job: VideoPlan, performer: Performer, turns: list[Turn], seconds: float, noise: np.random.Generator
) -> Iterator[np.ndarray]:
    """(H, W, 3) uint8 frames: the portrait enlarged to cover the frame, its middle kept."""
    puppet = Puppet(make_portrait(performer.actor))
    width, height = job.size_px
    for face in face_track(turns, int(seconds * job.fps), float(job.fps), noise):
        picture = puppet.draw(face)
        scale = max(width / picture.shape[1], height / picture.shape[0])
        size = (max(width, round(picture.shape[1] * scale)), max(height, round(picture.shape[0] * scale)))
        large = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
        left, top = (large.shape[1] - width) // 2, (large.shape[0] - height) // 2
        yield large[top : top + height, left : left + width]
