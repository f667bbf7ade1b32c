"""A grid of numbers as a person types it, and how many trainings a study may ask for."""

from decimal import Decimal, InvalidOperation

from pipeline.settings import ConfigError

# More than this is a mistyped step sooner than a plan.
MOST_RUNS = 500


def parse_grid(text: str, flag: str = "--top-p") -> tuple[float, ...]:
    """`0.1:1.0:0.1` (first, last, step) or `0.3,0.5,0.9` as numbers in (0, 1], exact: 0.3, not 0.30000000000000004.

    The last number is one of the grid only where a step falls on it.

    Raises:
        ConfigError: not numbers, a step that is not above 0, a first one above the last, values outside (0, 1], one
            that comes twice, or more than `MOST_RUNS`.
    """
    parts = text.split(":")
    if len(parts) not in (1, 3):
        raise ConfigError(
            f"{flag} is {text!r}: expected FIRST:LAST:STEP, for example 0.1:1.0:0.1, or values with commas"
        )
    try:
        values = [Decimal(part.strip()) for part in (parts if len(parts) == 3 else text.split(","))]
    except InvalidOperation:
        raise ConfigError(f"{flag} is {text!r}: not all of it are numbers; expected for example 0.1:1.0:0.1") from None
    if not all(value.is_finite() for value in values):
        raise ConfigError(f"{flag} is {text!r}: give finite numbers, for example 0.1:1.0:0.1")
    found = _steps(values, text, flag) if len(parts) == 3 else values
    if wrong := [value for value in found if not 0 < value <= 1]:
        raise ConfigError(f"{flag} is {text!r}: {wrong[0]} is outside (0, 1]; 1 keeps every site")
    if len(set(found)) < len(found):
        raise ConfigError(f"{flag} is {text!r}: a value comes twice; give each one once")
    return tuple(float(value) for value in sorted(found))


def _steps(given: list[Decimal], text: str, flag: str) -> list[Decimal]:
    first, last, step = given
    if step <= 0:
        raise ConfigError(f"{flag} is {text!r}: the step is {step}; give one above 0, for example 0.1:1.0:0.1")
    if first > last:
        raise ConfigError(f"{flag} is {text!r}: it begins above its end; give FIRST:LAST:STEP, for example 0.1:1.0:0.1")
    count = int((last - first) / step) + 1
    check_runs(count, f"{flag} {text}")
    return [first + number * step for number in range(count)]


def check_runs(count: int, asked_by: str) -> None:
    """Refuse more than `MOST_RUNS` trainings. asked_by: the flags that ask for them.

    Raises:
        ConfigError: there are more.
    """
    if count > MOST_RUNS:
        raise ConfigError(
            f"{asked_by}: {count} trainings, and at most {MOST_RUNS} make one table; give fewer values, models or seeds"
        )
