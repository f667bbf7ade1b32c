"""`import pipeline`: each command is a function, with the flags as keyword arguments and the answer of `--json`."""

import json
import subprocess
import sys

import pytest

import pipeline
from pipeline.cli import HELP, main
from pipeline.settings import ConfigError
from pipeline.training.log import TrainLog

TINY = {"text_encoder": "tiny", "width": 4, "layers": 1}


def test_every_command_is_a_function():
    for name, text in HELP.items():
        function = getattr(pipeline, name.replace("-", "_"))
        assert function.__name__ == name.replace("-", "_")
        assert function.__doc__.startswith(text)


def test_a_function_stays_a_function_when_the_file_of_its_name_is_imported():
    from pipeline.stats import stats

    assert callable(stats)
    assert pipeline.stats.__name__ == "stats"
    assert sys.modules["pipeline.stats"].stats is stats


def test_five_lines_train_and_score(toy_corpus, tmp_path):
    summary = pipeline.train(
        model="mesm", top_p=0.5, data=toy_corpus, out=tmp_path / "run", device="cpu", epochs=1, quiet=True, **TINY
    )
    assert summary["model"] == "mesm"
    assert len(TrainLog.read(tmp_path / "run" / "log.csv")) == 1
    scores = pipeline.evaluate(run=tmp_path / "run", split="valid", quiet=True)
    assert scores["metrics"] == summary["splits"]["valid"]["metrics"]


def test_the_answer_is_that_of_the_command_line(toy_corpus, capsys):
    main(["stats", "--data", str(toy_corpus), "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert pipeline.stats(data=toy_corpus) == printed
    assert capsys.readouterr().out == ""


def test_what_is_no_setting_is_refused_with_the_nearest_name(toy_corpus):
    with pytest.raises(TypeError, match=r"pipeline.stats has no argument 'dta'; did you mean data\?"):
        pipeline.stats(dta=toy_corpus)
    with pytest.raises(
        ConfigError, match=r"epohcs is a setting neither of training nor of mesm; did you mean epochs\?"
    ):
        pipeline.train(model="mesm", data=toy_corpus, epohcs=3)
    with pytest.raises(ConfigError, match=r"crff: unknown setting \(value 3\); did you mean crf\?"):
        pipeline.reorganize(dataset="iemocap", crff=3)


def test_help_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None; from pipeline.cli import main; main(['--help'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "reorganize" in done.stdout
