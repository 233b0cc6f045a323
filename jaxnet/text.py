"""What people and JSON readers see: tables, one-line errors, plain values."""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["dumps", "first_line", "plain", "table"]


def table(header: Sequence[str], rows: Iterable[Sequence[object]], *, align: str = "left") -> str:
    """Returns rows as text in aligned columns, under a header and a rule.

    Args:
      header: a title for each column.
      rows: as many cells each.
      align: of all columns but the first: ``"left"``, or ``"right"`` for numbers.

    Raises:
      ValueError: a row that is shorter or longer than the header.

    Example:
      >>> print(table(["leaf", "error"], [["weight", "1e-07"], ["bias", "2e-08"]]))
      leaf    error
      ------  -----
      weight  1e-07
      bias    2e-08
    """
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    lines = []
    for first, *others in cells:
        padded = [first.ljust(widths[0])]
        for cell, width in zip(others, widths[1:], strict=True):
            padded.append(cell.rjust(width) if align == "right" else cell.ljust(width))
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message; of one without a message, its type.

    Example:
      >>> first_line(ValueError("must be positive\\nat step 3"))
      'must be positive'
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def plain(value: Any) -> Any:
    """Returns a value as JSON can hold it.

    Named tuples and dataclasses become dicts, other sequences and arrays lists, paths strings. JSON
    has no NaN and no infinity: they become ``"nan"``, ``"inf"`` and ``"-inf"``, which Python's
    `float` reads back.

    Raises:
      TypeError: what JSON cannot hold, or a dict with keys that are not strings.

    Example:
      >>> plain({"error": float("nan"), "sizes": (64, 10)})
      {'error': 'nan', 'sizes': [64, 10]}
    """
    if isinstance(value, float):  # NumPy's float64 is one, too
        return float(value) if math.isfinite(value) else str(float(value))
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        if wrong := [name for name in value if not isinstance(name, str)]:
            raise TypeError(f"the keys of JSON must be strings, got {wrong[0]!r}")
        return {name: plain(each) for name, each in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if fields := getattr(value, "_fields", ()):
        return {name: plain(getattr(value, name)) for name in fields}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if not isinstance(value, type) and hasattr(
        value, "tolist"
    ):  # arrays and scalars of NumPy and JAX
        return plain(value.tolist())
    raise TypeError(f"JSON cannot hold a {type(value).__name__}")


def dumps(value: Any, *, indent: bool = False) -> str:
    """Returns a value as JSON; see `plain`.

    Args:
      value: dicts, lists, tuples, arrays, numbers, strings, None.
      indent: whether to lay it out over lines, with a row of numbers on one of them; otherwise all
        is on one line.

    Raises:
      TypeError: as `plain`.

    Example:
      >>> dumps({"epoch": 1, "loss": float("inf")})
      '{"epoch": 1, "loss": "inf"}'
    """
    return _indented(plain(value)) if indent else json.dumps(plain(value), allow_nan=False)


def _indented(value: Any, margin: str = "") -> str:
    inner = margin + "  "
    if isinstance(value, dict) and value:
        items = [f"{json.dumps(name)}: {_indented(each, inner)}" for name, each in value.items()]
        opening, closing = "{", "}"
    elif isinstance(value, list) and any(isinstance(each, dict | list) for each in value):
        items = [_indented(each, inner) for each in value]
        opening, closing = "[", "]"
    else:
        return json.dumps(value, allow_nan=False)
    lines = ",\n".join(inner + item for item in items)
    return f"{opening}\n{lines}\n{margin}{closing}"
