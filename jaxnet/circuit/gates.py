"""The slides' gates, and circuits that are built from them."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnet.circuit.graph import Box, Trace, Wire

__all__ = [
    "ADD",
    "EXP",
    "MULTIPLY",
    "RECIPROCAL",
    "SIGMOID",
    "Circuit",
    "Gate",
    "Node",
    "backward",
    "build",
    "forward",
    "run",
    "scale",
    "shift",
]


class Gate(NamedTuple):
    """An operation and its derivative.

    Attributes:
      name: the name that is drawn.
      forward: ``forward(*inputs)`` returns the output.
      local: ``local(output, *inputs)`` returns a tuple: the derivative of the output with respect
        to each input.

    Example:
      >>> square = Gate("x²", lambda x: x**2, lambda f, x: (2 * x,))
      >>> square.forward(3), square.local(9, 3)
      (9, (6,))
    """

    name: str
    forward: Callable[..., Any]
    local: Callable[..., tuple[Any, ...]]


ADD = Gate("+", lambda x, y: x + y, lambda f, x, y: (1.0, 1.0))
MULTIPLY = Gate("*", lambda x, y: x * y, lambda f, x, y: (y, x))
RECIPROCAL = Gate("1/x", lambda x: 1 / x, lambda f, x: (-1 / x**2,))
EXP = Gate("exp", jnp.exp, lambda f, x: (f,))
# Four gates of the slide's sigmoid neuron in one: 1 / (1 + exp(-1 * x)).
SIGMOID = Gate("σ", jax.nn.sigmoid, lambda f, x: (f * (1 - f),))


def scale(a: float) -> Gate:
    """Returns the gate that multiplies by a constant, ``a x``.

    Example:
      >>> scale(-1).forward(3.0)
      -3.0
    """
    return Gate(f"{a:g} x", lambda x: a * x, lambda f, x: (a,))


def shift(c: float) -> Gate:
    """Returns the gate that adds a constant, ``c + x``.

    Example:
      >>> shift(1).forward(3.0)
      4.0
    """
    return Gate(f"{c:g} + x", lambda x: c + x, lambda f, x: (1.0,))


class Node(NamedTuple):
    """A gate of a circuit, with the names of its wires.

    Attributes:
      output: the name of the wire that it computes.
      gate: the operation.
      inputs: the names of the wires that it reads, in the operation's order.
    """

    output: str
    gate: Gate
    inputs: tuple[str, ...]


class Circuit(NamedTuple):
    """Gates and the wires between them; see `build`. It is a function of its inputs, too.

    Attributes:
      inputs: names of the input wires.
      nodes: the gates; each reads only inputs and outputs of gates before it. The output of the
        last gate is the circuit's.

    Example:
      >>> f = build(["x", "y"], ("f", MULTIPLY, "x", "y"))
      >>> print(f(x=-2.0, y=5.0))
      -10.0
    """

    inputs: tuple[str, ...]
    nodes: tuple[Node, ...]

    def __call__(self, **inputs: ArrayLike) -> jax.Array:
        """Returns the output. JAX can differentiate it, independently of `backward`."""
        return forward(self, inputs)[self.nodes[-1].output]


def build(inputs: Sequence[str], *nodes: tuple[Any, ...]) -> Circuit:
    """Returns a circuit of gates, given in the order in which they are computed.

    Args:
      inputs: names of the input wires.
      *nodes: for each gate a tuple: the name of its output wire, the gate, the names of its input
        wires.

    Returns:
      The circuit; its output is the last gate's.

    Raises:
      ValueError: no gates, a name that is used twice, a wire that no earlier gate computes, or a
        gate with the wrong number of inputs.
      TypeError: a node of another form.

    Example:
      The slide "Compound expressions", f = (x + y) z:

      >>> f = build(["x", "y", "z"], ("q", ADD, "x", "y"), ("f", MULTIPLY, "q", "z"))
      >>> print(f(x=-2, y=5, z=-4))
      -12.0
    """
    if not nodes:
        raise ValueError("a circuit must have a gate, got none")
    made, known = [], set()

    def define(name):
        if name in known:
            raise ValueError(f"a wire's name must be used once, got {name!r} twice")
        known.add(name)

    for name in inputs:
        define(name)
    for node in nodes:
        if not (isinstance(node, tuple) and len(node) > 2 and isinstance(node[1], Gate)):
            raise TypeError(f"a node must be a tuple (output, Gate, inputs...), got {node!r}")
        output, gate, *sources = node
        for source in sources:
            if source not in known:
                have = ", ".join(sorted(known))
                raise ValueError(f"{output!r} needs a wire {source!r}, got only {have}")
        expected = len(inspect.signature(gate.local).parameters) - 1
        if len(sources) != expected:
            raise ValueError(f"the gate {gate.name} has {expected} inputs, got {len(sources)}")
        define(output)
        made.append(Node(output, gate, tuple(sources)))
    return Circuit(tuple(inputs), tuple(made))


def forward(
    circuit: Circuit, inputs: Mapping[str, ArrayLike], *, decimals: int | None = None
) -> dict[str, jax.Array]:
    """Returns the value of every wire, by name.

    Args:
      circuit: see `build`.
      inputs: for each input wire a number or an array; all of the same shape, converted to JAX's
        default float dtype.
      decimals: every gate rounds its output to so many decimals, as on the slides; None means no
        rounding.

    Raises:
      ValueError: a missing or unknown input, or inputs of different shapes.

    Example:
      >>> double = build(["x"], ("f", scale(2), "x"))
      >>> print(forward(double, {"x": 3})["f"])
      6.0
    """
    if set(inputs) != set(circuit.inputs):
        expected, got = ", ".join(circuit.inputs), ", ".join(inputs) or "none"
        raise ValueError(f"the circuit's inputs are {expected}, got {got}")
    values = {name: jnp.asarray(inputs[name], float) for name in circuit.inputs}
    if len(shapes := {value.shape for value in values.values()}) > 1:
        raise ValueError(f"the circuit's inputs must be of one shape, got {sorted(shapes)}")
    for output, gate, sources in circuit.nodes:
        value = gate.forward(*(values[source] for source in sources))
        values[output] = _round(value, decimals)
    return values


def backward(
    circuit: Circuit, values: Mapping[str, jax.Array], *, decimals: int | None = None
) -> dict[str, jax.Array]:
    """Returns the gradient of the output with respect to every wire, by the chain rule.

    From the last gate to the first, each multiplies the gradient of its output by its local
    derivatives. The gradients that several gates send back to one wire are added. Slides
    "Sigmoid example".

    Args:
      circuit: see `build`.
      values: the value of every wire, from `forward`.
      decimals: every gate rounds the gradients that it sends back to so many decimals; None means
        no rounding.

    Example:
      >>> square = build(["x"], ("f", MULTIPLY, "x", "x"))
      >>> print(backward(square, forward(square, {"x": 3}))["x"])
      6.0
    """
    output = circuit.nodes[-1].output
    gradients = {name: jnp.zeros_like(value) for name, value in values.items()}
    gradients[output] = jnp.ones_like(values[output])
    for node in reversed(circuit.nodes):
        sources = [values[source] for source in node.inputs]
        for source, local in zip(
            node.inputs, node.gate.local(values[node.output], *sources), strict=True
        ):
            gradients[source] += _round(gradients[node.output] * local, decimals)
    return gradients


def run(circuit: Circuit, inputs: Mapping[str, ArrayLike], *, decimals: int | None = None) -> Trace:
    """Returns a circuit with all values and gradients: `forward`, then `backward`.

    Args:
      circuit: see `build`.
      inputs: see `forward`.
      decimals: for both passes; see `forward` and `backward`.

    Raises:
      ValueError: see `forward`.

    Example:
      >>> square = build(["x"], ("f", MULTIPLY, "x", "x"))
      >>> print(run(square, {"x": 3}).gradient["x"])
      6.0
    """
    values = forward(circuit, inputs, decimals=decimals)
    gradients = backward(circuit, values, decimals=decimals)
    return Trace(
        circuit.inputs,
        (circuit.nodes[-1].output,),
        tuple(Box(gate.name, sources, (output,)) for output, gate, sources in circuit.nodes),
        {name: Wire(values[name], gradients[name]) for name in values},
        (values[circuit.nodes[-1].output],),
        {name: gradients[name] for name in circuit.inputs},
    )


def _round(value: jax.Array, decimals: int | None) -> jax.Array:
    return value if decimals is None else jnp.round(value, decimals)
