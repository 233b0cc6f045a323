"""Measures what each trick of the training loop gains: with it and without, in turns.

  python results/benchmark/tricks.py

Writes tricks.json beside itself. Images are random bytes, as dark as MNIST's; times do not depend
on what is in them.
"""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnet import backprop, batches, mlp, record, train

LECTURE, SMALL, ROWS = (784, 256, 128, 10), (784, 30, 10), 60_000
TURNS, EPOCHS = 5, 3
Epoch = Callable[[], None]


def main() -> None:
    """Measures and writes."""
    jax.config.update("jax_num_cpu_devices", record.cpus())
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (ROWS, 784), np.uint8)
    images *= rng.random(images.shape, np.float32) < 0.19
    targets = np.eye(10, dtype=np.uint8)[rng.integers(0, 10, ROWS)]
    stored = jax.device_put((images, targets))
    floats = (batches.as_float(stored[0], jnp.float32), stored[1].astype(jnp.float32))
    half = functools.partial(backprop.value_and_grad, precision="bfloat16")
    tricks: dict[str, tuple[Epoch, Epoch]] = {
        "chunks of rows, full batch": (
            epoch(stored, LECTURE, ROWS),
            epoch(stored, LECTURE, ROWS, chunk=ROWS),
        ),
        "cores as devices, full batch": (
            epoch(stored, LECTURE, ROWS, devices=jax.devices()),
            epoch(stored, LECTURE, ROWS),
        ),
        "cores as devices, bfloat16, full batch": (
            epoch(stored, LECTURE, ROWS, half, devices=jax.devices()),
            epoch(stored, LECTURE, ROWS, half),
        ),
        "images as bytes, full batch": (
            epoch(stored, LECTURE, ROWS),
            epoch(floats, LECTURE, ROWS),
        ),
        "products in bfloat16, full batch": (
            epoch(stored, LECTURE, ROWS, half),
            epoch(stored, LECTURE, ROWS),
        ),
        "transposes laid out row by row, bfloat16, full batch": (
            epoch(stored, LECTURE, ROWS, half),
            epoch(stored, LECTURE, ROWS, half, (backprop, "_transpose", as_it_is)),
        ),
        "two halves side by side, batch 128": (
            epoch(stored, LECTURE, 128),
            epoch(stored, LECTURE, 128, chunk=128),
        ),
        "two halves side by side, batch 256": (
            epoch(stored, LECTURE, 256),
            epoch(stored, LECTURE, 256, chunk=256),
        ),
        "two halves side by side, 784-30-10, batch 128": (
            epoch(stored, SMALL, 128),
            epoch(stored, SMALL, 128, chunk=128),
        ),
        "two halves side by side, 784-100-10, batch 128": (
            epoch(stored, (784, 100, 10), 128),
            epoch(stored, (784, 100, 10), 128, chunk=128),
        ),
        "a radix sort for the order, batch 128": (
            epoch(stored, LECTURE, 128),
            epoch(stored, LECTURE, 128, replaced=(batches, "_argsort", jnp.argsort)),
        ),
        "a radix sort for the order, 784-30-10, batch 128": (
            epoch(stored, SMALL, 128),
            epoch(stored, SMALL, 128, replaced=(batches, "_argsort", jnp.argsort)),
        ),
        "few outputs' gradients an output a row, full batch": (
            epoch(stored, LECTURE, ROWS),
            epoch(stored, LECTURE, ROWS, replaced=(backprop, "_FEW", 0)),
        ),
        "few outputs' gradients an output a row, 784-30-10, batch 10": (
            epoch(stored, SMALL, 10),
            epoch(stored, SMALL, 10, replaced=(backprop, "_FEW", 0)),
        ),
        "thousands fetched at once, batch 128": (
            epoch(stored, LECTURE, 128),
            epoch(stored, LECTURE, 128, replaced=(batches, "_FETCHED", 1)),
        ),
        "thousands fetched at once, 784-30-10, batch 10": (
            epoch(stored, SMALL, 10),
            epoch(stored, SMALL, 10, replaced=(batches, "_FETCHED", 1)),
        ),
    }
    found = {}
    for name, pair in tricks.items():
        seconds: tuple[list[float], list[float]] = ([], [])
        for turn in range(TURNS + 1):
            for run, times in zip(pair, seconds, strict=True):
                run()  # its data has left the caches in the other's turn
                for _ in range(EPOCHS if turn else 0):
                    start = time.perf_counter()
                    run()
                    times.append(time.perf_counter() - start)
        gain = of_turns(*seconds)
        found[name] = {"with": seconds[0], "without": seconds[1], "times as fast": gain}
        print(f"{name}: {gain:.2f} times as fast", flush=True)
    here = Path(__file__).parent
    record.write_json(here / "tricks.json", {"environment": record.environment(), **found})


def of_turns(with_it: list[float], without: list[float]) -> float:
    """Returns the median of the turns' ratios: what slows the machine for a while slows both."""
    first, second = (np.reshape(times, (TURNS, EPOCHS)) for times in (with_it, without))
    return float(np.median(np.median(second, axis=1) / np.median(first, axis=1)))


def epoch(
    data,
    sizes,
    batch_size,
    gradient=backprop.value_and_grad,
    replaced=None,
    chunk=None,
    devices=None,
):
    """Returns what trains for an epoch, compiled with a part of the library replaced, if any."""
    optimizer = optax.sgd(0.1)
    params = mlp.init(jax.random.key(0), sizes, dtype=jnp.float32)
    state, key = train.TrainState(params, optimizer.init(params)), jax.random.key(0)
    count = len(devices or [None])
    if devices:
        data = batches.place(data, devices, rows=True)
        state, key = batches.place((state, key), devices, rows=False)
    rows = chunk or batches.rows_per_chunk(params, batch_size, "cpu", count)
    wrapped = train.make_epoch(lambda *args: gradient(*args), optimizer, batch_size, rows, devices)
    jax.clear_caches()  # what is traced with the part replaced is not to be found again
    if replaced is None:
        run = wrapped.lower(state, key, np.uint32(1), *data).compile()
    else:
        with mock.patch.object(*replaced):
            run = wrapped.lower(state, key, np.uint32(1), *data).compile()
    jax.clear_caches()

    def once():
        nonlocal state
        state, losses = run(state, key, np.uint32(1), *data)
        losses.block_until_ready()

    return once


def as_it_is(matrix, dtype):
    """A transpose that XLA may fold into the product."""
    return matrix.T.astype(dtype)


if __name__ == "__main__":
    main()
