"""Rules for `changes`: what a change of an equation's operands does to its results.

A rule takes a `Site` (the equation and its known values) and for each operand a `Change` or None,
and returns the change of the result. The table is at the end; an equation that is not in it is
evaluated with whole arrays.
"""

import functools
import itertools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from jaxnet import jaxprs

__all__ = ["Change", "Site", "apply", "size_of", "slice_at", "whole_at"]

_At = Sequence[Any]


class Change(NamedTuple):
    """New values on a slice of an array.

    Attributes:
      at: for each axis the index of the slice; None if the slice spans the axis, as it always does
        if the size is 1. Two changes have the same slice if their indices are the same objects.
      value: an array of the spanned axes.
    """

    at: _At
    value: Any


class Site(NamedTuple):
    """An equation and its known values.

    Attributes:
      equation: of a jaxpr.
      operands: known values.
      results: known values.
      sums: known sums that differences were added to; must be finite in the end.
    """

    equation: core.JaxprEqn
    operands: list[Any]
    results: list[Any]
    sums: list[Any]

    @property
    def params(self) -> dict[str, Any]:
        """The equation's parameters."""
        return self.equation.params

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the first result."""
        return np.shape(self.results[0])

    def bind(self, *operands: Any, **changed: Any) -> Any:
        """Evaluates the equation for other operands; of several results, a list."""
        found = jaxprs.bind(self.equation, operands, **changed)
        return found if self.equation.primitive.multiple_results else found[0]

    def add_to_sum(self, at: _At, difference: Any) -> Change:
        """Returns the change of a sum by a difference on a slice."""
        self.sums.append(self.results[0])
        return Change(at, _cut(self.results[0], at) + difference)


def apply(site: Site, changes: Sequence[Change | None]) -> Sequence[Change]:
    """Returns the changes of an equation's results, from those of its operands.

    Args:
      site: the equation and its known values.
      changes: for each operand its change; None if it stays.

    Example:
      >>> import jax
      >>> zeros = jnp.zeros(3)
      >>> (equation,) = jax.make_jaxpr(jnp.exp)(zeros).jaxpr.eqns
      >>> site = Site(equation, [zeros], [zeros + 1], sums=[])
      >>> (found,) = apply(site, [slice_at(zeros, np.int32(1), jnp.asarray(-jnp.inf))])
      >>> float(found.value)
      0.0
    """
    rule = _RULES.get(site.equation.primitive.name, _whole)
    found = rule(site, *changes)
    return found if site.equation.primitive.multiple_results else [found]


def size_of(variable: Any) -> int:
    """Returns the number of elements of a variable of a jaxpr.

    Example:
      >>> import jax
      >>> size_of(jax.make_jaxpr(jnp.exp)(jnp.zeros((2, 3))).jaxpr.invars[0])
      6
    """
    return math.prod(variable.aval.shape)


def slice_at(array: Any, coordinate: Any, value: Any) -> Change:
    """Returns the change of one coordinate, an index into the flattened array, as a slice.

    Example:
      >>> [int(i) for i in slice_at(jnp.zeros((2, 3)), np.int32(5), jnp.asarray(7.0)).at]
      [1, 2]
    """
    size = math.prod(array.shape)
    _, at = _reshape_at((size,), array.shape, (None if size == 1 else coordinate,))
    return Change(at, value.reshape([1] * len(_spanned(at))))


def whole_at(array: Any, coordinate: Any, value: Any) -> Change:
    """Returns the change of one coordinate, an index into the flattened array, as a whole array.

    Example:
      >>> whole_at(jnp.zeros((2, 3)), np.int32(5), jnp.asarray(7.0)).value.tolist()
      [[0.0, 0.0, 0.0], [0.0, 0.0, 7.0]]
    """
    return _widen(array, slice_at(array, coordinate, value), (None,) * array.ndim)


def _spanned(at: _At) -> list[int]:
    return [axis for axis, index in enumerate(at) if index is None]


def _cut(known: Any, at: _At) -> Any:
    """Returns the slice of a known array."""
    spanned, shape = _spanned(at), np.shape(known)
    if len(spanned) == len(at):
        return known
    starts = [0 if index is None else index for index in at]
    sizes = [size if index is None else 1 for size, index in zip(shape, at, strict=True)]
    return lax.dynamic_slice(known, starts, sizes).reshape([shape[axis] for axis in spanned])


def _widen(known: Any, change: Change, at: _At) -> Change:
    """Returns the change on a slice that spans at least the same axes."""
    part, spanned = _cut(known, at), _spanned(at)
    inside = [
        lax.broadcasted_iota(change.at[axis].dtype, part.shape, place) == change.at[axis]
        for place, axis in enumerate(spanned)
        if change.at[axis] is not None
    ]
    if not inside:
        return change
    kept = [spanned.index(axis) for axis in _spanned(change.at)]
    value = lax.broadcast_in_dim(change.value, part.shape, kept)
    return Change(at, lax.select(functools.reduce(jnp.logical_and, inside), value, part))


# Rules.


def _whole(site: Site, *changes: Change | None) -> Any:
    operands = [
        known if change is None else _widen(known, change, (None,) * len(change.at)).value
        for known, change in zip(site.operands, changes, strict=True)
    ]
    found = jaxprs.bind(site.equation, operands)
    results = [Change((None,) * np.ndim(each), each) for each in found]
    return results if site.equation.primitive.multiple_results else results[0]


def _elementwise(site: Site, *changes: Change | None) -> Change:
    rank = len(site.shape)
    places = [c.at if len(c.at) == rank else (None,) * rank for c in changes if c is not None]
    columns = list(zip(*places, strict=True))
    at = tuple(i[0] if all(other is i[0] for other in i) else None for i in columns)

    def operand(known, change):
        if np.ndim(known) < rank:  # a scalar
            return known if change is None else change.value
        return _cut(known, at) if change is None else _widen(known, change, at).value

    return Change(at, site.bind(*map(operand, site.operands, changes)))


def _broadcast_in_dim(site: Site, change: Change, *_: None) -> Change:
    at: list[Any] = [None] * len(site.shape)
    dimensions = site.params["broadcast_dimensions"]
    for axis, index in zip(dimensions, change.at, strict=True):
        at[axis] = index
    spanned = _spanned(at)
    kept = [spanned.index(dimensions[axis]) for axis in _spanned(change.at)]
    shape = [site.shape[axis] for axis in spanned]
    return Change(tuple(at), lax.broadcast_in_dim(change.value, shape, kept))


def _transpose(site: Site, change: Change) -> Change:
    order, spanned = site.params["permutation"], _spanned(change.at)
    kept = [spanned.index(axis) for axis in order if axis in spanned]
    return Change(tuple(change.at[axis] for axis in order), lax.transpose(change.value, kept))


def _reshape(site: Site, change: Change, *_: None) -> Change:
    if site.params.get("new_sizes") and site.params["dimensions"] is not None:  # and transposed
        return _whole(site, change)
    wide, at = _reshape_at(np.shape(site.operands[0]), site.shape, change.at)
    value = _widen(site.operands[0], change, wide).value
    return Change(at, value.reshape([site.shape[axis] for axis in _spanned(at)]))


def _reshape_at(old: Sequence[int], new: Sequence[int], at: _At) -> tuple[_At, _At]:
    """Returns the slice that can be reshaped, at least as wide, and the slice afterwards."""
    wide: list[Any] = list(at)
    reshaped: list[Any] = [None] * len(new)
    for axes, new_axes in _groups(old, new):
        if any(at[axis] is None for axis in axes):
            wide = [None if axis in axes else index for axis, index in enumerate(wide)]
            continue
        flat = functools.reduce(
            lambda flat, axis: flat * old[axis] + at[axis], axes[1:], at[axes[0]]
        )
        for axis in new_axes[:0:-1]:
            size = flat.dtype.type(new[axis])
            reshaped[axis], flat = lax.rem(flat, size), lax.div(flat, size)
        reshaped[new_axes[0]] = flat
    return tuple(wide), tuple(reshaped)


def _groups(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Yields the smallest groups of axes of equal size before and after, except axes of size 1."""
    shapes, start = (old, new), 1
    ends = [list(itertools.accumulate(shape, operator.mul)) for shape in shapes]
    for end in sorted({*ends[0]} & {*ends[1]} - {1}):
        axes, new_axes = (
            [a for a, size in enumerate(shape) if size != 1 and start < until[a] <= end]
            for shape, until in zip(shapes, ends, strict=True)
        )
        yield axes, new_axes
        start = end


def _slice(site: Site, change: Change) -> Change:
    if any(stride != 1 for stride in site.params["strides"] or ()):
        return _whole(site, change)
    return _window(change, site.operands[0], site.results[0], site.params["start_indices"])


def _split(site: Site, change: Change) -> list[Change]:
    axis, sizes = site.params["axis"], site.params["sizes"]
    starts = itertools.accumulate(sizes[:-1], initial=0)
    start_indices = [[start if a == axis else 0 for a in range(len(change.at))] for start in starts]
    return [
        _window(change, site.operands[0], result, start)
        for result, start in zip(site.results, start_indices, strict=True)
    ]


def _window(change: Change, known: Any, result: Any, starts: Sequence[int]) -> Change:
    """Returns the change of a part of the array; no change if the slice lies outside of it."""
    at, inside = list(change.at), jnp.array(True)
    for axis, (index, start) in enumerate(zip(change.at, starts, strict=True)):
        size = result.shape[axis]
        if index is not None and size < known.shape[axis]:
            inside &= (index >= start) & (index < start + size)
            at[axis] = None if size == 1 else jnp.clip(index - start, 0, size - 1)
    spanned = _spanned(change.at)
    lower = [starts[axis] for axis in spanned]
    upper = [starts[axis] + result.shape[axis] for axis in spanned]
    value = lax.slice(change.value, lower, upper)
    value = value.reshape([result.shape[axis] for axis in _spanned(at)])
    return Change(tuple(at), jnp.where(inside, value, _cut(result, at)))


def _reduce(site: Site, change: Change) -> Change:
    axes, known = site.params["axes"], site.operands[0]
    at = tuple(index for axis, index in enumerate(change.at) if axis not in axes)
    adds = site.equation.primitive.name == "reduce_sum" and any(
        change.at[axis] is not None for axis in axes
    )
    if adds:
        change = Change(change.at, change.value - _cut(known, change.at))
    else:
        spanning = (None if axis in axes else index for axis, index in enumerate(change.at))
        change = _widen(known, change, tuple(spanning))
    left = tuple(place for place, axis in enumerate(_spanned(change.at)) if axis in axes)
    result = site.bind(change.value, axes=left)
    return site.add_to_sum(at, result) if adds else Change(at, result)


def _dot_general(site: Site, *changes: Change | None) -> Change:
    side = 0 if changes[1] is None else 1
    change, known, other = changes[side], site.operands[side], site.operands[1 - side]
    if change is None or changes[1 - side] is not None or known.dtype == bool:
        return _whole(site, *changes)

    def ordered(ours, others):
        return (ours, others) if side == 0 else (others, ours)

    contracting, batch = (ordered(*axes) for axes in site.params["dimension_numbers"])
    bound = dict(zip(contracting[1] + batch[1], contracting[0] + batch[0], strict=True))
    other_at = [change.at[bound[axis]] if axis in bound else None for axis in range(np.ndim(other))]

    def left(axes, at):  # those that the slice spans, as it numbers them
        return tuple(_spanned(at).index(axis) for axis in axes if at[axis] is None)

    numbers = [
        ordered(left(axes[0], change.at), left(axes[1], other_at)) for axes in (contracting, batch)
    ]
    free = [index for axis, index in enumerate(change.at) if axis not in bound.values()]
    other_free = [None] * (len(other_at) - len(bound))
    at = (*(change.at[axis] for axis in batch[0]), *itertools.chain(*ordered(free, other_free)))

    adds = any(change.at[axis] is not None for axis in contracting[0])
    value = change.value - _cut(known, change.at) if adds else change.value
    factors = ordered(value, _cut(other, tuple(other_at)))
    product = site.bind(*factors, dimension_numbers=tuple(numbers))
    return site.add_to_sum(at, product) if adds else Change(at, product)


_ELEMENTWISE = (
    *("abs", "acos", "acosh", "add", "and", "asin", "asinh", "atan", "atan2", "atanh", "cbrt"),
    *("ceil", "clamp", "complex", "conj", "convert_element_type", "copy", "cos", "cosh", "digamma"),
    *("div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "imag"),
    *("integer_pow", "is_finite", "le", "lgamma", "log", "log1p", "logistic", "lt", "max", "min"),
    *("mul", "name", "ne", "neg", "nextafter", "not", "or", "pow", "real", "reduce_precision"),
    *("rem", "round", "rsqrt", "select_n", "sign", "sin", "sinh", "sqrt", "square"),
    *("stop_gradient", "sub", "tan", "tanh", "xor"),
)
_REDUCTIONS = (
    *("argmax", "argmin", "reduce_and", "reduce_max", "reduce_min", "reduce_or", "reduce_prod"),
    "reduce_sum",
)

_RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_REDUCTIONS, _reduce),
    "broadcast_in_dim": _broadcast_in_dim,
    "dot_general": _dot_general,
    "reshape": _reshape,
    "slice": _slice,
    "split": _split,
    "squeeze": _reshape,
    "transpose": _transpose,
}
