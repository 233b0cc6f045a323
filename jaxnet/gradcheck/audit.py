"""The ways into an audit of a gradient."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.gradcheck import arguments, differences
from jaxnet.gradcheck.arguments import Argument, Constants
from jaxnet.gradcheck.reference import Programs, first_line
from jaxnet.gradcheck.report import Report
from jaxnet.gradcheck.run import Options, Run, Subject, itemsize, project
from jaxnet.gradcheck.survey import LastSurvey

# What gradients are good for, by the bytes of an element: a float32 gradient of a deep network
# carries rounding errors of 1e-6 to 1e-4 of its norm, one of bfloat16 up to a percent or two.
_TOLERANCE = {2: 2e-2, 4: 1e-3, 8: 1e-5}
_KEPT = 4  # programs, for as many settings of the arguments that are no arrays


def make_check(
    f: Callable[..., Any],
    *,
    argnums: int | Sequence[int] = 0,
    directions: int = 8,
    tolerance: float | None = None,
    exhaustive: bool = False,
    control: bool = False,
) -> Callable[..., Report]:
    """Returns ``audit(*args, gradient=None, key=None)``: `check` with its options fixed.

    What it compiles is kept, so that it may be called again and again: during training, say. What
    it measures is kept too, until it is called with other arrays, so that several gradients at one
    point cost little more than one. ``f`` must mean the same from call to call. It is compiled
    anew for other arguments that are no arrays: another string, function or integer. Arguments
    and errors are those of `check`.
    """
    numbers = tuple(argnums) if isinstance(argnums, Sequence) else argnums

    def surveys_of(constants: Constants) -> LastSurvey:
        return LastSurvey(Programs(constants.close(f), numbers))

    kept = functools.lru_cache(_KEPT)(surveys_of)

    def audit(*args: Any, gradient: Any = None, key: jax.Array | None = None) -> Report:
        argument = arguments.examine(f, args, numbers)
        arrays, constants = arguments.part(args, argument.argnums)
        differences.check_result(constants.close(f), arrays)
        options = make_options(argument, directions, tolerance, exhaustive, control, key)
        surveys = kept if _is_hashable(constants) else surveys_of
        survey = surveys(constants).at(argument, arrays, options.seed)
        own = survey.own
        if gradient is not None:
            given = _evaluate(gradient, args, argument)
        elif own.error is None:
            given = own.gradient
        else:
            raise own.error
        flat = argument.flatten_gradient(given)
        subject = Subject("gradient", flat, lambda draws, span: project(flat, draws, span))
        report = Run(survey, subject, options).report()
        if gradient is None:
            return report
        if own.error is not None:
            note = f"jax.grad has no gradient to compare with: {first_line(own.error)}"
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
    directions: int = 8,
    tolerance: float | None = None,
    exhaustive: bool = False,
    control: bool = False,
) -> Report:
    """Audits the gradient of ``f(*args)`` in ``args[argnums]``.

    The gradient is computed as its user computes it, in the dtype of the arguments. Its slopes
    along random directions of every leaf are compared with differences of ``f``, in float64 if
    ``f`` takes it. Where differences confirm `jax.grad` in float64, the gradient is also compared
    with that at every coordinate. JAX's configuration is left as it is found.

    Args:
      f: a function that JAX can trace, with a real scalar result.
      *args: its arguments; ``args[argnums]`` is a pytree of floating-point or complex arrays. In
        the others may be anything; what is neither an array nor a float is passed on as it is.
      gradient: the gradient, a pytree like ``args[argnums]``; or a function that is called as
        ``gradient(*args)`` and returns it; or None for ``jax.grad(f, argnums)``.
      argnums: which argument to differentiate in, or several.
      key: a key of `jax.random` that draws the directions; ``jax.random.key(0)`` by default.
      directions: how many random directions in every leaf; while a leaf is undecided, up to eight
        times as many.
      tolerance: the error, relative to the norm of a leaf's gradient, up to which it passes; by
        default 1e-5 in float64, 1e-3 in float32, 2e-2 in 16 bits.
      exhaustive: whether to measure every coordinate, and compare the gradient with that instead of
        `jax.grad`, once directions have confirmed it.
      control: whether to plant in every leaf that passes an error of the smallest size that the
        audit claims to see, and to see that it does.

    Returns:
      A `Report`. A leaf passes if its error is at most the tolerance, and fails if it is above,
      both but for a chance of 1e-6; it is inconclusive if the differences cannot tell.

    Raises:
      ValueError: a gradient whose structure or shapes differ from those of the argument; a result
        that is no scalar; arguments or a value that are empty or not finite; a tolerance that is
        not positive, below what the dtype resolves, or 1 or more; ``argnums`` out of range, or
        twice the same.
      TypeError: a gradient whose dtypes differ; arguments, options or a result of another kind;
        tracers, as inside of `jax.jit`.
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
    directions: int = 8,
    tolerance: float | None = None,
    exhaustive: bool = False,
    control: bool = False,
    key: jax.Array | None = None,
) -> Options:
    """Returns the options of an audit, once they make sense for the argument's dtypes."""
    if tolerance is not None and not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")
    if tolerance is not None and tolerance >= 1:
        raise ValueError(f"tolerance must be below 1, at which 0 passes, got {tolerance}")
    if not isinstance(directions, int | np.integer) or isinstance(directions, bool):
        raise TypeError(f"directions must be an integer, got {directions!r}")
    if directions < 1:
        raise ValueError(f"directions must be 1 or more, got {directions}")
    tolerances = tuple(
        _TOLERANCE[itemsize(leaf.dtype)] if tolerance is None else tolerance
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
