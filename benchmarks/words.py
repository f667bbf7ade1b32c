"""Recognised words and turns beside those that people wrote down."""

import re
from collections.abc import Iterable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.cases import device_name
from benchmarks.rows import measured_on, write_result
from data_tools.errors import DataError
from data_tools.media.audio import read_audio, read_intervals
from data_tools.sequences.align import Word
from data_tools.speech.activity import Activity, voice_activity
from data_tools.speech.recognition import Recogniser
from data_tools.speech.segments import Segment, joined, utterances, worded_utterances
from pipeline.progress import Reporter

# As Debian's package pocketsphinx-testdata puts it.
SENTENCES = Path("/usr/share/pocketsphinx/test/data/librivox")
NEAR_S = 0.5
MAX_SEGMENT_S = 15.0
_SENTENCE = re.compile(r"(?:<s>)?(.*?)(?:</s>)?\s*\((\S+)\)\s*")
_SAME = {"mr": "mister", "mrs": "missus", "okay": "ok"}


def words(sentences: Path, talk: Path | None, out: Path, reporter: Reporter) -> dict[str, Any]:
    """Measure the packaged recogniser; write words.json and words.md to `out`.

    sentences: folder of wavs and `transcription`, lines `text (name of wav)`. talk: folder of one wav and its turns
    beside it as .stm.

    Raises:
        DataError: a file is missing or of another form, or nothing can be written.
    """
    recogniser = Recogniser()
    rows = [_sentence_row(sentences, recogniser)]
    if talk is not None:
        wav, turns = _only(talk, "*.wav"), read_stm(_only(talk, "*.stm"))
        activity, heard = _heard(wav, recogniser)
        rows.append(_error_row("words of a telephone talk", [said for _, _, said in turns], [joined(heard)]))
        for how, segments in {
            "voice activity alone": utterances(activity, MAX_SEGMENT_S)[0],
            "words and pauses": worded_utterances(activity, heard, MAX_SEGMENT_S)[0],
        }.items():
            rows.append(_turn_row(how, turns, segments))
    about = measured_on(device_name("cpu"))
    about["versions"] |= {name: version(name) for name in ("faster-whisper", "ctranslate2", "silero-vad")}
    rows = [row | {"model": recogniser.name} | about for row in rows]
    files = write_result(out, "words", rows, as_markdown(rows))
    reporter.say(f"written: {', '.join(map(str, files))}")
    return {"rows": rows, "files": [str(path) for path in files]}


def read_stm(path: Path) -> list[tuple[float, float, str]]:
    """(begin, end, words) of each turn: lines `file channel speaker begin end words`.

    Raises:
        DataError: a line of another form.
    """
    turns = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            _, _, _, start_s, end_s, said = line.split(maxsplit=5)
            turns.append((float(start_s), float(end_s), said))
        except ValueError:
            raise DataError(f"{path}: {line[:60]!r} is no line of file, channel, speaker, begin, end, words") from None
    return turns


def share_near(times: Sequence[float], found: Iterable[float]) -> float:
    """Share of `times` that lie within NEAR_S of one of `found`, each of which counts once."""
    left, near = sorted(found), 0
    for time_s in times:
        closest = min(left, key=lambda other: abs(other - time_s), default=float("inf"))
        if abs(closest - time_s) <= NEAR_S:
            left.remove(closest)
            near += 1
    return near / len(times)


def plain(text: str) -> str:
    """Words in lower case, without marks; a hyphen is a blank, `Mr.` is mister and `Okay` ok."""
    found = re.findall(r"[a-z0-9']+", text.lower().replace("’", "'"))
    return " ".join(_SAME.get(word, word) for word in found)


def _sentence_row(folder: Path, recogniser: Recogniser) -> dict[str, Any]:
    texts, heard = [], []
    try:
        lines = (folder / "transcription").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{folder} has no sentences ({error}); apt-get install pocketsphinx-testdata") from error
    for text, name in (match.groups() for match in map(_SENTENCE.fullmatch, lines) if match):
        texts.append(text)
        heard.append(joined(_heard(folder / f"{name}.wav", recogniser)[1]))
    return _error_row("words of five sentences read aloud (LibriVox)", texts, heard)


def _error_row(work: str, texts: Sequence[str], heard: Sequence[str]) -> dict[str, Any]:
    import jiwer  # in the extra `dev`

    error = jiwer.process_words(plain(" ".join(texts)), plain(" ".join(heard)))
    counts = {name: getattr(error, name) for name in ("substitutions", "deletions", "insertions")}
    words_said = error.hits + error.substitutions + error.deletions
    return {"work": work, "words": words_said, "word_error_rate": round(error.wer, 4)} | counts


def _turn_row(how: str, turns: Sequence[tuple[float, float, str]], segments: Sequence[Segment]) -> dict[str, Any]:
    begins = share_near([turn[0] for turn in turns], [segment.start_s for segment in segments])
    ends = share_near([turn[1] for turn in turns], [segment.end_s for segment in segments])
    return {
        "work": f"turns by {how}",
        "turns": len(turns),
        "segments": len(segments),
        "begins_found": round(begins, 4),
        "ends_found": round(ends, 4),
    }


def _heard(wav: Path, recogniser: Recogniser) -> tuple[Activity, list[Word]]:
    activity = voice_activity([read_audio(wav)])
    return activity, [word for _, some in recogniser.words(activity, partial(read_intervals, wav)) for word in some]


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise DataError(f"{folder} has {len(found)} files {pattern}, expected one: give a wav with its turns as .stm")
    return found[0]


def as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Page of words.json."""
    first = rows[0]
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    lines = [
        "# Recognised words",
        "",
        "Written by `python -m benchmarks words`; rows in words.json.",
        "",
        f"{first['date']}, Whisper {first['model']}, {first['device']}, {versions}. Words are compared in lower case "
        "without marks.",
        "",
        "| words of | said | wrong | left out | made up | word error rate |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['work'].removeprefix('words of ')} | {row['words']} | {row['substitutions']} | {row['deletions']} "
        f"| {row['insertions']} | {row['word_error_rate']:.1%} |"
        for row in rows
        if "words" in row
    ]
    turns = [row for row in rows if "turns" in row]
    if turns:
        lines += [
            "",
            f"Begins and ends of turns within {NEAR_S:g} s of one of a segment, each of which counts once:",
            "",
        ]
        lines += ["| segments by | turns | segments | begins found | ends found |", "|---|---:|---:|---:|---:|"]
        lines += [
            f"| {row['work'].removeprefix('turns by ')} | {row['turns']} | {row['segments']} "
            f"| {row['begins_found']:.0%} | {row['ends_found']:.0%} |"
            for row in turns
        ]
    return "\n".join(lines) + "\n"
