"""Finite differences: the derivative of any scalar function of a pytree, from its values alone."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.typing import DTypeLike

from jaxnet.gradcheck import arguments, changes

SCHEMES = ("central", "forward", "complex-step")


def default_step(dtype: DTypeLike, scheme: str = "central") -> float:
    """Returns the step that balances truncation and round-off where f and its derivatives are 1.

    Slide "But how do we figure out what's best?": the errors are O(h) and O(h^2).

    Args:
      dtype: of the coordinate, floating-point.
      scheme: ``"central"``, ``"forward"`` or ``"complex-step"``.

    Raises:
      ValueError: an unknown scheme.
    """
    _check_scheme(scheme)
    epsilon = float(jnp.finfo(dtype).eps)
    if scheme == "central":
        return math.cbrt(3 * epsilon)  # least h^2/6 f''' + eps f / h
    if scheme == "complex-step":
        return epsilon**2  # nothing cancels: h^2/6 f''' is all there is
    return 2 * math.sqrt(epsilon)  # least h/2 f'' + 2 eps f / h


def finite_difference(
    f: Callable[..., Any],
    *args: Any,
    argnums: int = 0,
    scheme: str = "central",
    step: float | None = None,
) -> Any:
    """Estimates the gradient of ``f(*args)`` in ``args[argnums]``, all of its coordinates.

    Central: ``(f(x + h) - f(x - h)) / 2h``, error O(h^2); forward: ``(f(x + h) - f(x)) / h``, error
    O(h). The difference is divided by the step that was taken after rounding. What a coordinate
    does not change is computed once, so that a network's take a fraction of the time of as many
    calls; see `jaxnet.gradcheck.changes`.

    Complex step: ``imag(f(x + ih)) / h``, error O(h^2) without round-off (Squire and Trapp, SIAM
    Rev. 40, 1998), as exact as `jax.grad`, for an ``f`` that is holomorphic. ``args[argnums]`` is
    complex then, in complex64 unless a leaf is float64, and may meet real numbers in ``f`` even
    under strict dtype promotion.

    Args:
      f: a function that JAX can trace and vectorise, with a real scalar result.
      *args: its arguments; ``args[argnums]`` is a pytree of floating-point arrays.
      argnums: which argument to differentiate in.
      scheme: ``"central"``, ``"forward"`` or ``"complex-step"``.
      step: h for coordinates up to 1 in size, and relative to larger ones; by default that of
        `default_step`, by the dtype of each leaf.

    Returns:
      A pytree like ``args[argnums]``.

    Raises:
      ValueError: an unknown scheme, a step that is not positive and finite, a result that is not
        scalar, an ``argnums`` out of range, empty leaves, or coordinates that are not there.
      TypeError: leaves or a result that are not real floating-point numbers; under
        ``"complex-step"`` an ``f`` that refuses complex arguments, or does not look holomorphic.
    """
    x = check_argument(args, argnums)
    coordinates = jax.tree.map(lambda leaf: np.arange(np.size(leaf)), x)
    values = finite_difference_at(f, coordinates, *args, argnums=argnums, scheme=scheme, step=step)
    return jax.tree.map(lambda leaf, value: value.reshape(jnp.shape(leaf)), x, values)


def finite_difference_at(
    f: Callable[..., Any],
    coordinates: Any,
    *args: Any,
    argnums: int = 0,
    scheme: str = "central",
    step: float | None = None,
) -> Any:
    """Estimates chosen coordinates of the gradient; see `finite_difference`.

    Args:
      f: as in `finite_difference`, and so are the keywords.
      coordinates: a pytree like ``args[argnums]``: for each leaf ``(k,)`` integers, indices into
        the leaf as it is when flattened (row by row). `sample_coordinates` draws them.
      *args: the arguments of ``f``.

    Returns:
      A pytree of the same structure: for each leaf ``(k,)`` estimates, of the leaf's dtype.

    Raises:
      As `finite_difference`.
    """
    _check_scheme(scheme)
    if step is not None and not (step > 0 and math.isfinite(step)):
        raise ValueError(f"step must be positive and finite, got {step}")
    check_argument(args, argnums)
    f, args = arguments.close(f, args, argnums)
    check_result(f, args)
    if scheme == "complex-step":
        _check_holomorphic(f, args, argnums)
    _check_coordinates(coordinates, args[argnums])
    return make_estimator(f, argnums, scheme)(coordinates, args, step)


def sample_coordinates(key: jax.Array, x: Any, count: int) -> Any:
    """Draws coordinates of every leaf without replacement, at most ``count`` of each.

    Args:
      key: a key of `jax.random`.
      x: a pytree of arrays.
      count: 1 or more.

    Returns:
      A pytree like ``x``: for each leaf ``(min(count, size),)`` integers, in rising order.

    Raises:
      ValueError: a count below 1.
    """
    if count < 1:
        raise ValueError(f"count must be 1 or more, got {count}")
    # Drawn on the host: on the device, every size of leaf would compile a program of its own.
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))

    def draw(leaf):
        size = np.size(leaf)
        return np.sort(generator.choice(size, min(count, size), replace=False, shuffle=False))

    return jax.tree.map(draw, x)


def make_estimator(f: Callable[..., Any], argnums: int, scheme: str) -> Callable[..., Any]:
    """Returns the compiled ``estimate(coordinates, args, step)`` behind `finite_difference_at`.

    Compiled anew for every estimator: a cache by the identity of ``f`` would go on answering for
    what ``f`` meant when it was first called. ``step`` may be None.
    """
    is_complex = scheme == "complex-step"

    def estimator(near):
        @jax.jit
        def estimate(coordinates, args, step):
            leaves, treedef = jax.tree.flatten(args[argnums])
            evaluate = near(_with_complex(args, argnums) if is_complex else args)

            def slope(index, leaf, chosen):
                h = default_step(leaf.dtype, scheme) if step is None else step
                here = leaf.ravel()[chosen]
                shift = jnp.asarray(h, leaf.dtype) * jnp.maximum(jnp.abs(here), 1)
                values_at = functools.partial(evaluate, index, chosen)
                estimates, trusted = _SLOPES[scheme](values_at, here, shift)
                return estimates.astype(leaf.dtype), trusted

            pairs = zip(leaves, treedef.flatten_up_to(coordinates), strict=True)
            results = [slope(i, *map(jnp.asarray, pair)) for i, pair in enumerate(pairs)]
            slopes, trusted = zip(*results, strict=True)
            return treedef.unflatten(slopes), functools.reduce(jnp.logical_and, trusted)

        return estimate

    neighbourhoods = changes.make_neighbourhoods(_mixing(f) if is_complex else f, argnums)
    return changes.guarded(*map(estimator, neighbourhoods))


def _central(values_at, here, shift):
    return _quotient(values_at, here + shift, here - shift)


def _forward(values_at, here, shift):
    # f(x) as f(x + h) is computed, lest the two be rounded in different ways.
    return _quotient(values_at, here + shift, here)


def _quotient(values_at, above, below):
    values, trusted = values_at(jnp.stack([above, below], axis=1))
    difference = values[:, 0] - values[:, 1]
    return difference / (above - below).astype(difference.dtype), trusted


def _complex_step(values_at, here, shift):
    values, trusted = values_at(_complex(here) + 1j * _complex(shift))
    return values.imag / shift.astype(values.imag.dtype), trusted


_SLOPES = {"central": _central, "forward": _forward, "complex-step": _complex_step}


def _complex(array: Any) -> jax.Array:
    array = jnp.asarray(array)
    return array.astype(np.complex128 if array.dtype == np.float64 else np.complex64)


def _with_complex(args: tuple[Any, ...], argnums: int) -> tuple[Any, ...]:
    return (*args[:argnums], jax.tree.map(_complex, args[argnums]), *args[argnums + 1 :])


def _mixing(f: Callable[..., Any]) -> Callable[..., Any]:
    def mixing(*args):
        with jax.numpy_dtype_promotion("standard"):  # what is known stays real
            return f(*args)

    return mixing


def check_argument(args: tuple[Any, ...], argnums: int) -> Any:
    """Returns ``args[argnums]`` if it is a pytree of floating-point arrays that are not empty.

    Raises:
      ValueError: ``argnums`` out of range, no leaves, or an empty one.
      TypeError: a leaf that is not floating-point.
    """
    if not 0 <= argnums < len(args):
        raise ValueError(f"argnums must be from 0 to {len(args) - 1}, got {argnums}")
    leaves = jax.tree_util.tree_leaves_with_path(args[argnums])
    if not leaves:
        raise ValueError(f"args[{argnums}] must hold arrays, got none")
    for path, leaf in leaves:
        name = f"args[{argnums}]{jax.tree_util.keystr(path)}"
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(f"{name} must be floating-point, got {jnp.result_type(leaf)}")
        if np.size(leaf) == 0:
            raise ValueError(f"{name} must not be empty, got shape {jnp.shape(leaf)}")
    return args[argnums]


def check_result(f: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Raises unless ``f(*args)`` is a real scalar.

    Raises:
      ValueError: a result that is not one array of no dimensions.
      TypeError: a result that is not floating-point.
    """
    result = jax.eval_shape(lambda *args: f(*args), *args)
    if not isinstance(result, jax.ShapeDtypeStruct):
        found = jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", result)
        raise ValueError(f"f must return a scalar, got {found}")
    if result.shape != ():
        raise ValueError(f"f must return a scalar, got an array of shape {result.shape}")
    if not jnp.issubdtype(result.dtype, jnp.floating):
        raise TypeError(f"f must return a real floating-point number, got {result.dtype}")


def _check_holomorphic(f: Callable[..., Any], args: tuple[Any, ...], argnums: int) -> None:
    args = _with_complex(args, argnums)
    try:
        program = jax.make_jaxpr(_mixing(f))(*args)
    except (TypeError, ValueError, NotImplementedError) as error:
        reason = str(error).strip().split("\n")[0]
        raise TypeError(
            f"complex-step needs f to accept complex arguments, got: {reason}"
        ) from error
    (result,) = program.out_avals
    if not jnp.issubdtype(result.dtype, jnp.complexfloating):
        raise TypeError(
            f"complex-step needs f to be holomorphic, got a result of dtype {result.dtype} for "
            "complex arguments"
        )
    if bent := sorted({"abs", "conj"} & set(_of_complex(program.jaxpr))):
        raise TypeError(
            f"complex-step needs f to be holomorphic, got one with {' and '.join(bent)}"
        )


def _of_complex(jaxpr: core.Jaxpr) -> Iterator[str]:
    """Yields the names of all primitives that are given complex numbers."""
    for equation in jaxpr.eqns:
        operands: list[Any] = [variable.aval for variable in equation.invars]
        if any(jnp.issubdtype(each.dtype, jnp.complexfloating) for each in operands):
            yield equation.primitive.name
        for param in jax.tree.leaves(equation.params):
            inner = getattr(param, "jaxpr", param)
            if isinstance(inner, core.Jaxpr):
                yield from _of_complex(inner)


def _check_coordinates(coordinates: Any, x: Any) -> None:
    if jax.tree.structure(coordinates) != jax.tree.structure(x):
        raise ValueError(
            f"coordinates must have the structure of their argument, {jax.tree.structure(x)}, "
            f"got {jax.tree.structure(coordinates)}"
        )
    leaves = jax.tree_util.tree_leaves_with_path(coordinates)
    for (path, chosen), leaf in zip(leaves, jax.tree.leaves(x), strict=True):
        name, at = f"coordinates{jax.tree_util.keystr(path)}", np.asarray(chosen)
        if at.ndim != 1 or not np.issubdtype(at.dtype, np.integer) or not at.size:
            raise ValueError(f"{name} must be (k,) integers, got {at.dtype} of shape {at.shape}")
        if at.min() < 0 or at.max() >= np.size(leaf):
            raise ValueError(f"{name} must be from 0 to {np.size(leaf) - 1}, got {at.max()}")


def _check_scheme(scheme: str) -> None:
    if scheme not in SCHEMES:
        raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}, got {scheme!r}")
