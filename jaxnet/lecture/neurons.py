"""The gradient of one neuron, computed in four ways, and what neurons can compute."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet import circuit, gradcheck, logic, mlp
from jaxnet.lecture.page import Code, Formula, Section, Table, Text

__all__ = ["chain", "section"]


def chain(w: jax.Array, x: jax.Array, t: float) -> jax.Array:
    """Returns the gradient of one neuron's squared error in its weights, by the chain rule.

    Args:
      w: ``(n,)`` weights.
      x: ``(n,)`` inputs.
      t: the target.
    """
    sigma = jax.nn.sigmoid(x @ w)
    return 2 * (sigma - t) * sigma * (1 - sigma) * x


def section() -> Section:
    """Returns the section on one neuron's gradient and on what neurons can compute."""
    with jax.enable_x64(True):
        w, x, t = jnp.array([-3.0, 2.0, -3.0]), jnp.array([1.0, -1.0, -2.0]), 1.0

        def penalty(w):
            return (jax.nn.sigmoid(x @ w) - t) ** 2

        by_circuit = circuit.trace(penalty)(w).gradient
        ways = {
            "by hand": chain(w, x, t),
            "circuit": by_circuit,
            "jax.grad": jax.grad(penalty)(w),
            "central differences": gradcheck.finite_difference(penalty, w),
        }
        verdict = gradcheck.check(penalty, w, gradient=ways["by hand"]).verdict
    rows = [(name, *(f"{float(each):.12f}" for each in way)) for name, way in ways.items()]
    nand = logic.train(jax.random.key(0), "nand")
    bits, _ = logic.table("xor")
    gates = {
        gate: logic.from_nands(nand, gate, bits[:, :1] if gate == "not" else bits).tolist()
        for gate in logic.NANDS
    }
    seeds = jax.random.split(jax.random.key(0), 100)
    learnt = 0
    for key in seeds:
        network = logic.train(key, "xor", sizes=(2, 2, 1))
        learnt += int(np.array_equal(mlp.predict(network, bits), logic.GATES["xor"]))
    network = logic.train(jax.random.key(0), "xor", sizes=(2, 2, 1), starts=10)
    outputs = mlp.forward(network, bits)[:, 0]
    table = [
        (
            f"{int(a)} {int(b)}",
            str(gates["and"][i]),
            str(gates["or"][i]),
            str(gates["xor"][i]),
            f"{outputs[i]:.3f}",
        )
        for i, (a, b) in enumerate(bits)
    ]
    weight, bias = (np.asarray(each) for each in nand[0])
    return Section(
        "neurons",
        "One neuron, then layers",
        'NAND gates universal for computation; Sigmoid example; "Layered" Logistic Regression',
        [
            Text(
                "The gradient of one neuron's squared error is a product of three derivatives, one "
                "for each block of the circuit:"
            ),
            Formula(
                r"\frac{\partial}{\partial w} (\sigma - t)^2 = "
                r"\underbrace{2 (\sigma - t)}_{\text{MSE}} \, "
                r"\underbrace{\sigma (1 - \sigma)}_{\text{sigmoid}} \, "
                r"\underbrace{x}_{\text{dot product}}"
            ),
            Code([chain]),
            Table(
                ("way", "w0", "w1", "w2"),
                rows,
                "The same gradient, computed in four ways, at w = (-3, 2, -3), x = (1, -1, -2) and "
                f"t = 1. The verdict of `gradcheck.check` on the one by hand: {verdict}.",
            ),
            Text(
                "One neuron learns NAND from its truth table. Starting from random weights, it "
                f"ends at w = ({bias[0]:.1f}, {weight[0, 0]:.1f}, {weight[1, 0]:.1f}). NANDs make "
                "any other gate: AND takes two of them, OR three, XOR four. One neuron can never "
                "compute XOR, because no straight line separates its ones from its zeros. A 2-2-1 "
                f"network can. By backpropagation it learns XOR from {learnt} of 100 random "
                "starts; from the others it gets stuck."
            ),
            Table(("inputs", "AND", "OR", "XOR from four NANDs", "XOR learnt by 2-2-1"), table),
            Code([logic.from_nands]),
        ],
        {
            "gradient": {name: np.asarray(way).tolist() for name, way in ways.items()},
            "gates from NANDs": gates,
            "xor by 2-2-1": {"starts": len(seeds), "learnt": learnt},
        },
    )
