"""Every number that the gradient checker chose, with its unit and the reason for it.

Studies are those of results/gradcheck (see results/README.md): ``detection``
(859 wrong gradients of a network), ``small``, ``coordinates``, ``alarms`` (2,000 random functions
with right gradients), ``bfloat16``, ``cost`` and ``convergence``. Numbers without a paper were
chosen by hand; the study or test after them fails, or changes, where they are wrong.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["THRESHOLDS", "Thresholds"]


def _by_itemsize(two: float, four: float, eight: float) -> Mapping[int, float]:
    return MappingProxyType({2: two, 4: four, 8: eight})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thresholds:
    """The checker's numbers; `THRESHOLDS` holds the ones in use.

    "Factor" means a pure number, "relative" relative to the quantity named.

    Example:
      >>> THRESHOLDS.tolerance[4]  # of a float32 gradient
      0.001
    """

    # --- audit: what is asked of a gradient ---

    # Relative error up to which a leaf passes, by the bytes of its real numbers. A float32 gradient
    # of a deep network carries rounding errors of 1e-6 to 1e-4 of its norm, one of bfloat16 up to a
    # percent or two. By hand; `alarms` and `bfloat16`.
    tolerance: Mapping[int, float] = dataclasses.field(
        default_factory=lambda: _by_itemsize(2e-2, 1e-3, 1e-5)
    )
    # Random directions a leaf; see `miss`. By hand: the cost of an audit is about one evaluation of
    # f for each of eight values a direction; `detection`, `cost`.
    directions: int = 8
    # An undecided leaf gets up to so many times the directions asked for, doubling: four looks at
    # 1, 2, 4 and 8 times. By hand; `alarms`.
    most_directions: int = 8
    # Chance of a wrong verdict at one look by one of its two intervals: 1e-6 a leaf, over four
    # looks. By hand: a network of a hundred leaves, audited a hundred times, is accused once in a
    # hundred such projects.
    miss: float = 1e-6 / 8
    # Values of the arguments that are not arrays for which compiled functions are kept. By hand;
    # tests/gradcheck/test_arguments.py.
    kept: int = 4
    # Failing leaves that are searched for the wrong coordinates, the worst first. By hand: a report
    # is read from the top; `cost`.
    searched_leaves: int = 3
    # Coordinates up to which a failing leaf is measured in full, where no right gradient is known.
    # By hand; tests/gradcheck/test_explain.py.
    tabulated: int = 4096
    # JAX's own gradient differs between a dtype and float64 by at most so much, relative to the
    # norm, where rounding explains it; more is a fault. By the bytes of an element. By hand;
    # tests/gradcheck/test_precision.py.
    rounding: Mapping[int, float] = dataclasses.field(
        default_factory=lambda: _by_itemsize(0.5, 0.05, 0.0)
    )
    # A given gradient may be so many times as far from the right one as JAX's own rounding takes
    # JAX's. By hand: another order of sums rounds differently, by a small factor; `alarms`.
    rounding_slack: float = 4.0
    # A leaf's gradient may be called zero if a relative change of 1 in the leaf moves f by less
    # than this share of the tolerance times f. By hand; test_precision, "zero is zero only ...".
    zero_share: float = 1e-3
    # A gradient that changes by at least this share of its norm when the arguments change in the
    # last half of their digits is rounding noise. By hand; test_precision, same test.
    noise_share: float = 0.5
    # A planted control error exceeds the size that is certainly seen by this factor, so that
    # rounding cannot hide it. By hand; `control=True` in tests/gradcheck/test_audit.py.
    control_margin: float = 1.05
    # Below this chance of a miss a report says "less than". By hand: for reading only.
    least_chance: float = 1e-12

    # --- measure: the function near a point ---

    # f in float64 may differ from f in its own dtype by so many times the square root of that
    # dtype's spacing, relative to f; beyond, it is another function there. By hand; test_precision.
    same_value: float = 8.0
    # Points that one call of the compiled function evaluates, at most. By hand: it amortises the
    # call, and the padding of a short block costs nothing (the loop stops); `cost`.
    block_rows: int = 256
    # The nine values that tell round-off lie ``epsilon ** 0.6`` of the leaf's scale apart: wide
    # enough that they are rounded independently, too close for the curve to matter (Moré and Wild,
    # SIAM J. Sci. Comput. 33, 2011, ask for both). By hand; tests/gradcheck/test_slopes.py.
    noise_spacing: float = 0.6
    # A direction whose error bar is so many times the first direction's gets steps of its own.
    # By hand; `alarms`.
    worse_bar: float = 100.0
    # Coordinates of a leaf that choose the one step for all of them in an exhaustive audit. By
    # hand; tests of exhaustive audits, `cost`.
    step_sample: int = 2

    # --- slopes: from values to a slope ---

    # Each step is the step before, divided by this. A power of 2, so that steps are exact; 4 lets
    # the error of a central difference fall by 16. By hand; test_slopes.
    ratio: float = 4.0
    # Extrapolations beyond the central difference: errors O(h^4), O(h^6) (Richardson). By hand;
    # more orders magnify round-off; test_slopes.
    orders: int = 2
    # Ladder of steps: it ends at about ``epsilon ** ladder_end`` of the smaller scale, starts at
    # `ratio` times the larger, and a leaf's scale counts up to ``ratio ** +-ladder_scales`` (1e14).
    # By hand; test_slopes, "steps reach from ...".
    ladder_end: float = 0.54
    ladder_scales: int = 24
    # Standard deviations of noise by which a value may be off. The usual three; test_slopes.
    noise_factor: float = 3.0
    # Weight of truncation against round-off when the best estimate is chosen: round-off averages
    # out over directions, truncation does not. By hand; `alarms`.
    systematic_weight: float = 4.0
    # Error bars are estimates: to report "fail", they are widened by this factor. By hand;
    # `alarms` (no right gradient fails), `detection` (no wrong one passes).
    fail_margin: float = 3.0
    # An extrapolation's truncation is at most so many times its last correction. By hand;
    # test_slopes, "slopes are within their bars".
    correction_factor: float = 2.0
    # From this relative spacing on (16-bit floats), wide steps seldom measure a slope ...
    coarse_dtype: float = 1e-4
    # ... and only steps up to this one, relative to the leaf's scale, may contradict. By hand;
    # test_precision, "bfloat16 alone".
    coarse_step: float = 0.25
    # From this relative spacing on (less than float64), fine steps are missing ...
    narrow_dtype: float = 1e-15
    # ... so that the even part of f must grow by `narrow_growth` from a step to the next wider one,
    # else by `wide_growth`; smooth functions grow by `ratio` (4), kinks by 1. Below, the step is
    # too wide for the curve. By hand; test_slopes, "steps that were too wide bound nothing".
    narrow_growth: float = 2.0
    wide_growth: float = 0.7
    # Times the round-off of the even part, before its growth is judged. By hand; same test.
    growth_noise: float = 4.0
    # Units of the last place: changes of f below so many are rounding, and tell nothing of its
    # slope. By hand; test_precision, "drowned".
    few_digits: float = 100.0
    # Nine near values contradict a slope from wider steps if theirs is off by so many times its own
    # uncertainty. By hand; test_slopes, "a function that turns within the steps".
    contradiction: float = 3.0
    # Noise above this share of the largest change of f may be the function itself; more is allowed
    # where f computes in less than float64. By hand; test_precision.
    noise_of_change: float = 0.05
    narrow_noise_of_change: float = 0.5
    # A kink: the one-sided slopes' difference, extrapolated to a step of 0, is at least this share
    # of the difference itself, which is so many times its round-off. By hand; test_slopes, kinks.
    kink_share: float = 0.5
    kink_noise: float = 8.0
    # A kink that is small beside the curvature: what is extrapolated keeps its sign and at least
    # this share from step to step; a smooth curve's falls by ``ratio ** 3``, 64. By hand; same.
    lasting_share: float = 1 / 8
    # A pole or cusp: the difference grows by this factor over each of the two finest steps. By
    # hand; `alarms`, test_slopes.
    pole_growth: float = 1.5

    # --- explain: where a gradient is wrong, and why ---

    # Share of the error that a named pattern may leave unexplained. By hand; test_explain.
    unexplained: float = 0.02
    # A factor between gradients has a name (2, a length) if it is within this, relative. By hand.
    named_factor: float = 1e-3
    # Clipped coordinates equal the limit within this, relative: some spacings of float32. By hand.
    clipped: float = 1e-6
    # Axes that one mean is taken over, at most: of a batch of images, all but the channels.
    mean_axes: int = 3
    # Group testing: parts a block is cut into; blocks that are followed at once, more mean that too
    # many coordinates are off to be listed. By hand: four rounds for 65,536 coordinates;
    # `coordinates` (144 of 144 named).
    parts: int = 16
    blocks: int = 16
    # A part is off if its residual is so many bars, and this share of tolerance times norm. The
    # share allows for a direction of numbers between 1 and 2. By hand; `coordinates`.
    off_bars: float = 2.0
    off_share: float = 0.3
    # Coordinates that are listed, and sampled to estimate the share that is off. By hand.
    shown: int = 3
    location_sample: int = 64
    # Longest message of somebody else's error in a note, in characters. By hand: for reading only.
    longest_reason: int = 120

    # --- products ---

    # Forward and reverse mode agree to the tolerance, or to so many spacings of the narrowest dtype
    # on the way, as they round at different places. By hand; test_products, "modes agree".
    mode_spacings: float = 4.0

    # --- convergence: error against step ---

    # Steps tried: ``10 ** -decades`` to 1, so many a decade. By hand: a picture's resolution.
    decades: int = 12
    steps_per_decade: int = 6
    # Truncation rules from so many times the best step, where round-off is a hundredth of it ...
    ruled_from: float = 10.0
    # ... to so many times, and up to this step, where the next order counts. `convergence`.
    ruled_to: float = 300.0
    ruled_below: float = 0.03
    # Errors near their minimum scatter: the best step has the least geometric mean of so many. By
    # hand; `convergence`. Odd.
    smoothed: int = 5
    # Third derivative: central differences at these multiples of the best step, where their
    # difference is truncation alone. By hand; `convergence`.
    third_coarse: float = 16.0
    third_fine: float = 4.0

    # --- changes: every coordinate of a leaf ---

    # Elements of all arrays made for one block of changed coordinates: 64 MiB in float64. By hand;
    # `cost`.
    change_elements: int = 2**23
    # Multiplications that slices must save to be worth their compilation. By hand; `cost`,
    # tests/gradcheck/test_changes.py.
    change_work: int = 2**30


THRESHOLDS = Thresholds()
