"""How the error of a difference quotient depends on its step: the lecture's O(h) and O(h^2)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnet.gradcheck import arguments, differences, slopes
from jaxnet.gradcheck.audit import make_options
from jaxnet.gradcheck.reference import Programs, Reference, Span
from jaxnet.gradcheck.run import project


class Curve(NamedTuple):
    """The error of one scheme over the step, and what the model of errors says of it.

    Attributes:
      order: power of the step by which truncation grows: 1 forward, 2 central.
      errors: ``(steps,)`` measured, relative.
      truncation: factor of ``step**order`` in the model.
      round_off: factor of ``1 / step`` in the model.
      slope: of the measured errors where the model says that truncation rules.
      best: step with the least measured error, over neighbours.
      predicted: step with the least error according to the model.
    """

    order: int
    errors: np.ndarray
    truncation: float
    round_off: float
    slope: float
    best: float
    predicted: float


class Convergence(NamedTuple):
    """Both schemes along random directions of a leaf.

    Attributes:
      path: of the leaf.
      dtype: in which differences were taken.
      steps: ``(steps,)`` relative to the leaf's scale.
      forward: error of ``(f(x + h) - f(x)) / h``.
      central: error of ``(f(x + h) - f(x - h)) / 2h``.
      chosen: step that an audit uses.
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
    """Measures the error of both difference quotients over steps from 1 down to 1e-12.

    Errors are those of slopes along random directions, against the gradient of `jax.grad` in
    float64; their mean square over the directions, relative to that of the slopes. The model has
    two terms: truncation from the second and third derivatives, themselves by differences with one
    coarse step, and round-off from the scatter of values (slide "But how do we figure out what's
    best?").

    Args:
      f: as in `check`, with a right gradient.
      *args: its arguments.
      argnums: which argument to differentiate in.
      leaf: index of the leaf in ``jax.tree.leaves(args[argnums])``.
      key: draws the directions.
      directions: how many.

    Raises:
      As `check`; and IndexError for a leaf that is not there.
    """
    argument = arguments.examine(f, args, argnums)
    f, args = arguments.close(f, args, argument.argnums)
    differences.check_result(f, args)
    seed = make_options(argument, key=key).seed
    name = argument.leaves[leaf]
    programs = Programs(f, argnums)
    own = programs.evaluate(args)
    if own.error is not None:
        raise own.error
    reference = Reference(programs, argument, args, own)
    right = reference.gradient or argument.flatten_gradient(own.gradient)
    steps = 10.0 ** np.linspace(0, -12, 73)
    whole = Span(leaf, 0, name.size)
    forward, central, second, third, noise, size = [], [], [], [], [], []
    chosen = []
    for number in range(directions):
        draws = reference.draw((*seed, number))
        _, gauge = reference.explore(draws, [leaf])[leaf]
        slope = project(right, draws, whole) * gauge.unit
        spacing = float(np.finfo(np.float64 if reference.precise else np.float32).eps) ** 0.6
        points = np.concatenate([steps, -steps, spacing * slopes.NOISE_POINTS])
        values = reference.values(draws, [whole] * len(points), gauge.unit * points)
        above, below, near = np.split(values, [len(steps), 2 * len(steps)])
        forward.append((above - reference.value) / steps - slope)
        central.append((above - below) / (2 * steps) - slope)
        second.append(_at(steps, (above + below - 2 * reference.value) / steps**2, gauge.step))
        # What is left of a central difference at a step h is h^2/6 f'''.
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
    dtype = "float64" if reference.precise else str(name.dtype)
    return Convergence(name.path, dtype, steps, *curves, chosen=float(np.median(chosen)))


def _curve(order, steps, errors, truncation, round_off, scale) -> Curve:
    found = np.sqrt(np.mean(np.square(errors), axis=0)) / scale
    truncation, round_off = truncation / scale, round_off / scale
    # Least of (truncation h^order)^2 + (round_off / h)^2.
    predicted = (round_off / truncation / np.sqrt(order)) ** (1 / (order + 1))
    # From ten times the best step, where round-off is a hundredth, to where the next order counts.
    ruled = (steps > 10 * predicted) & (steps < 300 * predicted) & (steps < 0.03) & (found > 0)
    slope = np.polyfit(np.log(steps[ruled]), np.log(found[ruled]), 1)[0] if ruled.sum() > 2 else 0.0
    # Near the bottom, errors scatter: the best step is that of the least geometric mean of five.
    smooth = np.convolve(np.log(np.maximum(found, 1e-300)), np.ones(5) / 5, mode="valid")
    best = steps[2:-2][np.argmin(smooth)]
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
    """Returns the third derivative from central differences with two coarse steps."""
    central = (above - below) / (2 * steps)
    coarse = int(np.argmin(np.abs(np.log(steps / (16 * near)))))
    fine = int(np.argmin(np.abs(np.log(steps / (4 * near)))))
    return 6 * (central[coarse] - central[fine]) / (steps[coarse] ** 2 - steps[fine] ** 2)


def _at(steps, values, step) -> float:
    return values[int(np.argmin(np.abs(np.log(steps / step))))]


def _rms(values) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
