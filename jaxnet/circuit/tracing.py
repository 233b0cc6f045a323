"""The circuit of any function, from its jaxpr."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxnet import jaxprs, text
from jaxnet.circuit.graph import Box, Trace, Wire, constant

__all__ = ["trace"]

# What a primitive does, as a slide would write it.
_SYMBOLS = {
    "add": "+",
    "add_any": "+",
    "mul": "*",
    "sub": "-",
    "div": "/",
    "neg": "-1 x",
    "logistic": "σ",
    "dot_general": "@",
    "reduce_sum": "Σ",
}


def trace(f: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Trace]:
    """Returns a function of ``f``'s arguments that returns the circuit of ``f`` there.

    Each equation of its jaxpr (`jax.make_jaxpr`) is a gate; its part of the chain rule is `jax.vjp`
    of that equation alone. Inner functions (`jax.jit`, `jax.custom_vjp`, `jax.checkpoint`, a branch
    of `jax.lax.cond`, the last step of a `jax.lax.scan`) are boxes that can be opened.

    Args:
      f: a function that JAX can trace, with a real scalar result.
      argnums: which argument to differentiate, or several, as in `jax.grad`; pytrees of
        floating-point arrays.

    Returns:
      A function of the arguments that returns a `Trace`. It raises ValueError if the result is not
      scalar or ``argnums`` is out of range; TypeError if JAX cannot trace ``f``, or if the result
      or a differentiated argument is not floating-point; NotImplementedError for an equation
      without a reverse mode, such as `jax.lax.while_loop`.

    Example:
      >>> print(trace(lambda x, y: x * y)(2.0, 5.0))
      wire  gate   value  gradient
      ----  -----  -----  --------
      x            2      5
      y            5
      a     * x y  10     1
    """

    def traced(*args: Any) -> Trace:
        numbers = _numbers(argnums, len(args))
        labels = _labels(f, args)
        leaves, structure = jax.tree.flatten(args)
        selected = [
            number in numbers for number, arg in enumerate(args) for _ in jax.tree.leaves(arg)
        ]
        try:
            closed = jax.make_jaxpr(f)(*args)
        except ValueError:  # the function's own, about its arguments
            raise
        except Exception as error:  # a function may raise whatever it likes while it is traced
            reason = text.first_line(error)
            raise TypeError(f"f must be a function that JAX can trace, got: {reason}") from error
        _check(closed, leaves, selected, labels)
        arrays = [jnp.asarray(leaf) for leaf in leaves]
        seed = jnp.ones_like(closed.out_avals[0])
        fresh = _names(avoid=labels)
        found = _run(closed.jaxpr, closed.consts, arrays, selected, [seed], labels, fresh)
        gradients = [
            _zeros_if_none(found.wires[name].gradient, array) if is_selected else None
            for name, array, is_selected in zip(labels, arrays, selected, strict=True)
        ]
        per_argument = jax.tree.unflatten(structure, gradients)
        gradient = tuple(per_argument[number] for number in numbers)
        return found._replace(gradient=gradient if isinstance(argnums, Sequence) else gradient[0])

    return traced


class _Flow(NamedTuple):
    """An equation, its operands, and its vector-Jacobian product."""

    equation: core.JaxprEqn
    operands: list[Any]
    active: list[int]  # positions of the operands that a gradient flows back to
    pull: Callable[[Any], tuple[Any, ...]] | None


def _run(
    jaxpr: core.Jaxpr,
    constants: Sequence[Any],
    arguments: Sequence[Any],
    selected: Sequence[bool],
    seeds: Sequence[Any],
    labels: Sequence[str],
    fresh: Callable[[], str],
) -> Trace:
    """Returns the circuit of a jaxpr: forward through its equations, and back again.

    Args:
      jaxpr: of the function.
      constants: values that it closes over.
      arguments: its arguments.
      selected: for each argument, whether it is differentiated.
      seeds: gradients in its results; None where there is none.
      labels: the arguments' names.
      fresh: makes names for all other wires.
    """
    values: dict[core.Var, Any] = dict(zip(jaxpr.constvars, constants, strict=True))
    name_of: dict[core.Var, str] = {variable: constant(value) for variable, value in values.items()}
    values |= zip(jaxpr.invars, arguments, strict=True)
    name_of |= zip(jaxpr.invars, labels, strict=True)
    invars = zip(jaxpr.invars, selected, strict=True)
    active = {v for v, flag in invars if flag and jaxprs.is_inexact(v)}

    flows = []
    for equation in jaxpr.eqns:
        operands = [_read(atom, values) for atom in equation.invars]
        at = [i for i, atom in enumerate(equation.invars) if _is_in(atom, active)]
        results, pull = _step(equation, operands, at)
        values |= zip(equation.outvars, results, strict=True)
        name_of |= {variable: fresh() for variable in equation.outvars}
        if at:
            active |= set(filter(jaxprs.is_inexact, equation.outvars))
        flows.append(_Flow(equation, operands, at, pull))

    gradients: dict[core.Var, Any] = {}

    def add(variable, gradient):
        known = gradients.get(variable)
        gradients[variable] = gradient if known is None else known + gradient

    for atom, seed in zip(jaxpr.outvars, seeds, strict=True):
        if seed is not None and _is_in(atom, active):
            add(atom, seed)
    boxes = []
    for equation, operands, at, pull in reversed(flows):
        cotangents = [gradients.get(variable) for variable in equation.outvars]
        if pull is not None and any(each is not None for each in cotangents):
            filled = [
                _zero_of(variable) if each is None else each
                for variable, each in zip(equation.outvars, cotangents, strict=True)
            ]
            for i, gradient in zip(at, pull(filled), strict=True):
                add(equation.invars[i], gradient)
        sources = tuple(_name(atom, name_of) for atom in equation.invars)
        outputs = tuple(name_of[variable] for variable in equation.outvars)
        is_active = [i in at for i in range(len(operands))]
        try:
            inside = _open(equation, operands, is_active, cotangents, sources, fresh)
        except Exception:  # a custom rule may stand for what has no gradient: the box stays shut
            inside = None
        boxes.append(Box(_title(equation), sources, outputs, inside))

    wires = {
        name: Wire(values[variable], gradients.get(variable))
        for variable, name in name_of.items()
        if variable not in jaxpr.constvars
    }
    outputs = tuple(_name(atom, name_of) for atom in jaxpr.outvars)
    results = tuple(_read(atom, values) for atom in jaxpr.outvars)
    return Trace(tuple(labels), outputs, tuple(reversed(boxes)), wires, results, None)


def _step(
    equation: core.JaxprEqn, operands: list[Any], active: list[int]
) -> tuple[list[Any], Callable[[Any], tuple[Any, ...]] | None]:
    """Returns an equation's results and, if anything flows back, its vector-Jacobian product."""

    def call(*some):
        given = list(operands)
        for i, operand in zip(active, some, strict=True):
            given[i] = operand
        # Wires are looked at after they have been used.
        kept = {"donated_invars": (False,) * len(given)}
        donates = "donated_invars" in equation.params
        return jaxprs.bind(equation, given, **(kept if donates else {}))

    if not active or not any(map(jaxprs.is_inexact, equation.outvars)):
        return call(*(operands[i] for i in active)), None
    results, pull = jax.vjp(call, *(operands[i] for i in active))

    def transpose(cotangents):
        try:
            return pull(cotangents)
        except (ValueError, NotImplementedError) as error:
            reason = text.first_line(error)
            name = equation.primitive.name
            raise NotImplementedError(f"{name} has no gradient: {reason}") from error

    return results, transpose


# What is in a box


def _open(equation, operands, active, cotangents, labels, fresh) -> Trace | None:
    params = equation.params
    name = equation.primitive.name
    if name == "scan":
        return _open_scan(equation, operands, active, cotangents, labels, fresh)
    if name == "cond":
        index, *operands = operands
        index = int(np.clip(index, 0, len(params["branches"]) - 1))
        inner, active, labels = params["branches"][index], active[1:], labels[1:]
    else:
        found = [
            each for each in params.values() if isinstance(each, core.Jaxpr | core.ClosedJaxpr)
        ]
        if len(found) != 1 or len(_opened(found[0]).invars) != len(operands):
            return None
        inner = found[0]
    consts = getattr(inner, "consts", ())
    return _run(_opened(inner), consts, operands, active, cotangents, _inner(labels), fresh)


def _open_scan(equation, operands, active, cotangents, labels, fresh) -> Trace | None:
    """Returns the last step of a loop."""
    params, inner = equation.params, equation.params["jaxpr"]
    length = params["length"]
    if not length:
        return None
    # The count of carries follows from the shapes (versions of JAX keep it in different places):
    # everything that is not carried has one more axis outside the loop than in its body.
    carries = _count_alike(equation.outvars, inner.jaxpr.outvars)
    consts = _count_alike(equation.invars, inner.jaxpr.invars) - carries
    step = core.jaxpr_as_fun(inner)
    fixed, carry = operands[:consts], operands[consts : consts + carries]
    sequences = operands[consts + carries :]
    steps = range(length - 1, -1, -1) if params["reverse"] else range(length)
    for number in steps[:-1]:
        carry = step(*fixed, *carry, *(each[number] for each in sequences))[:carries]
    last = steps[-1]
    arguments = [*fixed, *carry, *(each[last] for each in sequences)]
    seeds = [
        *cotangents[:carries],
        *(None if each is None else each[last] for each in cotangents[carries:]),
    ]
    # A carry that is not active at first may become so on the way.
    is_moving = any(active)
    selected = [
        is_moving and (consts <= i < consts + carries or flag) for i, flag in enumerate(active)
    ]
    # What is the same in every step keeps its name, with a prime: its gradient is of one step.
    labels = [f"{label}'" if i < consts else fresh() for i, label in enumerate(labels)]
    return _run(inner.jaxpr, inner.consts, arguments, selected, seeds, _inner(labels), fresh)


def _count_alike(outside: Sequence[Any], inside: Sequence[Any]) -> int:
    pairs = zip(outside, inside, strict=True)
    return sum(len(one.aval.shape) == len(other.aval.shape) for one, other in pairs)


def _inner(labels: Sequence[str]) -> list[str]:
    """Returns the names of wires inside a box: those outside, made unique with primes."""
    found: list[str] = []
    for label in labels:
        found.append(label if label not in found else f"{label}'")
        while found[-1] in found[:-1]:
            found[-1] += "'"
    return found


def _opened(inner: Any) -> core.Jaxpr:
    return getattr(inner, "jaxpr", inner)


# Names


def _title(equation: core.JaxprEqn) -> str:
    name, params = equation.primitive.name, equation.params
    if name in ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call"):
        inner = params.get("name") or getattr(params.get("call_jaxpr"), "debug_info", None)
        inner = getattr(inner, "func_name", inner)
        return f"{inner}" if inner else name
    if name == "integer_pow":
        return f"x^{params['y']}"
    if name == "convert_element_type":
        return f"to {params['new_dtype']}"
    if name == "scan":
        return f"scan of {params['length']}"
    return _SYMBOLS.get(name, name)


def _labels(f: Callable[..., Any], args: tuple[Any, ...]) -> list[str]:
    """Returns a name for each leaf of the arguments, e.g. ``params[0].weight``."""
    found = []
    for name, arg in zip(jaxprs.argument_names(f, len(args)), args, strict=True):
        found += [
            name + jax.tree_util.keystr(path)
            for path, _ in jax.tree_util.tree_leaves_with_path(arg)
        ]
    return _inner(found)


def _name(atom: Any, name_of: dict[core.Var, str]) -> str:
    if isinstance(atom, core.Literal):
        return constant(jaxprs.literal(atom))
    return name_of[atom]


def _names(avoid: Sequence[str]) -> Callable[[], str]:
    """Returns a function that returns a, b, ..., z, aa, ab, ..., one at each call, except some."""
    count = 0

    def fresh() -> str:
        nonlocal count
        count += 1
        letters, rest = "", count
        while rest:
            rest, letter = divmod(rest - 1, 26)
            letters = chr(ord("a") + letter) + letters
        return fresh() if letters in avoid else letters

    return fresh


# Values


def _read(atom: Any, values: dict[core.Var, Any]) -> Any:
    if isinstance(atom, core.Literal):
        return jnp.asarray(jaxprs.literal(atom))
    return values[atom]


def _is_in(atom: Any, variables: set[core.Var]) -> bool:
    return not isinstance(atom, core.Literal) and atom in variables


def _zero_of(variable: Any) -> Any:
    shape = variable.aval.shape
    if jaxprs.is_inexact(variable):
        return jnp.zeros_like(variable.aval)
    return np.zeros(shape, jax.dtypes.float0)


def _zeros_if_none(gradient: Any, array: jax.Array) -> Any:
    return jnp.zeros_like(array) if gradient is None else gradient


# The door


def _numbers(argnums: int | Sequence[int], count: int) -> tuple[int, ...]:
    numbers = tuple(argnums) if isinstance(argnums, Sequence) else (argnums,)
    for number in numbers:
        if not -count <= number < count:
            raise ValueError(f"argnums must be among {count} arguments, got {number}")
    return tuple(number % count for number in numbers)


def _check(closed: core.ClosedJaxpr, leaves, selected, labels) -> None:
    shapes = [each.shape for each in closed.out_avals]
    if shapes != [()]:
        got = f"shape {shapes[0]}" if len(shapes) == 1 else f"{len(shapes)} results"
        raise ValueError(f"f must return a scalar, got {got}")
    result: Any = closed.out_avals[0]
    if not jnp.issubdtype(result.dtype, jnp.floating):
        raise TypeError(f"f must return a floating-point scalar, got {result.dtype}")
    for leaf, flag, label in zip(leaves, selected, labels, strict=True):
        dtype = jnp.result_type(leaf)
        if flag and not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(f"{label} must be floating-point to be differentiated, got {dtype}")
