"""The error of a difference quotient against its step: the lecture's O(h) and O(h^2)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnet.gradcheck import arguments, differences, slopes
from jaxnet.gradcheck.audit import make_options
from jaxnet.gradcheck.measure import Measurement
from jaxnet.gradcheck.point import Compiled
from jaxnet.gradcheck.run import project
from jaxnet.gradcheck.slopes import quotient
from jaxnet.gradcheck.thresholds import THRESHOLDS

__all__ = ["Convergence", "Curve", "convergence"]


class Curve(NamedTuple):
    """The error of one scheme against the step, measured and modelled.

    The model is ``truncation * step**order + round_off / step``.

    Attributes:
      order: 1 forward, 2 central.
      errors: ``(steps,)`` measured relative errors.
      truncation: as in the model.
      round_off: as in the model.
      slope: power of the step by which the measured errors grow, where truncation dominates.
      best: step with the least measured error, smoothed over neighbours.
      predicted: step with the least error of the model.
    """

    order: int
    errors: np.ndarray
    truncation: float
    round_off: float
    slope: float
    best: float
    predicted: float


class Convergence(NamedTuple):
    """The errors of both schemes along random directions of a leaf.

    Attributes:
      path: name of the leaf.
      dtype: of the differences.
      steps: ``(steps,)`` relative to the leaf's scale.
      forward: error of ``(f(x + h) - f(x)) / h``.
      central: error of ``(f(x + h) - f(x - h)) / 2h``.
      chosen: the step that an audit uses, median of the directions.
    """

    path: str
    dtype: str
    steps: np.ndarray
    forward: Curve
    central: Curve
    chosen: float


def convergence(
    f: Callable[..., Any],
    *args: Any,
    argnums: int = 0,
    leaf: int = 0,
    key: jax.Array | None = None,
    directions: int = 8,
) -> Convergence:
    """Measures the error of both difference quotients at steps from 1 down to 1e-12.

    The slopes along random directions are compared with the gradient of `jax.grad` in float64; the
    error is the root mean square over the directions, relative to that of the slopes. The model has
    two terms: truncation from the second and third derivatives, estimated by differences with a
    coarse step, and round-off from the scatter of values (slide "But how do we figure out what's
    best?").

    Args:
      f: as in `check`, with a right gradient.
      *args: its arguments.
      argnums: which argument to differentiate.
      leaf: index of the leaf in ``jax.tree.leaves(args[argnums])``.
      key: draws the directions; by default ``jax.random.key(0)``.
      directions: count of directions.

    Raises:
      ValueError: as `check`.
      TypeError: as `check`.
      IndexError: a leaf that is not there.

    Example:
      >>> with jax.enable_x64(True):
      ...     found = convergence(lambda x: jax.numpy.sum(jax.numpy.exp(x)), np.linspace(0, 1, 9))
      >>> f"{found.forward.slope:.2f} {found.central.slope:.2f}"
      '1.00 2.00'
    """
    argument = arguments.examine(f, args, argnums)
    f, args = arguments.close(f, args, argument.argnums)
    differences.check_result(f, args)
    options = make_options(argument, directions=directions, key=key)
    name = argument.leaves[leaf]
    near_point = Measurement(Compiled(f, argnums), argument, args, options.seed)
    if near_point.own.error is not None:
        raise near_point.own.error
    right = near_point.gradient or argument.flatten_gradient(near_point.own.gradient)
    decades = THRESHOLDS.decades
    steps = 10.0 ** np.linspace(0, -decades, decades * THRESHOLDS.steps_per_decade + 1)
    whole = near_point.whole(leaf)
    widest = np.float64 if near_point.precise else np.float32
    spacing = float(np.finfo(widest).eps) ** THRESHOLDS.noise_spacing
    forward, central, second, third, noise, size = [], [], [], [], [], []
    chosen = []
    for number in range(directions):
        draws = near_point.draw(number)
        _, gauge = near_point.explore(draws, [leaf])[leaf]
        slope = project(right, draws, whole) * gauge.unit
        points = np.concatenate([steps, -steps, spacing * slopes.NOISE_POINTS])
        values = near_point.values(draws, [whole] * len(points), gauge.unit * points)
        above, below, near = np.split(values, [len(steps), 2 * len(steps)])
        here = near_point.value
        forward.append(quotient(above, here, steps, 0.0) - slope)
        central.append(quotient(above, below, steps, -steps) - slope)
        second.append(_at(steps, (above + below - 2 * here) / steps**2, gauge.step))
        # The truncation of a central difference at a step h is h^2/6 f'''.
        third.append(_third(steps, above, below, gauge.step))
        noise.append(slopes.noise(near))
        size.append(slope)
        chosen.append(gauge.step)
    scale = _rms(size)
    sigma = _rms(noise)
    curves = [
        _curve(1, steps, forward, _rms(second) / 2, np.sqrt(2) * sigma, scale),
        _curve(2, steps, central, _rms(third) / 6, sigma / np.sqrt(2), scale),
    ]
    dtype = "float64" if near_point.precise else str(name.dtype)
    return Convergence(name.path, dtype, steps, *curves, chosen=float(np.median(chosen)))


def _curve(order, steps, errors, truncation, round_off, scale) -> Curve:
    found = np.sqrt(np.mean(np.square(errors), axis=0)) / scale
    truncation, round_off = truncation / scale, round_off / scale
    # Least of (truncation h^order)^2 + (round_off / h)^2.
    predicted = (round_off / truncation / np.sqrt(order)) ** (1 / (order + 1))
    ruled = (steps > THRESHOLDS.ruled_from * predicted) & (steps < THRESHOLDS.ruled_to * predicted)
    ruled &= (steps < THRESHOLDS.ruled_below) & (found > 0)
    slope = np.polyfit(np.log(steps[ruled]), np.log(found[ruled]), 1)[0] if ruled.sum() > 2 else 0.0
    count = THRESHOLDS.smoothed
    tiny = np.finfo(np.float64).tiny  # the logarithm of 0 is not finite
    smooth = np.convolve(np.log(np.maximum(found, tiny)), np.ones(count) / count, mode="valid")
    best = steps[count // 2 : -(count // 2)][np.argmin(smooth)]
    return Curve(
        order,
        found,
        float(truncation),
        float(round_off),
        float(slope),
        float(best),
        float(predicted),
    )


def _third(steps, above, below, near) -> float:
    """Returns the third derivative, from central differences with two coarse steps."""
    central = quotient(above, below, steps, -steps)
    coarse = int(np.argmin(np.abs(np.log(steps / (THRESHOLDS.third_coarse * near)))))
    fine = int(np.argmin(np.abs(np.log(steps / (THRESHOLDS.third_fine * near)))))
    return 6 * (central[coarse] - central[fine]) / (steps[coarse] ** 2 - steps[fine] ** 2)


def _at(steps, values, step) -> float:
    return values[int(np.argmin(np.abs(np.log(steps / step))))]


def _rms(values) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
