"""From the start of a process to 98% of MNIST's test set."""

import time
from typing import Any

import numpy as np

from jaxnet.train.config import PRESETS
from suites.common import Found, Run, median, processes, spread, table

GOAL = 0.98
_FAST = PRESETS["fast"]
_SIZES = (784, *_FAST.hidden, 10)
# All peers train by jaxnet's fast preset, as far as it is not about speed.
RECIPE: dict[str, Any] = {
    name: getattr(_FAST, name)
    for name in ("batch_size", "optimizer", "learning_rate", "epochs", "warmup", "beta2")
}
_LEFT_OUT = {
    "jaxnet-auto",  # as fast as jaxnet, as the suite of gradients shows
    "numpy-float64",
    "torch-chunked",
    "torch-bfloat16-chunked",
    "nielsen",  # takes minutes
    "sklearn",  # has no schedule
}


def measure(run: Run) -> Found:
    """Measures whole processes that train by the same recipe, from different seeds."""
    assert run.dataset is not None
    train, test = run.dataset.train, run.dataset.test
    held_out = run.dataset.validation
    images, labels = train.inputs, train.labels
    if held_out is not None:  # the recipe is chosen: nothing has to be held out any more
        images = np.concatenate([images, held_out.inputs])
        labels = np.concatenate([labels, held_out.labels])
    run.write(images, labels)
    run.write(test.inputs, test.labels, "test_")
    recipe = {**RECIPE, "epochs": 1} if run.quick else RECIPE
    names = [name for name in run.peers if name not in _LEFT_OUT]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for seed in range(run.rounds(3) + 1):
        work = run.work(_SIZES, seed=seed, **recipe)
        for name in names:
            if name in run.failed:
                continue
            run.bar.set_postfix_str(name)
            start = time.perf_counter()
            with run.excused(name), processes(run, [name]) as (peer,):
                peer.ask("make", work)
                seconds = [peer.ask("run")["seconds"] for _ in range(recipe["epochs"])]
                accuracy = peer.ask("test")["value"]
                elapsed = time.perf_counter() - start
                if seed:  # the first run fills compilation caches
                    found[name].append(
                        # An epoch that compiles counts for no more than the others do.
                        {
                            "seconds": elapsed,
                            "training": len(seconds) * median(seconds),
                            "accuracy": accuracy,
                        }
                    )
            run.bar.update()
    found = {name: of_peer for name, of_peer in found.items() if name not in run.failed}
    rows = []
    order = sorted(found, key=lambda name: median([e["seconds"] for e in found[name]]))
    for name in order:
        accuracies = [each["accuracy"] for each in found[name]]
        rows.append(
            {
                "peer": name,
                "seconds": spread([each["seconds"] for each in found[name]]),
                "training alone": f"{median([e['training'] for e in found[name]]):.2f}",
                "test accuracy": f"{median(accuracies):.2%}",
                "98% in": f"{sum(a >= GOAL for a in accuracies)} of {len(accuracies)}",
            }
        )
    return Found({"recipe": recipe, "goal": GOAL, "peers": found}, table(rows))
