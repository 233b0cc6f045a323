"""One epoch of minibatches."""

import itertools
from typing import Any

from suites.common import LECTURE, Found, Run, interleave, median, prepare, processes, table

_LEFT_OUT = {"numpy-float64", "torch-chunked", "torch-bfloat16-chunked"}  # forms of full batches
_SMALL = (784, 30, 10)
_WORKS = tuple(itertools.product((_SMALL, LECTURE), (10, 32, 128, 512), ("sgd", "adam")))
_RATES = {"sgd": 0.1, "adam": 0.001}


def measure(run: Run) -> Found:
    """Measures epochs of each size of minibatch, network and optimizer."""
    images = run.write_images()
    names = [name for name in run.peers if name not in _LEFT_OUT]
    works, rows = [], []
    with processes(run, names) as started:
        for sizes, batch_size, optimizer in _WORKS if not run.quick else _WORKS[:2]:
            rate = _RATES[optimizer]
            work = run.work(sizes, batch_size, optimizer=optimizer, learning_rate=rate)
            able = [peer for peer in started if _can(peer.name, sizes, optimizer)]
            prepare(run, able, work)
            found = interleave(run, able, run.rounds(3))
            title = f"{'-'.join(map(str, sizes))}, {batch_size}, {optimizer}"
            works.append({"work": work, "title": title, "peers": found})
            seconds = {name: median(each["seconds"]) for name, each in found.items()}
            row: dict[str, Any] = {"network, batch, optimizer": title}
            for name in names:
                row[name] = f"{seconds[name]:.3g}" if name in seconds else "-"
            rows.append(row)
    return Found({"images": images, "works": works}, table(rows))


def _can(name: str, sizes: tuple[int, ...], optimizer: str) -> bool:
    # Nielsen's loop knows no Adam, and on the larger network takes minutes.
    return name != "nielsen" or (optimizer == "sgd" and sizes == _SMALL)
