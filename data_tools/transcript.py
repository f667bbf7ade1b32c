"""The words of a transcript file: plain text, or subtitles (SubRip) without their numbers and times."""

import re

_SRT_TIME = re.compile(r"^\s*\d+:\d\d:\d\d[,.]\d+\s*-->")


def spoken_words(text: str, is_srt: bool) -> str:
    """`text` in one line, without tags like <i>; of subtitles only what is said."""
    lines = text.splitlines()
    if is_srt:
        times = {number for number, line in enumerate(lines) if _SRT_TIME.match(line)}
        # A cue is its number, its times, its text: the line before a time is its number.
        lines = [line for number, line in enumerate(lines) if number not in times and number + 1 not in times]
    return re.sub(r"<[^>]*>", "", " ".join(line.strip() for line in lines if line.strip()))
