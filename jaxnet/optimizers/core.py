"""What an optimizer is, and the loop that runs one."""

import functools
import math
import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

__all__ = ["History", "Optimizer", "State", "minimize"]


class State(NamedTuple):
    """The state of an optimizer between two steps.

    Attributes:
      value: the objective, a scalar. A search's is at the parameters that its last step returned, a
        descent's at those that its last step was given. Infinite before the first step.
      calls: how often the objective has been called, int32.
      inner: anything else that the optimizer keeps.
    """

    value: jax.Array
    calls: jax.Array
    inner: Any = ()


class Optimizer(NamedTuple):
    """An optimizer: two pure functions.

    Attributes:
      init: ``init(params)`` returns the first `State`.
      step: ``step(key, objective, params, state)`` returns new parameters and the next state. A
        search calls ``objective(params)`` for a scalar, a descent for a scalar and its gradient.
    """

    init: Callable[[Any], State]
    step: Callable[[jax.Array, Callable[[Any], Any], Any, State], tuple[Any, State]]


class History(NamedTuple):
    """The values and costs of a minimisation, ``(steps,)`` each.

    Attributes:
      values: `State.value` after each step.
      calls: `State.calls` after each step.
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
    """Minimises a function by a number of steps, compiled as one loop.

    May be vectorised over keys or over the first parameters by `jax.vmap`. It compiles once for an
    optimizer and an objective: make both before a loop, not in it.

    Args:
      optimizer: one of this module's.
      objective: called as ``objective(params, *args)``; returns a floating-point scalar for a
        search, a pair of it and its gradient for a descent.
      params: where to begin, a pytree of floating-point arrays.
      *args: pytrees of arrays, the data.
      key: a key of `jax.random`.
      steps: how many, 1 or more.

    Returns:
      The parameters after the last step, and the history.

    Raises:
      ValueError: parameters without a coordinate, an objective whose value is no scalar, or steps
        below 1.
      TypeError: an optimizer of another kind, parameters that are not floating-point arrays, an
        objective that JAX cannot trace or that does not return what the optimizer asks for,
        steps that are no integer, or a key that is not of `jax.random`.

    Example:
      >>> from jaxnet import optimizers
      >>> objective = jax.value_and_grad(lambda x: jnp.sum(x**2))
      >>> params, history = minimize(
      ...     optimizers.gradient_descent(0.25), objective, jnp.ones(2), key=jax.random.key(0),
      ...     steps=3,
      ... )
      >>> params.tolist(), history.values.tolist(), history.calls.tolist()
      ([0.125, 0.125], [2.0, 0.5, 0.125], [1, 2, 3])
    """
    if not isinstance(optimizer, Optimizer):
        got = type(optimizer).__name__
        raise TypeError(f"optimizer must be an Optimizer (see from_optax), got {got}")
    if not callable(objective):
        raise TypeError(f"objective must be a function, got {type(objective).__name__}")
    check_count(steps=steps)
    check_params(params)
    dtype = getattr(key, "dtype", None)
    is_key = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not (is_key or dtype == jnp.uint32):
        raise TypeError(f"key must be a key of jax.random, got {dtype or type(key).__name__}")
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


def begin(params) -> State:
    dtype = check_params(params)
    if jnp.finfo(dtype).bits < 32:  # values in 16 bits are too coarse to compare
        dtype = jnp.float32
    return State(jnp.array(jnp.inf, dtype), jnp.zeros((), jnp.int32))


def check_params(params) -> Any:
    """Refuses what cannot be optimized; returns the widest dtype."""
    leaves = jax.tree.leaves(params)
    for leaf in leaves:
        if not hasattr(leaf, "dtype") or not jnp.issubdtype(leaf.dtype, jnp.floating):
            got = getattr(leaf, "dtype", type(leaf).__name__)
            raise TypeError(f"params must be floating-point arrays, got {got}")
    if not sum(leaf.size for leaf in leaves):
        raise ValueError("params must have a coordinate to optimize, got none")
    return max((leaf.dtype for leaf in leaves), key=lambda dtype: jnp.finfo(dtype).bits)


def ravel(params) -> tuple[jax.Array, Callable[[jax.Array], Any]]:
    """Returns the parameters as one vector, and the function that turns it back."""
    check_params(params)
    dtypes = sorted({str(leaf.dtype) for leaf in jax.tree.leaves(params)})
    if len(dtypes) > 1:
        raise TypeError(f"params must be of one dtype, got {' and '.join(dtypes)}")
    return ravel_pytree(params)


def scalar(loss, params) -> jax.Array:
    value = loss(params)
    if not hasattr(value, "shape"):
        raise TypeError(f"the objective must return a scalar, got {type(value).__name__}")
    if value.shape != ():
        raise ValueError(f"the objective must return a scalar, got shape {value.shape}")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"the objective must return a floating-point scalar, got {value.dtype}")
    return value


def check_positive(**options: float) -> None:
    for name, value in options.items():
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not is_number or not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value!r}")


def check_count(**options: int) -> None:
    for name, value in options.items():
        if not hasattr(value, "__index__") or isinstance(value, bool):
            raise TypeError(f"{name} must be an integer, got {value!r}")
        if value < 1:
            raise ValueError(f"{name} must be 1 or more, got {value}")
