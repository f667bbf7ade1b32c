import multiprocessing

import pytest

from data_tools.errors import DataError
from data_tools.files import atomic_path, folder_lock, write_json, write_text


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
