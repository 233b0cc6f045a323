"""The record of a run: JSON that a person can load, in one folder."""

import contextlib
import json
import os
import platform
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp

from jaxnet import files, text
from jaxnet.files import check_writable, write_json

__all__ = [
    "CONFIG",
    "METRICS",
    "MISTAKES",
    "PARAMS",
    "PICTURES",
    "SUMMARY",
    "Record",
    "check_writable",
    "cpus",
    "environment",
    "read_json",
    "read_metrics",
    "write_json",
]

CONFIG, METRICS, SUMMARY = "config.json", "metrics.jsonl", "summary.json"
PARAMS, MISTAKES = "params.npz", "mistakes.json"
PICTURES = ("training.png", "weights.png", "confusion.png", "mistakes.png")
_ALL = (CONFIG, METRICS, PARAMS, MISTAKES, SUMMARY)  # the summary last: it says that all is there
_ASIDE, _LOCK = "running", ".lock"


class Record:
    """Writes ``config.json``, a line of ``metrics.jsonl`` at a time, and ``summary.json``.

    A folder holds one record, and one run writes to it at a time. Where the folder has an earlier
    record, the new one is written to its subfolder ``running`` and takes the place of the earlier
    one when it is finished. A context manager.

    Attributes:
      directory: the folder.

    Example:
      >>> import tempfile
      >>> folder = Path(tempfile.mkdtemp(), "mnist")
      >>> with Record(folder, {"epochs": 1}) as record:
      ...     record.log({"epoch": 1, "train_loss": 0.2})
      ...     record.finish({"test_accuracy": 0.98})
      >>> read_json(folder / SUMMARY)
      {'test_accuracy': 0.98}
    """

    def __init__(self, directory: str | os.PathLike, config: dict[str, Any]):
        """Begins a record.

        Args:
          directory: the folder; made if it is not there.
          config: what the run is a function of; plain values.

        Raises:
          files.BusyError: another run writes to the folder.
          OSError: a folder that cannot be written, or that has a folder in the place of a file.
        """
        self.directory = Path(directory)
        self._config, self._lines = config, []
        self._finished = self._unwritable = False
        with contextlib.ExitStack() as stack:
            stack.callback(self._remove_empty_folders, _missing(self.directory))
            self.directory.mkdir(parents=True, exist_ok=True)
            stack.enter_context(files.lock(self.directory / _LOCK))
            for name in (*_ALL, *PICTURES):
                if (self.directory / name).is_dir():
                    raise IsADirectoryError(21, "is a folder", str(self.directory / name))
            aside = self.directory / _ASIDE
            if aside.exists():  # of a run that was killed, or somebody's own
                if not _is_unfinished_record(aside):
                    raise FileExistsError(17, "is not of an unfinished run", str(aside))
                shutil.rmtree(aside)
            has_earlier = any((self.directory / name).exists() for name in (SUMMARY, PARAMS))
            self._folder = aside if has_earlier else self.directory
            self._begin()
            self._stack = stack.pop_all()

    def _begin(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        write_json(self._folder / CONFIG, self._config)
        (self._folder / METRICS).write_text("".join(self._lines))

    def log(self, metrics: dict[str, Any]) -> None:
        """Appends a line to ``metrics.jsonl``.

        What cannot be written, to a full disk say, is kept for `finish`.

        Raises:
          TypeError: what JSON cannot hold.
        """
        self._lines.append(text.dumps(metrics) + "\n")
        try:
            if self._unwritable:
                (self._folder / METRICS).write_text("".join(self._lines))
            else:
                with (self._folder / METRICS).open("r+") as file:  # fails if it is gone
                    file.seek(0, os.SEEK_END)
                    file.write(self._lines[-1])
            self._unwritable = False
        except OSError:
            self._unwritable = True

    def finish(self, summary: dict[str, Any]) -> None:
        """Writes ``summary.json`` and, the first time, puts the record in the earlier one's place.

        Raises:
          OSError: what cannot be written; an earlier record is then as it was.
        """
        if self._unwritable or not (self._folder / CONFIG).exists():
            self._begin()
        write_json(self._folder / SUMMARY, summary)
        if not self._finished:
            self._replace_earlier()
        self._finished = True

    def _replace_earlier(self) -> None:
        new, self._folder = self._folder, self.directory
        for name in (SUMMARY, *PICTURES) if new != self.directory else PICTURES:
            (self.directory / name).unlink(missing_ok=True)
        if new == self.directory:
            return
        for name in _ALL:
            if (new / name).exists():
                (new / name).replace(self.directory / name)
            else:
                (self.directory / name).unlink(missing_ok=True)
        shutil.rmtree(new, ignore_errors=True)

    def path(self, name: str) -> Path:
        """Returns where a file of this record is to be written."""
        self._folder.mkdir(parents=True, exist_ok=True)  # it may have been removed meanwhile
        return self._folder / name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the record. One that nothing was logged to leaves no trace."""
        if not self._finished and not self._lines:
            for name in (CONFIG, METRICS):
                (self._folder / name).unlink(missing_ok=True)
            if self._folder != self.directory:
                shutil.rmtree(self._folder, ignore_errors=True)
        self._stack.close()

    @staticmethod
    def _remove_empty_folders(folders: list[Path]) -> None:
        with contextlib.suppress(OSError):  # the first that is not empty
            for folder in folders:
                folder.rmdir()


def _is_unfinished_record(folder: Path) -> bool:
    """Whether a folder holds what a killed run leaves, and nothing else."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    return all(each.name in _ALL or each.name.startswith(".") for each in folder.iterdir())


def _missing(directory: Path) -> list[Path]:
    """Returns the folder and its parents that do not exist, the deepest first."""
    return [each for each in (directory, *directory.parents) if not each.exists()]


def read_metrics(directory: str | os.PathLike) -> Iterator[dict[str, Any]]:
    """Yields the lines of a record's ``metrics.jsonl``.

    Raises:
      OSError: no such file.

    Example:
      >>> import tempfile
      >>> list(read_metrics(tempfile.mkdtemp()))
      Traceback (most recent call last):
      FileNotFoundError: ...
    """
    with (Path(directory) / METRICS).open() as file:
        for line in file:
            yield json.loads(line)


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file.

    Raises:
      OSError: no such file.
      ValueError: what is not JSON.

    Example:
      >>> read_json("nothing.json")
      Traceback (most recent call last):
      FileNotFoundError: ...
    """
    return json.loads(Path(path).read_text())


def environment() -> dict[str, Any]:
    """Returns what a measurement depends on: versions, device, processor, threads and dtype.

    Example:
      >>> environment()["versions"]["jax"] == jax.__version__
      True
    """
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
    """Returns the number of processors that this process may use, where the system tells.

    Example:
      >>> cpus() is None or cpus() > 0
      True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
