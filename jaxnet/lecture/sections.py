"""The sections of the lecture, in its order."""

from collections.abc import Callable

from jaxnet.lecture import circuits, grid, neuron, neurons, program, rungs, slopes
from jaxnet.lecture.page import Section

SECTIONS: dict[str, Callable[..., Section]] = {
    "neuron": neuron.section,
    "ladder": rungs.section,
    "differences": slopes.section,
    "circuits": circuits.section,
    "neurons": neurons.section,
    "grid": grid.section,
    "program": program.section,
}
