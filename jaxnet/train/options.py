"""Options that are written once: name, type, default, help and check are a dataclass's field."""

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "Kind",
    "add_flags",
    "check",
    "flag",
    "fraction",
    "indices",
    "name",
    "natural_number",
    "one_of",
    "option",
    "path",
    "positive_integer",
    "positive_number",
    "widths",
]

_LARGEST_SEED = 2**31 - 1  # what a key of `jax.random` takes with and without x64
_LARGEST_FLOAT = float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class Kind:
    """The values that an option may have; called with a command line's word, it parses that.

    Attributes:
      expected: the values, in words.
      parse: makes a value of text; raises `ValueError` where it cannot.
      accepts: whether a value is one of them.
      choices: all of them, where they are a few words.
      metavar: what stands for a value in ``--help``.
    """

    expected: str
    parse: Callable[[str], Any]
    accepts: Callable[[Any], bool]
    choices: tuple[str, ...] = ()
    metavar: str | None = None

    def __call__(self, text: str) -> Any:
        """Returns the value, or raises what `argparse` reports."""
        try:
            value = self.parse(text)
        except ValueError:
            value = None
        if value is None or not self.accepts(value):
            raise argparse.ArgumentTypeError(f"must be {self.expected}, got {text!r}")
        return value


@dataclasses.dataclass(frozen=True)
class _Option:
    kind: Kind | None
    help: str
    flags: tuple[str, ...]


def option(default: Any, kind: Kind | None, help: str, flags: Sequence[str] = ()) -> Any:
    """Returns a dataclass field that is an option.

    Args:
      default: its value where nothing is said; None leaves it open, to be resolved later.
      kind: which values it may have; None for True and False.
      help: a line for ``--help``.
      flags: how it is spelt on a command line; by default ``--name``, and for an option that is
        True by default also ``--no-name``.

    Example:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Options:
      ...     epochs: int = option(10, positive_integer, "passes over the data")
      >>> Options().epochs
      10
    """
    return dataclasses.field(
        default=default, metadata={"option": _Option(kind, help, tuple(flags))}
    )


def flag(name: str) -> str:
    """Returns the flag of a field.

    Example:
      >>> flag("batch_size")
      '--batch-size'
    """
    return "--" + name.replace("_", "-")


def add_flags(
    parser: argparse.ArgumentParser, options: type, names: Iterable[str] | None = None
) -> None:
    """Adds the flags of a dataclass's options to a parser.

    Args:
      parser: made with ``argument_default=argparse.SUPPRESS``, so that it returns what is given.
      options: a dataclass whose fields are options.
      names: which fields; None means all.

    Example:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Options:
      ...     epochs: int = option(10, positive_integer, "passes over the data")
      >>> parser = argparse.ArgumentParser(argument_default=argparse.SUPPRESS)
      >>> add_flags(parser, Options)
      >>> parser.parse_args(["--epochs", "5"])
      Namespace(epochs=5)
    """
    fields = {field.name: field for field in dataclasses.fields(options)}
    for name in fields if names is None else names:
        default, each = fields[name].default, fields[name].metadata["option"]
        settings: dict[str, Any] = {"dest": name, "help": each.help.replace("%", "%%")}
        if each.kind is not None and each.kind.choices:
            settings["choices"] = each.kind.choices
        elif each.kind is not None:
            settings |= {"type": each.kind, "metavar": each.kind.metavar}
        elif default and not each.flags:
            settings["action"] = argparse.BooleanOptionalAction
        else:
            settings["action"] = "store_false" if default else "store_true"
        parser.add_argument(*(each.flags or (flag(name),)), **settings)


def check(options: Any) -> None:
    """Checks the values of a dataclass's options, however they were set.

    Raises:
      ValueError: a value that an option may not have; the message names its flag.

    Example:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Options:
      ...     epochs: int = option(10, positive_integer, "passes over the data")
      >>> check(Options(epochs=0))
      Traceback (most recent call last):
      ValueError: argument --epochs: must be a positive integer, got 0
    """
    for field in dataclasses.fields(options):
        kind, value = field.metadata["option"].kind, getattr(options, field.name)
        if value is None and field.default is None:
            continue
        right = isinstance(value, bool) if kind is None else kind.accepts(value)
        if not right:
            expected = "True or False" if kind is None else kind.expected
            raise ValueError(f"argument {flag(field.name)}: must be {expected}, got {value!r}")


def one_of(choices: Sequence[str]) -> Kind:
    """Returns the kind of an option whose values are a few words.

    Example:
      >>> one_of(("cosine", "constant")).accepts("linear")
      False
    """
    return Kind(f"one of {', '.join(choices)}", str, lambda v: v in choices, tuple(choices))


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


positive_integer = Kind("a positive integer", int, lambda v: _is_integer(v) and v > 0, metavar="N")
natural_number = Kind(
    f"an integer from 0 to {_LARGEST_SEED}",
    int,
    lambda v: _is_integer(v) and 0 <= v <= _LARGEST_SEED,
    metavar="N",
)
positive_number = Kind(
    "a positive number", float, lambda v: _is_number(v) and 0 < v <= _LARGEST_FLOAT, metavar="X"
)
fraction = Kind("a number in [0, 1)", float, lambda v: _is_number(v) and 0 <= v < 1, metavar="X")
name = Kind("a name or a path", str, lambda v: isinstance(v, str) and v != "", metavar="NAME")
path = Kind("a path", Path, lambda v: isinstance(v, Path), metavar="PATH")
widths = Kind(
    "a tuple of positive integers",
    lambda text: () if text == "none" else tuple(map(positive_integer, text.split(","))),
    lambda v: isinstance(v, tuple) and all(map(positive_integer.accepts, v)),
    metavar="WIDTHS",
)
indices = Kind(
    "the number of an argument, or several, 0,2",
    lambda text: tuple(int(each) for each in text.split(",")),
    lambda v: isinstance(v, tuple) and all(map(natural_number.accepts, v)),
    metavar="N",
)
