"""How all pictures look."""

import io
from typing import Any

import matplotlib as mpl
from matplotlib import ticker
from matplotlib.figure import Figure

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


def styled() -> Any:
    """Returns a context in which pictures are made to look like all others."""
    return mpl.rc_context(STYLE)


def plain_powers(*axes: Any, count: int = 7) -> None:
    """Writes the numbers of logarithmic axes as text, at most so many of them."""
    # As mathematics they would need fonts that a cache may have lost.
    for axis in axes:
        axis.set_major_locator(ticker.LogLocator(numticks=count))
        axis.set_major_formatter("{x:.0e}")
        axis.set_minor_formatter(ticker.NullFormatter())


def encode(figure: Figure, name: str, *, vector: bool) -> bytes:
    """Returns a picture's file: SVG, whose text stays text, or PNG; the same every time."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {"format": "png", "dpi": 110}
    if vector:
        options = {"format": "svg", "metadata": {"Date": None}}
    with mpl.rc_context({**STYLE, "svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, **options)
    return buffer.getvalue()
