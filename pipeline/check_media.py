"""A drawn sample of a release's media: what the headers say, one picture, a second of sound, and the intervals."""

import random
from collections import defaultdict
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from data_tools.errors import DataError
from data_tools.letterbox import speaker_box
from data_tools.media.audio import audio_duration_s, read_audio
from data_tools.media.cut import END_SLACK_S
from data_tools.media.frames import read_frames
from data_tools.media.source import probe
from data_tools.records import Utterance
from pipeline.published import PublishedMedia


def sample_media(
    root: Path,
    utterances: Sequence[Utterance],
    samples: int,
    seed: int,
    published: PublishedMedia,
    modalities: str = "av",
) -> list[dict[str, Any]]:
    """Properties of `samples` source videos of `utterances`, drawn with `seed`: plain values, by name of the video.

    modalities: those that each utterance must have; a file without another one is no problem. Where an utterance has no
    video, its sound file stands for it.

    `problems` of a video are why stage 1 would reject all or some of its utterances; `notes` are what else differs
    from the published release. Times are those of the headers: stage 1 decodes, and may find less.
    """
    by_video: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        by_video[utterance.source_video or utterance.source_audio].append(utterance)
    names = random.Random(seed).sample(sorted(by_video), min(samples, len(by_video)))
    return [_examine(root, name, by_video[name], published, modalities) for name in sorted(names)]


def _examine(
    root: Path, name: str, utterances: Sequence[Utterance], published: PublishedMedia, modalities: str
) -> dict[str, Any]:
    found: dict[str, Any] = {"video": name, "utterances": len(utterances), "problems": [], "notes": []}
    for letter, look in (("v", _picture), ("a", _sound)):
        try:
            look(root, utterances, published, found, letter in modalities)
        except DataError as error:
            found["problems"].append(str(error).replace(f"{root}/", ""))
    return found


def _picture(
    root: Path, utterances: Sequence[Utterance], published: PublishedMedia, found: dict[str, Any], needed: bool
) -> None:
    path = root / found["video"]
    info = probe(path)
    found |= {
        "codec": info.video_codec,
        "width": info.width,
        "height": info.height,
        "fps": round(info.fps, 3),
        "duration_s": round(info.duration_s, 3),
        "bytes": path.stat().st_size,
    }
    if not needed and not info.has_video:
        return
    _, frame = next(read_frames(path, every_ms=1000, square_pixels=False))
    halves = {utterance.half for utterance in utterances if utterance.half}
    found["notes"] += sorted({note for half in halves if (note := speaker_box(frame, half)[1])})
    if published.picture_px and not halves and published.picture_px != (info.width, info.height):
        found["notes"].append(f"{info.width}x{info.height} pixels, published {published.picture_px}")
    if published.fps is not None and abs(info.fps - published.fps) > 0.5:
        found["notes"].append(f"{info.fps:.2f} frames a second, published about {published.fps:g}")
    if info.duration_s:
        found["problems"] += _outside(utterances, info.duration_s, "video")


def _sound(
    root: Path, utterances: Sequence[Utterance], published: PublishedMedia, found: dict[str, Any], needed: bool
) -> None:
    first = utterances[0]
    path = root / first.source_audio
    if not needed and (not first.source_audio or not probe(path).has_audio):
        return
    info = probe(path)
    found |= {
        "sound": first.source_audio,
        "sound_codec": info.audio_codec,
        "sound_hz": info.audio_rate_hz,
        "channels": info.channels,
    }
    read_audio(path, start_s=0.0, end_s=1.0)
    if first.audio_is_cut:
        for what, is_there, stated in (
            ("samples a second", info.audio_rate_hz, published.sound_hz),
            ("channels", info.channels, published.channels),
        ):
            if stated is not None and is_there != stated:
                found["notes"].append(f"{first.source_audio} has {is_there} {what}, published {stated}")
    elif info.duration_s and first.source_audio != first.source_video:
        found["problems"] += _outside(utterances, info.duration_s, "sound")
    _lengths(root, utterances, found)


def _lengths(root: Path, utterances: Sequence[Utterance], found: dict[str, Any]) -> None:
    """Sound files that hold one utterance alone, against their intervals. Only headers of wavs are read."""
    finite = [u for u in utterances if u.audio_is_cut and u.end_s - u.start_s < float("inf")]
    off = []
    for utterance in finite:
        try:
            difference_s = abs(audio_duration_s(root / utterance.source_audio) - (utterance.end_s - utterance.start_s))
        except DataError as error:
            off.append(str(error).replace(f"{root}/", ""))
            continue
        found["longest_difference_s"] = max(found.get("longest_difference_s", 0.0), round(difference_s, 4))
        if difference_s > END_SLACK_S:
            off.append(f"{utterance.source_audio} is {difference_s:.2f} s longer or shorter than its interval")
    found["problems"] += [f"{off[0]} ({len(off)} of {len(finite)} like this)"] if off else []


def _outside(utterances: Sequence[Utterance], duration_s: float, what: str) -> list[str]:
    """One sentence where intervals begin or end after a medium that lasts `duration_s`."""

    def beyond(utterance: Utterance) -> bool:
        end_s = utterance.end_s if utterance.end_s < float("inf") else 0.0
        return utterance.start_s >= duration_s or end_s > duration_s + END_SLACK_S

    late = [utterance for utterance in utterances if beyond(utterance)]
    named = ", ".join(utterance.utterance_id for utterance in islice(late, 2))
    sentence = (
        f"{len(late)} of {len(utterances)} intervals end after the {what}, which lasts {duration_s:.2f} s: {named}"
    )
    return [sentence] if late else []
