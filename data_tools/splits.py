"""Who learns and who is tested: every split protocol by name, with its leaks said out loud."""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Literal

from data_tools.corpora.release import STAGE, read_lines, visible
from data_tools.errors import DataError
from data_tools.manifest import Reject, Utterance

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
SPECS = "random, random:utterance, release, session:K, speaker:ID, lists:FOLDER"

_RANDOM_SHARES: dict[Split, float] = {"train": 0.7, "valid": 0.1, "test": 0.2}
_VALID_OF_REST: dict[Split, float] = {"train": 0.8, "valid": 0.2}
_FILE_WORDS: dict[str, Split] = {
    "train": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "dev": "valid",
    "test": "test",
}
# Lists that papers report on, by their numbers of ids.
_PUBLISHED = {
    (5162, 737, 1481): "the six-class IEMOCAP lists of the MESM paper (all actors and dialogues are in train too)",
    (14524, 1765, 4188): "the CMU-MOSEI lists of the MESM paper",
    (2249, 300, 678): "the CMU-MOSEI standard folds (video ids)",
}


@dataclass(frozen=True)
class SplitResult:
    """by_id: split of each utterance that has one. rejects: the others. notes: what to know about this split."""

    by_id: dict[str, Split]
    rejects: list[Reject] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def assign_splits(utterances: Sequence[Utterance], spec: str, seed: int) -> SplitResult:
    """Put every utterance into train, valid or test; the same arguments give the same answer on every machine.

    spec:
        random: 70/10/20 % of the utterances, whole dialogues at a time, so that no dialogue is shared.
        random:utterance: 70/10/20 % of single utterances, as in the MESM paper; dialogues and speakers are shared.
        release: the split that the release itself states for each utterance.
        session:K: test is session K; valid is 20 % of the other sessions, whole dialogues at a time.
        speaker:ID: test is this speaker; valid is the partner of the same session, else 20 % of the rest.
        lists:FOLDER: text files of utterance, dialogue or video ids, one a line, named by train, valid and test.

    Raises:
        DataError: unknown spec, session or speaker; a release that states no split; lists that are missing, empty
            or contradict each other.
    """
    kind, _, value = spec.partition(":")
    if spec == "random":
        result = _random(utterances, seed, lambda utterance: utterance.dialogue_id)
    elif spec == "random:utterance":
        result = _random(utterances, seed, lambda utterance: utterance.utterance_id)
    elif spec == "release":
        result = _by_release(utterances)
    elif kind == "session" and value:
        result = _by_session(utterances, value, seed)
    elif kind == "speaker" and value:
        result = _by_speaker(utterances, value, seed)
    elif kind == "lists" and value:
        result = _by_lists(utterances, Path(value))
    else:
        raise DataError(f"split is {spec!r}; expected one of {SPECS}")
    result.notes.extend(_leaks(utterances, result.by_id))
    return result


def shared_between(groups: Mapping[str, str], by_id: Mapping[str, Split]) -> dict[str, int]:
    """Groups (speakers, dialogues) with utterances in both of two splits, counted by "train/test" and so on.

    groups: utterance id -> group. by_id: utterance id -> split.
    """
    members: dict[Split, set[str]] = {split: set() for split in SPLITS}
    for utterance_id, split in by_id.items():
        members[split].add(groups[utterance_id])
    return {f"{one}/{other}": len(members[one] & members[other]) for one, other in combinations(SPLITS, 2)}


def _random(utterances: Sequence[Utterance], seed: int, unit: Callable[[Utterance], str]) -> SplitResult:
    return SplitResult(_allocate(utterances, _RANDOM_SHARES, seed, unit))


def _by_release(utterances: Sequence[Utterance]) -> SplitResult:
    by_id: dict[str, Split] = {u.utterance_id: u.fold for u in utterances if u.fold}
    if utterances and not by_id:
        raise DataError(f"split release: this release states no split of its own; choose another: {SPECS}")
    detail = "the release states no split for it"
    rejects = [
        Reject(u.utterance_id, u.source_video, STAGE, "split:not_listed", detail) for u in utterances if not u.fold
    ]
    return SplitResult(by_id, rejects)


def _by_session(utterances: Sequence[Utterance], session: str, seed: int) -> SplitResult:
    known = sorted({utterance.session for utterance in utterances} - {""})
    if session not in known:
        listed = ", ".join(known) or "none: this corpus has no sessions"
        raise DataError(f"split session:{session}: no utterance of that session; sessions: {listed}")
    rest = [utterance for utterance in utterances if utterance.session != session]
    test: dict[str, Split] = {u.utterance_id: "test" for u in utterances if u.session == session}
    note = f"test is session {session}; valid is 20 % of the other sessions' dialogues, drawn with seed {seed}"
    return SplitResult(test | _rest(rest, seed), notes=[note])


def _by_speaker(utterances: Sequence[Utterance], speaker: str, seed: int) -> SplitResult:
    tested = [utterance for utterance in utterances if utterance.speaker == speaker]
    if not tested:
        known = sorted({utterance.speaker for utterance in utterances})
        listed = ", ".join(known[:12]) + (" ..." if len(known) > 12 else "")
        raise DataError(f"split speaker:{speaker}: no utterance of that speaker; speakers: {listed}")
    by_id: dict[str, Split] = {utterance.utterance_id: "test" for utterance in tested}
    sessions = {utterance.session for utterance in tested} - {""}
    rest = [utterance for utterance in utterances if utterance.speaker != speaker]
    partners = [utterance for utterance in rest if utterance.session in sessions]
    if partners:
        by_id |= {u.utterance_id: "valid" if u.session in sessions else "train" for u in rest}
        note = f"test is speaker {speaker}; valid is the partner of the same session; train the other sessions"
    else:
        by_id |= _rest(rest, seed)
        note = f"test is speaker {speaker}; valid is 20 % of the other dialogues, drawn with seed {seed}"
    return SplitResult(by_id, notes=[note])


def _rest(utterances: Sequence[Utterance], seed: int) -> dict[str, Split]:
    return _allocate(utterances, _VALID_OF_REST, seed, lambda utterance: utterance.dialogue_id)


def _allocate(
    utterances: Sequence[Utterance], shares: Mapping[Split, float], seed: int, unit: Callable[[Utterance], str]
) -> dict[str, Split]:
    """Units in a drawn order, each to the split that lacks most; no split stays empty where the units suffice."""
    members: dict[str, list[str]] = defaultdict(list)
    for utterance in utterances:
        members[unit(utterance)].append(utterance.utterance_id)
    order = sorted(members)
    random.Random(seed).shuffle(order)
    lacking = {split: share * len(utterances) for split, share in shares.items()}
    chosen: dict[Split, list[str]] = {split: [] for split in shares}
    for name in order:
        split = max(lacking, key=lambda candidate: lacking[candidate])
        chosen[split].append(name)
        lacking[split] -= len(members[name])
    for names in chosen.values():
        richest = max(chosen.values(), key=len)
        if not names and len(richest) > 1:
            smallest = min(richest, key=lambda name: len(members[name]))
            richest.remove(smallest)
            names.append(smallest)
    return {utterance_id: split for split, names in chosen.items() for name in names for utterance_id in members[name]}


def _by_lists(utterances: Sequence[Utterance], folder: Path) -> SplitResult:
    listed = _read_lists(folder)
    split_of = {name: split for split, names in listed.items() for name in names}
    by_id: dict[str, Split] = {}
    rejects = []
    for utterance in utterances:
        # An utterance's own id is more exact than that of its dialogue or video.
        split = split_of.get(utterance.utterance_id) or split_of.get(utterance.dialogue_id)
        if split:
            by_id[utterance.utterance_id] = split
        else:
            detail = f"neither it nor {utterance.dialogue_id} is in the lists of {folder.name}/"
            rejects.append(Reject(utterance.utterance_id, utterance.source_video, STAGE, "split:not_listed", detail))
    known = {u.utterance_id for u in utterances} | {u.dialogue_id for u in utterances}
    notes = [_list_note(split, names, known) for split, names in listed.items()]
    if rejects:
        notes.append(f"{len(rejects)} utterances are in no list and are left out (reason split:not_listed)")
    published = _PUBLISHED.get((len(listed["train"]), len(listed["valid"]), len(listed["test"])))
    if published:
        notes.append(f"by their numbers of ids these are {published}")
    return SplitResult(by_id, rejects, notes)


def _read_lists(folder: Path) -> dict[Split, list[str]]:
    if not folder.is_dir():
        raise DataError(f"split lists:{folder}: no such folder; expected one with train, valid and test .txt files")
    listed: dict[Split, list[str]] = {}
    for path in visible(folder, ".txt").values():
        splits = {_FILE_WORDS[word] for word in re.split(r"[^a-z]+", path.stem.lower()) if word in _FILE_WORDS}
        if len(splits) != 1:
            continue
        split = splits.pop()
        if split in listed:
            raise DataError(f"split lists:{folder}: {path.name} is a second list for {split}; keep one")
        listed[split] = _read_list(path)
    missing = [split for split in SPLITS if split not in listed]
    if missing:
        raise DataError(f"split lists:{folder}: no .txt file named by {' or '.join(missing)}, e.g. {missing[0]}.txt")
    twice = [name for name, count in Counter(n for names in listed.values() for n in names).items() if count > 1]
    if twice:
        raise DataError(f"split lists:{folder}: {len(twice)} ids are in two lists, e.g. {', '.join(twice[:3])}")
    return {split: listed[split] for split in SPLITS}


def _read_list(path: Path) -> list[str]:
    try:
        names = list(dict.fromkeys(line.strip() for line in read_lines(path) if line.strip()))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if not names:
        raise DataError(f"{path} is empty; expected one id a line")
    return names


def _list_note(split: Split, names: Sequence[str], known: set[str]) -> str:
    absent = [name for name in names if name not in known]
    example = f", e.g. {absent[0]}" if absent else ""
    return f"{split} list: {len(names)} ids, {len(absent)} of them not in the data{example}"


def _leaks(utterances: Sequence[Utterance], by_id: Mapping[str, Split]) -> list[str]:
    """One sentence for each kind of group that train and test share, and one for each empty split."""
    notes = []
    for kind in ("speaker", "dialogue_id"):
        groups = {utterance.utterance_id: getattr(utterance, kind) for utterance in utterances}
        tested = {groups[utterance_id] for utterance_id, split in by_id.items() if split == "test"}
        shared = shared_between(groups, by_id)["train/test"]
        if shared:
            name = kind.removesuffix("_id") + "s"
            notes.append(f"{shared} of the {len(tested)} {name} in test are in train too")
    counts = Counter(by_id.values())
    empty = [split for split in SPLITS if not counts[split]]
    if utterances and empty:
        notes.append(f"no utterance is in {' or '.join(empty)}: the data are too few for this split")
    return notes
