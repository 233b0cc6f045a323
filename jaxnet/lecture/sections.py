"""The sections of the page, in the order of the lecture."""

from collections.abc import Callable

from jaxnet.lecture import circuits, grid, neuron, neurons, program, rungs, slopes
from jaxnet.lecture.page import Section

__all__ = ["SECTIONS"]

SECTIONS: dict[str, Callable[..., Section]] = {
    "neuron": neuron.section,
    "ladder": rungs.section,
    "differences": slopes.section,
    "circuits": circuits.section,
    "neurons": neurons.section,
    "grid": grid.section,
    "program": program.section,
}
