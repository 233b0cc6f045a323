"""One audit: measures the leaves of a gradient until each is decided, or cannot be."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxnet.gradcheck import diagnosis, location
from jaxnet.gradcheck.judgement import (
    FAIL,
    INCONCLUSIVE,
    PASS,
    Evidence,
    Judgement,
    interval,
    judge,
)
from jaxnet.gradcheck.reference import Span, coordinates
from jaxnet.gradcheck.report import LeafReport, Report, Slope
from jaxnet.gradcheck.slopes import Slopes
from jaxnet.gradcheck.survey import Survey

_MOST_DIRECTIONS = 8  # times those asked for, while a leaf is undecided: four looks at it
# Chance of a wrong verdict at one look, by either of two intervals; 1e-6 for a leaf in all.
MISS = 1e-6 / 8

# JAX's own gradient differs by so much between its dtype and float64, relative to the norm, where
# rounding still explains it; more is a fault, whatever makes it. By the bytes of an element.
_ROUNDING = {2: 0.5, 4: 0.05, 8: 0.0}
_SEARCHED = 3  # failing leaves that are searched by differences, the worst
_TABULATED = 4096  # coordinates up to which a failing leaf is measured in full


class Options(NamedTuple):
    """How an audit is made; see `check`."""

    directions: int
    tolerances: tuple[float, ...]
    exhaustive: bool
    control: bool
    seed: tuple[int, ...]


class Subject(NamedTuple):
    """The derivative under audit.

    Attributes:
      name: what it is, for the report.
      flat: the gradient in full; None if it is only known as a function that gives slopes.
      slope: returns the slope along a span of a direction.
    """

    name: str
    flat: list[np.ndarray] | None
    slope: Callable[[list[np.ndarray], Span], float]


class Run:
    """One audit: a gradient against a survey."""

    def __init__(self, survey: Survey, subject: Subject, options: Options):
        """Gets everything ready; `report` does the work."""
        self._survey, self._subject, self._options = survey, subject, options
        self._argument, self._reference = survey.argument, survey.reference
        own = survey.own.gradient
        self._own = None if own is None else self._argument.flatten_gradient(own)
        self._exact = [leaf.size <= options.directions for leaf in self._argument.leaves]
        self._anchor = self._tables() if options.exhaustive else self._reference.gradient
        # Slopes of each leaf by the gradient and by the anchor, along the directions measured.
        self._predicted: list[list[tuple[float, float]]] = [[] for _ in self._argument.leaves]

    def report(self) -> Report:
        """Measures until every leaf is decided, or cannot be, and reports."""
        leaves = range(len(self._argument.leaves))
        undecided, rounds = list(leaves), 1
        while undecided and rounds <= _MOST_DIRECTIONS:
            self._measure(undecided, rounds * self._options.directions)
            undecided = [leaf for leaf in undecided if self._is_worth_more(leaf)]
            rounds *= 2
        found = [self._conclude(leaf) for leaf in leaves]
        failing = sorted(
            (leaf for leaf, (judged, _) in enumerate(found) if judged.verdict == FAIL),
            key=lambda leaf: -np.nan_to_num(found[leaf][0].error, nan=np.inf),
        )
        searched = set(failing[:_SEARCHED])
        reports = [self._describe(leaf, *found[leaf], leaf in searched) for leaf in leaves]
        notes = (self._reference.note,) if self._reference.note else ()
        dtype = self._argument.dtypes
        reference = "float64" if self._reference.precise else dtype
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
        """Returns the gradient by differences at every coordinate, in the place of `jax.grad`'s."""
        found = []
        for leaf, is_exact in enumerate(self._exact):
            if is_exact:
                found.append(self._survey.tabulate(leaf).value)
                continue
            values, round_off = self._survey.table(leaf)
            is_noise = _norm(values) <= _norm(round_off)
            found.append(np.zeros_like(values) if is_noise else values)
        return found

    def _measure(self, leaves: Sequence[int], directions: int) -> None:
        """Brings leaves to so many directions, or all of their coordinates."""
        ones = self._reference.ones()
        for leaf in leaves:
            if self._exact[leaf] and not self._predicted[leaf]:
                self._predict(leaf, ones, self._coordinates(leaf))
        sampled = [leaf for leaf in leaves if not self._exact[leaf]]
        self._survey.measure(sampled, directions)
        for number in range(directions):
            some = [leaf for leaf in sampled if len(self._predicted[leaf]) == number]
            draws = self._survey.draw(number) if some else []
            for leaf in some:
                self._predict(leaf, draws, [self._survey.whole(leaf)])

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
            return self._survey.tabulate(leaf), given, anchor
        return self._survey.along(leaf, len(given)), given, anchor

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
            distance=np.nan if flat is None or whole is None else _norm(flat - whole),
            given_norm=np.nan if flat is None else _norm(flat),
            anchor_norm=np.nan if whole is None else _norm(whole),
            exact=self._exact[leaf],
        )

    def _tolerance(self, leaf: int) -> float:
        return self._options.tolerances[leaf]

    def _judge(self, leaf: int) -> Judgement:
        return judge(self._evidence(leaf), self._tolerance(leaf), MISS)

    def _is_worth_more(self, leaf: int) -> bool:
        """Whether a leaf is undecided, and more directions, not better ones, would decide it."""
        if self._exact[leaf] or self._conclude(leaf)[0].verdict != INCONCLUSIVE:
            return False
        # They bring both ends of the interval to the estimate, and no further.
        judged, evidence = self._judge(leaf), self._evidence(leaf)
        residual = np.abs(evidence.given - evidence.numerical)
        allowed, count = self._tolerance(leaf) * judged.norm, np.sqrt(len(residual))
        if _norm(np.maximum(residual - evidence.doubts, 0)) / count > allowed:
            return True
        if judged.is_anchored or evidence.anchor is not None:
            residual = np.abs(evidence.anchor - evidence.numerical)
            allowed -= evidence.distance if np.isfinite(evidence.distance) else 0.0
        return bool(_norm(residual + evidence.systematic) / count < allowed)

    def _conclude(self, leaf: int) -> tuple[Judgement, str]:
        """Returns the judgement with what numbers alone do not say, and that in words."""
        judged, evidence = self._judge(leaf), self._evidence(leaf)
        name = self._argument.leaves[leaf]
        if self._subject.flat is not None and not np.isfinite(self._subject.flat[leaf]).all():
            cause = diagnosis.of_values(self._subject.flat[leaf], name)
            return judged._replace(verdict=FAIL, error=np.nan), cause
        jump = float(np.max(self._slopes(leaf)[0].jump))
        if self._is_zero(leaf, evidence):
            exact = evidence.given_norm == 0 == _norm(evidence.numerical)
            cause = (
                "zero: f is constant around it, to its last digit"
                if exact
                else "zero, up to rounding"
            )
            return judged._replace(verdict=PASS, error=0.0, miss=np.nan), cause
        if judged.verdict == FAIL and self._is_rounding(leaf, evidence):
            cause = f"right in float64; rounding in {name.dtype} exceeds the tolerance"
            return judged._replace(verdict=INCONCLUSIVE), cause
        if judged.verdict == FAIL and self._reference.is_unstable:
            cause = f"f has another value in float64: rounding in {name.dtype} decides it"
            return judged._replace(verdict=INCONCLUSIVE), cause
        if judged.verdict == FAIL and self._is_stepped(leaf, evidence):
            cause = "f rounds to integers: JAX differentiates the treads, differences the staircase"
            return judged._replace(verdict=INCONCLUSIVE), cause
        if judged.verdict == INCONCLUSIVE:
            return judged, self._excuse(leaf, judged, jump)
        return judged, ""

    def _excuse(self, leaf: int, judged: Judgement, jump: float) -> str:
        if not self._reference.is_deterministic:
            return "f is not deterministic"
        if jump:
            return f"a kink: the slopes on its two sides differ by {jump:.3g}"
        if not np.any(self._slopes(leaf)[0].value):
            return "f does not change by a single digit, which tells too little"
        if judged.bar > self._tolerance(leaf):
            return f"differences are uncertain by {judged.bar:.1e} of the norm"
        return f"the error is too close to the tolerance ({judged.interval.low:.1e} or more)"

    def _is_zero(self, leaf: int, evidence: Evidence) -> bool:
        """Whether the right gradient is zero and the given one too, up to its rounding."""
        given = evidence.given_norm
        if np.isnan(given):
            given = _norm(evidence.given)
        anchor_norm = 0.0 if evidence.anchor is None else evidence.anchor_norm
        if given == anchor_norm == _norm(evidence.numerical) == 0:
            # To all digits of a narrow dtype, what changes by less is constant, too.
            is_known = not self._reference.is_narrow or not self._reference.is_used(leaf)
            return is_known and bool(np.isfinite(evidence.bars).all())
        if evidence.anchor is None or self._anchor is None or self._reference.is_narrow:
            return False
        columns = (evidence.numerical, evidence.anchor)
        if any(np.any(np.abs(column) > evidence.bars) for column in columns):
            return False
        # In units of f: a relative change of the leaf, and what it does.
        unit, size = self._survey.gauges[leaf].unit, abs(self._reference.value)
        if np.max(evidence.bars) * unit > 1e-3 * self._tolerance(leaf) * size:
            return False
        # Terms that cancel leave rounding, which is another next to the point; a gradient is not.
        if anchor_norm > 0:
            nearby = self._reference.gradient_nearby()
            if nearby is None or _norm(nearby[leaf] - self._anchor[leaf]) < anchor_norm / 2:
                return False
        rounding = 4 * float(jnp.finfo(self._argument.leaves[leaf].dtype).eps) * size / unit
        if self._own is not None:
            rounding = max(rounding, 4 * _norm(self._own[leaf] - self._anchor[leaf]))
        return given <= rounding

    def _is_rounding(self, leaf: int, evidence: Evidence) -> bool:
        """Whether the error is no larger than what rounding does to JAX's own gradient."""
        if self._own is None or self._anchor is None or evidence.anchor is None:
            return False
        around = interval(evidence.anchor - evidence.numerical, evidence, MISS)
        if around.low > self._tolerance(leaf) * evidence.anchor_norm:
            return False
        rounding = _norm(self._own[leaf] - self._anchor[leaf])
        cap = _ROUNDING[itemsize(self._argument.leaves[leaf].dtype)]
        return evidence.distance <= 4 * rounding <= 4 * cap * evidence.anchor_norm

    def _is_stepped(self, leaf: int, evidence: Evidence) -> bool:
        """Whether the gradient is JAX's own, of a function that rounds to integers."""
        if not self._reference.is_stepped or evidence.anchor is None:
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
        """Plants an error of the size that is certainly seen in one coordinate; is it seen?"""
        evidence, size = self._evidence(leaf), self._argument.leaves[leaf].size
        error = 1.05 * judged.sees * judged.norm
        at = int(np.random.default_rng((*self._options.seed, leaf)).integers(size))
        if self._exact[leaf]:
            along = (np.arange(size) == at).astype(float)
        else:
            draws = range(len(evidence.given))
            along = [self._survey.draw(k)[leaf][at] for k in draws]
        distance = evidence.distance
        if self._subject.flat is not None and self._anchor is not None:
            apart = self._subject.flat[leaf] - self._anchor[leaf]
            apart[at] += error
            distance = _norm(apart)
        spoilt = evidence._replace(
            given=evidence.given + error * np.array(along), distance=distance
        )
        return judge(spoilt, self._tolerance(leaf), MISS).verdict == FAIL

    def _locate(self, leaf: int, judged: Judgement) -> tuple[location.Location | None, str]:
        """Returns which coordinates are off, and the pattern in them."""
        name, tolerance = self._argument.leaves[leaf], self._tolerance(leaf)
        evidence, lengths = self._evidence(leaf), diagnosis.lengths_of(self._survey.args)
        ones = self._reference.ones()

        def at(spans):
            return self._measure_spans(ones, spans)

        right = None
        if judged.is_anchored and self._anchor is not None:
            right = self._anchor[leaf]
        elif self._exact[leaf]:
            right = evidence.numerical
        elif name.size <= _TABULATED:
            right, _ = self._survey.table(leaf)
        given = None if self._subject.flat is None else self._subject.flat[leaf]
        if given is None and right is not None and name.size <= _TABULATED:
            given = np.array([self._subject.slope(ones, span) for span in self._coordinates(leaf)])
        if given is not None and right is not None:
            place = location.compare(leaf, name, given, right, at, tolerance)
            if not np.isfinite(given).all():
                return place, ""
            cause = diagnosis.of_slopes(given, right, lengths)
            own = np.asarray(self._reference.leaf(leaf), np.float64).ravel()
            return place, cause or diagnosis.of_arrays(given, right, own, name, tolerance)
        # Signs at random, and sizes between 1 and 2: no coordinate is hidden, few cancel.
        generator = np.random.default_rng((*self._options.seed, 2**31))
        draws = [
            generator.choice([-1.0, 1.0], each.size) * generator.uniform(1, 2, each.size)
            for each in self._argument.leaves
        ]
        seed = int(generator.integers(2**31))

        def along(spans):
            return self._measure_spans(draws, spans)

        place = location.search(leaf, name, along, at, tolerance, judged.norm, seed)
        return place, diagnosis.of_slopes(evidence.given, evidence.numerical, lengths)

    def _measure_spans(self, draws, spans) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        found = self._reference.measure(draws, spans, self._survey.gauges)
        given = np.array([self._subject.slope(draws, span) for span in spans])
        return given, found.value, found.bar


def project(flat: Sequence[np.ndarray], draws: Sequence[np.ndarray], span: Span) -> float:
    """Returns the slope of a gradient along a span of a direction."""
    inside = slice(span.start, span.stop)
    with np.errstate(invalid="ignore", over="ignore"):  # of NaN and infinity, others tell
        return float(flat[span.leaf][inside] @ draws[span.leaf][inside])


def itemsize(dtype: Any) -> int:
    """Returns the bytes of a real number of this dtype, or of a part of a complex one."""
    return jnp.finfo(dtype).dtype.itemsize


def _norm(array: np.ndarray) -> float:
    return float(np.linalg.norm(array))
