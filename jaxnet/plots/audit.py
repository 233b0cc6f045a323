"""The pictures of a gradient audit."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from jaxnet.plots.numbers import finite
from jaxnet.plots.style import BLUE, GREY, ORANGE, plain_powers

__all__ = ["convergence", "detection", "error_map", "slopes"]

_SHOWN = 256  # rows and columns of a heat map


def convergence(curves: Mapping[str, Any]) -> Figure:
    """Returns the error of finite differences over their step, measured and predicted.

    Truncation makes it fall with the step and rounding makes it rise again: a V.

    Args:
      curves: a `gradcheck.Convergence` as JSON: ``path``, ``dtype``, ``steps``, ``chosen``, and for
        ``forward`` and ``central`` the fields of a `gradcheck.Curve`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxnet import gradcheck, text
      >>> found = gradcheck.convergence(lambda x: jnp.sum(x**3), jnp.array([1.0, 2.0]))
      >>> figure = convergence(text.plain(found))
      >>> figure.axes[0].get_xlabel()
      "step, relative to the leaf's scale"
    """
    figure = Figure(figsize=(6, 4.8), layout="constrained")
    axes = figure.subplots()
    steps, measured = np.array(curves["steps"]), np.array([])
    for scheme, color in (("forward", ORANGE), ("central", BLUE)):
        curve = curves[scheme]
        errors = finite(curve["errors"])
        measured = np.append(measured, errors[errors > 0])
        names = ("slope", "truncation", "round_off", "predicted")
        slope, truncation, rounding, best = finite([curve[name] for name in names])
        axes.plot(steps, errors, ".", color=color, ms=4, label=f"{scheme}: slope {slope:.3f}")
        axes.plot(steps, truncation * steps ** curve["order"], color=color, lw=0.8, ls="--")
        axes.plot(steps, rounding / steps, color=color, lw=0.8, ls=":")
        axes.axvline(best, color=color, lw=0.8, label=f"{scheme}: predicted best step")
    axes.axvline(curves["chosen"], color="black", lw=1.2, label="finest step that an audit uses")
    axes.plot([], [], GREY, ls="--", lw=0.8, label="predicted truncation")
    axes.plot([], [], GREY, ls=":", lw=0.8, label="predicted round-off")
    axes.set(
        title=f"Error of differences in {curves['path']}, {curves['dtype']}",
        xlabel="step, relative to the leaf's scale",
        ylabel="relative error of the slope",
        xscale="log",
        yscale="log",
    )
    if measured.size:
        axes.set_ylim(measured.min() / 3, measured.max() * 3)
    plain_powers(axes.xaxis, axes.yaxis)
    axes.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    return figure


def slopes(report: Mapping[str, Any]) -> Figure:
    """Returns directional derivatives by the gradient against those by finite differences.

    The panel beside shows how far they differ, with error bars, and the tolerance.

    Args:
      report: a `gradcheck.Report` as JSON, ``report.to_dict()``.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxnet import gradcheck
      >>> report = gradcheck.check(lambda x: jnp.sum(x**2), jnp.ones(3))
      >>> len(slopes(report.to_dict()).axes)
      2
    """
    figure = Figure(figsize=(9.5, 4), layout="constrained")
    both, apart = figure.subplots(1, 2)
    seen = [report["tolerance"]]
    for leaf in report["leaves"]:
        norm = finite([leaf["norm"]])[0] or 1.0
        given, numerical, truncation, round_off = (
            finite([slope[name] for slope in leaf["slopes"]]) / norm
            for name in ("given", "numerical", "truncation", "round_off")
        )
        bar = truncation + round_off
        (points,) = both.plot(numerical, given, ".", label=f"{leaf['path']}: {leaf['verdict']}")
        color = points.get_color()
        distance = np.abs(given - numerical)
        apart.errorbar(numerical, distance, bar, fmt=".", lw=0.8, color=color)
        seen += distance[np.isfinite(distance) & (distance > 0)].tolist()
    ends = both.get_xlim()
    both.plot(ends, ends, color=GREY, lw=0.6, zorder=0)
    both.set(title="Slopes of each leaf, by its norm", xlabel="by differences", ylabel="given")
    both.legend(fontsize=8 if len(report["leaves"]) <= 10 else 6)
    # A logarithmic axis clips the error bars that reach zero.
    apart.set_yscale("log", nonpositive="clip")
    apart.set(
        title="Their distance, by the norm",
        xlabel="by differences",
        ylim=(min(seen) / 10, max(seen) * 10),
    )
    tolerance = f"tolerance {report['tolerance']:g}"
    apart.axhline(report["tolerance"], color="black", lw=1, ls="--", label=tolerance)
    plain_powers(apart.yaxis)
    apart.legend(fontsize=8)
    return figure


def error_map(
    given: np.ndarray,
    right: np.ndarray,
    path: str,
    *,
    fault: str = "",
    tolerance: float | None = None,
) -> Figure:
    """Returns a heat map of the relative error of a weight matrix's gradient.

    An error is divided by the absolute value of the right entry, or by the root mean square of all
    right entries where that is larger. A matrix of more than 256 rows or columns is shown in
    blocks: each has the colour of its largest error.

    Args:
      given: ``(rows, columns)``, the gradient to judge.
      right: ``(rows, columns)``, the right gradient.
      path: the name of the matrix, for the title.
      fault: the name of a fault that was planted, for the title.
      tolerance: the largest error that passes; marked on the colour bar.

    Example:
      >>> right = np.ones((3, 2))
      >>> figure = error_map(1.01 * right, right, "weight", tolerance=1e-3)
      >>> figure.axes[0].get_title()
      'Relative error of the gradient in weight'
    """
    typical = float(np.linalg.norm(right)) / np.sqrt(right.size) or 1.0
    error = np.abs(given - right) / np.maximum(np.abs(right), typical)
    for axis in (0, 1):
        width = -(-error.shape[axis] // _SHOWN)
        starts = np.arange(0, error.shape[axis], width)
        error = np.maximum.reduceat(error, starts, axis=axis)
    marks = [] if tolerance is None else [tolerance / 2, 2 * tolerance]
    least = max(float(min([*error[error > 0], *marks], default=1.0)), 1e-17)
    largest = max([float(error.max()), 10 * least, *marks])
    figure = Figure(figsize=(5.5, 4.5), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(
        np.maximum(error, least),
        norm=LogNorm(least, largest),
        cmap="magma",
        aspect="auto",
        interpolation="nearest",
        extent=(-0.5, right.shape[1] - 0.5, right.shape[0] - 0.5, -0.5),
    )
    title = f"Relative error of the gradient in {path}"
    axes.set(
        title=f"{title}\nwith the fault {fault}" if fault else title, xlabel="column", ylabel="row"
    )
    bar = figure.colorbar(shown, ax=axes)
    plain_powers(bar.ax.yaxis)
    if tolerance is not None:
        bar.ax.axhline(tolerance, color="white", lw=3)
        bar.ax.axhline(tolerance, color="black", lw=1.2)
        bar.set_label(f"line: tolerance {tolerance:g}")
    return figure


def detection(rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> Figure:
    """Returns a table: for each fault and checker, the share of states in which the fault passed.

    Args:
      rows: one for each state and fault: its name, ``fault``, and each checker's verdict.
      summary: the keys whose values are dicts name the checkers.

    Example:
      >>> rows = [{"fault": "sign", "ours": "fail", "theirs": "pass"}]
      >>> figure = detection(rows, {"ours": {}, "theirs": {}})
      >>> [text.get_text() for text in figure.axes[0].texts]
      ['100%']
    """
    checkers = [name for name, found in summary.items() if isinstance(found, dict)]
    names = list(dict.fromkeys(row["fault"] for row in rows))
    shares = np.zeros((len(names), len(checkers)))
    for i, name in enumerate(names):
        planted = [row for row in rows if row["fault"] == name]
        for j, checker in enumerate(checkers):
            shares[i, j] = np.mean([row[checker] == "pass" for row in planted])
    order = np.argsort(-shares.sum(axis=1), kind="stable")
    figure = Figure(figsize=(6, 0.6 + 0.17 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares[order], cmap="Reds", vmin=0, vmax=1, aspect="auto")
    for (i, j), share in np.ndenumerate(shares[order]):
        if share:
            color = "white" if share > 0.5 else "black"
            axes.text(j, i, f"{share:.0%}", ha="center", va="center", color=color, fontsize=6)
    axes.set_xticks(range(len(checkers)), checkers, fontsize=7)
    axes.set_yticks(range(len(names)), [names[i] for i in order], fontsize=6)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.set_title("States in which a wrong gradient passed", pad=22)
    return figure
