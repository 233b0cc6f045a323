"""The pictures of the benchmark."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaxnet.plots.style import BLUE, GREY, ORANGE, plain_powers


def roofline(numbers: Mapping[str, Any]) -> Figure:
    """Returns what each library achieves in an iteration, under what the machine can do.

    Arithmetic intensity counts the images once as the library keeps them, and activations not: it
    is the most that a program could reach that keeps them in its caches.

    Args:
      numbers: the record of the suite of steps.
    """
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    ceilings, gflop = numbers["ceilings"], numbers["work"]["gflop"]
    intensity = np.geomspace(4, 1500, 200)
    bandwidth = ceilings["bandwidth"]
    for name, label, style in (
        ("matmul", "float32 products", "-"),
        ("matmul-bfloat16", "bfloat16 products", "--"),
    ):
        roof = np.minimum(bandwidth * intensity, ceilings[name])
        axes.plot(intensity, roof, style, color=GREY, lw=1, label=f"best rate of {label}")
    pixels = 784 * numbers["work"]["batch_size"] / 1e9  # gigabytes, as bytes
    columns: dict[int, list[tuple[str, float]]] = {}  # by the bytes of a pixel
    for name, peer in sorted(numbers["peers"].items(), key=lambda item: -item[1]["gflops"]):
        size = 1 if name.startswith("jaxnet") else 8 if name == "numpy-float64" else 4
        size = 2 if name.startswith("torch-bfloat16") else size
        columns.setdefault(size, []).append((name, peer["gflops"]))
    for size, points in columns.items():
        x, color = gflop / (pixels * size), ORANGE if size == 1 else BLUE
        is_left = size in (2, 8)  # where there is room beside the column
        heights = _spread([y for _, y in points], ceilings["matmul-bfloat16"] / 28)
        for (name, y), height in zip(points, heights, strict=True):
            axes.plot(x, y, "o", color=color, ms=5)
            axes.annotate(
                name,
                (x, y),
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
        ylim=(0, 1.1 * ceilings["matmul-bfloat16"]),
        xlim=(4, 5000),
    )
    axes.xaxis.set_major_formatter("{x:g}")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _spread(heights: Sequence[float], gap: float) -> np.ndarray:
    """Returns heights, the largest first, moved so far apart that no label hides another."""
    placed: list[float] = []
    for height in heights:
        placed.append(min(height, placed[-1] - gap) if placed else height)
    return np.asarray(placed) + np.mean(np.subtract(heights, placed))


def scaling(numbers: Mapping[str, Any]) -> Figure:
    """Returns time and memory of an iteration over what grows.

    Args:
      numbers: the record of the suite of scaling.
    """
    curves = numbers["curves"]
    figure = Figure(figsize=(2.6 * len(curves), 4.6), layout="constrained")
    panels = figure.subplots(2, len(curves), sharey="row")
    for (name, curve), above, below in zip(curves.items(), *panels, strict=True):
        sizes = [each["size"] for each in curve]
        above.errorbar(
            sizes,
            [each["median"] for each in curve],
            [
                [each["median"] - min(each["seconds"]) for each in curve],
                [max(each["seconds"]) - each["median"] for each in curve],
            ],
            fmt="o-",
            color=BLUE,
            ms=4,
        )
        above.set(title=f"{name}, power {numbers['exponents'][name]:.2f}", xscale="log")
        above.set_yscale("log")
        below.plot(sizes, [each["peak_mb"] for each in curve], "o-", color=BLUE, ms=4)
        below.plot(
            sizes,
            [(each["compiled"] or {}).get("temporary_mb", np.nan) for each in curve],
            "s--",
            color=ORANGE,
            ms=3,
        )
        below.set(xlabel=name, xscale="log", yscale="log")
        for axes in (above, below):
            plain_powers(axes.xaxis, count=4)
            plain_powers(axes.yaxis)
    panels[0, 0].set_ylabel("seconds an iteration")
    panels[1, 0].set_ylabel("MB: process, compiler's (dashed)")
    return figure
