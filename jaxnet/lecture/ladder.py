"""The ladder of optimizers on the same three problems, each rung counted in losses."""

import functools
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnet import backprop, data, mlp, optimizers

# The slide's two points, (3, 2) -> 1 and (-2, -3) -> 0, with x0 = 1 before them.
POINTS = ((1.0, 3.0, 2.0), (1.0, -2.0, -3.0))
LABELS = (1.0, 0.0)


class Problem(NamedTuple):
    """What is minimised.

    Attributes:
      name: for tables.
      params: where all rungs begin.
      data: ``(inputs, targets)``.
      goal: loss at which it counts as solved.
    """

    name: str
    params: Any
    data: tuple[jax.Array, jax.Array]
    goal: float


class Rung(NamedTuple):
    """A way to minimise.

    Attributes:
      name: for tables.
      scheme: of `optimizers.losses_per_call`.
      objective: with the loss's arguments.
      make: returns the optimizer for a problem.
      steps: returns how many to take of it, at most.
    """

    name: str
    scheme: str
    objective: Callable[..., Any]
    make: Callable[[Problem], optimizers.Optimizer]
    steps: Callable[[Problem], int]


class Climb(NamedTuple):
    """What one rung made of one problem.

    Attributes:
      losses: ``(steps,)`` evaluations of the loss until each value was known; a gradient counts
        for several.
      values: ``(steps,)`` the loss.
      seconds: of all steps, once compiled.
      needed: evaluations to the goal; None where it was not reached.
      needed_seconds: time to the goal.
    """

    losses: np.ndarray
    values: np.ndarray
    seconds: float
    needed: int | None
    needed_seconds: float | None


def two_points() -> Problem:
    """Returns the slide's problem: a sigmoid neuron with two inputs, from w = [-1, 0.5, 0.1]."""
    inputs = jnp.array([point[1:] for point in POINTS])
    layer = mlp.Layer(jnp.array([[0.5], [0.1]]), jnp.array([-1.0]))
    return Problem("two points", (layer,), (inputs, jnp.array(LABELS)[:, None]), 0.005)


def is_it_a_three() -> Problem:
    """Returns "is it a 3?": one neuron on the embedded digits."""
    train = data.load("digits", validation_split=0).train
    targets = jnp.asarray(train.targets[:, 3:4])
    params = mlp.init(jax.random.key(0), (64, 1))
    return Problem("is it a 3?", params, (jnp.asarray(train.inputs), targets), 0.02)


def small_network() -> Problem:
    """Returns the network 64-16-10 on the embedded digits."""
    train = data.load("digits", validation_split=0).train
    params = mlp.init(jax.random.key(0), (64, 16, 10))
    return Problem(
        "64-16-10", params, (jnp.asarray(train.inputs), jnp.asarray(train.targets)), 0.15
    )


def dimension(problem: Problem) -> int:
    """Returns how many parameters a problem has."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(problem.params))


# The first of 0.1, 0.3, 1, 3, 10 and 30 to reach the goal in 2,000 steps, a tenth of them for
# momentum and a hundredth for Adam. Momentum reaches that of 64-16-10 with none; its comes closest.
_RATES = {
    "two points": {"plain": 10.0, "momentum": 3.0, "adam": 0.3},
    "is it a 3?": {"plain": 10.0, "momentum": 3.0, "adam": 0.1},
    "64-16-10": {"plain": 3.0, "momentum": 0.1, "adam": 0.03},
}


def _descent(problem: Problem) -> optimizers.Optimizer:
    return optimizers.gradient_descent(_RATES[problem.name]["plain"])


def _numerical_steps(problem: Problem) -> int:
    return 300 if dimension(problem) < 100 else 20  # of the last, a gradient takes thousands


RUNGS = (
    Rung(
        "random guessing",
        "value",
        mlp.loss,
        lambda problem: optimizers.random_search(),
        lambda problem: 20_000,
    ),
    Rung(
        "coordinate descent",
        "value",
        mlp.loss,
        lambda problem: optimizers.coordinate_descent(),
        lambda problem: 20_000,
    ),
    Rung(
        "gradient descent, forward differences",
        "forward",
        optimizers.numerical(mlp.loss, "forward"),
        _descent,
        _numerical_steps,
    ),
    Rung(
        "gradient descent, central differences",
        "central",
        optimizers.numerical(mlp.loss),
        _descent,
        _numerical_steps,
    ),
    Rung(
        "gradient descent, gradient by hand",
        "analytical",
        backprop.value_and_grad,
        _descent,
        lambda problem: 2000,
    ),
    Rung(
        "gradient descent, jax.grad",
        "analytical",
        jax.value_and_grad(mlp.loss),
        _descent,
        lambda problem: 2000,
    ),
    Rung(
        "momentum",
        "analytical",
        backprop.value_and_grad,
        lambda problem: optimizers.from_optax(
            optax.sgd(_RATES[problem.name]["momentum"], momentum=0.9)
        ),
        lambda problem: 2000,
    ),
    Rung(
        "Adam",
        "analytical",
        backprop.value_and_grad,
        lambda problem: optimizers.from_optax(optax.adam(_RATES[problem.name]["adam"])),
        lambda problem: 2000,
    ),
    Rung(
        "L-BFGS with line search",
        "analytical",
        backprop.value_and_grad,
        lambda problem: optimizers.from_optax(optax.lbfgs()),
        lambda problem: 200,
    ),
)


def climb(rung: Rung, problem: Problem, seed: int = 0) -> Climb:
    """Returns what a rung makes of a problem."""
    optimizer, steps = rung.make(problem), rung.steps(problem)

    def run(key, params, *args):
        return optimizers.minimize(optimizer, rung.objective, params, *args, key=key, steps=steps)

    given = (jax.random.key(seed), problem.params, *problem.data)
    compiled = jax.jit(run).lower(*given).compile()
    start = time.perf_counter()
    _, history = jax.block_until_ready(compiled(*given))
    seconds = time.perf_counter() - start
    values = np.asarray(history.values, np.float64)
    cost = optimizers.losses_per_call(rung.scheme, problem.params)
    losses = np.asarray(history.calls, np.int64) * cost
    if rung.scheme != "value":  # known with the gradient, before the search along a line
        losses = np.concatenate([[0], losses[:-1]]) + cost
    reached = np.flatnonzero(values < problem.goal)
    needed = int(losses[reached[0]]) if len(reached) else None
    needed_seconds = seconds * (reached[0] + 1) / steps if len(reached) else None
    return Climb(losses, values, seconds, needed, needed_seconds)


def guesses_needed(
    loss: Callable[[jax.Array], jax.Array],
    dimension: int,
    goal: float,
    key: jax.Array,
    draws: int = 2**22,
) -> float:
    """Returns how many guesses it takes on average, by the share of many that will do.

    Slide "Random guessing again"; guesses are uniform in [-1, 1).

    Args:
      loss: of a vector of weights.
      dimension: how many weights.
      goal: loss to come below.
      key: draws the guesses.
      draws: how many at least.

    Returns:
      A number of guesses; NaN if fewer than twenty came below the goal, which tell too little.

    Raises:
      ValueError: dimension zero.
    """
    if dimension < 1:
        raise ValueError(f"dimension must be 1 or more, got {dimension}")
    blocks = math.ceil(draws / _BLOCK)
    hits = int(_hits(loss, dimension, blocks, key, goal))
    return blocks * _BLOCK / hits if hits >= 20 else math.nan


_BLOCK = 2**16  # guesses in memory at once


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _hits(loss, dimension, blocks, key, goal):
    def count(number):
        guesses = jax.random.uniform(
            jax.random.fold_in(key, number), (_BLOCK, dimension), minval=-1, maxval=1
        )
        return jnp.sum(jax.vmap(loss)(guesses) < goal)

    return jnp.sum(jax.lax.map(count, jnp.arange(blocks)))


def distance(key: jax.Array, dimension: int) -> Callable[[jax.Array], jax.Array]:
    """Returns the squared distance of weights from hidden ones.

    It is the squared error, summed, of a linear neuron on as many points as weights, each of which
    sees one weight alone.
    """
    hidden = jax.random.uniform(key, (dimension,), minval=-1, maxval=1)
    return lambda w: jnp.sum((w - hidden) ** 2)


def of_two_points(is_sigmoid: bool) -> Callable[[jax.Array], jax.Array]:
    """Returns the mean squared error of w0, w1, w2 on the slide's two points."""
    inputs, targets = jnp.array(POINTS), jnp.array(LABELS)

    def loss(w):
        logits = inputs @ w
        return jnp.mean(((jax.nn.sigmoid(logits) if is_sigmoid else logits) - targets) ** 2)

    return loss
