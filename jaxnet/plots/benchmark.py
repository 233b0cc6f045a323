"""Pictures of speed: rates under a roofline, and how cost grows with size."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaxnet.plots.numbers import finite
from jaxnet.plots.style import BLUE, GREY, ORANGE, plain_powers

__all__ = ["roofline", "scaling"]


def roofline(
    programs: Mapping[str, tuple[float, float]],
    *,
    bandwidth: float,
    peaks: Mapping[str, float],
    highlighted: Collection[str] = (),
) -> Figure:
    """Returns a roofline plot: the rate of each program under the limits of the machine.

    Args:
      programs: by name, operations per byte and GFLOP/s.
      bandwidth: of the memory, GB/s.
      peaks: by name, the best rate of one kind of operation, GFLOP/s; one or two.
      highlighted: names of programs that are drawn in another colour.

    References:
      Williams, Waterman and Patterson (2009), "Roofline: an insightful visual performance model".

    Example:
      >>> figure = roofline({"ours": (100.0, 300.0)}, bandwidth=50.0, peaks={"float32": 500.0})
      >>> [text.get_text() for text in figure.axes[0].texts]
      ['ours']
    """
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    intensity, highest = np.geomspace(4, 1500, 200), max(peaks.values())
    for (name, peak), style in zip(peaks.items(), ("-", "--"), strict=False):
        roof = np.minimum(bandwidth * intensity, peak)
        axes.plot(intensity, roof, style, color=GREY, lw=1, label=f"best rate of {name}")
    columns: dict[float, list[tuple[str, float]]] = {}
    for name, (x, rate) in sorted(programs.items(), key=lambda item: -item[1][1]):
        columns.setdefault(x, []).append((name, rate))
    # Labels stand right and left of the columns in turn, so that neighbours do not collide.
    for number, (x, points) in enumerate(sorted(columns.items(), reverse=True)):
        is_left = number % 2 == 1
        heights = _spread([rate for _, rate in points], highest / 28)
        for (name, rate), height in zip(points, heights, strict=True):
            axes.plot(x, rate, "o", color=ORANGE if name in highlighted else BLUE, ms=5)
            axes.annotate(
                name,
                (x, rate),
                xytext=((0.89 if is_left else 1.12) * x, height),
                ha="right" if is_left else "left",
                va="center",
                fontsize=7,
                arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.4},
            )
    axes.set(
        xlabel="operations for each byte of images that is read",
        ylabel="GFLOP/s",
        xscale="log",
        ylim=(0, 1.1 * highest),
        xlim=(4, 5000),
    )
    axes.xaxis.set_major_formatter("{x:g}")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _spread(heights: Sequence[float], gap: float) -> np.ndarray:
    """Returns the heights of labels, largest first, moved at least ``gap`` apart."""
    placed: list[float] = []
    for height in heights:
        placed.append(min(height, placed[-1] - gap) if placed else height)
    return np.asarray(placed) + np.mean(np.subtract(heights, placed))


def scaling(
    curves: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    exponents: Mapping[str, float | str | None],
) -> Figure:
    """Returns how time and memory of an iteration grow, one column a curve.

    Args:
      curves: by what grows, the measurements: ``size``, ``seconds`` (several), their ``median``,
        ``peak_mb`` of the process, and ``compiled``, which holds the compiler's ``temporary_mb`` or
        is None.
      exponents: for each curve p, where time grows as size to the power p.

    Example:
      >>> point = {"size": 1, "seconds": [0.1], "median": 0.1, "peak_mb": 9.0, "compiled": None}
      >>> figure = scaling({"batch": [point]}, exponents={"batch": 1.0})
      >>> figure.axes[0].get_title()
      'batch, power 1.00'
    """
    figure = Figure(figsize=(2.6 * len(curves), 4.6), layout="constrained")
    panels = figure.subplots(2, len(curves), sharey="row", squeeze=False)
    for (name, curve), above, below in zip(curves.items(), *panels, strict=True):
        sizes = [each["size"] for each in curve]
        median = np.array([each["median"] for each in curve])
        least, most = (np.array([f(each["seconds"]) for each in curve]) for f in (min, max))
        (power,) = finite([exponents[name]])
        above.errorbar(sizes, median, [median - least, most - median], fmt="o-", color=BLUE, ms=4)
        above.set(title=f"{name}, power {power:.2f}", xscale="log", yscale="log")
        below.plot(sizes, [each["peak_mb"] for each in curve], "o-", color=BLUE, ms=4)
        temporary = [(each["compiled"] or {}).get("temporary_mb", np.nan) for each in curve]
        below.plot(sizes, temporary, "s--", color=ORANGE, ms=3)
        below.set(xlabel=name, xscale="log", yscale="log")
        for axes in (above, below):
            plain_powers(axes.xaxis, count=4)
            plain_powers(axes.yaxis)
    panels[0, 0].set_ylabel("seconds an iteration")
    panels[1, 0].set_ylabel("MB: process, compiler's (dashed)")
    return figure
