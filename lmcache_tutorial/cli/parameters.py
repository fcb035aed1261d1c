"""The table of options -> the parameters that typer reads from a command's signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from inspect import Parameter
from typing import Annotated, Any

import typer
from rich.markup import escape

from ..settings.options import Option, table
from ..settings.spelling import COMMAND


def with_options(command: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command: its parameter ``options`` becomes one parameter for each row that the command has.

    The dataclass that ``options`` is annotated with says which rows these are; the function is called with
    the values in it.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(function, eval_str=True)
        dataclass = signature.parameters["options"].annotation
        rows = [row for row in table(dataclass) if command in row.commands]

        @wraps(function)
        def called(**given: Any) -> None:
            values = {row.name: given.pop(row.name) for row in rows}
            function(**given, options=dataclass(**values))

        others = [one for one in signature.parameters.values() if one.name != "options"]
        parameters = [*others, *map(_parameter, rows)]
        called.__dict__["__signature__"] = signature.replace(parameters=parameters)
        called.__annotations__ = {one.name: one.annotation for one in parameters}
        return called

    return decorate


def _parameter(row: Option) -> Parameter:
    kind: Any = row.kind if row.default is not None else row.kind | None
    written = typer.Option(
        COMMAND(row.name),
        help=escape(row.help),  # a unit in brackets would be taken for a style
        min=row.least,
        metavar=row.value_words or None,
        show_default=row.chosen or row.kind is not bool,
    )
    return Parameter(
        row.name, Parameter.KEYWORD_ONLY, default=row.default, annotation=Annotated[kind, written]
    )
