import functools
import gzip
import http.server
import shutil
import socket
import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxnet import data

MESSAGE = "put train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz"


def official(archives, name):
    """Reads an archive with nothing of jaxnet's."""
    with gzip.open(archives / name) as file:
        return np.frombuffer(file.read(), np.uint8)


def check_splits(dataset, sizes, pixels, classes):
    for split, size in zip((dataset.train, dataset.validation, dataset.test), sizes, strict=True):
        assert split.inputs.shape == (size, pixels)
        assert split.targets.shape == (size, classes)
        assert split.inputs.min() == 0
        assert split.inputs.max() == 1
        assert set(np.unique(split.targets)) == {0, 1}
        assert (split.targets.sum(axis=1) == 1).all()
        assert (split.labels == split.targets.argmax(axis=1)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_digits(dtype):
    dataset = data.load("digits", dtype=dtype)
    check_splits(dataset, (1294, 144, 359), 64, 10)
    assert dataset.train.inputs.dtype == dataset.train.targets.dtype == dtype
    assert dataset.image_shape == (8, 8)
    assert dataset.name == "digits"


def test_dtype_is_by_default_jaxs():
    assert data.load("digits").train.inputs.dtype == jnp.result_type(float)


def test_splits_hold_every_example_once_and_never_change():
    from sklearn.datasets import load_digits

    dataset = data.load("digits", dtype=np.float64)
    again = data.load("digits", dtype=np.float64)
    parts = [dataset.train, dataset.validation, dataset.test]
    for part, same in zip(parts, [again.train, again.validation, again.test], strict=True):
        np.testing.assert_array_equal(part.inputs, same.inputs)
    ours = np.concatenate([np.c_[16 * part.inputs, part.labels] for part in parts])
    theirs = np.c_[load_digits().data, load_digits().target]
    assert sorted(map(tuple, ours)) == sorted(map(tuple, theirs))


def test_test_set_does_not_depend_on_the_validation_split():
    some, none = data.load("digits", validation_split=0.3), data.load("digits", validation_split=0)
    np.testing.assert_array_equal(some.test.inputs, none.test.inputs)
    assert none.validation is None
    assert len(none.train.inputs) == 1438
    assert len(some.validation.inputs) == round(0.3 * 1438)


@pytest.mark.parametrize("split", [-0.1, 1, float("nan")])
def test_validation_split_is_a_share(split):
    with pytest.raises(ValueError, match=r"validation_split must be in \[0, 1\)"):
        data.load("digits", validation_split=split)


def test_unknown_name():
    with pytest.raises(
        data.DataError, match=r"one of digits, mnist, fashion_mnist or a \.npz file"
    ):
        data.load("minst")


# --- MNIST ----------------------------------------------------------------------------------------


@pytest.mark.mnist
def test_mnist_is_the_official_archives(archives, mnist_dir):
    dataset = data.load("mnist", data_dir=mnist_dir, validation_split=0)
    assert dataset.image_shape == (28, 28)
    for split, prefix in ((dataset.train, "train"), (dataset.test, "t10k")):
        images = official(archives, f"{prefix}-images-idx3-ubyte.gz")[16:].reshape(-1, 784)
        labels = official(archives, f"{prefix}-labels-idx1-ubyte.gz")[8:]
        np.testing.assert_array_equal(np.rint(255 * split.inputs).astype(np.uint8), images)
        np.testing.assert_array_equal(split.labels, labels)


@pytest.mark.mnist
def test_mnist_splits(mnist_dir):
    check_splits(data.load("mnist", data_dir=mnist_dir), (54_000, 6_000, 10_000), 784, 10)


@pytest.mark.mnist
def test_prepared_data_is_read_without_archives_and_fast(mnist_dir):
    start = time.perf_counter()
    data.load("mnist", data_dir=mnist_dir, manual_dir="/nonexistent")
    assert time.perf_counter() - start < 2  # preparing takes 10 s, reading back 0.2


@pytest.mark.mnist
@pytest.mark.parametrize("damage", ["truncate", "empty", "other"])
def test_damaged_cache_is_rebuilt(mnist_dir, archives, tmp_path, damage):
    shutil.copytree(mnist_dir, tmp_path / "data")
    (cache,) = (tmp_path / "data").glob("*.npz")
    content = cache.read_bytes()
    if damage == "truncate":
        cache.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        cache.write_bytes(b"")
    else:
        np.savez(cache, train_images=np.zeros(3))
    dataset = data.load("mnist", data_dir=tmp_path / "data", manual_dir=archives)
    assert len(dataset.test.inputs) == 10_000
    assert cache.read_bytes() == content


@pytest.mark.mnist
def test_archives_are_found_by_dataset_and_by_environment(archives, tmp_path, monkeypatch):
    (tmp_path / "manual").mkdir()
    (tmp_path / "manual" / "fashion_mnist").symlink_to(archives)
    monkeypatch.setenv("JAXNET_MANUAL_DIR", str(tmp_path / "manual"))
    monkeypatch.setenv("JAXNET_DATA_DIR", str(tmp_path / "prepared"))
    # Found there, and refused, because these are not Fashion-MNIST's.
    with pytest.raises(data.DataError, match=r"manual/fashion_mnist/.* not of fashion_mnist"):
        data.load("fashion_mnist")
    assert (tmp_path / "prepared").is_dir()
    with pytest.raises(data.DataError, match="manual lacks train-images"):
        data.load("mnist")


@pytest.fixture
def copies(archives, tmp_path):
    return shutil.copytree(archives, tmp_path / "archives")


@pytest.mark.mnist
@pytest.mark.parametrize("damage", ["truncate", "alter", "swap"])
def test_altered_archive_is_refused(copies, tmp_path, damage):
    victim = copies / data.ARCHIVES[2]
    content = victim.read_bytes()
    if damage == "truncate":
        victim.write_bytes(content[:-100])
    elif damage == "alter":
        victim.write_bytes(content[:-50] + bytes([content[-50] ^ 1]) + content[-49:])
    else:
        victim.write_bytes((copies / data.ARCHIVES[0]).read_bytes())
    with pytest.raises(
        data.DataError, match=r"t10k-images.* is truncated, altered or not of mnist"
    ):
        data.load("mnist", data_dir=tmp_path / "data", manual_dir=copies)
    assert not list((tmp_path / "data").glob("*.npz"))


@pytest.mark.mnist
def test_archives_of_another_dataset_are_refused(archives, tmp_path):
    with pytest.raises(data.DataError, match="altered or not of fashion_mnist"):
        data.load("fashion_mnist", data_dir=tmp_path / "data", manual_dir=archives)


@pytest.mark.mnist
def test_missing_archive_is_named(copies, tmp_path):
    (copies / data.ARCHIVES[1]).unlink()
    with pytest.raises(
        data.DataError, match=r"archives lacks train-labels-idx1-ubyte\.gz of mnist"
    ):
        data.load("mnist", data_dir=tmp_path / "data", manual_dir=copies)


# --- the network ----------------------------------------------------------------------------------


@pytest.fixture
def mirror(monkeypatch):
    """Has downloads come from an address of the test's, with the official sums on record."""

    def use(address, name="mnist"):
        infos = dict(tfds.core.download.checksums.get_all_url_infos())
        for archive in data.ARCHIVES:
            infos[f"{address}/{archive}"] = infos[data._MIRRORS[name] + archive]
        monkeypatch.setitem(data._MIRRORS, name, f"{address}/")
        monkeypatch.setattr(tfds.core.download.checksums, "get_all_url_infos", lambda: infos)

    return use


@pytest.fixture
def serve():
    """Serves a folder on this machine."""
    servers = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    def start(folder):
        handler = functools.partial(Handler, directory=folder)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.mnist
def test_mnist_is_downloaded(archives, tmp_path, serve, mirror):
    mirror(serve(archives))
    dataset = data.load("mnist", data_dir=tmp_path)
    assert [len(split.inputs) for split in dataset[1:4]] == [54_000, 6_000, 10_000]


@pytest.mark.mnist
def test_damaged_download_is_refused(copies, tmp_path, serve, mirror):
    victim = copies / data.ARCHIVES[2]
    victim.write_bytes(victim.read_bytes()[:-1])
    mirror(serve(copies))
    with pytest.raises(data.DataError, match=r"t10k-images.* is truncated"):
        data.load("mnist", data_dir=tmp_path / "data")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_no_network_and_no_archives(tmp_path, mirror, name):
    with socket.socket() as unused:  # bound, not listening: connections are refused
        unused.bind(("127.0.0.1", 0))
        mirror(f"http://127.0.0.1:{unused.getsockname()[1]}", name)
        with pytest.raises(data.DataError, match=MESSAGE) as caught:
            data.load(name, data_dir=tmp_path)
    assert str(tmp_path / "manual" / name) in str(caught.value)


def test_network_that_never_answers(tmp_path, mirror):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mirror(f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.perf_counter()
        with pytest.raises(data.DataError, match=MESSAGE):
            data.load("mnist", data_dir=tmp_path)
        assert time.perf_counter() - start < 10


@pytest.mark.mnist
def test_archives_are_found_where_the_message_says(archives, tmp_path, mirror):
    mirror("http://127.0.0.1:9", "fashion_mnist")
    with pytest.raises(data.DataError) as caught:
        data.load("fashion_mnist", data_dir=tmp_path)
    folder = str(caught.value).rpartition(" into ")[2].partition(", or name")[0]
    shutil.copytree(archives, folder)
    with pytest.raises(data.DataError, match="is truncated, altered or not of fashion_mnist"):
        data.load("fashion_mnist", data_dir=tmp_path)


def test_data_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(data.DataError, match=r"cannot prepare mnist in .*file"):
        data.load("mnist", data_dir=tmp_path / "file" / "data")


# --- a user's own file ----------------------------------------------------------------------------


def arrays(**changes):
    rng = np.random.default_rng(0)
    values = {
        "images": rng.integers(0, 256, (50, 4, 6), dtype=np.uint8),
        "labels": np.arange(50) % 3,
    }
    return {name: value for name, value in {**values, **changes}.items() if value is not None}


def test_npz(tmp_path):
    np.savez(tmp_path / "own.npz", **arrays())
    dataset = data.load(tmp_path / "own.npz", validation_split=0.25, dtype=np.float32)
    assert dataset.name == "own"
    assert dataset.image_shape == (4, 6)
    assert [len(split.inputs) for split in dataset[1:4]] == [30, 10, 10]
    inputs = np.concatenate([split.inputs for split in dataset[1:4]])
    expected = arrays()["images"].reshape(50, 24) / np.float32(255)
    assert sorted(map(tuple, inputs)) == sorted(map(tuple, expected))


def test_npz_of_floats_with_a_test_set_of_its_own(tmp_path):
    own = arrays(images=np.linspace(0, 1, 50 * 9).reshape(50, 9))
    own |= {"test_images": own["images"][:4], "test_labels": own["labels"][:4]}
    np.savez(tmp_path / "own.npz", **own)
    dataset = data.load(str(tmp_path / "own.npz"), validation_split=0, dtype=np.float64)
    np.testing.assert_array_equal(dataset.train.inputs, own["images"])
    np.testing.assert_array_equal(dataset.test.inputs, own["images"][:4])
    assert dataset.image_shape == (3, 3)


NAN = np.full((50, 9), 0.5)
NAN[3, 4] = np.nan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, "must hold images and labels, .* it holds labels"),
        ({"labels": None}, "it holds images"),
        (
            {"images": np.zeros(50, np.uint8)},
            r"images must be \(n, height, width\) or \(n, pixels\)",
        ),
        ({"images": np.zeros((0, 9), np.uint8)}, r"images must be .* got shape \(0, 9\)"),
        ({"labels": np.arange(49) % 3}, r"labels must be of shape \(50,\).*got shape \(49,\)"),
        ({"labels": np.eye(50)}, r"labels must be of shape \(50,\)"),
        ({"labels": (np.arange(50) % 3) / 2}, "labels must be integers, got float64"),
        ({"labels": np.arange(50) % 3 - 1}, "labels must be 0 or larger, got -1"),
        ({"labels": np.arange(50) % 3 + 1}, "the largest is 3, and 0 does not occur"),
        ({"labels": np.where(np.arange(50) == 7, 255, 0)}, "the largest is 255, and 1 does not"),
        ({"labels": np.array(["a", "b"] * 25)}, "labels must be integers, got <U1"),
        ({"images": NAN}, "images must be finite, got 1 NaN or infinite"),
        ({"images": np.full((50, 9), np.inf)}, "images must be finite, got 450 NaN or infinite"),
        ({"images": np.full((50, 9), 255.0)}, r"images must be in \[0, 1\], got \[255, 255\]"),
        ({"images": np.full((50, 9), 7)}, "images must be uint8, or floating-point in .*got int64"),
        ({"images": np.array([None] * 50)}, "cannot be read as .npz: .*allow_pickle"),
        ({"test_images": np.zeros((2, 4, 6))}, "may hold test_images and test_labels"),
        (
            {"test_images": np.zeros((2, 9)), "test_labels": np.zeros(2, int)},
            r"test_images must be of the images' shape \(4, 6\), got \(9,\)",
        ),
        (
            {"test_images": np.zeros((2, 4, 6)), "test_labels": np.array([0, 3])},
            "test_labels must be below 3, the number of classes in labels, got 3",
        ),
    ],
)
def test_npz_of_another_form_is_refused(tmp_path, changes, message):
    np.savez(tmp_path / "own.npz", **arrays(**changes))
    with pytest.raises(data.DataError, match=message):
        data.load(tmp_path / "own.npz")


def test_npz_that_is_none(tmp_path):
    (tmp_path / "own.npz").write_text("images, labels")
    with pytest.raises(data.DataError, match=r"is not an \.npz archive"):
        data.load(tmp_path / "own.npz")
    np.savez(tmp_path / "own.npz", **arrays())
    whole = (tmp_path / "own.npz").read_bytes()
    (tmp_path / "own.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(data.DataError, match=r"is not an \.npz archive"):
        data.load(tmp_path / "own.npz")
    with pytest.raises(data.DataError, match="does not exist"):
        data.load(tmp_path / "nowhere.npz")
    np.savez(tmp_path / "own.npz", images=np.zeros((3, 4), np.uint8), labels=np.arange(3))
    with pytest.raises(data.DataError, match=r"2 examples are too few to hold out 0\.1"):
        data.load(tmp_path / "own.npz")


def test_a_class_may_be_missing_from_a_split(tmp_path):
    """The one example of the last class is held out, wherever it lies."""
    for place in range(0, 50, 5):
        labels = np.arange(50) % 2
        labels[place] = 2
        np.savez(tmp_path / "own.npz", **arrays(labels=labels))
        dataset = data.load(tmp_path / "own.npz")
        assert {split.targets.shape[1] for split in dataset[1:4]} == {3}


def test_npz_with_one_class_is_refused(tmp_path):
    np.savez(tmp_path / "own.npz", **arrays(labels=np.zeros(50, int)))
    with pytest.raises(data.DataError, match="two classes apart"):
        data.load(tmp_path / "own.npz")


def test_npy_in_the_name_of_npz_is_refused(tmp_path):
    np.save(tmp_path / "own.npy", np.zeros(3))
    (tmp_path / "own.npy").rename(tmp_path / "own.npz")
    with pytest.raises(data.DataError, match=r"is not an \.npz archive"):
        data.load(tmp_path / "own.npz")


@pytest.mark.mnist
def test_a_mirror_that_lacks_an_archive(copies, tmp_path, serve, mirror):
    (copies / data.ARCHIVES[2]).unlink()
    mirror(serve(copies))
    with pytest.raises(data.DataError, match=MESSAGE):
        data.load("mnist", data_dir=tmp_path / "data")
