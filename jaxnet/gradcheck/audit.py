"""The audit of a gradient: the one given, JAX's own and finite differences, leaf by leaf."""

import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.gradcheck import differences

# A float32 gradient of a deep network carries rounding errors of 1e-6 to 1e-4 of its norm; of a
# float64 one, differences see 1e-8 or so.
_TOLERANCE = {2: 3e-2, 4: 1e-3, 8: 1e-5}  # by the bytes of an element

# If each value of f is off by eps |f|, a difference of two, over 2h, is off by eps |f| / h at most.
# The networks measured stay below a third of that; this many times that is allowed.
_ROUND_OFF_FACTOR = 4.0

# Estimates with other steps differ by their truncation, and by whatever noise f has that its dtype
# does not tell. The steps are no multiples of each other, so that they do not round alike.
_OTHER_STEPS = (2.7, 0.37)
_STEP_FACTOR = 2.0  # times the largest difference is allowed

# Bars of this share of the gradient tell nothing any more, unless the error is ten times as large.
_USELESS = 0.1

# f itself, in the arguments' dtype and in float64, may differ by this share before the audit says
# that it is not the same function; bfloat16 networks come to a few percent.
_VALUE_TOLERANCE = 0.25


class GradientError(AssertionError):
    """A gradient that did not pass; the first line of the message names the leaf, the rest
    is the report."""


class LeafReport(NamedTuple):
    """What was found in one leaf. Errors are relative to the norm of the reference.

    Attributes:
      path: of the leaf in the pytree, e.g. ``"[0].weight"``.
      shape: of the leaf.
      norm: of the gradient in this leaf, according to JAX.
      autodiff_error: of the given gradient against `jax.grad`, all coordinates; None if no gradient
        was given.
      difference_error: of the given gradient, or JAX's, against central differences, at the sampled
        coordinates.
      difference_bar: what round-off and truncation may contribute to ``difference_error``.
      coordinates: how many were sampled.
      verdict: ``"pass"``, ``"fail"``, or ``"inconclusive"`` where differences are too coarse.
    """

    path: str
    shape: tuple[int, ...]
    norm: float
    autodiff_error: float | None
    difference_error: float
    difference_bar: float
    coordinates: int
    verdict: str


class Report(NamedTuple):
    """The verdict on a gradient; ``str(report)`` is a table.

    Attributes:
      leaves: a `LeafReport` each.
      tolerance: the relative error up to which a leaf passes.
      dtype: in which the gradient was computed; the differences are taken in float64.
      note: why differences could not tell, if that concerns all leaves; else empty.
    """

    leaves: tuple[LeafReport, ...]
    tolerance: float
    dtype: str
    note: str = ""

    @property
    def verdict(self) -> str:
        """``"fail"`` if any leaf fails, else ``"inconclusive"`` if any is, else ``"pass"``."""
        verdicts = {leaf.verdict for leaf in self.leaves}
        return next(each for each in ("fail", "inconclusive", "pass") if each in verdicts)

    @property
    def worst(self) -> LeafReport:
        """The leaf to look at first: of the overall verdict, the one with the largest error."""
        candidates = [leaf for leaf in self.leaves if leaf.verdict == self.verdict]
        return max(candidates, key=_largest_error)

    def __str__(self) -> str:
        header = ("leaf", "shape", "norm", "against jax.grad", "against differences", "verdict")
        rows = [
            (
                leaf.path,
                str(leaf.shape),
                f"{leaf.norm:.2e}",
                "-" if leaf.autodiff_error is None else f"{leaf.autodiff_error:.1e}",
                f"{leaf.difference_error:.1e} (at {leaf.coordinates})",
                leaf.verdict,
            )
            for leaf in self.leaves
        ]
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (header, *rows)
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        verdict = f"{self.verdict}: {self.dtype}, relative tolerance {self.tolerance:g}"
        return "\n".join([*lines, verdict, *([self.note] if self.note else [])])

    def to_json(self) -> str:
        """Returns all of the report as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def to_dict(self) -> dict[str, Any]:
        """Returns all of the report as plain values, for a larger JSON record.

        JSON has no NaN and no infinity: they become the strings ``"nan"`` and ``"inf"``.
        """
        return {
            "verdict": self.verdict,
            "tolerance": self.tolerance,
            "dtype": self.dtype,
            "note": self.note,
            "leaves": [
                {name: _plain(value) for name, value in leaf._asdict().items()}
                for leaf in self.leaves
            ],
        }

    def raise_if_failed(self) -> None:
        """Raises `GradientError` unless the verdict is ``"pass"``."""
        if self.verdict != "pass":
            raise GradientError(
                f"the gradient in {self.worst.path}: {self.verdict}, relative error "
                f"{_largest_error(self.worst):.1e}\n{self}"
            )


def check(
    f: Callable[..., Any],
    *args: Any,
    gradient: Any = None,
    argnums: int = 0,
    key: jax.Array | None = None,
    samples: int = 64,
    tolerance: float | None = None,
) -> Report:
    """Audits the gradient of ``f(*args)`` in ``args[argnums]``.

    The gradient is computed as its user computes it, in the dtype of the arguments, and compared
    with `jax.grad` at every coordinate and with central differences in float64 at sampled ones.
    For that, ``f`` must take float64 arguments and be the same function of them.

    Args:
      f: a function that JAX can trace and vectorise, with a real scalar result.
      *args: its arguments; ``args[argnums]`` is a pytree of floating-point arrays.
      gradient: the gradient, a pytree like ``args[argnums]``; or a function that is called as
        ``gradient(*args)`` and returns it; or None for ``jax.grad(f, argnums)``.
      argnums: which argument to differentiate in.
      key: a key of `jax.random` that draws the coordinates; ``jax.random.key(0)`` by default.
      samples: how many coordinates of each leaf, at most.
      tolerance: the error, relative to the norm of a leaf's gradient, up to which it passes; by
        default 1e-5 in float64, 1e-3 in float32, 3e-2 in 16 bits.

    Returns:
      A `Report`.

    Raises:
      ValueError: a gradient whose structure or shapes differ from those of the argument, a
        tolerance that is not positive, or what `finite_difference` refuses.
      TypeError: a gradient whose dtypes differ, or what `finite_difference` refuses.
    """
    if tolerance is not None and not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")
    reference = _reference(f, args, argnums, jax.random.key(0) if key is None else key, samples)
    x = args[argnums]
    automatic = jax.jit(jax.grad(f, argnums))(*args)
    given = automatic
    if gradient is not None:
        # A pytree may be callable: a module of layers is.
        is_tree = jax.tree.structure(gradient) == jax.tree.structure(x)
        given = gradient(*args) if callable(gradient) and not is_tree else gradient
        _check_like(given, x)

    tolerance = (
        tolerance or _TOLERANCE[min(jnp.result_type(leaf).itemsize for leaf in jax.tree.leaves(x))]
    )
    leaves = []
    columns = (
        jax.tree_util.tree_leaves_with_path(x),
        *map(jax.tree.leaves, (given, automatic, *reference.columns)),
    )
    for (path, leaf), given_leaf, automatic_leaf, chosen, here, *others in zip(
        *columns, strict=True
    ):
        ours, theirs = _flat(given_leaf), _flat(automatic_leaf)
        autodiff_error = None if gradient is None else _relative_error(ours, theirs)
        # Relative to what k coordinates of such a leaf amount to, lest a sample of zeros be held
        # against a leaf that has larger ones.
        share = math.sqrt(len(chosen) / len(theirs))
        norms = [np.linalg.norm(here), share * np.linalg.norm(theirs)]
        scale = max((float(norm) for norm in norms if math.isfinite(norm)), default=0.0)
        difference = float(np.linalg.norm(ours[chosen] - here))
        bar = reference.noise * math.sqrt(len(chosen)) + _STEP_FACTOR * float(
            max(np.linalg.norm(here - other) for other in others)
        )
        if difference == 0:
            bar = 0.0  # equal without rounding, as where f does not depend on the leaf
        difference_error, bar = _relative(difference, scale), _relative(bar, scale)
        wrong = not np.isfinite(ours).all() or (autodiff_error or 0.0) > tolerance
        unlike = not difference_error <= tolerance + bar
        telling = not reference.note and (bar < _USELESS or difference_error > bar / _USELESS)
        if wrong or (unlike and telling):
            verdict = "fail"
        else:
            verdict = "pass" if telling and bar <= tolerance else "inconclusive"
        leaves.append(
            LeafReport(
                path=jax.tree_util.keystr(path) or f"args[{argnums}]",
                shape=jnp.shape(leaf),
                norm=float(np.linalg.norm(theirs)),
                autodiff_error=autodiff_error,
                difference_error=difference_error,
                difference_bar=bar,
                coordinates=len(chosen),
                verdict=verdict,
            )
        )
    dtype = str(jnp.result_type(*jax.tree.leaves(x)))
    return Report(tuple(leaves), tolerance, dtype, reference.note)


class _Reference(NamedTuple):
    columns: tuple[Any, ...]  # pytrees like x: (k,) indices, estimates with h and with other steps
    noise: float  # by which round-off may shift an estimate
    note: str


def _reference(f, args, argnums, key, samples) -> _Reference:
    """Takes differences in float64, whatever the arguments' dtype and JAX's configuration."""
    differences.check_argument(args, argnums)
    differences.check_result(f, args)
    coordinates = differences.sample_coordinates(key, args[argnums], samples)
    narrow = float(jax.jit(lambda *args: f(*args))(*args))
    with jax.enable_x64(True):
        wide = jax.tree.map(_to_float64, args)
        estimate = differences.make_estimator(f, argnums, "central")
        step = differences.default_step(np.float64)
        estimates = [
            jax.tree.map(np.asarray, estimate(coordinates, wide, factor * step))
            for factor in (1.0, *_OTHER_STEPS)
        ]
        value = float(jax.jit(lambda *args: f(*args))(*wide))
    note = ""
    if abs(value - narrow) > _VALUE_TOLERANCE * max(abs(value), abs(narrow)):
        note = (
            f"f is {value:g} in float64 and {narrow:g} in the arguments' dtype: differences in "
            f"float64 say nothing of it (random numbers drawn inside f differ, too)"
        )
    noise = _ROUND_OFF_FACTOR * float(np.finfo(np.float64).eps) * abs(value) / step
    return _Reference((coordinates, *estimates), noise, note)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _to_float64(leaf: Any) -> Any:
    if jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
        return np.asarray(leaf, np.float64)
    return leaf


def _check_like(gradient: Any, x: Any) -> None:
    if jax.tree.structure(gradient) != jax.tree.structure(x):
        raise ValueError(
            f"the gradient must have the structure of its argument, {jax.tree.structure(x)}, "
            f"got {jax.tree.structure(gradient)}"
        )
    pairs = zip(jax.tree_util.tree_leaves_with_path(gradient), jax.tree.leaves(x), strict=True)
    for (path, ours), leaf in pairs:
        name = f"gradient{jax.tree_util.keystr(path)}"
        if jnp.shape(ours) != jnp.shape(leaf):
            raise ValueError(f"{name} must have shape {jnp.shape(leaf)}, got {jnp.shape(ours)}")
        if jnp.result_type(ours) != jnp.result_type(leaf):
            raise TypeError(
                f"{name} must have dtype {jnp.result_type(leaf)}, got {jnp.result_type(ours)}"
            )


def _flat(leaf: Any) -> np.ndarray:
    return np.asarray(leaf, np.float64).ravel()


def _relative_error(ours: np.ndarray, reference: np.ndarray) -> float:
    return _relative(float(np.linalg.norm(ours - reference)), float(np.linalg.norm(reference)))


def _relative(error: float, norm: float) -> float:
    if error == 0:
        return 0.0
    return float(error / norm) if norm else float("inf")


def _largest_error(leaf: LeafReport) -> float:
    errors = (leaf.difference_error, leaf.autodiff_error or 0.0)
    return max(math.inf if math.isnan(error) else error for error in errors)
