"""What `benchmark.py` measures, a module a suite, and what suites share.

A suite is a function of a `Run` that returns what it `Found`.
"""

import importlib
from collections.abc import Callable

from suites.common import Found, Run

_MODULES = {
    "step": "step",
    "epoch": "epoch",
    "startup": "startup",
    "time-to-accuracy": "accuracy",
    "scaling": "scaling",
    "gradients": "gradients",
}


def _suite(module: str) -> Callable[[Run], Found]:
    return lambda run: importlib.import_module(f"suites.{module}").measure(run)


SUITES = {name: _suite(module) for name, module in _MODULES.items()}
