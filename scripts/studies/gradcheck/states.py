"""The states of a network, during its training, in which audits of its gradient are compared."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnet import backprop, data, mlp
from jaxnet.train.epoch import init_state, make_step, scan
from jaxnet.types import Params

__all__ = ["BATCH_SIZE", "IMAGES", "SIZES", "STEPS", "State", "states"]

SIZES = (784, 256, 128, 10)
STEPS = (0, 50, 300, 3000)
BATCH_SIZE = 128
IMAGES = 256
_STRIDE = 50  # divides all of STEPS, so that one compiled scan serves them


class State(NamedTuple):
    """A network at some point of its training, and examples to take its gradient on.

    Attributes:
      name: initialisation, seed and steps.
      params: float32 layers.
      inputs: ``(256, pixels)`` float32, of the training set.
      targets: ``(256, 10)`` float32.
    """

    name: str
    params: Params
    inputs: jax.Array
    targets: jax.Array


def states(
    dataset: data.Dataset,
    seeds: Iterable[int],
    sizes: tuple[int, ...] = SIZES,
    steps: tuple[int, ...] = STEPS,
) -> Iterator[State]:
    """Yields the network of each seed and initialisation after 0, 50, 300 and 3,000 steps.

    Adam at a learning rate of 1e-3, batches of 128, the training set in a new order every epoch;
    all random numbers come from the seed.

    Args:
      dataset: float32.
      seeds: one network of each initialisation for each.
      sizes: of the network.
      steps: multiples of 50, in ascending order.
    """
    inputs, targets = jax.device_put((dataset.train.inputs, dataset.train.targets))
    optimizer = optax.adam(1e-3)
    step = make_step(backprop.value_and_grad, optimizer, microbatch=BATCH_SIZE)
    advance = jax.jit(lambda state, rows, *batch: scan(step, state, rows, *batch)[0])
    for seed in seeds:
        rng = np.random.default_rng(seed)
        audited = rng.permutation(len(inputs))[:IMAGES]
        for scheme in mlp.SCHEMES:
            params = mlp.init(jax.random.key(seed), sizes, scheme=scheme, dtype=jnp.float32)
            state = init_state(params, optimizer, jax.random.key(seed))
            batches = _batches(np.random.default_rng([seed, 1]), len(inputs), max(steps))
            done = 0
            for wanted in steps:
                for start in range(done, wanted, _STRIDE):
                    state = advance(state, batches[start : start + _STRIDE], inputs, targets)
                done = wanted
                name = f"{scheme}, seed {seed}, {done:,} steps"
                yield State(name, state.params, inputs[audited], targets[audited])


def _batches(rng: np.random.Generator, examples: int, steps: int) -> np.ndarray:
    """Returns the rows of every step's minibatch, ``(steps or more, batch)``."""
    a_pass = examples // BATCH_SIZE
    order = [rng.permutation(examples)[: a_pass * BATCH_SIZE] for _ in range(-(-steps // a_pass))]
    return np.reshape(order, (-1, BATCH_SIZE)).astype(np.int32)
