"""A study of missing input: each model trained and tested at each rate, and the area under its curve."""

import json
from statistics import mean, pstdev

import numpy as np
import pytest

from pipeline.cli import main
from pipeline.robustness import RobustnessSettings, robustness
from pipeline.run import RunDir
from pipeline.run_data import STANDIN_NOTICE
from pipeline.settings import ConfigError
from pipeline.study.missing import sheet

TINY = {"text_encoder": "tiny", "width": 4, "layers": 1, "modalities": "t", "epochs": 1, "batch_size": 8}
VALUES = TINY | {"precision": "32-true", "task": "single-label"}
RATES, SEEDS = (0.1, 0.6, 1.0), (3, 11)


@pytest.fixture(scope="module")
def studied(tmp_path_factory, toy_corpus, listener):
    out = tmp_path_factory.mktemp("missing") / "out"
    asked = RobustnessSettings(
        models=("fe2e",), data=toy_corpus, out=out, rates=RATES, seeds=SEEDS, values=VALUES, device="cpu"
    )
    with pytest.raises(KeyboardInterrupt):
        robustness(asked, listener(stop_at="run 3 of 6"))
    reporter = listener()
    return out, robustness(asked, reporter), reporter.lines


def test_each_run_is_trained_and_tested_at_its_rate_with_its_seed(studied, listener):
    out, result, lines = studied
    assert sum(line.endswith("finished, kept") for line in lines) == 2
    for rate in RATES:
        for seed in SEEDS:
            run = RunDir(out / "fe2e" / f"rate-{rate:g}" / f"seed-{seed}")
            settings = run.read_settings()[0]
            assert (settings.seed, settings.damage.rate, settings.damage.seed) == (seed, rate, seed)
            again = robustness(RobustnessSettings(run=run.path, rates=(rate,), seeds=(seed,), device="cpu"), listener())
            at = SEEDS.index(seed)
            for metric, curve in result["missing"]["models"]["fe2e"]["curves"].items():
                assert curve[f"{rate:g}"]["values"][at] == again["conditions"][0]["seeds"][str(seed)][metric]


def test_the_area_is_that_under_each_seeds_curve(studied):
    _, result, _ = studied
    found = result["missing"]["models"]["fe2e"]
    assert list(result["missing"]["areas"]) == ["auilc"]  # there is no rate 0
    for metric, curve in found["curves"].items():
        values = [[curve[f"{rate:g}"]["values"][i] for rate in RATES] for i in range(2)]
        areas = [float(np.trapezoid(line, RATES)) for line in values]
        area = found["areas"]["auilc"][metric]
        assert area["values"] == pytest.approx(areas)
        assert (area["mean"], area["spread"]) == (pytest.approx(mean(areas)), pytest.approx(pstdev(areas), abs=1e-12))


def test_the_page_has_areas_curves_and_the_stand_in_notice(studied, toy_corpus):
    out, result, _ = studied
    assert json.loads((out / "robustness.json").read_text()) == result
    tables = sheet(result).tables
    assert tables[0].title == "AUILC"
    assert list(tables[1].columns) == ["model", "0.1", "0.6", "1"]
    page = (out / "robustness.html").read_text()
    for part in (STANDIN_NOTICE, "toy", "data:image/png", "AUILC", "trained and tested at one rate"):
        assert part in page
    assert f"--data {toy_corpus} --models fe2e --rates 0.1,0.6,1 --seeds 3,11" in result["command"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "give either --run for a finished run or --models"),
        ({"models": ("fe2e",), "run": "x"}, "give either --run"),
        ({"models": ("fe2e",), "protocol": "absent"}, "a study trains on missing steps"),
        ({"models": ("fe2e",), "values": {"damage": None}}, "--set damage: leave it out"),
        ({"run": "x", "values": {"epochs": 1}}, "--set and --out are for a study"),
    ],
)
def test_what_is_no_study_is_refused(values, message, listener):
    with pytest.raises(ConfigError, match=message):
        robustness(RobustnessSettings(**values), listener())


@pytest.mark.slow
def test_rate_0_is_trained_without_damage_and_begins_the_area_of_the_released_code(tmp_path, toy_corpus, capsys):
    sets = [part for key, value in VALUES.items() for part in ("--set", f"{key}={value}")]
    flags = ["--data", str(toy_corpus), "--rates", "0,0.1,0.5", "--seeds", "0", "--out", str(tmp_path / "out")]
    main(["robustness", "--models", "fe2e", *flags, "--device", "cpu", *sets, "--json"])
    found = json.loads(capsys.readouterr().out)["missing"]
    assert list(found["areas"]) == ["auilc", "auilc_from_zero"]
    assert RunDir(tmp_path / "out/fe2e/rate-0/seed-0").read_settings()[0].damage is None
    curve = [found["models"]["fe2e"]["curves"]["accuracy"][rate]["mean"] for rate in ("0", "0.1", "0.5")]
    area = found["models"]["fe2e"]["areas"]["auilc_from_zero"]["accuracy"]["mean"]
    assert area == pytest.approx(np.trapezoid(curve, [0, 0.1, 0.5]))
