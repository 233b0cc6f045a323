"""The values of a function where one coordinate of its arguments is another, without starting anew.

Whoever changes one weight of a network changes one column of a layer, and so a little of the next.
Hence the function is evaluated once, and a change is followed through its equations: what it does
not reach is *known*; what it reaches is a `_Change`, new values on a slice of what is known. An
equation without a rule is given whole arrays.

Changes are new values, not differences from the known ones: after a nonlinear function either is
off by eps times the value, and values do not mind how large the change is. Only where a sum runs
over the slice is a difference taken, and added to the known sum: neighbours subtract exactly, and
the error of the known sum, eps times its size, is common to both ends of a central difference,
which is rid of it.
"""

import functools
import itertools
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.extend import core

_At = Sequence[Any]

# So many elements have all the arrays together that are made for the changes of one block.
_BLOCK_ELEMENTS = 2**23

# So many multiplications must be saved before slices are worth the time that they take to compile.
_WORTHWHILE = 2**30


def make_evaluator(f: Callable[..., Any], argnums: int) -> Callable[..., jax.Array]:
    """Returns ``evaluate(args, leaf, coordinates, values)``: the values of ``f`` near ``args``.

    Of these, ``args`` are the arguments of ``f``, and ``leaf`` is an index into the leaves of
    ``args[argnums]``, an int; ``coordinates`` are ``(k,)`` integers, indices into that leaf as it
    is when flattened (row by row); ``values`` are ``(k,)`` or ``(k, m)``, of the leaf's dtype. The
    result has the shape of ``values``: each is ``f(*args)`` with one value at one coordinate.

    It can be jitted and vectorised, and is compiled once for every leaf.

    Args:
      f: a function that JAX can trace and vectorise, with a scalar result.
      argnums: which argument to change.
    """

    def compiled(near):
        return jax.jit(lambda args, *change: near(args)(*change), static_argnums=1)

    return guarded(*map(compiled, make_neighbourhoods(f, argnums)))


def make_neighbourhoods(
    f: Callable[..., Any], argnums: int
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Returns two functions ``near(args)``, to be called within `jax.jit`, and then `guarded`.

    Either returns an ``evaluate(leaf, coordinates, values)`` like that of `make_evaluator`, except
    that it returns the values and whether to trust them. The first one's are not to be trusted
    where a sum that is not finite was added to. The second one's always are, and may take longer.
    """

    def near(args, *, slices):
        leaves, treedef = jax.tree.flatten(args)
        first = len(jax.tree.leaves(args[:argnums]))
        program = _inline(lambda *leaves: f(*treedef.unflatten(leaves)), *leaves)
        known = _evaluate(program, leaves)

        def evaluate(leaf, coordinates, values):
            coordinates, values = jnp.asarray(coordinates), jnp.asarray(values)
            array, sums = jnp.asarray(leaves[first + leaf]), []

            def following(start):
                def value_at(coordinate, value):
                    change = start(array, coordinate, value)
                    return _follow(first + leaf, change, program.jaxpr, known, sums)

                scalars = (jax.ShapeDtypeStruct((), each.dtype) for each in (coordinates, values))
                return jax.make_jaxpr(value_at)(*scalars)

            wholes = following(_one_of_whole)
            if slices:
                sliced = following(_one)
                if (_work(wholes) - _work(sliced)) * values.size >= _WORTHWHILE:
                    # The mean of what is not finite is not finite, and takes little to compile.
                    finite = [jnp.isfinite(jnp.mean(each)) for each in sums]
                    return _map_blocks(sliced, coordinates, values), _all(finite)
            return _map_blocks(wholes, coordinates, values), _all([])

        return evaluate

    return functools.partial(near, slices=True), functools.partial(near, slices=False)


def guarded(fast: Callable[..., Any], slow: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function that calls ``fast``, and ``slow`` if ``fast`` is not to be trusted.

    Args:
      fast: returns a result and whether to trust it, a boolean scalar.
      slow: takes the same arguments, and returns a like result and True.
    """

    def call(*args):
        result, trusted = fast(*args)
        if isinstance(trusted, Tracer):
            return lax.cond(trusted, lambda: result, lambda: slow(*args)[0])
        # Python's own branch: the slow one is seldom needed, and would be as long to compile.
        return result if trusted else slow(*args)[0]

    return call


def _map_blocks(program: core.ClosedJaxpr, coordinates: Any, values: Any) -> jax.Array:
    """Returns what the program makes of each coordinate and value; a row shares its coordinate."""
    of_one = core.jaxpr_as_fun(program)
    of_row = of_one if values.ndim == 1 else jax.vmap(of_one, (None, 0))

    count, width = len(coordinates), math.prod(values.shape[1:])
    elements = max(1, sum(_size(v) for each in program.eqns for v in each.outvars))
    blocks = -(-count // max(1, _BLOCK_ELEMENTS // (elements * width)))
    size = -(-count // blocks)
    if blocks == 1:
        return jax.vmap(of_row)(coordinates, values)[0]
    # The last one is repeated, because a block of another size would be compiled anew.
    index = np.minimum(np.arange(blocks * size), count - 1).reshape(blocks, size)
    (results,) = lax.map(lambda at: jax.vmap(of_row)(*at), (coordinates[index], values[index]))
    return results.reshape(blocks * size, *values.shape[1:])[:count]


def _work(program: core.ClosedJaxpr) -> int:
    """Returns about how many multiplications the program takes."""

    def terms(equation):
        if equation.primitive.name != "dot_general":
            return 1
        (axes, _), _ = equation.params["dimension_numbers"]
        return math.prod(equation.invars[0].aval.shape[axis] for axis in axes)

    return sum(terms(each) * _size(v) for each in program.eqns for v in each.outvars)


def _size(variable: Any) -> int:
    return math.prod(variable.aval.shape)


def _all(conditions: Iterable[Any]) -> Any:
    return functools.reduce(jnp.logical_and, conditions, jnp.array(True))


# A function as a list of equations.

_CALLS = (
    *("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"),
)


def _inline(f: Callable[..., Any], *args: Any) -> core.ClosedJaxpr:
    """Returns the equations of ``f``, and in the place of a call those of what it calls."""
    program = jax.make_jaxpr(f)(*args)
    outs = program.jaxpr.outvars
    return jax.make_jaxpr(lambda *args: _read(outs, _evaluate(program, args)))(*args)


def _evaluate(program: core.ClosedJaxpr, args: Iterable[Any]) -> dict[Any, Any]:
    """Returns the values of all variables."""
    jaxpr = program.jaxpr
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*program.consts, *args], strict=True))
    for equation in jaxpr.eqns:
        operands, called = _read(equation.invars, values), _called(equation)
        if called is None:
            results = _listed(equation, _bind(equation, operands))
        else:
            results = _read(called.jaxpr.outvars, _evaluate(called, operands))
        values.update(zip(equation.outvars, results, strict=True))
    return values


def _called(equation: core.JaxprEqn) -> core.ClosedJaxpr | None:
    if equation.primitive.name not in _CALLS:
        return None
    names = ("jaxpr", "call_jaxpr", "fun_jaxpr")
    called = next(equation.params[name] for name in names if name in equation.params)
    return core.ClosedJaxpr(called, ()) if isinstance(called, core.Jaxpr) else called


def _read(atoms: Iterable[Any], values: dict[Any, Any]) -> list[Any]:
    return [_literal(atom) if isinstance(atom, core.Literal) else values[atom] for atom in atoms]


def _literal(atom: Any) -> np.ndarray:
    return np.asarray(atom.val, atom.aval.dtype)


def _bind(equation: core.JaxprEqn, operands: Sequence[Any], **changed: Any) -> Any:
    bound = equation.primitive.get_bind_params(equation.params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)  # by JAX's version
    with equation.ctx.manager:
        return equation.primitive.bind(*functions, *operands, **{**params, **changed})


def _listed(equation: core.JaxprEqn, results: Any) -> Sequence[Any]:
    return results if equation.primitive.multiple_results else [results]


# A change, and what becomes of it in an equation.


class _Change(NamedTuple):
    """New values on a slice of an array.

    Attributes:
      at: for each axis the index of the slice, or None where it spans the axis, as it always spans
        one of size 1. Two changes are of one slice if their indices are the same objects.
      value: of the axes that are spanned.
    """

    at: _At
    value: Any


class _Site(NamedTuple):
    """An equation, its known operands and results, and all sums that are relied on so far."""

    equation: core.JaxprEqn
    operands: list[Any]
    results: list[Any]
    sums: list[Any]

    @property
    def params(self) -> dict[str, Any]:
        return self.equation.params

    @property
    def shape(self) -> tuple[int, ...]:
        return np.shape(self.results[0])

    def bind(self, *operands: Any, **changed: Any) -> Any:
        return _bind(self.equation, operands, **changed)

    def add_to_sum(self, at: _At, difference: Any) -> _Change:
        self.sums.append(self.results[0])
        return _Change(at, _cut(self.results[0], at) + difference)


def _follow(position: int, change: _Change, jaxpr: core.Jaxpr, known: dict, sums: list) -> Any:
    """Returns the result of a change of one argument; to ``sums`` go those that it is added to."""
    changes = {jaxpr.invars[position]: change}
    for equation in jaxpr.eqns:
        reaching = [
            None if isinstance(v, core.Literal) else changes.get(v) for v in equation.invars
        ]
        if not any(reaching) or not all(map(_size, equation.outvars)):
            continue
        operands, results = _read(equation.invars, known), _read(equation.outvars, known)
        rule = _RULES.get(equation.primitive.name, _whole)
        leaving = rule(_Site(equation, operands, results, sums), *reaching)
        changes.update(zip(equation.outvars, _listed(equation, leaving), strict=True))
    result: Any = jaxpr.outvars[0]
    if isinstance(result, core.Literal) or result not in changes:
        return _read([result], known)[0]
    return changes[result].value


def _one(array: Any, coordinate: Any, value: Any) -> _Change:
    """Returns the change of one coordinate, an index into the array when it is flattened."""
    size = math.prod(array.shape)
    _, at = _reshape_at((size,), array.shape, (None if size == 1 else coordinate,))
    return _Change(at, value.reshape([1] * len(_spanned(at))))


def _one_of_whole(array: Any, coordinate: Any, value: Any) -> _Change:
    return _widen(array, _one(array, coordinate, value), (None,) * array.ndim)


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


def _widen(known: Any, change: _Change, at: _At) -> _Change:
    """Returns the change as one of a slice that spans more axes, or as many."""
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
    return _Change(at, lax.select(functools.reduce(jnp.logical_and, inside), value, part))


# Rules: from a site and for each operand a change or None, to the change of the result.


def _whole(site: _Site, *changes: _Change | None) -> Any:
    operands = [
        known if change is None else _widen(known, change, (None,) * len(change.at)).value
        for known, change in zip(site.operands, changes, strict=True)
    ]
    results = _listed(site.equation, site.bind(*operands))
    results = [_Change((None,) * np.ndim(each), each) for each in results]
    return results if site.equation.primitive.multiple_results else results[0]


def _elementwise(site: _Site, *changes: _Change | None) -> _Change:
    rank = len(site.shape)
    places = [c.at if len(c.at) == rank else (None,) * rank for c in changes if c is not None]
    columns = list(zip(*places, strict=True))
    at = tuple(i[0] if all(other is i[0] for other in i) else None for i in columns)

    def operand(known, change):
        if np.ndim(known) < rank:  # a scalar
            return known if change is None else change.value
        return _cut(known, at) if change is None else _widen(known, change, at).value

    return _Change(at, site.bind(*map(operand, site.operands, changes)))


def _broadcast_in_dim(site: _Site, change: _Change, *_: None) -> _Change:
    at: list[Any] = [None] * len(site.shape)
    dimensions = site.params["broadcast_dimensions"]
    for axis, index in zip(dimensions, change.at, strict=True):
        at[axis] = index
    spanned = _spanned(at)
    kept = [spanned.index(dimensions[axis]) for axis in _spanned(change.at)]
    shape = [site.shape[axis] for axis in spanned]
    return _Change(tuple(at), lax.broadcast_in_dim(change.value, shape, kept))


def _transpose(site: _Site, change: _Change) -> _Change:
    order, spanned = site.params["permutation"], _spanned(change.at)
    kept = [spanned.index(axis) for axis in order if axis in spanned]
    return _Change(tuple(change.at[axis] for axis in order), lax.transpose(change.value, kept))


def _reshape(site: _Site, change: _Change, *_: None) -> _Change:
    if site.params.get("new_sizes") and site.params["dimensions"] is not None:  # and transposed
        return _whole(site, change)
    wide, at = _reshape_at(np.shape(site.operands[0]), site.shape, change.at)
    value = _widen(site.operands[0], change, wide).value
    return _Change(at, value.reshape([site.shape[axis] for axis in _spanned(at)]))


def _reshape_at(old: Sequence[int], new: Sequence[int], at: _At) -> tuple[_At, _At]:
    """Returns what must be spanned before the array is reshaped, and the slice afterwards."""
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
    """Yields the fewest axes that have as many elements before and afterwards, those of 1 aside."""
    shapes, start = (old, new), 1
    ends = [list(itertools.accumulate(shape, operator.mul)) for shape in shapes]
    for end in sorted({*ends[0]} & {*ends[1]} - {1}):
        axes, new_axes = (
            [a for a, size in enumerate(shape) if size != 1 and start < until[a] <= end]
            for shape, until in zip(shapes, ends, strict=True)
        )
        yield axes, new_axes
        start = end


def _slice(site: _Site, change: _Change) -> _Change:
    if any(stride != 1 for stride in site.params["strides"] or ()):
        return _whole(site, change)
    return _window(change, site.operands[0], site.results[0], site.params["start_indices"])


def _split(site: _Site, change: _Change) -> list[_Change]:
    axis, sizes = site.params["axis"], site.params["sizes"]
    starts = itertools.accumulate(sizes[:-1], initial=0)
    start_indices = [[start if a == axis else 0 for a in range(len(change.at))] for start in starts]
    return [
        _window(change, site.operands[0], result, start)
        for result, start in zip(site.results, start_indices, strict=True)
    ]


def _window(change: _Change, known: Any, result: Any, starts: Sequence[int]) -> _Change:
    """Returns the change of a part of the array; where the slice lies elsewhere, to what it is."""
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
    return _Change(tuple(at), jnp.where(inside, value, _cut(result, at)))


def _reduce(site: _Site, change: _Change) -> _Change:
    axes, known = site.params["axes"], site.operands[0]
    at = tuple(index for axis, index in enumerate(change.at) if axis not in axes)
    adds = site.equation.primitive.name == "reduce_sum" and any(
        change.at[axis] is not None for axis in axes
    )
    if adds:
        change = _Change(change.at, change.value - _cut(known, change.at))
    else:
        spanning = (None if axis in axes else index for axis, index in enumerate(change.at))
        change = _widen(known, change, tuple(spanning))
    left = tuple(place for place, axis in enumerate(_spanned(change.at)) if axis in axes)
    result = site.bind(change.value, axes=left)
    return site.add_to_sum(at, result) if adds else _Change(at, result)


def _dot_general(site: _Site, *changes: _Change | None) -> _Change:
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
    return site.add_to_sum(at, product) if adds else _Change(at, product)


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
