"""The audit of a gradient: `check`, and `make_check` to audit again and again."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet import text
from jaxnet.gradcheck import arguments
from jaxnet.gradcheck.arguments import Argument, Statics, itemsize
from jaxnet.gradcheck.differences import check_result
from jaxnet.gradcheck.measure import Measurement, remember_last
from jaxnet.gradcheck.point import Compiled
from jaxnet.gradcheck.report import Report
from jaxnet.gradcheck.run import Options, Run, Subject, project
from jaxnet.gradcheck.thresholds import THRESHOLDS

__all__ = ["check", "make_check", "make_options"]


def make_check(
    f: Callable[..., Any],
    *,
    argnums: int | Sequence[int] = 0,
    directions: int = THRESHOLDS.directions,
    tolerance: float | None = None,
    exhaustive: bool = False,
    control: bool = False,
) -> Callable[..., Report]:
    """Returns ``audit(*args, gradient=None, key=None)``: `check` with its options fixed.

    It keeps what it compiled, so it can be called often, during training for example. It also keeps
    its measurements until it is called with other arrays: to audit several gradients at one point
    costs little more than one. ``f`` must not change its meaning between calls. Another value of an
    argument that is not an array (a string, function or integer) compiles anew.

    Args:
      f: as in `check`, and so are the options.
      argnums: which argument to differentiate, or several.
      directions: random directions in every leaf.
      tolerance: relative error up to which a leaf passes.
      exhaustive: whether to compare with differences at every coordinate.
      control: whether to plant an error in every leaf that passes.

    Returns:
      A function that audits; it raises what `check` raises.

    Example:
      >>> audit = make_check(lambda x: jnp.sum(jnp.sin(x)))
      >>> x = jnp.arange(3.0)
      >>> audit(x).verdict, audit(x, gradient=-jnp.cos(x)).verdict
      ('pass', 'fail')
    """
    numbers = tuple(argnums) if isinstance(argnums, Sequence) else argnums

    def measuring(statics: Statics) -> Callable[..., Measurement]:
        return remember_last(Compiled(statics.close(f), numbers))

    kept = functools.lru_cache(THRESHOLDS.kept)(measuring)

    def audit(*args: Any, gradient: Any = None, key: jax.Array | None = None) -> Report:
        argument = arguments.examine(f, args, numbers)
        arrays, statics = arguments.partition(args, argument.argnums)
        check_result(statics.close(f), arrays)
        options = make_options(
            argument,
            directions=directions,
            tolerance=tolerance,
            exhaustive=exhaustive,
            control=control,
            key=key,
        )
        at = kept(statics) if _is_hashable(statics) else measuring(statics)
        measured = at(argument, arrays, options.seed)
        own = measured.own
        if gradient is not None:
            given = _evaluate(gradient, args, argument)
        elif own.error is None:
            given = own.gradient
        else:
            raise own.error
        flat = argument.flatten_gradient(given)
        subject = Subject("gradient", flat, lambda draws, span: project(flat, draws, span))
        report = Run(measured, subject, options).report()
        if gradient is None:
            return report
        if own.error is not None:
            note = f"jax.grad has no gradient to compare with: {text.first_line(own.error)}"
            return report._replace(notes=(*report.notes, note))
        leaves = [
            leaf._replace(autodiff_error=_relative(ours - theirs, theirs))
            for leaf, ours, theirs in zip(
                report.leaves, flat, argument.flatten_gradient(own.gradient), strict=True
            )
        ]
        return report._replace(leaves=tuple(leaves))

    return audit


def check(
    f: Callable[..., Any],
    *args: Any,
    gradient: Any = None,
    argnums: int | Sequence[int] = 0,
    key: jax.Array | None = None,
    directions: int = THRESHOLDS.directions,
    tolerance: float | None = None,
    exhaustive: bool = False,
    control: bool = False,
) -> Report:
    """Checks the gradient of ``f(*args)`` with respect to ``args[argnums]``.

    The gradient is the user's, in the dtype of the arguments. Its slopes along random directions of
    every leaf are compared with finite differences of ``f``, in float64 if ``f`` accepts that.
    Where the differences confirm `jax.grad` in float64, the gradient is also compared with that at
    every coordinate. JAX's configuration does not change.

    Args:
      f: a function that JAX can trace, with a real scalar result.
      *args: its arguments; ``args[argnums]`` is a pytree of floating-point or complex arrays. The
        others may be anything; values that are neither arrays nor floats are passed on unchanged.
      gradient: the gradient, a pytree like ``args[argnums]``; or a function that is called as
        ``gradient(*args)`` and returns it; or None for ``jax.grad(f, argnums)``.
      argnums: which argument to differentiate, or several.
      key: a key of `jax.random` that draws the directions; by default ``jax.random.key(0)``.
      directions: count of random directions in every leaf, 1 or more; an undecided leaf gets up to
        eight times as many.
      tolerance: error relative to the norm of a leaf's gradient, up to which the leaf passes; by
        default 1e-5 in float64, 1e-3 in float32, 2e-2 in 16 bits.
      exhaustive: whether to measure every coordinate, and to compare the gradient with the
        differences, once directions have confirmed them, instead of `jax.grad`.
      control: whether to plant in every leaf that passes an error of the smallest size that the
        audit claims to detect, and to check that it does.

    Returns:
      A `Report`. A leaf passes if its error is at most the tolerance and fails if it is larger,
      each with a chance of at most 1e-6 of being wrong; it is inconclusive if the differences
      cannot tell.

    Raises:
      ValueError: a gradient whose structure or shapes differ from those of the argument; a result
        that is no scalar; arguments or a value that are empty or not finite; a tolerance that is
        not positive, below what the dtype resolves, or 1 or more; ``argnums`` out of range or
        repeated.
      TypeError: a gradient whose dtypes differ; arguments, options or a result of another type;
        tracers, as inside of `jax.jit`.

    Example:
      >>> x = jnp.arange(3.0)
      >>> report = check(lambda x: jnp.sum(x**2), x, gradient=x)
      >>> report.verdict, report.leaves[0].diagnosis
      ('fail', 'a factor of 1/2')
    """
    audit = make_check(
        f,
        argnums=argnums,
        directions=directions,
        tolerance=tolerance,
        exhaustive=exhaustive,
        control=control,
    )
    return audit(*args, gradient=gradient, key=key)


def make_options(
    argument: Argument,
    *,
    directions: int = THRESHOLDS.directions,
    tolerance: float | None = None,
    exhaustive: bool = False,
    control: bool = False,
    key: jax.Array | None = None,
) -> Options:
    """Checks the options of an audit, and fills in the tolerances of the leaves.

    Args:
      argument: what is differentiated.
      directions: as in `check`, and so are the others.
      tolerance: of all leaves; None for that of their dtypes.
      exhaustive: as in `check`.
      control: as in `check`.
      key: as in `check`.

    Raises:
      ValueError: a tolerance or a number of directions out of range.
      TypeError: directions that are not an integer, or not a key.

    Example:
      >>> args = (jnp.ones(3, jnp.float32),)
      >>> make_options(arguments.examine(jnp.sum, args, 0)).tolerances
      (0.001,)
    """
    if tolerance is not None and not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")
    if tolerance is not None and tolerance >= 1:
        raise ValueError(f"tolerance must be below 1, at which 0 passes, got {tolerance}")
    if not isinstance(directions, int | np.integer) or isinstance(directions, bool):
        raise TypeError(f"directions must be an integer, got {directions!r}")
    if directions < 1:
        raise ValueError(f"directions must be 1 or more, got {directions}")
    tolerances = tuple(
        THRESHOLDS.tolerance[itemsize(leaf.dtype)] if tolerance is None else tolerance
        for leaf in argument.leaves
    )
    widest = max(argument.leaves, key=lambda leaf: itemsize(leaf.dtype)).dtype
    least = float(jnp.finfo(widest).eps)
    if min(tolerances) < least:
        raise ValueError(
            f"tolerance must be {least:.1g} or more, which is what {widest} resolves, "
            f"got {min(tolerances):g}"
        )
    seed = arguments.seed_of(key)
    return Options(directions, tolerances, exhaustive, control, seed)


def _evaluate(gradient: Any, args: tuple[Any, ...], argument: Argument) -> Any:
    x = arguments.select(args, argument.argnums)
    # A pytree may be callable: a module of layers is.
    is_tree = callable(gradient) and all(map(_is_array, jax.tree.leaves(gradient)))
    given = gradient(*args) if callable(gradient) and not is_tree else gradient
    arguments.check_like(given, x, argument)
    return given


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _relative(error: np.ndarray, right: np.ndarray) -> float:
    size, norm = float(np.linalg.norm(error)), float(np.linalg.norm(right))
    return size / norm if norm else (0.0 if size == 0 else np.inf)


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")
