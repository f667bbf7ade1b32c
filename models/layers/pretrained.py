"""Errors of transformers, where it reads a pretrained encoder or builds a saved one, turned into ModelError."""

from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError

from models.errors import ModelError


@contextmanager
def reading(asked: str, choices: str) -> Iterator[None]:
    """For the block that reads an encoder. asked: the setting and its value. choices: what can be given instead.

    Raises:
        ModelError: nothing of that name here or on the hub, or damaged weights.
    """
    try:
        yield
    except ModelError:
        raise
    except (OSError, ValueError) as error:
        raise ModelError(f"{asked}: no such encoder could be read ({_first_line(error)}); give {choices}") from error
    except SafetensorError as error:
        raise ModelError(f"{asked}: its model.safetensors cannot be read ({error}); copy or fetch it again") from error


@contextmanager
def building(what: str) -> Iterator[None]:
    """For the block that builds an encoder from its saved configuration. what: the beginning of the sentence.

    Raises:
        ModelError: the installed version of transformers cannot build it.
    """
    try:
        yield
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise ModelError(
            f"{what} cannot be built ({_first_line(error):.200}); install the version of transformers that the model "
            "was saved with"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
