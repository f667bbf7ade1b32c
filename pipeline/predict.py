"""`pipeline predict`: any media file and a run -> emotion scores along its time, and what was absent in the file."""

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from itertools import repeat
from pathlib import Path
from typing import Any

from data_tools.errors import DataError
from data_tools.files import folder_lock
from data_tools.media.source import probe
from data_tools.speech.transcript import words_of
from pipeline.asr import ASR_HELP, HOW_TO_GET_WORDS, LANGUAGE_HELP, open_recogniser
from pipeline.command import Command, fields_of
from pipeline.progress import Reporter
from pipeline.run import RunDir
from pipeline.settings import RUN_HELP, ConfigError, Device, LocalPath, Names, Settings, flag
from pipeline.timeline.answers import Prediction, predict_file, predicted_scores, shown_score
from pipeline.timeline.files import OutFolder, run_state
from pipeline.timeline.plan import Segmentation, cues_of
from pipeline.timeline.predictor import Predictor

_WORDS_SHOWN = 40


class PredictSettings(Settings):
    """Settings of `pipeline predict`."""

    run: LocalPath = flag(help=RUN_HELP)
    files: tuple[Path, ...] = flag(positional=True, help="Video or audio files that ffmpeg reads.")
    transcript: str | None = flag(
        None, help="The words said: a text, or a file (.srt, .vtt, .ass, .csv, .TextGrid, .eaf, .json, .txt)."
    )
    tier: Names = flag((), help="Tiers of a .TextGrid or .eaf that hold the words; by default those called so.")
    segments: Segmentation = flag(
        "auto",
        help="What a file is cut into: the times of the transcript, utterances of speech, or nothing (whole). "
        "auto: the transcript's times; without them whole up to 20 s, speech (with words where they are recognised) "
        "beyond.",
    )
    max_segment_s: float = flag(15.0, ge=1, le=600, help="Utterances of speech are cut to at most so many seconds.")
    asr: str | None = flag(None, help=ASR_HELP)
    language: str | None = flag(None, help=LANGUAGE_HELP)
    out: LocalPath | None = flag(None, help="A folder for a page, a table and subtitles of each file; none by default.")
    device: Device = flag("auto", help="auto, cpu or cuda.")


def predict(
    run: Path,
    files: Sequence[Path],
    transcript: str | None,
    device: Device,
    reporter: Reporter,
    segments: Segmentation = "auto",
    max_segment_s: float = 15.0,
    out: Path | None = None,
    asr: str | None = None,
    language: str | None = None,
    tier: Sequence[str] = (),
) -> dict[str, Any]:
    """Scores of each file and of its segments, with the preprocessing and thresholds of the run.

    transcript: the words said in the one file, or the path of a transcript of them; None for no words.
    tier: the tiers of a TextGrid or eaf file that hold them; none for those called so.
    segments: `whole` takes a file as one utterance; see `PredictSettings`. max_segment_s: of those made by speech.
    out: a folder that gets the files of each film as soon as it is done; films that are done in it already, with the
    same run and settings, are not scored again. Of two films of one name the second one's files have a number.
    asr, language: see `pipeline.asr`; words are recognised where there is no transcript.
    Returns {"run", "task", "notice", "thresholds", "asr": {"model", "language", "note"}, "files": [Prediction as a
    dict, with `out` also "written"]}. A file that cannot be read has an `error`.

    Raises:
        ConfigError: a transcript for several files, one that cannot be read, or one without the times that `segments`
            needs; no such recogniser; no such run, one whose features cannot be made of a file alone, or CUDA asked for
            where there is none.
        DataError: `out` cannot be written to, or another run is at work in it.
    """
    if transcript is not None and len(files) != 1:
        raise ConfigError(f"--transcript goes with one file, {len(files)} were given; call once for each file")
    if tier and transcript is None:
        raise ConfigError(f"--tier {','.join(tier)} says where the words of --transcript stand: give that too")
    folder_of_run = RunDir.existing(run).path
    predictor = Predictor(folder_of_run, device)
    cues = cues_of(transcript, tier) if transcript else []
    recogniser = None if cues else open_recogniser(asr, language)
    about = {
        "run": str(run),
        "task": predictor.task.settings.task,
        "notice": predictor.task.facts.notice,
        "thresholds": predictor.thresholds,
        "asr": {
            "model": recogniser and recogniser.name,
            "language": recogniser and recogniser.language,
            "note": HOW_TO_GET_WORDS if recogniser is None and asr is None and not cues else None,
        },
    }
    lengths = [_whole_seconds(path) for path in files]
    answers: list[dict[str, Any]] = []

    def seconds(folder: OutFolder | None) -> Iterator[None]:
        """One item for each second of film that is done."""
        for path, length_s in zip(files, lengths, strict=True):
            done = 0
            answer = None if folder is None else folder.finished(path)
            for news in () if answer else predict_file(path, cues, segments, max_segment_s, predictor, recogniser):
                if isinstance(news, Prediction):
                    answer = news.for_json() if folder is None else folder.write(path, about, news)
                else:
                    reached = min(math.floor(news), length_s)
                    yield from repeat(None, max(0, reached - done))
                    done = max(done, reached)
            assert answer is not None
            answers.append(answer)
            yield from repeat(None, length_s - done)

    settings = [[asdict(cue) for cue in cues], segments, max_segment_s, out and recogniser and recogniser.digest]
    with nullcontext() if out is None else folder_lock(out):
        folder = None if out is None else OutFolder(out, run_state(folder_of_run), settings)
        for _ in reporter.track(seconds(folder), sum(lengths), "predict", "s of film"):
            pass
    return {**about, "files": answers}


def _whole_seconds(path: Path) -> int:
    """Seconds of a file, for the progress: at least 1, also where its header does not say."""
    try:
        return max(1, math.ceil(probe(path).duration_s))
    except DataError:
        return 1


def words_said(transcript: str) -> str:
    """The words of a transcript: the text itself, or those of a file without numbers, times and tags.

    Raises:
        ConfigError: as `cues_of`.
    """
    return words_of(cues_of(transcript))


def format_predictions(result: dict[str, Any]) -> str:
    """The result for a person: of each file a line a segment, then scores with their thresholds, what was absent."""
    lines = [note for note in (result["notice"], _about_words(**result["asr"])) if note]
    for answer in result["files"]:
        lines.append(answer["file"])
        if answer["error"]:
            lines.append(f"  error: {answer['error']}")
            continue
        if answer["cut_by"] != "whole":
            lines += [f"  {_segment_line(segment, result['task'])}" for segment in answer["segments"]]
            lines.append("  all segments, weighed by their seconds:")
        thresholds = answer["summary"]["thresholds"]
        for name, score in sorted(answer["scores"].items(), key=lambda item: -item[1]):
            threshold = f"threshold {thresholds[name]:.2f}  " if name in thresholds else ""
            mark = "yes" if name in answer["predicted"] else ""
            lines.append(f"  {name:<10} {shown_score(score, result['task'])}  {threshold}{mark}".rstrip())
        lines += [f"  {absent}" for absent in answer["absent"]]
        lines += [f"  wrote {path}" for path in answer.get("written", [])]
    return "\n".join(lines)


def _about_words(model: str | None, language: str | None, note: str | None) -> str | None:
    return note if model is None else f"words are recognised by {model}{f', as {language}' if language else ''}"


def _segment_line(segment: dict[str, Any], task: str) -> str:
    """`0:01.2 - 0:03.4  hap 0.71, exc 0.52  I am so glad you ca...`."""
    times = f"{_clock(segment['start_s'])} - {_clock(segment['end_s'])}"
    text = segment["text"]
    words = text if len(text) <= _WORDS_SHOWN else f"{text[: _WORDS_SHOWN - 3].rstrip()}..."
    return f"{times}  {predicted_scores(segment, task) or 'none'}  {words}".rstrip()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(10 * seconds), 600)
    return f"{minutes:>3}:{rest // 10:02}.{rest % 10}"


def failed(result: dict[str, Any]) -> bool:
    """True where a file got no answer."""
    return any(answer["error"] for answer in result["files"])


COMMAND = Command(
    predict,
    (PredictSettings,),
    example='pipeline predict --run runs/first film.mp4 --transcript "I am so glad you came."',
    read=fields_of(PredictSettings),
    for_people=format_predictions,
    failed=failed,
)
