"""Scores of a film and of its segments."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data_tools.errors import DataError
from data_tools.media.source import probe
from data_tools.speech.recognition import Recogniser
from data_tools.speech.segments import Segment
from data_tools.speech.transcript import Cue
from data_tools.store import SampleTensors
from pipeline.report.figures import jpeg
from pipeline.timeline.plan import Plan, Segmentation, plan
from pipeline.timeline.predictor import Answer, Piece, Predictor
from pipeline.timeline.tensors import Taken
from pipeline.training.damage import in_order

# Segments are scored together up to this many faces and chunks, or this many segments.
MAX_STEPS, MAX_SEGMENTS = 64, 16
NO_WORDS = "no words: no transcript was given"
NOT_RECOGNISED = "no words: none were recognised"


@dataclass(frozen=True)
class Scored:
    """The answer for one segment.

    start_s, end_s: in the film, to the millisecond. text: the words said, as far as known. scores, predicted, absent:
    as of a `Prediction`. no_face_share: share of the sampled frames without a face; None without frames. words:
    {"start_s", "end_s", "text"} of each word in the film, where their times are known; else empty. face: a JPEG of the
    chosen face, where it was surest; None without one. present: letters of the modalities that were there.
    """

    start_s: float
    end_s: float
    text: str
    scores: dict[str, float]
    predicted: list[str]
    absent: list[str]
    no_face_share: float | None
    words: list[dict[str, Any]] = field(default_factory=list)
    face: bytes | None = field(default=None, repr=False)
    present: str = ""

    def for_json(self) -> dict[str, Any]:
        """All but the picture."""
        return {name: value for name, value in asdict(self).items() if name != "face"}


@dataclass
class Prediction:
    """The answer for one file.

    scores: emotion -> score in [0, 1], or `sentiment` -> its value in the corpus' range, unclipped; of a file in
        segments the mean of theirs, weighed by duration.
    predicted: emotions whose score reaches the run's threshold; of a single-label run the highest-scoring one.
    absent: what the whole file lacked, in words; the answer then rests on the rest. error: why there is no answer.
    cut_by: `whole`, `transcript`, `words` (recognised), `speech`, or `time` where nobody speaks.
    segments: in the order of their times, a `Scored` each; a file taken whole is one.
    summary: {"scores", "predicted", "duration_s": of the file, "scored_s": of all segments, "present": letters of the
        modalities that any segment has, "thresholds": of these}.
    faces: that of each segment, for the page; see `Scored`.
    """

    file: str
    scores: dict[str, float] = field(default_factory=dict)
    predicted: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    error: str | None = None
    cut_by: str | None = None
    segments: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    faces: list[bytes | None] = field(default_factory=list, repr=False)

    def for_json(self) -> dict[str, Any]:
        """All but the pictures."""
        return {name: value for name, value in vars(self).items() if name != "faces"}


def predict_file(
    path: Path,
    cues: list[Cue],
    segmentation: Segmentation,
    max_segment_s: float,
    predictor: Predictor,
    recogniser: Recogniser | None = None,
) -> Iterator[float | Prediction]:
    """Seconds of the film that are done so far, then the answer. Listening to its words is half of the work.

    Raises:
        ConfigError: as `plan`.
    """
    try:
        info = probe(path)
        made = yield from plan(path, info, cues, segmentation, max_segment_s, recogniser)
        if made.segments is None:
            yield _whole(path, made, predictor)
            return
        scored: list[Scored] = []
        for batch in _batches(path, made, predictor):
            scored += batch
            yield (made.length_s + batch[-1].end_s) / 2 if made.listened else batch[-1].end_s
    except DataError as error:
        yield Prediction(str(path), error=str(error))
        return
    yield _joined(path, made, scored, predictor)


def _whole(path: Path, made: Plan, predictor: Predictor) -> Prediction:
    taken = predictor.extractor.whole(path)
    absent = [*taken.absent, *_lacks_words(made.text, made), *made.notes]
    piece = Piece(str(path), taken.features, made.text, taken.sound)
    if not predictor.present(piece):
        raise DataError(f"{path} has nothing that the model reads: {'; '.join(absent)}")
    (answer,) = predictor.score([piece])
    segment = _scored(Segment(0.0, made.length_s, made.text, made.words), taken, absent, answer, predictor)
    summary = _summary(answer, made, [segment], predictor)
    return Prediction(str(path), *answer, absent, None, made.by, [segment.for_json()], summary, [segment.face])


def _lacks_words(text: str, made: Plan) -> list[str]:
    return [] if text.strip() else [NOT_RECOGNISED if made.listened else NO_WORDS]


def _batches(path: Path, made: Plan, predictor: Predictor) -> Iterator[list[Scored]]:
    """The segments of a film that have anything that the model reads, as many at a time as fit into a batch."""
    segments = made.segments or []
    waiting: list[tuple[Segment, Taken]] = []
    steps = 0
    for number, taken in predictor.extractor.each(path, probe(path), segments):
        if taken is None:
            continue
        segment = segments[number]
        piece = _piece(segment, taken)
        if not predictor.present(piece):
            continue
        if waiting and (steps + piece.steps > MAX_STEPS or len(waiting) == MAX_SEGMENTS):
            yield _scored_batch(waiting, made, predictor)
            waiting, steps = [], 0
        waiting.append((segment, taken))
        steps += piece.steps
    if waiting:
        yield _scored_batch(waiting, made, predictor)


def _scored_batch(batch: Sequence[tuple[Segment, Taken]], made: Plan, predictor: Predictor) -> list[Scored]:
    answers = predictor.score([_piece(segment, taken) for segment, taken in batch])
    return [
        _scored(segment, taken, [*taken.absent, *_lacks_words(segment.text, made)], answer, predictor)
        for (segment, taken), answer in zip(batch, answers, strict=True)
    ]


def _piece(segment: Segment, taken: Taken) -> Piece:
    return Piece(f"{segment.start_s:.3f}", taken.features, segment.text, taken.sound)


def _scored(segment: Segment, taken: Taken, absent: list[str], answer: Answer, predictor: Predictor) -> Scored:
    share = None if taken.no_face_share is None else round(taken.no_face_share, 4)
    words = [
        {"start_s": round(word.start_s, 3), "end_s": round(word.end_s, 3), "text": word.text} for word in segment.words
    ]
    times = round(segment.start_s, 3), round(segment.end_s, 3)
    present = predictor.present(_piece(segment, taken))
    return Scored(*times, segment.text, *answer, absent, share, words, _face(taken.features), present)


def _face(features: SampleTensors) -> bytes | None:
    """A JPEG of the face that the detector was surest of; None where it found none."""
    if not len(features.faces) or not (features.face_score > 0).any():
        return None
    return jpeg(features.faces[int(features.face_score.argmax())].numpy())


def _joined(path: Path, made: Plan, scored: list[Scored], predictor: Predictor) -> Prediction:
    """The answer for a file of the answers for its segments."""
    scored = sorted(scored, key=lambda segment: (segment.start_s, segment.end_s))
    if not scored:
        return Prediction(str(path), error=f"{path} has nothing that the model reads in any of its segments")
    assert made.segments is not None
    notes = list(made.notes)
    if empty := len(made.segments) - len(scored):
        notes.append(f"{empty} segments with nothing that the model reads were left out")
    everywhere = [reason for reason in scored[0].absent if all(reason in segment.absent for segment in scored)]
    weights = [max(segment.end_s - segment.start_s, 1e-3) for segment in scored]
    answer = predictor.mean([segment.scores for segment in scored], weights, _present(scored))
    summary = _summary(answer, made, scored, predictor)
    segments, faces = [segment.for_json() for segment in scored], [segment.face for segment in scored]
    return Prediction(str(path), *answer, everywhere + notes, None, made.by, segments, summary, faces)


def _present(scored: Sequence[Scored]) -> str:
    return in_order("".join(segment.present for segment in scored))


def _summary(answer: Answer, made: Plan, scored: Sequence[Scored], predictor: Predictor) -> dict[str, Any]:
    seconds = sum(segment.end_s - segment.start_s for segment in scored)
    present = _present(scored)
    return {
        "scores": answer[0],
        "predicted": answer[1],
        "duration_s": round(made.length_s, 3),
        "scored_s": round(seconds, 3),
        "present": present,
        "thresholds": predictor.thresholds_of(present),
    }


def shown_score(score: float, task: str) -> str:
    """A score for people; a sentiment with its sign."""
    return f"{score:+.3f}" if task == "sentiment" else f"{score:.3f}"


def predicted_scores(segment: Mapping[str, Any], task: str) -> str:
    """The predicted emotions of a segment with their scores, the highest first; the sentiment where there are none."""
    names = list(segment["scores"]) if task == "sentiment" else segment["predicted"]
    ordered = sorted(names, key=lambda name: -segment["scores"][name])
    return ", ".join(f"{name} {shown_score(segment['scores'][name], task)}" for name in ordered)
