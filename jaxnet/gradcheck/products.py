"""Audits of vector-Jacobian, Jacobian-vector and Hessian-vector products.

Each is the slope of a scalar function, so one audit serves all. For a function f with any outputs
and a fixed random w, <w, f(x)> is scalar: its gradient is the vector-Jacobian product w'J, and its
slope along v is <w, Jv>. For a scalar f, <w, grad f(x)> has the gradient Hw. With probability 1, an
error of a Jacobian or Hessian changes its product with a random w.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet import text
from jaxnet.gradcheck import arguments, audit, differences
from jaxnet.gradcheck.arguments import Argument, Span
from jaxnet.gradcheck.measure import Measurement
from jaxnet.gradcheck.point import Compiled
from jaxnet.gradcheck.report import Report
from jaxnet.gradcheck.run import Run, Subject
from jaxnet.gradcheck.thresholds import THRESHOLDS

__all__ = ["check_hvp", "check_jvp", "check_vjp"]

_COTANGENT, _TANGENT = 2**30, 2**30 + 1  # appended to the seed: beyond the number of a direction


def check_vjp(
    f: Callable[..., Any],
    *args: Any,
    vjp: Callable[..., Any] | None = None,
    argnums: int | Sequence[int] = 0,
    key: jax.Array | None = None,
    **options: Any,
) -> Report:
    """Checks the product of a random cotangent with the Jacobian of ``f``.

    A note in the report says how well forward mode agrees (<w, Jv> equals <w'J, v>), or that there
    is none.

    Args:
      f: a function that JAX can trace, with a pytree of floating-point or complex arrays as result.
      *args: its arguments.
      vjp: called as ``vjp(*args, cotangent)``, with a cotangent like the result, and returns a
        pytree like ``args[argnums]``; or None for `jax.vjp`.
      argnums: which argument to differentiate, or several.
      key: draws cotangent and directions; by default ``jax.random.key(0)``.
      **options: ``directions``, ``tolerance``, ``exhaustive`` and ``control``, as in `check`.

    Returns:
      A `Report`, as from `check`.

    Raises:
      TypeError: as `check`, or results that are not floating-point or complex arrays.
      ValueError: as `check`.

    Example:
      >>> check_vjp(jnp.sin, jnp.arange(3.0), vjp=lambda x, w: (w * jnp.cos(x))).verdict
      'pass'
    """
    argument = arguments.examine(f, args, argnums)
    closed, arrays = arguments.close(f, args, argument.argnums)
    cotangent = _cotangent(closed, arrays, key)
    weighted = _weigh(closed, cotangent)
    gradient = None if vjp is None else vjp(*args, cotangent)
    report = audit.check(weighted, *arrays, gradient=gradient, argnums=argnums, key=key, **options)
    if gradient is None:
        gradient = jax.grad(weighted, argument.argnums)(*arrays)
    note = _identity(closed, arrays, argument, cotangent, gradient, report.tolerance, key)
    return report._replace(subject="vjp", notes=(*report.notes, note))


def check_jvp(
    f: Callable[..., Any],
    *args: Any,
    jvp: Callable[..., Any] | None = None,
    argnums: int | Sequence[int] = 0,
    key: jax.Array | None = None,
    **options: Any,
) -> Report:
    """Checks the product of the Jacobian of ``f`` with tangents.

    Args:
      f: as in `check_vjp`.
      *args: its arguments.
      jvp: called as ``jvp(*args, tangent)``, with a tangent like ``args[argnums]``, and returns a
        pytree like the result; or None for `jax.jvp`.
      argnums: which argument to differentiate, or several.
      key: draws a cotangent and directions; by default ``jax.random.key(0)``.
      **options: as in `check_vjp`.

    Returns:
      A `Report`; errors are relative to the Jacobian's product with the cotangent. If ``f`` has no
      forward mode (because of a `jax.custom_vjp`, for example), the report is inconclusive, has no
      leaves, and a note says why.

    Raises:
      TypeError: as `check_vjp`.
      ValueError: as `check_vjp`, or products that do not have the form of the result.

    Example:
      >>> check_jvp(jnp.sin, jnp.arange(3.0), jvp=lambda x, v: v * jnp.sin(x)).verdict
      'fail'
    """
    argument = arguments.examine(f, args, argnums)
    settings = audit.make_options(argument, key=key, **options)
    closed, arrays = arguments.close(f, args, argument.argnums)
    cotangent = _cotangent(closed, arrays, key)
    dtype = argument.dtypes
    if jvp is None:
        forward = functools.partial(_forward, closed, argument)
    else:
        forward, _ = arguments.close(jvp, (*args, None), (*argument.numbers, len(args)))
    compiled = jax.jit(forward)

    def slope(draws, span):
        tangent = _tangent(argument, draws, span)
        return float(_weighted(compiled(*arrays, tangent), cotangent))

    try:
        outputs = compiled(*arrays, _tangent(argument, None, None))
    except Exception as error:  # without a derivative, a function may raise anything
        if jvp is not None:
            raise
        note = f"f has no forward mode: {_why(error)}"
        return Report((), max(settings.tolerances), dtype, "nothing", "jvp", (note,))
    _check_outputs(outputs, jax.eval_shape(lambda *args: closed(*args), *arrays))
    weighted = _weigh(closed, cotangent)
    compiled_f = Compiled(weighted, argument.argnums)
    measured = Measurement(compiled_f, argument, arrays, settings.seed)
    return Run(measured, Subject("jvp", None, slope), settings).report()


def check_hvp(
    f: Callable[..., Any],
    *args: Any,
    hvp: Callable[..., Any] | None = None,
    argnums: int | Sequence[int] = 0,
    key: jax.Array | None = None,
    **options: Any,
) -> Report:
    """Checks the product of the Hessian of a scalar ``f`` with a random vector.

    The differences are of ``jax.grad(f)``; check that first.

    Args:
      f: as in `check`, and twice differentiable.
      *args: its arguments, real.
      hvp: called as ``hvp(*args, vector)``, with a vector like ``args[argnums]``, and returns a
        pytree like it; or None for the derivative of ``jax.grad(f)``, forward over reverse.
      argnums: which argument to differentiate, or several.
      key: draws the vector and directions; by default ``jax.random.key(0)``.
      **options: as in `check_vjp`.

    Returns:
      A `Report`, as from `check`.

    Raises:
      TypeError: as `check`, or complex arguments.
      ValueError: as `check`.

    Example:
      >>> f, x = (lambda x: jnp.sum(x**3)), jnp.arange(1.0, 4.0)
      >>> check_hvp(f, x, hvp=lambda x, v: 6 * x * v).verdict
      'pass'
    """
    argument = arguments.examine(f, args, argnums)
    closed, arrays = arguments.close(f, args, argument.argnums)
    differences.check_result(closed, arrays)
    for leaf in argument.leaves:
        if leaf.is_complex:
            raise TypeError(f"{leaf.path} must be real for a Hessian, got {leaf.dtype}")
    gradient = jax.grad(closed, argument.argnums)
    vector = _cotangent(gradient, arrays, key)
    weighted = _weigh(gradient, vector)
    if hvp is not None:
        product = hvp(*args, vector)
    else:
        try:
            product = _forward(gradient, argument, *arrays, vector)
        except Exception:  # without a forward mode, f may raise anything: reverse over reverse
            product = jax.grad(weighted, argument.argnums)(*arrays)
    report = audit.check(weighted, *arrays, gradient=product, argnums=argnums, key=key, **options)
    return report._replace(subject="hvp")


def _weigh(f: Callable[..., Any], cotangent: Any) -> Callable[..., Any]:
    @functools.wraps(f)
    def weighted(*args):
        return _weighted(f(*args), cotangent)

    return weighted


def _weighted(outputs: Any, cotangent: Any) -> jax.Array:
    """Returns <w, y>; of complex products, the sum of the real parts."""
    total: Any = None
    pairs = zip(jax.tree.leaves(outputs), jax.tree.leaves(cotangent), strict=True)
    for output, weight in pairs:
        term = jnp.sum((output * jnp.asarray(weight).astype(output.dtype)).real)
        total = term if total is None else total + term.astype(total.dtype)
    return total


def _cotangent(f: Callable[..., Any], args: tuple[Any, ...], key: jax.Array | None) -> Any:
    """Draws a cotangent: standard normal numbers like the outputs."""
    outputs = jax.eval_shape(lambda *args: f(*args), *args)
    found = jax.tree_util.tree_leaves_with_path(outputs)
    if not found:
        raise TypeError("f must return arrays, got none")
    for path, leaf in found:
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            raise TypeError(
                f"f must return floating-point or complex arrays, got {leaf.dtype} in "
                f"result{jax.tree_util.keystr(path)}"
            )
    generator = np.random.default_rng((*arguments.seed_of(key), _COTANGENT))

    def draw(leaf):
        weights = generator.standard_normal(leaf.shape)
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            weights = weights + 1j * generator.standard_normal(leaf.shape)
        return jnp.asarray(np.asarray(weights).astype(leaf.dtype))

    return jax.tree.map(draw, outputs)


def _tangent(argument: Argument, draws: Any, span: Span | None) -> Any:
    """Returns a pytree like the argument: a direction within a span, else zero."""
    arrays = []
    for index, leaf in enumerate(argument.leaves):
        flat = np.zeros(leaf.size)
        if span is not None and index == span.leaf:
            flat[span.start : span.stop] = draws[index][span.start : span.stop]
        if leaf.is_complex:
            flat = flat.view(np.complex128)
        arrays.append(jnp.asarray(flat.reshape(leaf.shape).astype(leaf.dtype)))
    return argument.treedef.unflatten(arrays)


def _forward(f: Callable[..., Any], argument: Argument, *args: Any) -> Any:
    """Returns the Jacobian's product with the last argument, a tangent."""
    *before, tangent = args
    numbers = argument.numbers
    tangents = tangent if isinstance(argument.argnums, tuple) else (tangent,)
    values = [before[number] for number in numbers]
    values = jax.tree.map(lambda x, v: jnp.asarray(x, v.dtype), tuple(values), tuple(tangents))

    def of_values(*values):
        full = list(before)
        for number, value in zip(numbers, values, strict=True):
            full[number] = value
        return f(*full)

    return jax.jvp(of_values, tuple(values), tuple(tangents))[1]


def _identity(f, args, argument, cotangent, gradient, tolerance, key) -> str:
    """Returns a note on whether forward and reverse mode agree."""
    flat = argument.flatten_gradient(gradient)
    generator = np.random.default_rng((*arguments.seed_of(key), _TANGENT))
    draws = [generator.standard_normal(leaf.size).astype(np.float32) for leaf in argument.leaves]
    arrays = []
    for draw, leaf in zip(draws, argument.leaves, strict=True):
        draw = draw.astype(np.float64)
        draw = draw.view(np.complex128) if leaf.is_complex else draw
        arrays.append(jnp.asarray(draw.reshape(leaf.shape).astype(leaf.dtype)))
    try:
        outputs = jax.jit(functools.partial(_forward, f, argument))(
            *args, argument.treedef.unflatten(arrays)
        )
    except Exception as error:  # without a derivative, a function may raise anything
        return f"f has no forward mode to compare with: {_why(error)}"
    forward = float(_weighted(outputs, cotangent))
    reverse = sum(float(ours @ draw) for ours, draw in zip(flat, draws, strict=True))
    norm = float(np.sqrt(sum(np.sum(ours**2) for ours in flat)))
    error = abs(forward - reverse) / norm if norm else abs(forward - reverse)
    rounded = [leaf.dtype for leaf in (*argument.leaves, *jax.tree.leaves(cotangent))]
    spacing = max(float(jnp.finfo(dtype).eps) for dtype in rounded)
    agrees = "agree" if error <= max(tolerance, THRESHOLDS.mode_spacings * spacing) else "DISAGREE"
    return f"forward and reverse mode {agrees}: <w, Jv> and <w'J, v> differ by {error:.1e}"


def _check_outputs(outputs: Any, expected: Any) -> None:
    if jax.tree.structure(outputs) != jax.tree.structure(expected):
        raise ValueError(
            f"jvp must return the structure of the result, {jax.tree.structure(expected)}, "
            f"got {jax.tree.structure(outputs)}"
        )
    for ours, leaf in zip(jax.tree.leaves(outputs), jax.tree.leaves(expected), strict=True):
        if ours.shape != leaf.shape:
            raise ValueError(f"jvp must return shape {leaf.shape}, got {ours.shape}")


def _why(error: Exception) -> str:
    """Returns why there is no forward mode."""
    if "custom_vjp" in str(error):
        return "it has a jax.custom_vjp, which defines reverse mode only"
    return text.first_line(error)
