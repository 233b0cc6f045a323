"""One audit: measures every leaf of a gradient until it is decided, or cannot be."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxnet.gradcheck import explain
from jaxnet.gradcheck.arguments import Span, coordinates, itemsize
from jaxnet.gradcheck.judgement import (
    FAIL,
    INCONCLUSIVE,
    PASS,
    Evidence,
    Judgement,
    interval,
    judge,
    norm_of,
)
from jaxnet.gradcheck.measure import Measurement
from jaxnet.gradcheck.report import LeafReport, Report, Slope
from jaxnet.gradcheck.slopes import Slopes
from jaxnet.gradcheck.thresholds import THRESHOLDS

__all__ = ["Options", "Run", "Subject", "project"]


class Options(NamedTuple):
    """How to audit; see `check`.

    Attributes:
      directions: random directions in every leaf.
      tolerances: relative error up to which each leaf passes.
      exhaustive: whether to compare with differences at every coordinate.
      control: whether to plant errors in the leaves that pass.
      seed: draws the directions.
    """

    directions: int
    tolerances: tuple[float, ...]
    exhaustive: bool
    control: bool
    seed: tuple[int, ...]


class Subject(NamedTuple):
    """The derivative under audit.

    Attributes:
      name: ``"gradient"``, ``"vjp"`` and so on, for the report.
      flat: for each leaf ``(size,)`` its coordinates; None if only slopes are known.
      slope: returns its slope along a span of a direction.
    """

    name: str
    flat: list[np.ndarray] | None
    slope: Callable[[list[np.ndarray], Span], float]


class Run:
    """One audit: compares a derivative with measured slopes; `report` does the work."""

    def __init__(self, measured: Measurement, subject: Subject, options: Options):
        """Takes what to compare.

        Args:
          measured: the function near the point.
          subject: the derivative under audit.
          options: how to audit.
        """
        self._measured, self._subject, self._options = measured, subject, options
        self._argument = measured.argument
        own = measured.own.gradient
        self._own = None if own is None else self._argument.flatten_gradient(own)
        self._exact = [leaf.size <= options.directions for leaf in self._argument.leaves]
        # The anchor is a gradient that differences can confirm at every coordinate.
        self._anchor = self._tables() if options.exhaustive else measured.gradient
        # For each leaf, the slopes of the gradient and of the anchor along the measured directions.
        self._predicted: list[list[tuple[float, float]]] = [[] for _ in self._argument.leaves]

    def report(self) -> Report:
        """Measures until every leaf is decided, or cannot be, and returns the report."""
        leaves = range(len(self._argument.leaves))
        undecided, rounds = list(leaves), 1
        while undecided and rounds <= THRESHOLDS.most_directions:
            self._measure(undecided, rounds * self._options.directions)
            undecided = [leaf for leaf in undecided if self._is_worth_more(leaf)]
            rounds *= 2
        found = [self._conclude(leaf) for leaf in leaves]
        failing = sorted(
            (leaf for leaf, (judged, _) in enumerate(found) if judged.verdict == FAIL),
            key=lambda leaf: -np.nan_to_num(found[leaf][0].error, nan=np.inf),
        )
        searched = set(failing[: THRESHOLDS.searched_leaves])
        reports = [self._describe(leaf, *found[leaf], leaf in searched) for leaf in leaves]
        notes = (self._measured.note,) if self._measured.note else ()
        dtype = self._argument.dtypes
        reference = "float64" if self._measured.precise else dtype
        return Report(
            tuple(reports),
            max(self._options.tolerances),
            dtype,
            reference,
            self._subject.name,
            notes,
        )

    # Measuring

    def _tables(self) -> list[np.ndarray]:
        """Returns the gradient by differences at every coordinate, to use instead of `jax.grad`."""
        found = []
        for leaf, is_exact in enumerate(self._exact):
            if is_exact:
                found.append(self._measured.tabulate(leaf).value)
                continue
            values, round_off = self._measured.table(leaf)
            is_noise = norm_of(values) <= norm_of(round_off)
            found.append(np.zeros_like(values) if is_noise else values)
        return found

    def _measure(self, leaves: Sequence[int], directions: int) -> None:
        """Measures leaves along further directions, until each has so many, or all coordinates."""
        ones = self._measured.ones()
        for leaf in leaves:
            if self._exact[leaf] and not self._predicted[leaf]:
                self._predict(leaf, ones, self._coordinates(leaf))
        sampled = [leaf for leaf in leaves if not self._exact[leaf]]
        self._measured.measure(sampled, directions)
        for number in range(directions):
            some = [leaf for leaf in sampled if len(self._predicted[leaf]) == number]
            draws = self._measured.draw(number) if some else []
            for leaf in some:
                self._predict(leaf, draws, [self._measured.whole(leaf)])

    def _predict(self, leaf: int, draws: list[np.ndarray], spans: Sequence[Span]) -> None:
        for span in spans:
            anchor = np.nan if self._anchor is None else project(self._anchor, draws, span)
            self._predicted[leaf].append((self._subject.slope(draws, span), anchor))

    def _coordinates(self, leaf: int) -> list[Span]:
        return coordinates(leaf, range(self._argument.leaves[leaf].size))

    # Judging

    def _slopes(self, leaf: int) -> tuple[Slopes, np.ndarray, np.ndarray]:
        given, anchor = np.array(self._predicted[leaf]).T
        if self._exact[leaf]:
            return self._measured.tabulate(leaf), given, anchor
        return self._measured.along(leaf, len(given)), given, anchor

    def _evidence(self, leaf: int) -> Evidence:
        found, given, anchor = self._slopes(leaf)
        flat = None if self._subject.flat is None else self._subject.flat[leaf]
        whole = None if self._anchor is None else self._anchor[leaf]
        return Evidence(
            given=given,
            numerical=found.value,
            bars=found.bar,
            doubts=found.doubt + found.jump,
            systematic=found.systematic,
            anchor=None if whole is None else anchor,
            distance=np.nan if flat is None or whole is None else norm_of(flat - whole),
            given_norm=np.nan if flat is None else norm_of(flat),
            anchor_norm=np.nan if whole is None else norm_of(whole),
            exact=self._exact[leaf],
        )

    def _tolerance(self, leaf: int) -> float:
        return self._options.tolerances[leaf]

    def _judge(self, leaf: int) -> Judgement:
        return judge(self._evidence(leaf), self._tolerance(leaf), THRESHOLDS.miss)

    def _is_worth_more(self, leaf: int) -> bool:
        """Returns whether a leaf is undecided and more directions could decide it."""
        if self._exact[leaf] or self._conclude(leaf)[0].verdict != INCONCLUSIVE:
            return False
        # More directions shrink the interval, but not the systematic error.
        judged, evidence = self._judge(leaf), self._evidence(leaf)
        residual = np.abs(evidence.given - evidence.numerical)
        allowed, count = self._tolerance(leaf) * judged.norm, np.sqrt(len(residual))
        if norm_of(np.maximum(residual - evidence.doubts, 0)) / count > allowed:
            return True
        if judged.is_anchored or evidence.anchor is not None:
            residual = np.abs(evidence.anchor - evidence.numerical)
            allowed -= evidence.distance if np.isfinite(evidence.distance) else 0.0
        return bool(norm_of(residual + evidence.systematic) / count < allowed)

    def _conclude(self, leaf: int) -> tuple[Judgement, str]:
        """Returns the judgement after special cases (NaN, zero, rounding, kinks), and why."""
        judged, evidence = self._judge(leaf), self._evidence(leaf)
        name = self._argument.leaves[leaf]
        if self._subject.flat is not None and not np.isfinite(self._subject.flat[leaf]).all():
            cause = explain.of_values(self._subject.flat[leaf], name)
            return judged._replace(verdict=FAIL, error=np.nan), cause
        jump = float(np.max(self._slopes(leaf)[0].jump))
        if self._is_zero(leaf, evidence):
            exact = evidence.given_norm == 0 == norm_of(evidence.numerical)
            cause = (
                "zero: f is constant around it, to its last digit"
                if exact
                else "zero, up to rounding"
            )
            return judged._replace(verdict=PASS, error=0.0, miss=np.nan), cause
        if judged.verdict == FAIL and self._is_rounding(leaf, evidence):
            cause = f"right in float64; rounding in {name.dtype} exceeds the tolerance"
            return judged._replace(verdict=INCONCLUSIVE), cause
        if judged.verdict == FAIL and self._measured.is_unstable:
            cause = f"f has another value in float64: rounding in {name.dtype} decides it"
            return judged._replace(verdict=INCONCLUSIVE), cause
        if judged.verdict == FAIL and self._is_stepped(leaf, evidence):
            cause = "f rounds to integers: JAX differentiates the treads, differences the staircase"
            return judged._replace(verdict=INCONCLUSIVE), cause
        if judged.verdict == INCONCLUSIVE:
            return judged, self._why_inconclusive(leaf, judged, jump)
        return judged, ""

    def _why_inconclusive(self, leaf: int, judged: Judgement, jump: float) -> str:
        if not self._measured.is_deterministic:
            return "f is not deterministic"
        if jump:
            return f"a kink: the slopes on its two sides differ by {jump:.3g}"
        if not np.any(self._slopes(leaf)[0].value):
            return "f does not change by a single digit, which tells too little"
        if judged.bar > self._tolerance(leaf):
            return f"differences are uncertain by {judged.bar:.1e} of the norm"
        return f"the error is too close to the tolerance ({judged.interval.low:.1e} or more)"

    def _is_zero(self, leaf: int, evidence: Evidence) -> bool:
        """Returns whether the right gradient is zero, and the given one too, up to rounding."""
        given = evidence.given_norm
        if np.isnan(given):
            given = norm_of(evidence.given)
        anchor_norm = 0.0 if evidence.anchor is None else evidence.anchor_norm
        if given == anchor_norm == norm_of(evidence.numerical) == 0:
            # In a narrow dtype, changes below its last digit look constant, too.
            is_known = not self._measured.is_narrow or not self._measured.is_used(leaf)
            return is_known and bool(np.isfinite(evidence.bars).all())
        if evidence.anchor is None or self._anchor is None or self._measured.is_narrow:
            return False
        columns = (evidence.numerical, evidence.anchor)
        if any(np.any(np.abs(column) > evidence.bars) for column in columns):
            return False
        # How much a relative change of 1 in the leaf may change f.
        unit, size = self._measured.gauges[leaf].unit, abs(self._measured.value)
        if np.max(evidence.bars) * unit > THRESHOLDS.zero_share * self._tolerance(leaf) * size:
            return False
        # Terms that cancel leave rounding noise, which is different next to the point; a real
        # gradient is not.
        if anchor_norm > 0:
            nearby = self._measured.gradient_nearby()
            least = THRESHOLDS.noise_share * anchor_norm
            if nearby is None or norm_of(nearby[leaf] - self._anchor[leaf]) < least:
                return False
        slack, dtype = THRESHOLDS.rounding_slack, self._argument.leaves[leaf].dtype
        rounding = slack * float(jnp.finfo(dtype).eps) * size / unit
        if self._own is not None:
            rounding = max(rounding, slack * norm_of(self._own[leaf] - self._anchor[leaf]))
        return given <= rounding

    def _is_rounding(self, leaf: int, evidence: Evidence) -> bool:
        """Returns whether the error is no larger than that of rounding in JAX's own gradient."""
        if self._own is None or self._anchor is None or evidence.anchor is None:
            return False
        around = interval(evidence.anchor - evidence.numerical, evidence, THRESHOLDS.miss)
        if around.low > self._tolerance(leaf) * evidence.anchor_norm:
            return False
        slack, rounding = THRESHOLDS.rounding_slack, norm_of(self._own[leaf] - self._anchor[leaf])
        cap = THRESHOLDS.rounding[itemsize(self._argument.leaves[leaf].dtype)]
        return evidence.distance <= slack * rounding <= slack * cap * evidence.anchor_norm

    def _is_stepped(self, leaf: int, evidence: Evidence) -> bool:
        """Returns whether the gradient is JAX's own, of a function that rounds to integers."""
        if not self._measured.is_stepped or evidence.anchor is None:
            return False
        return evidence.distance <= self._tolerance(leaf) * evidence.anchor_norm

    # Describing

    def _describe(self, leaf: int, judged: Judgement, cause: str, searched: bool) -> LeafReport:
        name = self._argument.leaves[leaf]
        place = None
        if judged.verdict == FAIL and searched:
            place, pattern = self._locate(leaf, judged)
            cause = cause or pattern
        found, given, _ = self._slopes(leaf)
        columns = (given, found.value, found.truncation + found.jump, found.round_off, found.step)
        verdict, control = judged.verdict, None
        if self._options.control and verdict == PASS and np.isfinite(judged.sees):
            control = self._sees_control(leaf, judged)
            verdict = verdict if control else INCONCLUSIVE
        return LeafReport(
            path=name.path,
            shape=name.shape,
            dtype=str(name.dtype),
            verdict=verdict,
            tolerance=self._tolerance(leaf),
            norm=judged.norm,
            error=judged.error,
            interval=judged.interval,
            bar=judged.bar,
            miss=judged.miss,
            sees=judged.sees,
            autodiff_error=None,
            diagnosis=cause,
            location=place,
            control=control,
            slopes=tuple(Slope(*map(float, row)) for row in zip(*columns, strict=True)),
        )

    def _sees_control(self, leaf: int, judged: Judgement) -> bool:
        """Returns whether the audit detects a planted error in one coordinate.

        Its size is what the judgement claims to see.
        """
        evidence, size = self._evidence(leaf), self._argument.leaves[leaf].size
        error = THRESHOLDS.control_margin * judged.sees * judged.norm
        at = int(np.random.default_rng((*self._options.seed, leaf)).integers(size))
        if self._exact[leaf]:
            along = (np.arange(size) == at).astype(float)
        else:
            draws = range(len(evidence.given))
            along = [self._measured.draw(k)[leaf][at] for k in draws]
        distance = evidence.distance
        if self._subject.flat is not None and self._anchor is not None:
            apart = self._subject.flat[leaf] - self._anchor[leaf]
            apart[at] += error
            distance = norm_of(apart)
        planted = evidence._replace(
            given=evidence.given + error * np.array(along), distance=distance
        )
        return judge(planted, self._tolerance(leaf), THRESHOLDS.miss).verdict == FAIL

    def _locate(self, leaf: int, judged: Judgement) -> tuple[explain.Location | None, str]:
        """Returns which coordinates are wrong, and the pattern in them."""
        name, tolerance = self._argument.leaves[leaf], self._tolerance(leaf)
        evidence, lengths = self._evidence(leaf), explain.lengths_of(self._measured.args)
        ones = self._measured.ones()

        def at(spans):
            return self._measure_spans(ones, spans)

        right = None
        if judged.is_anchored and self._anchor is not None:
            right = self._anchor[leaf]
        elif self._exact[leaf]:
            right = evidence.numerical
        elif name.size <= THRESHOLDS.tabulated:
            right, _ = self._measured.table(leaf)
        given = None if self._subject.flat is None else self._subject.flat[leaf]
        if given is None and right is not None and name.size <= THRESHOLDS.tabulated:
            given = np.array([self._subject.slope(ones, span) for span in self._coordinates(leaf)])
        if given is not None and right is not None:
            place = explain.compare(leaf, name, given, right, at, tolerance)
            if not np.isfinite(given).all():
                return place, ""
            cause = explain.of_slopes(given, right, lengths)
            own = np.asarray(self._measured.leaves[leaf], np.float64).ravel()
            return place, cause or explain.of_arrays(given, right, own, name, tolerance)
        # Random signs, sizes from 1 to 2: no coordinate counts for little, and few errors cancel.
        generator = np.random.default_rng((*self._options.seed, 2**31))
        draws = [
            generator.choice([-1.0, 1.0], each.size) * generator.uniform(1, 2, each.size)
            for each in self._argument.leaves
        ]
        seed = int(generator.integers(2**31))

        def along(spans):
            return self._measure_spans(draws, spans)

        place = explain.search(leaf, name, along, at, tolerance, judged.norm, seed)
        return place, explain.of_slopes(evidence.given, evidence.numerical, lengths)

    def _measure_spans(
        self, draws: list[np.ndarray], spans: Sequence[Span]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        found = self._measured.measure_spans(draws, spans, self._measured.gauges)
        given = np.array([self._subject.slope(draws, span) for span in spans])
        return given, found.value, found.bar


def project(flat: Sequence[np.ndarray], draws: Sequence[np.ndarray], span: Span) -> float:
    """Returns the slope of a gradient along a span of a direction.

    Args:
      flat: the gradient, for each leaf ``(size,)``.
      draws: the direction, for each leaf ``(size,)``.
      span: of one leaf.

    Example:
      >>> project([np.array([1.0, 2.0, 3.0])], [np.ones(3)], Span(0, 1, 3))
      5.0
    """
    inside = slice(span.start, span.stop)
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are reported elsewhere
        return float(flat[span.leaf][inside] @ draws[span.leaf][inside])
