"""The lecture's optimizers, from guessing to L-BFGS, under one contract.

Each is a pair of pure functions, as in optax, and works on any scalar function of any pytree. The
searches ask for a function's value, the descents for its value and gradient::

    optimizer = optimizers.coordinate_descent()
    params, history = optimizers.minimize(optimizer, loss, params, x, t, key=key, steps=100)

    optimizer = optimizers.gradient_descent(0.1)
    optimizers.minimize(optimizer, jax.value_and_grad(loss), params, x, t, key=key, steps=100)
    optimizers.minimize(optimizer, optimizers.numerical(loss), params, x, t, key=key, steps=100)
"""

import functools
import math
import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jaxnet import gradcheck

_BLOCK = 64  # coordinates that `numerical` moves at once: more would need more memory, no less time
_FARTHEST = 10.0  # steps that a parabola's vertex is trusted for


class State(NamedTuple):
    """What an optimizer knows between steps.

    Attributes:
      value: of the objective, a scalar: of the searches, at the parameters that a step returned; of
        the descents, at those that it was given. Infinite before the first.
      calls: how often the objective has been called.
      inner: what else the optimizer keeps.
    """

    value: jax.Array
    calls: jax.Array
    inner: Any = ()


class Optimizer(NamedTuple):
    """An optimizer.

    Attributes:
      init: ``init(params)`` returns the first `State`.
      step: ``step(key, objective, params, state)`` returns parameters and the next state. Of the
        searches, ``objective(params)`` is a scalar; of the descents, a scalar and its gradient.
    """

    init: Callable[[Any], State]
    step: Callable[[jax.Array, Callable[[Any], Any], Any, State], tuple[Any, State]]


class History(NamedTuple):
    """What a minimisation went through; ``(steps,)`` each.

    Attributes:
      values: see `State`.
      calls: of the objective, up to and including each step.
    """

    values: jax.Array
    calls: jax.Array


def minimize(
    optimizer: Optimizer,
    objective: Callable[..., Any],
    params: Any,
    *args: Any,
    key: jax.Array,
    steps: int,
) -> tuple[Any, History]:
    """Takes so many steps, as one compiled program.

    It may be vectorised over keys, or over the first parameters, by `jax.vmap`. It is compiled once
    for an optimizer and an objective: make both before a loop, not in it.

    Args:
      optimizer: one of this module's.
      objective: is called as ``objective(params, *args)``, and returns what the optimizer asks for.
      params: where to begin, a pytree of floating-point arrays.
      *args: data.
      key: a key of `jax.random`.
      steps: how many, 1 or more.

    Returns:
      The parameters after the last step, and the history.

    Raises:
      ValueError: parameters without a coordinate, an objective whose value is no scalar, or steps
        below 1.
      TypeError: an optimizer of another kind, parameters that are not floating-point arrays, an
        objective that JAX cannot trace or that does not return what the optimizer asks for, or
        steps that are no integer.
    """
    if not isinstance(optimizer, Optimizer):
        got = type(optimizer).__name__
        raise TypeError(f"optimizer must be an Optimizer (see from_optax), got {got}")
    _check_count(steps=steps)
    _check_params(params)
    try:
        return _minimize(optimizer, objective, int(steps), key, params, args)
    except jax.errors.JAXTypeError as error:
        reason = str(error).splitlines()[0]
        raise TypeError(f"the objective must be a function that JAX can trace: {reason}") from error


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _minimize(optimizer, objective, steps, key, params, args):
    def step(carry, number):
        params, state = optimizer.step(
            jax.random.fold_in(key, number), lambda params: objective(params, *args), *carry
        )
        return (params, state), History(state.value, state.calls)

    (params, _), history = jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(steps))
    return params, history


def random_search(guesses: int = 1, scale: float = 1.0) -> Optimizer:
    """Guesses parameters, and keeps the best (slide "Random guessing again").

    Where it begins is no guess: the best of the first step's takes its place.

    Args:
      guesses: how many a step.
      scale: they are uniform in [-scale, scale), wherever the search began.
    """
    _check_count(guesses=guesses)
    _check_positive(scale=scale)

    def step(key, loss, params, state):
        leaves, structure = jax.tree.flatten(params)
        drawn = [
            jax.random.uniform(k, (guesses, *leaf.shape), leaf.dtype, -scale, scale)
            for k, leaf in zip(jax.random.split(key, len(leaves)), leaves, strict=True)
        ]
        candidates = structure.unflatten(drawn)
        values = _known(jax.vmap(functools.partial(_value, loss))(candidates), state)
        best = jnp.argmin(values)
        is_better = values[best] < state.value
        kept = jax.tree.map(
            lambda new, old: jnp.where(is_better, new[best], old), candidates, params
        )
        value = jnp.where(is_better, values[best], state.value)
        return kept, State(value, state.calls + guesses)

    return Optimizer(_begin, step)


def coordinate_descent(step: float = 0.1) -> Optimizer:
    """Fixes all but one coordinate, drawn at random, and steps towards the minimum along it.

    Slide "Coordinate Descent". It looks to both sides, and where the parabola through what it saw
    has its minimum; for a function that is quadratic along the axis that is the minimum itself. The
    best of the points seen is kept, so that the value never rises. A coordinate's step is what
    it last moved by, or half of what it last tried in vain, but never so fine that the coordinate's
    rounding hides it. (Where the loss is so large that its own rounding hides what a step does,
    the search stays where it is.) All parameters are of one dtype.

    Args:
      step: of every coordinate, at first.
    """
    _check_positive(step=step)

    def init(params):
        state = _begin(params)
        return state._replace(inner=jnp.full_like(_ravel(params)[0], step))

    def take(key, loss, params, state):
        flat, unravel = _ravel(params)
        at = jax.random.randint(key, (), 0, flat.size)
        size, steps = state.inner[at], state.inner

        def along(move):
            return _known(_value(loss, unravel(flat.at[at].add(move))), state)

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


def gradient_descent(learning_rate: float) -> Optimizer:
    """Steps against the gradient, ``params - learning_rate * gradient``.

    Slide "Now that we know the gradient...". Whether the gradient is numerical, written by hand or
    `jax.grad`'s is the objective's affair.

    Args:
      learning_rate: of the step.
    """
    _check_positive(learning_rate=learning_rate)
    return from_optax(optax.sgd(learning_rate))


def from_optax(transform: optax.GradientTransformation) -> Optimizer:
    """Returns an optimizer that steps as one of optax does: momentum, Adam, L-BFGS, ...

    Those that search along a line (`optax.lbfgs`) differentiate the value themselves, and what they
    call is counted.

    Args:
      transform: of optax.

    Raises:
      TypeError: what is no transformation.
    """
    if not isinstance(transform, optax.GradientTransformation):
        got = getattr(transform, "__name__", type(transform).__name__)
        raise TypeError(f"transform must be an optax.GradientTransformation, got {got}")
    update = optax.with_extra_args_support(transform).update

    def init(params):
        return _begin(params)._replace(inner=transform.init(params))

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
    loss: Callable[..., jax.Array], scheme: str = "central", step: float | None = None
) -> Callable[..., tuple[jax.Array, Any]]:
    """Returns a function with the contract of ``jax.value_and_grad(loss)``, by differences.

    Slide "But how do we figure out what's best?". With d coordinates it takes 2d + 1 losses
    (central) or d + 1 (forward), in the precision of the parameters, and may be compiled;
    `gradcheck.finite_difference` is the one to check gradients with.

    Args:
      loss: a scalar function of parameters and data.
      scheme: ``"central"``, ``(f(x + h) - f(x - h)) / 2h``, or ``"forward"``, ``(f(x + h) - f(x)) /
        h``.
      step: h for coordinates up to 1 in size, and relative to larger ones; by default
        `gradcheck.default_step`.

    Raises:
      ValueError: an unknown scheme, or a step that is not positive.
      TypeError: when it is called with parameters of several dtypes.
    """
    if scheme not in ("central", "forward"):
        raise ValueError(f"scheme must be central or forward, got {scheme!r}")
    if step is not None:
        _check_positive(step=step)

    def value_and_grad(params, *args):
        flat, unravel = _ravel(params)
        relative = gradcheck.default_step(flat.dtype, scheme) if step is None else step
        value = _value(lambda params: loss(params, *args), params)

        def slope(at):
            h = relative * jnp.maximum(jnp.abs(flat[at]), 1)
            above = flat.at[at].add(h)
            below = flat.at[at].add(-h) if scheme == "central" else flat
            change = loss(unravel(above), *args)
            change -= loss(unravel(below), *args) if scheme == "central" else value
            taken = above[at] - below[at]  # after rounding
            return change / taken.astype(change.dtype)

        slopes = jax.lax.map(slope, jnp.arange(flat.size), batch_size=_BLOCK)
        return value, unravel(slopes.astype(flat.dtype))

    return value_and_grad


def losses_per_call(scheme: str, params: Any) -> int:
    """Returns what a call of the objective costs, in losses; the currency of the lecture's ladder.

    Args:
      scheme: ``"value"``, ``"forward"`` or ``"central"`` (see `numerical`), or ``"analytical"``:
        the backward pass multiplies twice as much as the forward one, so that both make 3.
      params: of which the gradient is.

    Raises:
      ValueError: an unknown scheme.
    """
    dimension = sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(params))
    costs = {"value": 1, "forward": dimension + 1, "central": 2 * dimension + 1, "analytical": 3}
    if scheme not in costs:
        raise ValueError(f"scheme must be one of {', '.join(costs)}, got {scheme!r}")
    return costs[scheme]


def _begin(params) -> State:
    dtype = _check_params(params)
    if jnp.finfo(dtype).bits < 32:  # a loss in 16 bits would tell too little
        dtype = jnp.float32
    return State(jnp.array(jnp.inf, dtype), jnp.zeros((), jnp.int32))


def _check_params(params) -> Any:
    """Returns the parameters' widest dtype, if there is anything to optimize."""
    leaves = jax.tree.leaves(params)
    for leaf in leaves:
        if not hasattr(leaf, "dtype") or not jnp.issubdtype(leaf.dtype, jnp.floating):
            got = getattr(leaf, "dtype", type(leaf).__name__)
            raise TypeError(f"params must be floating-point arrays, got {got}")
    if not sum(leaf.size for leaf in leaves):
        raise ValueError("params must have a coordinate to optimize, got none")
    return max((leaf.dtype for leaf in leaves), key=lambda dtype: jnp.finfo(dtype).bits)


def _ravel(params) -> tuple[jax.Array, Callable[[jax.Array], Any]]:
    """Returns the parameters as one vector, and what turns it back."""
    _check_params(params)
    dtypes = sorted({str(leaf.dtype) for leaf in jax.tree.leaves(params)})
    if len(dtypes) > 1:
        raise TypeError(f"params must be of one dtype, got {' and '.join(dtypes)}")
    return ravel_pytree(params)


def _value(loss, params) -> jax.Array:
    value = loss(params)
    if not hasattr(value, "shape"):
        raise TypeError(f"the objective must return a scalar, got {type(value).__name__}")
    if value.shape != ():
        raise ValueError(f"the objective must return a scalar, got shape {value.shape}")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"the objective must return a floating-point scalar, got {value.dtype}")
    return value


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
    return _value(lambda _: value, params), gradient


def _known(values: jax.Array, state: State) -> jax.Array:
    """Returns values with infinity for NaN, which is never the best, in the dtype that is kept."""
    return jnp.where(jnp.isnan(values), jnp.inf, values).astype(state.value.dtype)


def _check_positive(**options: float) -> None:
    for name, value in options.items():
        if not isinstance(value, numbers.Real) or not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}")


def _check_count(**options: int) -> None:
    for name, value in options.items():
        if not hasattr(value, "__index__") or isinstance(value, bool):
            raise TypeError(f"{name} must be an integer, got {value!r}")
        if value < 1:
            raise ValueError(f"{name} must be 1 or more, got {value}")
