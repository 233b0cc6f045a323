"""How time and memory grow with the batch, the width, the depth and the dataset."""

from typing import Any

import numpy as np
import peers

from suites.common import LECTURE, Found, Run, median, processes, table

_BATCHES = (1, 10, 100, 1_000, 10_000, 60_000)
_WIDTHS = (32, 64, 128, 256, 512, 1_024, 2_048, 4_096)
_DEPTHS = (1, 2, 4, 8, 16)
_DATASETS = (60_000, 600_000, 6_000_000)
_ROWS = 4_096  # of a batch where the network grows


def measure(run: Run) -> Found:
    """Measures one iteration of each, in a process of its own for the memory."""
    curves: dict[str, list[dict[str, Any]]] = {"batch": [], "width": [], "depth": [], "dataset": []}
    step = slice(None, None, 2 if run.quick else 1)
    for rows in _BATCHES[step]:
        curves["batch"] += _iteration(run, rows, LECTURE, rows)
    for width in _WIDTHS[step]:
        curves["width"] += _iteration(run, width, (784, width, width, 10), _ROWS)
    for depth in _DEPTHS[step]:
        curves["depth"] += _iteration(run, depth, (784, *[256] * depth, 10), _ROWS)
    for rows in _DATASETS[:1] if run.quick else _DATASETS:
        curves["dataset"] += _iteration(run, rows, LECTURE, rows, name=peers.STREAM)
    exponents = {name: _exponent(curve) for name, curve in curves.items()}
    rows = [
        {
            "grows": name,
            "to": f"{each['size']:,}",
            "seconds": f"{each['median']:.3g}",
            "peak MB": f"{each['peak_mb']:.0f}",
            "compiler's temporaries, MB": f"{(each['compiled'] or {}).get('temporary_mb', 0):.1f}",
        }
        for name, curve in curves.items()
        for each in curve
    ]
    powers = "\n".join(f"{name}: time to the power {p:.2f}" for name, p in exponents.items())
    numbers = {"rows where the network grows": _ROWS, "curves": curves, "exponents": exponents}
    return Found(numbers, f"{table(rows)}\n\n{powers}", ("scaling",))


def _iteration(
    run: Run, size: int, sizes: tuple[int, ...], rows: int, name: str = "jaxnet"
) -> list[dict[str, Any]]:
    """Measures an iteration; returns nothing if the process ends, for lack of memory say."""
    run.bar.set_postfix_str(f"{'-'.join(map(str, sizes))}, {rows:,} rows")
    _write_rows(run, rows)
    work = run.work(sizes, rows)
    compiled, answers = None, []
    with run.excused(f"{name}, {size:,}"), processes(run, [name]) as (peer,):
        compiled = peer.ask("make", work)["compiled"]
        repeats = run.rounds(5 if rows <= 60_000 else 2)
        answers = [peer.ask("run") for _ in range(repeats + 1)][1:]  # the first one compiles
    run.bar.update()
    seconds = [each["seconds"] for each in answers]
    if not seconds:
        return []
    measured = {
        "size": size,
        "seconds": seconds,
        "median": median(seconds),
        "peak_mb": answers[-1]["peak_mb"],
        "compiled": compiled,
    }
    return [measured]


def _write_rows(run: Run, rows: int) -> None:
    """Writes so many images; beyond 60,000 they are repeated."""
    if rows <= 60_000:
        rng = np.random.default_rng(0)
        run.write(rng.integers(0, 256, (rows, 784), np.uint8), rng.integers(0, 10, rows))
        return
    few = np.load(run.folder / "images.npy")
    images = np.lib.format.open_memmap(
        run.folder / "images.npy", "w+", dtype=np.uint8, shape=(rows, 784)
    )
    for start in range(0, rows, len(few)):
        images[start : start + len(few)] = few[: rows - start]
    images.flush()
    np.save(run.folder / "labels.npy", np.random.default_rng(0).integers(0, 10, rows))


def _exponent(curve: list[dict[str, Any]]) -> float:
    """Returns the power by which time grows over the larger half of the sizes."""
    half = curve[len(curve) // 2 - (len(curve) < 4) :]
    if len(half) < 2:
        return float("nan")
    sizes, seconds = ([each[name] for each in half] for name in ("size", "median"))
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
