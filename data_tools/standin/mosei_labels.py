"""The six annotator tables of CMU-MOSEI: results of a crowd-working site, one row an annotator."""

import csv
import random
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

from data_tools.files import atomic_path
from data_tools.standin.record import Truth

FILES = (
    "5000_batch_raw.csv",
    "Batch_2980374_batch_results.csv",
    "extreme_sentiment_results.csv",
    "mosi_pom_output.csv",
    "mturk_extra_v2.csv",
    "pom_extra_sqa_mono_results.csv",
)
_PREFIXED_FILE, _PREFIX = "pom_extra_sqa_mono_results.csv", "mono_clips/"
_ANNOTATORS = 3
# Positions as in the real tables: WorkerId is column 15, the video 27, the clip 28, anger 29, sentiment 38,
# surprise 39. Columns 32 and 35 to 37 are invented fillers.
_COLUMNS = (
    *("HITId", "HITTypeId", "Title", "Description", "Keywords", "Reward", "CreationTime", "MaxAssignments"),
    *("RequesterAnnotation", "AssignmentDurationInSeconds", "AutoApprovalDelayInSeconds", "Expiration"),
    *("NumberOfSimilarHITs", "LifetimeInSeconds", "AssignmentId", "WorkerId", "AssignmentStatus", "AcceptTime"),
    *("SubmitTime", "AutoApprovalTime", "ApprovalTime", "RejectionTime", "RequesterFeedback", "WorkTimeInSeconds"),
    *("LifetimeApprovalRate", "Last30DaysApprovalRate", "Last7DaysApprovalRate", "Input.VIDEO_ID", "Input.CLIP"),
    *("Answer.anger", "Answer.disgust", "Answer.fear", "Answer.gender", "Answer.happiness", "Answer.sadness"),
    *("Answer.screen_1", "Answer.screen_2", "Answer.screen_3", "Answer.sentiment", "Answer.surprise"),
    *("Approve", "Reject"),
)
_EMOTIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
_SENTIMENT = {"happiness": 2, "surprise": 0, "anger": -2, "disgust": -2, "fear": -1, "sadness": -1}


def write_label_files(folder: Path, truths: Sequence[Truth], seed: int) -> None:
    """All six files, each with the rows of the videos that fall to it; a file without videos holds its header."""
    videos = sorted({truth.utterance_id.rpartition("_")[0] for truth in truths})
    file_of = {video: FILES[place % len(FILES)] for place, video in enumerate(videos)}
    for name in FILES:
        own = [truth for truth in truths if file_of[truth.utterance_id.rpartition("_")[0]] == name]
        with atomic_path(folder / name) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, _COLUMNS, restval="", lineterminator="\r\n")
            table.writeheader()
            for truth in own:
                table.writerows(_rows(truth, _PREFIX if name == _PREFIXED_FILE else "", seed))


def _rows(truth: Truth, prefix: str, seed: int) -> list[dict[str, str]]:
    rng = random.Random(f"labels {seed} {truth.utterance_id}")
    video, _, clip = truth.utterance_id.rpartition("_")
    ratings = {emotion: _ratings(emotion in truth.label, rng) for emotion in _EMOTIONS}
    leaning = sum(_SENTIMENT[emotion] for emotion in truth.label) / max(1, len(truth.label))
    return [
        {
            "HITId": f"3STANDIN{crc32(truth.utterance_id.encode()):08X}",
            "Title": "Rate the emotions of a speaker",
            "MaxAssignments": str(_ANNOTATORS),
            "WorkerId": f"A{rng.randrange(36**6):09d}",
            "AssignmentStatus": "Approved",
            "WorkTimeInSeconds": str(rng.randint(15, 90)),
            "Input.VIDEO_ID": prefix + video,
            "Input.CLIP": clip,
            "Answer.sentiment": str(min(3, max(-3, round(leaning) + rng.choice((-1, 0, 0, 1))))),
            **{f"Answer.{emotion}": str(values[annotator]) for emotion, values in ratings.items()},
        }
        for annotator in range(_ANNOTATORS)
    ]


def _ratings(present: bool, rng: random.Random) -> list[int]:
    """Each annotator's 0 to 3; an emotion counts as present where any of them says more than 0."""
    if not present:
        return [0] * _ANNOTATORS
    return [rng.randint(1, 3)] + [rng.randint(0, 3) for _ in range(_ANNOTATORS - 1)]
