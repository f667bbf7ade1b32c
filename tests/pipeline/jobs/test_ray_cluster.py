"""Stages 1 and 2 on a Ray cluster of two nodes with a core each; both of them are this machine."""

import hashlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from data_tools.clips import make_clips
from data_tools.manifest import read_manifest, read_rejects
from data_tools.standin.release import write_standin
from pipeline.jobs import ray_cluster as ray_workers
from pipeline.jobs.local import died, timed_out
from pipeline.jobs.run import run_jobs
from pipeline.preprocess import SEEN_FILE, PreprocessSettings
from pipeline.progress import Reporter
from pipeline.reorganize import ReorganizeSettings, reorganize
from pipeline.settings import ConfigError, load_config

QUIET = Reporter(quiet=True)
KILLS = "Ses02F_impro01"


@pytest.fixture(scope="module")
def executor():
    """The setting that names a cluster of two nodes."""
    node = {"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    cluster.add_node(**node)
    yield f"ray:{cluster.address}"
    cluster.shutdown()


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """6 utterances in 6 dialogues; not to be changed."""
    return Path(write_standin("iemocap", tmp_path_factory.mktemp("raw"), utterances=6, seed=1, workers=2)["folder"])


def cut(release, out, **settings):
    values = load_config("datasets", "iemocap") | {"root": release, "out": out, "split": "random"} | settings
    return reorganize(ReorganizeSettings.checked(values, "test"), QUIET)


def process(data, **settings):
    from pipeline.preprocess import preprocess  # brings torch, which the workers of stage 1 need not load

    return preprocess(
        PreprocessSettings.checked({"data": data, "faces": {"min_face_px": 40}} | settings, "test"), QUIET
    )


@pytest.fixture(scope="module")
def done(release, tmp_path_factory):
    """The data folder that one process of this machine makes; not to be changed."""
    out = tmp_path_factory.mktemp("local") / "data"
    cut(release, out, workers=1)
    process(out, workers=1)
    return out


def tree(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in (".lock", SEEN_FILE))
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def say_node(folder):
    folder.mkdir(exist_ok=True)
    (folder / ray.get_runtime_context().get_node_id()).touch()


def cut_and_say_node(dialogue):
    say_node(dialogue.data_dir.parent / "cut")
    return make_clips(dialogue)


def process_and_say_node(task):
    from pipeline.preprocess import _preprocess_dialogue

    say_node(task.settings.data.parent / "processed")
    return _preprocess_dialogue(task)


def cut_or_die(dialogue):
    if dialogue.folder.name == KILLS:
        os.kill(os.getpid(), signal.SIGKILL)
    return make_clips(dialogue)


@pytest.mark.slow
def test_two_nodes_make_the_bytes_of_one_process(executor, release, done, tmp_path, monkeypatch):
    # "pipeline.reorganize" the attribute may be the function of that name.
    monkeypatch.setattr(import_module("pipeline.reorganize"), "make_clips", cut_and_say_node)
    monkeypatch.setattr(import_module("pipeline.preprocess"), "_preprocess_dialogue", process_and_say_node)
    monkeypatch.chdir(tmp_path)  # the nodes' workers start elsewhere
    Path("data").mkdir()
    Path("data", ".shared.0123.tmp").touch()  # of a run that was killed
    cut(release, Path("data"), executor=executor)
    process(Path("data"), executor=executor)
    assert tree(tmp_path / "data") == tree(done)
    assert len(list((tmp_path / "cut").iterdir())) == 2
    assert len(list((tmp_path / "processed").iterdir())) == 2


@pytest.mark.slow
def test_a_task_that_kills_its_workers_is_rejected_and_the_rest_is_finished(
    executor, release, done, tmp_path, monkeypatch
):
    stage = import_module("pipeline.reorganize")
    monkeypatch.setattr(stage, "make_clips", cut_or_die)
    cut(release, tmp_path / "data", executor=executor, max_reject_share=0.5)
    died = [reject for reject in read_rejects(tmp_path / "data") if reject.reason == "worker:died"]
    lost = read_manifest(done)["utterance_id"][read_manifest(done)["dialogue_id"] == KILLS]
    assert [reject.utterance_id for reject in died] == list(lost) != []
    assert set(read_manifest(tmp_path / "data")["utterance_id"]) == set(read_manifest(done)["utterance_id"]) - set(lost)
    monkeypatch.setattr(stage, "make_clips", make_clips)
    cut(release, tmp_path / "data", workers=1)
    assert tree(tmp_path / "data" / "clips") == tree(done / "clips")


# Tasks are Python expressions where nothing should have to be imported in the workers.
DIE = "__import__('os').kill(__import__('os').getpid(), 9)"


def run(executor, tasks, function=eval, workers=None, **options):
    return list(run_jobs(function, tasks, workers, __name__, executor, **options))


def test_every_task_once_but_the_deadly_ones_twice(executor, tmp_path):
    once = (
        f"__import__('os').path.exists({str(tmp_path / 'x')!r}) or (open({str(tmp_path / 'x')!r}, 'w').close(), {DIE})"
    )
    tasks = ["0", once, "2", DIE, "4", "5"]
    results = dict(run(executor, tasks))
    assert results == {"0": 0, once: True, "2": 2, DIE: died(DIE), "4": 4, "5": 5}


@pytest.mark.slow
def test_a_task_without_end_is_given_up(executor):
    forever = "__import__('time').sleep(3600)"
    limits = {forever: 2.0}
    results = dict(run(executor, ["1", forever, "3"], limit_s=lambda task: limits.get(task, 600.0)))
    assert results == {"1": 1, forever: timed_out(forever, 2.0), "3": 3}


def test_an_exception_is_raised_here_as_it_is(executor):
    with pytest.raises(ZeroDivisionError) as caught:
        run(executor, ["1 / 0"])
    assert type(caught.value) is ZeroDivisionError
    assert str(caught.value) == "division by zero"


def test_no_more_than_workers_run_at_once(executor, tmp_path):
    made = [tmp_path / str(n) for n in range(4)]
    results = run_jobs(Path.touch, made, 1, __name__, executor)
    for n in range(4):
        next(results)
        assert [path.exists() for path in made] == [True] * (n + 1) + [False] * (3 - n)
    assert next(results, None) is None


def test_a_worker_takes_one_thread():
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert ray_workers._work(len, "ab", ray_workers._Expected((), ())) == 2
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_a_node_without_the_folders_is_named(executor, tmp_path, monkeypatch):
    (tmp_path / "Session1").touch()
    folders = {"reads": tmp_path, "writes": tmp_path}
    assert run(executor, ["1"], **folders) == [("1", 1)]
    assert [path.name for path in tmp_path.iterdir()] == ["Session1"]  # nothing is left of the check
    monkeypatch.setattr(Path, "touch", lambda path: None)  # the nodes don't see what this machine writes
    with pytest.raises(ConfigError, match=rf"node \S+ has another {tmp_path}.*mount .* same paths"):
        run(executor, ["1"], **folders)


def test_a_node_with_another_release_or_none_is_named(executor, tmp_path, monkeypatch):
    (tmp_path / "Session1").touch()
    names = ray_workers._names
    monkeypatch.setattr(ray_workers, "_names", lambda folder: {"Session1", "Session2"})
    with pytest.raises(ConfigError, match=rf"node \S+ has another {tmp_path}, without 'Session2'"):
        run(executor, ["1"], reads=tmp_path)
    monkeypatch.setattr(ray_workers, "_names", names)
    missing = ray_workers._Expected((ray_workers._Seen(tmp_path / "raw", ("Session1",)),), ())
    with pytest.raises(ConfigError, match=rf"node \S+ cannot read {tmp_path}/raw .*No such file"):
        ray_workers._check_here(missing)


def test_a_node_with_other_versions_or_without_the_project_is_named(executor, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(ray_workers, "version", lambda name: "0.0.1")
        with pytest.raises(ConfigError, match=r"node \S+ has emotion-pipeline \S+, this machine 0\.0\.1"):
            run(executor, ["1"])
    (tmp_path / "only_here.py").write_text("def double(x): return 2 * x")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="No module named 'only_here'; install this project on every node"):
        run(executor, [1], import_module("only_here").double)


def test_a_cluster_without_a_gpu_is_refused_at_once(executor):
    with pytest.raises(ConfigError, match="no GPU"):
        run(executor, ["1"], on_gpu=True)


def test_where_no_cluster_answers_it_is_said_and_nothing_is_touched(release, done):
    before = tree(done)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and never listens
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{taken.getsockname()[1]}.*ray start"):
            process(done, executor=f"ray:127.0.0.1:{taken.getsockname()[1]}", faces={"min_face_px": 41})
        with pytest.raises(ConfigError, match="nobody answers"):
            cut(release, done, executor=f"ray:127.0.0.1:{taken.getsockname()[1]}", crf=30)
    assert tree(done) == before


def test_nothing_to_do_needs_no_cluster():
    assert run("ray:127.0.0.1:1", []) == []


def test_without_ray_the_extra_is_named(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else real(name))
    for settings in ({"data": "d"}, {"data": "d", "executor": "local"}):
        PreprocessSettings.checked(settings, "flags")
    with pytest.raises(ConfigError, match=r"executor is 'ray'.*extra.*emotion-pipeline\[ray\]"):
        PreprocessSettings.checked({"data": "d", "executor": "ray"}, "flags")


@pytest.mark.parametrize("executor", ["dask", "ray:", "ray:head", "ray://head:10001", "Ray", "ray:a b:1"])
def test_what_is_no_executor_is_refused(executor):
    with pytest.raises(ConfigError, match="executor is"):
        PreprocessSettings.checked({"data": "d", "executor": executor}, "flags")


DRIVER = """
import signal, sys, time
# A shell's background job ignores Ctrl-C, and what it starts would too.
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from pipeline.jobs.run import run_jobs
said = Path(sys.argv[2])
works = f"(open({str(said)!r}, 'w').write(str(__import__('os').getpid())), __import__('time').sleep(600))"
for _ in run_jobs(eval, ["1", works], None, "", sys.argv[1]):
    while not said.exists() or not said.read_text():
        time.sleep(0.01)
    print("at work", flush=True)
"""


def start(executor, folder):
    """A driver in a process of its own, and the worker that is at its second task."""
    said = folder / "worker"
    command = [sys.executable, "-c", DRIVER, executor, said]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert driver.stdout.readline() == "at work\n", driver.communicate()[1]
    return driver, int(said.read_text())


def test_after_ctrl_c_no_worker_is_left(executor, tmp_path):
    driver, worker = start(executor, tmp_path)
    assert is_running(worker)
    driver.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in driver.communicate()[1]
    assert not is_running(worker)


@pytest.mark.parametrize("own", [False, True], ids=["cluster", "own"])
def test_workers_end_with_a_killed_driver(executor, tmp_path, own):
    driver, worker = start("ray" if own else executor, tmp_path)
    assert is_running(worker)
    driver.kill()
    driver.communicate()
    deadline = time.monotonic() + 60
    while is_running(worker):
        assert time.monotonic() < deadline, f"worker {worker} outlives its driver"
        time.sleep(0.02)


def is_running(process_id):
    try:
        return "zombie" not in Path(f"/proc/{process_id}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
