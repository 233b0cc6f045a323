"""All pictures, drawn from results. Nothing else in the project imports matplotlib."""

from jaxnet.plots import benchmark, lecture
from jaxnet.plots.audit import convergence, detection, error_map, slopes
from jaxnet.plots.circuit import circuit, circuits
from jaxnet.plots.run import confusion, draw_run, first_layer, mistakes, training
from jaxnet.plots.style import encode, save, styled

__all__ = [
    "benchmark",
    "circuit",
    "circuits",
    "confusion",
    "convergence",
    "detection",
    "draw_run",
    "encode",
    "error_map",
    "first_layer",
    "lecture",
    "mistakes",
    "save",
    "slopes",
    "styled",
    "training",
]
