"""A function's slope along a line, estimated from its values, with error bars.

Two errors limit a difference quotient: the function's curvature within the step (truncation) and
the rounding of its values (round-off). They are estimated separately: truncation from how estimates
change with the step, round-off from the scatter of values at steps so small that the curve cannot
matter.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxnet.gradcheck.thresholds import THRESHOLDS

__all__ = [
    "NOISE_POINTS",
    "Slopes",
    "around",
    "extrapolate",
    "ladder",
    "noise",
    "quotient",
]

_RATIO = THRESHOLDS.ratio

# Round-off is measured from nine values: Moré and Wild (SIAM J. Sci. Comput. 33, 2011). Differences
# of order 4 and above vanish for a smooth curve; for noise, the mean of their squares times
# (k!)^2 / (2k)! is its variance.
NOISE_POINTS = np.arange(-4.0, 5.0)
_NOISE_ORDERS = {4: 1 / 70, 5: 1 / 252, 6: 1 / 924}


class Slopes(NamedTuple):
    """Slopes along several lines, and bounds of their errors; ``(lines,)`` float64 each.

    Attributes:
      value: the estimate.
      truncation: bound of the error that comes from the curve within the step.
      round_off: bound of the error that comes from rounding in the values.
      doubt: a wider bound: truncation and round-off times a safety factor of 3 or, if that is more,
        what finer steps do not exclude. A gradient fails only if it is off by more.
      step: the finest step in the estimate.
      jump: difference of the slopes on the two sides of the point, where there is a kink; else 0.
    """

    value: np.ndarray
    truncation: np.ndarray
    round_off: np.ndarray
    doubt: np.ndarray
    step: np.ndarray
    jump: np.ndarray

    @property
    def bar(self) -> np.ndarray:
        """Bound of the whole error. At a kink, any slope between those of the sides is right."""
        return self.systematic + self.round_off

    @property
    def systematic(self) -> np.ndarray:
        """The part of `bar` that may depend on the direction; round-off does not."""
        return self.truncation + self.jump


def quotient(upper: Any, lower: Any, above: Any, below: Any) -> Any:
    """Returns the difference quotient ``(f(above) - f(below)) / (above - below)``.

    The one finite difference of the package; all others choose where to take it. It divides by the
    distance of the points, not by the step that was meant, and so allows for their rounding.

    Args:
      upper: values at ``above``; arrays of NumPy or JAX.
      lower: values at ``below``.
      above: points.
      below: points.

    Returns:
      An array of the values' dtype.

    Example:
      >>> float(quotient(2.0**2, 1.0**2, 2.0, 1.0))
      3.0
    """
    change, distance = upper - lower, above - below
    return change / (distance.astype(change.dtype) if hasattr(distance, "astype") else distance)


def ladder(scale: float, epsilon: float) -> np.ndarray:
    """Returns the steps to try, from coarse to fine, relative to a leaf's scale.

    The function may vary on the scale of its argument or on the scale of 1, so the steps reach from
    four times the larger to about ``sqrt(epsilon)`` of the smaller. At finer steps, rounding
    exceeds the change.

    Args:
      scale: the leaf's root mean square.
      epsilon: relative spacing of floating-point numbers.

    Example:
      >>> ladder(1.0, 2.0**-52)[[0, 1, -1]].tolist()
      [4.0, 1.0, 3.725290298461914e-09]
    """
    limit = THRESHOLDS.ladder_scales
    one = np.clip(np.round(np.log(1 / scale) / np.log(_RATIO)), -limit, limit)
    fine = round(THRESHOLDS.ladder_end * np.log(1 / epsilon) / np.log(_RATIO))
    return _RATIO ** np.arange(max(0.0, one) + 1, min(0.0, one) - fine - 1, -1)


def around(step: float, finest: float) -> np.ndarray:
    """Returns four steps around one that is known to be good, none finer than ``finest``.

    Example:
      >>> around(1.0, 1e-8).tolist()
      [16.0, 4.0, 1.0, 0.25]
    """
    return max(step / _RATIO, finest) * _RATIO ** np.arange(3.0, -1.0, -1)


def noise(values: np.ndarray) -> float:
    """Returns the standard deviation of the round-off in nine values at `NOISE_POINTS`.

    Example:
      >>> noise(NOISE_POINTS**3)  # smooth
      0.0
    """
    if not np.isfinite(values).all():
        return float("inf")
    return max(
        float(np.sqrt(factor * np.mean(np.diff(values, order) ** 2)))
        for order, factor in _NOISE_ORDERS.items()
    )


def is_contradicted(found: Slopes, values: np.ndarray, spacing: float, epsilon: float) -> bool:
    """Returns whether the values nearest to the point have another slope than the estimate.

    So it is where a function oscillates faster than the finest step, which otherwise looks like
    noise. For a staircase, the nearest values say nothing: most are equal.

    Args:
      found: one slope.
      values: ``(9,)`` at `NOISE_POINTS` times the spacing.
      spacing: distance of neighbouring points.
      epsilon: relative spacing of the values' dtype.
    """
    if len(np.unique(values)) < len(values) / 2 or not np.isfinite(values).all():
        return False
    near = (values[-1] - values[0]) / (8 * spacing)
    middle = (values[-3] - values[2]) / (4 * spacing)
    rounding = THRESHOLDS.noise_factor * noise(values) + epsilon * np.max(np.abs(values))
    bar = np.abs(near - middle) + rounding / spacing
    return bool(np.abs(near - found.value[0]) > THRESHOLDS.contradiction * bar + found.bar[0])


def is_all_noise(
    noise: np.ndarray, above: np.ndarray, below: np.ndarray, epsilon: float, share: float
) -> bool:
    """Returns whether noise exceeds a share of the largest change of the function at any step.

    Then what looks like noise may be the function itself: if it jumps within the finest step, its
    differences never converge, as those of noise do not. A constant, which changes by rounding
    alone, does not count.

    Args:
      noise: ``(1, steps)`` standard deviations.
      above: ``(1, steps)`` values, as in `extrapolate`.
      below: ``(1, steps)`` values, as in `extrapolate`.
      epsilon: relative spacing of the values' dtype.
      share: of the largest change.
    """
    finite = np.isfinite(above) & np.isfinite(below)
    above, below = np.where(finite, above, 0.0), np.where(finite, below, 0.0)
    change, size = np.max(np.abs(above - below)), np.max(np.maximum(np.abs(above), np.abs(below)))
    is_more_than_rounding = change > THRESHOLDS.few_digits * epsilon * size
    # At coarse steps, what counts as noise may be the curve: hence the least.
    return bool(is_more_than_rounding and THRESHOLDS.noise_factor * np.min(noise) > share * change)


def scatter(steps: np.ndarray, above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Returns the round-off in a value, estimated from central differences at finer steps.

    `noise` does not see a staircase whose treads are wider than the spacing of its points (float32
    somewhere inside a float64 function). Central differences of a smooth function converge; those
    of a noisy one keep changing, by the noise divided by the step.

    Args:
      steps: ``(lines, steps)``, as in `extrapolate`.
      above: ``(lines, steps)`` values at ``+step``.
      below: ``(lines, steps)`` values at ``-step``.

    Returns:
      ``(lines, steps)`` standard deviations, for each step from the steps finer than the next.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        change = np.abs(np.diff(quotient(above, below, steps, -steps), axis=1)) * steps[:, 1:]
    change = np.where(np.isfinite(change), change, 0.0)
    from_here_on = np.maximum.accumulate(change[:, ::-1], axis=1)[:, ::-1]
    last = change.shape[1] - 1
    beyond = np.minimum(np.arange(steps.shape[1]) + 1, max(last - 2, 0))
    return from_here_on[:, beyond] / THRESHOLDS.noise_factor


def extrapolate(
    steps: np.ndarray,
    above: np.ndarray,
    below: np.ndarray,
    here: float,
    noise: np.ndarray,
    epsilon: float,
    narrowest: float = 2.0**-52,
) -> Slopes:
    """Estimates slopes from values on both sides of a point.

    Central differences are extrapolated to a step of 0 (Richardson; Ridders, Adv. Eng. Softw. 4,
    1982). Of the entries of the tableau that no finer step contradicts, the result is the one whose
    truncation and round-off together are least. (A curve that is sampled too coarsely may look
    smooth; only finer steps show that it is not.)

    Args:
      steps: ``(lines, steps)``, each a quarter of the one before.
      above: ``(lines, steps)`` values at ``+step``.
      below: ``(lines, steps)`` values at ``-step``.
      here: the value at the point.
      noise: ``(lines, steps)`` or ``(lines, 1)``, standard deviation of the round-off in a value.
      epsilon: relative spacing of the values' dtype.
      narrowest: relative spacing of the narrowest dtype that the values pass through. Below
        float64, finer steps that could contradict an estimate are missing.

    Returns:
      `Slopes`, one for each line.

    Example:
      >>> steps = ladder(1.0, 2.0**-52)[None]
      >>> found = extrapolate(steps, np.exp(steps), np.exp(-steps), 1.0, np.zeros((1, 1)), 2.0**-52)
      >>> bool(abs(found.value[0] - 1) < found.bar[0] < 1e-10)
      True
    """
    with np.errstate(invalid="ignore", over="ignore"):
        central = quotient(above, below, steps, -steps)
        size = np.maximum(np.abs(above), np.abs(below))
        round_off = (THRESHOLDS.noise_factor * noise + epsilon * size) / steps
        second = (above + below - 2 * here) / steps  # slope above less slope below
        spread = _spread((above - here) / steps, (here - below) / steps)
    unusable = ~np.isfinite(central) | ~np.isfinite(round_off)
    second = np.where(unusable, 0.0, second)
    kinks = second, np.where(unusable, np.inf, 2 * round_off)
    is_narrow = narrowest > THRESHOLDS.narrow_dtype
    least = THRESHOLDS.narrow_growth if is_narrow else THRESHOLDS.wide_growth
    unusable |= _too_wide(*kinks, least=least)
    central = np.where(unusable, 0.0, central)
    round_off = np.where(unusable, np.inf, round_off)

    # If only the coarser step crosses a kink, the change is that step's error, not this one's.
    spread[:, 1:][np.isinf(round_off[:, :-1])] = np.inf
    change = np.minimum(_change(central, round_off), spread)
    values, truncations, round_offs = [central], [change], [round_off]
    for order in range(1, THRESHOLDS.orders + 1):
        weight = 1 / (_RATIO ** (2 * order) - 1)
        coarse, fine = values[-1][:, :-1], values[-1][:, 1:]
        correction = weight * (fine - coarse)
        values.append(_pad(fine + correction, 0.0))
        truncations.append(_pad(THRESHOLDS.correction_factor * np.abs(correction), np.inf))
        rounding = round_offs[-1][:, 1:] * (1 + weight) + weight * round_offs[-1][:, :-1]
        round_offs.append(_pad(rounding, np.inf))
    value, truncation, rounding = map(np.stack, (values, truncations, round_offs))
    # (orders, lines, steps); against every finer step, (orders, lines, steps, finer)
    bar = truncation + rounding
    with np.errstate(invalid="ignore"):
        apart = np.abs(value[..., None] - central[None, :, None, :])
        allowed = bar[..., None] + (change + round_off)[None, :, None, :]
    places = np.arange(steps.shape[1])
    finer = places[None, :] > places[:, None]
    contradicted = np.any(finer & (apart > allowed), axis=-1)
    # Coarse steps may agree on a wrong slope: before failing a gradient, allow for what the finer
    # steps do not exclude.
    finer[-1, -1] = True  # the finest step is compared with itself
    if narrowest > THRESHOLDS.coarse_dtype:  # in 16 bits, wide steps seldom measure a slope
        finer = finer & (steps[:, None, :] <= THRESHOLDS.coarse_step)
    open_to = np.min(np.where(finer, apart + round_off[None, :, None, :], np.inf), axis=-1)
    # An extrapolation is affected by the kinks within its coarsest step.
    kinked = _jump(*kinks)
    jump = np.stack(
        [
            np.pad(kinked, ((0, 0), (k, 0)), "edge")[:, : len(places)]
            for k in range(THRESHOLDS.orders + 1)
        ]
    )
    systematic = truncation + np.where(np.isinf(jump), 0.0, jump)  # finer steps may avoid a kink
    cost = np.where(contradicted, np.inf, THRESHOLDS.systematic_weight * systematic + rounding)

    flat = np.moveaxis(cost, 1, 0).reshape(len(central), -1)
    order, at = np.divmod(np.argmin(flat, axis=1), len(places))
    line = np.arange(len(central))
    seen = np.isfinite(flat[line, order * len(places) + at])
    pick = (order, line, at)
    return Slopes(
        np.where(seen, value[pick], 0.0),
        np.where(seen, truncation[pick], np.inf),
        np.where(seen, rounding[pick], np.inf),
        np.maximum.reduce(
            [THRESHOLDS.fail_margin * bar[pick], open_to[pick], _drowned(above, below, epsilon)]
        ),
        steps[line, at],
        jump[pick],
    )


def _drowned(above: np.ndarray, below: np.ndarray, epsilon: float) -> np.ndarray:
    """Returns the slopes that rounding may hide, where values change in their last digits only.

    The function may then oscillate within a step; all that is known is that its changes are small
    compared with its value. 0 elsewhere.
    """
    finite = np.isfinite(above) & np.isfinite(below)
    above, below = np.where(finite, above, 0.0), np.where(finite, below, 0.0)
    few_digits = (
        THRESHOLDS.few_digits * epsilon * np.max(np.maximum(np.abs(above), np.abs(below)), axis=1)
    )
    change = np.max(np.abs(above - below), axis=1)
    return np.where((change > 0) & (change <= few_digits), few_digits, 0.0)


def _too_wide(second: np.ndarray, round_off: np.ndarray, least: float) -> np.ndarray:
    """Returns which steps are too wide: the function has turned within them.

    From a step to the next wider one, the even part of a smooth function grows by 16, ``second``
    (the even part divided by the step) by 4, and at a kink by 1. If it grows by less than
    ``least``, both sides may have saturated, which looks like a slope of 0.
    """
    with np.errstate(invalid="ignore"):
        limit = least * np.abs(second[:, 1:]) - THRESHOLDS.growth_noise * round_off[:, 1:]
        turned = np.abs(second[:, :-1]) < limit
    turned = np.pad(turned, ((0, 0), (0, 1)))
    return np.maximum.accumulate(turned[:, ::-1], axis=1)[:, ::-1]


def _change(central: np.ndarray, round_off: np.ndarray) -> np.ndarray:
    # The error of a central difference falls by 16 from step to step: the change from the coarser
    # step bounds it amply. The coarsest step has nothing to compare with.
    change = np.abs(np.diff(central, axis=1))
    change[np.isinf(round_off[:, :-1])] = np.inf
    return _pad(change, np.inf)


def _spread(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Returns the range of three slopes: of both sides, and of one side with a coarser step.

    For a smooth curve the range is at least the error of the central difference. It is 0 where the
    function is straight up to a kink that only the coarser step crosses, on the other side.

    Args:
      above: ``(lines, steps)`` slopes from the point to above it.
      below: ``(lines, steps)`` slopes from below the point to it.
    """
    highest, lowest = np.maximum(above, below)[:, 1:], np.minimum(above, below)[:, 1:]
    with np.errstate(invalid="ignore"):
        spreads = [
            np.maximum(highest, coarse) - np.minimum(lowest, coarse)
            for coarse in (above[:, :-1], below[:, :-1])
        ]
    spread = np.fmin(*spreads)
    return _pad(np.where(np.isnan(spread), np.inf, spread), np.inf)


def _pad(array: np.ndarray, value: float) -> np.ndarray:
    return np.pad(array, ((0, 0), (1, 0)), constant_values=value)


def _jump(second: np.ndarray, round_off: np.ndarray) -> np.ndarray:
    """Returns the difference of the one-sided slopes where it does not vanish with the step.

    For a smooth function the difference is proportional to the step, and its extrapolation to 0
    falls by 64 from step to step. At a kink it stays, even if it is small beside the curvature.

    Returns:
      ``(lines, steps)``: the kink seen with a step and the next finer one, or with finer ones.
    """
    coarse, fine = second[:, :-1], second[:, 1:]
    signed = (_RATIO * fine - coarse) / (_RATIO - 1)
    before = np.pad(signed[:, :-1], ((0, 0), (1, 0)), constant_values=np.inf)
    limit = np.abs(signed)
    with np.errstate(invalid="ignore"):
        blur = (_RATIO * round_off[:, 1:] + round_off[:, :-1]) / (_RATIO - 1)
        kink = limit > THRESHOLDS.kink_share * np.abs(fine)
        kink &= np.abs(fine) > THRESHOLDS.kink_noise * round_off[:, 1:]
        # If the coarser step alone crosses the kink, the sign changes.
        lasting = signed * np.sign(before) > THRESHOLDS.lasting_share * np.abs(before)
        lasting &= limit > THRESHOLDS.kink_noise * blur
        grows = kink & (np.abs(fine) > THRESHOLDS.pole_growth * np.abs(coarse))
    jump = np.where(kink, np.maximum(limit, np.abs(fine)), np.where(lasting, limit, 0.0))
    jump = np.maximum.accumulate(jump[:, ::-1], axis=1)[:, ::-1]
    jump = np.concatenate([jump, jump[:, -1:]], axis=1)
    # What grows with every finer step has no limit: a pole, or a cusp.
    return np.where((grows[:, -1] & grows[:, -2])[:, None], np.inf, jump)
