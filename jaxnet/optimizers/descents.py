"""Optimizers that call the objective for its value and gradient, and numerical gradients."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxnet.gradcheck import differences
from jaxnet.optimizers.core import Optimizer, State, begin, check_positive, ravel, scalar

__all__ = ["from_optax", "gradient_descent", "losses_per_call", "numerical"]

_BLOCK = 64  # coordinates that `numerical` moves at once: more takes more memory and as much time


def gradient_descent(learning_rate: float) -> Optimizer:
    """Returns a descent whose step is ``params - learning_rate * gradient``.

    Slide "Now that we know the gradient...". The objective computes the gradient: by differences
    (`numerical`), by hand, or by `jax.value_and_grad`.

    Args:
      learning_rate: positive and finite.

    Raises:
      ValueError: another learning rate.

    Example:
      >>> optimizer, params = gradient_descent(0.25), jnp.ones(2)
      >>> objective = jax.value_and_grad(lambda x: jnp.sum(x**2))
      >>> optimizer.step(jax.random.key(0), objective, params, optimizer.init(params))[0].tolist()
      [0.5, 0.5]
    """
    check_positive(learning_rate=learning_rate)
    return from_optax(optax.sgd(float(learning_rate)))  # of NumPy, it would have a dtype


def from_optax(transform: optax.GradientTransformation) -> Optimizer:
    """Returns a descent that takes the steps of an optax optimizer: momentum, Adam, L-BFGS, ...

    The calls of a line search (`optax.lbfgs`) are counted too.

    Args:
      transform: an optimizer of optax.

    Raises:
      TypeError: anything else.

    Example:
      >>> from jaxnet.optimizers import minimize
      >>> params, _ = minimize(
      ...     from_optax(optax.sgd(0.1, momentum=0.9)), jax.value_and_grad(lambda x: x**2),
      ...     jnp.array(1.0), key=jax.random.key(0), steps=200,
      ... )
      >>> abs(float(params)) < 0.01
      True
    """
    if not isinstance(transform, optax.GradientTransformation):
        got = getattr(transform, "__name__", type(transform).__name__)
        raise TypeError(f"transform must be an optax.GradientTransformation, got {got}")
    update = optax.with_extra_args_support(transform).update

    def init(params):
        return begin(params)._replace(inner=transform.init(params))

    def step(key, value_and_grad, params, state):
        del key
        value, gradient = _value_and_grad(value_and_grad, params)
        updates, inner = update(
            gradient,
            state.inner,
            params,
            value=value,
            grad=gradient,
            value_fn=lambda params: value_and_grad(params)[0],
        )
        searched = optax.tree_utils.tree_get(inner, "num_linesearch_steps", 0)
        calls = state.calls + 1 + jnp.asarray(searched, state.calls.dtype)
        kept = value.astype(state.value.dtype)
        return optax.apply_updates(params, updates), State(kept, calls, inner)

    return Optimizer(init, step)


def numerical(
    loss: Callable[..., jax.Array], *, scheme: str = "central", step: float | None = None
) -> Callable[..., tuple[jax.Array, Any]]:
    """Returns a function like ``jax.value_and_grad(loss)`` that uses finite differences.

    Slide "But how do we figure out what's best?". For d coordinates it evaluates 2d + 1 losses
    (central) or d + 1 (forward), in the dtype of the parameters, and may be compiled. To check
    gradients, use `gradcheck.finite_difference`.

    Args:
      loss: a scalar function of parameters and data.
      scheme: ``"central"``: ``(f(x + h) - f(x - h)) / 2h``; or ``"forward"``:
        ``(f(x + h) - f(x)) / h``.
      step: h for coordinates up to 1 in size, and relative to larger ones; by default
        `gradcheck.default_step`.

    Raises:
      ValueError: an unknown scheme, or a step that is not positive and finite.
      TypeError: a loss that is no function; when called, parameters of several dtypes.

    Example:
      >>> value, gradient = numerical(lambda x: x**2, step=0.25)(jnp.array(3.0))
      >>> float(value), float(gradient)
      (9.0, 6.0)
    """
    if not callable(loss):
        raise TypeError(f"loss must be a function, got {type(loss).__name__}")
    if scheme not in ("central", "forward"):
        raise ValueError(f"scheme must be central or forward, got {scheme!r}")
    if step is not None:
        check_positive(step=step)

    def value_and_grad(params, *args):
        flat, unravel = ravel(params)
        value = scalar(lambda params: loss(params, *args), params)

        def slope(at):
            above, below = differences.points(flat[at], scheme=scheme, step=step)
            upper = loss(unravel(flat.at[at].set(above)), *args)
            lower = loss(unravel(flat.at[at].set(below)), *args) if scheme == "central" else value
            return differences.quotient(upper, lower, above, below)

        slopes = jax.lax.map(slope, jnp.arange(flat.size), batch_size=_BLOCK)
        return value, unravel(slopes.astype(flat.dtype))

    return value_and_grad


def losses_per_call(scheme: str, params: Any) -> int:
    """Returns the cost of one call of an objective, in evaluations of the loss.

    Args:
      scheme: ``"value"``, ``"forward"`` or ``"central"`` (see `numerical`), or ``"analytical"``:
        the backward pass multiplies twice as much as the forward pass, together 3.
      params: a pytree of arrays, or of their shapes.

    Raises:
      ValueError: an unknown scheme.

    Example:
      >>> losses_per_call("central", jnp.ones(10))
      21
    """
    dimension = sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(params))
    costs = {"value": 1, "forward": dimension + 1, "central": 2 * dimension + 1, "analytical": 3}
    if scheme not in costs:
        raise ValueError(f"scheme must be one of {', '.join(costs)}, got {scheme!r}")
    return costs[scheme]


def _value_and_grad(objective, params) -> tuple[jax.Array, Any]:
    result = objective(params)
    if not (isinstance(result, tuple) and len(result) == 2):
        raise TypeError(
            "the objective of a descent must return its value and gradient, as jax.value_and_grad "
            f"does, got {type(result).__name__}"
        )
    value, gradient = result
    if jax.tree.structure(gradient) != jax.tree.structure(params):
        raise TypeError(
            f"the gradient must be a pytree like params, {jax.tree.structure(params)}, got "
            f"{jax.tree.structure(gradient)}"
        )
    shapes, got = (tuple(map(jnp.shape, jax.tree.leaves(each))) for each in (params, gradient))
    if shapes != got:
        raise ValueError(f"the gradient must have the shapes of params, {shapes}, got {got}")
    return scalar(lambda _: value, params), gradient
