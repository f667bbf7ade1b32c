"""Words of a transcript file: subtitles, a table, tiers, the JSON of a speech recogniser, or plain text."""

import html
import json
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pysubs2 import SSAFile
from pysubs2.exceptions import Pysubs2Error

from data_tools.encodings import NAME_IT, decode
from data_tools.errors import DataError
from data_tools.impostor import check_genuine
from data_tools.speech.cue_table import CUE_TABLE_SUFFIXES, table_cues
from data_tools.speech.cues import CLOCK, Cue, OtherFormError, clock_seconds, time_s
from data_tools.speech.tiers import TIER_SUFFIXES, tier_cues

# Of several beside one video the first is taken: subtitles before plain text, and tiers last, which may hold much else.
BESIDE_SUFFIXES = (".srt", ".vtt", ".ass", ".ssa", ".json", ".txt", *TIER_SUFFIXES)
# A table beside a video is mostly something else, such as measurements of the face: it is read where it is named.
TRANSCRIPT_SUFFIXES = (*BESIDE_SUFFIXES, *CUE_TABLE_SUFFIXES)
# Files of words that are not read: one of them is an error, and never taken for the words themselves.
OTHER_SUFFIXES = (
    ".sbv", ".lrc", ".ttml", ".dfxp", ".xml", ".smi", ".sub", ".stl", ".doc", ".docx", ".odt", ".rtf", ".pdf", ".md",
    ".html", ".xlsx", ".ods",
)  # fmt: skip
# A recogniser's JSON with every word of four hours has some 10 MB.
MAX_BYTES = 32 * 2**20

_LINE_END = re.compile(r"\r*\n|\r")
_TIMES = re.compile(rf"\s*{CLOCK}\s*-+>\s*{CLOCK}(?!\S)", re.ASCII)
_NOTE = re.compile(r"(NOTE|STYLE|REGION)(\s|$)")
# <i>, </i>, <v Anna>, <c.red>; not "<3" or "a < b".
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
# {\\an8}: a command of ASS, which players obey in SubRip too.
_OVERRIDE = re.compile(r"\{\\[^{}]*\}")
_DRAWING = re.compile(r"\\p[1-9]")
# The time of a word inside a cue: captions with these roll up, and show every line again in the next cue.
_WORD_TIME = re.compile(r"<\d[\d:.]*>")

# Names of one thing in the JSON of whisper, whisper.cpp, WhisperX, transformers, YouTube and other recognisers.
_LISTS = ("segments", "chunks", "transcription", "utterances", "cues", "captions", "subtitles", "events", "words")
_TEXTS = ("text", "transcript", "sentence", "utterance", "content", "word")
_STARTS = ("start", "start_s", "start_time", "begin", "from")
_ENDS = ("end", "end_s", "end_time", "stop", "to")


def read_transcript(
    path: Path,
    encoding: str | None = None,
    remedy: str = NAME_IT,
    tiers: Sequence[str] = (),
    by_name: bool = False,
) -> list[Cue]:
    """The cues of a transcript by their begins, without those that have no words.

    encoding: of a file without a byte order mark; None for UTF-8. remedy: what to do where it is another.
    tiers, by_name: which tiers of a .TextGrid or .eaf file hold the words, as for `tier_cues`.

    Raises:
        DataError: no such file, one that cannot be read, of another kind, larger than MAX_BYTES, in another encoding,
            or damaged; tiers are named of a file that has none. OtherFormError: a JSON file of another form, or no
            tier of words.
    """
    suffix = path.suffix.lower()
    if suffix not in TRANSCRIPT_SUFFIXES:
        raise DataError(f"{path} is no transcript that is read; expected one of {', '.join(TRANSCRIPT_SUFFIXES)}")
    try:
        check_genuine(path)
        content = path.read_bytes() if path.stat().st_size <= MAX_BYTES else None
    except OSError as error:
        raise DataError(f"the transcript {path} cannot be read: {error.strerror or error}") from error
    if content is None:
        raise DataError(f"{path} has more than {MAX_BYTES} bytes, the limit for a transcript: cut it up")
    if tiers and suffix not in TIER_SUFFIXES:
        raise DataError(f"{path} has no tiers, and {', '.join(tiers)!r:.100} was named; leave --tier out")
    text = "" if suffix == ".eaf" else decode(content, path, encoding, remedy)  # XML says itself how it is encoded
    if "\0" in text:
        raise DataError(f"{path} holds NUL bytes: it is UTF-16 without a mark, or no text; save it as UTF-8")
    if suffix == ".txt":
        cues = [Cue(0.0, math.inf, text)]
    elif suffix == ".json":
        cues = list(_json_cues(path, text))
    elif suffix in CUE_TABLE_SUFFIXES:
        cues = table_cues(path, encoding)
    elif suffix in TIER_SUFFIXES:
        cues = tier_cues(path, content, text, tiers, by_name)
    else:
        cues = _subtitles(path, text, suffix)
    spoken = [replace(cue, text=" ".join(cue.text.split())) for cue in cues]
    return sorted((cue for cue in spoken if cue.text), key=lambda cue: cue.start_s)


def words_of(cues: Iterable[Cue]) -> str:
    """The words of all cues in one line."""
    return " ".join(cue.text for cue in cues)


def looks_like_a_file(value: str) -> bool:
    """Return True if `value` is meant as the path of a transcript: by its ending, or a slash in it and no blanks."""
    has_ending = Path(value).suffix.lower() in (*TRANSCRIPT_SUFFIXES, *OTHER_SUFFIXES)
    return has_ending or (("/" in value or "\\" in value) and not any(map(str.isspace, value)))


def _subtitles(path: Path, text: str, suffix: str) -> list[Cue]:
    cues = _ass_cues(path, text, suffix) if suffix in (".ass", ".ssa") else _loose_cues(text, suffix == ".vtt")
    # A head alone is what recognisers write of silence.
    has_head = suffix != ".srt" and text.lstrip().startswith(("WEBVTT", "[")) and "-->" not in text
    if not cues and text.strip() and not has_head:
        raise DataError(f"{path} has no line of times and words: it is no {suffix} file; give plain text as .txt")
    return cues


def _ass_cues(path: Path, text: str, suffix: str) -> list[Cue]:
    # The library takes quadratic time for braces that nothing closes, and for asking whether an event is a drawing.
    lines = (line.rpartition("}") for line in text.split("\n"))
    closed = "\n".join(head + brace + tail.replace("{", "") for head, brace, tail in lines)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about fonts and colours
            events = SSAFile.from_string(closed, format_=suffix[1:]).events
    except (Pysubs2Error, ValueError, KeyError, IndexError, TypeError, OverflowError) as error:
        raise DataError(f"{path} is a damaged {suffix} file ({error}); save it again") from error
    spoken = (event for event in events if not event.is_comment and not _DRAWING.search(event.text))
    cues = (Cue(event.start / 1000, event.end / 1000, event.plaintext) for event in spoken)
    return list(dict.fromkeys(cues))  # layers of one subtitle, drawn over each other


def _loose_cues(text: str, is_vtt: bool) -> list[Cue]:
    """The cues of SubRip and WebVTT as people's programs write them.

    There may be no numbers, no blank lines, times as mm:ss, and in WebVTT a head, names of cues and notes. Libraries
    lose the text in some of these, and numbers and times that are said.
    """
    lines = _LINE_END.split(text)
    times = [(number, found) for number, line in enumerate(lines) if (found := _TIMES.match(line))]
    above_first = lines[times[0][0] - 1] if times and times[0][0] else ""
    numbered = above_first.strip().isdecimal()
    ends = [number for number, _ in times[1:]] + [len(lines)]
    rolls_up = is_vtt and _WORD_TIME.search(text) is not None
    shown: list[str] = []
    cues = []
    for (number, found), end in zip(times, ends, strict=False):
        body = lines[number + 1 : end]
        # The line right above the next times: its number, or in WebVTT any name after a blank line.
        is_number = numbered and end < len(lines) and bool(body) and body[-1].strip().isdecimal()
        is_name = is_vtt and end < len(lines) and len(body) > 1 and not body[-2].strip()
        said = [_said_in(line) for line in _paragraphs(body[:-1] if is_number or is_name else body, is_vtt)]
        said = [line for line in said if line]
        again = _overlap(shown, said) if rolls_up else 0
        shown = said
        cues.append(Cue(clock_seconds(found.groups()[:4]), clock_seconds(found.groups()[4:]), " ".join(said[again:])))
    return cues


def _said_in(line: str) -> str:
    """Return the words in a line of SubRip or WebVTT."""
    for markup in (_WORD_TIME, _OVERRIDE, _TAG):
        line = markup.sub("", line)
    return " ".join(html.unescape(line).split())


def _overlap(before: Sequence[str], lines: Sequence[str]) -> int:
    """The number of lines that repeat the last ones `before`."""
    return max(k for k in range(min(len(before), len(lines)) + 1) if lines[:k] == before[len(before) - k :])


def _paragraphs(lines: Sequence[str], is_vtt: bool) -> Iterator[str]:
    """The lines that hold text; not those of a note of WebVTT, which begins after a blank line and ends at one."""
    in_note = after_blank = False
    for line in lines:
        blank = not line.strip()
        in_note = not blank and (in_note or (is_vtt and after_blank and _NOTE.match(line) is not None))
        after_blank = blank
        if not blank and not in_note:
            yield line


def _json_cues(path: Path, text: str) -> Iterator[Cue]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    entries = value if isinstance(value, list) else [value]
    if isinstance(value, dict):
        lists = [value[name] for name in _LISTS if isinstance(value.get(name), list)]
        entries = next(filter(None, lists), [] if lists and _said(value) is None else [value])
    said = [(entry, words) for entry in entries if (words := _said(entry)) is not None]
    yield from (Cue(*_interval(entry), words) for entry, words in said)
    if entries and not said:
        raise OtherFormError(
            f'{path} is JSON of another form; expected {{"text": ...}}, or a list of objects with text, start and end, '
            f"alone or called {', '.join(_LISTS)}"
        )


def _said(entry: Any) -> str | None:
    """The words of one entry; None where it has none."""
    if not isinstance(entry, dict):
        return None
    if isinstance(entry.get("segs"), list):  # YouTube's
        parts = [part.get("utf8") for part in entry["segs"] if isinstance(part, dict)]
        return "".join(part for part in parts if isinstance(part, str))
    return next((entry[name] for name in _TEXTS if isinstance(entry.get(name), str)), None)


def _interval(entry: Mapping[str, Any]) -> tuple[float, float]:
    """Begin and end of an entry in seconds; 0 and infinity for those that it does not state."""
    start, end = (next((entry[name] for name in names if name in entry), None) for names in (_STARTS, _ENDS))
    scale = 1.0
    if isinstance(entry.get("timestamp"), list) and len(entry["timestamp"]) == 2:  # transformers'
        start, end = entry["timestamp"]
    elif isinstance(entry.get("offsets"), dict):  # whisper.cpp's, in milliseconds
        start, end, scale = entry["offsets"].get("from"), entry["offsets"].get("to"), 0.001
    elif "tStartMs" in entry:  # YouTube's
        start, scale = entry["tStartMs"], 0.001
    start_s = time_s(start, scale)
    end_s = time_s(end, scale)
    length_s = time_s(entry.get("dDurationMs", entry.get("duration")), scale)
    begin_s = 0.0 if start_s is None else start_s
    if end_s is None:
        end_s = math.inf if length_s is None else begin_s + length_s
    return begin_s, end_s
