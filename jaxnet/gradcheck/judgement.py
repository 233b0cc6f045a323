"""From slopes to a verdict: how large is the error of a gradient, and how certain is that?

Let z be a direction of independent standard normal numbers, and e the error of a gradient. Then
<e, z> is normal with standard deviation |e|, whether e is spread over a million coordinates or sits
in one. The sum of k such squares, over |e|^2, is chi-squared with k degrees of freedom; its
quantiles turn k measured numbers into an interval for |e|.

The measured numbers have errors of their own. Systematic errors may hide an error of the gradient,
so they widen the interval upwards. Round-off is independent of the direction, and adding something
independent to a normal number makes small sizes rarer (Anderson, Proc. Am. Math. Soc. 6, 1955): it
hides nothing. Both may look like an error of the gradient, so a bound of both is subtracted before
a gradient fails.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import special

__all__ = [
    "FAIL",
    "INCONCLUSIVE",
    "PASS",
    "Evidence",
    "Interval",
    "Judgement",
    "interval",
    "judge",
    "norm_of",
]

PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"


class Interval(NamedTuple):
    """Bounds of the norm of an error."""

    low: float
    high: float


class Evidence(NamedTuple):
    """Measurements of one leaf: slopes along k directions, and bounds of their errors.

    Attributes:
      given: ``(k,)`` slopes of the gradient under audit.
      numerical: ``(k,)`` slopes by differences.
      bars: ``(k,)`` error bars of ``numerical``: estimated bounds.
      doubts: ``(k,)`` wider bounds, used before a gradient fails; see `Slopes.doubt`.
      systematic: ``(k,)`` the part of the bars that may depend on the direction.
      anchor: ``(k,)`` slopes of the anchor: the gradient of `jax.grad` in the dtype of the
        differences. None if there is none.
      distance: norm of the given gradient minus the anchor.
      given_norm: norm of the given gradient; NaN if only its slopes are known.
      anchor_norm: norm of the anchor.
      exact: whether the directions are the coordinates, all of them.
    """

    given: np.ndarray
    numerical: np.ndarray
    bars: np.ndarray
    doubts: np.ndarray
    systematic: np.ndarray
    anchor: np.ndarray | None
    distance: float
    given_norm: float
    anchor_norm: float
    exact: bool


class Judgement(NamedTuple):
    """A verdict and its reasons; errors are relative to ``norm``.

    Attributes:
      verdict: ``"pass"``, ``"fail"`` or ``"inconclusive"``.
      norm: of the right gradient, as far as it is known.
      error: estimate of the gradient's error.
      interval: bounds of the error, each with a chance ``miss`` (see `judge`) of being exceeded.
      bar: error bar of the differences themselves.
      miss: probability that an error above the tolerance would have measured as small as this.
      sees: detection limit: a further error of this size or more would have failed.
      is_anchored: whether the differences confirm the anchor, so that every coordinate of the right
        gradient is known.
    """

    verdict: str
    norm: float
    error: float
    interval: Interval
    bar: float
    miss: float
    sees: float
    is_anchored: bool


def judge(evidence: Evidence, tolerance: float, miss: float) -> Judgement:
    """Compares a gradient with the differences, and with the anchor if they confirm it.

    Args:
      evidence: of one leaf.
      tolerance: relative error up to which a gradient is right.
      miss: accepted probability of a wrong verdict.

    Example:
      >>> right, zero = np.array([3.0, 4.0]), np.zeros(2)
      >>> anchor, bars = (None, math.nan, 10.0, math.nan), (zero, zero, zero)
      >>> evidence = Evidence(2 * right, right, *bars, *anchor, exact=True)
      >>> judge(evidence, 1e-3, 1e-7)[:3]
      ('fail', 5.0, 1.0)
    """
    count = len(evidence.bars)
    residual = evidence.given - evidence.numerical
    direct = interval(residual, evidence, miss)
    low, high = direct
    norm = evidence.given_norm
    is_anchored, around_anchor = False, None
    if evidence.anchor is not None:
        of_anchor = evidence.anchor - evidence.numerical
        around_anchor = interval(of_anchor, evidence, miss)
        is_anchored = around_anchor.high <= tolerance * evidence.anchor_norm
        # The distance to the anchor is known exactly, the anchor's own error by sampling.
        if math.isfinite(evidence.distance):
            low = max(low, evidence.distance - around_anchor.high)
            high = min(high, evidence.distance + around_anchor.high)
    sampling = 1 if evidence.exact else math.sqrt(count)
    measured = norm_of(evidence.numerical) / sampling
    if is_anchored:
        norm = evidence.anchor_norm
    elif math.isnan(norm):
        norm = measured
    allowed = tolerance * norm
    if low > allowed:
        verdict = FAIL
    elif high <= allowed and allowed > 0 and math.isfinite(high):
        verdict = PASS
    else:
        verdict = INCONCLUSIVE
    # Errors are relative to the right gradient's norm; where it is not known and the given gradient
    # fails, to its estimate from the measured slopes.
    scale, error = norm, norm_of(residual) / sampling
    if is_anchored and math.isfinite(evidence.distance):
        error = evidence.distance
    elif verdict == FAIL and measured > 0:
        scale = measured
    return Judgement(
        verdict,
        scale,
        _relative(error, scale),
        Interval(_relative(low, scale), _relative(high, scale)),
        _relative(norm_of(evidence.bars) / sampling, scale),
        _miss(evidence, allowed, around_anchor is not None),
        _relative(_seen(evidence, allowed, miss, around_anchor), norm),
        is_anchored,
    )


def interval(residual: np.ndarray, evidence: Evidence, miss: float) -> Interval:
    """Returns bounds of the norm of an error e, from measured numbers <e, z>.

    Args:
      residual: ``(k,)`` measured numbers.
      evidence: their error bounds, and whether they are all coordinates, so that nothing is left to
        chance.
      miss: probability of lying outside, at either end.

    Example:
      >>> exact = Evidence(*[np.zeros(2)] * 5, None, math.nan, 0.0, math.nan, exact=True)
      >>> interval(np.array([3.0, 4.0]), exact, 1e-7)
      Interval(low=5.0, high=5.0)
    """
    near = norm_of(np.maximum(np.abs(residual) - evidence.doubts, 0))
    far = _far(residual, evidence)
    if evidence.exact:
        return Interval(near, far)
    low, high = _quantiles(len(residual), miss)
    return Interval(near / high, far / low)


def _quantiles(count: int, miss: float) -> Interval:
    """Returns bounds of the norm of k standard normal numbers, each exceeded with chance miss."""
    low = math.sqrt(2 * special.gammaincinv(count / 2, miss))
    high = math.sqrt(2 * special.gammainccinv(count / 2, miss))
    return Interval(low, high)


def _far(residual: np.ndarray, evidence: Evidence) -> float:
    """Returns the largest norm of the true residuals: errors that may hide part of them added."""
    allowance = evidence.bars if evidence.exact else evidence.systematic
    # Infinite bars mean that nothing was measured, whatever the systematic part.
    allowance = np.where(np.isinf(evidence.bars), np.inf, allowance)
    return norm_of(np.abs(residual) + allowance)


def _miss(evidence: Evidence, allowed: float, anchored: bool) -> float:
    """Returns the chance that an error above the allowed one would have measured as small."""

    def chance(residual, error):
        far = _far(residual, evidence)
        if not error > 0 or not math.isfinite(far):
            return 1.0
        if evidence.exact:
            return float(far > error)
        return float(special.gammainc(len(residual) / 2, (far / error) ** 2 / 2))

    chances = [chance(evidence.given - evidence.numerical, allowed)]
    if anchored and evidence.anchor is not None and math.isfinite(evidence.distance):
        residual = evidence.anchor - evidence.numerical
        chances.append(chance(residual, allowed - evidence.distance))
    return min(chances)


def _seen(evidence: Evidence, allowed: float, miss: float, around: Interval | None) -> float:
    """Returns the detection limit: the smallest further error that would have failed."""
    residual = np.abs(evidence.given - evidence.numerical)
    far = norm_of(residual + evidence.doubts)
    if evidence.exact:
        sizes = [allowed + far]
    else:
        low, high = _quantiles(len(residual), miss)
        sizes = [(allowed * high + far) / low]
    if around is not None and math.isfinite(evidence.distance):
        sizes.append(allowed + evidence.distance + around.high)
    return min(sizes)


def norm_of(array: np.ndarray) -> float:
    """Returns the Euclidean norm.

    Example:
      >>> norm_of(np.array([3.0, 4.0]))
      5.0
    """
    return float(np.linalg.norm(array))


def _relative(error: float, norm: float) -> float:
    if error == 0:
        return 0.0
    return error / norm if norm else math.inf
