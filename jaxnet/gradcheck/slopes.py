"""The slope of a function along a line, from its values, with what it may be off by.

Two errors limit a difference quotient: the curve within the step (truncation) and the last digits
of the values (round-off). Both are estimated here, apart: truncation from how estimates change with
the step, round-off from how the values scatter within steps so small that nothing else can change
them.
"""

from typing import NamedTuple

import numpy as np

RATIO = 4.0  # between neighbouring steps
_ORDERS = 2  # of Richardson's extrapolation beyond the central difference

# Round-off averages out over directions, and truncation does not: it counts for more.
_SYSTEMATIC = 4.0

# The bars are estimates, and to allege an error takes more than to doubt a gradient.
_BENEFIT_OF_DOUBT = 3.0

# The scatter is taken from nine values: Moré and Wild (SIAM J. Sci. Comput. 33, 2011). Differences
# of the fourth order and above leave nothing of a smooth curve.
NOISE_POINTS = np.arange(-4.0, 5.0)
_NOISE_ORDERS = {4: 1 / 70, 5: 1 / 252, 6: 1 / 924}  # (k!)^2 / (2k)!
_NOISE_FACTOR = 3.0  # standard deviations that a value may be off by


class Slopes(NamedTuple):
    """Estimates of slopes, ``(lines,)`` float64 each.

    Attributes:
      value: the estimate.
      truncation: by which the curve within the step may have shifted it.
      round_off: by which the last digits of the values may have shifted it.
      doubt: by which it may be off at worst.
      step: the finest that the estimate uses.
      jump: by how much the slope differs between the two sides of the point: a kink; else 0.
    """

    value: np.ndarray
    truncation: np.ndarray
    round_off: np.ndarray
    doubt: np.ndarray
    step: np.ndarray
    jump: np.ndarray

    @property
    def bar(self) -> np.ndarray:
        """What the estimate may be off by in all; between the slopes beside a kink, any will do."""
        return self.systematic + self.round_off

    @property
    def systematic(self) -> np.ndarray:
        """The part of `bar` that may follow the direction, as round-off does not."""
        return self.truncation + self.jump


def ladder(scale: float, epsilon: float) -> np.ndarray:
    """Returns the steps to try, coarse to fine, relative to a leaf's scale.

    A function may change on the scale of its argument or on that of 1, and nothing tells which, so
    the steps reach from four times the larger to about ``sqrt(epsilon)`` of the smaller: finer ones
    than that are lost in rounding, or stay within it.

    Args:
      scale: of the leaf.
      epsilon: relative spacing of numbers.
    """
    one = np.clip(np.round(np.log(1 / scale) / np.log(RATIO)), -24, 24)
    fine = round(0.54 * np.log(1 / epsilon) / np.log(RATIO))
    return RATIO ** np.arange(max(0.0, one) + 1, min(0.0, one) - fine - 1, -1)


def around(step: float, finest: float) -> np.ndarray:
    """Returns four steps for a function that is known to be measured well with this one."""
    return max(step / RATIO, finest) * RATIO ** np.arange(3.0, -1.0, -1)


def noise(values: np.ndarray) -> float:
    """Returns the standard deviation of the round-off in nine values at `NOISE_POINTS`."""
    if not np.isfinite(values).all():
        return float("inf")
    return max(
        float(np.sqrt(factor * np.mean(np.diff(values, order) ** 2)))
        for order, factor in _NOISE_ORDERS.items()
    )


def is_contradicted(found: Slopes, values: np.ndarray, spacing: float, epsilon: float) -> bool:
    """Whether the values next to a point follow another slope than the one found with wider steps.

    They do where a function turns faster than the finest step: its turns look like noise there. A
    staircase is no evidence, as it is level but for its steps.

    Args:
      found: one slope.
      values: ``(9,)`` at `NOISE_POINTS` times the spacing.
      spacing: of the points.
      epsilon: relative spacing of the values' dtype.
    """
    if len(np.unique(values)) < len(values) / 2 or not np.isfinite(values).all():
        return False
    near = (values[-1] - values[0]) / (8 * spacing)
    middle = (values[-3] - values[2]) / (4 * spacing)
    rounding = _NOISE_FACTOR * noise(values) + epsilon * np.max(np.abs(values))
    bar = np.abs(near - middle) + rounding / spacing
    return bool(np.abs(near - found.value[0]) > 3 * bar + found.bar[0])


def is_all_noise(
    noise: np.ndarray, above: np.ndarray, below: np.ndarray, epsilon: float, share: float
) -> bool:
    """Whether noise is more than a share of what a function changes by with any step.

    Then what looks like noise may be the function: one that jumps within the finest step has
    differences that never settle, as those of noise do not. A constant is left out, whose changes
    are but rounding.

    Args:
      noise: ``(1, steps)``.
      above: ``(1, steps)`` values, as in `extrapolate`.
      below: ``(1, steps)`` likewise.
      epsilon: relative spacing of the values' dtype.
      share: of the largest change.
    """
    finite = np.isfinite(above) & np.isfinite(below)
    above, below = np.where(finite, above, 0.0), np.where(finite, below, 0.0)
    change, size = np.max(np.abs(above - below)), np.max(np.maximum(np.abs(above), np.abs(below)))
    # At coarser steps, what is taken for noise may be the curve.
    return bool(change > 100 * epsilon * size and _NOISE_FACTOR * np.min(noise) > share * change)


def scatter(steps: np.ndarray, above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Returns what central differences with finer steps betray of the round-off in a value.

    `noise` cannot see a function that is a staircase on a finer scale than its steps (float32
    somewhere inside). Differences of a smooth function settle, and those of a noisy one go on
    changing, by the noise over the step.

    Args:
      steps: ``(lines, steps)``; ``above`` and ``below`` likewise, as in `extrapolate`.

    Returns:
      ``(lines, steps)`` deviations of a value, for every step from those finer than the next.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        change = np.abs(np.diff((above - below) / (2 * steps), axis=1)) * steps[:, 1:]
    change = np.where(np.isfinite(change), change, 0.0)
    from_here_on = np.maximum.accumulate(change[:, ::-1], axis=1)[:, ::-1]
    last = change.shape[1] - 1
    beyond = np.minimum(np.arange(steps.shape[1]) + 1, max(last - 2, 0))
    return from_here_on[:, beyond] / _NOISE_FACTOR


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
    1982). Of all entries of the tableau, the one is taken whose truncation and round-off are least
    together among those that no finer step contradicts: a curve that is sampled too coarsely may
    look smooth.

    Args:
      steps: ``(lines, steps)``, each line falling by `RATIO`.
      above: ``(lines, steps)`` values at ``+step``.
      below: ``(lines, steps)`` values at ``-step``.
      here: the value at the point.
      noise: ``(lines, steps)``, or ``(lines, 1)``, standard deviation of the round-off in a value.
      epsilon: relative spacing of the values' dtype.
      narrowest: relative spacing of the narrowest dtype on the way to the values. Where it is that
        of less than float64, no finer steps are there to contradict.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        central = (above - below) / (2 * steps)
        size = np.maximum(np.abs(above), np.abs(below))
        round_off = (_NOISE_FACTOR * noise + epsilon * size) / steps
        second = (above + below - 2 * here) / steps  # slope above less slope below
        spread = _spread((above - here) / steps, (here - below) / steps)
    unusable = ~np.isfinite(central) | ~np.isfinite(round_off)
    second = np.where(unusable, 0.0, second)
    kinks = second, np.where(unusable, np.inf, 2 * round_off)
    unusable |= _too_wide(*kinks, least=2.0 if narrowest > 1e-15 else 0.7)
    central = np.where(unusable, 0.0, central)
    round_off = np.where(unusable, np.inf, round_off)

    # Where a coarser step has crossed a kink, the change is that step's error, not this one's.
    spread[:, 1:][np.isinf(round_off[:, :-1])] = np.inf
    change = np.minimum(_change(central, round_off), spread)
    values, truncations, round_offs = [central], [change], [round_off]
    for order in range(1, _ORDERS + 1):
        weight = 1 / (RATIO ** (2 * order) - 1)
        coarse, fine = values[-1][:, :-1], values[-1][:, 1:]
        correction = weight * (fine - coarse)
        values.append(_pad(fine + correction, 0.0))
        truncations.append(_pad(2 * np.abs(correction), np.inf))
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
    # Steps too wide for the curve may agree with each other all the same: what a finer step leaves
    # open is left open when an error is to be alleged.
    finer[-1, -1] = True  # there is none
    if narrowest > 1e-4:  # of 16 bits, what is measured with wide steps is seldom a slope
        finer = finer & (steps[:, None, :] <= 0.25)
    open_to = np.min(np.where(finer, apart + round_off[None, :, None, :], np.inf), axis=-1)
    # An extrapolation sees the kinks that its coarsest step does.
    kinked = _jump(*kinks)
    jump = np.stack(
        [np.pad(kinked, ((0, 0), (k, 0)), "edge")[:, : len(places)] for k in range(_ORDERS + 1)]
    )
    systematic = truncation + np.where(np.isinf(jump), 0.0, jump)  # finer steps may escape a kink
    cost = np.where(contradicted, np.inf, _SYSTEMATIC * systematic + rounding)

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
            [_BENEFIT_OF_DOUBT * bar[pick], open_to[pick], _drowned(above, below, epsilon)]
        ),
        steps[line, at],
        jump[pick],
    )


def _drowned(above: np.ndarray, below: np.ndarray, epsilon: float) -> np.ndarray:
    """Returns which slopes may be there unseen, where values change by a few last digits at most.

    They may turn as often as they like within a step, and all that one can tell is that they are
    small beside the value.
    """
    finite = np.isfinite(above) & np.isfinite(below)
    above, below = np.where(finite, above, 0.0), np.where(finite, below, 0.0)
    few_digits = 100 * epsilon * np.max(np.maximum(np.abs(above), np.abs(below)), axis=1)
    change = np.max(np.abs(above - below), axis=1)
    return np.where((change > 0) & (change <= few_digits), few_digits, 0.0)


def _too_wide(second: np.ndarray, round_off: np.ndarray, least: float) -> np.ndarray:
    """Returns which steps are so wide that the curve has turned within them.

    The even part of a function grows by 16 from a step to the next wider one, ``second`` by 4, and
    beside a kink by 1. Where it grows by less than the least, both sides may be level already, and
    look like a slope of 0.
    """
    with np.errstate(invalid="ignore"):
        limit = least * np.abs(second[:, 1:]) - 4 * round_off[:, 1:]
        turned = np.abs(second[:, :-1]) < limit
    turned = np.pad(turned, ((0, 0), (0, 1)))
    return np.maximum.accumulate(turned[:, ::-1], axis=1)[:, ::-1]


def _change(central: np.ndarray, round_off: np.ndarray) -> np.ndarray:
    # The error of a central difference falls by 16 from step to step, so that the change since
    # the coarser one is an ample bound for it; the coarsest has nothing to compare with.
    change = np.abs(np.diff(central, axis=1))
    change[np.isinf(round_off[:, :-1])] = np.inf
    return _pad(change, np.inf)


def _spread(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Returns how far apart the slopes of both sides and that of a coarser step on one side are.

    For a smooth curve they are at least as far apart as a central difference is off. They coincide
    where it is straight up to a kink that the coarser step crosses on its other side.

    Args:
      above: ``(lines, steps)`` one-sided slopes.
      below: likewise.
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
    """Returns the one-sided slopes' difference where it does not vanish with the step.

    For a smooth function it is proportional to the step, and what is extrapolated to 0 falls by 64
    from step to step. Beside a kink that lasts, even where it is small beside the curvature.

    Returns:
      ``(lines, steps)``: what is seen of a kink with a step and the next finer, or with finer ones.
    """
    coarse, fine = second[:, :-1], second[:, 1:]
    signed = (RATIO * fine - coarse) / (RATIO - 1)
    before = np.pad(signed[:, :-1], ((0, 0), (1, 0)), constant_values=np.inf)
    limit = np.abs(signed)
    with np.errstate(invalid="ignore"):
        blur = (RATIO * round_off[:, 1:] + round_off[:, :-1]) / (RATIO - 1)
        kink = (limit > np.abs(fine) / 2) & (np.abs(fine) > 8 * round_off[:, 1:])
        # Where the coarser step alone has crossed it, the sign changes.
        lasting = (signed * np.sign(before) > np.abs(before) / 8) & (limit > 8 * blur)
        grows = kink & (np.abs(fine) > 1.5 * np.abs(coarse))
    jump = np.where(kink, np.maximum(limit, np.abs(fine)), np.where(lasting, limit, 0.0))
    jump = np.maximum.accumulate(jump[:, ::-1], axis=1)[:, ::-1]
    jump = np.concatenate([jump, jump[:, -1:]], axis=1)
    # One that grows with every finer step has no limit here: a pole, or a cusp.
    return np.where((grows[:, -1] & grows[:, -2])[:, None], np.inf, jump)
