"""Finite differences: the gradient of a scalar function of a pytree, from its values alone."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.typing import ArrayLike, DTypeLike

from jaxnet import jaxprs, text
from jaxnet.gradcheck import arguments, changes
from jaxnet.gradcheck.slopes import quotient

__all__ = [
    "SCHEMES",
    "check_argument",
    "check_result",
    "default_step",
    "finite_difference",
    "finite_difference_at",
    "make_estimator",
    "points",
    "quotient",
    "sample_coordinates",
]

SCHEMES = ("central", "forward", "complex-step")


def default_step(dtype: DTypeLike, scheme: str = "central") -> float:
    """Returns the step that balances truncation and round-off where f and its derivatives are 1.

    Slide "But how do we figure out what's best?": the errors are O(h) and O(h^2).

    Args:
      dtype: of the coordinate, floating-point.
      scheme: ``"central"``, ``"forward"`` or ``"complex-step"``.

    Raises:
      ValueError: an unknown scheme.

    Example:
      >>> f"{default_step('float64'):.1e}, {default_step('float32', 'forward'):.1e}"
      '8.7e-06, 6.9e-04'
    """
    _check_scheme(scheme)
    epsilon = float(jnp.finfo(dtype).eps)
    if scheme == "central":
        return math.cbrt(3 * epsilon)  # least h^2/6 f''' + eps f / h
    if scheme == "complex-step":
        return epsilon**2  # nothing cancels: h^2/6 f''' is all there is
    return 2 * math.sqrt(epsilon)  # least h/2 f'' + 2 eps f / h


def points(
    x: ArrayLike, *, scheme: str = "central", step: ArrayLike | None = None
) -> tuple[jax.Array, jax.Array]:
    """Returns the two points of a difference quotient around each number; for `quotient`.

    May be called under `jax.jit`, `jax.vmap` and `jax.lax.scan`.

    Args:
      x: floating-point numbers, any shape.
      scheme: ``"central"``: x + h and x - h; or ``"forward"``: x + h and x.
      step: h for numbers up to 1 in size, and relative to larger ones; by default `default_step`.

    Returns:
      The upper and the lower points, like ``x``.

    Raises:
      ValueError: another scheme.

    Example:
      >>> above, below = points(4.0, step=2.0**-6)
      >>> float(above), float(below), float(quotient(above**2, below**2, above, below))
      (4.0625, 3.9375, 8.0)
    """
    if scheme not in ("central", "forward"):
        raise ValueError(f"scheme must be central or forward, got {scheme!r}")
    x = jnp.asarray(x)
    h = default_step(x.dtype, scheme) if step is None else step
    shift = jnp.asarray(h, x.dtype) * jnp.maximum(jnp.abs(x), 1)
    return x + shift, x - shift if scheme == "central" else x


def finite_difference(
    f: Callable[..., Any],
    *args: Any,
    argnums: int = 0,
    scheme: str = "central",
    step: float | None = None,
) -> Any:
    """Estimates the gradient of ``f(*args)`` with respect to ``args[argnums]``.

    Central: ``(f(x + h) - f(x - h)) / 2h``, error O(h^2); forward: ``(f(x + h) - f(x)) / h``, error
    O(h). The difference is divided by the distance of the points after rounding. What a coordinate
    does not change is computed once, so that the differences of a network take a fraction of the
    time of as many calls; see `jaxnet.gradcheck.changes`.

    Complex step: ``imag(f(x + ih)) / h``, error O(h^2) without round-off (Squire and Trapp, SIAM
    Rev. 40, 1998), as exact as `jax.grad`, for a holomorphic ``f``. Then ``args[argnums]`` becomes
    complex (complex64 unless a leaf is float64), and ``f`` may mix it with real numbers even under
    strict dtype promotion.

    Args:
      f: a function that JAX can trace and vectorise, with a real scalar result.
      *args: its arguments; ``args[argnums]`` is a pytree of floating-point arrays.
      argnums: which argument to differentiate.
      scheme: ``"central"``, ``"forward"`` or ``"complex-step"``.
      step: h for coordinates up to 1 in size, and relative to larger ones; by default that of
        `default_step`, by the dtype of each leaf.

    Returns:
      A pytree like ``args[argnums]``.

    Raises:
      ValueError: an unknown scheme, a step that is not positive and finite, a result that is not
        scalar, an ``argnums`` out of range, or empty leaves.
      TypeError: leaves or a result that are not real floating-point numbers; under
        ``"complex-step"`` an ``f`` that refuses complex arguments, or is not holomorphic.

    Example:
      >>> found = finite_difference(lambda x: jnp.sum(x**2), jnp.array([1.0, 2.0]))
      >>> bool(jnp.all(jnp.abs(found - jnp.array([2.0, 4.0])) < 1e-3))
      True
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
      f: as in `finite_difference`, and so are the options.
      coordinates: a pytree like ``args[argnums]``: for each leaf ``(k,)`` integers, indices into
        the flattened leaf (row by row). `sample_coordinates` draws them.
      *args: the arguments of ``f``.
      argnums: which argument to differentiate.
      scheme: as in `finite_difference`.
      step: as in `finite_difference`.

    Returns:
      A pytree of the same structure: for each leaf ``(k,)`` estimates, of the leaf's dtype.

    Raises:
      ValueError: as `finite_difference`, or coordinates that do not fit their leaf.
      TypeError: as `finite_difference`.

    Example:
      >>> x = jnp.array([1.0, 2.0, 3.0])
      >>> found = finite_difference_at(lambda x: jnp.sum(x**2), np.array([2]), x)
      >>> found.shape, bool(abs(found[0] - 6) < 1e-2)
      ((1,), True)
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

    Example:
      >>> sample_coordinates(jax.random.key(0), {"w": jnp.ones((2, 3)), "b": jnp.ones(2)}, 2)
      {'b': array([0, 1]), 'w': array([...])}
    """
    if count < 1:
        raise ValueError(f"count must be 1 or more, got {count}")
    # Drawn on the host: on the device, every size of leaf would compile anew.
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))

    def draw(leaf):
        size = np.size(leaf)
        return np.sort(generator.choice(size, min(count, size), replace=False, shuffle=False))

    return jax.tree.map(draw, x)


def make_estimator(f: Callable[..., Any], argnums: int, scheme: str) -> Callable[..., Any]:
    """Returns the compiled ``estimate(coordinates, args, step)`` behind `finite_difference_at`.

    It compiles anew for every estimator: a cache by the identity of ``f`` would keep the meaning
    that ``f`` had at its first call. ``step`` may be None. Nothing is checked.

    Example:
      >>> estimate = make_estimator(lambda x: x**2, 0, "central")
      >>> x = jnp.asarray(3.0)
      >>> bool(abs(estimate(np.array([0]), (x,), None)[0] - 6) < 1e-2)
      True
    """
    is_complex = scheme == "complex-step"

    def estimator(near):
        @jax.jit
        def estimate(coordinates, args, step):
            leaves, treedef = jax.tree.flatten(args[argnums])
            evaluate = near(_with_complex(args, argnums) if is_complex else args)

            def slope(index, leaf, chosen):
                here = leaf.ravel()[chosen]
                values_at = functools.partial(evaluate, index, chosen)
                if is_complex:
                    estimates, trusted = _complex_step(values_at, here, step)
                else:
                    # Forward: f(x) is computed like f(x + h), so that both are rounded alike.
                    ends = points(here, scheme=scheme, step=step)
                    values, trusted = values_at(jnp.stack(ends, axis=1))
                    estimates = quotient(values[:, 0], values[:, 1], *ends)
                return estimates.astype(leaf.dtype), trusted

            pairs = zip(leaves, treedef.flatten_up_to(coordinates), strict=True)
            results = [slope(i, *map(jnp.asarray, pair)) for i, pair in enumerate(pairs)]
            slopes, trusted = zip(*results, strict=True)
            return treedef.unflatten(slopes), functools.reduce(jnp.logical_and, trusted)

        return estimate

    neighbourhoods = changes.make_neighbourhoods(_mixing(f) if is_complex else f, argnums)
    return changes.guarded(*map(estimator, neighbourhoods))


def _complex_step(values_at: Callable[..., Any], here: jax.Array, step: Any) -> tuple[Any, Any]:
    h = default_step(here.dtype, "complex-step") if step is None else step
    shift = jnp.asarray(h, here.dtype) * jnp.maximum(jnp.abs(here), 1)
    values, trusted = values_at(_complex(here) + 1j * _complex(shift))
    return values.imag / shift.astype(values.imag.dtype), trusted


def _complex(array: Any) -> jax.Array:
    array = jnp.asarray(array)
    return array.astype(np.complex128 if array.dtype == np.float64 else np.complex64)


def _with_complex(args: tuple[Any, ...], argnums: int) -> tuple[Any, ...]:
    return (*args[:argnums], jax.tree.map(_complex, args[argnums]), *args[argnums + 1 :])


def _mixing(f: Callable[..., Any]) -> Callable[..., Any]:
    def mixing(*args):
        with jax.numpy_dtype_promotion("standard"):  # other arguments stay real
            return f(*args)

    return mixing


def check_argument(args: tuple[Any, ...], argnums: int) -> Any:
    """Returns ``args[argnums]`` if it is a pytree of floating-point arrays that are not empty.

    Raises:
      ValueError: ``argnums`` out of range, no leaves, or an empty one.
      TypeError: a leaf that is not floating-point.

    Example:
      >>> check_argument((1.0, 2), 0)
      1.0
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

    Example:
      >>> check_result(jnp.sum, (jnp.ones(3),))
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
        closed = jax.make_jaxpr(_mixing(f))(*args)
    except (TypeError, ValueError, NotImplementedError) as error:
        reason = text.first_line(error)
        raise TypeError(
            f"complex-step needs f to accept complex arguments, got: {reason}"
        ) from error
    (result,) = closed.out_avals
    if not jnp.issubdtype(result.dtype, jnp.complexfloating):
        raise TypeError(
            f"complex-step needs f to be holomorphic, got a result of dtype {result.dtype} for "
            "complex arguments"
        )
    if bent := sorted({"abs", "conj"} & set(_of_complex(closed.jaxpr))):
        raise TypeError(
            f"complex-step needs f to be holomorphic, got one with {' and '.join(bent)}"
        )


def _of_complex(jaxpr: core.Jaxpr) -> Iterator[str]:
    """Yields the names of all primitives with a complex operand."""
    for equation in jaxpr.eqns:
        operands: list[Any] = [variable.aval for variable in equation.invars]
        if any(jnp.issubdtype(each.dtype, jnp.complexfloating) for each in operands):
            yield equation.primitive.name
        for inner in jaxprs.inner_jaxprs(equation):
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
