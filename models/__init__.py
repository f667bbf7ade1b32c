"""Networks only: no paths of data, no argument parsing, no data set names.

`REGISTRY` is the list of models. `build` makes one from settings; `save` and `load` keep one in a folder.
"""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

import data_tools.batch  # noqa: F401  before torch: data_tools/__init__.py sets up its threads
from models.base import Model, ModelSettings
from models.checkpoint import read_model, write_model
from models.cmt import CMT, CMTConfig
from models.emoembs import EmoEmbs, EmoEmbsConfig
from models.emt import EMT, EMTConfig
from models.emt_dlfr import EMTDLFR, EMTDLFRConfig
from models.errors import ModelError
from models.fe2e import FE2E, FE2EConfig
from models.layers.pretrained import Most, check_size
from models.layers.speech import SpeechEncoder, pretrained_speech
from models.layers.text import TextEncoder, pretrained, tokenizer_of
from models.layers.tokenizers import Tokenizer
from models.lf_lstm import LFLSTM, LFLSTMConfig
from models.lf_trans import LFTrans, LFTransConfig
from models.lmf import LMF, LMFConfig
from models.lmr_cbt import LMRCBT, LMRCBTConfig
from models.mesm import MESM, MESMConfig
from models.mult import MulT, MulTConfig
from models.tfn import TFN, TFNConfig
from models.tfr_net import TFRNet, TFRNetConfig
from models.ucrn import UCRN, UCRNConfig

# Of a model that is built anew: 80 GB in float32, forty times the largest of the papers'.
_MOST = Most(20 * 10**9, 100_000)

REGISTRY: dict[str, tuple[type[ModelSettings], type[Model]]] = {
    "fe2e": (FE2EConfig, FE2E),
    "mesm": (MESMConfig, MESM),
    "mult": (MulTConfig, MulT),
    "emt": (EMTConfig, EMT),
    "lmr-cbt": (LMRCBTConfig, LMRCBT),
    "ucrn": (UCRNConfig, UCRN),
    "emt-dlfr": (EMTDLFRConfig, EMTDLFR),
    "tfr-net": (TFRNetConfig, TFRNet),
    "cmt": (CMTConfig, CMT),
    "lf-lstm": (LFLSTMConfig, LFLSTM),
    "lf-trans": (LFTransConfig, LFTrans),
    "emoembs": (EmoEmbsConfig, EmoEmbs),
    "tfn": (TFNConfig, TFN),
    "lmf": (LMFConfig, LMF),
}

__all__ = ["REGISTRY", "ModelError", "build", "config_of", "load", "save", "start_from", "tokenizer_for"]


def config_of(name: str, settings: dict[str, Any]) -> ModelSettings:
    """The checked settings of the model called `name`, defaults filled in.

    Raises:
        ModelError: unknown model or setting (the known ones are listed), or a value out of range.
    """
    if name not in REGISTRY:
        raise ModelError(f"model is {name!r}; known: {', '.join(REGISTRY)}")
    config_class, _ = REGISTRY[name]
    try:
        return config_class.model_validate(settings)
    except ValidationError as error:
        problems = [_problem(name, config_class, found) for found in error.errors()]
        raise ModelError("\n".join(problems)) from None


def _problem(name: str, config_class: type[ModelSettings], error: Any) -> str:
    setting = ".".join(map(str, error["loc"]))
    field = config_class.model_fields.get(str(error["loc"][0])) if error["loc"] else None
    if error["type"] == "extra_forbidden":
        return f"{name} has no setting {setting!r:.100}; known: {', '.join(config_class.model_fields)}"
    if field is None:
        return f"{name}: {setting:.100} {error['msg']}".replace(":  ", ": ")
    return f"{name}.{setting} is {error['input']!r:.200}: {error['msg']} ({field.description})"


def build(name: str, **settings: Any) -> Model:
    """A new model in training mode, with random weights but for its pretrained encoders'.

    Raises:
        ModelError: as `config_of`, or an encoder cannot be read.
    """
    config = config_of(name, settings)
    text = pretrained(config.text_encoder, config.max_tokens) if config.reads_tokens else None
    # A pretrained encoder comes in evaluation mode.
    speech = None if config.waveform_encoder is None else pretrained_speech(config.waveform_encoder)
    return _make(name, config, text, speech, _MOST).train()


def _make(
    name: str, config: ModelSettings, text: TextEncoder | None, speech: SpeechEncoder | None, most: Most
) -> Model:
    """The model, refused before it takes any memory where it is larger than `most`, its encoders apart."""
    encoders = (text,) if speech is None else (text, speech)

    def make() -> Model:
        return REGISTRY[name][1](config, *encoders)

    try:
        check_size(make, most, f"the configuration of {name}")
        return make()
    except ModelError:
        raise
    except (RuntimeError, ValueError, TypeError, ArithmeticError, MemoryError, AssertionError) as error:
        raise ModelError(f"{name} cannot be built with these settings ({error!s:.200}); change them") from error


def save(model: Model, folder: str | Path) -> None:
    """The model with all it needs in `folder`: `model.safetensors`, `model.json`, `tokenizer/`.

    Raises:
        ModelError: not a model of the registry, or the folder cannot be written.
    """
    for name, (_, model_class) in REGISTRY.items():
        if type(model) is model_class:
            return write_model(Path(folder), name, model)
    raise ModelError(f"cannot save a {type(model).__name__}; known: {', '.join(REGISTRY)}")


def load(run_dir: str | Path) -> Model:
    """The model that `save` wrote, on the CPU, in evaluation mode. Fetches nothing.

    Raises:
        ModelError: no readable model there, or one that these settings don't fit.
    """
    saved = read_model(Path(run_dir))
    config = config_of(saved.name, saved.settings)
    model = _make(saved.name, config, saved.text_encoder(config.max_tokens), saved.speech_encoder(), saved.most)
    try:
        model.load_state_dict(saved.weights)
    except RuntimeError as error:
        raise ModelError(f"the weights in {run_dir} don't fit its settings: {error!s:.1000}") from error
    return model.eval()


def start_from(model: Model, folder: str | Path) -> None:
    """Put the weights that `save` wrote into `model`, all but those whose sizes follow from another `outputs`.

    Raises:
        ModelError: no readable model there, or one of another name or settings; dropouts, `max_tokens`, `outputs` and
            CMT's `audio_layer` may differ.
    """
    saved = read_model(Path(folder))
    kind = REGISTRY[saved.name][1] if saved.name in REGISTRY else None
    if type(model) is not kind:
        raise ModelError(f"init is {folder}, which holds the model {saved.name!r}, not a {type(model).__name__}")
    own = model.config.model_dump()
    theirs = config_of(saved.name, saved.settings).model_dump()
    free = {"outputs", "max_tokens", "audio_layer"} | {key for key in own if "dropout" in key}
    changed = [f"{key} there is {theirs[key]!r}, here {own[key]!r}" for key in own if own[key] != theirs[key]]
    if wrong := [line for line in changed if line.split()[0] not in free]:
        raise ModelError(f"init is {folder}, a model of other settings: {'; '.join(wrong)}; give the same")
    weights = model.state_dict()
    for key, value in saved.weights.items():
        if key not in weights:
            raise ModelError(f"init is {folder}, which has weights {key!r} that this model lacks; train it again")
        if weights[key].shape == value.shape:
            weights[key] = value
        elif own["outputs"] == theirs["outputs"]:
            raise ModelError(
                f"init is {folder}, whose {key!r} is {tuple(value.shape)} and not {tuple(weights[key].shape)}; "
                "give the same encoders"
            )
    model.load_state_dict(weights)


def tokenizer_for(model: Model | str, max_tokens: int = 100) -> Tokenizer:
    """Texts -> `(tokens (B, L) int64, mask (B, L) bool)`, cut at max_tokens, padded to the longest of these texts.

    model: a model of the registry (its own tokenizer and limit; a model without text gets the `tiny` one, whose
    tokens it never reads), or the name of a text encoder.

    Raises:
        ModelError: no such text encoder.
    """
    if isinstance(model, str):
        return tokenizer_of(model, max_tokens)
    if model.text is None:
        return tokenizer_of("tiny", max_tokens)
    tokenizer: Tokenizer = model.text.tokenizer
    return tokenizer
