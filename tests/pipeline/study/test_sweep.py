import csv
import json
import re
import sys

import numpy as np
import pytest

import models
from pipeline import cli
from pipeline.counting.model import count_run
from pipeline.report.figures import sweep_png
from pipeline.run_data import STANDIN_NOTICE
from pipeline.settings import ConfigError
from pipeline.study import runs as runs_module
from pipeline.sweep import SweepSettings, _findings, sheet, sweep
from pipeline.training.loop import TrainingError

TOP_P = (0.2, 0.5)


@pytest.fixture(scope="module")
def ask(toy_corpus, tiny):
    def build(out, top_p=TOP_P, seeds=1, names=("mesm", "fe2e"), **values):
        known = {"backend": "torch"} if "mesm" in names else {}
        return SweepSettings(
            data=toy_corpus, models=names, seeds=seeds, out=out, values=tiny | known | values, top_p=top_p
        )

    return build


@pytest.fixture(scope="module")
def swept(tmp_path_factory, ask, listener):
    """(folder, result, lines) of two values of top_p with two seeds."""
    out, reporter = tmp_path_factory.mktemp("swept") / "out", listener()
    return out, sweep(ask(out, seeds=2), reporter), reporter.lines


LABELS = {"fe2e": "fe2e", "mesm, top_p 0.2": "mesm/top_p-0.2", "mesm, top_p 0.5": "mesm/top_p-0.5"}


def test_the_sparse_model_is_trained_at_each_value_and_the_dense_one_once(swept):
    out, result, _ = swept
    assert sorted(str(path.parent.relative_to(out)) for path in out.rglob("settings.yaml")) == sorted(
        f"{folder}/seed-{seed}" for folder in LABELS.values() for seed in (0, 1)
    )
    for top_p in TOP_P:
        assert models.load(out / "mesm" / f"top_p-{top_p}" / "seed-1").config.top_p == top_p
    assert [(point["label"], point["top_p"]) for point in result["sweep"]["points"]] == list(
        zip(LABELS, (None, *TOP_P), strict=True)
    )


def test_scores_and_multiply_adds_are_those_of_the_runs(swept):
    out, result, _ = swept
    means = {}
    for point in result["sweep"]["points"]:
        folders = [out / LABELS[point["label"]] / f"seed-{seed}" for seed in (0, 1)]
        reports = [json.loads((folder / "metrics.json").read_text())["splits"]["test"] for folder in folders]
        values = [report["metrics"]["multi_label"]["f1"]["value"] for report in reports]
        assert point["score"]["values"] == values
        assert point["score"]["mean"] == pytest.approx(np.mean(values))
        assert point["score"]["spread"] == pytest.approx(np.std(values), abs=1e-12)
        logs = [list(csv.DictReader((folder / "log.csv").open()))[-1] for folder in folders]
        towers = [float(log["face.macs"]) + float(log["mel.macs"]) for log in logs]
        assert point["done"]["towers"] == pytest.approx(np.mean(towers))
        assert point["done"]["towers_spread"] == pytest.approx(np.std(towers))
        assert point["done"]["text"] == pytest.approx(np.mean([float(log["text.macs"]) for log in logs]))
        totals = [count_run(folder)["run"]["per_utterance"]["total"] for folder in folders]
        assert point["done"]["total"] == pytest.approx(np.mean(totals))
        means[point["top_p"]] = np.mean(towers)
        assert point["of_fe2e"] == pytest.approx(np.mean(towers) / means[None])
    assert means[0.2] < means[0.5]


def test_the_page_names_data_protocol_stand_in_and_the_papers_figures(swept, toy_corpus):
    out, result, _ = swept
    assert json.loads((out / "sweep.json").read_text()) == result
    markdown, page = (out / "sweep.md").read_text(), (out / "sweep.html").read_text()
    points = result["sweep"]["points"]
    for text in (markdown, page):
        for part in (STANDIN_NOTICE, "session:5", "toy", "5 test utterances", "0.50 in the paper (4.34 of 8.65 x 1e9"):
            assert part in text
        assert "never fall while top_p rises. In the paper they fall consistently" in text
        for point in points:
            assert f"{point['score']['mean']:.3f} ± {point['score']['spread']:.3f}" in text
            assert f"{point['done']['towers'] / 1e6:,.2f}" in text
    assert 'src="data:image/png;base64,' in page
    assert "<script" not in page
    share = points[2]["of_fe2e"]
    assert f"mesm at top_p 0.5: {share:.2f} of the multiply-adds of FE2E's towers here" in markdown
    for block in re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE):
        assert len({line.count(" | ") for line in block.splitlines()}) == 1
    command = f"pipeline sweep --data {toy_corpus} --models mesm,fe2e --top-p 0.2,0.5 --seeds 2 --out {out} --set "
    assert result["command"].startswith(command)


def test_the_time_left_is_estimated_from_the_runs_so_far(swept):
    _, _, lines = swept
    found = [re.fullmatch(r"(\d) of 6 runs are over; about (\d+) s left", line) for line in lines]
    left = [(int(match[1]), int(match[2])) for match in found if match]
    # By the listener's clock, which counts how often it is read, each run takes as long.
    one_s = left[-1][1]
    assert one_s > 0
    assert left == [(done, (6 - done) * one_s) for done in range(1, 6)]


def test_an_interrupted_sweep_goes_on_and_keeps_what_is_finished(tmp_path, ask, listener, swept, run_files):
    whole, _, _ = swept
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        sweep(ask(out), listener(stop_at="run 3 of 3"))
    assert not (out / "sweep.json").exists()
    before = run_files(out)
    reporter = listener()
    result = sweep(ask(out), reporter)
    after = run_files(out)
    assert {name: after[name] for name in before} == before
    assert [line for line in reporter.lines if line.endswith("finished, kept")] == [
        "run 1 of 3: fe2e, seed 0: finished, kept",
        "run 2 of 3: mesm, top_p 0.2, seed 0: finished, kept",
    ]
    for name in ("model.safetensors", "metrics.json"):
        assert after[f"mesm/top_p-0.5/seed-0/{name}"] == (whole / "mesm/top_p-0.5/seed-0" / name).read_bytes()
    # Once more, with a further value: what is there is not touched.
    wider = sweep(ask(out, top_p=(0.2, 0.5, 0.9)), listener())
    assert wider["sweep"]["points"][:3] == result["sweep"]["points"]
    assert {name: content for name, content in run_files(out).items() if name in after} == after
    # Changed settings are refused before anything is trained, those of a late run too.
    with pytest.raises(ConfigError, match=r"learning_rate: was 0.001, now 0.5"):
        sweep(ask(out, top_p=(0.1, 0.2), learning_rate=0.5), reporter := listener())
    assert not (out / "mesm" / "top_p-0.1").exists()
    assert reporter.lines == []


def test_a_value_whose_runs_fail_is_named_and_the_others_are_drawn(tmp_path, ask, listener, monkeypatch):
    really = runs_module.train

    def train(settings, model, reporter, resume, test):
        if model.given.get("top_p") == 0.5:
            raise TrainingError("the loss is nan in step 3")
        return really(settings, model, reporter, resume=resume, test=test)

    monkeypatch.setattr(runs_module, "train", train)
    result = sweep(ask(tmp_path / "out", names=("mesm",)), listener())
    assert result["failed"] == [{"model": "mesm, top_p 0.5", "seed": 0, "reason": "the loss is nan in step 3"}]
    assert [point["top_p"] for point in result["sweep"]["points"]] == [0.2]
    assert result["sweep"]["points"][0]["of_fe2e"] is None  # FE2E was not asked for
    assert "mesm, top_p 0.5, seed 0, failed: the loss is nan in step 3" in (tmp_path / "out" / "sweep.md").read_text()


def points(*found):
    """(model, top_p, score, multiply-adds, share of FE2E) each."""
    return [
        {
            "label": f"{model}{top_p}",
            "model": model,
            "top_p": top_p,
            "score": {"mean": score, "spread": None if score is None else 0.01, "values": [score, score]},
            "done": {"towers": macs, "towers_spread": 0.0, "text": 0.0, "total": macs, "share_of_sites": {}},
            "of_fe2e": share,
        }
        for model, top_p, score, macs, share in found
    ]


def test_it_says_where_the_multiply_adds_fall_and_how_the_score_changes():
    found = {"metric": {"name": "f1"}} | {
        "points": points(("mesm", 0.1, 0.2, 1e9, None), ("mesm", 0.5, 0.6, 3e9, None), ("mesm", 0.9, None, 2e9, None))
    }
    text = "\n".join(_findings(found))
    assert "the multiply-adds of the towers fall from top_p 0.5 to 0.9." in text
    assert "f1 from top_p 0.5 to 0.1: 0.600 to 0.200. The paper's weighted accuracy: a clear downgrade." in text
    assert "f1 from top_p 0.9 to 0.5: undefined to 0.600. The paper's weighted accuracy: no significant drop." in text
    assert "FE2E's towers here" not in text


def test_the_picture_changes_with_what_was_found():
    def drawn(score, share):
        dense = ("fe2e", None, 0.5, 4e9, None if share is None else 1.0)
        found = {
            "metric": {"name": "f1"},
            "paper": {"of_fe2e": {"0.7": 0.6}},
            "points": points(dense, ("mesm", 0.5, score, 2e9, share), ("mesm", 0.7, None, 3e9, share)),
        }
        return sweep_png(found)

    first = drawn(0.6, 0.5)
    assert first == drawn(0.6, 0.5)
    assert len({first, drawn(0.7, 0.5), drawn(0.6, 0.3), drawn(0.6, None)}) == 4
    assert all(picture.startswith(b"\x89PNG") for picture in (first, drawn(0.6, None)))


@pytest.mark.parametrize(
    ("names", "values", "message"),
    [
        (("fe2e",), {}, "none has a top_p; add mesm"),
        (("mesm", "lf-lstm"), {}, "--models has lf-lstm, which count no multiply-adds"),
        (("mesm",), {"top_p": 0.5}, "--set top_p: give it as --top-p"),
        (("mesm",), {"modalities": "t"}, "top_p selects sites of faces and sound"),
        (("mesm", "fe2e"), {"epohcs": 3}, "--set epohcs: a setting neither"),
    ],
)
def test_what_cannot_be_swept_is_refused(tmp_path, ask, listener, names, values, message):
    with pytest.raises(ConfigError, match=message):
        asked = ask(tmp_path / "out", names=names)
        sweep(asked.model_copy(update={"values": asked.values | values}), listener())
    assert not (tmp_path / "out").exists()


def test_too_many_seeds_are_refused_before_anything_is_trained(tmp_path, ask, listener):
    with pytest.raises(ConfigError, match="3 rows with --seeds 200: 600 trainings"):
        sweep(ask(tmp_path / "out", seeds=200), listener())
    assert not list(tmp_path.rglob("settings.yaml"))


def test_the_command_line_reads_the_grid_and_prints_the_table(tmp_path, ask, swept, toy_corpus, monkeypatch, capsys):
    out, result, _ = swept
    sets = [f"--set={key}={value}" for key, value in ask(out).values.items() if key != "device"]
    flags = ["--data", toy_corpus, "--top-p", "0.2:0.5:0.3", "--seeds", 2, "--device", "cpu", "--out", out]
    monkeypatch.setattr(sys, "argv", ["pipeline", "sweep", *map(str, flags), *sets])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
        raise SystemExit(0)
    assert not stopped.value.code
    assert capsys.readouterr().out.strip() == (out / "sweep.md").read_text().strip()
    assert sheet(result).tables[0].rows[1][0].text == "mesm, top_p 0.2"
