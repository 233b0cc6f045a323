"""One iteration of the lecture's program on all images."""

import itertools
from typing import Any

import peers

from suites.common import LECTURE, Found, Run, interleave, median, prepare, processes, spread, table

_LEFT_OUT = {
    "nielsen",  # a sample at a time; see the suite of epochs
    "jax-scan",  # of one batch there is nothing to scan
}


def flops(sizes: tuple[int, ...], rows: int) -> float:
    """Returns the operations of an iteration: of all products but the gradient in the inputs."""
    pairs = [inputs * outputs for inputs, outputs in itertools.pairwise(sizes)]
    return 2.0 * rows * (3 * sum(pairs) - pairs[0])


def measure(run: Run) -> Found:
    """Measures one iteration, and the best rates of matrix products in the same run."""
    images = run.write_images()
    count = 6_000 if run.quick else 60_000
    work = run.work(LECTURE, count, bias=False, learning_rate=0.3)  # as the slides have it
    names = [name for name in run.peers if name not in _LEFT_OUT]
    with processes(run, [*names, *peers.CEILINGS]) as started:
        prepare(run, started[: len(names)], work)
        found = interleave(run, started, run.rounds(7), epochs=1 if run.quick else 3)
    ceilings = {name: median(found.pop(name)["values"]) for name in peers.CEILINGS}
    total = flops(LECTURE, count)
    rows, reference = [], median(found["jaxnet"]["seconds"]) if "jaxnet" in found else None
    for name, each in sorted(found.items(), key=lambda item: median(item[1]["seconds"])):
        seconds = median(each["seconds"])
        rate = total / seconds / 1e9
        each["gflops"] = rate
        row: dict[str, Any] = {
            "peer": name,
            "seconds": spread(each["seconds"]),
            "GFLOP/s": f"{rate:.0f}",
            "of float32 products": f"{rate / ceilings['matmul']:.0%}",
            "peak MB": f"{each['peak_mb']:.0f}",
        }
        if reference:
            row["times jaxnet"] = f"{seconds / reference:.2f}"
        rows.append(row)
    numbers = {
        "work": {**work, "images": images, "gflop": total / 1e9},
        "ceilings": ceilings,
        "peers": found,
    }
    lines = "\n".join(f"{name}: {value:.0f}" for name, value in ceilings.items())
    return Found(numbers, f"{table(rows)}\n\n{lines}", ("roofline",))
