"""Wrong gradients of the network: every fault in every state, and what each checker says."""

import functools
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from jaxnet import backprop, data, faults, gradcheck, mlp
from jaxnet.types import Params, ValueAndGrad
from studies import load
from studies.gradcheck import checkers, states
from studies.gradcheck.options import Kept, Options, mnist

__all__ = ["detect", "detection", "plantable", "small", "summarise", "verdicts"]

LEAST = 0.01  # of a leaf's norm: a fault that changes less may pass
SMALL = (64, 16, 16, 10)  # PyTorch's slow mode takes two losses for each coordinate


def detection(options: Options) -> dict[str, Any]:
    """Plants every fault in every state of the network on MNIST, and asks every checker."""
    kept, seeds = Kept(options.out, "detection"), range(options.seeds)
    found = detect(mnist(), kept, seeds, sizes=states.SIZES, torch_modes=("fast",))
    return {"network": states.SIZES, "dataset": "mnist", **found}


def small(options: Options) -> dict[str, Any]:
    """Does the same with a network that is small enough for PyTorch's slow mode, on the digits."""
    if checkers.has_torch():
        checkers.use_one_thread()  # ten times as fast as two, on matrices as small as these
    digits = load("digits", validation_split=0, dtype=np.float32)
    kept, seeds = Kept(options.out, "small"), range(options.seeds)
    found = detect(digits, kept, seeds, sizes=SMALL, torch_modes=("fast", "slow"))
    return {"network": SMALL, "dataset": "digits", **found}


def detect(
    dataset: data.Dataset,
    kept: Kept,
    seeds: Sequence[int],
    *,
    sizes: tuple[int, ...],
    torch_modes: Iterable[str] = (),
    steps: tuple[int, ...] = states.STEPS,
) -> dict[str, Any]:
    """Returns what every checker says of every fault in every state of a network.

    Args:
      dataset: float32.
      kept: rows of an earlier call, which are not measured again; removed at the end.
      seeds: of the networks.
      sizes: of the networks.
      torch_modes: ``"fast"`` and ``"slow"``, if PyTorch is to be asked.
      steps: of training, after each of which there is a state.
    """
    check = gradcheck.make_check(mlp.loss)
    done = {(row["state"], row["fault"]) for row in kept.rows}
    for state in states.states(dataset, seeds, sizes, steps):
        params, *batch = state[1:]
        subjects = {"none": backprop.value_and_grad, **plantable(params)}
        for fault, value_and_grad in tqdm.tqdm(subjects.items(), desc=state.name, disable=None):
            if (state.name, fault) not in done:
                row: dict[str, Any] = {"state": state.name, "fault": fault}
                row["size"] = _size(value_and_grad, params, batch)
                kept.keep(row | verdicts(check, value_and_grad, params, batch, torch_modes))
    right = [row for row in kept.rows if row["fault"] == "none"]
    rows = [row for row in kept.rows if row["fault"] != "none"]
    kept.forget()
    return {
        "images": states.IMAGES,
        "seeds": len(seeds),
        "summary": summarise(right, rows),
        "right": right,
        "rows": rows,
    }


def plantable(params: Params) -> dict[str, Any]:
    """Returns the faults that this network can have and that leave the gradient's form."""
    return {
        name: fault
        for name, fault in faults.CATALOGUE.items()
        if fault.fits and fault.wrong_leaves(params)
    }


def _size(value_and_grad: ValueAndGrad, params: Params, batch: Sequence[Any]) -> float:
    """Returns the largest change that a fault makes to a leaf, relative to the leaf's norm."""
    with jax.enable_x64(True):
        args = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (params, *batch))
        ours, right = value_and_grad(*args)[1], jax.grad(mlp.loss)(*args)
        sizes = jax.tree.map(
            lambda a, b: float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b)), ours, right
        )
    largest = np.max(jax.tree.leaves(sizes))
    return float(largest) if np.isfinite(largest) else float("nan")


def verdicts(
    check: Callable[..., Any],
    value_and_grad: ValueAndGrad,
    params: Params,
    batch: Sequence[Any],
    torch_modes: Iterable[str],
) -> dict[str, Any]:
    """Returns what each checker says of a gradient, and in how many seconds."""
    gradient = _gradient_of(value_and_grad)
    start = time.perf_counter()
    report = check(params, *batch, gradient=gradient)
    found: dict[str, Any] = {"jaxnet": report.verdict, "jaxnet_s": time.perf_counter() - start}
    found["leaf"] = report.worst.path if report.verdict != "pass" else None
    found["diagnosis"] = report.worst.diagnosis
    for name, x64 in (("check_grads float32", False), ("check_grads float64", True)):
        verdict = checkers.jax_check_grads(mlp.loss, gradient, (params, *batch), x64=x64)
        found[name] = "pass" if verdict.passed else "fail"
        found[f"{name}_s"] = verdict.seconds
    for mode in torch_modes if checkers.has_torch() else ():
        verdict = checkers.torch_gradcheck(value_and_grad, params, *batch, fast=mode == "fast")
        found[f"torch float64, {mode}"] = "pass" if verdict.passed else "fail"
        found[f"torch float64, {mode}_s"] = verdict.seconds
    return found


@functools.cache  # one function for a fault, so that it is compiled once for all states
def _gradient_of(value_and_grad: ValueAndGrad) -> Any:
    return jax.jit(lambda *args: value_and_grad(*args)[1])


def summarise(right: list[dict[str, Any]], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts, for each checker, wrong gradients that passed and right ones that did not."""
    names = [name[:-2] for name in rows[0] if name.endswith("_s")]
    is_large = [not float(row["size"]) < LEAST for row in rows]  # NaN is large
    large = [row for row, is_so in zip(rows, is_large, strict=True) if is_so]
    less = [row for row, is_so in zip(rows, is_large, strict=True) if not is_so]
    summary: dict[str, Any] = {
        "right gradients": len(right),
        "wrong by 1% of a leaf or more": len(large),
        "wrong by less": len(less),
    }
    for name in names:
        summary[name] = {
            "right that did not pass": sum(row[name] != "pass" for row in right),
            "wrong that passed": sum(row[name] == "pass" for row in large),
            "wrong and inconclusive": sum(row[name] == "inconclusive" for row in large),
            "faults that ever passed": sorted({r["fault"] for r in large if r[name] == "pass"}),
            "wrong by less that passed": sum(row[name] == "pass" for row in less),
            "median seconds": statistics.median(row[f"{name}_s"] for row in rows),
        }
    return summary
