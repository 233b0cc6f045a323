"""The slides' gates, and circuits of them."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnet.circuit.graph import Box, Trace, Wire


class Gate(NamedTuple):
    """An operation, and beside it its derivative.

    Attributes:
      name: as drawn.
      forward: of its inputs, returns the output.
      local: of the output and the inputs, returns the derivative in each input, as a tuple.
    """

    name: str
    forward: Callable[..., Any]
    local: Callable[..., tuple[Any, ...]]


ADD = Gate("+", lambda x, y: x + y, lambda f, x, y: (1.0, 1.0))
MULTIPLY = Gate("*", lambda x, y: x * y, lambda f, x, y: (y, x))
RECIPROCAL = Gate("1/x", lambda x: 1 / x, lambda f, x: (-1 / x**2,))
EXP = Gate("exp", jnp.exp, lambda f, x: (f,))
# The last four of the sigmoid neuron's gates in one: 1 / (1 + exp(-1 * x)).
SIGMOID = Gate("σ", jax.nn.sigmoid, lambda f, x: (f * (1 - f),))


def scale(a: float) -> Gate:
    """Returns the gate ``a x``."""
    return Gate(f"{a:g} x", lambda x: a * x, lambda f, x: (a,))


def shift(c: float) -> Gate:
    """Returns the gate ``c + x``."""
    return Gate(f"{c:g} + x", lambda x: c + x, lambda f, x: (1.0,))


class Node(NamedTuple):
    """A gate in its place: the wire that comes out, and those that go in."""

    output: str
    gate: Gate
    inputs: tuple[str, ...]


class Circuit(NamedTuple):
    """Gates and the wires between them; as a function, ``circuit(x=-2.0, y=5.0)``.

    Attributes:
      inputs: names of the wires that come in.
      nodes: in an order in which every wire is there before it is used. What the last one puts out
        is the circuit's output.
    """

    inputs: tuple[str, ...]
    nodes: tuple[Node, ...]

    def __call__(self, **inputs: Any) -> Any:
        """Returns the output. JAX can differentiate it, independently of `backward`."""
        return forward(self, inputs)[self.nodes[-1].output]


def build(inputs: Sequence[str], *nodes: tuple[Any, ...]) -> Circuit:
    """Returns a circuit, once its wires fit.

    ``build(["x", "y", "z"], ("q", ADD, "x", "y"), ("f", MULTIPLY, "q", "z"))`` is the slide
    "Compound expressions", f = (x + y) z.

    Args:
      inputs: names of the wires that come in.
      *nodes: the name of the wire that comes out, the gate, the names of those that go in.

    Raises:
      ValueError: no gates, a name that is used twice, a wire that is not there (yet), or a gate
        with too few or too many.
      TypeError: a node of another form.
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
    circuit: Circuit, inputs: Mapping[str, Any], *, decimals: int | None = None
) -> dict[str, Any]:
    """Returns the value of every wire.

    Args:
      circuit: see `build`.
      inputs: a number or an array for each wire that comes in, all of one shape.
      decimals: to which every gate rounds what it puts out, as one does by hand; None for all.

    Raises:
      ValueError: inputs that are missing, that the circuit does not have, or of several shapes.
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
    circuit: Circuit, values: Mapping[str, Any], *, decimals: int | None = None
) -> dict[str, Any]:
    """Returns the gradient of the output in every wire, by the chain rule.

    From the output back, each gate multiplies what it is given by its local derivatives; where a
    wire goes to several gates, what comes back is added. Slides "Sigmoid example".

    Args:
      circuit: see `build`.
      values: of `forward`.
      decimals: to which every gate rounds what it hands back; None for all.
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


def run(circuit: Circuit, inputs: Mapping[str, Any], *, decimals: int | None = None) -> Trace:
    """Returns a circuit with all values and gradients.

    The arguments and errors are those of `forward`.
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


def _round(value: Any, decimals: int | None) -> Any:
    return value if decimals is None else jnp.round(value, decimals)
