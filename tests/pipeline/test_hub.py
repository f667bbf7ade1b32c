"""A model to the hub and back, against a server on the loopback that speaks its calls; no other place is asked."""

import json
import shutil
import socket
from pathlib import Path

import pytest
from fake_hub import TOKEN, Repo, running_hub

import models
from data_tools.errors import DataError
from data_tools.media.audio import write_wav
from pipeline.cli import main
from pipeline.evaluate import EvaluateSettings, evaluate
from pipeline.explain import explain
from pipeline.flops import flops
from pipeline.hub import HubModel
from pipeline.predict import predict
from pipeline.progress import Reporter
from pipeline.run import RunDir
from pipeline.settings import ConfigError
from pipeline.share import format_shared, share

QUIET = Reporter(quiet=True)
NAME = Path("hub:anna/first")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub, at which huggingface-hub looks for everything; its token and its folder are of this test alone."""
    from huggingface_hub import constants

    before = constants.ENDPOINT
    with running_hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE  # made of the address when it was imported
        assert template.startswith(before)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + template.removeprefix(before))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        port, connect = int(hub.address.rpartition(":")[2]), socket.socket.connect

        def only_there(self, address):
            assert address[:2] == ("127.0.0.1", port), f"something asks {address}"
            return connect(self, address)

        monkeypatch.setattr(socket.socket, "connect", only_there)
        yield hub


def shared(run, to="hub:anna/first", **changes):
    options = {"public": False, "licence": None, "title": None} | changes
    return share(run, to, reporter=QUIET, **options)


@pytest.fixture
def on_hub(hub, run, tmp_path):
    """The hub with the shared run in it; the run itself is gone."""
    shared(run)
    shutil.move(run, tmp_path / "moved away")
    hub.calls.clear()
    return hub


def cached(tmp_path):
    place = tmp_path / "hf" / "emotion-pipeline" / "anna--first"
    return sorted(path.name for path in place.iterdir()) if place.is_dir() else []


# Upload


def test_a_run_goes_to_the_hub_in_one_private_commit(hub, run, tmp_path):
    result = shared(run, title="My first", licence="mit")
    repo = hub.repos["anna/first"]
    assert repo.private
    (commit,) = repo.commits
    assert (result["commit"], result["private"]) == (commit, True)
    assert result["url"] == f"{hub.address}/anna/first"
    files = repo.commits[commit]
    assert {name: len(content) for name, content in files.items()} == result["files"]
    assert json.loads(files["shared.json"])["title"] == "My first"
    assert files["README.md"].startswith(b"---\n")
    share(run, str(tmp_path / "folder"), False, "mit", "My first", QUIET)
    for name, content in files.items():
        assert content == (tmp_path / "folder" / name).read_bytes(), name
    assert "private: only you" in format_shared(result)
    assert f"--run hub:anna/first@{commit}" in format_shared(result)


def test_public_is_asked_for(hub, run):
    assert shared(run, public=True)["private"] is False
    assert not hub.repos["anna/first"].private
    with pytest.raises(ConfigError, match="is there and public: add --public"):
        shared(run)
    assert len(hub.repos["anna/first"].commits) == 1
    assert "public: everybody" in format_shared(shared(run, public=True))


def test_a_new_version_deletes_what_the_old_one_had_and_spares_the_rest(hub, run):
    hub.repos["anna/first"] = Repo(True)
    hub.repos["anna/first"].add({"tokenizer/old.json": b"{}", "picture.png": b"mine", "README.md": b"old"})
    shared(run)
    files = hub.repos["anna/first"].commits[hub.repos["anna/first"].newest]
    assert "tokenizer/old.json" not in files
    assert files["picture.png"] == b"mine"
    assert files["README.md"] != b"old"


def test_an_upload_that_is_refused_says_why(hub, run, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(DataError, match=r"cannot upload to hub:anna/first.*hf auth login"):
        shared(run)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.refuse_uploads = True
    with pytest.raises(DataError, match=r"the hub answers .*403"):
        shared(run)
    with pytest.raises(ConfigError, match="names a revision, and the upload makes a new one"):
        shared(run, to="hub:anna/first@main")


# Fetching


def test_a_model_of_the_hub_answers_as_the_run_did(on_hub, tmp_path, toy_corpus, media_makers):
    before = tmp_path / "moved away"
    write_wav(tmp_path / "a.wav", media_makers[1](2, 0), 16_000)
    expected = predict(before, [tmp_path / "a.wav"], "word0", "cpu", QUIET)
    found = predict(NAME, [tmp_path / "a.wav"], "word0", "cpu", QUIET, out=tmp_path / "out")
    assert found["run"] == str(NAME)
    assert found["files"][0]["scores"] == expected["files"][0]["scores"]
    report = evaluate(EvaluateSettings(run=NAME, device="cpu", data=toy_corpus), QUIET)
    assert report == evaluate(EvaluateSettings(run=before, device="cpu"), QUIET)
    assert Path(explain(NAME, ["test_00"], "test", toy_corpus, tmp_path / "page", QUIET)["page"]).is_file()
    counted = flops(run=NAME)
    assert counted["parameters"] == flops(run=before)["parameters"]
    assert "run" not in counted  # its training is not part of it
    fetched = [path for method, path in on_hub.calls if method == "GET" and "/resolve/" in path]
    assert len(fetched) == len(set(fetched)), "a file was fetched twice"
    again = predict(NAME, [tmp_path / "a.wav"], "word0", "cpu", QUIET, out=tmp_path / "out")
    assert again["files"][0]["scores"] == expected["files"][0]["scores"]


def test_a_commit_by_its_name_needs_no_network_the_second_time(on_hub, tmp_path):
    commit = on_hub.repos["anna/first"].newest
    pinned = Path(f"hub:anna/first@{commit}")
    models.load(RunDir.existing(pinned).path)
    assert cached(tmp_path) == [commit]
    on_hub.calls.clear()
    models.load(RunDir.existing(pinned).path)
    assert on_hub.calls == []


def test_each_commit_has_a_folder_and_the_newest_is_asked_for(on_hub, tmp_path):
    first = RunDir.existing(NAME).path
    repo = on_hub.repos["anna/first"]
    newer = repo.add({**repo.commits[repo.newest], "README.md": b"changed"})
    assert RunDir.existing(NAME).path.name == newer
    assert RunDir.existing(Path(f"{NAME}@{first.name}")).path == first
    assert cached(tmp_path) == sorted([first.name, newer])


def test_only_the_files_of_a_shared_model_are_fetched(on_hub, tmp_path):
    repo = on_hub.repos["anna/first"]
    extra = {"pytorch_model.bin": b"x", "modeling.py": b"x", "tokenizer/a/b.json": b"x", "tokenizer/.x": b"x"}
    repo.add({**repo.commits[repo.newest], **extra, "../outside.json": b"x", "tokenizer/../../outside.json": b"x"})
    folder = RunDir.existing(NAME).path
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {name for name in repo.commits[repo.newest] if name not in extra and ".." not in name}
    assert not list(tmp_path.rglob("outside.json"))
    assert not any(path.is_symlink() for path in folder.rglob("*"))


@pytest.mark.parametrize(("name", "size"), [("model.safetensors", 2**40), ("data.json", 2**30), ("README.md", -1)])
def test_what_is_too_large_is_not_fetched(on_hub, tmp_path, name, size):
    on_hub.sizes[name] = size
    with pytest.raises(DataError, match=f"{name} of hub:anna/first has {size} bytes; the limit"):
        RunDir.existing(NAME)
    assert not any("/resolve/" in path for _, path in on_hub.calls)
    assert cached(tmp_path) == []


def test_another_kind_of_model_is_named(on_hub, tmp_path):
    on_hub.repos["anna/first"].add({"config.json": b"{}", "model.safetensors": b"x"})
    with pytest.raises(DataError, match=r"is no model of `pipeline share`: shared.json is not there"):
        RunDir.existing(NAME)
    repo = on_hub.repos["anna/first"]
    whole = repo.commits[next(iter(repo.commits))]
    repo.add({**whole, "shared.json": b'{"format": 9}'})
    with pytest.raises(DataError, match="has format 9"):
        RunDir.existing(NAME)
    assert cached(tmp_path) == []


def test_what_the_hub_does_not_have_or_show(on_hub, monkeypatch):
    from huggingface_hub import constants

    with pytest.raises(DataError, match="has no such revision"):
        RunDir.existing(Path("hub:anna/first@v9"))
    with pytest.raises(DataError, match=r"has no such model, or does not show it to you.*hf auth login"):
        RunDir.existing(Path("hub:anna/other"))
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(DataError, match="does not show it to you"):
        RunDir.existing(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="HF_HUB_OFFLINE is set"):
        RunDir.existing(NAME)


@pytest.mark.parametrize(
    "name",
    ["hub:", "hub:anna", "hub:anna/first/x", "hub:../first", "hub:anna/..", "hub:anna/first@", "hub:anna/first@a..b",
     "hub:anna/a b", "hub:anna/first@/x", "hub:-a/b", "hub:anna/a--b", "hub:anna/first@--x"],
)  # fmt: skip
def test_names_that_are_none(name, tmp_path, capsys):
    with pytest.raises(ConfigError, match="expected hub:USER/NAME or hub:USER/NAME@REVISION"):
        HubModel.parse(name)
    with pytest.raises(SystemExit) as stopped:
        main(["predict", "--run", name, "film.mp4"])
    assert stopped.value.code == 2
    assert "names no model of the hub" in capsys.readouterr().err


def test_a_place_that_takes_nothing_is_named(on_hub, tmp_path):
    (tmp_path / "hf").mkdir(exist_ok=True)
    (tmp_path / "hf" / "emotion-pipeline").write_text("in the way", encoding="utf-8")
    with pytest.raises(DataError, match="name another place with HF_HOME"):
        RunDir.existing(NAME)
