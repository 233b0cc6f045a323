"""Compares hyperparameters by validation accuracy; the test sets are not looked at.

  python scripts/study.py recipes              both parts, some fifteen minutes on two cores
  python scripts/study.py recipes fast         98% of MNIST in the fewest seconds: the preset "fast"

The parts, and their records:

  defaults  what suits digits and MNIST      results/recipes/choose.json
  fast      the preset of benchmarks         results/benchmark/choose.json

What they found is in `jaxnet/train/config.py`.
"""

import argparse
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tqdm

from jaxnet import data, record
from jaxnet.cli.common import FAILED, Parser, StopError, check_out, say
from jaxnet.train import Metrics, loop
from jaxnet.train.config import PRESETS, Config, resolve
from studies import RESULTS, load

__all__ = ["FAST", "GRIDS", "defaults", "fast", "main", "train"]

GRIDS = (
    # dataset, hidden, learning rates, batch sizes, epochs
    ("digits", (64,), (0.003, 0.01, 0.03), (32,), 100),
    ("mnist", (256, 128), (0.002, 0.004, 0.005, 0.006, 0.01), (64,), 25),
    ("mnist", (256, 128), (0.005, 0.008), (128,), 25),
)
FAST = (
    # batch size, learning rate, epochs, beta2; all else as in the preset
    (256, 0.01, 12, 0.999),
    (256, 0.015, 14, 0.98),
    (256, 0.02, 14, 0.95),
    (256, 0.015, 12, 0.95),
    (256, 0.01, 14, 0.95),
    (256, 0.01, 10, 0.95),
    (256, 0.015, 10, 0.95),
    (256, 0.01, 8, 0.95),
    (256, 0.015, 8, 0.95),
    (256, 0.01, 7, 0.95),
    (384, 0.015, 9, 0.95),
    (512, 0.02, 18, 0.98),
    (128, 0.01, 9, 0.98),
)


def train(config: Config, dataset: data.Dataset, seeds: int) -> Iterator[list[Metrics]]:
    """Trains from each seed, and yields the metrics of its epochs.

    Raises:
      StopError: if training diverges.
    """
    for seed in range(seeds):
        resolved = resolve(dataclasses.replace(config, seed=seed), dataset)
        metrics: list[Metrics] = []
        for event in loop.run(resolved, dataset):
            if isinstance(event, loop.EpochEnded):
                metrics.append(event.metrics)
            if len(metrics) == resolved.epochs:
                break  # what would come next is the test set
            if isinstance(event, loop.Finished):
                raise StopError(f"{event.message} of the recipe {_short(resolved)}", FAILED)
        yield metrics


def defaults(grids: Any = GRIDS, seeds: int = 3) -> dict[str, Any]:
    """Returns the validation accuracies of learning rates and batch sizes."""
    recipes = []
    for name, hidden, rates, batch_sizes, epochs in grids:
        dataset = load(name, dtype=np.uint8)
        grid = list(itertools.product(rates, batch_sizes))
        for rate, batch_size in tqdm.tqdm(grid, desc=name, disable=None):
            recipe = {
                "dataset": name,
                "hidden": hidden,
                "learning_rate": rate,
                "batch_size": batch_size,
                "epochs": epochs,
            }
            found = list(train(Config(**recipe, check_gradients=False), dataset, seeds))
            recipes.append(_measured(recipe, found))
    return {"recipes": recipes, "environment": record.environment()}


def fast(grid: Any = FAST, seeds: int = 4, **options: Any) -> dict[str, Any]:
    """Returns validation accuracies and seconds of recipes like the preset ``fast``.

    Args:
      grid: batch size, learning rate, epochs and beta2 of each.
      seeds: how many.
      **options: of `Config`, in the place of the preset's.
    """
    preset = dataclasses.replace(PRESETS["fast"], validation_split=0.1, **options)
    dataset = load(preset.dataset, dtype=np.uint8)
    recipes = []
    for batch_size, learning_rate, epochs, beta2 in tqdm.tqdm(grid, desc="fast", disable=None):
        recipe = {
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "epochs": epochs,
            "beta2": beta2,
        }
        found = list(train(dataclasses.replace(preset, **recipe), dataset, seeds))
        seconds = [sum(each.seconds for each in of_seed) for of_seed in found]
        recipes.append({**_measured(recipe, found), "seconds": seconds})
    return {"environment": record.environment(), "recipes": recipes}


def _measured(recipe: dict[str, Any], found: list[list[Metrics]]) -> dict[str, Any]:
    accuracies: list[Any] = [of_seed[-1].validation_accuracy for of_seed in found]
    told = ", ".join(f"{name} {value}" for name, value in recipe.items())
    low, middle, high = np.min(accuracies), np.mean(accuracies), np.max(accuracies)
    say(f"{told}: {middle:.2%} ({low:.2%} to {high:.2%})")
    jax.clear_caches()
    return {**recipe, "validation_accuracy": accuracies}


def _short(config: Config) -> str:
    return f"{config.batch_size}, {config.learning_rate:g}, {config.epochs}, {config.beta2:g}"


_PARTS = {"defaults": (defaults, "recipes"), "fast": (fast, "benchmark")}


def main(program: str, argv: Sequence[str]) -> int:
    """Runs the study."""
    parser = Parser(program, __doc__)
    add = parser.add_argument
    add("parts", nargs="*", type=_part, default=list(_PARTS), metavar="PART", help="both if none")
    add("--out", type=Path, default=RESULTS, help="folder of the records' folders (results)")
    given = parser.parse_args(argv)
    check_out(given.out)
    for name in given.parts:
        measure, folder = _PARTS[name]
        found = measure()
        (given.out / folder).mkdir(parents=True, exist_ok=True)
        record.write_json(given.out / folder / "choose.json", found)
    return 0


def _part(name: str) -> str:
    if name not in _PARTS:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(_PARTS)}, got {name!r}")
    return name
