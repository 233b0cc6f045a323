"""Time and memory of audits; each is measured in a process of its own."""

import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from jaxnet import gradcheck, mlp, text
from studies import SCRIPTS
from studies.gradcheck import states
from studies.gradcheck.options import Options, first_images, mnist

__all__ = ["cost", "time_audit", "time_exhaustive"]

_SOME = 2_000  # coordinates that stand for all, in the loop in Python


def cost(options: Options) -> dict[str, Any]:
    """Times an audit of 784-256-128-10, and an exhaustive one of 784-30-10."""
    mnist()  # prepares it, or stops
    found: dict[str, Any] = {"audit": _run_alone("audit")}
    for dtype in ("float64", "float32"):
        found[f"exhaustive, {dtype}"] = _run_alone(dtype)
    return found


def _run_alone(part: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "studies.gradcheck.cost", part]
    done = subprocess.run(command, cwd=SCRIPTS, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def time_audit(inputs: jax.Array, targets: jax.Array) -> dict[str, Any]:
    """Times audits of the network's loss; memory is the whole process's, MNIST included."""
    before = _peak_memory()
    audit = gradcheck.make_check(mlp.loss)
    seconds, params = [], ()
    for seed in range(6):
        params = mlp.init(jax.random.key(seed), states.SIZES)
        jax.block_until_ready(params)
        report, elapsed = _timed(lambda params=params: audit(params, inputs, targets))
        seconds.append(elapsed)
        assert report.verdict == "pass", str(report)
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "with compilation, seconds": seconds[0],
        "after it, seconds": seconds[1:],
        "peak memory, MiB": _peak_memory(),
        "of which before the audit, MiB": before,
    }


def time_exhaustive(
    inputs: jax.Array, targets: jax.Array, hidden: int = 30, rounds: int = 5
) -> dict[str, Any]:
    """Times audits of every coordinate, and a loop in Python over a jitted loss, interleaved.

    The audit's differences are in float64 whatever the dtype of ``inputs``; the loop's are in that
    dtype, as they are of whoever writes such a loop.
    """
    dtype = inputs.dtype
    sizes = (inputs.shape[1], hidden, targets.shape[1])
    params = mlp.init(jax.random.key(0), sizes, dtype=dtype)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    loss = jax.jit(lambda flat: mlp.loss(unravel(flat), inputs, targets))
    audit = gradcheck.make_check(mlp.loss, exhaustive=True)
    h = gradcheck.default_step(dtype)
    here = np.array(flat)

    def loop(coordinates):
        for i in coordinates:
            value = here[i]
            here[i] = value + h
            above, up = float(loss(here)), here[i]
            here[i] = value - h
            below, down = float(loss(here)), here[i]
            here[i] = value
            yield (above - below) / (float(up) - float(down))

    def estimate():
        return jax.block_until_ready(gradcheck.finite_difference(mlp.loss, params, inputs, targets))

    some = np.random.default_rng(0).choice(len(here), min(_SOME, len(here)), replace=False)
    list(loop(some[:10]))  # compiles
    report, first = _timed(lambda: audit(params, inputs, targets))
    assert report.verdict == "pass", str(report)
    ours, estimates, theirs = [], [], []
    for seed in range(1, rounds + 1):
        _, seconds = _timed(lambda: list(loop(some)))
        theirs.append(seconds * len(here) / len(some))
        key = jax.random.key(seed)  # new directions, so that nothing that is kept serves again
        ours.append(_timed(lambda key=key: audit(params, inputs, targets, key=key))[1])
        estimates.append(_timed(estimate)[1])
    return {
        "coordinates": len(here),
        "audit, seconds": ours,
        "audit, the first time, seconds": first,
        "finite_difference alone, compilation included, seconds": estimates,
        "loop, seconds, from 2,000 coordinates": theirs,
        "times as fast as the loop": statistics.median(theirs) / statistics.median(ours),
    }


def _timed(call: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    return call(), time.perf_counter() - start


def _peak_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _main(part: str) -> None:
    if part == "audit":
        found = time_audit(*first_images(jnp.float32))
    else:
        jax.config.update("jax_enable_x64", part == "float64")
        found = time_exhaustive(*first_images(part))
    print(text.dumps(found))


if __name__ == "__main__":
    _main(sys.argv[1])
