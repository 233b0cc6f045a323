"""The circuit of any function, from the program that JAX makes of it."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxnet.circuit.graph import Box, Trace, Wire, constant

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

    Each equation of its program (`jax.make_jaxpr`) is a gate, whose part of the chain rule is
    `jax.vjp` of that equation alone. Functions within (`jax.jit`, `jax.custom_vjp`,
    `jax.checkpoint`, a branch of `jax.lax.cond`, the last turn of a `jax.lax.scan`) are boxes that
    can be looked into.

    Args:
      f: a function that JAX can trace, with a real scalar result.
      argnums: which argument to differentiate in, or several, as of `jax.grad`; pytrees of
        floating-point arrays.

    The function that it returns raises:
      ValueError: a result that is no scalar, or ``argnums`` out of range.
      TypeError: a function that JAX cannot trace, a result that is not floating-point, or
        differentiated arguments that are not.
      NotImplementedError: an equation that JAX cannot differentiate in reverse, such as
        `jax.lax.while_loop`.
    """

    def traced(*args: Any) -> Trace:
        numbers = _numbers(argnums, len(args))
        labels = _labels(f, args)
        leaves, structure = jax.tree.flatten(args)
        selected = [
            number in numbers for number, arg in enumerate(args) for _ in jax.tree.leaves(arg)
        ]
        try:
            program = jax.make_jaxpr(f)(*args)
        except ValueError:  # the function's own, about its arguments
            raise
        except Exception as error:  # a function may raise whatever it likes while it is traced
            reason = _first_line(error)
            raise TypeError(f"f must be a function that JAX can trace, got: {reason}") from error
        _check(program, leaves, selected, labels)
        arrays = [jnp.asarray(leaf) for leaf in leaves]
        seed = jnp.ones_like(program.out_avals[0])
        fresh = _names(avoid=labels)
        found = _run(program.jaxpr, program.consts, arrays, selected, [seed], labels, fresh)
        gradients = [
            _zeros_if_none(found.wires[name].gradient, array) if is_selected else None
            for name, array, is_selected in zip(labels, arrays, selected, strict=True)
        ]
        per_argument = jax.tree.unflatten(structure, gradients)
        gradient = tuple(per_argument[number] for number in numbers)
        return found._replace(gradient=gradient if isinstance(argnums, Sequence) else gradient[0])

    return traced


class _Flow(NamedTuple):
    """An equation on its way back: what it was given, and the transpose of its derivative."""

    equation: core.JaxprEqn
    operands: list[Any]
    active: list[int]  # positions of the operands that a gradient flows back to
    pull: Callable[[Any], tuple[Any, ...]] | None


def _run(
    program: core.Jaxpr,
    constants: Sequence[Any],
    arguments: Sequence[Any],
    selected: Sequence[bool],
    seeds: Sequence[Any],
    labels: Sequence[str],
    fresh: Callable[[], str],
) -> Trace:
    """Returns the circuit of a program: forward through its equations, and back again.

    Args:
      program: of the function.
      constants: that it closes over.
      arguments: of it.
      selected: for each, whether it is differentiated.
      seeds: gradients in its results; None where there is none.
      labels: the arguments' names.
      fresh: makes names for all other wires.
    """
    values: dict[core.Var, Any] = dict(zip(program.constvars, constants, strict=True))
    name_of: dict[core.Var, str] = {variable: constant(value) for variable, value in values.items()}
    values |= zip(program.invars, arguments, strict=True)
    name_of |= zip(program.invars, labels, strict=True)
    active = {v for v, flag in zip(program.invars, selected, strict=True) if flag and _flows(v)}

    flows = []
    for equation in program.eqns:
        operands = [_read(atom, values) for atom in equation.invars]
        at = [i for i, atom in enumerate(equation.invars) if _is_in(atom, active)]
        results, pull = _step(equation, operands, at)
        values |= zip(equation.outvars, results, strict=True)
        name_of |= {variable: fresh() for variable in equation.outvars}
        if at:
            active |= {variable for variable in equation.outvars if _flows(variable)}
        flows.append(_Flow(equation, operands, at, pull))

    gradients: dict[core.Var, Any] = {}

    def add(variable, gradient):
        known = gradients.get(variable)
        gradients[variable] = gradient if known is None else known + gradient

    for atom, seed in zip(program.outvars, seeds, strict=True):
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
        except Exception:  # a rule of its own may stand for what has none: then the box stays shut
            inside = None
        boxes.append(Box(_title(equation), sources, outputs, inside))

    wires = {
        name: Wire(values[variable], gradients.get(variable))
        for variable, name in name_of.items()
        if variable not in program.constvars
    }
    outputs = tuple(_name(atom, name_of) for atom in program.outvars)
    results = tuple(_read(atom, values) for atom in program.outvars)
    return Trace(tuple(labels), outputs, tuple(reversed(boxes)), wires, results, None)


def _step(
    equation: core.JaxprEqn, operands: list[Any], active: list[int]
) -> tuple[list[Any], Callable[[Any], tuple[Any, ...]] | None]:
    """Returns an equation's results and, if anything flows back, its vector-Jacobian product."""

    def call(*some):
        given = list(operands)
        for i, operand in zip(active, some, strict=True):
            given[i] = operand
        return _bind(equation, given)

    if not active or not any(map(_flows, equation.outvars)):
        return call(*(operands[i] for i in active)), None
    results, pull = jax.vjp(call, *(operands[i] for i in active))

    def transpose(cotangents):
        try:
            return pull(cotangents)
        except (ValueError, NotImplementedError) as error:
            reason = _first_line(error)
            name = equation.primitive.name
            raise NotImplementedError(f"{name} has no gradient: {reason}") from error

    return results, transpose


def _bind(equation: core.JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    bound = equation.primitive.get_bind_params(equation.params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)  # by JAX's version
    if "donated_invars" in params:  # wires are looked at after they have been used
        params = {**params, "donated_invars": (False,) * len(operands)}
    with equation.ctx.manager:
        results = equation.primitive.bind(*functions, *operands, **params)
    return list(results) if equation.primitive.multiple_results else [results]


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
        if len(found) != 1 or len(_program(found[0]).invars) != len(operands):
            return None
        inner = found[0]
    program = _program(inner)
    return _run(
        program, getattr(inner, "consts", ()), operands, active, cotangents, _inner(labels), fresh
    )


def _open_scan(equation, operands, active, cotangents, labels, fresh) -> Trace | None:
    """Returns the last turn of a loop."""
    params, inner = equation.params, equation.params["jaxpr"]
    length = params["length"]
    if not length:
        return None
    # How many are carried from turn to turn is seen from the shapes, as versions of JAX keep it in
    # different places: what is not has an axis more outside of the loop than in its body.
    carries = _count_alike(equation.outvars, inner.jaxpr.outvars)
    consts = _count_alike(equation.invars, inner.jaxpr.invars) - carries
    step = core.jaxpr_as_fun(inner)
    fixed, carry = operands[:consts], operands[consts : consts + carries]
    sequences = operands[consts + carries :]
    turns = range(length - 1, -1, -1) if params["reverse"] else range(length)
    for turn in turns[:-1]:
        carry = step(*fixed, *carry, *(each[turn] for each in sequences))[:carries]
    last = turns[-1]
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
    # What is the same every turn keeps its name, with a prime: its gradient is that of one turn.
    labels = [f"{label}'" if i < consts else fresh() for i, label in enumerate(labels)]
    return _run(inner.jaxpr, inner.consts, arguments, selected, seeds, _inner(labels), fresh)


def _count_alike(outside: Sequence[Any], inside: Sequence[Any]) -> int:
    pairs = zip(outside, inside, strict=True)
    return sum(len(one.aval.shape) == len(other.aval.shape) for one, other in pairs)


def _inner(labels: Sequence[str]) -> list[str]:
    """Returns the wires' names inside a box: those outside, but each once."""
    found: list[str] = []
    for label in labels:
        found.append(label if label not in found else f"{label}'")
        while found[-1] in found[:-1]:
            found[-1] += "'"
    return found


def _program(inner: Any) -> core.Jaxpr:
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
    try:
        parameters = [
            each.name
            for each in inspect.signature(f).parameters.values()
            if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
        ]
    except (TypeError, ValueError):
        parameters = []
    found = []
    for number, arg in enumerate(args):
        name = parameters[number] if number < len(parameters) else f"args[{number}]"
        found += [
            name + jax.tree_util.keystr(path)
            for path, _ in jax.tree_util.tree_leaves_with_path(arg)
        ]
    return _inner(found)


def _name(atom: Any, name_of: dict[core.Var, str]) -> str:
    if isinstance(atom, core.Literal):
        return constant(_literal(atom))
    return name_of[atom]


def _names(avoid: Sequence[str]) -> Callable[[], str]:
    """Returns a function that returns a, b, ..., z, aa, ab, ..., one a call, but for some."""
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


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


# Values


def _read(atom: Any, values: dict[core.Var, Any]) -> Any:
    return _literal(atom) if isinstance(atom, core.Literal) else values[atom]


def _literal(atom: Any) -> jax.Array:
    return jnp.asarray(atom.val, atom.aval.dtype)


def _is_in(atom: Any, variables: set[core.Var]) -> bool:
    return not isinstance(atom, core.Literal) and atom in variables


def _flows(variable: Any) -> bool:
    return jnp.issubdtype(getattr(variable.aval, "dtype", int), jnp.inexact)


def _zero_of(variable: Any) -> Any:
    shape = variable.aval.shape
    return jnp.zeros_like(variable.aval) if _flows(variable) else np.zeros(shape, jax.dtypes.float0)


def _zeros_if_none(gradient: Any, array: jax.Array) -> Any:
    return jnp.zeros_like(array) if gradient is None else gradient


# The door


def _numbers(argnums: int | Sequence[int], count: int) -> tuple[int, ...]:
    numbers = tuple(argnums) if isinstance(argnums, Sequence) else (argnums,)
    for number in numbers:
        if not -count <= number < count:
            raise ValueError(f"argnums must be among {count} arguments, got {number}")
    return tuple(number % count for number in numbers)


def _check(program, leaves, selected, labels) -> None:
    shapes = [each.shape for each in program.out_avals]
    if shapes != [()]:
        got = f"shape {shapes[0]}" if len(shapes) == 1 else f"{len(shapes)} results"
        raise ValueError(f"f must return a scalar, got {got}")
    result: Any = program.out_avals[0]
    if not jnp.issubdtype(result.dtype, jnp.floating):
        raise TypeError(f"f must return a floating-point scalar, got {result.dtype}")
    for leaf, flag, label in zip(leaves, selected, labels, strict=True):
        dtype = jnp.result_type(leaf)
        if flag and not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(f"{label} must be floating-point to be differentiated, got {dtype}")
