"""How all pictures look, and how they become files."""

import io
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import ticker
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from jaxnet import files

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "ORANGE",
    "PURPLE",
    "RED",
    "STYLE",
    "encode",
    "plain_powers",
    "save",
    "styled",
]

STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": "medium",
    "figure.dpi": 120,
    "font.size": 9,
    "legend.frameon": False,
}
BLUE, ORANGE, GREY = "#2f6db5", "#d97a1d", "0.5"
GREEN, RED, PURPLE = "#1a7f37", "#c62828", "#7b3fa0"


def styled() -> AbstractContextManager[None]:
    """Returns a context in which figures get the project's fonts, sizes and frames.

    Example:
      >>> with styled():
      ...     print(mpl.rcParams["figure.dpi"])
      120.0
    """
    return mpl.rc_context(STYLE)


def plain_powers(*axes: Axis, count: int = 7) -> None:
    """Writes the numbers of logarithmic axes as plain text: 1e-03.

    Matplotlib's own powers of ten need its mathematical fonts, and its font cache may have lost
    them.

    Args:
      *axes: the x or y axis of a panel, with a logarithmic scale.
      count: the largest number of labels on an axis.

    Example:
      >>> panel = Figure().subplots()
      >>> panel.set(xscale="log", xlim=(1e-3, 1))
      [...]
      >>> plain_powers(panel.xaxis)
      >>> panel.xaxis.get_major_formatter()(100)
      '1e+02'
    """
    for axis in axes:
        axis.set_major_locator(ticker.LogLocator(numticks=count))
        axis.set_major_formatter("{x:.0e}")
        axis.set_minor_formatter(ticker.NullFormatter())


def encode(figure: Figure, name: str, *, vector: bool) -> bytes:
    """Returns the content of a picture's file; the same figure gives the same bytes.

    Args:
      figure: the picture.
      name: makes the identifiers inside an SVG differ from those of other pictures on a page.
      vector: SVG whose text stays text, rather than PNG.

    Example:
      >>> encode(Figure(), "empty", vector=False)[1:4]
      b'PNG'
    """
    buffer = io.BytesIO()
    options: dict[str, Any] = {"format": "png", "dpi": 110}
    if vector:
        options = {"format": "svg", "metadata": {"Date": None}}
    with mpl.rc_context({**STYLE, "svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, **options)
    return buffer.getvalue()


def save(
    figure: Figure, path: str | os.PathLike, *, dpi: float | None = None, crop: bool = False
) -> None:
    """Writes a picture, whole or not at all: a reader sees the old file or the new one.

    Args:
      figure: the picture.
      path: of the file; its ending, ``.png`` say, is the format.
      dpi: dots per inch; None means the figure's own.
      crop: whether to cut empty margins off.

    Raises:
      OSError: a file that cannot be written; the message names it.
      ValueError: an ending that is not a format that matplotlib writes.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp(), "empty.png")
      >>> save(Figure(), path)
      >>> path.read_bytes()[1:4]
      b'PNG'
    """
    path = Path(path)
    kind = path.suffix.removeprefix(".")
    if kind not in (known := Figure().canvas.get_supported_filetypes()):
        raise ValueError(f"the ending of {path} must be one of {', '.join(sorted(known))}")
    with files.replacing(path) as file:
        figure.savefig(
            file, format=kind, dpi=dpi or "figure", bbox_inches="tight" if crop else None
        )
