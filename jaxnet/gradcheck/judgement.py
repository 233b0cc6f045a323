"""From slopes to a verdict: how large is the error of a gradient, and how sure is that?

Along a direction of independent standard normal numbers z, an error e of a gradient shows as the
number <e, z>, which is normal with the deviation |e| whatever e is: spread over a million
coordinates or sitting in one. The sum of k such squares over |e|^2 is chi-squared with k degrees of
freedom; its quantiles turn k measured numbers into an interval for |e|.

The measured numbers are themselves off. What is systematic may hide an error, and is added to
what was measured. Round-off does not know the direction, and adding what is independent of it to a
normal number makes small sizes rarer (Anderson, Proc. Am. Math. Soc. 6, 1955), so that it hides
none. Either may feign an error, and what both may be at worst is taken off before one is alleged.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import special

PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"


class Interval(NamedTuple):
    """Where the norm of an error lies."""

    low: float
    high: float


class Evidence(NamedTuple):
    """What was measured of one leaf: slopes along k directions, and their error bars.

    Attributes:
      given: ``(k,)`` slopes according to the gradient under audit.
      numerical: ``(k,)`` slopes by differences.
      bars: ``(k,)`` by which the latter may be off.
      doubts: ``(k,)`` by which they may be off at worst, at least the bars.
      systematic: ``(k,)`` the part of the bars that may follow the direction.
      anchor: ``(k,)`` slopes according to `jax.grad` in the precision of the differences, if it
        exists.
      distance: norm of the given gradient less the anchor.
      given_norm: norm of the given gradient; NaN if it is known by its slopes only.
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
      error: estimate of the error.
      interval: where the error lies, but for the chance of a miss at either end.
      bar: error of the differences themselves.
      miss: chance that an error above the tolerance would have looked as small as this.
      sees: smallest error that would certainly have failed.
      is_anchored: whether the right gradient is known in full: the differences confirm the anchor.
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
    """Compares a gradient with the differences, and with the anchor that they confirm.

    Args:
      evidence: of one leaf.
      tolerance: relative error up to which a gradient is right.
      miss: chance of a wrong verdict that is accepted.
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
        # The distance to the anchor is known exactly; the anchor's own error by sampling.
        if math.isfinite(evidence.distance):
            low = max(low, evidence.distance - around_anchor.high)
            high = min(high, evidence.distance + around_anchor.high)
    sampling = 1 if evidence.exact else math.sqrt(count)
    measured = _norm(evidence.numerical) / sampling
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
    # What the error is relative to: the right gradient's norm or, where that is not known and the
    # given one is of no use, as many slopes of it as were measured of the error.
    scale, error = norm, _norm(residual) / sampling
    if is_anchored and math.isfinite(evidence.distance):
        error = evidence.distance
    elif verdict == FAIL and measured > 0:
        scale = measured
    return Judgement(
        verdict,
        scale,
        _relative(error, scale),
        Interval(_relative(low, scale), _relative(high, scale)),
        _relative(_norm(evidence.bars) / sampling, scale),
        _miss(evidence, allowed, around_anchor is not None),
        _relative(_seen(evidence, allowed, miss, around_anchor), norm),
        is_anchored,
    )


def interval(residual: np.ndarray, evidence: Evidence, miss: float) -> Interval:
    """Returns between what bounds the norm of an error lies that shows as these residuals.

    Args:
      residual: ``(k,)`` measured numbers <e, z>.
      evidence: by how much each may be off; and whether they are of all coordinates, so that
        nothing is left to chance.
      miss: chance of being outside, at either end.
    """
    near, far = _norm(np.maximum(np.abs(residual) - evidence.doubts, 0)), _far(residual, evidence)
    if evidence.exact:
        return Interval(near, far)
    low, high = _quantiles(len(residual), miss)
    return Interval(near / high, far / low)


def _quantiles(count: int, miss: float) -> Interval:
    """Returns the bounds of the norm of k normal numbers, but for the chance of a miss."""
    low = math.sqrt(2 * special.gammaincinv(count / 2, miss))
    high = math.sqrt(2 * special.gammainccinv(count / 2, miss))
    return Interval(low, high)


def _far(residual: np.ndarray, evidence: Evidence) -> float:
    """Returns the norm that residuals may have but for what cannot have hidden an error."""
    allowance = evidence.bars if evidence.exact else evidence.systematic
    # A value that was not measured at all has no systematic error to speak of, but infinite bars.
    allowance = np.where(np.isinf(evidence.bars), np.inf, allowance)
    return _norm(np.abs(residual) + allowance)


def _miss(evidence: Evidence, allowed: float, anchored: bool) -> float:
    """Returns the chance that an error above the allowed one would have looked as small as this."""

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
    """Returns the size from which on a further error would certainly have failed."""
    residual = np.abs(evidence.given - evidence.numerical)
    far = _norm(residual + evidence.doubts)
    if evidence.exact:
        sizes = [allowed + far]
    else:
        low, high = _quantiles(len(residual), miss)
        sizes = [(allowed * high + far) / low]
    if around is not None and math.isfinite(evidence.distance):
        sizes.append(allowed + evidence.distance + around.high)
    return min(sizes)


def _norm(array: np.ndarray) -> float:
    return float(np.linalg.norm(array))


def _relative(error: float, norm: float) -> float:
    if error == 0:
        return 0.0
    return error / norm if norm else math.inf
