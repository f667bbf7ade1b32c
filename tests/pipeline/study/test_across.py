"""`pipeline compare --across`: trained on each corpus, scored on each."""

import json
from statistics import fmean, pstdev

import pandas as pd
import pytest

from data_tools.errors import DataError
from pipeline.compare import COMMAND, CompareSettings, compare
from pipeline.metrics.single_label import unweighted_accuracy
from pipeline.report.across import across_sheet
from pipeline.report.pages import markdown
from pipeline.run import RunDir
from pipeline.run_data import STANDIN_NOTICE
from pipeline.settings import ConfigError

SIZES = {"train": 6, "valid": 6, "test": 9}


@pytest.fixture(scope="module")
def folders(tmp_path_factory, two_corpora):
    return two_corpora(tmp_path_factory.mktemp("across"), SIZES, ("random", "random"))


def asked(folders, out, tiny, **values):
    known = tiny | {"labels": str(folders[0].parent / "names.yaml")} | values
    known = {key: value for key, value in known.items() if value is not None}
    return CompareSettings(data=list(folders), models="fe2e", across=True, seeds=2, out=out, values=known)


@pytest.fixture(scope="module")
def crossed(tmp_path_factory, folders, tiny, listener):
    """(folder, result) of one model with two seeds. Not to be changed."""
    out = tmp_path_factory.mktemp("out") / "across"
    return out, compare(asked(folders, out, tiny), listener())


def test_every_cell_is_the_mean_over_the_seeds_of_what_the_predictions_say(crossed, folders):
    out, result = crossed
    assert result["emotions"] == ["joy", "anger"]
    assert set(result["matrix"]) == {"fe2e"}
    for trained in ("first", "second"):
        for tested, folder in zip(("first", "second"), folders, strict=True):
            found = []
            for seed in (0, 1):
                run = RunDir(out / "fe2e" / trained / f"seed-{seed}")
                table = pd.read_parquet(run.predictions(folder)).query("split == 'test'")
                assert len(table) == result["utterances"][tested] == 6
                truth, answer = (
                    table[[f"{kind}_joy", f"{kind}_anger"]].to_numpy().argmax(1) for kind in ("label", "score")
                )
                found.append(unweighted_accuracy(truth, answer, 2))
            cell = result["matrix"]["fe2e"][trained][tested]["unweighted_accuracy"]
            assert cell["values"] == pytest.approx(found)
            assert (cell["mean"], cell["spread"]) == pytest.approx((fmean(found), pstdev(found)))


def test_the_page_names_the_map_and_what_was_left_out(crossed):
    out, result = crossed
    text = (out / "across.md").read_text(encoding="utf-8")
    assert text == markdown(across_sheet(result)) == COMMAND.for_people(result)
    assert json.loads((out / "across.json").read_text()) == result
    assert "(joy, anger, labels by the map names)" in text
    assert f"**{STANDIN_NOTICE}**" in text
    assert "first: left out, without counterpart in the map or in one of the corpora: 3 with sad" in text
    assert "| trained on | first (6) | second (6) | mean of the others |" in text
    assert "--across" in result["command"]
    other = result["matrix"]["fe2e"]["first"]["second"]["unweighted_accuracy"]
    row = next(line for line in text.splitlines() if line.startswith("| first (4)"))
    assert row.endswith(f"| {other['mean']:.3f} ± {other['spread']:.3f} |")


def test_nothing_is_done_twice(crossed, folders, tiny, listener, run_files, monkeypatch):
    out, result = crossed
    before = run_files(out)
    monkeypatch.setattr("pipeline.study.across.BestModel.load", lambda *args: pytest.fail("it was scored again"))
    said = listener()
    assert compare(asked(folders, out, tiny), said) == result
    assert sum("finished, kept" in line for line in said.lines) == 4
    assert run_files(out) == before


def test_corpora_that_cannot_be_crossed(folders, tmp_path, tiny, listener, corpus_writer):
    with pytest.raises(ConfigError, match="two data folders or more"):
        compare(asked(folders[:1], tmp_path / "out", tiny), listener())
    with pytest.raises(ConfigError, match=r"have other emotions .* --labels common"):
        compare(asked(folders, tmp_path / "out", tiny, labels=None), listener())
    again = corpus_writer(tmp_path / "again", SIZES)
    with pytest.raises(DataError, match="'test_00' is an utterance of"):
        compare(asked((folders[0], again), tmp_path / "out", tiny, labels=None), listener())
    other = corpus_writer(tmp_path / "other", SIZES, prefix="c_")
    with pytest.raises(ConfigError, match=r"state other tasks .*first single-label, .*other none"):
        compare(asked((folders[0], other), tmp_path / "out", tiny, labels=None), listener())
    with pytest.raises(ValueError, match="add --across"):
        CompareSettings(data=list(folders), models="fe2e")
