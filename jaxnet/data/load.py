"""Labelled images as arrays: inputs in [0, 1], one-hot targets, fixed splits.

``digits`` comes with scikit-learn. ``mnist`` and ``fashion_mnist`` come through
tensorflow-datasets, which downloads and verifies their archives and prepares them, without
TensorFlow. A path that ends in ``.npz`` is the reader's own data.
"""

import contextlib
import gzip
import http.client
import importlib.util
import io
import os
import struct
import sys
import threading
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

NAMES = ("digits", "mnist", "fashion_mnist")

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
_EXAMPLES = {"train": 60_000, "test": 10_000}

_SPLIT_SEED = 0  # of the splits that the data does not come with; the same in every run
_TEST_SHARE = 0.2  # of data that has no test set of its own
_REACH_SECONDS = 5.0


class DataError(ValueError):
    """Data that is missing, damaged or not of the form that was asked for."""


class Split(NamedTuple):
    """Examples, a row each.

    Attributes:
      inputs: ``(n, pixels)`` floating-point in [0, 1], or uint8, where 255 stands for 1.
      targets: ``(n, classes)`` one-hot, of the same dtype.
    """

    inputs: np.ndarray
    targets: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """The class of each example, ``(n,)`` integers."""
        return self.targets.argmax(axis=1)


class Dataset(NamedTuple):
    """Data split for training, for choosing hyperparameters and for one final test.

    Attributes:
      name: ``"mnist"``, say, or the stem of the user's file.
      train: what gradients are taken of.
      validation: held out of the training set; None where no share of it was asked for.
      test: the dataset's own test set, or a fifth that never changes.
      image_shape: ``(height, width)`` of an image, height * width = pixels.
    """

    name: str
    train: Split
    validation: Split | None
    test: Split
    image_shape: tuple[int, int]


def load(
    name: str | os.PathLike,
    *,
    validation_split: float = 0.1,
    data_dir: str | os.PathLike | None = None,
    manual_dir: str | os.PathLike | None = None,
    dtype: DTypeLike | None = None,
) -> Dataset:
    """Loads a dataset.

    Which examples make up a split depends on the dataset and on ``validation_split`` alone.

    Args:
      name: ``"digits"`` (1,797 images of 8 x 8), ``"mnist"`` or ``"fashion_mnist"`` (70,000 of
        28 x 28), or the path of an ``.npz`` file: ``images``, ``(n, height, width)`` or
        ``(n, pixels)``, uint8 or floating-point in [0, 1], and ``labels``, ``(n,)`` integers from 0
        with every class present; and ``test_images`` and ``test_labels``, if it has a test set.
      validation_split: share of the training set that is held out, in [0, 1).
      data_dir: where prepared data is kept; by default ``$JAXNET_DATA_DIR``, or ``jaxnet`` in the
        user's cache folder.
      manual_dir: folder that holds the four archives, already downloaded, or has them in a folder
        of the dataset's name; by default ``$JAXNET_MANUAL_DIR``, or else they are downloaded.
      dtype: of inputs and targets; None means float32, or float64 under ``jax_enable_x64``. With
        uint8, images that are stored as bytes stay what they are, a quarter of the memory; others
        are as without.

    Raises:
      DataError: an unknown name; archives or files that are missing, damaged or of another form.
      ValueError: ``validation_split`` outside [0, 1).
    """
    if not 0 <= validation_split < 1:
        raise ValueError(f"validation_split must be in [0, 1), got {validation_split}")
    dtype = jnp.result_type(float) if dtype is None else np.dtype(dtype)
    path = Path(name)
    if path.suffix == ".npz":
        train, test = _read_npz(path)
    elif name == "digits":
        train, test = _digits(), None
    elif name in _MIRRORS:
        train, test = _mnist_family(str(name), _data_dir(data_dir), manual_dir)
    else:
        raise DataError(f"dataset must be one of {', '.join(NAMES)} or a .npz file, got '{name}'")

    classes = int(train.labels.max()) + 1
    if test is None:
        train, test = _hold_out(train, _TEST_SHARE, "test")
    train, validation = _hold_out(train, validation_split, "validation")
    height, width = _image_shape(train.images)
    return Dataset(
        name=path.stem,
        train=_encode(train, classes, dtype),
        validation=_encode(validation, classes, dtype) if len(validation.labels) else None,
        test=_encode(test, classes, dtype),
        image_shape=(height, width),
    )


class _Examples(NamedTuple):
    images: np.ndarray  # (n, ...) uint8, or floating-point in [0, 1]
    labels: np.ndarray  # (n,) integers


def _hold_out(examples: _Examples, share: float, purpose: str) -> tuple[_Examples, _Examples]:
    total = len(examples.labels)
    held = round(share * total)
    if share and not 0 < held < total:
        raise DataError(f"{total} examples are too few to hold out {share:g} of them for {purpose}")
    order = np.random.default_rng(_SPLIT_SEED).permutation(total)
    kept = np.sort(order[held:]), np.sort(order[:held])
    first, second = (_Examples(examples.images[rows], examples.labels[rows]) for rows in kept)
    return first, second


def _encode(examples: _Examples, classes: int, dtype: Any) -> Split:
    images = examples.images.reshape(len(examples.images), -1)
    if dtype == np.uint8 != images.dtype:
        dtype = jnp.result_type(float)
    inputs = images.astype(dtype, copy=False)
    if images.dtype == np.uint8 != dtype:
        inputs /= 255
    return Split(inputs, np.eye(classes, dtype=dtype)[examples.labels])


def _image_shape(images: np.ndarray) -> tuple[int, int]:
    if images.ndim == 3:
        return images.shape[1:]
    side = round(images.shape[1] ** 0.5)
    return (side, side) if side * side == images.shape[1] else (1, images.shape[1])


def _digits() -> _Examples:
    # Importing `sklearn.datasets` takes longer than a short run: the file is read without.
    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("digits come with scikit-learn, which is not installed")
    path = Path(spec.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    with gzip.open(path) as file:
        table = np.loadtxt(file, np.uint8, delimiter=",")  # 64 pixels from 0 to 16, and the label
    images = table[:, :-1].reshape(-1, 8, 8)
    return _Examples((images / 16).astype(np.float32), table[:, -1].astype(np.int64))


# --- a user's own file ----------------------------------------------------------------------------


def _read_npz(path: Path) -> tuple[_Examples, _Examples | None]:
    if not path.exists():
        raise DataError(f"{path} does not exist")
    if not zipfile.is_zipfile(path):  # np.load would take it for a pickle
        raise DataError(f"{path} is not an .npz archive")
    try:
        with path.open("rb") as opened, np.load(opened) as file:  # np.load may leave it open
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # NumPy's reader lets through whatever a damaged file provokes
        raise DataError(f"{path} cannot be read as .npz: {_one_line(error)}") from error
    missing = [name for name in ("images", "labels") if name not in arrays]
    if missing or ("test_images" in arrays) != ("test_labels" in arrays):
        raise DataError(
            f"{path} must hold images and labels, and may hold test_images and test_labels; "
            f"it holds {', '.join(arrays) or 'nothing'}"
        )
    train = _check_examples(path, arrays["images"], arrays["labels"], "")
    classes = int(train.labels.max()) + 1
    if absent := sorted(set(range(min(classes, 10_000))) - set(train.labels.tolist())):
        raise DataError(
            f"{path}: labels must run from 0 and leave no class out; the largest is {classes - 1}, "
            f"and {absent[0]} does not occur"
        )
    if classes < 2:
        raise DataError(f"{path}: labels must tell two classes apart at least, got only 0")
    if "test_images" not in arrays:
        return train, None
    test = _check_examples(path, arrays["test_images"], arrays["test_labels"], "test_")
    if test.images.shape[1:] != train.images.shape[1:]:
        raise DataError(
            f"{path}: test_images must be of the images' shape {train.images.shape[1:]}, "
            f"got {test.images.shape[1:]}"
        )
    if test.labels.max() >= classes:
        raise DataError(
            f"{path}: test_labels must be below {classes}, the number of classes in labels, "
            f"got {test.labels.max()}"
        )
    return train, test


def _check_examples(path: Path, images: np.ndarray, labels: np.ndarray, prefix: str) -> _Examples:
    def fail(field: str, expected: str, got: object):
        raise DataError(f"{path}: {prefix}{field} must be {expected}, got {got}")

    if images.ndim not in (2, 3) or 0 in images.shape:
        fail("images", "(n, height, width) or (n, pixels)", f"shape {images.shape}")
    if labels.shape != images.shape[:1]:
        fail("labels", f"of shape ({len(images)},), one for each image", f"shape {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer):
        fail("labels", "integers", labels.dtype)
    if labels.min() < 0:
        fail("labels", "0 or larger", labels.min())
    if images.dtype != np.uint8:
        if not np.issubdtype(images.dtype, np.floating):
            fail("images", "uint8, or floating-point in [0, 1]", images.dtype)
        if not np.isfinite(images).all():
            fail("images", "finite", f"{np.count_nonzero(~np.isfinite(images))} NaN or infinite")
        if images.min() < 0 or images.max() > 1:
            fail("images", "in [0, 1]", f"[{images.min():g}, {images.max():g}]")
    return _Examples(images, labels.astype(np.int64))


# --- the MNIST family -----------------------------------------------------------------------------


def _data_dir(data_dir: str | os.PathLike | None) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return Path(data_dir or os.environ.get("JAXNET_DATA_DIR") or cache / "jaxnet").expanduser()


def _mnist_family(
    name: str, data_dir: Path, manual_dir: str | os.PathLike | None
) -> tuple[_Examples, _Examples]:
    # tensorflow-datasets takes 2 s to read 70,000 prepared examples back, an array file 0.04 s.
    decoded = data_dir / f"{name}-1.npz"
    with contextlib.suppress(OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        with decoded.open("rb") as opened, np.load(opened) as file:
            train, test = (
                _Examples(file[f"{split}_images"], file[f"{split}_labels"]) for split in _EXAMPLES
            )
        if all(map(_is_whole, (train, test), _EXAMPLES.values())):
            return train, test

    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        archives = _find_archives(name, data_dir, manual_dir)
        train, test = _prepare(name, data_dir, archives)
        partial = decoded.with_name(f".{decoded.stem}.{os.getpid()}.npz")
        np.savez(
            partial,
            train_images=train.images,
            train_labels=train.labels,
            test_images=test.images,
            test_labels=test.labels,
        )
        partial.replace(decoded)
    except OSError as error:
        raise DataError(f"cannot prepare {name} in {data_dir}: {_one_line(error)}") from error
    return train, test


def _is_whole(examples: _Examples, count: int) -> bool:
    return (
        examples.images.shape == (count, *_IMAGE_SHAPE)
        and examples.images.dtype == np.uint8
        and examples.labels.shape == (count,)
    )


def _find_archives(name: str, data_dir: Path, manual_dir: str | os.PathLike | None) -> Path | None:
    """Returns the folder that holds the archives, or None if they are to be downloaded."""
    given = manual_dir or os.environ.get("JAXNET_MANUAL_DIR")
    default = data_dir / "manual" / name
    folder = Path(given).expanduser() if given else default
    if given and (folder / name).is_dir():
        folder = folder / name
    missing = [archive for archive in ARCHIVES if not (folder / archive).is_file()]
    if not missing:
        return folder
    if given:
        raise DataError(f"{folder} lacks {', '.join(missing)} of {name}")
    # tensorflow-datasets would try for minutes before it gave up.
    if not _are_reachable([_MIRRORS[name] + archive for archive in ARCHIVES]):
        raise DataError(
            f"{name} is not prepared in {data_dir} and cannot be had from {_MIRRORS[name]}; "
            f"put {', '.join(ARCHIVES)} into {folder}, or name their folder with --manual-dir "
            f"or JAXNET_MANUAL_DIR"
        )
    return None


def _are_reachable(urls: list[str]) -> bool:
    answers = []

    def ask():
        with contextlib.suppress(OSError, http.client.HTTPException):
            for url in urls:
                request = urllib.request.Request(url, method="HEAD")
                with urllib.request.urlopen(request, timeout=_REACH_SECONDS) as response:
                    answers.append(response.status)

    # In a thread, because looking up a host's name knows no time limit.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_REACH_SECONDS)
    return len(answers) == len(urls)


def _prepare(name: str, data_dir: Path, archives: Path | None) -> tuple[_Examples, _Examples]:
    """Has tensorflow-datasets download, verify and store the archives; reads all of it back."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    from tensorflow_datasets.core.download.util import DownloadError

    class Idx(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Four archives of the IDX format; TFDS's own builder for them needs TensorFlow."""

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
            paths = dl_manager.download({each: _MIRRORS[name] + each for each in ARCHIVES})
            train_images, train_labels, test_images, test_labels = (
                paths[each] for each in ARCHIVES
            )
            return {
                "train": self._generate_examples(train_images, train_labels),
                "test": self._generate_examples(test_images, test_labels),
            }

        def _generate_examples(self, images, labels):
            pairs = zip(_read_idx(images), _read_idx(labels), strict=True)
            for index, (image, label) in enumerate(pairs):
                yield index, {"image": image, "label": label}

    Idx.name = f"{name}_idx"  # TFDS has a schema of its own for "mnist"
    builder = Idx(data_dir=data_dir, file_format="array_record")
    config = tfds.download.DownloadConfig(
        manual_dir=archives, force_checksums_validation=True, verify_ssl=True
    )
    try:
        with _quiet_unless_terminal():
            builder.download_and_prepare(download_config=config)
    except NonMatchingChecksumError as error:
        where = str(error).partition("downloaded to ")[2].partition(", has wrong")[0]
        raise DataError(
            f"{where} is truncated, altered or not of {name}: its SHA-256 sum is wrong"
        ) from error
    except DownloadError as error:
        raise DataError(f"{name} cannot be downloaded: {_one_line(error)}") from error
    source: Any = builder.as_data_source()

    def read(split: str) -> _Examples:
        count = _EXAMPLES[split]
        rows = source[split].__getitems__(range(len(source[split])))
        examples = _Examples(
            np.stack([row["image"] for row in rows]), np.array([row["label"] for row in rows])
        )
        if not _is_whole(examples, count):
            raise DataError(
                f"{name}: {split} must have {count} images of {_IMAGE_SHAPE}, "
                f"got shape {examples.images.shape} from {builder.data_path}"
            )
        return examples

    return read("train"), read("test")


@contextlib.contextmanager
def _quiet_unless_terminal() -> Iterator[None]:
    """Silences tensorflow-datasets' bars and banners where nobody watches."""
    if sys.stderr.isatty():
        yield
        return
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield


def _read_idx(path: str | os.PathLike) -> np.ndarray:
    """Reads an array of unsigned bytes in the IDX format: zero, zero, type, rank, shape, data."""
    with gzip.open(path) as file:
        content = file.read()
    zero, kind, rank = struct.unpack_from(">HBB", content)
    if zero != 0 or kind != 0x08:
        raise DataError(f"{path} is not in the IDX format of unsigned bytes")
    shape = struct.unpack_from(f">{rank}I", content, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
