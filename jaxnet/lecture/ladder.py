"""The lecture's ladder: its optimizers on three problems, counted in evaluations of the loss."""

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
from jaxnet.types import Layer

__all__ = [
    "LABELS",
    "POINTS",
    "RUNGS",
    "Climb",
    "Problem",
    "Rung",
    "climb",
    "dimension",
    "distance",
    "guesses_needed",
    "is_it_a_three",
    "neuron_loss",
    "small_network",
    "two_points",
]

# The slide's two points, (3, 2) -> 1 and (-2, -3) -> 0, each after x0 = 1.
POINTS = ((1.0, 3.0, 2.0), (1.0, -2.0, -3.0))
LABELS = (1.0, 0.0)


class Problem(NamedTuple):
    """A loss to minimise.

    Attributes:
      name: its name in tables.
      params: the initial parameters, the same for all rungs.
      data: ``(inputs, targets)``.
      goal: the problem is solved when the loss is below it.
    """

    name: str
    params: Any
    data: tuple[jax.Array, jax.Array]
    goal: float


class Rung(NamedTuple):
    """An optimizer of the ladder.

    Attributes:
      name: its name in tables.
      scheme: what a call of the objective costs; see `optimizers.losses_per_call`.
      objective: a function of parameters, inputs and targets: the loss, or loss and gradient.
      make: returns the optimizer for a problem.
      steps: returns how many steps to take on a problem.
    """

    name: str
    scheme: str
    objective: Callable[..., Any]
    make: Callable[[Problem], optimizers.Optimizer]
    steps: Callable[[Problem], int]


class Climb(NamedTuple):
    """The run of one rung on one problem.

    Attributes:
      losses: ``(steps,)`` evaluations of the loss until each value was known; a gradient counts
        as several.
      values: ``(steps,)`` the loss.
      seconds: time of all steps, without compilation.
      needed: evaluations of the loss to reach the goal; None if it was not reached.
      needed_seconds: time to reach the goal, or None.
    """

    losses: np.ndarray
    values: np.ndarray
    seconds: float
    needed: int | None
    needed_seconds: float | None


def two_points() -> Problem:
    """Returns the slide's problem: a sigmoid neuron with two inputs, from w = [-1, 0.5, 0.1]."""
    inputs = jnp.array([point[1:] for point in POINTS])
    layer = Layer(jnp.array([[0.5], [0.1]]), jnp.array([-1.0]))
    return Problem("two points", (layer,), (inputs, jnp.array(LABELS)[:, None]), 0.005)


def is_it_a_three() -> Problem:
    """Returns the problem "is it a 3?": one neuron on the embedded digits."""
    train = data.load("digits", validation_split=0).train
    targets = jnp.asarray(train.targets[:, 3:4])
    params = mlp.init(jax.random.key(0), (64, 1))
    return Problem("is it a 3?", params, (jnp.asarray(train.inputs), targets), 0.02)


def small_network() -> Problem:
    """Returns the problem of a 64-16-10 network on the embedded digits."""
    train = data.load("digits", validation_split=0).train
    params = mlp.init(jax.random.key(0), (64, 16, 10))
    return Problem(
        "64-16-10", params, (jnp.asarray(train.inputs), jnp.asarray(train.targets)), 0.15
    )


def dimension(problem: Problem) -> int:
    """Returns the number of a problem's parameters."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(problem.params))


# Of the rates 0.1, 0.3, 1, 3, 10 and 30 (a tenth of these for momentum, a hundredth for Adam), each
# is one that reaches the goal in the fewest steps. On 64-16-10 momentum does not reach it in 2,000
# steps at any rate; the rate here comes closest.
_RATES = {
    "two points": {"plain": 10.0, "momentum": 3.0, "adam": 0.3},
    "is it a 3?": {"plain": 10.0, "momentum": 3.0, "adam": 0.1},
    "64-16-10": {"plain": 3.0, "momentum": 0.1, "adam": 0.03},
}


def _descent(problem: Problem) -> optimizers.Optimizer:
    return optimizers.gradient_descent(_RATES[problem.name]["plain"])


def _numerical_steps(problem: Problem) -> int:
    return 300 if dimension(problem) < 100 else 20  # the network's gradient costs thousands


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
        optimizers.numerical(mlp.loss, scheme="forward"),
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


def climb(rung: Rung, problem: Problem) -> Climb:
    """Runs a rung on a problem."""
    optimizer, steps = rung.make(problem), rung.steps(problem)

    def run(key: jax.Array, params: Any, *args: jax.Array) -> Any:
        return optimizers.minimize(optimizer, rung.objective, params, *args, key=key, steps=steps)

    given = (jax.random.key(0), problem.params, *problem.data)
    compiled = jax.jit(run).lower(*given).compile()
    start = time.perf_counter()
    _, history = jax.block_until_ready(compiled(*given))
    seconds = time.perf_counter() - start
    values = np.asarray(history.values, np.float64)
    cost = optimizers.losses_per_call(rung.scheme, problem.params)
    losses = np.asarray(history.calls, np.int64) * cost
    if rung.scheme != "value":  # known before the step searches along a line
        losses = np.concatenate([[0], losses[:-1]]) + cost
    reached = np.flatnonzero(values < problem.goal)
    needed = int(losses[reached[0]]) if len(reached) else None
    needed_seconds = seconds * (reached[0] + 1) / steps if len(reached) else None
    return Climb(losses, values, seconds, needed, needed_seconds)


def guesses_needed(
    loss: Callable[[jax.Array], jax.Array],
    dimension: int,
    goal: float,
    *,
    key: jax.Array,
    draws: int = 2**22,
) -> float:
    """Estimates how many random guesses of the weights it takes, on average, to reach a goal.

    Slide "Random guessing again". The guesses are uniform in [-1, 1).

    Args:
      loss: a function of the weights, ``(dimension,)``.
      dimension: the number of weights.
      goal: a guess reaches it if its loss is below.
      key: a key of `jax.random`, for the guesses.
      draws: the least number of guesses to draw.

    Returns:
      Guesses drawn for each one that reached the goal; NaN if fewer than twenty did, which are too
      few for an estimate.

    Raises:
      ValueError: a dimension below 1.

    Example:
      >>> round(guesses_needed(lambda w: abs(w[0]), 1, 0.25, key=jax.random.key(0)))
      4
    """
    if dimension < 1:
        raise ValueError(f"dimension must be 1 or more, got {dimension}")
    blocks = math.ceil(draws / _BLOCK)
    hits = int(_hits(loss, dimension, blocks, key, goal))
    return blocks * _BLOCK / hits if hits >= 20 else math.nan


_BLOCK = 2**16  # guesses in memory at once


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _hits(
    loss: Callable[[jax.Array], jax.Array],
    dimension: int,
    blocks: int,
    key: jax.Array,
    goal: float,
) -> jax.Array:
    """Returns how many of so many blocks of guesses reach the goal."""

    def count(number: jax.Array) -> jax.Array:
        guesses = jax.random.uniform(
            jax.random.fold_in(key, number), (_BLOCK, dimension), minval=-1, maxval=1
        )
        return jnp.sum(jax.vmap(loss)(guesses) < goal)

    return jnp.sum(jax.lax.map(count, jnp.arange(blocks)))


def distance(key: jax.Array, dimension: int) -> Callable[[jax.Array], jax.Array]:
    """Returns a loss: the squared distance of the weights from hidden weights, drawn at random.

    It is the sum of squared errors of a linear neuron on as many points as weights, where each
    point depends on one weight only.

    Example:
      >>> loss = distance(jax.random.key(0), 3)
      >>> loss(jnp.zeros(3)).shape
      ()
    """
    hidden = jax.random.uniform(key, (dimension,), minval=-1, maxval=1)
    return lambda w: jnp.sum((w - hidden) ** 2)


def neuron_loss(activation: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """Returns a loss: a neuron's mean squared error on the slide's two points.

    Args:
      activation: the neuron's output as a function of w0 + w1 x1 + w2 x2.

    Example:
      >>> float(neuron_loss(jax.nn.sigmoid)(jnp.zeros(3)))
      0.25
    """
    inputs, targets = jnp.array(POINTS), jnp.array(LABELS)
    return lambda w: jnp.mean((activation(inputs @ w) - targets) ** 2)
