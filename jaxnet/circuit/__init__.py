"""The lecture's computational graphs: values forward, gradients backward, gate by gate.

`build` makes a circuit of the slides' gates, whose local derivatives stand beside them; `trace`
makes one of any function that JAX can differentiate. Both end in a `Trace`, which is text as a
string, and which `jaxnet.plots.circuit` draws.
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
