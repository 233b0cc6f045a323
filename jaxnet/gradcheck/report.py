"""The result of an audit: a table, JSON, or an error."""

import json
import math
from typing import Any, NamedTuple

from jaxnet import text
from jaxnet.gradcheck.explain import Location
from jaxnet.gradcheck.judgement import FAIL, INCONCLUSIVE, PASS, Interval
from jaxnet.gradcheck.thresholds import THRESHOLDS

__all__ = ["GradientError", "LeafReport", "Report", "Slope"]


class GradientError(AssertionError):
    """A gradient did not pass. The message's first line names the leaf; the report follows."""


class Slope(NamedTuple):
    """The slope along one direction of a leaf, by the gradient and by differences.

    Attributes:
      given: of the gradient under audit.
      numerical: by differences.
      truncation: bound of the error of ``numerical`` from the curve within the step.
      round_off: bound of its error from rounding in the function's values.
      step: the finest step used, relative to the leaf's scale.
    """

    given: float
    numerical: float
    truncation: float
    round_off: float
    step: float


class LeafReport(NamedTuple):
    """The verdict on one leaf of the gradient. Errors are relative to ``norm``.

    Attributes:
      path: of the leaf, e.g. ``params[0].weight``.
      shape: of the leaf.
      dtype: of the leaf.
      verdict: ``"pass"``, ``"fail"``, or ``"inconclusive"`` where the differences cannot tell.
      tolerance: relative error up to which the leaf passes.
      norm: of the right gradient in this leaf, as far as it is known.
      error: estimate of the gradient's error.
      interval: bounds of the error, each exceeded with a chance of one in a million.
      bar: error bar of the differences themselves.
      miss: probability that an error above the tolerance would have measured as small as this one;
        NaN where the gradient is zero and has no relative error.
      sees: detection limit: a further error of this size or more would have failed.
      autodiff_error: error of the given gradient against `jax.grad`, all coordinates; None if no
        gradient was given.
      diagnosis: likely cause of an error, or another remark; may be empty.
      location: which coordinates are wrong; None if none are, or if they were not searched.
      control: whether a planted error of the size ``sees`` was detected; None if none was planted.
      slopes: what was measured.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    verdict: str
    tolerance: float
    norm: float
    error: float
    interval: Interval
    bar: float
    miss: float
    sees: float
    autodiff_error: float | None
    diagnosis: str
    location: Location | None
    control: bool | None
    slopes: tuple[Slope, ...]


class Report(NamedTuple):
    """The verdict on a gradient; ``str(report)`` is a table.

    Attributes:
      leaves: a `LeafReport` for each array of the gradient.
      tolerance: the largest tolerance of a leaf.
      dtype: dtypes of the gradient, e.g. ``"bfloat16 and float32"``.
      reference: dtype in which the differences were taken.
      subject: what was audited: ``"gradient"``, ``"vjp"``, ``"jvp"`` or ``"hvp"``.
      notes: remarks on all leaves.
    """

    leaves: tuple[LeafReport, ...]
    tolerance: float
    dtype: str
    reference: str
    subject: str = "gradient"
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """``"fail"`` if any leaf fails, else ``"inconclusive"`` if any is, else ``"pass"``."""
        verdicts = {leaf.verdict for leaf in self.leaves}
        return next((each for each in (FAIL, INCONCLUSIVE, PASS) if each in verdicts), INCONCLUSIVE)

    @property
    def worst(self) -> LeafReport:
        """The leaf to look at first: of the overall verdict, the one with the largest error."""
        if not self.leaves:
            raise ValueError(f"the {self.subject} has no leaves: {'; '.join(self.notes)}")
        candidates = [leaf for leaf in self.leaves if leaf.verdict == self.verdict]
        return max(candidates, key=lambda leaf: math.inf if math.isnan(leaf.error) else leaf.error)

    def __str__(self) -> str:
        against_jax = any(leaf.autodiff_error is not None for leaf in self.leaves)
        header = ["leaf", "shape", "norm", "error", "at most", "verdict"]
        rows = [
            [
                leaf.path,
                str(leaf.shape),
                f"{leaf.norm:.2e}",
                f"{leaf.error:.1e}",
                f"{leaf.interval.high:.1e}",
                leaf.verdict,
            ]
            for leaf in self.leaves
        ]
        if against_jax:
            header.insert(5, "against jax.grad")
            for row, leaf in zip(rows, self.leaves, strict=True):
                error = leaf.autodiff_error
                row.insert(5, "-" if error is None else f"{error:.1e}")
        findings = [line for leaf in self.leaves for line in _findings(leaf)]
        return "\n".join([text.table(header, rows), *findings, *self._summary()])

    def _summary(self) -> list[str]:
        line = f"{self.verdict}: {self.subject} in {self.dtype}, differences in {self.reference}, "
        tolerances = sorted({leaf.tolerance for leaf in self.leaves} or {self.tolerance})
        line += f"relative tolerance {' and '.join(f'{each:g}' for each in tolerances)}"
        chances = [leaf.miss for leaf in self.leaves if not math.isnan(leaf.miss)]
        if self.verdict == PASS and chances:
            miss = max(chances)
            line += f"; an error above it would be missed with a chance of {_chance(miss)}"
        return [line, *self.notes]

    def to_json(self) -> str:
        """Returns the whole report as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def to_dict(self) -> dict[str, Any]:
        """Returns the whole report as values that JSON can hold, for a larger record.

        JSON has no NaN and no infinity: they become the strings ``"nan"`` and ``"inf"``.
        """
        return {"verdict": self.verdict, **text.plain(self)}

    def raise_if_failed(self) -> None:
        """Raises unless the verdict is ``"pass"``.

        Raises:
          GradientError: a verdict of ``"fail"`` or ``"inconclusive"``.
        """
        if self.verdict == PASS:
            return
        if not self.leaves:
            raise GradientError(f"the {self.subject}: {'; '.join(self.notes)}")
        worst = self.worst
        location = worst.location.worst[0].path if worst.location and worst.location.worst else ""
        details = [worst.diagnosis, f"worst at {location}" if location else ""]
        raise GradientError(
            f"the {self.subject} in {worst.path}: {worst.verdict}, relative error "
            f"{worst.error:.1e}{''.join(f'; {each}' for each in details if each)}\n{self}"
        )


def _findings(leaf: LeafReport) -> list[str]:
    found = []
    if leaf.diagnosis:
        found.append(leaf.diagnosis)
    if leaf.location:
        found += str(leaf.location).splitlines()
    if leaf.control is False:
        found.append(f"a planted error of {leaf.sees:.1e} was not seen")
    return [f"  {leaf.path}: {found[0]}", *(f"    {line}" for line in found[1:])] if found else []


def _chance(miss: float) -> str:
    least = THRESHOLDS.least_chance
    return f"less than {least:.0e}" if miss < least else f"{miss:.0e}"
