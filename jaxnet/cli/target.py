"""A user's own function, found by its name; whatever it raises becomes one line."""

import importlib
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jaxlib
import numpy as np

import jaxnet
from jaxnet import text
from jaxnet.cli.common import StopError

__all__ = ["find", "load_target", "refusing"]

_LIBRARIES = [Path(module.__path__[0]) for module in (jax, jaxlib, jaxnet, np)]


def load_target(target: str, arguments: str, gradient: str | None) -> tuple[Any, tuple, Any]:
    """Returns a function, its arguments and its gradient by their names, ``module:name``.

    Modules are looked for in the current folder first.

    Raises:
      StopError: what is not there, or of another kind.
    """
    sys.path.insert(0, os.getcwd())
    f = find("--target", target)
    args = find("--arguments", arguments)
    by_hand = None if gradient is None else find("--gradient", gradient)
    for name, found in (("--target", f), ("--gradient", by_hand)):
        if found is not None and not callable(found):
            raise StopError(f"{name} must name a function, got a {type(found).__name__}")
    if callable(args):
        with refusing(f"--arguments {arguments}"):
            args = args()
    if not isinstance(args, tuple):
        raise StopError(
            f"--arguments {arguments} must give a tuple, (x,) for a single argument, "
            f"got {'an array' if hasattr(args, 'dtype') else type(args).__name__}"
        )
    return f, args, by_hand


def find(flag: str, name: str) -> Any:
    """Returns what ``module:name`` names."""
    module, separator, path = name.partition(":")
    if not separator or not module or not path:
        raise StopError(f"{flag} must be MODULE:NAME, got {name!r}")
    with refusing(f"{flag} {name}"):
        found = importlib.import_module(module)
        for part in path.split("."):
            if not hasattr(found, part):
                raise StopError(f"{flag} {name}: {module} has no {path}")
            found = getattr(found, part)
        return found


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Turns whatever a user's code raises into one line that names it: it is bad input."""
    try:
        yield
    except (StopError, KeyboardInterrupt):
        raise
    except BaseException as error:  # SystemExit too: its status would be taken for a verdict
        reason = [type(error).__name__]
        reason += [text.first_line(error)] if str(error).strip() else []
        if isinstance(error, jax.errors.TracerArrayConversionError):
            reason.insert(0, "must be JAX code, of jax.numpy where it calls NumPy")
        raise StopError(f"{what}: {': '.join(reason)}{_place_of(error)}") from error


def _place_of(error: BaseException) -> str:
    """Returns where in a user's code an exception arose; empty if it did not arise there."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        path = Path(frame.f_code.co_filename).absolute()
        is_ours = frame.f_globals is globals() or any(map(path.is_relative_to, _LIBRARIES))
        if path.is_file() and not is_ours:  # what Python has frozen is no file
            shown = os.path.relpath(path) if path.is_relative_to(Path.cwd()) else path
            return f" ({shown}:{line} in {frame.f_code.co_name})"
    return ""
