import multiprocessing
import os
import stat
import tempfile

import pytest
import torch
from safetensors.torch import save_file

from data_tools.errors import DataError
from data_tools.files import atomic_path, check_writable, folder_lock, write_json, write_text


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "sub" / "a.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [path.name for path in target.parent.iterdir()] == ["a.txt"]


def test_a_file_in_the_way_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/a\.json"):
        write_json(tmp_path / "file" / "a.json", {})


def hold(folder, held, release):
    with folder_lock(folder):
        held.set()
        release.wait()


def test_two_runs_cannot_hold_one_folder(tmp_path):
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path, held, release))
    other.start()
    assert held.wait(60)
    with pytest.raises(DataError, match="another run"), folder_lock(tmp_path):
        pass
    release.set()
    other.join()
    with folder_lock(tmp_path):
        pass


def test_an_error_inside_the_lock_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError), folder_lock(tmp_path):
        (tmp_path / "none").read_text()


@pytest.fixture(params=[0o022, 0o002, 0o077, 0o027])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_every_file_follows_the_umask(tmp_path, umask):
    for name in ("a.safetensors", "b.txt"):
        with atomic_path(tmp_path / name) as temporary:
            if name == "b.txt":
                temporary.write_text("x")
            else:
                save_file({"x": torch.zeros(2)}, temporary)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o666 & ~umask}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b.txt"]


def test_a_target_is_tried_before_the_work(tmp_path, monkeypatch):
    check_writable(tmp_path / "new" / "folder" / "page.html", "name another place with --out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for target, why in ((tmp_path, "it is a folder"), (tmp_path / "file" / "page.html", "Not a directory")):
        with pytest.raises(DataError, match=rf"cannot write {target}: {why}; name another place with --out"):
            check_writable(target, "name another place with --out")

    def refuse(*_, **__):
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(DataError, match="Read-only file system; name"):
        check_writable(tmp_path / "page.html", "name another place with --out")
    (tmp_path / ".lock").touch()
    with pytest.raises(DataError, match="cannot write to .*Read-only file system"), folder_lock(tmp_path):
        pass
    monkeypatch.undo()
    with folder_lock(tmp_path):  # the refusal has let go of it
        pass
