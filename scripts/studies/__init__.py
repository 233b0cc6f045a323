"""The studies that figures in `results/` come from; `scripts/study.py` runs them.

A study is a module with ``main(program, argv)``, which returns an exit status.
"""

from pathlib import Path
from typing import Any

from jaxnet import data
from jaxnet.cli.common import StopError

__all__ = ["RESULTS", "SCRIPTS", "STUDIES", "load"]

SCRIPTS = Path(__file__).resolve().parents[1]
RESULTS = SCRIPTS.parent / "results"

# Of each study, its module and what it does.
STUDIES = {
    "gradcheck": ("studies.gradcheck.study", "the gradient audit beside other checkers"),
    "exhaustive": ("studies.exhaustive", "all differences of a network, and plainer ways to them"),
    "recipes": ("studies.recipes", "hyperparameters, by validation accuracy"),
    "tricks": ("studies.tricks", "what each optimisation of the training loop gains"),
    "tables": ("studies.tables", "the tables of the READMEs, from the benchmark's records"),
}


def load(name: str, **options: Any) -> data.Dataset:
    """Returns what `data.load` returns.

    Raises:
      StopError: if it cannot, in one line.
    """
    try:
        return data.load(name, **options)
    except data.DataError as error:
        raise StopError(error) from error
