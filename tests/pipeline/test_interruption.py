"""Runs that are killed, run out of space, or lose a file or a worker: started again they end with the same bytes."""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from data_tools.errors import DataError
from data_tools.files import folder_lock
from data_tools.manifest import read_manifest, read_rejects
from pipeline.preprocess import SEEN_FILE, PreprocessSettings, preprocess
from pipeline.progress import Reporter
from pipeline.reorganize import ReorganizeSettings, reorganize
from pipeline.settings import load_config

# One line in: a job; it runs in a fork of this process, which has imported everything. One line out: how it ended.
# Before a change in the folder (the audit hooks of CPython tell of each file that is opened to be written, renamed,
# deleted, and each folder made) the job may be killed, or the change may fail.
FORKS = """
import errno, json, os, resource, signal, sys
from pathlib import Path
from data_tools.errors import DataError
from pipeline.preprocess import PreprocessSettings
from pipeline.reorganize import ReorganizeSettings
from pipeline.settings import ConfigError, load_config
from pipeline.preprocess import preprocess
from pipeline.progress import Reporter
from pipeline.reorganize import reorganize

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
changes = 0

def watch(folder, stop_at, how):
    def hook(event, arguments):
        global changes
        if event == "open":
            changing = isinstance(arguments[2], int) and arguments[2] & WRITES
        else:
            changing = event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir")
        if not changing or isinstance(arguments[0], int) or folder not in Path(os.fsdecode(arguments[0])).parents:
            return
        changes += 1
        if how == "kill" and changes == stop_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if how != "kill" and changes >= stop_at and event not in ("os.remove", "os.rmdir"):
            raise OSError(how, os.strerror(how), arguments[0])
    sys.addaudithook(hook)

def run(job):
    if job["largest_file"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["largest_file"],) * 2)
    watch(Path(job["folder"]), job["stop_at"], job["how"])
    quiet = Reporter(quiet=True)
    try:
        if job["root"]:
            values = load_config("datasets", "iemocap") | {"workers": 1, "split": "random:utterance"}
            values |= {"root": Path(job["root"]), "out": Path(job["folder"])}
            reorganize(ReorganizeSettings.checked(values, "test"), quiet)
        else:
            preprocess(PreprocessSettings.checked({"data": Path(job["folder"]), "workers": 1}, "test"), quiet)
        return ""
    except (DataError, ConfigError) as error:
        return str(error)

for line in sys.stdin:
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        said = run(json.loads(line))
        os.write(writes, json.dumps([said, changes]).encode())
        os._exit(0)
    os.close(writes)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = os.read(reads, 1 << 16).decode() or "[null, 0]"
    os.close(reads)
    print(json.dumps([status, *json.loads(said)]), flush=True)
"""
NEVER = 10**9


class Forks:
    """Stage 1 on a release, or stage 2, in forks of one process."""

    def __init__(self, root):
        self.root = root
        self.child = subprocess.Popen(
            [sys.executable, "-c", FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, stage, folder, stop_at=NEVER, how="kill", largest_file=None):
        """(exit status, negative for a signal; message of the error or "", None after a signal; changes made)."""
        job = {"folder": str(folder), "stop_at": stop_at, "how": how, "largest_file": largest_file}
        job["root"] = str(self.root) if stage == "reorganize" else None
        self.child.stdin.write(json.dumps(job) + "\n")
        self.child.stdin.flush()
        return json.loads(self.child.stdout.readline())

    def close(self):
        self.child.stdin.close()
        self.child.stdout.close()
        self.child.wait(60)


@pytest.fixture(scope="module")
def release(release_makers, tmp_path_factory):
    """Not to be changed."""
    return release_makers["iemocap"](tmp_path_factory.mktemp("raw") / "IEMOCAP_full_release")


@pytest.fixture(scope="module")
def forks(release):
    made = Forks(release)
    yield made
    made.close()


@pytest.fixture(scope="module")
def done(forks, tmp_path_factory):
    """stage -> (data folder after an uninterrupted run, changes it took); not to be changed."""
    finished, folder = {}, None
    for stage in ("reorganize", "preprocess"):
        before, folder = folder, tmp_path_factory.mktemp("data") / "iemocap"
        if before:
            shutil.copytree(before, folder)
        status, said, changes = forks.run(stage, folder)
        assert (status, said) == (0, "")
        finished[stage] = folder, changes
    return finished


@pytest.fixture
def start(done, tmp_path):
    """The folder as the stage finds it."""

    def prepare(stage, name="data"):
        if stage == "preprocess":
            shutil.copytree(done["reorganize"][0], tmp_path / name)
        return tmp_path / name

    return prepare


def tree(folder):
    """Every file but those of this machine alone, with the hash of its bytes."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in (".lock", SEEN_FILE))
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def check_killed(forks, done, folder, stage, stop_at):
    status, _, _ = forks.run(stage, folder, stop_at)
    assert status == -signal.SIGKILL
    assert forks.run(stage, folder)[:2] == [0, ""], stop_at
    assert tree(folder) == tree(done[stage][0]), stop_at
    shutil.rmtree(folder)


@pytest.mark.parametrize("stage", ["reorganize", pytest.param("preprocess", marks=pytest.mark.slow)])
def test_killed_before_some_change_and_started_again(forks, done, start, stage):
    changes = done[stage][1]
    # The last ones are those of the summaries and the manifest.
    early = np.random.default_rng(0).choice(np.arange(1, changes - 3), size=4, replace=False).tolist()
    for stop_at in [*early, changes - 2, changes]:
        check_killed(forks, done, start(stage), stage, stop_at)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["reorganize", "preprocess"])
def test_killed_before_every_change_and_started_again(forks, done, start, stage):
    for stop_at in range(1, done[stage][1] + 1):
        check_killed(forks, done, start(stage), stage, stop_at)


def test_killed_again_and_again_it_still_comes_to_the_end(forks, done, start):
    folder = start("reorganize")
    random = np.random.default_rng(1)
    ends = [forks.run("reorganize", folder, int(random.integers(1, done["reorganize"][1])))[0] for _ in range(6)]
    assert -signal.SIGKILL in ends
    assert forks.run("reorganize", folder)[:2] == [0, ""]
    assert tree(folder) == tree(done["reorganize"][0])


@pytest.mark.parametrize("stage", ["reorganize", "preprocess"])
@pytest.mark.parametrize("how", [errno.ENOSPC, errno.EACCES, errno.EIO])
def test_a_folder_that_takes_no_more_from_some_change_on(forks, done, start, stage, how):
    random = np.random.default_rng(how)
    # The last changes of all only take away what is not there any more.
    size = 2 if stage == "reorganize" else 1
    for stop_at in random.choice(np.arange(1, done[stage][1] - 2), size=size, replace=False).tolist():
        folder = start(stage)
        status, said, _ = forks.run(stage, folder, stop_at, how)
        assert status == 0
        assert "cannot write" in said, stop_at
        assert os.strerror(how) in said
        assert forks.run(stage, folder)[:2] == [0, ""]
        assert tree(folder) == tree(done[stage][0]), stop_at
        shutil.rmtree(folder)


@pytest.mark.parametrize("stage", ["reorganize", "preprocess"])
def test_files_that_grow_beyond_what_the_disk_holds(forks, done, start, stage):
    """ffmpeg, libsndfile and safetensors write without Python: a limit on a file's size stands in for the full disk."""
    sizes = sorted(path.stat().st_size for path in done[stage][0].rglob("*") if path.is_file())
    folder = start(stage)
    for largest in (sizes[-1] // 8, sizes[-1] // 2, sizes[-1] - 1):
        status, said, _ = forks.run(stage, folder, largest_file=largest)
        assert status == 0
        assert "free space" in said, largest
        assert not (folder / ("utterances.parquet" if stage == "reorganize" else "store/store.json")).exists()
    assert forks.run(stage, folder)[:2] == [0, ""]
    assert tree(folder) == tree(done[stage][0])


def spoil(path, how):
    """Something that cannot be read takes the place of `path`."""
    path.rename(path.with_name(path.name + ".away"))
    if how == "folder":
        path.mkdir()
    elif how == "link":
        path.symlink_to("nowhere")
    else:
        os.mkfifo(path)


def mend(path):
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink()
    path.with_name(path.name + ".away").rename(path)


@pytest.mark.parametrize("how", ["folder", "link", "pipe"])
@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("Session1/dialog/avi/DivX/Ses01F_impro01.avi", 2),
        ("Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav", 1),
    ],
)
def test_a_source_that_cannot_be_read_for_a_while(release, done, tmp_path, name, lost, how):
    shutil.copytree(release, tmp_path / "IEMOCAP_full_release")
    values = load_config("datasets", "iemocap") | {"workers": 1, "split": "random:utterance", "max_reject_share": 0.9}
    values |= {"root": tmp_path / "IEMOCAP_full_release", "out": tmp_path / "out"}
    settings, quiet = ReorganizeSettings.checked(values, "test"), Reporter(quiet=True)
    whole = done["reorganize"][0]
    spoil(tmp_path / "IEMOCAP_full_release" / name, how)
    reorganize(settings, quiet)
    kept = len(read_manifest(whole)) - lost
    assert len(read_manifest(tmp_path / "out")) == kept
    assert len([r for r in read_rejects(tmp_path / "out") if r.source == name]) == lost
    mend(tmp_path / "IEMOCAP_full_release" / name)
    reorganize(settings, quiet)
    assert tree(tmp_path / "out") == tree(whole)


def test_something_in_the_way_of_a_clip(forks, done, start):
    folder = start("reorganize")
    clip = folder / read_manifest(done["reorganize"][0])["clip"].iloc[1]
    clip.mkdir(parents=True)
    (clip / "mine.txt").touch()
    status, said, _ = forks.run("reorganize", folder)
    assert status == 0
    assert clip.parent.name in said
    assert (clip / "mine.txt").exists()
    shutil.rmtree(clip)
    assert forks.run("reorganize", folder)[:2] == [0, ""]
    assert tree(folder) == tree(done["reorganize"][0])


def children(process_id):
    """The processes that `process_id` and its children have started."""
    started = Path(f"/proc/{process_id}/task/{process_id}/children")
    try:
        direct = [int(child) for child in started.read_text().split()]
    except OSError:
        return []
    return [*direct, *(grandchild for child in direct for grandchild in children(child))]


def workers_with_a_clip_open(run, folder):
    """Processes under `run` that write a clip into `folder` right now."""
    found = set()
    for child in children(run.pid):
        with suppress(OSError):  # processes and their files come and go
            targets = [str(link.readlink()) for link in Path(f"/proc/{child}/fd").iterdir()]
            if any(target.startswith(f"{folder}/clips/") and ".tmp." in target for target in targets):
                found.add(child)
    return found


@pytest.mark.parametrize("victim", ["worker", "parent"])
def test_a_process_of_two_workers_is_killed(release, done, tmp_path, victim):
    folder = tmp_path / "data"
    code = "from pipeline.cli import main; main()"
    arguments = ["reorganize", "--dataset", "iemocap", "--root", release, "--out", folder, "--workers", "2"]
    command = [sys.executable, "-c", code, *map(str, arguments), "--split", "random:utterance"]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    workers = set()
    while not workers and run.poll() is None:
        workers = workers_with_a_clip_open(run, folder)
        time.sleep(0.001)
    assert workers, "it ended before a clip was seen open"
    os.kill(workers.pop() if victim == "worker" else run.pid, signal.SIGKILL)
    assert run.wait() == (0 if victim == "worker" else -signal.SIGKILL)
    if victim == "parent":
        again = subprocess.run(command, capture_output=True, text=True, check=False)
        assert again.returncode == 0, again.stderr
    assert tree(folder) == tree(done["reorganize"][0])


def test_a_folder_that_a_run_holds_is_left_alone_by_every_stage(release, done, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(done["preprocess"][0], folder)
    values = load_config("datasets", "iemocap") | {"workers": 1, "root": release, "out": folder, "crf": 40}
    before = tree(folder)
    with folder_lock(folder):
        with pytest.raises(DataError, match="another run is at work"):
            reorganize(ReorganizeSettings.checked(values, "test"), Reporter(quiet=True))
        with pytest.raises(DataError, match="another run is at work"):
            preprocess(PreprocessSettings.checked({"data": folder}, "test"), Reporter(quiet=True))
    assert tree(folder) == before
