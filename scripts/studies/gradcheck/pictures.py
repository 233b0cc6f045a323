"""The error of differences against their step, and the study's pictures."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet import faults, gradcheck, mlp, record
from studies.gradcheck import states
from studies.gradcheck.options import Options, first_images

__all__ = ["convergence", "draw"]

_FAULT = "saturated-stopped"


def convergence(options: Options) -> dict[str, Any]:
    """Measures how the error of differences of the network's loss depends on the step."""
    inputs, targets = first_images(jnp.float32)
    params = mlp.init(jax.random.key(0), states.SIZES)
    curves = [
        gradcheck.convergence(mlp.loss, params, inputs, targets, leaf=leaf) for leaf in range(6)
    ]
    report = gradcheck.check(mlp.loss, params, inputs, targets)
    return {"curves": curves, "report": report.to_dict()}


def draw(folder: Path) -> None:
    """Draws the pictures of the records in a folder, and the map of a fault beside them."""
    from jaxnet import plots  # only now, so that it is no part of what is measured

    with plots.styled():
        if (folder / "convergence.json").exists():
            found = record.read_json(folder / "convergence.json")
            plots.save(plots.convergence(found["curves"][0]), folder / "convergence.png")
            plots.save(plots.slopes(found["report"]), folder / "slopes.png")
        if (folder / "detection.json").exists():
            found = record.read_json(folder / "detection.json")
            figure = plots.detection(found["rows"], found["summary"])
            plots.save(figure, folder / "detection.png")
        given, right = _second_weight(*first_images(np.float32))
        figure = plots.error_map(given, right, "params[1].weight", fault=_FAULT, tolerance=1e-3)
        plots.save(figure, folder / "error_map.png")


def _second_weight(inputs: jax.Array, targets: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """Returns the second weight's gradient, in float32 with a fault, and right in float64."""
    params = mlp.init(jax.random.key(0), states.SIZES)
    given = faults.CATALOGUE[_FAULT](params, inputs, targets)[1]
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (params, inputs, targets))
        right = jax.grad(mlp.loss)(*wide)
    return np.asarray(given[1].weight, float), np.asarray(right[1].weight)
