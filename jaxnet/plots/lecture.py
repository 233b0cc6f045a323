"""The pictures of the lecture's page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxnet.plots.numbers import finite
from jaxnet.plots.style import BLUE, GREY, ORANGE, PURPLE, plain_powers

__all__ = [
    "activations",
    "backward",
    "difference_errors",
    "guesses",
    "kernels",
    "ladder",
    "neuron",
    "program",
]


def neuron(
    points: np.ndarray, labels: np.ndarray, weights: Mapping[str, Sequence[float]]
) -> Figure:
    """Returns the output of sigmoid neurons over the plane of their two inputs, one panel each.

    A line marks the decision boundary, where the output is 1/2.

    Args:
      points: ``(n, 2)``, the examples.
      labels: ``(n,)``, their classes, 0 or 1.
      weights: for each neuron, by the title of its panel, the bias w0 and the weights w1 and w2.

    Example:
      >>> figure = neuron(np.eye(2), np.array([0, 1]), {"by hand": (0.0, 1.0, -1.0)})
      >>> figure.axes[0].get_title()
      'by hand'
    """
    figure, shown = Figure(figsize=(3.1 * len(weights), 3.1), layout="constrained"), None
    grid = np.linspace(-5, 5, 201)
    across, up = np.meshgrid(grid, grid)
    panels = np.atleast_1d(figure.subplots(1, len(weights), sharey=True))
    for axes, (title, (w0, w1, w2)) in zip(panels, weights.items(), strict=True):
        output = 1 / (1 + np.exp(-(w0 + w1 * across + w2 * up)))
        shown = axes.pcolormesh(
            across, up, output, cmap="coolwarm", vmin=0, vmax=1, rasterized=True
        )
        axes.contour(across, up, output, levels=[0.5], colors="black", linewidths=1)
        for label, marker in ((0, "o"), (1, "s")):
            chosen = points[labels == label]
            axes.plot(*chosen.T, marker, color="white", mec="black", label=f"t = {label}")
        axes.set(title=title, xlabel="x1", aspect="equal")
    panels[0].set_ylabel("x2")
    panels[0].legend(loc="lower right", frameon=True, fontsize=7)
    if shown is not None:
        figure.colorbar(shown, ax=panels.tolist(), label="output", shrink=0.8)
    return figure


def guesses(dimensions: Sequence[int], needed: Mapping[str, Sequence[float]]) -> Figure:
    """Returns how many random guesses a goal takes, over the number of weights.

    A dashed line shows a grid search over ten values for each weight.

    Args:
      dimensions: numbers of weights.
      needed: for each of three goals, by its name, the mean number of guesses in each dimension;
        NaN where it was not measured.

    Example:
      >>> figure = guesses([1, 2], {"easy": [2, 4], "medium": [5, 50], "hard": [9, float("nan")]})
      >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
      ['grid, 10 values each', 'easy', 'medium', 'hard']
    """
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(
        dimensions, [10.0**d for d in dimensions], "--", color=GREY, label="grid, 10 values each"
    )
    for (label, counts), color in zip(needed.items(), (BLUE, ORANGE, PURPLE), strict=True):
        axes.plot(dimensions, counts, "o-", color=color, label=label)
    axes.set(xlabel="weights", ylabel="guesses, on average", yscale="log", xticks=list(dimensions))
    plain_powers(axes.yaxis)
    axes.legend()
    return figure


def ladder(problems: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Returns the smallest loss that each optimizer has found, over its evaluations of the loss.

    Args:
      problems: by the title of the panel, the ``goal``, a loss, and the optimizers, ``rungs``: by
        name, the numbers of evaluations, ``losses``, and the loss after each, ``values``.

    Example:
      >>> rungs = {"guessing": {"losses": [1, 10], "values": [1.0, 0.1]}}
      >>> figure = ladder({"bowl": {"goal": 0.01, "rungs": rungs}})
      >>> figure.axes[0].get_title()
      'bowl'
    """
    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(problems)))
    for axes, (name, problem) in zip(panels, problems.items(), strict=True):
        for i, (rung, curve) in enumerate(problem["rungs"].items()):
            best = np.fmin.accumulate(finite(curve["values"]))
            style = ("-", "--", ":")[i % 3]
            axes.plot(curve["losses"], best, style, color=f"C{i}", lw=1.2, label=rung)
        axes.axhline(problem["goal"], color="black", lw=0.6)
        lowest = problem["goal"] / 100
        axes.set(title=name, xlabel="losses evaluated", xscale="log", yscale="log")
        axes.set_ylim(bottom=lowest)
        plain_powers(axes.yaxis)
        plain_powers(axes.xaxis, count=5)
    panels[0].set_ylabel("least loss so far")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7
    )
    return figure


def difference_errors(curves: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Returns the error of forward and central differences over the step, one panel a function.

    Args:
      curves: by function and by dtype, ``"float32"`` and ``"float64"``, the ``steps`` and the
        relative errors, ``forward`` and ``central``.

    Example:
      >>> curve = {"steps": [0.1, 0.01], "forward": [0.1, 0.01], "central": [1e-2, 1e-4]}
      >>> figure = difference_errors({"sin": {"float32": curve, "float64": curve}})
      >>> figure.axes[0].get_title()
      'sin'
    """
    figure = Figure(figsize=(9.5, 3.4), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(curves), sharey=True))
    for axes, (name, by_dtype) in zip(panels, curves.items(), strict=True):
        for dtype, marker in (("float32", "x"), ("float64", ".")):
            for scheme, color in (("forward", ORANGE), ("central", BLUE)):
                errors = finite(by_dtype[dtype][scheme])
                errors = np.where(errors > 0, errors, np.nan)
                label = f"{scheme}, {dtype}"
                axes.plot(by_dtype[dtype]["steps"], errors, marker, color=color, ms=4, label=label)
        axes.set(title=name, xlabel="step h", xscale="log", yscale="log")
        plain_powers(axes.yaxis)
        plain_powers(axes.xaxis, count=5)
    panels[0].set_ylabel("relative error of the slope")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8
    )
    return figure


def activations(
    layers: Sequence[np.ndarray], names: Sequence[str], shape: tuple[int, int], target: np.ndarray
) -> Figure:
    """Returns an image, and the activations of each layer of the network as bars.

    Args:
      layers: the inputs, then the activations of each layer, ``(width,)`` each.
      names: a title for each of ``layers``.
      shape: ``(height, width)`` of the image.
      target: ``(width of the last layer,)``, marked in its panel.

    Example:
      >>> figure = activations([np.ones(4), np.ones(2)], ["in", "out"], (2, 2), np.eye(2)[0])
      >>> figure.axes[1].get_title()
      'out, and target'
    """
    figure = Figure(figsize=(2.3 * len(layers), 2.8), layout="constrained")
    first, *others = figure.subplots(1, len(layers))
    first.imshow(layers[0].reshape(shape), cmap="Greens", vmin=0, vmax=1)
    first.set(title=names[0], xticks=[], yticks=[])
    for number in range(layers[0].size if layers[0].size <= 25 else 0):
        row, column = divmod(number, shape[1])
        first.text(column, row, str(number), ha="center", va="center", fontsize=6, color=GREY)
    for axes, layer, name in zip(others, layers[1:], names[1:], strict=True):
        axes.barh(range(len(layer)), layer, color=BLUE)
        axes.set(title=name, xlim=(0, 1), yticks=range(len(layer)), xlabel="activation")
        axes.tick_params(axis="y", labelsize=6)
        axes.invert_yaxis()
    others[-1].plot(target, range(len(target)), "d", color=PURPLE, ms=5, clip_on=False)
    others[-1].set_title(f"{names[-1]}, and target")
    return figure


def backward(gradients: Sequence[np.ndarray], names: Sequence[str], title: str) -> Figure:
    """Returns the gradient of every weight, one panel a layer; red is positive, blue negative.

    Args:
      gradients: ``(inputs, outputs)`` for each layer, from the first to the last.
      names: a title for each layer.
      title: is written above the picture.

    Example:
      >>> figure = backward([np.ones((3, 2))], ["hidden"], "gradient")
      >>> figure.axes[0].get_title()
      'hidden'
    """
    figure = Figure(figsize=(4.2 * len(gradients), 3), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(gradients)))
    for axes, gradient, name in zip(panels, gradients, names, strict=True):
        most = float(np.abs(gradient).max()) or 1.0
        shown = axes.imshow(gradient.T, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto")
        axes.set(title=name, xlabel="from", ylabel="to")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
        figure.colorbar(shown, ax=axes)
    figure.suptitle(title, fontsize=10)
    return figure


def program(losses: Sequence[float], accuracies: Mapping[int, float]) -> Figure:
    """Returns the loss and the test accuracy over the iterations of the lecture's program.

    Args:
      losses: the loss after 0, 1, 2, ... iterations.
      accuracies: by the number of iterations, the accuracy on the test set, 0 to 1.

    Example:
      >>> figure = program([1.0, 0.5], {0: 0.1, 1: 0.6})
      >>> [panel.get_ylabel() for panel in figure.axes]
      ['MSE loss', 'test accuracy']
    """
    figure = Figure(figsize=(5.5, 3.3), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(len(losses)), losses, color=BLUE, label="MSE loss")
    axes.set(xlabel="iterations done", ylabel="MSE loss", ylim=(0, None))
    axes.set_xscale("symlog", linthresh=1)  # a logarithmic axis has no 0
    right = axes.twinx()
    right.plot(*zip(*accuracies.items(), strict=True), "o", color=ORANGE, label="test accuracy")
    right.set(ylabel="test accuracy", ylim=(0, 1))
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def kernels(weights: Mapping[str, np.ndarray], shape: tuple[int, int]) -> Figure:
    """Returns the weights of the first layer as heat maps, one row for each moment of a run.

    Args:
      weights: ``(pixels, units)`` by moment, a number of iterations or another title; the first ten
        units are shown.
      shape: ``(height, width)`` of an image.

    Example:
      >>> figure = kernels({"10": np.ones((4, 10))}, (2, 2))
      >>> len(figure.axes)
      10
    """
    figure = Figure(figsize=(9, 1.05 * len(weights)), layout="constrained")
    rows = figure.subplots(len(weights), 10)
    for line, (title, weight) in zip(np.atleast_2d(rows), weights.items(), strict=True):
        for unit, axes in enumerate(line):
            column = weight[:, unit]
            most = float(np.abs(column).max())
            axes.imshow(column.reshape(shape), cmap="RdBu_r", vmin=-most, vmax=most)
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(f"{title}\niterations" if title[0].isdigit() else title, fontsize=7)
    return figure
