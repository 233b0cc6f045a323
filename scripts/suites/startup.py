"""From the start of a process to the end of its first epoch on the digits."""

import time

import numpy as np

from jaxnet import data
from suites.common import Found, Run, median, processes, spread, table

_LEFT_OUT = {"numpy-float64", "torch-chunked"}  # forms of full batches, and all but one bfloat16


def measure(run: Run) -> Found:
    """Measures processes, one of each peer in a round; the first round fills compilation caches."""
    digits = data.load("digits", dtype=np.float32).train
    run.write(np.rint(digits.inputs * 240).astype(np.uint8), digits.labels)
    work = run.work((64, 64, 10), 32)
    names = [name for name in run.peers if name not in _LEFT_OUT]
    names = [name for name in names if "bfloat16" not in name or name == "jaxnet-bfloat16"]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    cold = {}
    for number in range(run.rounds(7) + 1):
        for name in names:
            if name in run.failed:
                continue
            run.bar.set_postfix_str(name)
            start = time.perf_counter()
            with run.excused(name), processes(run, [name]) as (peer,):
                peer.ask("make", work)
                peer.ask("run")
                elapsed = time.perf_counter() - start
                if number:
                    seconds[name].append(elapsed)
                else:
                    cold[name] = elapsed
            run.bar.update()
    seconds = {name: of_peer for name, of_peer in seconds.items() if name not in run.failed}
    rows = [
        {"peer": name, "seconds": spread(of_peer), "first time": f"{cold[name]:.2f}"}
        for name, of_peer in sorted(seconds.items(), key=lambda item: median(item[1]))
    ]
    numbers = {"work": work, "seconds": seconds, "first time": cold}
    return Found(numbers, table(rows))
