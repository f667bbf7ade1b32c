"""The one error that the data stages raise for what a person can mend."""


class DataError(Exception):
    """Bad or missing data. The message names the thing, its value, what was expected and the next step."""
