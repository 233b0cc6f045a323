"""The pictures of a run, drawn from its record."""

import os
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure

from jaxnet import record
from jaxnet.plots.style import BLUE, ORANGE, STYLE

_MAX_NEURONS = 64
_MAX_MISTAKES = 24


def draw_run(directory: str | os.PathLike) -> list[Path]:
    """Draws the pictures of a finished run into its folder.

    They are ``training.png`` (loss and accuracy over epochs), ``weights.png`` (the first layer as
    heat maps), ``confusion.png`` and ``mistakes.png`` (the worst, with their images), the last only
    if there are any.

    Args:
      directory: the folder of a `record.Record` that holds its metrics, summary and parameters.

    Returns:
      The paths of the files written.
    """
    directory = Path(directory)
    summary = record.read_json(directory / record.SUMMARY)
    with np.load(directory / record.PARAMS) as params:
        weight = params["[0].weight"].astype(float)
    worst = record.read_json(directory / record.MISTAKES)
    with mpl.rc_context(STYLE):
        figures = [
            training(list(record.read_metrics(directory)), summary),
            first_layer(weight, tuple(summary["image_shape"])),
            confusion(np.array(summary["confusion"])),
            *([mistakes(worst, summary)] if worst else []),
        ]
        paths = [directory / name for name, _ in zip(record.PICTURES, figures, strict=False)]
        for figure, path in zip(figures, paths, strict=True):
            figure.savefig(path, bbox_inches="tight")
    return paths


def training(metrics: list[dict[str, Any]], summary: dict[str, Any]) -> Figure:
    """Returns loss and validation accuracy over epochs, the final test result as a dotted line.

    Where the gradient was audited on the way, its error is shown beside them. A ``unit`` in the
    summary is what the run calls a pass over the data, if not an epoch.
    """
    unit = summary.get("unit", "epoch")
    epochs = [line["epoch"] for line in metrics]
    held_out = [line for line in metrics if line["validation_loss"] is not None]
    audited = [line for line in metrics if "gradient" in line]
    marker = "o" if len(epochs) == 1 else ""
    test = f"test, at the end: {summary['test_accuracy']:.2%}"
    panels = 1 + bool(held_out) + bool(audited)
    figure = Figure(figsize=(0.5 + 4 * panels, 3.2), layout="constrained")
    loss, *others = figure.subplots(1, panels, squeeze=False)[0]
    if audited:
        _gradient_errors(others.pop(), audited, unit)
    loss.plot(epochs, [m["train_loss"] for m in metrics], BLUE, marker=marker, label="training")
    for accuracy in others:
        epochs = [line["epoch"] for line in held_out]
        losses = [line["validation_loss"] for line in held_out]
        loss.plot(epochs, losses, ORANGE, marker=marker, label="validation")
        shares = [100 * line["validation_accuracy"] for line in held_out]
        accuracy.plot(epochs, shares, ORANGE, marker=marker, label="validation")
        accuracy.axhline(100 * summary["test_accuracy"], color="0.4", ls=":", label=test)
        accuracy.set(title="Accuracy (%)", xlabel=unit)
    loss.axhline(summary["test_loss"], color="0.4", ls=":", label="test, at the end")
    loss.set(title="Squared error, summed over outputs", xlabel=unit, yscale="log")
    # Plain numbers: powers of ten would be set as mathematics, in fonts that a cache may have lost.
    loss.yaxis.set_major_formatter("{x:g}")
    loss.yaxis.set_minor_formatter(ticker.LogFormatter(minor_thresholds=(1, 0.5)))
    for axes in (loss, *others):
        axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        axes.legend()
    return figure


def _gradient_errors(axes: Any, audited: list[dict[str, Any]], unit: str) -> None:
    """Draws each leaf's relative error of the gradient over epochs, and the tolerance."""
    epochs = [line["epoch"] for line in audited]
    for path in audited[0]["gradient"]["errors"]:
        errors = [float(line["gradient"]["errors"][path]) for line in audited]
        axes.plot(epochs, errors, ".-", lw=0.8, ms=4, label=path)
    axes.set(title="Relative error of the gradient", xlabel=unit, yscale="log")
    tolerance = audited[-1]["gradient"].get("tolerance")  # which older records lack
    if tolerance is not None:
        axes.axhline(tolerance, color="black", ls="--", lw=1, label=f"tolerance {tolerance:g}")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter("{x:.0e}")
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    axes.legend(fontsize=8)


def first_layer(weight: np.ndarray, image_shape: tuple[int, int]) -> Figure:
    """Returns the weights into each neuron of the first layer, as an image of the input's shape.

    Args:
      weight: ``(height * width, neurons)``; of many neurons, those with the largest norm are shown.
      image_shape: ``(height, width)``.
    """
    order = np.argsort(-np.linalg.norm(weight, axis=0), kind="stable")[:_MAX_NEURONS]
    images = weight[:, order].T.reshape(-1, *image_shape)
    mosaic, _ = _mosaic(images, columns=16 if len(images) > 32 else 8)
    limit = float(np.percentile(np.abs(images), 99.5)) or 1.0
    figure = Figure(
        figsize=(8, min(7.4 * mosaic.shape[0] / mosaic.shape[1] + 0.5, 40)), layout="tight"
    )
    axes = figure.subplots()
    axes.set_axis_off()
    shown = axes.imshow(mosaic, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    some = f" ({len(order)} of {weight.shape[1]})" if len(order) < weight.shape[1] else ""
    axes.set_title(f"Weights into each neuron of the first layer, the largest first{some}")
    figure.colorbar(shown, ax=axes, shrink=0.7, pad=0.02)
    return figure


def confusion(matrix: np.ndarray) -> Figure:
    """Returns the confusion matrix; colour shows the mistakes, so that they can be seen.

    Args:
      matrix: ``(classes, classes)`` counts; rows are true classes, columns predicted ones.
    """
    classes = len(matrix)
    size = max(4.0, 0.45 * min(classes, 40))
    figure = Figure(figsize=(size + 0.6, size), layout="constrained")
    axes = figure.subplots()
    wrong = np.where(np.eye(classes, dtype=bool), 0, matrix)
    axes.imshow(wrong, cmap="Oranges", vmin=0, vmax=max(5, wrong.max()))
    if classes <= 20:
        for (true, predicted), count in np.ndenumerate(matrix):
            dark = true != predicted and count > max(5, wrong.max()) / 2
            axes.text(
                predicted,
                true,
                str(count) if count else "",
                ha="center",
                va="center",
                color="white" if dark else "black",
                fontweight="bold" if true == predicted else "normal",
                fontsize=7,
            )
        axes.set(xticks=range(classes), yticks=range(classes))
    right = np.trace(matrix)
    axes.set(
        title=f"{right:,} of {matrix.sum():,} right (colour: mistakes)",
        xlabel="predicted class",
        ylabel="true class",
    )
    return figure


def mistakes(worst: list[dict[str, Any]], summary: dict[str, Any]) -> Figure:
    """Returns the images that the network got most wrong.

    Args:
      worst: mistakes in order, each with ``image`` (rows of grey levels, 0 to 255), ``label`` and
        ``predicted``.
      summary: of the run, for the size of the test set and the number of mistakes.
    """
    shown = worst[:_MAX_MISTAKES]
    images = np.array([mistake["image"] for mistake in shown], float)
    mosaic, corners = _mosaic(images, columns=8, gap=0.35)
    figure = Figure(
        figsize=(8, min(8 * mosaic.shape[0] / mosaic.shape[1] + 0.6, 40)), layout="tight"
    )
    axes = figure.subplots()
    axes.set_axis_off()
    axes.imshow(mosaic, cmap="gray_r", vmin=0, vmax=255, interpolation="nearest")
    for mistake, (top, left) in zip(shown, corners, strict=True):
        middle = left + (images.shape[2] - 1) / 2
        text = f"{mistake['label']} read as {mistake['predicted']}"
        axes.text(middle, top - 0.06 * images.shape[1] - 0.5, text, ha="center", fontsize=7)
    confusion = np.array(summary["confusion"])
    wrong = confusion.sum() - np.trace(confusion)
    which = f"The {wrong:,}" if wrong == len(shown) else f"The {len(shown)} worst of {wrong:,}"
    axes.set_title(f"{which} mistakes among {summary['test_examples']:,} test images", pad=18)
    return figure


def _mosaic(
    images: np.ndarray, *, columns: int, gap: float = 0.12
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Puts images into one, with gaps of NaN, which are not drawn: one picture draws faster.

    Returns:
      The mosaic and the ``(top, left)`` of every image in it.
    """
    count, height, width = images.shape
    rows, columns = -(-count // columns), min(columns, count)
    space = max(1, round(gap * height))
    corners = [
        (index // columns * (height + space), index % columns * (width + space))
        for index in range(count)
    ]
    mosaic = np.full((rows * (height + space) - space, columns * (width + space) - space), np.nan)
    for image, (top, left) in zip(images, corners, strict=True):
        mosaic[top : top + height, left : left + width] = image
    return mosaic, corners
