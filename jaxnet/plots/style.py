"""How all pictures look."""

from typing import Any

STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": "medium",
    "figure.dpi": 120,
    "font.size": 9,
    "legend.frameon": False,
}
BLUE, ORANGE, GREY = "#2f6db5", "#d97a1d", "0.5"
GREEN, RED = "#1a7f37", "#c62828"
