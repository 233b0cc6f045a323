"""What an audit found, to be read, kept or raised."""

import json
import math
from typing import Any, NamedTuple

from jaxnet.gradcheck.judgement import FAIL, INCONCLUSIVE, PASS, Interval
from jaxnet.gradcheck.location import Location


class GradientError(AssertionError):
    """A gradient that did not pass; the first line of the message names the leaf, the rest
    is the report."""


class Slope(NamedTuple):
    """The gradient along one direction of a leaf, divided by the direction's scale.

    Attributes:
      given: according to the gradient under audit.
      numerical: according to differences.
      truncation: by which the curve within the step may have shifted the latter.
      round_off: by which the last digits of the values may have.
      step: the finest used, relative to the leaf's scale.
    """

    given: float
    numerical: float
    truncation: float
    round_off: float
    step: float


class LeafReport(NamedTuple):
    """What was found in one leaf. Errors are relative to ``norm``.

    Attributes:
      path: of the leaf, e.g. ``params[0].weight``.
      shape: of the leaf.
      dtype: of the leaf.
      verdict: ``"pass"``, ``"fail"``, or ``"inconclusive"`` where differences are too coarse.
      tolerance: relative error up to which it passes.
      norm: of the right gradient in this leaf, as far as it is known.
      error: estimate of the error of the gradient.
      interval: where it lies, but for a chance of one in a million at either end.
      bar: by how much the differences themselves may be off.
      miss: chance that an error above the tolerance would have looked as small as this one; NaN
        where the gradient is zero, and has no relative error.
      sees: smallest further error that would certainly have failed.
      autodiff_error: of the given gradient against `jax.grad`, at every coordinate; None if no
        gradient was given.
      diagnosis: the likely cause of what is not right, or what there is to know; may be empty.
      location: which coordinates are off; None if none are, or if it was not searched.
      control: whether a planted error of the size ``sees`` was seen; None if none was planted.
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
      leaves: a `LeafReport` each.
      tolerance: the largest of its leaves'.
      dtype: in which the gradient was computed, or several: ``"bfloat16 and float32"``.
      reference: in which the differences were taken.
      subject: what was audited: ``"gradient"``, ``"vjp"``, ``"jvp"`` or ``"hvp"``.
      notes: what concerns all leaves.
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
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (header, *rows)
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        for leaf in self.leaves:
            lines += _findings(leaf)
        return "\n".join([*lines, *self._summary()])

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
        """Returns all of the report as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def to_dict(self) -> dict[str, Any]:
        """Returns all of the report as plain values, for a larger JSON record.

        JSON has no NaN and no infinity: they become the strings ``"nan"`` and ``"inf"``.
        """
        return {"verdict": self.verdict, **_plain(self)}

    def raise_if_failed(self) -> None:
        """Raises `GradientError` unless the verdict is ``"pass"``."""
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
    return "less than 1e-12" if miss < 1e-12 else f"{miss:.0e}"


def _plain(value: Any) -> Any:
    if fields := getattr(value, "_fields", ()):
        return {name: _plain(each) for name, each in zip(fields, value, strict=True)}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
