"""bfloat16 gradients, right and wrong."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnet import gradcheck, mlp
from studies.gradcheck import states
from studies.gradcheck.options import Options, count, mnist

__all__ = ["audit_state", "bfloat16"]

TOLERANCE = 0.02
_STEPS = (0, 50, 300)


def bfloat16(options: Options) -> dict[str, Any]:
    """Audits bfloat16 gradients at a tolerance of 2%: right ones, and some wrong by 20%."""
    audit = gradcheck.make_check(mlp.loss, tolerance=TOLERANCE)
    rows = []
    for state in states.states(mnist(), range(options.seeds), steps=_STEPS):
        rows += audit_state(audit, state)
    summary = {
        "right": count([row["verdict"] for row in rows if row["wrong"] is None]),
        "one leaf wrong by 20%": count([r["verdict"] for r in rows if r["wrong"] is not None]),
    }
    return {"tolerance": TOLERANCE, "summary": summary, "rows": rows}


def audit_state(audit: Any, state: states.State) -> list[dict[str, Any]]:
    """Audits the gradient with each leaf in turn wrong by 20%, and the right gradient."""
    args = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), state[1:])
    gradient = jax.grad(mlp.loss)(*args)
    rows = []
    for index, (path, _) in enumerate(jax.tree_util.tree_leaves_with_path(gradient)):
        leaves, structure = jax.tree.flatten(gradient)
        leaves[index] = (leaves[index].astype(jnp.float32) * 1.2).astype(jnp.bfloat16)
        leaf = audit(*args, gradient=structure.unflatten(leaves)).leaves[index]
        wrong = jax.tree_util.keystr(path)
        rows.append(_row(state, wrong, leaf.verdict, leaf.error))
    report = audit(*args, gradient=gradient)
    largest = max(leaf.error for leaf in report.leaves)
    return [*rows, _row(state, None, report.verdict, largest)]


def _row(state: states.State, wrong: str | None, verdict: str, error: float) -> dict[str, Any]:
    return {"state": state.name, "wrong": wrong, "verdict": verdict, "error": error}
