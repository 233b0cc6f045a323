"""Right gradients of random functions: false alarms."""

import multiprocessing
import signal
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from jaxnet import gradcheck
from studies.gradcheck import checkers, functions
from studies.gradcheck.options import Kept, Options, count

__all__ = ["alarms", "audit", "count_alarms"]

_PEERS_EVERY = 10  # check_grads is slower, and so many functions say enough
_TOGETHER = 10  # functions that a process is given at a time
_DTYPES = ("float32", "float64")


def alarms(options: Options) -> dict[str, Any]:
    """Audits right gradients: none may fail, and in float64 none may be inconclusive."""
    kept = Kept(options.out, "alarms")
    done = {row["seed"] for row in kept.rows}
    seeds = [seed for seed in range(options.functions) if seed not in done]
    parts = [seeds[i : i + _TOGETHER] for i in range(0, len(seeds), _TOGETHER)]
    context = multiprocessing.get_context("spawn")
    with (
        # Processes are replaced now and then: they fill with compiled programs.
        context.Pool(options.jobs, _leave_interrupts, maxtasksperchild=10) as pool,
        tqdm.tqdm(total=len(seeds), disable=None) as bar,
    ):
        for rows in pool.imap_unordered(audit, parts):
            for row in rows:
                kept.keep(row)
                bar.update()
    found = count_alarms(sorted(kept.rows, key=lambda row: row["seed"]))
    kept.forget()
    return found


def _leave_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the main process, which ends these


def audit(seeds: list[int]) -> list[dict[str, Any]]:
    """Audits the functions of some seeds, in float32 and in float64."""
    rows = []
    for seed in seeds:
        problem = functions.draw(seed, np.float32)
        row: dict[str, Any] = {"seed": seed, "name": problem.name}
        check = gradcheck.make_check(problem.f)
        for dtype in _DTYPES:
            x64 = dtype == "float64"
            with jax.enable_x64(x64):
                args = jax.tree.map(lambda leaf, to=dtype: _cast(leaf, to), problem.args)
                report = check(*args, key=jax.random.key(seed))
            row[dtype] = report.verdict
            if seed % _PEERS_EVERY == 0:
                verdict = checkers.jax_check_grads(problem.f, None, problem.args, x64=x64)
                row[f"check_grads {dtype}"] = "pass" if verdict.passed else "fail"
            if report.verdict != "pass":
                row[f"{dtype}, why"] = str(report)
        rows.append(row)
    return rows


def _cast(leaf: Any, dtype: str) -> Any:
    return jnp.asarray(leaf, dtype if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.dtype)


def count_alarms(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts verdicts on right gradients."""
    asked = [row for row in rows if "check_grads float32" in row]
    peer = {dtype: sum(row[f"check_grads {dtype}"] == "fail" for row in asked) for dtype in _DTYPES}
    return {
        "functions": len(rows),
        "families": dict(Counter(row["name"].partition(":")[0] for row in rows)),
        "verdicts": {dtype: count([row[dtype] for row in rows]) for dtype in _DTYPES},
        "check_grads": {"functions": len(asked), "right ones that fail": peer},
        "not passed": [row for row in rows if any(row[dtype] != "pass" for dtype in _DTYPES)],
    }
