"""Measures what each optimisation of the training loop gains: epochs with it and without it.

  python scripts/study.py tricks              some ten minutes on two cores
  python scripts/study.py tricks --quick      a tenth of the images, to try it

Writes results/benchmark/tricks.json. Images are random uint8 numbers, as dark as MNIST's: times do
not depend on what they show.
"""

import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm

from jaxnet import backprop, mlp, products, record, train
from jaxnet.cli.common import Parser, check_out, divide_cpu, say
from jaxnet.data.pixels import as_floats
from jaxnet.train import epoch, order
from studies import RESULTS

__all__ = ["TRICKS", "Work", "main", "measure"]

_LECTURE, _SMALL = (784, 256, 128, 10), (784, 30, 10)
_ROUNDS, _EPOCHS = 5, 3


class Work(NamedTuple):
    """An epoch to measure.

    Attributes:
      sizes: of the network.
      batch_size: None for all images.
      precision: compute dtype, as in `mlp.loss`.
      cores: whether a batch is sharded over the CPU's cores.
      whole: whether a batch is one microbatch.
      floats: whether images are float32 in memory.
      replaced: a module, the name of a part of it, and what takes its place.
    """

    sizes: tuple[int, ...] = _LECTURE
    batch_size: int | None = None
    precision: str | None = None
    cores: bool = False
    whole: bool = False
    floats: bool = False
    replaced: tuple[Any, str, Any] | None = None


def _as_it_is(matrix: jax.Array, dtype: Any) -> jax.Array:
    """Returns a transpose that XLA may fold into the product."""
    return matrix.T.astype(dtype)


_ARGSORT = (order, "_argsort", jnp.argsort)
_ONE_BATCH = (epoch, "_GATHERED", 1)
_AS_WIDE = (products, "_FEW_OUTPUTS", 0)
_TRANSPOSE = (products, "transpose", _as_it_is)
# Of each trick and work, as the record calls them: with it, and without.
TRICKS = {
    "chunks of rows, full batch": (Work(), Work(whole=True)),
    "cores as devices, full batch": (Work(cores=True), Work()),
    "cores as devices, bfloat16, full batch": (
        Work(precision="bfloat16", cores=True),
        Work(precision="bfloat16"),
    ),
    "images as bytes, full batch": (Work(), Work(floats=True)),
    "products in bfloat16, full batch": (Work(precision="bfloat16"), Work()),
    "transposes laid out row by row, bfloat16, full batch": (
        Work(precision="bfloat16"),
        Work(precision="bfloat16", replaced=_TRANSPOSE),
    ),
    "two halves side by side, batch 128": (
        Work(batch_size=128),
        Work(batch_size=128, whole=True),
    ),
    "two halves side by side, batch 256": (
        Work(batch_size=256),
        Work(batch_size=256, whole=True),
    ),
    "two halves side by side, 784-30-10, batch 128": (
        Work(_SMALL, 128),
        Work(_SMALL, 128, whole=True),
    ),
    "two halves side by side, 784-100-10, batch 128": (
        Work((784, 100, 10), 128),
        Work((784, 100, 10), 128, whole=True),
    ),
    "a radix sort for the order, batch 128": (
        Work(batch_size=128),
        Work(batch_size=128, replaced=_ARGSORT),
    ),
    "a radix sort for the order, 784-30-10, batch 128": (
        Work(_SMALL, 128),
        Work(_SMALL, 128, replaced=_ARGSORT),
    ),
    "few outputs' gradients an output a row, full batch": (Work(), Work(replaced=_AS_WIDE)),
    "few outputs' gradients an output a row, 784-30-10, batch 10": (
        Work(_SMALL, 10),
        Work(_SMALL, 10, replaced=_AS_WIDE),
    ),
    "thousands fetched at once, batch 128": (
        Work(batch_size=128),
        Work(batch_size=128, replaced=_ONE_BATCH),
    ),
    "thousands fetched at once, 784-30-10, batch 10": (
        Work(_SMALL, 10),
        Work(_SMALL, 10, replaced=_ONE_BATCH),
    ),
}


def measure(pair: tuple[Work, Work], images: int, rounds: int = _ROUNDS) -> dict[str, Any]:
    """Measures epochs with a trick and without it, in alternation.

    Returns:
      The seconds of all epochs, and the median over rounds of their ratio: what slows the machine
      for a while slows both.
    """
    inputs, targets = _images(images)
    runs = [_compile(work, inputs, targets) for work in pair]
    seconds = np.empty((2, rounds, _EPOCHS))
    for number in range(-1, rounds):  # the first round does not count
        for which, run in enumerate(runs):
            run()  # its data has left the caches while the other ran
            for i in range(_EPOCHS):
                start = time.perf_counter()
                run()
                if number >= 0:
                    seconds[which, number, i] = time.perf_counter() - start
    medians = np.median(seconds, axis=2)
    return {
        "with": seconds[0].ravel(),
        "without": seconds[1].ravel(),
        "times as fast": float(np.median(medians[1] / medians[0])),
    }


def _images(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 784), np.uint8)
    images *= rng.random(images.shape, np.float32) < 0.19
    return images, np.eye(10, dtype=np.uint8)[rng.integers(0, 10, count)]


def _compile(work: Work, inputs: Any, targets: Any) -> Callable[[], None]:
    """Returns what trains for an epoch, compiled with a part of the library replaced, if any."""
    batch_size = work.batch_size or len(inputs)
    devices = train.choose_devices(jax.devices(), batch_size) if work.cores else jax.devices()[:1]
    params = mlp.init(jax.random.key(0), work.sizes, dtype=jnp.float32)
    optimizer = optax.sgd(0.1)
    state = train.replicate(train.init_state(params, optimizer, jax.random.key(0)), devices)
    if work.floats:
        inputs, targets = as_floats(inputs, targets, jnp.float32)
    is_full = batch_size == len(inputs)
    data = (train.shard_rows if is_full else train.replicate)((inputs, targets), devices)
    suits = train.microbatch_size(params, batch_size, "cpu", devices=len(devices))
    # A function of its own, of which JAX has traced nothing.
    gradient = functools.partial(backprop.value_and_grad, precision=work.precision)
    run_epoch = train.make_epoch(
        gradient,
        optimizer,
        batch_size=batch_size,
        microbatch=batch_size if work.whole else suits,
        devices=devices,
    )
    jax.clear_caches()  # parts that were traced as they are would be found again
    if work.replaced is None:
        run = run_epoch.lower(state, *data).compile()
    else:
        with mock.patch.object(*work.replaced):
            run = run_epoch.lower(state, *data).compile()
    jax.clear_caches()

    def once():
        nonlocal state
        state, losses = run(state, *data)
        losses.block_until_ready()

    return once


def main(program: str, argv: Sequence[str]) -> int:
    """Runs the study."""
    parser = Parser(program, __doc__)
    parser.add_argument("--quick", action="store_true", default=False, help="a tenth of the images")
    parser.add_argument(
        "--out", type=Path, default=RESULTS / "benchmark", help="folder (results/benchmark)"
    )
    given = parser.parse_args(argv)
    check_out(given.out)
    divide_cpu()
    found = {}
    for name, pair in tqdm.tqdm(TRICKS.items(), disable=None):
        found[name] = measure(pair, 6_000 if given.quick else 60_000)
        say(f"{name}: {found[name]['times as fast']:.2f} times as fast")
    given.out.mkdir(parents=True, exist_ok=True)
    record.write_json(given.out / "tricks.json", {"environment": record.environment(), **found})
    return 0
