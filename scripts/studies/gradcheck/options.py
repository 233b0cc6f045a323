"""What all parts of the study are told, and rows that survive an interruption."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxnet import text
from studies import RESULTS, load
from studies.gradcheck import states

__all__ = ["Kept", "Options", "count", "first_images", "mnist"]


@dataclasses.dataclass(frozen=True)
class Options:
    """What the user chose.

    Attributes:
      out: folder of records and pictures.
      seeds: networks of each initialisation.
      functions: how many random functions.
      jobs: processes that audit them.
    """

    out: Path = RESULTS / "gradcheck"
    seeds: int = 3
    functions: int = 2_000
    jobs: int = os.cpu_count() or 1


class Kept:
    """Rows in a file, which an interrupted measurement leaves for the next one to go on from.

    Attributes:
      rows: what there is so far.
    """

    def __init__(self, folder: Path, name: str):
        self._path = folder / f"{name}.partial.jsonl"
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def keep(self, row: dict[str, Any]) -> None:
        """Adds a row, and writes it at once."""
        self.rows.append(row)
        with self._path.open("a") as file:
            file.write(text.dumps(row) + "\n")

    def forget(self) -> None:
        """Removes the file."""
        self._path.unlink(missing_ok=True)


def count(verdicts: list[str]) -> dict[str, int]:
    """Returns how often there is each verdict."""
    return {each: verdicts.count(each) for each in ("pass", "inconclusive", "fail")}


def mnist() -> Any:
    """Returns MNIST, with all of its training set to train on."""
    return load("mnist", validation_split=0, dtype=np.float32)


def first_images(dtype: Any) -> tuple[Any, Any]:
    """Returns the first 256 images of MNIST and their targets."""
    inputs, targets = (np.asarray(array[: states.IMAGES], dtype) for array in mnist().train)
    return jnp.asarray(inputs), jnp.asarray(targets)
