"""Both stand-in releases as a whole: bytes, noise, what they say of themselves, and errors."""

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from data_tools.errors import DataError
from data_tools.standin import iemocap, mosei
from data_tools.standin.cues import MODALITIES, drawn_misleading
from data_tools.standin.release import write_standin


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(params=["iemocap", "mosei"])
def made(request):
    return request.getfixturevalue(f"standin_{request.param}")


def made_again(made, out):
    """The same release once more, by two processes of a fresh interpreter; the fixture was made by this one."""
    code = (
        "import json, sys; from pathlib import Path; from data_tools.standin.release import write_standin\n"
        "settings = json.loads(sys.argv[2])\n"
        "print(json.dumps(write_standin(settings.pop('dataset'), Path(sys.argv[1]), workers=2, **settings)))"
    )
    settings = {name: made.summary["settings"][name] for name in ("dataset", "utterances", "seed")}
    run = subprocess.run(
        [sys.executable, "-c", code, str(out), json.dumps(settings)], check=True, capture_output=True, text=True
    )
    again = json.loads(run.stdout)
    assert {**made.summary, "folder": ""} == {**again, "folder": ""}
    return Path(again["folder"])


@pytest.mark.slow
def test_same_seed_gives_the_same_bytes_with_one_or_two_processes(standin_mosei, tmp_path):
    """That of IEMOCAP is held by the test that kills its making."""
    assert hashes(standin_mosei.folder) == hashes(made_again(standin_mosei, tmp_path))


def test_nothing_half_made_is_left_beside_it(made):
    assert [path.name for path in made.folder.parent.iterdir() if path.is_dir()] == [made.folder.name]
    assert not list(made.folder.rglob("*.tmp*"))


def test_it_says_what_it_is(made):
    note = (made.folder / "STANDIN.txt").read_text()
    assert note.startswith("STAND-IN")
    assert "no score on it means anything about people" in note.replace("\n", " ")


def test_progress_wraps_every_video(made):
    assert made.tracked == [(made.summary["dialogues"], "stand-in", "videos")] * made.summary["dialogues"]


def test_a_complete_one_is_left_as_it_is_and_others_are_refused(made):
    before = {path: path.stat().st_mtime_ns for path in made.folder.rglob("*")}
    settings = {name: made.summary["settings"][name] for name in ("dataset", "utterances", "seed")}
    assert write_standin(out=made.folder.parent, **settings) == made.summary
    with pytest.raises(DataError, match="delete it or choose another"):
        write_standin(out=made.folder.parent, **{**settings, "seed": 99})
    assert {path: path.stat().st_mtime_ns for path in made.folder.rglob("*")} == before


def test_summary_counts_what_the_truth_table_lists(made):
    rows = list(csv.DictReader((made.folder / "STANDIN.csv").open()))
    asked = made.summary["settings"]["utterances"]
    assert made.summary["utterances"] == asked
    assert len([row for row in rows if row["label"] not in ("xxx", "oth")]) == asked
    assert made.summary["labels"] == dict(Counter(emotion for row in rows for emotion in row["label"].split("+")))
    videos = [path for path in made.folder.rglob("*") if path.suffix in (".avi", ".mp4") and path.name[:2] != "._"]
    assert made.summary["dialogues"] == len(videos)


def test_another_seed_says_other_things():
    plans = [iemocap.plan(30, seed, 0.25) for seed in (0, 1)]
    spoken = [[line.spoken for plan in dialogues for line in plan.lines] for dialogues in plans]
    assert spoken[0] != spoken[1]


def shown(corpus, noise: float) -> tuple[dict[str, float], float]:
    """Share of utterances in which each modality shows the label, and in which the majority of them does."""
    if corpus is iemocap:
        lines = [
            line for plan in iemocap.plan(240, 0, noise) for line in plan.lines if line.label in iemocap.SIX_CLASSES
        ]
        pairs = [((line.label,), line.cues) for line in lines]
    else:
        segments = [part for plan in mosei.plan(240, 0, noise) for part in plan.segments if part.labelled]
        pairs = [(part.label, part.cues) for part in segments]
    assert len(pairs) == 240
    alone = {name: sum(getattr(cues, name) == label for label, cues in pairs) / 240 for name in MODALITIES}
    return alone, sum(cues.majority() == label for label, cues in pairs) / 240


@pytest.mark.parametrize("corpus", [iemocap, mosei])
def test_three_modalities_together_beat_each_alone(corpus):
    alone, together = shown(corpus, 0.25)
    assert all(abs(share - 0.75) < 0.04 for share in alone.values())
    assert together > max(alone.values()) + 0.04


def test_noise_zero_makes_every_modality_right_and_more_noise_makes_them_worse():
    assert shown(iemocap, 0.0) == ({"text": 1.0, "audio": 1.0, "video": 1.0}, 1.0)
    assert max(shown(iemocap, 0.6)[0].values()) < 0.5


def test_modalities_mislead_independently_of_each_other():
    import random

    misled = drawn_misleading(20_000, 0.25, random.Random(0))
    sizes = Counter(len(modalities) for modalities in misled)
    expected = {0: 0.75**3, 1: 3 * 0.25 * 0.75**2, 2: 3 * 0.25**2 * 0.75, 3: 0.25**3}
    for size, share in expected.items():
        assert sizes[size] / 20_000 == pytest.approx(share, abs=0.01)


def test_classes_sessions_and_speakers_are_balanced():
    lines = [
        (plan.session, line.speaker, line.label)
        for plan in iemocap.plan(240, 0, 0.25)
        for line in plan.lines
        if line.label in iemocap.SIX_CLASSES
    ]
    assert set(Counter(lines).values()) == {4}
    assert len(set(lines)) == 5 * 2 * 6


def test_marker_wearer_is_the_speaker_in_about_half_of_the_turns():
    same = [line.speaker == plan.marker for plan in iemocap.plan(240, 0, 0.25) for line in plan.lines]
    assert 0.4 < sum(same) / len(same) < 0.6


def test_two_or_more_dialogues_a_session_and_the_odd_names_early():
    small, large = iemocap.plan(20, 0, 0.25), iemocap.plan(240, 0, 0.25)
    assert Counter(plan.session for plan in small) == dict.fromkeys(range(1, 6), 2)
    assert Counter(plan.session for plan in large) == dict.fromkeys(range(1, 6), 4)
    assert {"Ses03M_impro05a", "Ses05M_script01_1b", "Ses05M_script01_1"} <= {plan.name for plan in large}


@pytest.mark.parametrize("utterances", [6, 7, 11, 31, 1000])
def test_any_number_of_utterances_is_met_exactly(utterances):
    lines = [line for plan in iemocap.plan(utterances, 1, 0.25) for line in plan.lines]
    assert sum(line.label in iemocap.SIX_CLASSES for line in lines) == utterances
    assert {line.label for line in lines} >= set(iemocap.SIX_CLASSES)
    segments = [part for plan in mosei.plan(utterances, 1, 0.25) for part in plan.segments]
    assert sum(part.labelled for part in segments) == utterances


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"utterances": 5}, "utterances is 5, expected at least 6"),
        ({"utterances": 100_001}, "utterances is 100001"),
        ({"seed": -1}, "seed is -1, expected 0 or more"),
        ({"noise": 1.0}, r"noise is 1.0, expected a probability in \[0, 1\)"),
        ({"noise": -0.1}, "noise is -0.1"),
        ({"noise": float("nan")}, "noise is nan"),
        ({"workers": 0}, "workers is 0"),
        ({"dataset": "meld"}, "dataset is 'meld', expected one of iemocap, mosei"),
    ],
)
def test_settings_out_of_range_are_named(tmp_path, settings, message):
    with pytest.raises(DataError, match=message):
        write_standin(**{"dataset": "iemocap", "out": tmp_path / "out", **settings})
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_way_of_the_target_is_an_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataError, match="file"):
        write_standin("iemocap", tmp_path / "file" / "below", utterances=6)


def test_a_real_release_is_never_written_into(tmp_path):
    release = tmp_path / iemocap.FOLDER
    release.mkdir()
    (release / "README.txt").write_text("the real one")
    with pytest.raises(DataError, match="is no stand-in; it is left alone"):
        write_standin("iemocap", tmp_path, utterances=6)
    assert [path.name for path in release.iterdir()] == ["README.txt"]


def test_a_failure_half_way_leaves_nothing_and_the_next_run_is_whole(tmp_path, monkeypatch):
    def full_disk(*_args, **_kwargs):
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patched:
        patched.setattr("data_tools.standin.mosei.write_video", full_disk)
        with pytest.raises(DataError, match="No space left"):
            write_standin("mosei", tmp_path, utterances=6, seed=3, workers=1)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
    (tmp_path / f".{mosei.FOLDER}.0a1b.partial").mkdir()
    (tmp_path / f".{mosei.FOLDER}.0a1b.partial" / "left by a killed run").touch()
    folder = Path(write_standin("mosei", tmp_path, utterances=6, seed=3, workers=1)["folder"])
    assert (folder / "STANDIN.json").is_file()
    assert not (folder / "left by a killed run").exists()
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [mosei.FOLDER]


KILLED = """
import os, signal, sys, time
from pathlib import Path
from data_tools.standin import release
from data_tools.standin.release import write_standin

class Told:
    # Says the id of each worker as it starts, and then lets the real one start.
    def __call__(self):
        print(os.getpid(), flush=True)
        start()

start = release._start_worker

def track(items, total, label, unit):
    for item in items:
        while len(Path(sys.argv[2]).read_text().splitlines()) < 2:
            time.sleep(0.02)  # until both workers are there
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    release._start_worker = Told()
    write_standin("iemocap", Path(sys.argv[1]), utterances=12, seed=1, workers=2, track=track)
"""


@pytest.mark.slow
def test_killed_half_way_and_started_again_at_once(standin_iemocap, tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    out = tmp_path / "out"
    # A file and no pipe: reading that to its end would wait for the workers too.
    with (tmp_path / "said").open("w") as said:
        killed = subprocess.Popen([sys.executable, script, out, tmp_path / "said"], stdout=said)
        assert killed.wait() == -signal.SIGKILL
    workers = [int(line) for line in (tmp_path / "said").read_text().split()]
    assert len(workers) == 2
    assert len(list(out.glob(".*.partial"))) == 1
    folder = made_again(standin_iemocap, out)
    deadline = time.monotonic() + 60
    while any(is_running(worker) for worker in workers):
        assert time.monotonic() < deadline, f"one of the workers {workers} outlives its parent"
        time.sleep(0.02)
    assert hashes(folder) == hashes(standin_iemocap.folder)


def is_running(process_id):
    try:
        return "zombie" not in Path(f"/proc/{process_id}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("dataset", ["iemocap", "mosei"])
def test_a_full_target_is_named_and_leaves_nothing(tmp_path, dataset):
    """A limit on the size of files stands in for the full disk: both refuse a write half-way."""
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from data_tools.errors import DataError; from data_tools.standin.release import write_standin\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        "try: write_standin(sys.argv[1], Path(sys.argv[2]), utterances=6, workers=1)\n"
        "except DataError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code, dataset, tmp_path], check=True, capture_output=True, text=True)
    assert "cannot write" in run.stdout
    assert "File too large" in run.stdout
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
