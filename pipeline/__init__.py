"""Emotion recognition from raw video, audio and text: every command of `pipeline` is a function here.

>>> import pipeline
>>> pipeline.train(model="mesm", top_p=0.5, data="data/iemocap")  # doctest: +SKIP

Flags are keyword arguments with the same names and defaults, and so are the settings that `--set` takes. A function
returns what `--json` prints. docs/python-api.md has each of them.
"""

import sys
from types import ModuleType
from typing import Any

from pipeline.cli import api_functions

_FUNCTIONS = api_functions()


class _Package(ModuleType):
    """This package, in which `pipeline.train` stays the function when the file of that name is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _FUNCTIONS and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


globals().update(_FUNCTIONS)
sys.modules[__name__].__class__ = _Package
