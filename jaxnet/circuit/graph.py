"""What a circuit went through: wires with values and gradients, and the gates between them."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet import text

__all__ = ["Box", "Trace", "Wire", "constant", "show"]

_SMALL = 4  # elements up to which an array is shown in full
_FEW = 3  # inputs that are named in a table


class Wire(NamedTuple):
    """What passes between gates.

    Attributes:
      value: on the way forward, an array.
      gradient: of the output in this value, on the way back; None where nothing flows back, because
        the output does not depend on it, or nothing that is differentiated does.
    """

    value: Any
    gradient: Any


class Box(NamedTuple):
    """A gate, or a function of gates.

    Attributes:
      name: what it does, as drawn: ``+``, ``*``, ``exp``.
      inputs: names of wires, or constants as text.
      outputs: names of wires.
      inside: the gates that it is made of, if it can be opened; of a loop, its last step. Gradients
        inside are those of the gates. Where a `jax.custom_vjp` tells another, they need not agree
        with the gradients outside.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    inside: "Trace | None" = None


class Trace(NamedTuple):
    """A circuit with all values and gradients; ``str(trace)`` is a table.

    Attributes:
      inputs: names of the wires that come in.
      outputs: names of the wires that go out.
      boxes: in the order of the forward pass.
      wires: by name.
      results: the values that go out.
      gradient: of the output in the arguments: a pytree like that which was differentiated.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    boxes: tuple[Box, ...]
    wires: Mapping[str, Wire]
    results: tuple[Any, ...]
    gradient: Any

    @property
    def value(self) -> Any:
        """What goes out; of several, a tuple."""
        return self.results[0] if len(self.results) == 1 else self.results

    def __str__(self) -> str:
        return text.table(("wire", "gate", "value", "gradient"), _rows(self, "", {}))


def show(value: Any) -> str:
    """Returns a number with four digits; of a large array, its shape and norm.

    Example:
      >>> show(jnp.asarray(0.123456)), show(jnp.ones((3, 3)))
      ('0.1235', '[3×3] norm 3')
    """
    if value is None:
        return ""
    if jnp.issubdtype(value.dtype, jax.dtypes.extended):
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


def constant(value: Any) -> str:
    """Returns a constant as text: a number, or an array's dtype and shape.

    Example:
      >>> constant(jnp.asarray(2.0)), constant(np.zeros((2, 3), np.float32))
      ('2', 'float32[2×3]')
    """
    return show(value) if np.size(value) == 1 else f"{value.dtype}[{_shape(value)}]"


def _shape(array: Any) -> str:
    return "×".join(map(str, array.shape))


def _wide(dtype: Any) -> Any:
    return np.complex128 if jnp.issubdtype(dtype, jnp.complexfloating) else np.float64


def _number(value: Any) -> str:
    if jnp.issubdtype(value.dtype, jnp.floating):
        return f"{float(value):.4g}"
    return f"{complex(value):.4g}" if jnp.issubdtype(value.dtype, jnp.inexact) else str(value)


def _rows(
    trace: Trace, indent: str, known: Mapping[str, Wire]
) -> Iterator[tuple[str, str, str, str]]:
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
