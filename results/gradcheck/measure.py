"""Measures the gradient audit beside the checkers that people use today.

  python results/gradcheck/measure.py                    everything, an hour on two cores
  python results/gradcheck/measure.py detection          wrong gradients of the network on MNIST
  python results/gradcheck/measure.py small              the same of a small one, on the digits
  python results/gradcheck/measure.py coordinates        gradients that are wrong in one coordinate
  python results/gradcheck/measure.py alarms             right gradients of 2,000 random functions
  python results/gradcheck/measure.py bfloat16           both, in bfloat16
  python results/gradcheck/measure.py cost               time and memory
  python results/gradcheck/measure.py convergence        error against step
  python results/gradcheck/measure.py pictures           redraws them from the records

Each part writes its record and its pictures beside this file. The peers are `jax.test_util.
check_grads` and, where PyTorch is installed, `torch.autograd.gradcheck`. MNIST comes as for
scripts/train.py.
"""

import argparse
import functools
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import peers
import random_functions
import states
import tqdm

from jaxnet import backprop, data, faults, gradcheck, mlp, record

HERE = Path(__file__).parent
SEEDS = 3
PEERS_EVERY = 10
LEAST = 0.01  # of a leaf's norm: a fault that changes less may pass
SMALL = (64, 16, 16, 10)  # PyTorch's slow mode asks for the loss twice a coordinate
COORDINATE = 1e-3  # of a leaf's norm


# --- wrong gradients of the network ---------------------------------------------------------------


def detection(flags: argparse.Namespace) -> dict[str, Any]:
    """Plants every fault in every state of the network on MNIST, and asks every checker."""
    return detect("detection", "mnist", states.SIZES, torch_modes=("fast",))


def small(flags: argparse.Namespace) -> dict[str, Any]:
    """The same of a network that is small enough for PyTorch's slow mode, on the digits."""
    if peers.available():
        peers.use_one_thread()  # ten times as fast as two, on matrices as small as these
    return detect("small", "digits", SMALL, torch_modes=("fast", "slow"))


def detect(
    name: str, dataset: str, sizes: tuple[int, ...], torch_modes: tuple[str, ...]
) -> dict[str, Any]:
    """Returns what every checker says of every fault in every state of a network."""
    examples = data.load(dataset, validation_split=0, dtype=np.float32)
    check = gradcheck.make_check(mlp.loss)
    kept = Kept(name)
    done = {(row["state"], row["fault"]) for row in kept.rows}
    for state in states.states(examples, range(SEEDS), sizes):
        params, *batch = state[1:]
        subjects = {"none": backprop.value_and_grad, **plantable(params)}
        for fault, value_and_grad in tqdm.tqdm(subjects.items(), desc=state.name, disable=None):
            if (state.name, fault) not in done:
                row: dict[str, Any] = {"state": state.name, "fault": fault}
                row["size"] = size(value_and_grad, params, batch)
                kept.keep(row | verdicts(check, value_and_grad, params, batch, torch_modes))
    right = [row for row in kept.rows if row["fault"] == "none"]
    rows = [row for row in kept.rows if row["fault"] != "none"]
    kept.forget()
    return {
        "network": sizes,
        "dataset": dataset,
        "images": states.IMAGES,
        "seeds": SEEDS,
        "summary": summarise(right, rows),
        "right": right,
        "rows": rows,
    }


def plantable(params) -> dict[str, Any]:
    """Returns the faults that this network can have and that leave the gradient's form."""
    return {
        name: fault
        for name, fault in faults.CATALOGUE.items()
        if fault.fits and fault.spoilt(params)
    }


def size(value_and_grad, params, batch) -> float | str:
    """Returns the largest change that a fault makes to a leaf, relative to the leaf's norm."""
    with jax.enable_x64(True):
        args = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (params, *batch))
        ours, right = value_and_grad(*args)[1], jax.grad(mlp.loss)(*args)
        sizes = jax.tree.map(
            lambda a, b: float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b)), ours, right
        )
    largest = np.max(jax.tree.leaves(sizes))
    return float(largest) if np.isfinite(largest) else "nan"


def verdicts(check, value_and_grad, params, batch, torch_modes) -> dict[str, Any]:
    """Returns what each checker says of a gradient, and in how many seconds."""
    gradient = gradient_of(value_and_grad)
    start = time.perf_counter()
    report = check(params, *batch, gradient=gradient)
    found: dict[str, Any] = {"jaxnet": report.verdict, "jaxnet_s": time.perf_counter() - start}
    found["leaf"] = report.worst.path if report.verdict != "pass" else None
    found["diagnosis"] = report.worst.diagnosis
    for name, x64 in (("check_grads float32", False), ("check_grads float64", True)):
        verdict = peers.jax_check_grads(mlp.loss, gradient, (params, *batch), x64)
        found[name] = "pass" if verdict.passed else "fail"
        found[f"{name}_s"] = verdict.seconds
    for mode in torch_modes if peers.available() else ():
        verdict = peers.torch_gradcheck(value_and_grad, params, *batch, fast_mode=mode == "fast")
        found[f"torch float64, {mode}"] = "pass" if verdict.passed else "fail"
        found[f"torch float64, {mode}_s"] = verdict.seconds
    return found


@functools.cache  # one function for a fault, so that it is compiled once for all states
def gradient_of(value_and_grad) -> Any:
    """Returns the second of a function's two results."""
    return jax.jit(lambda *args: value_and_grad(*args)[1])


def summarise(right, rows) -> dict[str, Any]:
    """Counts, for each checker, wrong gradients that passed and right ones that did not."""
    checkers = [name[:-2] for name in rows[0] if name.endswith("_s")]
    large = [row for row in rows if row["size"] == "nan" or row["size"] >= LEAST]
    summary: dict[str, Any] = {
        "right gradients": len(right),
        "wrong by 1% of a leaf or more": len(large),
        "wrong by less": len(rows) - len(large),
    }
    for checker in checkers:
        seconds = [row[f"{checker}_s"] for row in rows]
        summary[checker] = {
            "right that did not pass": sum(row[checker] != "pass" for row in right),
            "wrong that passed": sum(row[checker] == "pass" for row in large),
            "wrong and inconclusive": sum(row[checker] == "inconclusive" for row in large),
            "faults that ever passed": sorted({r["fault"] for r in large if r[checker] == "pass"}),
            "wrong by less that passed": sum(
                row[checker] == "pass" for row in rows if row not in large
            ),
            "median seconds": statistics.median(seconds),
        }
    return summary


# --- gradients that are wrong in one coordinate ---------------------------------------------------


def coordinates(flags: argparse.Namespace) -> dict[str, Any]:
    """Spoils one coordinate of each leaf, in float64, and looks for it in two ways.

    The wrong gradient is that of a function which brings it along (a `jax.custom_vjp`): nothing
    but differences knows better. Then it is one that is handed over, and `jax.grad` is right.
    """
    dataset = data.load("mnist", validation_split=0, dtype=np.float32)
    brought = peers.attach(
        lambda params, inputs, targets, error: mlp.loss(params, inputs, targets), spoilt
    )
    checks = {"brought along": gradcheck.make_check(brought)}
    checks["handed over"] = gradcheck.make_check(mlp.loss)
    rows = []
    trained = list(states.states(dataset, range(SEEDS)))
    with jax.enable_x64(True):
        for number, state in enumerate(tqdm.tqdm(trained, disable=None)):
            args = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), state[1:])
            right, structure = jax.tree.flatten(jax.grad(mlp.loss)(*args))
            rng = np.random.default_rng(number)
            for index, leaf in enumerate(right):
                place = tuple(int(rng.integers(length)) for length in leaf.shape)
                errors = [jnp.zeros_like(each) for each in right]
                amount = COORDINATE * jnp.linalg.norm(leaf)
                errors[index] = errors[index].at[place].set(amount)
                error = structure.unflatten(errors)
                reports = {
                    "brought along": checks["brought along"](*args, error),
                    "handed over": checks["handed over"](*args, gradient=spoilt(*args, error)),
                }
                for way, report in reports.items():
                    found = report.leaves[index]
                    worst = found.location.worst[0].path if found.location else None
                    others = {each.verdict for each in report.leaves if each is not found}
                    row = {"state": state.name, "coordinate": f"{found.path}{list(place)}"}
                    row |= {"way": way, "verdict": found.verdict, "named": worst}
                    rows.append(row | {"other leaves": sorted(others)})
    summary = {
        way: {
            "spoilt": sum(row["way"] == way for row in rows),
            "failed": sum(row["way"] == way and row["verdict"] == "fail" for row in rows),
            "named": sum(row["way"] == way and row["named"] == row["coordinate"] for row in rows),
            "other leaves that did not pass": sum(
                row["way"] == way and row["other leaves"] != ["pass"] for row in rows
            ),
        }
        for way in checks
    }
    return {"error, of the leaf's norm": COORDINATE, "summary": summary, "rows": rows}


@jax.jit
def spoilt(params, inputs, targets, error) -> Any:
    """Returns the gradient of the network's loss, and an error."""
    return jax.tree.map(jnp.add, jax.grad(mlp.loss)(params, inputs, targets), error)


# --- right gradients of random functions ----------------------------------------------------------


def alarms(flags: argparse.Namespace) -> dict[str, Any]:
    """Audits right gradients: none may fail, and in float64 none may be inconclusive."""
    kept = Kept("alarms")
    done = {row["seed"] for row in kept.rows}
    seeds = [seed for seed in range(flags.functions) if seed not in done]
    chunks = [seeds[i : i + 10] for i in range(0, len(seeds), 10)]
    context = multiprocessing.get_context("spawn")
    with (
        context.Pool(flags.jobs, maxtasksperchild=10) as pool,  # they fill with compiled programs
        tqdm.tqdm(total=len(seeds), disable=None) as bar,
    ):
        for rows in pool.imap_unordered(audit, chunks):
            for row in rows:
                kept.keep(row)
                bar.update()
    found = count_alarms(sorted(kept.rows, key=lambda row: row["seed"]))
    kept.forget()
    return found


def audit(seeds: list[int]) -> list[dict[str, Any]]:
    """Audits the functions of some seeds, in float32 and in float64."""
    rows = []
    for seed in seeds:
        problem = random_functions.draw(seed, np.float32)
        row: dict[str, Any] = {"seed": seed, "name": problem.name}
        check = gradcheck.make_check(problem.f)
        for dtype, x64 in (("float32", False), ("float64", True)):
            with jax.enable_x64(x64):
                args = jax.tree.map(lambda leaf, to=dtype: widened(leaf, to), problem.args)
                report = check(*args, key=jax.random.key(seed))
            row[dtype] = report.verdict
            if seed % PEERS_EVERY == 0:  # they are slower, and as many tell enough of them
                verdict = peers.jax_check_grads(problem.f, None, problem.args, x64)
                row[f"check_grads {dtype}"] = "pass" if verdict.passed else "fail"
            if report.verdict != "pass":
                row[f"{dtype}, why"] = str(report)
        rows.append(row)
    return rows


class Kept:
    """Rows that an interrupted measurement leaves, and that the next one need not repeat."""

    def __init__(self, name: str):
        self.path = HERE / f"{name}.partial.jsonl"
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.rows = [json.loads(line) for line in lines]

    def keep(self, row: dict[str, Any]) -> None:
        """Adds a row, at once."""
        self.rows.append(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def forget(self) -> None:
        """Removes the file."""
        self.path.unlink(missing_ok=True)


def widened(leaf: Any, dtype: str) -> Any:
    """Returns an array in another floating-point dtype; integers stay."""
    return jnp.asarray(leaf, dtype if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.dtype)


def count_alarms(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts verdicts of right gradients."""
    counts = {
        dtype: {
            verdict: sum(row[dtype] == verdict for row in rows)
            for verdict in ("pass", "inconclusive", "fail")
        }
        for dtype in ("float32", "float64")
    }
    asked = [row for row in rows if "check_grads float32" in row]
    peer = {
        dtype: sum(row[f"check_grads {dtype}"] == "fail" for row in asked)
        for dtype in ("float32", "float64")
    }
    families: dict[str, int] = {}
    for row in rows:
        family = row["name"].partition(":")[0]
        families[family] = families.get(family, 0) + 1
    odd = [row for row in rows if {row["float32"], row["float64"]} != {"pass"}]
    return {
        "functions": len(rows),
        "families": families,
        "verdicts": counts,
        "check_grads": {"functions": len(asked), "right ones that fail": peer},
        "not passed": odd,
    }


# --- bfloat16 -------------------------------------------------------------------------------------


def bfloat16(flags: argparse.Namespace) -> dict[str, Any]:
    """Audits bfloat16 gradients at a tolerance of 2%: right ones, and some wrong by 20%."""
    dataset = data.load("mnist", validation_split=0, dtype=np.float32)
    audit = gradcheck.make_check(mlp.loss, tolerance=0.02)
    rows = []
    for state in states.states(dataset, range(SEEDS)):
        if not state.name.endswith((" 0 steps", " 50 steps", " 300 steps")):
            continue
        args = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), state[1:])
        gradient = jax.grad(mlp.loss)(*args)
        for index, (path, _) in enumerate(jax.tree_util.tree_leaves_with_path(gradient)):
            leaves, structure = jax.tree.flatten(gradient)
            leaves[index] = (leaves[index].astype(jnp.float32) * 1.2).astype(jnp.bfloat16)
            report = audit(*args, gradient=structure.unflatten(leaves))
            rows.append(
                {
                    "state": state.name,
                    "wrong": jax.tree_util.keystr(path),
                    "verdict": report.leaves[index].verdict,
                    "error": report.leaves[index].error,
                }
            )
        report = audit(*args, gradient=gradient)
        rows.append(
            {
                "state": state.name,
                "wrong": None,
                "verdict": report.verdict,
                "error": max(leaf.error for leaf in report.leaves),
            }
        )
    summary = {
        kind: {
            verdict: sum(r["verdict"] == verdict for r in rows if (r["wrong"] is None) == is_right)
            for verdict in ("pass", "inconclusive", "fail")
        }
        for kind, is_right in (("right", True), ("one leaf wrong by 20%", False))
    }
    return {"tolerance": 0.02, "summary": summary, "rows": rows}


# --- cost -----------------------------------------------------------------------------------------


def cost(flags: argparse.Namespace) -> dict[str, Any]:
    """Times one audit of 784-256-128-10, and an exhaustive estimate of 784-30-10."""
    found: dict[str, Any] = {"audit": run_alone("audit")}
    for dtype in ("float64", "float32"):
        found[f"exhaustive, {dtype}"] = run_alone("exhaustive", dtype)
    return found


def run_alone(part: str, *arguments: str) -> dict[str, Any]:
    """Runs a measurement in a process of its own, whose memory is then its alone."""
    command = [sys.executable, __file__, f"_{part}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _batch(dtype: Any) -> tuple[jax.Array, jax.Array]:
    train = data.load("mnist", validation_split=0, dtype=np.float32).train
    inputs, targets = (np.asarray(array[: states.IMAGES], dtype) for array in train)
    return jnp.asarray(inputs), jnp.asarray(targets)


def time_audit() -> dict[str, Any]:
    """Times audits of the network's loss as it is; memory is the whole process's, MNIST read."""
    inputs, targets = _batch(np.float32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    audit = gradcheck.make_check(mlp.loss)
    seconds, params = [], ()
    for seed in range(6):
        params = mlp.init(jax.random.key(seed), states.SIZES)
        jax.block_until_ready(params)
        start = time.perf_counter()
        report = audit(params, inputs, targets)
        seconds.append(time.perf_counter() - start)
        assert report.verdict == "pass", str(report)
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "with compilation, seconds": seconds[0],
        "after it, seconds": seconds[1:],
        "peak memory, MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "of which before the audit, MiB": before,
    }


def time_exhaustive(dtype: str) -> dict[str, Any]:
    """Times audits of every coordinate of 784-30-10 and a loop in Python, interleaved.

    The audit's differences are in float64 whatever the dtype; the loop's are in the dtype, as they
    are of whoever writes it.
    """
    if dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    params = mlp.init(jax.random.key(0), (784, 30, 10), dtype=dtype)
    inputs, targets = _batch(dtype)
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

    def timed(call):
        start = time.perf_counter()
        return call(), time.perf_counter() - start

    def estimate():
        return jax.block_until_ready(gradcheck.finite_difference(mlp.loss, params, inputs, targets))

    some = np.random.default_rng(0).choice(len(here), 2_000, replace=False)
    list(loop(some[:10]))  # compiles
    report, first = timed(lambda: audit(params, inputs, targets))
    assert report.verdict == "pass", str(report)
    ours, estimates, theirs = [], [], []
    for seed in range(1, 6):
        _, seconds = timed(lambda: list(loop(some)))
        theirs.append(seconds * len(here) / len(some))
        key = jax.random.key(seed)  # other directions: nothing is remembered
        ours.append(timed(lambda key=key: audit(params, inputs, targets, key=key))[1])
        estimates.append(timed(estimate)[1])
    return {
        "coordinates": len(here),
        "audit, seconds": ours,
        "audit, the first time, seconds": first,
        "finite_difference alone, compilation included, seconds": estimates,
        "loop, seconds, from 2,000 coordinates": theirs,
        "times as fast as the loop": statistics.median(theirs) / statistics.median(ours),
    }


# --- error against step ---------------------------------------------------------------------------


def convergence(flags: argparse.Namespace) -> dict[str, Any]:
    """Measures how the error of differences of the network's loss depends on the step."""
    inputs, targets = _batch(np.float32)
    params = mlp.init(jax.random.key(0), states.SIZES)
    curves = [
        gradcheck.convergence(mlp.loss, params, inputs, targets, leaf=leaf) for leaf in range(6)
    ]
    report = gradcheck.check(mlp.loss, params, inputs, targets)
    return {"curves": [plain(each) for each in curves], "report": report.to_dict()}


def plain(value: Any) -> Any:
    """Returns named tuples and arrays as what JSON knows."""
    if fields := getattr(value, "_fields", ()):
        return {name: plain(each) for name, each in zip(fields, value, strict=True)}
    return value.tolist() if isinstance(value, np.ndarray) else value


# --- pictures -------------------------------------------------------------------------------------


def pictures(flags: argparse.Namespace) -> None:
    """Draws what the records hold."""
    import matplotlib as mpl

    from jaxnet import plots
    from jaxnet.plots.style import STYLE

    with mpl.rc_context(STYLE):
        path = HERE / "convergence.json"
        if path.exists():
            found = record.read_json(path)
            plots.convergence(found["curves"][0]).savefig(HERE / "convergence.png")
            plots.slopes(found["report"]).savefig(HERE / "slopes.png")
        if (HERE / "detection.json").exists():
            found = record.read_json(HERE / "detection.json")
            plots.detection(found["rows"], found["summary"]).savefig(HERE / "detection.png")
    error_map(plots, mpl, STYLE)


def error_map(plots: Any, mpl: Any, style: Any) -> None:
    """Draws where the first weight's float32 gradient is off, right and with a row left out."""
    inputs, targets = _batch(np.float32)
    params = mlp.init(jax.random.key(0), states.SIZES)
    given = faults.CATALOGUE["saturated-stopped"](params, inputs, targets)[1]
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (params, inputs, targets))
        right = jax.grad(mlp.loss)(*wide)
    with mpl.rc_context(style):
        figure = plots.error_map(
            np.asarray(given[1].weight, float),
            np.asarray(right[1].weight),
            "params[1].weight",
            fault="saturated-stopped",
            tolerance=1e-3,
        )
        figure.savefig(HERE / "error_map.png")


PARTS = {
    "detection": detection,
    "small": small,
    "coordinates": coordinates,
    "alarms": alarms,
    "bfloat16": bfloat16,
    "cost": cost,
    "convergence": convergence,
}


def main() -> None:
    """Measures the parts that are asked for, or all."""
    if sys.argv[1:2] == ["_audit"]:
        print(json.dumps(time_audit()))
        return
    if sys.argv[1:2] == ["_exhaustive"]:
        print(json.dumps(time_exhaustive(sys.argv[2])))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=[*PARTS, "pictures", []], help="by default all")
    parser.add_argument("--functions", type=int, default=2_000, help="how many are random (2000)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes for them")
    flags = parser.parse_args()
    for name in flags.parts or PARTS:
        if name in PARTS:
            found = PARTS[name](flags)
            environment = record.environment()
            record.write_json(HERE / f"{name}.json", {**found, "environment": environment})
            brief = {key: value for key, value in found.items() if key not in _LONG}
            print(json.dumps({name: brief}, indent=2, default=str))
    if {"detection", "convergence", "pictures"} & set(flags.parts or PARTS):
        pictures(flags)


_LONG = ("rows", "right", "curves", "report", "not passed")

if __name__ == "__main__":
    main()
