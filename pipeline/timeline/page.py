"""The page of a film: the film, a curve for each emotion under it, and what is said, all on one time axis."""

import hashlib
import json
import math
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from data_tools.names import for_terminal
from pipeline.report.figures import data_uri
from pipeline.report.pages import write_page
from pipeline.timeline.answers import Prediction, shown_score

# A gap in the list of what is said; shorter ones are seen in the curves alone.
_GAP_S = 1.0
_SOUND_ENDINGS = (".m4a", ".mp3", ".ogg", ".flac", ".wav")
_CUT_BY = {
    "whole": ("taken as one", "nothing here"),
    "transcript": ("by the times of the transcript", "no words"),
    "words": ("by recognised words and pauses", "no words"),
    "speech": ("by who speaks when", "nobody speaks"),
    "time": ("into equal parts, as nobody speaks", "nothing here"),
}


@dataclass(frozen=True)
class Row:
    """A line of the list: a segment, or a gap, whose `number` is None.

    chips: (number of the emotion, its name, its score) of those predicted. absent: (in short, in full) each. words:
    (start in seconds, word) of the text, where the times of its words are known.
    """

    number: int | None
    time: str
    text: str
    chips: Sequence[tuple[int, str, str]] = ()
    absent: Sequence[tuple[str, str]] = ()
    face: str | None = None
    words: Sequence[tuple[float, str]] = ()


def write_film_page(
    page: Path, name: str, playable: Path | None, problem: str, about: Mapping[str, Any], prediction: Prediction
) -> None:
    """Write the page of a film, one file beside the one that it plays.

    name: of the film, as it is shown. playable: a file in the folder of the page; None where there is none, and
    `problem` says why. about: facts about the run; "task", "notice" and "run" are used.

    Raises:
        DataError: it cannot be written.
    """
    segments, task, thresholds = prediction.segments, about["task"], prediction.summary["thresholds"]
    names = list(prediction.scores)
    length_s = max(prediction.summary["duration_s"], *(segment["end_s"] for segment in segments))
    how, silence = _CUT_BY[prediction.cut_by or "whole"]
    script = (files("pipeline.timeline") / "film.js").read_text(encoding="utf-8")
    write_page(
        page,
        "timeline/film.html.j2",
        title=for_terminal(name),
        notice=about["notice"],
        source=None if playable is None else f"./{quote(playable.name.encode('utf-8', 'surrogateescape'))}",
        is_sound=playable is not None and playable.suffix in _SOUND_ENDINGS,
        problem=for_terminal(problem),
        facts=f"{clock(length_s)} · {len(segments)} {'segment' if len(segments) == 1 else 'segments'}, {how}",
        task=task,
        names=names,
        totals=_totals(prediction, thresholds, task),
        rows=list(_rows(prediction, length_s, silence, task)),
        absent=prediction.absent,
        run=for_terminal(str(about["run"])),
        version=version("emotion-pipeline"),
        data=_in_script(
            {
                "length": round(length_s, 3),
                "names": names,
                "thresholds": [thresholds.get(name) for name in names],
                "range": _range(segments) if task == "sentiment" else [0, 1],
                "segments": [
                    [segment["start_s"], segment["end_s"], [round(segment["scores"][name], 4) for name in names]]
                    for segment in segments
                ],
                "predicted": [[names.index(each) for each in segment["predicted"]] for segment in segments],
            }
        ),
        script=Markup(script),
        script_hash=b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _in_script(value: Any) -> Markup:
    """JSON for a <script>: no name in it can end that, or begin a comment."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _range(segments: Sequence[Mapping[str, Any]]) -> list[float]:
    """The axis of sentiments: even on both sides of 0."""
    most = math.ceil(max(1.0, *(abs(score) for segment in segments for score in segment["scores"].values())))
    return [-most, most]


def _totals(prediction: Prediction, thresholds: Mapping[str, float], task: str) -> list[tuple[str, str, str, bool]]:
    """(Name, mean score, threshold or nothing, predicted) of each emotion, the highest score first."""
    return [
        (name, shown_score(score, task), f"{thresholds[name]:.3f}" if name in thresholds else "", name in predicted)
        for predicted in [prediction.predicted]
        for name, score in sorted(prediction.scores.items(), key=lambda item: -item[1])
    ]


def _rows(prediction: Prediction, length_s: float, silence: str, task: str) -> Iterator[Row]:
    """The segments in their order, and the gaps between them."""
    names, reached = list(prediction.scores), 0.0
    for number, (segment, face) in enumerate(zip(prediction.segments, prediction.faces, strict=True)):
        yield from _gap(reached, segment["start_s"], silence)
        reached = max(reached, segment["end_s"])
        shown = names if task == "sentiment" else segment["predicted"]
        ordered = sorted(shown, key=lambda name: -segment["scores"][name])
        yield Row(
            number,
            clock(segment["start_s"]),
            segment["text"],
            [(names.index(name), name, shown_score(segment["scores"][name], task)) for name in ordered],
            [(reason.split(":")[0], reason) for reason in segment["absent"]],
            None if face is None else data_uri(face),
            _timed_words(segment),
        )
    yield from _gap(reached, length_s, silence)


def _timed_words(segment: Mapping[str, Any]) -> list[tuple[float, str]]:
    words = [(word["start_s"], word["text"].strip()) for word in segment.get("words", ())]
    return words if [word for _, word in words] == segment["text"].split() else []


def _gap(start_s: float, end_s: float, silence: str) -> Iterator[Row]:
    if end_s - start_s >= _GAP_S:
        yield Row(None, clock(start_s), f"{end_s - start_s:.1f} s: {silence}")


def clock(seconds: float) -> str:
    """`0:01.2`, `1:02:03.4`."""
    tenths = round(10 * seconds)
    hours, minutes, rest = tenths // 36_000, tenths // 600 % 60, tenths % 600
    start = f"{hours}:{minutes:02}" if hours else f"{minutes}"
    return f"{start}:{rest // 10:02}.{rest % 10}"
