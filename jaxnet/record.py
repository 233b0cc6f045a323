"""The record of a run: JSON that a person can load, in one folder."""

import json
import math
import os
import platform
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Self, TextIO

import jax
import jax.numpy as jnp

CONFIG, METRICS, SUMMARY = "config.json", "metrics.jsonl", "summary.json"
PARAMS, MISTAKES = "params.npz", "mistakes.json"
PICTURES = ("training.png", "weights.png", "confusion.png", "mistakes.png")


class Record:
    """Writes ``config.json``, then a line of ``metrics.jsonl`` at a time, then ``summary.json``.

    Every file is complete at any moment: lines are flushed, files appear whole. A context manager::

        with Record("results/mnist", config) as record:
            record.log({"epoch": 1, "train_loss": 0.2})
            record.finish({"test_accuracy": 0.98})
    """

    def __init__(self, directory: str | os.PathLike, config: dict[str, Any]):
        """Begins a record, in place of one that the folder may hold.

        Raises:
          OSError: a folder that cannot be written.
        """
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        for name in (METRICS, SUMMARY, PARAMS, MISTAKES, *PICTURES):
            (self.directory / name).unlink(missing_ok=True)
        write_json(self.directory / CONFIG, config)
        self._metrics: TextIO = (self.directory / METRICS).open("w")

    def log(self, metrics: dict[str, Any]) -> None:
        """Appends a line to ``metrics.jsonl``."""
        self._metrics.write(json.dumps(metrics) + "\n")
        self._metrics.flush()

    def finish(self, summary: dict[str, Any]) -> None:
        """Writes ``summary.json``."""
        write_json(self.directory / SUMMARY, summary)

    def path(self, name: str) -> Path:
        """Returns the path of a file in the folder."""
        return self.directory / name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._metrics.close()


def read_metrics(directory: str | os.PathLike) -> Iterator[dict[str, Any]]:
    """Yields the lines of a record's ``metrics.jsonl``."""
    with (Path(directory) / METRICS).open() as file:
        for line in file:
            yield json.loads(line)


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file."""
    return json.loads(Path(path).read_text())


def write_json(path: str | os.PathLike, values: Any) -> None:
    """Writes a JSON file, whole or not at all."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(_layout(values) + "\n")
    partial.replace(path)


def _layout(value: Any, margin: str = "") -> str:
    """Returns JSON with a row of numbers on one line; `json` would give every number a line."""
    inner = margin + "  "
    if isinstance(value, dict) and value:
        items = [f"{json.dumps(name)}: {_layout(each, inner)}" for name, each in value.items()]
        opening, closing = "{", "}"
    elif isinstance(value, list | tuple) and any(isinstance(e, dict | list | tuple) for e in value):
        items = [_layout(each, inner) for each in value]
        opening, closing = "[", "]"
    else:
        return json.dumps(_finite(value))
    lines = ",\n".join(inner + item for item in items)
    return f"{opening}\n{lines}\n{margin}{closing}"


def _finite(value: Any) -> Any:
    """Returns a number, or a row of them, with null for what JSON lacks: NaN and infinity."""
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_writable(directory: str | os.PathLike) -> None:
    """Proves that a folder can be written, or made, and leaves no trace.

    Raises:
      OSError: if not.
    """
    directory = Path(directory).absolute()
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    if not existing.is_dir():
        raise NotADirectoryError(f"{existing} is not a folder")
    with tempfile.TemporaryFile(dir=existing):
        pass


def environment() -> dict[str, Any]:
    """Returns what a measurement depends on: versions, device, processor, threads and dtype."""
    device = jax.devices()[0]
    packages = ("jaxnet-mlp", "jax", "jaxlib", "optax", "numpy")
    return {
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in packages},
        "platform": device.platform,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "processor": _processor(),
        "cpus": cpus(),
        "system": f"{platform.system()} {platform.machine()}",
        "dtype": str(jnp.result_type(float)),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # run from a source tree that is not installed
        return None


def cpus() -> int | None:
    """Returns how many processors this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
