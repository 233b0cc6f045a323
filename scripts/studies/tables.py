"""Writes the tables of README.md and results/benchmark/README.md again, from the records.

  python scripts/study.py tables

A table stands below a line ``<!-- table: NAME -->``, where NAME is one of `TABLES`. The text around
the tables stays as it is.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from jaxnet import record
from jaxnet.cli.common import Parser
from studies import RESULTS

__all__ = ["PAGES", "TABLES", "main", "with_tables"]

PAGES = (RESULTS / "benchmark" / "README.md", RESULTS.parent / "README.md")

# Of each library in the README's table: its name there, and its forms, of which the fastest counts.
_LIBRARIES = {
    "jaxnet, bfloat16": ["jaxnet-bfloat16"],
    "jaxnet": ["jaxnet"],
    "PyTorch, bfloat16, its best form": [
        "torch-bfloat16",
        "torch-bfloat16-compile",
        "torch-bfloat16-chunked",
    ],
    "Flax": ["flax"],
    "plain JAX, its best form": ["jax", "jax-scan", "jax-bfloat16"],
    "Equinox": ["equinox"],
    "Keras 3 on JAX": ["keras"],
    "PyTorch, its best form in float32": ["torch", "torch-compile", "torch-chunked"],
    "NumPy, float32": ["numpy"],
    "NumPy as on the slide": ["numpy-float64"],
}

# Of each trick: why it gains, and its name in the record for each work.
_TRICKS = {
    "microbatches": (
        "activations stay in the last-level cache",
        {"full batch": "chunks of rows, full batch"},
    ),
    "two halves of a batch side by side": (
        "XLA spreads no product of so few rows over cores, but runs two halves at the same time",
        {
            "batch 128": "two halves side by side, batch 128",
            "batch 256": "two halves side by side, batch 256",
            "784-30-10, batch 128": "two halves side by side, 784-30-10, batch 128",
            "784-100-10, batch 128": "two halves side by side, 784-100-10, batch 128",
        },
    ),
    "cores as devices": (
        "a core keeps its rows from the first layer to the last; parts of products stay with it",
        {
            "full batch": "cores as devices, full batch",
            "the same in bfloat16": "cores as devices, bfloat16, full batch",
        },
    ),
    "images as uint8": (
        "a quarter of the memory",
        {"full batch": "images as bytes, full batch"},
    ),
    "matmuls in bfloat16": (
        "twice as many operations in an instruction",
        {"full batch": "products in bfloat16, full batch"},
    ),
    "row-major transposes": (
        "XLA's fast bfloat16 products on CPU need them; without, they are slower than float32",
        {"bfloat16, full batch": "transposes laid out row by row, bfloat16, full batch"},
    ),
    "transposed weight gradients of 32 outputs or fewer": (
        "a product with few columns is slow, one with few rows is not",
        {
            "784-30-10, batch 10": "few outputs' gradients an output a row, 784-30-10, batch 10",
            "full batch": "few outputs' gradients an output a row, full batch",
        },
    ),
    "a radix sort draws the order": (
        "on a CPU XLA sorts pairs five times slower than numbers; `jax.random.permutation` sorts "
        "pairs, twice",
        {
            "batch 128": "a radix sort for the order, batch 128",
            "784-30-10, batch 128": "a radix sort for the order, 784-30-10, batch 128",
        },
    ),
    "thousands of images gathered at once": (
        "fewer small operations",
        {
            "784-30-10, batch 10": "thousands fetched at once, 784-30-10, batch 10",
            "batch 128": "thousands fetched at once, batch 128",
        },
    ),
}


def with_tables(page: str) -> str:
    """Returns a page with its tables written from the records."""

    def table(found: re.Match) -> str:
        header, *rows = TABLES[found[2]]()
        lines = [header, ["---"] * len(header), *rows]
        return found[1] + "".join(f"| {' | '.join(line)} |\n" for line in lines)

    return re.sub(r"(<!-- table: ([a-z-]+) -->\n\n?)(?:\|.*\n)*", table, page)


Table = Iterable[Sequence[str]]


def _at_the_top() -> Table:
    iterations = {name: each["seconds"] for name, each in _read("step")["peers"].items()}
    reached = _read("time-to-accuracy")["peers"]
    processes = {name: [run["seconds"] for run in runs] for name, runs in reached.items()}
    least = min(median([run["accuracy"] for run in runs]) for runs in reached.values())
    yield "", "one iteration on 60,000 images", f"a process that ends with {least:.1%} of MNIST"
    for library, forms in _LIBRARIES.items():
        iteration, process = _best(iterations, forms), _best(processes, forms)
        yield (
            library,
            "-" if iteration is None else f"{iteration:.3f} s",
            "-" if process is None else f"{process:.1f} s",
        )


def _step() -> Table:
    measured = _read("step")
    gflop, ceiling = measured["work"]["gflop"], measured["ceilings"]["matmul"]
    ours = median(measured["peers"]["jaxnet"]["seconds"])
    yield "peer", "seconds", "GFLOP/s", "of float32 products", "peak MB", "times jaxnet"
    for name, each in sorted(
        measured["peers"].items(), key=lambda peer: median(peer[1]["seconds"])
    ):
        seconds = median(each["seconds"])
        yield (
            name,
            _spread(each["seconds"]),
            f"{gflop / seconds:.0f}",
            f"{gflop / seconds / ceiling:.0%}",
            f"{each['peak_mb']:.0f}",
            f"{seconds / ours:.2f}",
        )


def _accuracy() -> Table:
    measured = _read("time-to-accuracy")
    found = {
        name: {key: [run[key] for run in runs] for key in ("seconds", "training", "accuracy")}
        for name, runs in measured["peers"].items()
    }
    yield "peer", "seconds", "training alone", "test accuracy", f"{measured['goal']:.0%} in"
    for name, each in sorted(found.items(), key=lambda peer: median(peer[1]["seconds"])):
        reached = sum(accuracy >= measured["goal"] for accuracy in each["accuracy"])
        yield (
            name,
            _spread(each["seconds"]),
            f"{median(each['training']):.2f}",
            f"{median(each['accuracy']):.2%}",
            f"{reached} of {len(each['accuracy'])}",
        )


def _epoch() -> Table:
    works = _read("epoch")["works"]
    names = [name for name in works[-1]["peers"] if name != "jaxnet-auto"]
    yield "network, batch, optimizer", *names
    for work in works:
        yield work["title"], *(_seconds(work["peers"].get(name)) for name in names)


def _ratios() -> Table:
    works = [work for work in _read("epoch")["works"] if "784-256-128-10, 128" in work["title"]]
    names = [name for name in works[0]["peers"] if not name.startswith("jaxnet")]
    yield "batches of 128", *names
    for work in works:
        seconds = {name: median(each["seconds"]) for name, each in work["peers"].items()}
        ratios = (seconds[name] / seconds["jaxnet"] for name in names)
        yield work["title"], *(f"{ratio:.2f}" for ratio in ratios)


def _startup() -> Table:
    measured = _read("startup")
    yield "peer", "seconds", "first time"
    for name, seconds in sorted(measured["seconds"].items(), key=lambda peer: median(peer[1])):
        yield name, _spread(seconds), f"{measured['first time'][name]:.2f}"


def _gradients() -> Table:
    kinds = ("temporary_mb", "products", "fusions", "copies")
    yield "work", "by hand, s", "jax.grad, s", "ratio", *kinds
    for work in _read("gradients")["works"]:
        peers = [work["peers"][name] for name in ("jaxnet", "jaxnet-auto")]
        by_hand, automatic = (median(each["seconds"]) for each in peers)
        compiled = [work["compiled"][name] for name in ("jaxnet", "jaxnet-auto")]
        yield (
            work["title"],
            f"{by_hand:.3g}",
            f"{automatic:.3g}",
            f"{automatic / by_hand:.2f}",
            *(" / ".join(f"{each[kind]:.0f}" for each in compiled) for kind in kinds),
        )


def _scaling() -> Table:
    yield "grows", "to", "seconds", "peak MB", "compiler's temporaries, MB"
    for name, curve in _read("scaling")["curves"].items():
        for each in curve:
            temporary = (each["compiled"] or {}).get("temporary_mb")
            yield (
                name,
                f"{each['size']:,}",
                f"{each['median']:.3g}",
                f"{each['peak_mb']:.0f}",
                "-" if temporary is None else f"{temporary:.1f}",
            )


def _tricks() -> Table:
    found = record.read_json(RESULTS / "benchmark" / "tricks.json")
    yield "trick", "why", "times as fast"
    for trick, (why, works) in _TRICKS.items():
        gains = (f"{found[name]['times as fast']:.2f} ({work})" for work, name in works.items())
        yield trick, why, "; ".join(gains)


TABLES: dict[str, Callable[[], Table]] = {
    "top": _at_the_top,
    "step": _step,
    "time-to-accuracy": _accuracy,
    "epoch": _epoch,
    "epoch-ratios": _ratios,
    "startup": _startup,
    "gradients": _gradients,
    "scaling": _scaling,
    "tricks": _tricks,
}


def _read(suite: str) -> dict[str, Any]:
    return record.read_json(RESULTS / "benchmark" / f"{suite}-cpu-2.json")


def _best(seconds: Mapping[str, Sequence[float]], forms: Iterable[str]) -> float | None:
    return min((median(seconds[form]) for form in forms if form in seconds), default=None)


def _seconds(peer: Mapping[str, Any] | None) -> str:
    return "-" if peer is None else f"{median(peer['seconds']):.3g}"


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def main(program: str, argv: Sequence[str]) -> int:
    """Runs the study."""
    Parser(program, __doc__).parse_args(argv)
    for page in PAGES:
        page.write_text(with_tables(page.read_text()))
    return 0
