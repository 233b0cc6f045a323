"""The lecture's computational graphs: values forward, gradients backward, gate by gate.

`build` connects the slides' gates, each written with its derivative, and `run` evaluates the
circuit. `trace` does the same for any function that JAX can differentiate. Both return a `Trace`:
``print(trace)`` shows it as a table, and `jaxnet.plots.circuit` draws it.
"""

from jaxnet.circuit.gates import (
    ADD,
    EXP,
    MULTIPLY,
    RECIPROCAL,
    SIGMOID,
    Circuit,
    Gate,
    backward,
    build,
    forward,
    run,
    scale,
    shift,
)
from jaxnet.circuit.graph import Box, Trace, Wire
from jaxnet.circuit.tracing import trace

__all__ = [
    "ADD",
    "EXP",
    "MULTIPLY",
    "RECIPROCAL",
    "SIGMOID",
    "Box",
    "Circuit",
    "Gate",
    "Trace",
    "Wire",
    "backward",
    "build",
    "forward",
    "run",
    "scale",
    "shift",
    "trace",
]
