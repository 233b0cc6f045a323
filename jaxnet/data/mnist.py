"""MNIST and Fashion-MNIST: downloaded, verified, prepared once, and read back.

The archives' SHA-256 sums are those that tensorflow-datasets has on record; it also stores the
prepared examples, without TensorFlow. Reading those takes 2 s, so the arrays are kept beside them
in an `.npz`, which takes 0.04 s. What is damaged is prepared anew.
"""

import contextlib
import hashlib
import http.client
import io
import logging
import os
import shutil
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxnet import files, text
from jaxnet.data import idx
from jaxnet.data.types import DataError, Examples

__all__ = ["ARCHIVES", "NAMES", "read"]

NAMES = ("mnist", "fashion_mnist")

ARCHIVES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
# tensorflow-datasets has the archives' SHA-256 sums on record under these addresses.
_MIRRORS = {
    "mnist": "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "fashion_mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
}
_IMAGE_SHAPE = (28, 28)
_CLASSES = 10
_EXAMPLES = {"train": 60_000, "test": 10_000}
_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")

# A download is given up when it brings less than so many bytes in so many seconds.
_PATIENCE, _LEAST = 5.0, 50_000

_log = logging.getLogger(__name__)  # its warnings go to stderr, a line each, unless configured


def read(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    manual_dir: str | os.PathLike | None = None,
) -> tuple[Examples, Examples]:
    """Reads the dataset, and prepares it first where it is not.

    Processes that need the same folder at once take turns: the first prepares the data, the others
    wait, and say so.

    Args:
      name: ``"mnist"`` or ``"fashion_mnist"``.
      data_dir: see `jaxnet.data.load`.
      manual_dir: see `jaxnet.data.load`.

    Returns:
      Training and test set: images ``(n, 28, 28)`` uint8, labels 0 to 9.

    Raises:
      DataError: data that is not there and cannot be had, or cannot be stored.

    Example:
      >>> train, test = read("mnist", manual_dir="archives")  # doctest: +SKIP
      >>> train.images.shape  # doctest: +SKIP
      (60000, 28, 28)
    """
    folder = _data_dir(data_dir)
    cache = folder / f"{name}-1.npz"
    if found := _read_cache(cache):
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            taken = contextlib.ExitStack()
            taken.enter_context(_locked(folder / f".{name}.lock", f"{name} in {folder}"))
        except OSError as error:  # a folder that is read-only may still hold what is needed
            if found := _read_prepared(name, folder):
                _warn_not_kept(cache, error)
                return found
            raise
        with taken:
            if found := _read_cache(cache):  # another process has prepared it meanwhile
                return found
            _remove_leftovers(name, folder)
            found = _read_prepared(name, folder) or _prepare(name, folder, manual_dir)
            _write_cache(cache, found)
            return found
    except OSError as error:
        raise DataError(f"cannot prepare {name} in {folder}: {text.first_line(error)}") from error


def _data_dir(given: str | os.PathLike | None) -> Path:
    if given is not None:
        return Path(given).expanduser()
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "jaxnet")
    return Path(os.environ.get("JAXNET_DATA_DIR") or default).expanduser()


@contextlib.contextmanager
def _locked(path: Path, what: str) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(files.lock(path))
        except files.BusyError as error:
            _log.warning("waiting for another process that prepares %s (%s)", what, error.strerror)
            stack.enter_context(files.lock(path, wait=True))
        yield


# --- the cache of arrays --------------------------------------------------------------------------


def _read_cache(path: Path) -> tuple[Examples, Examples] | None:
    try:
        arrays = files.read_npz(path, _ARRAYS)
        train, test = (
            Examples(arrays[f"{split}_images"], arrays[f"{split}_labels"]) for split in _EXAMPLES
        )
    except (OSError, ValueError, KeyError):
        return None
    return (train, test) if _are_whole(train, test) else None


def _write_cache(path: Path, examples: tuple[Examples, Examples]) -> None:
    arrays = [array for part in examples for array in part]
    try:
        if path.is_dir():
            _remove(path)
        with files.replacing(path) as file:
            np.savez(file, **dict(zip(_ARRAYS, arrays, strict=True)))
    except OSError as error:  # a full disk, say: the data is in memory, and the run goes on
        _warn_not_kept(path, error)


def _warn_not_kept(path: Path, error: OSError) -> None:
    _log.warning("the next run prepares the data again: %s (%s)", text.first_line(error), path)


def _are_whole(train: Examples, test: Examples) -> bool:
    return all(
        part.images.shape == (count, *_IMAGE_SHAPE)
        and part.images.dtype == np.uint8
        and part.labels.shape == (count,)
        and np.issubdtype(part.labels.dtype, np.integer)
        and np.unique(part.labels).tolist() == list(range(_CLASSES))
        for part, count in zip((train, test), _EXAMPLES.values(), strict=True)
    )


# --- what tensorflow-datasets stores --------------------------------------------------------------


def _read_prepared(name: str, folder: Path) -> tuple[Examples, Examples] | None:
    """Returns what is stored, or None if there is nothing, or it is damaged."""
    if not (folder / f"{name}_idx").is_dir():
        return None
    try:
        found = _read_back(_builder(name, folder, {}))
    except MemoryError:
        raise
    except Exception:  # damage provokes errors of all kinds: of protobuf, array_record, JSON
        return None
    return found if _are_whole(*found) else None


def _prepare(
    name: str, folder: Path, manual_dir: str | os.PathLike | None
) -> tuple[Examples, Examples]:
    archives = _find_archives(name, folder, manual_dir)
    _remove(folder / f"{name}_idx")
    try:
        shapes = [
            shape for count in _EXAMPLES.values() for shape in ((count, *_IMAGE_SHAPE), (count,))
        ]
        arrays = [idx.read(path, shape) for path, shape in zip(archives, shapes, strict=True)]
        splits = {"train": Examples(*arrays[:2]), "test": Examples(*arrays[2:])}
        builder = _builder(name, folder, splits)
        with _quiet_unless_terminal():
            builder.download_and_prepare()
        found = _read_back(builder)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # a full disk is a RuntimeError of array_record
        raise DataError(f"cannot prepare {name} in {folder}: {text.first_line(error)}") from error
    finally:
        _remove_leftovers(name, folder)
    if not _are_whole(*found):
        raise DataError(f"cannot prepare {name} in {folder}: what was written reads differently")
    return found


def _builder(name: str, folder: Path, splits: dict[str, Examples]) -> Any:
    import tensorflow_datasets as tfds

    class Idx(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Examples of the IDX archives; TFDS's own builder for them needs TensorFlow."""

        VERSION = tfds.core.Version("1.0.0")
        RELEASE_NOTES = {"1.0.0": "Images and labels as they come."}  # noqa: RUF012

        def _info(self):
            return self.dataset_info_from_configs(
                disable_shuffling=True,  # the official order
                features=tfds.features.FeaturesDict(
                    {
                        "image": tfds.features.Tensor(shape=_IMAGE_SHAPE, dtype=np.uint8),
                        "label": tfds.features.Tensor(shape=(), dtype=np.uint8),
                    }
                ),
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(*part) for split, part in splits.items()}

        def _generate_examples(self, images, labels):
            for index, (image, label) in enumerate(zip(images, labels, strict=True)):
                yield index, {"image": image, "label": label}

    Idx.name = f"{name}_idx"  # TFDS has a schema of its own for "mnist"
    return Idx(data_dir=folder, file_format="array_record")


def _read_back(builder: Any) -> tuple[Examples, Examples]:
    source = builder.as_data_source()
    found = []
    for split in _EXAMPLES:
        rows = source[split].__getitems__(range(len(source[split])))
        images = np.stack([row["image"] for row in rows])
        found.append(Examples(images, np.array([row["label"] for row in rows])))
    return found[0], found[1]


def _remove_leftovers(name: str, folder: Path) -> None:
    """Removes what runs that died left behind; the caller holds the lock."""
    for pattern in (f".{name}-1.*.npz", f"{name}_idx/incomplete.*", f"{name}_idx/*/incomplete.*"):
        for path in folder.glob(pattern):
            with contextlib.suppress(OSError):
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _quiet_unless_terminal() -> Iterator[None]:
    """Silences tensorflow-datasets' bars and banners where nobody watches."""
    if sys.stderr is not None and sys.stderr.isatty():
        yield
        return
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield


# --- the archives ---------------------------------------------------------------------------------


def _find_archives(name: str, data_dir: Path, manual_dir: str | os.PathLike | None) -> list[Path]:
    """Returns the paths of the archives, verified; downloads those that are missing."""
    given = os.environ.get("JAXNET_MANUAL_DIR") if manual_dir is None else manual_dir
    default = data_dir / "manual" / name
    folder = Path(given).expanduser() if given else default
    if given and (folder / name).is_dir():
        folder = folder / name
    missing = [archive for archive in ARCHIVES if not (folder / archive).is_file()]
    if missing and given:
        raise DataError(f"{folder} lacks {', '.join(missing)} of {name}")
    from tensorflow_datasets.core.download import checksums

    known = checksums.get_all_url_infos()
    for archive in ARCHIVES:
        path, url = folder / archive, _MIRRORS[name] + archive
        if archive not in missing:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            _check_sum(name, str(path), found, known[url].checksum)
            continue
        try:
            content = _download(url, int(known[url].size))
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise DataError(
                f"{name} is not prepared in {data_dir} and cannot be had from {_MIRRORS[name]} "
                f"({archive}: {text.first_line(error)}); put {', '.join(ARCHIVES)} into {folder}, "
                f"or name their folder with --manual-dir or JAXNET_MANUAL_DIR"
            ) from error
        _check_sum(name, url, hashlib.sha256(content).hexdigest(), known[url].checksum)
        folder.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as file:
            file.write(content)
    return [folder / archive for archive in ARCHIVES]


def _check_sum(name: str, where: str, found: str, expected: str) -> None:
    if found != expected:
        raise DataError(f"{where} is truncated, altered or not of {name}: its SHA-256 sum is wrong")


def _download(url: str, size: int) -> bytes:
    """Returns what an address holds, up to one byte more than the size that it should have."""
    content, failures, given_up = bytearray(), [], threading.Event()

    def fetch():
        try:
            with urllib.request.urlopen(url, timeout=_PATIENCE) as response:
                while len(content) <= size and not given_up.is_set():
                    if not (part := response.read1(1 << 16)):
                        break
                    content.extend(part)
        except Exception as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()  # it is a response, too
            failures.append(error)

    # In a thread, because neither the look-up of a host's name nor a server that sends a byte now
    # and then is under a time limit.
    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    while thread.is_alive():
        before = len(content)
        thread.join(_PATIENCE)
        if thread.is_alive() and len(content) - before < _LEAST:
            given_up.set()
            raise TimeoutError(f"less than {_LEAST:,} bytes in {_PATIENCE:g} s")
    if failures:
        raise failures[0]
    return bytes(content[: size + 1])
