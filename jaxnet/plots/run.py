"""The pictures of a run, drawn from its record."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxnet import files, record, text
from jaxnet.plots.numbers import finite
from jaxnet.plots.style import BLUE, ORANGE, save, styled

__all__ = ["confusion", "draw_run", "first_layer", "mistakes", "training"]

_MAX_NEURONS = 64
_MAX_MISTAKES = 24


def draw_run(directory: str | os.PathLike) -> list[Path]:
    """Draws the pictures of a finished run into its folder, each whole or not at all.

    They are ``training.png`` (loss and accuracy over epochs), ``weights.png`` (the first layer as
    heat maps), ``confusion.png``, if the record holds a confusion matrix, and ``mistakes.png`` (the
    worst, with their images), if there are any. A picture of an earlier call stays until the new
    one is complete.

    Args:
      directory: the folder of a `record.Record` with metrics, summary, mistakes and parameters.

    Returns:
      The paths of the files written.

    Raises:
      FileNotFoundError: no such folder, or one that lacks files of a finished run.
      ValueError: files that are not those of a run; the message names the file.
      OSError: a file that cannot be read or written.

    Example:
      >>> draw_run("nothing")
      Traceback (most recent call last):
      FileNotFoundError: there is no folder nothing
    """
    directory = Path(directory)
    run = _read(directory)
    with styled():
        matrix = run.summary["confusion"]
        figures = (
            training(run.metrics, run.summary),
            first_layer(run.weight, run.summary["image_shape"]),
            None if matrix is None else confusion(matrix),
            mistakes(run.worst, run.summary) if run.worst else None,
        )
        paths = []
        for figure, name in zip(figures, record.PICTURES, strict=True):
            if figure is not None:
                paths.append(directory / name)
                save(figure, paths[-1], crop=True)
    return paths


class _Run(NamedTuple):
    """What is drawn of a run; see the arguments of `training`, `first_layer` and `mistakes`."""

    metrics: list[dict[str, Any]]
    summary: dict[str, Any]
    weight: np.ndarray
    worst: list[dict[str, Any]]


def _read(directory: Path) -> _Run:
    """Reads the record of a finished run, once it is one.

    Raises:
      OSError: a file that is missing or cannot be read.
      ValueError: a file with other content.
    """
    if not directory.is_dir():
        raise FileNotFoundError(f"there is no folder {directory}")
    needed = (record.SUMMARY, record.METRICS, record.MISTAKES, record.PARAMS)
    if missing := [name for name in needed if not (directory / name).exists()]:
        raise FileNotFoundError(
            f"{directory} must hold the record of a finished run, but lacks {', '.join(missing)}"
        )
    arrays = files.read_npz(directory / record.PARAMS, ["[0].weight"])
    path = directory / record.PARAMS
    try:
        weight = arrays["[0].weight"].astype(float)
        _expect(weight.ndim == 2, f"[0].weight must be a matrix, got shape {weight.shape}")
        path = directory / record.SUMMARY
        summary = _summary_of(record.read_json(path), len(weight))
        path = directory / record.METRICS
        metrics = [_metrics_of(line) for line in record.read_metrics(directory)]
        _expect(bool(metrics), "it holds no epoch")
        path = directory / record.MISTAKES
        shape = summary["image_shape"]
        worst = [_mistake_of(each, shape) for each in record.read_json(path)]
    except KeyError as error:
        raise ValueError(f"{path} is not of a finished run: it lacks {error}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not of a finished run: {text.first_line(error)}") from error
    return _Run(metrics, summary, weight, worst)


def _expect(is_right: bool, message: str) -> None:
    if not is_right:
        raise ValueError(message)


def _fields(read: Any, *names: str) -> dict[str, Any]:
    """Returns fields of a JSON object."""
    _expect(isinstance(read, dict), f"expected a JSON object, got {type(read).__name__}")
    return {name: read[name] for name in names}


def _summary_of(read: Any, pixels: int) -> dict[str, Any]:
    """Returns what is drawn of a summary."""
    names = ("test_loss", "test_accuracy", "test_examples", "image_shape", "confusion")
    found = _fields(read, *names)
    finite([found["test_loss"]])  # a number
    accuracy, count = found["test_accuracy"], found["test_examples"]
    _expect(0 <= accuracy <= 1, f"test_accuracy must be of 0 to 1, got {accuracy!r}")
    _expect(isinstance(count, int), f"test_examples must be a count, got {count!r}")
    shape, matrix = tuple(found["image_shape"]), found["confusion"]
    _expect(
        len(shape) == 2 and shape[0] * shape[1] == pixels,
        f"image_shape must be of {pixels} pixels, as [0].weight has rows, got {shape}",
    )
    if matrix is not None:
        matrix = np.array(matrix)
        _expect(
            matrix.ndim == 2 and len(set(matrix.shape)) == 1 and matrix.dtype.kind in "iu",
            f"confusion must be a square of counts, got shape {matrix.shape} of {matrix.dtype}",
        )
    return found | {"image_shape": shape, "confusion": matrix, "unit": read.get("unit", "epoch")}


def _metrics_of(read: Any) -> dict[str, Any]:
    """Returns what is drawn of an epoch's metrics."""
    found = _fields(read, "epoch", "train_loss", "validation_loss", "validation_accuracy")
    finite(found.values())  # numbers
    if "gradient" in read:
        found["gradient"] = read["gradient"]
        finite([*read["gradient"]["errors"].values(), read["gradient"].get("tolerance")])
    return found


def _mistake_of(read: Any, image_shape: tuple[int, int]) -> dict[str, Any]:
    """Returns what is drawn of a mistake."""
    found = _fields(read, "image", "label", "predicted")
    shape = np.shape(np.array(found["image"], float))
    _expect(shape == image_shape, f"images must be of shape {image_shape}, got {shape}")
    return found


def training(metrics: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> Figure:
    """Returns loss and validation accuracy over epochs, with the final test result dotted.

    If the gradient was audited during the run, a panel shows its error. Numbers that are not finite
    are left out, whether they are NaN, as in JSON the strings ``"nan"`` and ``"inf"``, or null.

    Args:
      metrics: for each epoch ``epoch`` (its number), ``train_loss``, ``validation_loss`` and
        ``validation_accuracy``, which are both None in a run without validation; after an audit
        ``gradient``, with the ``errors`` of each leaf and the ``tolerance``.
      summary: ``test_loss`` and ``test_accuracy``; ``unit``, ``"epoch"`` if it is not there, is
        what the run counts.

    Example:
      >>> epoch = {"epoch": 1, "train_loss": 0.5, "validation_loss": 0.6}
      >>> metrics = [{**epoch, "validation_accuracy": 0.9}]
      >>> figure = training(metrics, {"test_loss": 0.7, "test_accuracy": 0.8})
      >>> [panel.get_title() for panel in figure.axes]
      ['Squared error, summed over outputs', 'Accuracy (%)']
    """
    unit = summary.get("unit", "epoch")
    epochs = [line["epoch"] for line in metrics]
    # The accuracy alone tells: older records have null for a loss that is NaN.
    held_out = [line for line in metrics if line["validation_accuracy"] is not None]
    audited = [line for line in metrics if "gradient" in line]
    marker = "o" if len(epochs) == 1 else ""
    test_loss, test_accuracy = finite([summary["test_loss"], summary["test_accuracy"]])
    test = f"test, at the end: {test_accuracy:.2%}"
    panels = 1 + bool(held_out) + bool(audited)
    figure = Figure(figsize=(0.5 + 4 * panels, 3.2), layout="constrained")
    loss, *others = figure.subplots(1, panels, squeeze=False)[0]
    if audited:
        _gradient_errors(others.pop(), audited, unit)
    losses = finite(line["train_loss"] for line in metrics)
    loss.plot(epochs, losses, BLUE, marker=marker, label="training")
    for accuracy in others:
        epochs = [line["epoch"] for line in held_out]
        losses = finite(line["validation_loss"] for line in held_out)
        loss.plot(epochs, losses, ORANGE, marker=marker, label="validation")
        shares = 100 * finite(line["validation_accuracy"] for line in held_out)
        accuracy.plot(epochs, shares, ORANGE, marker=marker, label="validation")
        accuracy.axhline(100 * test_accuracy, color="0.4", ls=":", label=test)
        accuracy.set(title="Accuracy (%)", xlabel=unit)
    loss.axhline(test_loss, color="0.4", ls=":", label="test, at the end")
    loss.set(title="Squared error, summed over outputs", xlabel=unit, yscale="log")
    # Plain numbers, for the reason that `plain_powers` gives.
    loss.yaxis.set_major_formatter("{x:g}")
    loss.yaxis.set_minor_formatter(ticker.LogFormatter(minor_thresholds=(1, 0.5)))
    for axes in (loss, *others):
        axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        axes.legend()
    return figure


def _gradient_errors(axes: Axes, audited: Sequence[Mapping[str, Any]], unit: str) -> None:
    """Draws the relative error of the gradient of each leaf over epochs, and the tolerance."""
    epochs = [line["epoch"] for line in audited]
    for path in audited[0]["gradient"]["errors"]:
        errors = finite(line["gradient"]["errors"].get(path) for line in audited)
        axes.plot(epochs, errors, ".-", lw=0.8, ms=4, label=path)
    axes.set(title="Relative error of the gradient", xlabel=unit, yscale="log")
    # Older records lack the tolerance.
    (tolerance,) = finite([audited[-1]["gradient"].get("tolerance")])
    if np.isfinite(tolerance):
        axes.axhline(tolerance, color="black", ls="--", lw=1, label=f"tolerance {tolerance:g}")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter("{x:.0e}")
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    axes.legend(fontsize=8)


def first_layer(weight: np.ndarray, image_shape: tuple[int, int]) -> Figure:
    """Returns the weights into each neuron of the first layer, as images.

    Args:
      weight: ``(height * width, neurons)``; the 64 neurons with the largest norm are shown.
      image_shape: ``(height, width)``.

    Example:
      >>> figure = first_layer(np.ones((6, 3)), (2, 3))
      >>> figure.axes[0].get_title()
      'Weights into each neuron of the first layer, the largest first'
    """
    order = np.argsort(-np.linalg.norm(weight, axis=0), kind="stable")[:_MAX_NEURONS]
    images = weight[:, order].T.reshape(-1, *image_shape)
    mosaic, _ = _mosaic(images, columns=16 if len(images) > 32 else 8)
    known = np.abs(images[np.isfinite(images)])
    limit = (float(np.percentile(known, 99.5)) if known.size else 0.0) or 1.0
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
    """Returns the confusion matrix; only mistakes have a colour, as they are few.

    Args:
      matrix: ``(classes, classes)`` counts; rows are true classes, columns predicted ones.

    Example:
      >>> confusion(np.array([[9, 1], [0, 10]])).axes[0].get_title()
      '19 of 20 right (colour: mistakes)'
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


def mistakes(worst: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> Figure:
    """Returns the test images that the network got most wrong.

    Args:
      worst: mistakes, the worst first, each with ``image`` (rows of grey levels, 0 to 255),
        ``label`` and ``predicted``; at least one, of which 24 are shown.
      summary: of the run: ``test_accuracy`` and ``test_examples``.

    Example:
      >>> mistake = {"image": [[0, 255], [255, 0]], "label": 0, "predicted": 1}
      >>> summary = {"test_accuracy": 0.95, "test_examples": 20}
      >>> mistakes([mistake], summary).axes[0].get_title()
      'The 1 mistake among 20 test images'
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
    wrong = round((1 - summary["test_accuracy"]) * summary["test_examples"])
    which = f"The {wrong:,}" if wrong == len(shown) else f"The {len(shown)} worst of {wrong:,}"
    noun = "mistake" if wrong == 1 else "mistakes"
    axes.set_title(f"{which} {noun} among {summary['test_examples']:,} test images", pad=18)
    return figure


def _mosaic(
    images: np.ndarray, *, columns: int, gap: float = 0.12
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Puts images into one, which draws faster, with gaps of NaN, which stay white.

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
