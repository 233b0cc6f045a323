"""Compares learning rates on the validation splits; the test sets are not looked at.

  python results/recipes/choose.py        writes results/recipes/choose.json, some ten minutes

What it found is in the recipes of scripts/train.py.
"""

import itertools
import statistics
from pathlib import Path

import jax
import tqdm

from jaxnet import data, mlp, record, train

SEEDS = 3
GRIDS = [
    # dataset, hidden, learning rates, batch sizes, epochs
    ("digits", (64,), (0.003, 0.01, 0.03), (32,), 100),
    ("mnist", (256, 128), (0.002, 0.004, 0.005, 0.006, 0.01), (64,), 25),
    ("mnist", (256, 128), (0.005, 0.008), (128,), 25),
]


def accuracy(dataset, hidden, learning_rate, batch_size, epochs, seed) -> float:
    """Returns the validation accuracy after training."""
    key = jax.random.key(seed)
    steps = epochs * train.steps_per_epoch(len(dataset.train.inputs), batch_size)
    run = train.fit(
        mlp.init(jax.random.fold_in(key, 0), (dataset.train.inputs.shape[1], *hidden, 10)),
        dataset.train,
        dataset.validation,
        key=jax.random.fold_in(key, 1),
        optimizer=train.make_optimizer("adam", learning_rate, decay_steps=steps),
        batch_size=batch_size,
        epochs=epochs,
    )
    *_, last = run.epochs
    return last.validation_accuracy


def main() -> None:
    """Measures, prints and records every recipe."""
    recipes = []
    for name, hidden, rates, batch_sizes, epochs in GRIDS:
        dataset = data.load(name)
        grid = list(itertools.product(rates, batch_sizes))
        for rate, batch_size in tqdm.tqdm(grid, desc=name, disable=None):
            values = [
                accuracy(dataset, hidden, rate, batch_size, epochs, seed) for seed in range(SEEDS)
            ]
            recipes.append(
                {
                    "dataset": name,
                    "hidden": hidden,
                    "learning_rate": rate,
                    "batch_size": batch_size,
                    "epochs": epochs,
                    "validation_accuracy": values,
                }
            )
            print(
                f"{name} {'-'.join(map(str, hidden))} learning rate {rate:g}, "
                f"batch size {batch_size}, {epochs} epochs: "
                f"{statistics.mean(values):.2%} ({min(values):.2%} to {max(values):.2%}, "
                f"{SEEDS} seeds)",
                flush=True,
            )
    record.write_json(
        Path(__file__).with_suffix(".json"),
        {"recipes": recipes, "environment": record.environment()},
    )


if __name__ == "__main__":
    main()
