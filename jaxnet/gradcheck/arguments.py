"""The differentiated arguments as a list of real arrays with names, and back again."""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxnet import jaxprs

__all__ = [
    "Argument",
    "Leaf",
    "Span",
    "Statics",
    "check_like",
    "close",
    "coordinates",
    "examine",
    "itemsize",
    "partition",
    "seed_of",
    "select",
]


class Leaf(NamedTuple):
    """An array among the differentiated arguments.

    Attributes:
      path: its name, as in ``params[0].weight``.
      shape: its shape.
      dtype: its dtype, real or complex.
    """

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def is_complex(self) -> bool:
        """Whether a coordinate is a pair, real and imaginary part."""
        return jnp.issubdtype(self.dtype, jnp.complexfloating)

    @property
    def size(self) -> int:
        """Count of its real coordinates; a complex number has two."""
        return math.prod(self.shape) * (2 if self.is_complex else 1)

    def place(self, coordinate: int) -> str:
        """Returns the name of a real coordinate, e.g. ``params[0].weight[400, 10]``."""
        part = ""
        if self.is_complex:
            coordinate, imaginary = divmod(coordinate, 2)
            part = ".imag" if imaginary else ".real"
        index = ", ".join(str(i) for i in np.unravel_index(coordinate, self.shape))
        return f"{self.path}[{index}]{part}" if index else f"{self.path}{part}"


class Span(NamedTuple):
    """Consecutive real coordinates of a leaf, from ``start`` to before ``stop``."""

    leaf: int
    start: int
    stop: int


class Argument(NamedTuple):
    """The differentiated arguments: which they are, and their structure.

    Attributes:
      argnums: as in `jax.grad`.
      treedef: structure of ``args[argnums]``; of a tuple of them if there are several.
      leaves: their arrays.
    """

    argnums: int | tuple[int, ...]
    treedef: Any
    leaves: tuple[Leaf, ...]

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of the arguments, as a tuple even if there is one."""
        return _as_tuple(self.argnums)

    @property
    def dtypes(self) -> str:
        """The dtypes of the leaves, e.g. ``"bfloat16 and float32"``."""
        return " and ".join(sorted({str(leaf.dtype) for leaf in self.leaves}))

    def split(self, args: tuple[Any, ...]) -> tuple[list[Any], tuple[Any, ...]]:
        """Returns the leaves as real arrays, and the other arguments.

        A complex leaf becomes a real array with one more axis: real and imaginary parts.
        """
        leaves = self.treedef.flatten_up_to(select(args, self.argnums))
        rest = tuple(None if i in self.numbers else arg for i, arg in enumerate(args))
        return [_to_real(jnp.asarray(each)) for each in leaves], rest

    def join(self, leaves: Sequence[Any], rest: tuple[Any, ...]) -> tuple[Any, ...]:
        """Returns the arguments, from real leaves and the other arguments: undoes `split`."""
        pairs = zip(self.leaves, leaves, strict=True)
        x = self.treedef.unflatten([_from_real(leaf, array) for leaf, array in pairs])
        parts = x if isinstance(self.argnums, tuple) else (x,)
        args = list(rest)
        for number, part in zip(self.numbers, parts, strict=True):
            args[number] = part
        return tuple(args)

    def flatten_gradient(self, gradient: Any) -> list[np.ndarray]:
        """Returns a gradient's real coordinates: for each leaf ``(size,)`` float64.

        JAX's gradient with respect to ``x + iy`` is ``df/dx - i df/dy``.
        """
        leaves = self.treedef.flatten_up_to(gradient)
        flat = []
        for array in leaves:
            if jnp.issubdtype(jnp.result_type(array), jnp.complexfloating):
                array = np.conj(np.asarray(array, np.complex128)).ravel().view(np.float64)
            flat.append(np.asarray(array, np.float64).ravel())
        return flat


class Statics(NamedTuple):
    """The leaves of the arguments that are not arrays: strings, functions, integers.

    Equality and hash follow these values, so that they can key a cache of compiled functions. Not
    hashable if one of the values is not.

    Attributes:
      parts: for each argument its structure, and for each leaf its type and value (the type,
        because ``1 == True``) or None for an array; None for a differentiated argument.
    """

    parts: tuple[tuple[Any, tuple[tuple[type, Any] | None, ...]] | None, ...]

    def close(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """Returns ``f`` with these values filled in: a function of arrays that returns arrays."""

        @functools.wraps(f)
        def closed(*args):
            return jax.tree.map(_as_result, f(*map(_fill, self.parts, args)))

        return closed


def coordinates(leaf: int, places: Iterable[int]) -> list[Span]:
    """Returns spans of single coordinates of a leaf.

    Example:
      >>> coordinates(0, [2, 5])
      [Span(leaf=0, start=2, stop=3), Span(leaf=0, start=5, stop=6)]
    """
    return [Span(leaf, int(place), int(place) + 1) for place in places]


def itemsize(dtype: Any) -> int:
    """Returns the bytes of a real number of this dtype, or of a part of a complex one.

    Example:
      >>> itemsize(np.complex64), itemsize(np.float64)
      (4, 8)
    """
    return jnp.finfo(dtype).dtype.itemsize


def partition(
    args: tuple[Any, ...], argnums: int | tuple[int, ...]
) -> tuple[tuple[Any, ...], Statics]:
    """Separates arrays from everything else in the arguments.

    A compiled function takes arrays only, but `jax.grad` passes on anything that is not
    differentiated: an integer may control Python's flow. Floats and complex numbers of Python count
    as arrays, so that another value does not compile anew.

    Args:
      args: all arguments.
      argnums: the differentiated ones, which are left as they are.

    Returns:
      The arguments with their arrays alone, and the other values.

    Example:
      >>> arrays, statics = partition((1.0, 3, 0.5), 0)
      >>> arrays
      (1.0, [], [0.5])
      >>> statics.close(lambda x, n, y: x**n + y)(*arrays)
      Array(1.5, dtype=float32...)
    """
    numbers = _as_tuple(argnums)
    arrays, parts = [], []
    for number, arg in enumerate(args):
        if number in numbers:
            arrays.append(arg)
            parts.append(None)
            continue
        leaves, treedef = jax.tree.flatten(arg)
        arrays.append([leaf for leaf in leaves if _is_variable(leaf)])
        kept = (None if _is_variable(leaf) else (type(leaf), leaf) for leaf in leaves)
        parts.append((treedef, tuple(kept)))
    return tuple(arrays), Statics(tuple(parts))


def close(
    f: Callable[..., Any], args: tuple[Any, ...], argnums: int | tuple[int, ...]
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Returns ``f`` with all values that are not arrays filled in, and the arrays.

    See `partition`.

    Example:
      >>> f, arrays = close(lambda x, n: x**n, (jnp.asarray(2.0), 3), 0)
      >>> float(f(*arrays))
      8.0
    """
    arrays, statics = partition(args, argnums)
    return statics.close(f), arrays


def select(args: tuple[Any, ...], argnums: int | tuple[int, ...]) -> Any:
    """Returns ``args[argnums]``, or a tuple of several arguments.

    Example:
      >>> select(("a", "b", "c"), (0, 2))
      ('a', 'c')
    """
    if isinstance(argnums, tuple):
        return tuple(args[number] for number in argnums)
    return args[argnums]


def examine(f: Callable[..., Any], args: tuple[Any, ...], argnums: int | Sequence[int]) -> Argument:
    """Returns the structure of the differentiated arguments, after checking them.

    Args:
      f: the function, for the names of its arguments.
      args: all arguments.
      argnums: as in `jax.grad`, but not negative.

    Raises:
      ValueError: no arguments; ``argnums`` out of range or repeated; a differentiated argument
        without leaves, or with a leaf that is empty or not finite.
      TypeError: ``argnums`` that are not integers, a differentiated leaf that is not a
        floating-point or complex array of 16 bits or more, or tracers.

    Example:
      >>> [leaf.path for leaf in examine(lambda params, x: 0, ({"w": 1.0, "b": 0.0}, 2), 0).leaves]
      ["params['b']", "params['w']"]
    """
    numbers = _as_tuple(argnums)
    if not all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in numbers):
        raise TypeError(f"argnums must be integers, got {argnums!r}")
    if not args:
        raise ValueError("f must be given the arguments where it is to be audited, got none")
    if not numbers or not all(0 <= number < len(args) for number in numbers):
        raise ValueError(f"argnums must be from 0 to {len(args) - 1}, got {argnums}")
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"argnums must be distinct, got {argnums}")
    names = jaxprs.argument_names(f, len(args))
    for name, arg in zip(names, args, strict=True):
        _refuse_tracers(name, arg)
    leaves = []
    for number in numbers:
        found = jax.tree_util.tree_leaves_with_path(args[number])
        if not found:
            raise ValueError(f"{names[number]} must hold arrays, got none")
        leaves += [
            _examine_leaf(names[number] + jax.tree_util.keystr(path), leaf) for path, leaf in found
        ]
    chosen = argnums if isinstance(argnums, int | np.integer) else numbers
    return Argument(chosen, jax.tree.structure(select(args, chosen)), tuple(leaves))  # pyright: ignore


def check_like(gradient: Any, x: Any, argument: Argument) -> None:
    """Raises unless a gradient has the structure, shapes and dtypes of its argument.

    Raises:
      ValueError: another structure or shape.
      TypeError: another dtype, or a leaf that is not an array.

    Example:
      >>> x = jnp.ones(3)
      >>> check_like(2 * x, x, examine(jnp.sum, (x,), 0))
    """
    _refuse_tracers("the gradient", gradient)
    structure = jax.tree.structure(gradient)
    if structure != argument.treedef:
        raise ValueError(
            f"the gradient must have the structure of its argument, {argument.treedef}, "
            f"got {structure}"
        )
    for leaf, ours in zip(argument.leaves, argument.treedef.flatten_up_to(gradient), strict=True):
        name = f"the gradient in {leaf.path}"
        if getattr(ours, "dtype", None) == jax.dtypes.float0:
            raise TypeError(
                f"{name} must have dtype {leaf.dtype}, got float0, JAX's zero in integers"
            )
        if not hasattr(ours, "dtype") and not isinstance(ours, float | complex):
            raise TypeError(f"{name} must be an array, got {type(ours).__name__}")
        if jnp.shape(ours) != leaf.shape:
            raise ValueError(f"{name} must have shape {leaf.shape}, got {jnp.shape(ours)}")
        if jnp.result_type(ours) != leaf.dtype:
            raise TypeError(f"{name} must have dtype {leaf.dtype}, got {jnp.result_type(ours)}")


def seed_of(key: jax.Array | None) -> tuple[int, ...]:
    """Returns a seed for NumPy from a key of `jax.random`, new or old style, or of ``key(0)``.

    Raises:
      TypeError: not a key, or a traced one.

    Example:
      >>> seed_of(jax.random.key(3))
      (0, 3)
    """
    key = jax.random.key(0) if key is None else key
    _refuse_tracers("key", key)
    dtype = getattr(key, "dtype", None)
    if dtype is None or not (jnp.issubdtype(dtype, jax.dtypes.prng_key) or dtype == np.uint32):
        raise TypeError(f"key must be a key of jax.random, got {dtype or type(key).__name__}")
    return tuple(np.ravel(jax.random.key_data(key)).tolist())


def _is_variable(leaf: Any) -> bool:
    if isinstance(leaf, float | complex):
        return True
    # NumPy's integer scalars may control Python's flow as its own integers do.
    is_number = hasattr(leaf, "shape") and not isinstance(leaf, np.integer | np.bool_)
    return isinstance(leaf, jax.Array) or (
        is_number and (jnp.issubdtype(leaf.dtype, np.number) or leaf.dtype == np.bool_)
    )


def _fill(kept: Any, arrays: Any) -> Any:
    if kept is None:
        return arrays
    (treedef, leaves), variables = kept, iter(arrays)
    return treedef.unflatten([next(variables) if leaf is None else leaf[1] for leaf in leaves])


def _as_result(leaf: Any) -> Any:
    if isinstance(leaf, bool | int | float | complex):
        return jnp.asarray(leaf)
    if not hasattr(leaf, "dtype"):
        raise TypeError(f"f must return arrays, got {type(leaf).__name__}")
    return leaf


def _refuse_tracers(name: str, tree: Any) -> None:
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree)):
        raise TypeError(
            f"{name} must be of concrete arrays, got a tracer: audit outside of jit, grad and vmap"
        )


def _examine_leaf(name: str, leaf: Any) -> Leaf:
    try:
        dtype = jnp.result_type(leaf)
    except (TypeError, ValueError) as error:
        kind = getattr(leaf, "dtype", type(leaf).__name__)  # NumPy's longdouble has a dtype
        raise TypeError(f"{name} must be an array, of a dtype of JAX, got {kind}") from error
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise TypeError(
            f"{name} must be floating-point or complex to be differentiated, got {dtype}"
        )
    if jnp.finfo(dtype).bits < 16:  # its gradient could be right to a tenth at best
        raise TypeError(f"{name} must have 16 bits or more to be audited, got {dtype}")
    if np.size(leaf) == 0:
        raise ValueError(f"{name} must not be empty, got shape {jnp.shape(leaf)}")
    found = Leaf(name, jnp.shape(leaf), dtype)
    bad = np.flatnonzero(~np.isfinite(np.asarray(leaf, np.complex128).ravel()))
    if len(bad):
        place = found._replace(dtype=np.dtype(np.float64)).place(int(bad[0]))
        raise ValueError(f"{place} must be finite, got {np.ravel(leaf)[bad[0]]}")
    return found


def _as_tuple(argnums: int | Sequence[int]) -> tuple[int, ...]:
    return (argnums,) if not isinstance(argnums, Sequence) else tuple(argnums)  # pyright: ignore


def _to_real(array: jax.Array) -> jax.Array:
    if not jnp.issubdtype(array.dtype, jnp.complexfloating):
        return array
    return jnp.stack([array.real, array.imag], axis=-1)


def _from_real(leaf: Leaf, array: jax.Array) -> jax.Array:
    return jax.lax.complex(array[..., 0], array[..., 1]) if leaf.is_complex else array
