"""All differences of a network: what following changes gains over plain evaluation.

  python scripts/study.py exhaustive

Central differences of `mlp.loss` in float64 at each of the 23,860 parameters of 784-30-10, 256
inputs; random ones, as the time does not depend on them. Four ways, interleaved; ratios are taken
within a round, as they survive other load on the machine:

- an exhaustive audit, compiled before, which follows changes (`jaxnet.gradcheck.changes`);
- a compiled loop over coordinates (`jax.lax.map`), the whole loss at each;
- the same in blocks that are vectorised (``batch_size``);
- a loop in Python over the jitted loss.

All but the first are timed on a sample of the coordinates, and scaled.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxnet import files, gradcheck, mlp, record
from jaxnet.cli.common import Parser, check_out
from studies import RESULTS

__all__ = ["main", "measure"]

ROUNDS, SAMPLE, BLOCK = 5, 512, 32
RATIOS = "times as fast as the loop in Python, median of rounds"


def measure() -> dict[str, Any]:
    """Returns the seconds of each way, all coordinates, and times as fast as the loop in Python."""
    jax.config.update("jax_enable_x64", True)
    generator = np.random.default_rng(0)
    params = mlp.init(jax.random.key(0), (784, 30, 10), dtype="float64")
    inputs = jnp.asarray(generator.uniform(size=(256, 784)))
    targets = jnp.asarray(np.eye(10)[generator.integers(10, size=256)])
    flat, unravel = ravel_pytree(params)
    sample = np.sort(generator.choice(flat.size, SAMPLE, replace=False))
    h = gradcheck.default_step(flat.dtype)

    def loss(flat):
        return mlp.loss(unravel(flat), inputs, targets)

    def slope(flat, i):
        return (loss(flat.at[i].add(h)) - loss(flat.at[i].add(-h))) / (2 * h)

    def mapped(block):
        run = jax.jit(lambda flat, at: jax.lax.map(lambda i: slope(flat, i), at, batch_size=block))
        return lambda: np.asarray(run(flat, sample))

    jitted = jax.jit(loss)

    def python():
        here, found = np.array(flat), []
        for i in sample:
            value = here[i]
            here[i] = value + h
            above = float(jitted(here))
            here[i] = value - h
            found.append((above - float(jitted(here))) / (2 * h))
            here[i] = value
        return np.array(found)

    audit = gradcheck.make_check(mlp.loss, exhaustive=True)

    def exhaustive():
        # Another array each time: an audit keeps what it measured at the same one.
        report = audit(jax.tree.map(jnp.array, params), inputs, targets)
        assert report.verdict == "pass", str(report)

    share = SAMPLE / flat.size
    ways: dict[str, tuple[Callable[[], Any], float]] = {
        "exhaustive audit": (exhaustive, 1.0),
        "compiled loop": (mapped(None), share),
        f"compiled, blocks of {BLOCK}": (mapped(BLOCK), share),
        "loop in Python": (python, share),
    }
    right = np.asarray(ravel_pytree(jax.grad(mlp.loss)(params, inputs, targets))[0])[sample]
    for run, _ in ways.values():  # compiles
        if (found := run()) is not None:
            np.testing.assert_allclose(found, right, atol=1e-7)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, (run, part) in ways.items():
            start = time.perf_counter()
            run()
            seconds[name].append((time.perf_counter() - start) / part)
    python_seconds = seconds["loop in Python"]
    return {
        "coordinates": flat.size,
        "sampled": SAMPLE,
        "seconds": seconds,
        RATIOS: {
            name: statistics.median(p / s for p, s in zip(python_seconds, each, strict=True))
            for name, each in seconds.items()
        },
    }


def main(program: str, argv: Sequence[str]) -> int:
    """Runs the study."""
    parser = Parser(program, __doc__)
    parser.add_argument(
        "--out", type=Path, default=RESULTS / "gradcheck", help="folder (results/gradcheck)"
    )
    given = parser.parse_args(argv)
    check_out(given.out)
    found = measure()
    files.write_json(given.out / "exhaustive.json", {**found, "environment": record.environment()})
    for name, times in found[RATIOS].items():
        print(f"{name}: {statistics.median(found['seconds'][name]):.3g} s, {times:.3g} times")
    return 0
