"""Circuits: values flow forward, gradients flow backward."""

import jax
import jax.numpy as jnp

from jaxnet import circuit, mlp, plots
from jaxnet.lecture.page import Code, Folded, Formula, Picture, Section, Table, Terminal, Text

__all__ = ["section"]

_COMPOUND = circuit.build(
    ["x", "y", "z"], ("q", circuit.ADD, "x", "y"), ("f", circuit.MULTIPLY, "q", "z")
)
_DOT = (
    ("w1x1", circuit.MULTIPLY, "w1", "x1"),
    ("w2x2", circuit.MULTIPLY, "w2", "x2"),
    ("sum", circuit.ADD, "w1x1", "w2x2"),
    ("s", circuit.ADD, "sum", "w0"),
)
_WIRES = ("w1", "x1", "w2", "x2", "w0")
_NEURON = circuit.build(
    _WIRES,
    *_DOT,
    ("-s", circuit.scale(-1), "s"),
    ("e", circuit.EXP, "-s"),
    ("1 + e", circuit.shift(1), "e"),
    ("f", circuit.RECIPROCAL, "1 + e"),
)
_FOLDED = circuit.build(_WIRES, *_DOT, ("f", circuit.SIGMOID, "s"))
_AT = {"w1": 2.0, "x1": -1.0, "w2": -3.0, "x2": -2.0, "w0": -3.0}


def section() -> Section:
    """Returns the section on circuits: values flow forward, gradients backward."""
    with jax.enable_x64(True):
        compound = circuit.run(_COMPOUND, {"x": -2, "y": 5, "z": -4})
        exact, rounded = circuit.run(_NEURON, _AT), circuit.run(_NEURON, _AT, decimals=2)
        folded = circuit.run(_FOLDED, _AT)
        params = mlp.init(jax.random.key(0), (3, 2, 1))
        inputs, targets = jnp.array([[0.2, 0.7, 0.1]]), jnp.array([[1.0]])
        traced = circuit.trace(mlp.loss)(params, inputs, targets)
    names = (*_WIRES, "f")
    rows = [
        (
            name,
            f"{float(rounded.wires[name].value):.2f}",
            f"{float(exact.wires[name].value):.6f}",
            f"{float(rounded.wires[name].gradient):.2f}",
            f"{float(exact.wires[name].gradient):.6f}",
        )
        for name in names
    ]
    return Section(
        "circuits",
        "Circuits and the chain rule",
        "Compound expressions; Sigmoid example",
        [
            Text(
                "An expression is a circuit of gates. Values flow through it forward, gradients "
                "backward: each gate multiplies the gradient that reaches it by its own "
                "derivative, which does not depend on the rest of the circuit."
            ),
            Formula(
                r"f = (x + y) z, \quad q = x + y, \quad \frac{\partial f}{\partial x} = "
                r"\frac{\partial f}{\partial q} \frac{\partial q}{\partial x}"
            ),
            Picture(
                "compound",
                plots.circuit(compound),
                "(x + y) z at (-2, 5, -4): above each wire its value, below it its gradient.",
            ),
            Text("The sigmoid neuron, gate by gate, as on the slides:"),
            Picture(
                "sigmoid",
                plots.circuit(exact),
                "The sigmoid neuron at w1, w2, w0 = 2, -3, -3 and x1, x2 = -1, -2.",
            ),
            Text(
                "The slide's gradients of w1, x1, w2, x2 and w0 are -0.20, 0.40, -0.40, -0.60 and "
                "0.20, because it rounds to two digits at every gate: the gradient 1.00 becomes "
                "1.00 · (-1 / 1.37²) = -0.53 at 1/x, then -0.53 · 0.37 = -0.20 at exp, and all "
                "the others are multiples of that."
            ),
            Table(
                ("wire", "slide's value", "exact", "slide's gradient", "exact"),
                rows,
                "Rounded to two digits at every gate, as on the slide, and exact.",
            ),
            Text("Together, the last four gates are the sigmoid, which has a simple derivative:"),
            Formula(r"\sigma'(s) = \sigma(s) (1 - \sigma(s))"),
            Picture(
                "folded", plots.circuit(folded), "The same circuit with the four gates as one."
            ),
            Text(
                "`circuit.trace` turns any JAX function into a circuit. Each equation of its jaxpr "
                "is a gate, and each function that it calls is a box. This is the loss of a 3-2-1 "
                "network:"
            ),
            Terminal(str(traced)),
            Folded(
                "Pictures of this circuit, box by box",
                [
                    Picture(f"traced_{number}", figure, f"The box {path}: its wires and gates.")
                    for number, (path, figure) in enumerate(plots.circuits(traced, title="program"))
                ],
            ),
            Code([circuit.backward]),
        ],
        {
            "compound": {
                name: [float(w.value), float(w.gradient)] for name, w in compound.wires.items()
            },
            "neuron": {
                name: [float(w.value), float(w.gradient)] for name, w in exact.wires.items()
            },
            "neuron, two digits": {
                name: [float(w.value), float(w.gradient)] for name, w in rounded.wires.items()
            },
        },
    )
