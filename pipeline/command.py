"""A command: a function and the settings whose fields are its flags, for the command line and for Python alike."""

import inspect
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from data_tools.names import for_json, for_terminal
from pipeline.progress import Reporter
from pipeline.settings import Settings, did_you_mean, parse_assignments

Values = Mapping[str, Any]
SET_HELP = "A setting by name, key=value; may be repeated."
JSON_HELP = "Print the result as JSON on standard output."


@dataclass(frozen=True)
class Command:
    """One command of `pipeline`.

    function: does the work; takes what `read` gives and `reporter`, returns what `--json` prints.
    settings: classes whose fields made by `flag` are the command's flags; of two with one name the first class' counts.
    read: (flags given, what `--set` gives) -> the function's arguments. None: a command of one class of settings,
        which the function takes as `settings`.
    takes_set: it has `--set`. for_people: the result as text; None where the reporter has said it all.
    failed: True for a result after which the exit status is 1. allows_dashes: arguments may begin with a dash.
    without: fields of `settings` that are no flags of this command.
    """

    function: Callable[..., dict[str, Any]]
    settings: tuple[type[Settings], ...]
    example: str
    read: Callable[[Values, Values], dict[str, Any]] | None = None
    takes_set: bool = False
    for_people: Callable[[dict[str, Any]], str] | None = None
    failed: Callable[[dict[str, Any]], bool] | None = None
    allows_dashes: bool = False
    without: tuple[str, ...] = ()

    def run(self, flags: Values, assignments: Values, reporter: Reporter) -> dict[str, Any]:
        """The function's result for flags and settings, by field name; a flag that is None was not given."""
        given = {name: value for name, value in flags.items() if value is not None}
        if self.read is None:
            (settings,) = self.settings
            arguments: dict[str, Any] = {"settings": settings.checked({**assignments, **given}, "flags")}
        else:
            arguments = self.read(given, assignments)
        if "reporter" in inspect.signature(self.function).parameters:
            arguments["reporter"] = reporter
        return self.function(**arguments)

    def flags(self) -> dict[str, FieldInfo]:
        """Field name -> field of each flag, positional ones first."""
        fields = {
            name: field
            for settings in reversed(self.settings)
            for name, field in settings.model_fields.items()
            if isinstance(field.json_schema_extra, dict) and "flag" in field.json_schema_extra
            if name not in self.without
        }
        order = [name for settings in self.settings for name in settings.model_fields]
        return dict(sorted(fields.items(), key=lambda item: (not is_argument(item[1]), order.index(item[0]))))


def is_argument(field: FieldInfo) -> bool:
    """True for a flag that is given by its position."""
    return isinstance(field.json_schema_extra, dict) and field.json_schema_extra["flag"] == "argument"


def fields_of(settings: type[Settings]) -> Callable[[Values, Values], dict[str, Any]]:
    """A `read` for a function that takes the fields of `settings` as its own arguments."""

    def read(flags: Values, assignments: Values) -> dict[str, Any]:
        checked = settings.checked({**assignments, **flags}, "flags")
        return {name: getattr(checked, name) for name in settings.model_fields}

    return read


def python_function(name: str, help_text: str, load: Callable[[], Command]) -> Callable[..., dict[str, Any]]:
    """The command as a function of keyword arguments: its flags and, where it has `--set`, all its settings.

    `quiet=True` leaves out lines and progress, which go to standard error. The function returns what `--json` prints.

    Raises:
        TypeError: a keyword that is no flag, of a command without `--set`. ConfigError, DataError, ModelError: as the
            command.
    """

    def function(*, quiet: bool = False, **values: Any) -> dict[str, Any]:
        command = load()
        names = command.flags()
        flags = {key: value for key, value in values.items() if key in names}
        others = {key: value for key, value in values.items() if key not in names}
        if others and not command.takes_set:
            key = next(iter(others))
            raise TypeError(
                f"pipeline.{name} has no argument {key!r}{did_you_mean(key, names)}; it has: {', '.join(names)}"
            )
        return command.run(flags, others, Reporter(quiet=quiet))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{help_text}\n\nSee `pipeline {name.replace('_', '-')} --help` and docs/python-api.md."
    return function


def run_command_line(name: str, help_text: str, command: Command, arguments: list[str]) -> None:
    """Parse `arguments`, run the command and print its result. Raises SystemExit with its status."""
    # Not at the top, here and below: functions of the Python API need no command line.
    import typer

    def call(**given: Any) -> None:
        as_json, assignments = given.pop("json"), given.pop("set", None)
        result = command.run(given, parse_assignments(assignments or []), Reporter())
        if is_first_process():
            _print(result, as_json, command.for_people)
        if command.failed is not None and command.failed(result):
            raise typer.Exit(1)

    call.__signature__ = _signature(command)  # type: ignore[attr-defined]
    call.__doc__ = help_text
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    context = {"ignore_unknown_options": True} if command.allows_dashes else None
    app.command(epilog=f"Example: {command.example}", context_settings=context)(call)
    app(args=arguments, prog_name=f"pipeline {name}")


def is_first_process() -> bool:
    """True in the process that prints the result; the others of a distributed training stay silent."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is None or not distributed.is_initialized() or distributed.get_rank() == 0


def _print(result: dict[str, Any], as_json: bool, for_people: Callable[[dict[str, Any]], str] | None) -> None:
    if as_json:
        sys.stdout.write(for_json(json.dumps(result, ensure_ascii=False, allow_nan=False)) + "\n")
    elif for_people:
        sys.stdout.write(for_terminal(for_people(result)) + "\n")


def _signature(command: Command) -> inspect.Signature:
    """Signature that typer reads flags from: a parameter for each one, then `--set` and `--json`."""
    import typer

    parameters = [_parameter(name, field) for name, field in command.flags().items()]
    if command.takes_set:
        parameters.append(_keyword("set", list[str] | None, typer.Option("--set", help=SET_HELP), None))
    parameters.append(_keyword("json", bool, typer.Option("--json", help=JSON_HELP), False))
    return inspect.Signature(parameters)


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    import typer

    in_file = isinstance(field.json_schema_extra, dict) and field.json_schema_extra["in_file"]
    required = field.is_required() and not in_file
    about: dict[str, Any] = {"help": f"{field.description}{_shown(field.default)}", "show_default": False}
    if is_argument(field):
        part = _typed_as(field.annotation)
        kind: Any = part if field.annotation is part else list[part]  # type: ignore[valid-type]
        marker = typer.Argument(**about)
    else:
        kind = _typed_as(field.annotation)
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra["repeats"]:
            kind = list[kind]
        option = f"--{name.replace('_', '-')}"
        marker = typer.Option(f"{option}/--no-{name}" if kind is bool else option, **about)
    return _keyword(name, kind if required else kind | None, marker, ... if required else None)


def _keyword(name: str, kind: Any, marker: Any, default: Any) -> inspect.Parameter:
    default = inspect.Parameter.empty if default is ... else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, marker])


def _shown(default: Any) -> str:
    """The default as help shows it; nothing where leaving the flag out has a meaning of its own."""
    if default in (None, PydanticUndefined, ()) or isinstance(default, bool):
        return ""
    return f" [default: {','.join(map(str, default)) if isinstance(default, tuple) else default}]"


def _typed_as(annotation: Any) -> Any:
    """The type that the command line reads for a field: int, float, bool or Path, else str.

    What a field further asks for, pydantic checks.
    """
    if get_origin(annotation) is Annotated:
        return _typed_as(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        kinds = {_typed_as(part) for part in get_args(annotation) if part is not NoneType}
        return kinds.pop() if len(kinds) == 1 else str
    if get_origin(annotation) is tuple and get_args(annotation)[0] is Path:
        return Path
    return annotation if annotation in (int, float, bool, Path) else str
