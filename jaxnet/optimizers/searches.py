"""Optimizers that call the objective for its value only."""

import functools
import math

import jax
import jax.numpy as jnp

from jaxnet.optimizers.core import (
    Optimizer,
    State,
    begin,
    check_count,
    check_positive,
    ravel,
    scalar,
)

__all__ = ["coordinate_descent", "random_search"]

_FARTHEST = 10.0  # the most steps that coordinate descent moves to a parabola's vertex


def random_search(*, guesses: int = 1, scale: float = 1.0) -> Optimizer:
    """Returns a search that draws parameters at random and keeps the best.

    Slide "Random guessing again". The first parameters are not evaluated: the best guess of the
    first step replaces them.

    Args:
      guesses: how many to draw in a step, 1 or more.
      scale: guesses are uniform in [-scale, scale), whatever the first parameters.

    Raises:
      ValueError: guesses below 1, or a scale that is not positive and finite.
      TypeError: guesses that are no integer.

    Example:
      >>> from jaxnet.optimizers import minimize
      >>> _, history = minimize(
      ...     random_search(guesses=8), jnp.sum, jnp.ones(2), key=jax.random.key(0), steps=3
      ... )
      >>> history.calls.tolist()
      [8, 16, 24]
    """
    check_count(guesses=guesses)
    check_positive(scale=scale)

    def step(key, loss, params, state):
        leaves, structure = jax.tree.flatten(params)
        drawn = [
            jax.random.uniform(k, (guesses, *leaf.shape), leaf.dtype, -scale, scale)
            for k, leaf in zip(jax.random.split(key, len(leaves)), leaves, strict=True)
        ]
        candidates = structure.unflatten(drawn)
        values = _known(jax.vmap(functools.partial(scalar, loss))(candidates), state)
        best = jnp.argmin(values)
        is_better = values[best] < state.value
        kept = jax.tree.map(
            lambda new, old: jnp.where(is_better, new[best], old), candidates, params
        )
        value = jnp.where(is_better, values[best], state.value)
        return kept, State(value, state.calls + guesses)

    return Optimizer(begin, step)


def coordinate_descent(*, step: float = 0.1) -> Optimizer:
    """Returns a search that changes one coordinate, drawn at random, in each step.

    Slide "Coordinate Descent". It evaluates the objective a step below and a step above, then at
    the minimum of the parabola through these points, and keeps the best point; so the value never
    rises. Where the objective is quadratic along the coordinate, this finds the minimum along it.

    Each coordinate has its own step: the distance of its last move, or half the last step if that
    did not help, but never smaller than the coordinate's rounding. All parameters have one dtype.

    Args:
      step: the first step of every coordinate.

    Raises:
      ValueError: a step that is not positive and finite.

    Example:
      >>> from jaxnet.optimizers import minimize
      >>> params, _ = minimize(
      ...     coordinate_descent(), lambda x: (x - 3) ** 2, jnp.array(2.5), key=jax.random.key(0),
      ...     steps=2,
      ... )
      >>> round(float(params), 3)
      3.0
    """
    check_positive(step=step)

    def init(params):
        state = begin(params)
        return state._replace(inner=jnp.full_like(ravel(params)[0], step))

    def take(key, loss, params, state):
        flat, unravel = ravel(params)
        at = jax.random.randint(key, (), 0, flat.size)
        size, steps = state.inner[at], state.inner

        def along(move):
            return _known(scalar(loss, unravel(flat.at[at].add(move))), state)

        here = jax.lax.cond(
            state.calls == 0, lambda: along(jnp.zeros_like(size)), lambda: state.value
        )
        below, above = along(-size), along(size)
        slope, curvature = (above - below) / 2, above - 2 * here + below  # in steps
        is_convex = jnp.isfinite(slope) & (curvature > 0)
        vertex = jnp.where(is_convex, -slope / jnp.where(is_convex, curvature, 1), 0)
        vertex = size * jnp.clip(vertex, -_FARTHEST, _FARTHEST).astype(size.dtype)
        moves = jnp.stack([jnp.zeros_like(size), -size, size, vertex])
        values = jnp.stack([here, below, above, along(vertex)])
        best = jnp.argmin(values)
        moved = jnp.abs(moves[best])
        least = math.cbrt(float(jnp.finfo(flat.dtype).eps)) * jnp.maximum(jnp.abs(flat[at]), 1)
        steps = steps.at[at].set(jnp.maximum(jnp.where(moved > 0, moved, size / 2), least))
        calls = state.calls + 3 + (state.calls == 0).astype(state.calls.dtype)
        return unravel(flat.at[at].add(moves[best])), State(values[best], calls, steps)

    return Optimizer(init, take)


def _known(values: jax.Array, state: State) -> jax.Array:
    """Replaces NaN by infinity, which is never the best, and casts to the state's dtype."""
    return jnp.where(jnp.isnan(values), jnp.inf, values).astype(state.value.dtype)
