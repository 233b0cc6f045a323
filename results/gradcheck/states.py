"""The states of a network, during its training, in which audits of its gradient are compared.

python results/gradcheck/states.py        prints them, with the time that they took
"""

import functools
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnet import backprop, data, mlp
from jaxnet.mlp import Params

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
    dataset: data.Dataset, seeds: Iterable[int], sizes: tuple[int, ...] = SIZES
) -> Iterator[State]:
    """Yields, for each seed and initialisation, the network after 0, 50, 300 and 3,000 steps.

    Adam at a learning rate of 1e-3, batches of 128, the training set in a new order every epoch.
    All is drawn from the seed.
    """
    train = jax.device_put((dataset.train.inputs, dataset.train.targets))
    optimizer = optax.adam(1e-3)
    for seed in seeds:
        rng = np.random.default_rng(seed)
        audited = rng.permutation(len(train[0]))[:IMAGES]
        for scheme in mlp.SCHEMES:
            params = mlp.init(jax.random.key(seed), sizes, scheme=scheme, dtype=jnp.float32)
            optimizer_state = optimizer.init(params)
            batches = _batches(np.random.default_rng([seed, 1]), len(train[0]))
            done = 0
            for steps in STEPS:
                while done < steps:
                    rows = batches[done : done + _STRIDE]
                    params, optimizer_state = _advance(
                        optimizer, params, optimizer_state, *train, rows
                    )
                    done += _STRIDE
                name = f"{scheme}, seed {seed}, {steps:,} steps"
                yield State(name, params, train[0][audited], train[1][audited])


def _batches(rng: np.random.Generator, examples: int) -> np.ndarray:
    """Returns the rows of every step's minibatch, ``(steps, batch)``."""
    a_pass = examples // BATCH_SIZE
    passes = -(-max(STEPS) // a_pass)
    order = [rng.permutation(examples)[: a_pass * BATCH_SIZE] for _ in range(passes)]
    return np.concatenate(order).reshape(-1, BATCH_SIZE).astype(np.int32)


@functools.partial(jax.jit, static_argnums=0)
def _advance(optimizer, params, optimizer_state, inputs, targets, batches):
    def step(carry, rows):
        params, optimizer_state = carry
        _, gradient = backprop.value_and_grad(params, inputs[rows], targets[rows])
        updates, optimizer_state = optimizer.update(gradient, optimizer_state, params)
        updated: Any = optax.apply_updates(params, updates)
        return (updated, optimizer_state), None

    return jax.lax.scan(step, (params, optimizer_state), batches)[0]


def main() -> None:
    """Prints the loss and the norms of the gradient in every state."""
    dataset = data.load("mnist", validation_split=0)
    start = time.perf_counter()
    count = 0
    for state in states(dataset, range(3)):
        loss, gradient = backprop.value_and_grad(*state[1:])
        norms = " ".join(f"{jnp.linalg.norm(leaf):.1e}" for leaf in jax.tree.leaves(gradient))
        print(f"{state.name:30} loss {loss:.4f}, gradient {norms}")
        count += 1
    print(f"{count} states in {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
