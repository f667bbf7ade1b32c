import json
import sys
from dataclasses import replace
from itertools import chain, combinations

import pytest

import models
from pipeline import cli
from pipeline.ablate import SUBSETS, AblateSettings, _ablation, _rows, ablate, sheet
from pipeline.cli import load_command, main
from pipeline.run_data import STANDIN_NOTICE
from pipeline.settings import ConfigError
from pipeline.study.runs import Trained

PARTS = {"t": "text", "a": "mel", "v": "face"}


@pytest.fixture(scope="module")
def ask(toy_corpus, tiny):
    def build(out, names=("fe2e",), **values):
        return AblateSettings(data=toy_corpus, models=names, out=out, values=tiny | values)

    return build


@pytest.fixture(scope="module")
def ablated(tmp_path_factory, ask, listener):
    """(folder, result) of FE2E, interrupted after two of its runs and started again."""
    out = tmp_path_factory.mktemp("ablated") / "out"
    with pytest.raises(KeyboardInterrupt):
        ablate(ask(out), listener(stop_at="run 3 of 7"))
    reporter = listener()
    result = ablate(ask(out), reporter)
    assert [line for line in reporter.lines if line.endswith("finished, kept")] == [
        "run 1 of 7: fe2e, t, seed 0: finished, kept",
        "run 2 of 7: fe2e, a, seed 0: finished, kept",
    ]
    return out, result


def test_the_subsets_are_all_that_are_not_empty():
    every = chain.from_iterable(combinations("tav", size) for size in range(1, 4))
    assert sorted(SUBSETS) == sorted("".join(letters) for letters in every)
    assert len(SUBSETS) == 7


def test_every_model_has_a_training_of_each_subset(ask, listener):
    rows = _rows(ask(None, ("mesm", "fe2e"), top_p=0.3), listener())
    assert {label: folder for label, (folder, _) in rows.items()} == {
        f"{name}, {subset}": f"{name}/{subset}" for name in ("mesm", "fe2e") for subset in SUBSETS
    }
    for label, (_, planned) in rows.items():
        assert planned.prepared.model.given["modalities"] == label.split(", ")[1]
        assert planned.prepared.model.given.get("top_p") == (0.3 if planned.name == "mesm" else None)


def test_each_run_has_its_subset_and_its_score_is_in_the_table(ablated):
    out, result = ablated
    for subset in result["ablation"]["subsets"]:
        letters = subset["modalities"]
        folder = out / "fe2e" / letters / "seed-0"
        assert models.load(folder).config.modalities == letters
        metrics = json.loads((folder / "metrics.json").read_text())["splits"]["test"]["metrics"]
        score = subset["scores"]["fe2e"]
        assert score["mean"] == metrics["multi_label"]["f1"]["value"]
        assert (subset["done"]["fe2e"]["towers"] > 0) == bool({"a", "v"} & set(letters))
        assert (subset["done"]["fe2e"]["text"] > 0) == ("t" in letters)
    done = {subset["modalities"]: subset["done"]["fe2e"]["total"] for subset in result["ablation"]["subsets"]}
    assert done["tav"] == pytest.approx(done["t"] + done["a"] + done["v"])


def test_the_page_names_data_protocol_stand_in_and_the_paper(ablated, toy_corpus):
    out, result = ablated
    assert json.loads((out / "ablate.json").read_text()) == result
    markdown, page = (out / "ablate.md").read_text(), (out / "ablate.html").read_text()
    for part in (STANDIN_NOTICE, "session:5", "toy", "5 test utterances", "text is the best alone"):
        assert part in markdown
    for part in (STANDIN_NOTICE, "session:5", "toy", "5 test utterances", "<td>TAV</td>"):
        assert part in page
    assert result["command"].startswith(
        f"pipeline ablate --data {toy_corpus} --models fe2e --seeds 1 --out {out} --set"
    )
    assert [row[0].text for row in sheet(result).tables[0].rows] == ["T", "A", "V", "TA", "TV", "AV", "TAV"]


def made(scores, lower=False):
    """An ablation whose runs of m have these means by subset; None: undefined, absent: failed."""
    about = {"definition": "d", "baseline": 0.1, "baseline_definition": "b", "lower_is_better": lower}
    rows = [
        {"model": f"m, {subset}", "scores": {"multi_label": {"f1": {"mean": mean, "spread": 0.0, "values": [mean]}}}}
        for subset, mean in scores.items()
    ]
    return {"task": "multi-label", "monitor": "f1", "metrics": {"multi_label": {"f1": about}}, "models": rows}


@pytest.mark.parametrize(
    ("scores", "lower", "finding"),
    [
        ({"t": 0.4, "a": 0.5, "tav": 0.7}, False, "m: best of all tav (0.700), best alone a (0.500)."),
        ({"t": 0.4, "a": 0.5, "tav": 0.7}, True, "m: best of all t (0.400), best alone t (0.400)."),
        ({"t": None, "ta": 0.5}, False, "m: best of all ta (0.500)."),
        ({"t": None}, False, "m: no subset has a score."),
    ],
)
def test_it_names_the_best_subset(scores, lower, finding, monkeypatch):
    ended = Trained({f"m, {subset}": [] for subset in scores}, [])
    monkeypatch.setattr(sys.modules["pipeline.ablate"], "done_over_seeds", lambda runs: {"total": 0.0})
    found = _ablation(made(scores, lower), ended, ["m"])
    assert found["findings"][0] == finding
    absent = [subset["modalities"] for subset in found["subsets"] if not subset["scores"]]
    assert absent == [subset for subset in SUBSETS if subset not in scores]


@pytest.mark.parametrize(
    ("names", "values", "message"),
    [
        (("fe2e",), {"modalities": "ta"}, "--set modalities: leave it out"),
        (("all",), {}, "--models is 'all': name the models"),
        (("fe2e",), {"top_p": 0.5}, "--set top_p: a setting neither"),
    ],
)
def test_what_cannot_be_ablated_is_refused(tmp_path, ask, listener, names, values, message):
    with pytest.raises(ConfigError, match=message):
        ablate(ask(tmp_path / "out", names, **values), listener())
    assert not (tmp_path / "out").exists()


def test_the_command_hands_the_frontend_to_every_training(ask, listener, toy_corpus, monkeypatch, capsys):
    given = []
    command = replace(
        load_command("ablate"), function=lambda asked: given.append(asked) or {"failed": {}}, for_people=None
    )
    monkeypatch.setattr(cli, "load_command", lambda name: command)
    flags = ["ablate", "--data", str(toy_corpus), "--models", "lf-lstm", "--frontend", "towers", "--device", "cpu"]
    main([*flags, "--set", "text_encoder=tiny", "--json"])
    assert json.loads(capsys.readouterr().out) == {"failed": {}}
    for _, planned in _rows(given[0], listener()).values():
        assert planned.prepared.model.given["frontend"] == "towers"
