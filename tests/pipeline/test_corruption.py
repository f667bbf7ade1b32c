"""Bytes of a release flipped, cut off, overwritten and repeated, at seeded places, one file at a time.

The law for stage 1, whatever the damage:
1. It ends by itself, well or with a DataError or ConfigError; nothing outside the data folder is touched.
2. Every utterance of the undamaged release is kept or rejected, once (IEMOCAP's XX turns, whose ids repeat, as often
   as the release has them); with the same labels and text if it is kept and the damaged file is media. An id that no
   file but the damaged one names may be gone, where its own line was hit: then a row of rejects.parquet names the
   file, or the id is nowhere in it any more. An id that is new stands in the damaged file, letter for letter.
3. Dialogues without a damaged file keep their clips, byte for byte.
"""

import json
import shutil
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data_tools.errors import DataError
from data_tools.manifest import read_manifest, read_rejects
from data_tools.media.audio import audio_duration_s, read_audio, write_wav
from data_tools.media.cut import Cut, cut_video
from data_tools.media.frames import read_frames
from data_tools.media.source import probe
from data_tools.media.write import ffmpeg_exe, write_video
from data_tools.standin.release import write_standin

MEDIA = {".avi", ".mp4", ".wav"}
# One line in: the folders of a case. One line out: "" or the message of an error that a person can mend.
RUNNER = """
import faulthandler, json, sys
from pathlib import Path
from data_tools.errors import DataError
from pipeline.reorganize import ReorganizeSettings
from pipeline.settings import ConfigError, load_config
from pipeline.progress import Reporter
from pipeline.reorganize import reorganize

faulthandler.enable()
for line in sys.stdin:
    dataset, root, out = json.loads(line)
    values = load_config("datasets", dataset) | {"workers": 1, "split": "random:utterance", "max_reject_share": 1.0}
    values |= {"root": Path(root), "out": Path(out)}
    try:
        reorganize(ReorganizeSettings.checked(values, "test"), Reporter(quiet=True))
        print(json.dumps(""), flush=True)
    except (DataError, ConfigError) as error:
        print(json.dumps(str(error)), flush=True)
"""


class Runner:
    """Stage 1 in a process of its own, case after case: a crash or a wait without end is seen from outside."""

    def __init__(self, folder):
        self.said = folder / "stderr.txt"
        with self.said.open("w") as stderr:
            self.child = subprocess.Popen(
                [sys.executable, "-c", RUNNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
            )

    def run(self, dataset, root, out):
        watchdog = threading.Timer(120, self.child.kill)
        watchdog.start()
        self.child.stdin.write(json.dumps([dataset, str(root), str(out)]) + "\n")
        self.child.stdin.flush()
        answer = self.child.stdout.readline()
        watchdog.cancel()
        assert answer, f"stage 1 crashed or never ended on {root}: {self.said.read_text()[-3000:]}"
        return json.loads(answer)

    def close(self):
        self.child.stdin.close()
        self.child.stdout.close()
        self.child.wait(60)


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    made = Runner(tmp_path_factory.mktemp("runner"))
    yield made
    made.close()


class Case:
    """One release, its data folder before any damage, and what there is to know about both."""

    def __init__(self, dataset, root, folder, runner):
        self.dataset, self.root, self.folder, self.runner = dataset, root, folder, runner
        self.done = folder / "done"
        assert runner.run(dataset, root, self.done) == ""
        self.files = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.name.startswith("._")]
        self.texts = {path: path.read_bytes() for path in self.files if path.suffix in (".txt", ".csv")}
        self.kept, self.rejected = accounted(self.done)
        assert self.kept

    def damaged_file(self, random):
        """Half of the damage to media, half to texts that are read."""
        is_media = random.random() < 0.5
        of_kind = [path for path in self.files if (path.suffix in MEDIA) == is_media]
        return of_kind[random.integers(len(of_kind))]

    def check(self, seed):
        """Damage one file, run stage 1 on what an earlier run has left, and hold the result against the law."""
        random = np.random.default_rng(seed)
        victim = self.damaged_file(random)
        data = damage(victim.read_bytes(), random)
        case = self.folder / "case"
        root, out = case / "release", case / "out"
        for path in self.files:  # links: the files themselves stay older than the receipts
            link = root / path.relative_to(self.root)
            link.parent.mkdir(parents=True, exist_ok=True)
            if path != victim:
                link.symlink_to(path)
        (root / victim.relative_to(self.root)).write_bytes(data)
        if random.random() < 0.5:
            shutil.copytree(self.done, out)
        before = around(case)
        message = self.runner.run(self.dataset, root, out)
        what = f"seed {seed}: {victim.relative_to(self.root)}, {message}"
        assert around(case) == before, what
        assert (root / victim.relative_to(self.root)).read_bytes() == data, what
        assert not list(out.rglob("*.tmp*")), what
        if not message:
            self.check_account(victim, data, out, what)
        shutil.rmtree(case)
        return message

    def check_account(self, victim, data, out, what):
        kept, rejected = accounted(out)
        assert not set(kept) & set(rejected), what
        assert not Counter(rejected) - Counter(set(rejected)) - Counter(self.rejected), what
        ids, known = {*kept, *rejected}, {*self.kept, *self.rejected}
        if victim.suffix in MEDIA:
            assert ids == known, what
            assert all(kept[name] == self.kept[name] for name in kept), what
        for name in known - ids:
            assert not any(name in naming(text, path) for path, text in self.texts.items() if path != victim), what
            own = [line for line in self.texts[victim].splitlines() if name in naming(line, victim)]
            assert not set(own) & set(data.splitlines()), what
            is_said = victim.relative_to(self.root).as_posix() in {r.source for r in read_rejects(out)}
            assert is_said or name not in naming(data, victim), what
        for name in ids - known:
            assert name in naming(data, victim), what
        for name in kept:
            if victim.stem not in name and victim.parent.name not in name and victim.suffix != ".csv":
                clip = read_manifest(self.done).set_index("utterance_id").loc[name, "clip"]
                assert (out / clip).read_bytes() == (self.done / clip).read_bytes(), what


def naming(data, path):
    """What a text names, as one may look ids up in it: MOSEI writes them in two columns."""
    text = data.decode(errors="replace")
    return text.replace(",", "_").replace("___", "_") if path.suffix == ".csv" or "___" in text else text


def accounted(out):
    """({id: (text, labels)} of the kept utterances, ids of the rejected ones)."""
    table = read_manifest(out)
    labels = [name for name in table.columns if name.startswith("label_")]
    values = zip(table["text"], table[labels].itertuples(index=False, name=None), strict=True)
    kept = dict(zip(table["utterance_id"], values, strict=True))
    return kept, [reject.utterance_id for reject in read_rejects(out) if reject.utterance_id]


def around(case):
    """Names, kinds and times of everything in the case's folder that is not the data folder."""
    inside = case / "out"
    paths = (path for path in case.rglob("*") if path != inside and inside not in path.parents)
    return {path: (path.lstat().st_mode, path.lstat().st_mtime_ns) for path in paths if path.is_file()}


def damage(data, random):
    """`data` with one thing done to it."""
    at = int(random.integers(len(data)))
    early = int(random.integers(min(len(data), 512)))  # where headers are
    kind = random.integers(7)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:early]
    if kind == 2:  # one bit
        return data[:at] + bytes([data[at] ^ 1 << int(random.integers(8))]) + data[at + 1 :]
    if kind == 3:
        return data[:early] + random.bytes(4) + data[early + 4 :]
    if kind == 4:  # noise
        length = int(random.integers(1, 400))
        return data[:at] + random.bytes(length) + data[at + length :]
    if kind == 5:  # zeros, as disks leave them
        length = int(random.integers(1, 4096))
        return data[:at] + bytes(min(length, len(data) - at)) + data[at + length :]
    return data[:at] + data[early:]  # a piece twice, or left out


@pytest.fixture(scope="module", params=["iemocap", "mosei"])
def small(request, runner, release_makers, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return Case(request.param, release_makers[request.param](folder / "raw"), folder, runner)


def test_damage_costs_what_it_hits_and_nothing_is_lost_from_the_account(small):
    messages = [small.check(seed) for seed in range(30)]
    assert messages.count("") >= 20


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("dataset", ["iemocap", "mosei"])
def test_damage_to_the_stand_ins(runner, tmp_path, dataset):
    made = write_standin(dataset, tmp_path / "raw", utterances=6, seed=1, workers=1, track=lambda items, *_: items)
    root = Path(made["folder"]) / ("Raw" if dataset == "mosei" else "")
    case = Case(dataset, root, tmp_path, runner)
    messages = [case.check(1000 + seed) for seed in range(200)]
    assert messages.count("") >= 150


def read_everything(path, out):
    """What each reader answers to `path`; DataErrors are answers too."""
    readers = (
        lambda: probe(path),
        lambda: len(list(read_frames(path, 100))),
        lambda: len(read_audio(path)),
        lambda: audio_duration_s(path),
        lambda: cut_video(path, [Cut(0.1, 0.4, out / "1.mp4"), Cut(0.3, 0.9, out / "2.mp4")], crf=30),
    )
    said = []
    for reader in readers:
        try:
            reader()
        except DataError as error:
            said.append(str(error))
    assert all(path.name in message for message in said)


def check_readers(tmp_path, media_makers, cases):
    pictures, sound = media_makers
    write_wav(tmp_path / "a.wav", sound(1, 0))
    write_video(tmp_path / "a.mp4", pictures(25, 0), (128, 64), 25, audio=tmp_path / "a.wav")
    write_video(tmp_path / "a.avi", pictures(25, 0), (128, 64), 25, "mpeg4", audio=tmp_path / "a.wav")
    quiet = [ffmpeg_exe(), "-v", "error", "-i", tmp_path / "a.mp4", "-ar", "44100"]
    for name in ("a.mkv", "a.ts", "a.mpg", "a.flv", "a.flac", "a.mp3", "a.ogg"):
        subprocess.run([*quiet, tmp_path / name], check=True)
    files = sorted(tmp_path.glob("a.*"))
    for seed in range(cases):
        random = np.random.default_rng(seed)
        victim = files[seed % len(files)]
        path = tmp_path / f"case{victim.suffix}"
        path.write_bytes(damage(victim.read_bytes(), random))
        read_everything(path, tmp_path / "out")
        assert not list((tmp_path / "out").glob(".*")), seed
        path.unlink()


def test_readers_answer_to_every_damage(tmp_path, media_makers):
    check_readers(tmp_path, media_makers, 60)


@pytest.mark.slow
def test_readers_answer_to_every_damage_for_minutes(tmp_path, media_makers):
    check_readers(tmp_path, media_makers, 2000)
