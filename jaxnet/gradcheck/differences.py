"""Finite differences: the derivative of any scalar function of a pytree, from its values alone."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

SCHEMES = ("central", "forward")

# Evaluating f at many points at once is what makes it fast. As many are taken as would together
# have so many elements if every argument were copied, which bounds what f makes of them too.
_BLOCK_ELEMENTS = 2**22


def default_step(dtype: DTypeLike, scheme: str = "central") -> float:
    """Returns the step that balances truncation and round-off where f and its derivatives are 1.

    Slide "But how do we figure out what's best?": the errors are O(h) and O(h^2).

    Args:
      dtype: of the coordinate, floating-point.
      scheme: ``"central"`` or ``"forward"``.

    Raises:
      ValueError: an unknown scheme.
    """
    _check_scheme(scheme)
    epsilon = float(jnp.finfo(dtype).eps)
    if scheme == "central":
        return math.cbrt(3 * epsilon)  # least h^2/6 f''' + eps f / h
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
    O(h). The difference is divided by the step that was taken after rounding.

    Args:
      f: a function that JAX can trace and vectorise, with a real scalar result.
      *args: its arguments; ``args[argnums]`` is a pytree of floating-point arrays.
      argnums: which argument to differentiate in.
      scheme: ``"central"`` or ``"forward"``.
      step: h for coordinates up to 1 in size, and relative to larger ones; by default that of
        `default_step`, by the dtype of each leaf.

    Returns:
      A pytree like ``args[argnums]``.

    Raises:
      ValueError: an unknown scheme, a step that is not positive and finite, a result that is not
        scalar, an ``argnums`` out of range, empty leaves, or coordinates that are not there.
      TypeError: leaves or a result that are not real floating-point numbers.
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
    check_result(f, args)
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
    """Returns the jitted ``estimate(coordinates, args, step)`` behind `finite_difference_at`.

    Compiled anew for every estimator: a cache by the identity of ``f`` would go on answering for
    what ``f`` meant when it was first called. ``step`` may be None.
    """

    @jax.jit
    def estimate(coordinates, args, step):
        leaves, treedef = jax.tree.flatten(args[argnums])
        block = max(1, _BLOCK_ELEMENTS // sum(np.size(leaf) for leaf in jax.tree.leaves(args)))
        here_value = f(*args) if scheme == "forward" else None

        def estimates(index, leaf, chosen):
            leaf = jnp.asarray(leaf)
            flat = leaf.ravel()
            h = jnp.asarray(default_step(leaf.dtype, scheme) if step is None else step, leaf.dtype)

            def value_at(coordinate, value):
                perturbed = flat.at[coordinate].set(value).reshape(leaf.shape)
                x = treedef.unflatten([*leaves[:index], perturbed, *leaves[index + 1 :]])
                return f(*args[:argnums], x, *args[argnums + 1 :])

            def slope(coordinate):
                here = flat[coordinate]
                shift = h * jnp.maximum(jnp.abs(here), 1)
                above = here + shift
                if scheme == "forward":
                    below, difference = here, value_at(coordinate, above) - here_value
                else:
                    below = here - shift
                    # Both at once: f is compiled for one place, not two.
                    ends = jax.vmap(value_at, (None, 0))(coordinate, jnp.stack([above, below]))
                    difference = ends[0] - ends[1]
                return (difference / (above - below).astype(difference.dtype)).astype(leaf.dtype)

            return jax.lax.map(slope, chosen, batch_size=min(block, len(chosen)))

        chosen = treedef.flatten_up_to(coordinates)
        pairs = zip(leaves, map(jnp.asarray, chosen), strict=True)
        return treedef.unflatten([estimates(i, leaf, at) for i, (leaf, at) in enumerate(pairs)])

    return estimate


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
    if not isinstance(result, jax.ShapeDtypeStruct) or result.shape != ():
        raise ValueError(f"f must return a scalar, got {result}")
    if not jnp.issubdtype(result.dtype, jnp.floating):
        raise TypeError(f"f must return a real floating-point number, got {result.dtype}")


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
