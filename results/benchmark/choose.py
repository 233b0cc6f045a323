"""Chooses the recipe for 98% of MNIST in the fewest seconds, by validation accuracy.

  python results/benchmark/choose.py

Every recipe is 784-256-128-10 under Adam, products in bfloat16, a warm-up of a fifth of the steps
and a cosine; four seeds. Writes choose.json beside itself.
"""

import functools
from pathlib import Path

import jax
import numpy as np

from jaxnet import backprop, data, mlp, record, train

SEEDS = range(4)
# batch size, learning rate, epochs, beta2
RECIPES = (
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


def main() -> None:
    """Trains all of them and writes what came of it."""
    images = data.load("mnist", dtype=np.uint8)
    assert images.validation is not None
    gradient = functools.partial(backprop.value_and_grad, precision="bfloat16")
    found = []
    for batch_size, learning_rate, epochs, beta2 in RECIPES:
        steps = len(images.train.inputs) // batch_size * epochs
        accuracies, seconds = [], []
        for seed in SEEDS:
            key = jax.random.key(seed)
            run = train.fit(
                mlp.init(jax.random.fold_in(key, 0), (784, 256, 128, 10)),
                images.train,
                images.validation,
                key=jax.random.fold_in(key, 1),
                optimizer=train.make_optimizer(
                    "adam",
                    learning_rate,
                    decay_steps=steps,
                    warmup_steps=int(0.2 * steps),
                    beta2=beta2,
                ),
                value_and_grad=gradient,
                batch_size=batch_size,
                epochs=epochs,
            )
            each = list(run.epochs)
            accuracies.append(each[-1].validation_accuracy)
            seconds.append(sum(epoch.seconds for epoch in each))
        recipe = {
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "epochs": epochs,
            "beta2": beta2,
        }
        found.append({**recipe, "validation_accuracy": accuracies, "seconds": seconds})
        print(recipe, f"{np.mean(accuracies):.4f}, {np.median(seconds):.2f} s", flush=True)
    numbers = {"environment": record.environment(), "recipes": found}
    record.write_json(Path(__file__).parent / "choose.json", numbers)


if __name__ == "__main__":
    main()
