"""The small corpus and the trained run of the pipeline's tests, for studies that train."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

_SPEC = spec_from_file_location("pipeline_conftest", Path(__file__).parents[1] / "pipeline" / "conftest.py")
_SHARED = module_from_spec(_SPEC)
_SPEC.loader.exec_module(_SHARED)

corpus_writer, toy_corpus, trained = _SHARED.corpus_writer, _SHARED.toy_corpus, _SHARED.trained
