"""Runs one peer in a process of its own, for `benchmark.py`.

It reads one line of JSON at a time, and answers each with one line: ``{"make": work}`` compiles,
``{"run": 1}`` trains for an epoch, ``{"test": 1}`` measures the accuracy, and ``{"rate": 1}``
measures a ceiling. Each answer has the value and the seconds that it took.
"""

import contextlib
import importlib
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import peers


def load(description: dict, folder: Path) -> peers.Work:
    """Returns the work that a line describes; its arrays lie in the folder."""
    given = dict(description)
    with np.load(folder / f"{given.pop('params')}.npz") as file:
        arrays = dict(file)
    layers = range(sum(name.startswith("weight") for name in arrays))
    params = [(arrays[f"weight{i}"], arrays.get(f"bias{i}")) for i in layers]
    images = np.load(folder / "images.npy", mmap_mode="r")  # each peer converts them as it likes
    labels = np.load(folder / "labels.npy")
    return peers.Work(images, labels, params, **given)


def forget_peak() -> None:
    """Resets the peak of memory, so that it does not count what compiling took."""
    with contextlib.suppress(OSError):  # Linux has it
        Path("/proc/self/clear_refs").write_text("5")


def peak_mb() -> float:
    """Returns the peak of memory since then, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage says at least the parent's peak there
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(name: str, folder: Path) -> None:
    """Answers until there is nothing more to read."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    module = importlib.import_module(f"peers.{peers.module_of(name)}")
    program: Any = None
    for line in sys.stdin:
        order, start, value = json.loads(line), time.perf_counter(), None
        if "make" in order:
            program = module.make(name, load(order["make"], folder))
        elif "rate" in order:
            value = module.measure(name)
        elif "test" in order:
            images, labels = (np.load(folder / f"test_{each}.npy") for each in ("images", "labels"))
            value = float(np.mean(program.predict(images) == labels))
        else:
            forget_peak()
            value = program.epoch()
        answer = {
            "value": value,
            "compiled": program and program.compiled,
            "seconds": time.perf_counter() - start,
            "peak_mb": peak_mb(),
        }
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
