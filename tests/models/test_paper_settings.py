"""The shipped configs have the numbers of the papers' tables, written down here a second time."""

import pytest

import models
from pipeline.model_configs import load_model_config
from pipeline.settings import config_names
from pipeline.training.settings import TrainSettings

# EMT-DLFR's paper, Table 3, a column a data set. The rate of BERT is learning_rate times text_learning_rate_scale.
EMT_TABLE_3 = {
    "mosi": {
        "batch_size": 32,
        "learning_rate": 1e-3,
        "bert_learning_rate": 5e-5,
        "patience": 8,
        "accumulate": 4,
        "size": 128,
        "layers": 3,
        "heads": 4,
        "attention_dropout": 0.3,
        "feed_forward_dropout": 0.1,
        "reconstruction": 1.0,
        "attraction": 1.0,
    },
    "mosei": {
        "batch_size": 16,
        "learning_rate": 1e-4,
        "bert_learning_rate": 2e-5,
        "patience": 8,
        "accumulate": 4,
        "size": 128,
        "layers": 2,
        "heads": 4,
        "attention_dropout": 0.0,
        "feed_forward_dropout": 0.0,
        "reconstruction": 1.0,
        "attraction": 1.0,
    },
    "sims": {
        "batch_size": 32,
        "learning_rate": 1e-3,
        "bert_learning_rate": 2e-5,
        "patience": 8,
        "accumulate": 4,
        "size": 32,
        "layers": 4,
        "heads": 4,
        "attention_dropout": 0.0,
        "feed_forward_dropout": 0.0,
        "reconstruction": 0.5,
        "attraction": 0.5,
    },
}
EMT_LOSS_WEIGHTS = ("reconstruction", "attraction")
# The same paper, section 4.2: the smallest and the largest rate of missing steps.
EMT_RATES = {"mosi": (0.1, 1.0), "mosei": (0.1, 1.0), "sims": (0.1, 0.5)}

# (config, numbers): what a table or a section states, and nothing else.
STATED = [
    # LMR-CBT, Table 1
    (
        "lmr-cbt",
        {
            "batch_size": 32,
            "learning_rate": 1e-3,
            "epochs": 120,
            "size": 40,
            "heads": 8,
            "vision_kernel": 3,
            "audio_kernel": 3,
            "layers": 5,
        },
    ),
    (
        "lmr-cbt-mosi",
        {
            "batch_size": 8,
            "learning_rate": 2e-3,
            "epochs": 100,
            "size": 30,
            "heads": 10,
            "vision_kernel": 3,
            "audio_kernel": 1,
            "layers": 4,
        },
    ),
    (
        "lmr-cbt-iemocap",
        {
            "batch_size": 32,
            "learning_rate": 1e-3,
            "epochs": 60,
            "size": 40,
            "heads": 5,
            "vision_kernel": 3,
            "audio_kernel": 5,
            "layers": 5,
        },
    ),
    # UCRN, section 4.2
    ("ucrn", {"batch_size": 16, "learning_rate": 1e-3, "layers": 5, "heads": 3}),
    ("ucrn-mosei", {"batch_size": 32, "learning_rate": 2e-3, "layers": 5, "heads": 3}),
    # CMT, section 4.2.2, and CMT base of section 4.2
    ("cmt-paper", {"batch_size": 16, "learning_rate": 1e-5, "epochs": 25, "depth": 2, "attention_heads": 4}),
    # MESM's paper, Table 6 on IEMOCAP, and the p of Table 3
    ("fe2e-paper", {"batch_size": 8, "learning_rate": 5e-5, "width": 64, "layers": 4, "max_tokens": 50}),
    ("mesm-paper", {"batch_size": 8, "learning_rate": 5e-5, "width": 64, "layers": 4, "max_tokens": 50, "top_p": 0.7}),
]
# Trained for a stated number of epochs, with no word of stopping before.
WITHOUT_EARLY_STOP = ("lmr-cbt", "lmr-cbt-mosi", "lmr-cbt-iemocap", "cmt-paper")


def settings_of(name):
    """(training settings, model settings) as a run with this config has them, each refused where it cannot work."""
    config = load_model_config(name)
    model = {key: value for key, value in config.model.items() if key != "name"}
    return TrainSettings.checked(config.train, name), models.config_of(config.model["name"], model)


def held(name, stated):
    """The numbers of a config under the keys of `stated`."""
    train, model = settings_of(name)
    return {key: getattr(train if key in TrainSettings.model_fields else model, key) for key in stated}


@pytest.mark.parametrize("name", config_names("models"))
def test_every_config_is_valid_training_and_a_valid_model(name):
    settings_of(name)


@pytest.mark.parametrize("model", ["emt", "emt-dlfr"])
@pytest.mark.parametrize("corpus", EMT_TABLE_3)
def test_emt_and_emt_dlfr_have_the_numbers_of_table_3(model, corpus):
    name = model if corpus == "mosi" else f"{model}-{corpus}"
    stated = dict(EMT_TABLE_3[corpus])
    weights = {loss: stated.pop(loss) for loss in EMT_LOSS_WEIGHTS}
    bert = stated.pop("bert_learning_rate")
    train, _ = settings_of(name)
    assert load_model_config(name).model["name"] == model
    assert held(name, stated) == stated
    assert train.learning_rate * train.text_learning_rate_scale == pytest.approx(bert)
    assert train.loss_weights == (weights if model == "emt-dlfr" else {})
    assert (train.damage and train.damage.rate) == (EMT_RATES[corpus] if model == "emt-dlfr" else None)


@pytest.mark.parametrize(("name", "stated"), STATED, ids=[name for name, _ in STATED])
def test_a_config_has_the_numbers_that_its_paper_states(name, stated):
    assert held(name, stated) == stated


def test_the_weight_of_cmts_orthogonality_is_equation_8s():
    train, _ = settings_of("cmt-paper")
    assert train.loss_weights == {"orthogonality": 10}


@pytest.mark.parametrize("name", WITHOUT_EARLY_STOP)
def test_no_early_stop_before_the_papers_epochs(name):
    train, _ = settings_of(name)
    assert train.patience >= train.epochs
