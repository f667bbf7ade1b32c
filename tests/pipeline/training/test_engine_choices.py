"""Engines that `auto` took are read back from a run's folder and the machine's cache, the run's first."""

import json

import pytest
import torch

from data_tools.errors import DataError
from models.layers import backends, choice
from models.layers.choice import picked, take_up
from models.layers.sparse_map import Sites
from pipeline.training.engine_choices import keep_choices, of_machine, take_up_choices


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = picked()
    choice.forget()
    yield
    choice.forget()
    take_up(before)


def take(choices):
    """As if `auto` had measured and used them."""
    take_up(choices)
    choice._used.update(choices)


def test_a_second_process_takes_what_the_first_one_took(tmp_path):
    take({"kind": "gather"})
    assert keep_choices(tmp_path / "engines.json") == ["  auto took gather: kind"]
    choice.forget()  # as a new process
    take_up_choices(tmp_path / "another run.json")
    assert picked() == {"kind": "gather"}


def test_the_run_goes_before_the_machine_and_the_machine_keeps_what_it_had(tmp_path):
    run = tmp_path / "engines.json"
    take({"kind": "gather"})
    keep_choices(run)
    choice.forget()
    take({"kind": "dense", "other": "torch"})
    keep_choices(tmp_path / "another.json")
    assert json.loads(of_machine().read_text()) == {"kind": "gather", "other": "torch"}
    of_machine().write_text('{"kind": "torch"}')
    choice.forget()
    take_up_choices(run)
    assert picked() == {"kind": "gather"}


def test_only_what_is_new_is_said_and_nothing_makes_no_file(tmp_path):
    run = tmp_path / "engines.json"
    assert keep_choices(run) == []
    assert not run.exists()
    take({"a": "torch"})
    keep_choices(run)
    take({"b": "dense"})
    assert keep_choices(run) == ["  auto took dense: b"]


def test_what_the_machine_knows_and_the_run_never_met_is_not_said(tmp_path):
    of_machine().parent.mkdir(parents=True)
    of_machine().write_text('{"kind": "gather"}')
    take_up_choices(tmp_path / "engines.json")
    assert keep_choices(tmp_path / "engines.json") == []
    assert not (tmp_path / "engines.json").exists()


def test_a_damaged_cache_is_measured_anew_and_a_damaged_run_is_named(tmp_path):
    of_machine().parent.mkdir(parents=True)
    of_machine().write_text("{")
    take_up_choices(tmp_path / "engines.json")
    assert picked() == {}
    (tmp_path / "engines.json").write_text('{"kind": 3}')
    with pytest.raises(DataError, match="engines.json is damaged.*delete it"):
        take_up_choices(tmp_path / "engines.json")


def test_a_repeated_run_has_the_same_bits_whatever_is_fastest_by_then(monkeypatch, tmp_path):
    monkeypatch.setattr(backends, "WORTH_MEASURING", 0)
    generator = torch.Generator().manual_seed(0)
    sites = Sites(torch.rand(9, 12, 12, generator=generator) < 0.5)
    rows, weight = torch.randn(len(sites), 32, generator=generator), torch.randn(48, 32, 3, 3, generator=generator)

    def run_where_the_fastest_is(name):
        choice.forget()
        monkeypatch.setattr(choice, "_winner", lambda _seconds: name)
        take_up_choices(tmp_path / "engines.json")
        out, _ = backends.convolve(rows, weight, sites, "auto")
        keep_choices(tmp_path / "engines.json")
        return out

    first = run_where_the_fastest_is("torch")
    assert torch.equal(run_where_the_fastest_is("dense"), first)
    assert not torch.equal(backends.convolve(rows, weight, sites, "dense")[0], first)
