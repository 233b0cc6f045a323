"""Logic gates: a sigmoid neuron learns NAND, other gates are wired from it, a network learns XOR.

The lecture begins with "NAND gates universal for computation".
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxnet import backprop, mlp, optimizers
from jaxnet.types import Params

GATES = {  # of the inputs 00, 01, 10 and 11
    "and": (0, 0, 0, 1),
    "or": (0, 1, 1, 1),
    "nand": (1, 1, 1, 0),
    "xor": (0, 1, 1, 0),
}
# Wires are numbered from the inputs on. A pair goes into a NAND, and what comes out is the next
# wire; the last is the gate's output.
NANDS = {
    "not": ((0, 0),),
    "and": ((0, 1), (2, 2)),
    "or": ((0, 0), (1, 1), (2, 3)),
    "xor": ((0, 1), (0, 2), (1, 2), (3, 4)),
}

# Well inside what is stable: of 2,000 seeds 82% learn XOR, at twice the rate 86%, at thrice 69%.
_DESCENT = optimizers.gradient_descent(5.0)


def table(gate: str, dtype: DTypeLike | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Returns a gate's truth table.

    Args:
      gate: a name in `GATES`.
      dtype: of both arrays; None means float32, or float64 under ``jax_enable_x64``.

    Returns:
      Inputs ``(4, 2)`` and targets ``(4, 1)``, 0 or 1.

    Raises:
      ValueError: an unknown gate.
    """
    _check_gate(gate, GATES)
    dtype = jnp.result_type(float) if dtype is None else dtype
    inputs = np.array([(0, 0), (0, 1), (1, 0), (1, 1)], dtype)
    return inputs, np.array(GATES[gate], dtype)[:, None]


def train(
    key: jax.Array,
    gate: str,
    sizes: tuple[int, ...] = (2, 1),
    *,
    starts: int = 1,
    steps: int = 1000,
    dtype: DTypeLike | None = None,
) -> Params:
    """Trains a network to be a gate, by backpropagation and gradient descent.

    From the lecture's weights, uniform in [-1, 1), a neuron learned AND, OR and NAND from each of
    2,000 keys. XOR it cannot be; a 2-2-1 network learned that from 82% of them, and five times the
    steps made it 1% more. With ten starts it learned from all.

    Args:
      key: a key of `jax.random`.
      gate: a name in `GATES`.
      sizes: widths, from two inputs to one output.
      starts: how many networks are trained; the one with the least loss is returned.
      steps: of gradient descent, full batch.
      dtype: as of `table`.

    Raises:
      ValueError: an unknown gate, widths that do not fit it, or starts or steps below 1.
    """
    inputs, targets = table(gate, dtype)
    if starts < 1:
        raise ValueError(f"starts must be 1 or more, got {starts}")

    def descend(key):
        params = mlp.init(key, sizes, scheme="lecture", dtype=dtype)
        params, _ = optimizers.minimize(
            _DESCENT, backprop.value_and_grad, params, inputs, targets, key=key, steps=steps
        )
        return params, mlp.loss(params, inputs, targets)

    params, losses = jax.vmap(descend)(jax.random.split(key, starts))
    best = jnp.argmin(losses)
    return jax.tree.map(lambda leaf: leaf[best], params)


def from_nands(neuron: Params, gate: str, inputs: jax.Array | np.ndarray) -> jax.Array:
    """Returns what a gate answers that is wired from copies of a neuron.

    Between neurons, outputs are thresholded at 1/2 by `mlp.predict`.

    Args:
      neuron: a network that was trained to be NAND.
      gate: a name in `NANDS`.
      inputs: ``(batch, 2)`` bits of any dtype; for NOT ``(batch, 1)``.

    Returns:
      ``(batch,)`` integers, 0 or 1.

    Raises:
      ValueError: an unknown gate, or shapes that do not fit.
    """
    _check_gate(gate, NANDS)
    width = 1 if gate == "not" else 2
    if jnp.ndim(inputs) != 2 or inputs.shape[1] != width:
        raise ValueError(f"inputs must have shape (batch, {width}), got {jnp.shape(inputs)}")
    if mlp.sizes(neuron)[-1] != 1:
        raise ValueError(f"neuron must have one output, got {mlp.sizes(neuron)[-1]}")
    dtype = neuron[0].weight.dtype
    wires = list(jnp.asarray(inputs).T)
    for pair in NANDS[gate]:
        bits = jnp.stack([wires[wire].astype(dtype) for wire in pair], axis=1)  # (batch, 2)
        wires.append(mlp.predict(neuron, bits))
    return wires[-1]


def _check_gate(gate: str, known: dict[str, tuple]) -> None:
    if gate not in known:
        raise ValueError(f"gate must be one of {', '.join(known)}, got {gate!r}")
