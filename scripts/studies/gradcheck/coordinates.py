"""Gradients that are wrong in one coordinate."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from jaxnet import gradcheck, mlp
from studies.gradcheck import checkers, states
from studies.gradcheck.options import Options, mnist

__all__ = ["coordinates", "spoil_each_leaf"]

AMOUNT = 1e-3  # of a leaf's norm


def coordinates(options: Options) -> dict[str, Any]:
    """Makes one coordinate of each leaf wrong, in float64, and looks for it in two ways.

    First the function itself brings the wrong gradient along (a `jax.custom_vjp`), so that only
    differences show the error. Then the wrong gradient is handed over, and `jax.grad` is right.
    """
    with_error = checkers.attach(
        lambda params, inputs, targets, error: mlp.loss(params, inputs, targets), _spoilt
    )
    checks = {
        "brought along": gradcheck.make_check(with_error),
        "handed over": gradcheck.make_check(mlp.loss),
    }
    rows = []
    trained = list(states.states(mnist(), range(options.seeds)))
    for number, state in enumerate(tqdm.tqdm(trained, disable=None)):
        rows += spoil_each_leaf(checks, state, np.random.default_rng(number))
    return {"error, of the leaf's norm": AMOUNT, "summary": _summarise(rows), "rows": rows}


def spoil_each_leaf(
    checks: dict[str, Any], state: states.State, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Returns what each check says when a random coordinate of a leaf is wrong, leaf by leaf."""
    rows = []
    with jax.enable_x64(True):
        args = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), state[1:])
        right, structure = jax.tree.flatten(jax.grad(mlp.loss)(*args))
        for index, leaf in enumerate(right):
            place = tuple(int(rng.integers(length)) for length in leaf.shape)
            errors = [jnp.zeros_like(each) for each in right]
            errors[index] = errors[index].at[place].set(AMOUNT * jnp.linalg.norm(leaf))
            error = structure.unflatten(errors)
            reports = {
                "brought along": checks["brought along"](*args, error),
                "handed over": checks["handed over"](*args, gradient=_spoilt(*args, error)),
            }
            for way, report in reports.items():
                found = report.leaves[index]
                others = {each.verdict for each in report.leaves if each is not found}
                rows.append(
                    {
                        "state": state.name,
                        "coordinate": f"{found.path}{list(place)}",
                        "way": way,
                        "verdict": found.verdict,
                        "named": found.location.worst[0].path if found.location else None,
                        "other leaves": sorted(others),
                    }
                )
    return rows


@jax.jit
def _spoilt(params, inputs, targets, error) -> Any:
    """Returns the gradient of the network's loss plus an error."""
    return jax.tree.map(jnp.add, jax.grad(mlp.loss)(params, inputs, targets), error)


def _summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    summary = {}
    for way in ("brought along", "handed over"):
        of_way = [row for row in rows if row["way"] == way]
        summary[way] = {
            "spoilt": len(of_way),
            "failed": sum(row["verdict"] == "fail" for row in of_way),
            "named": sum(row["named"] == row["coordinate"] for row in of_way),
            "other leaves that did not pass": sum(
                row["other leaves"] != ["pass"] for row in of_way
            ),
        }
    return summary
