"""An evaluated circuit: wires with values and gradients, and the gates between them."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxnet import text

__all__ = ["Box", "Trace", "Wire", "constant", "show"]

_SMALL = 4  # elements up to which an array is shown in full
_FEW = 3  # inputs of a gate that are named in a table


class Wire(NamedTuple):
    """A value that passes between gates, and the gradient that comes back.

    Attributes:
      value: an array of any shape.
      gradient: the derivative of the output with respect to the value, of the same shape; None
        where no gradient flows: the output does not depend on the value, or the value does not
        depend on the arguments that are differentiated.

    Example:
      >>> Wire(jnp.array(2.0), jnp.array(-4.0)).gradient is None
      False
    """

    value: jax.Array
    gradient: Any


class Box(NamedTuple):
    """A gate, or a function that is itself a circuit.

    Attributes:
      name: the operation, as drawn: ``+``, ``*``, ``exp``.
      inputs: names of wires; a constant stands here as text.
      outputs: names of wires.
      inside: the circuit of a function (of a loop: its last iteration), or None for a gate. Inside,
        every gradient follows from the gates. A function with a derivative of its own,
        `jax.custom_vjp`, is different outside: there, its own derivative counts.

    Example:
      >>> Box("+", ("x", "y"), ("q",)).outputs
      ('q',)
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    inside: "Trace | None" = None


class Trace(NamedTuple):
    """A circuit with all values and gradients; ``str(trace)`` is a table.

    Attributes:
      inputs: names of the circuit's input wires.
      outputs: names of its output wires.
      boxes: the gates, in the order of the forward pass.
      wires: every wire, by name.
      results: the values of the outputs.
      gradient: the gradient of the output, a pytree like the arguments that are differentiated.

    Example:
      >>> from jaxnet import circuit
      >>> square = circuit.build(["x"], ("f", circuit.MULTIPLY, "x", "x"))
      >>> print(circuit.run(square, {"x": 3}))
      wire  gate   value  gradient
      ----  -----  -----  --------
      x            3      6
      f     * x x  9      1
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    boxes: tuple[Box, ...]
    wires: Mapping[str, Wire]
    results: tuple[jax.Array, ...]
    gradient: Any

    @property
    def value(self) -> Any:
        """The output; a tuple if there are several."""
        return self.results[0] if len(self.results) == 1 else self.results

    def __str__(self) -> str:
        return text.table(("wire", "gate", "value", "gradient"), _rows(self, "", {}))


def show(value: jax.Array | np.ndarray | None) -> str:
    """Returns a value as short text: four digits; of a large array its shape and norm.

    Args:
      value: an array of any shape and dtype; None, for no value, is empty text.

    Example:
      >>> show(jnp.array([0.123456, 2.0])), show(jnp.ones((3, 3)))
      ('[0.1235 2]', '[3×3] norm 3')
    """
    if value is None:
        return ""
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.extended):
        return str(value.aval)
    array = np.asarray(value)
    if array.size > _SMALL:
        shape = _shape(array)
        if not jnp.issubdtype(array.dtype, jnp.inexact):
            return f"{array.dtype}[{shape}]"
        return f"[{shape}] norm {float(np.linalg.norm(array.astype(_wide(array.dtype)))):.4g}"
    if array.ndim == 0:
        return _number(array[()])
    return f"[{' '.join(_number(each) for each in array.ravel())}]" + (
        f" {_shape(array)}" if array.ndim > 1 else ""
    )


def constant(value: jax.Array | np.ndarray) -> str:
    """Returns a constant as text: a number, or an array's dtype and shape.

    Example:
      >>> constant(jnp.float32(0.5)), constant(jnp.ones((3, 2), "float32"))
      ('0.5', 'float32[3×2]')
    """
    return show(value) if np.size(value) == 1 else f"{value.dtype}[{_shape(value)}]"


def _shape(array: Any) -> str:
    return "×".join(map(str, array.shape))


def _wide(dtype: DTypeLike) -> DTypeLike:
    return np.complex128 if jnp.issubdtype(dtype, jnp.complexfloating) else np.float64


def _number(value: Any) -> str:
    if jnp.issubdtype(value.dtype, jnp.floating):
        return f"{float(value):.4g}"
    return f"{complex(value):.4g}" if jnp.issubdtype(value.dtype, jnp.inexact) else str(value)


def _rows(
    trace: Trace, indent: str, known: Mapping[str, Wire]
) -> Iterator[tuple[str, str, str, str]]:
    """Yields the rows of a trace's table; inputs that a table around it shows are left out."""

    def row(name: str, gate: str) -> tuple[str, str, str, str]:
        wire = trace.wires[name]
        return indent + name, gate, show(wire.value), show(wire.gradient)

    for name in trace.inputs:
        if name not in known:
            yield row(name, "")
    for box in trace.boxes:
        inputs = box.inputs if len(box.inputs) <= _FEW else (*box.inputs[:_FEW], "...")
        gate = f"{indent}{box.name} {' '.join(inputs)}"
        for name in box.outputs:
            yield row(name, gate)
            gate = f'{indent}  "'
        if box.inside is not None:
            yield from _rows(box.inside, indent + "  ", trace.wires)
