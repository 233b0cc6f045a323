import contextlib
import functools
import gzip
import http.server
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxnet import data, files
from jaxnet.data import idx, mnist
from tests.conftest import ROOT
from tests.data import check_splits, small

MESSAGE = "put train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz"


def official(archives, name):
    """Reads an archive with nothing of jaxnet's."""
    with gzip.open(archives / name) as file:
        return np.frombuffer(file.read(), np.uint8)


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
def test_prepared_data_is_read_without_archives_and_without_tfds(mnist_dir, monkeypatch):
    monkeypatch.setattr(mnist, "_builder", None)  # slow
    data.load("mnist", data_dir=mnist_dir, manual_dir="/nonexistent")


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
            infos[f"{address}/{archive}"] = infos[mnist._MIRRORS[name] + archive]
        monkeypatch.setitem(mnist._MIRRORS, name, f"{address}/")
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


@pytest.mark.long
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


def test_network_that_never_answers(tmp_path, mirror, monkeypatch):
    monkeypatch.setattr(mnist, "_PATIENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mirror(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(data.DataError, match=MESSAGE):
            data.load("mnist", data_dir=tmp_path)


@pytest.mark.parametrize("fault", ["500", "reset", "trickle", "endless", "short"])
def test_mirror_that_answers_and_then_fails(tmp_path, mirror, monkeypatch, fault):
    ended = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            if fault == "reset":
                return
            self.send_response(500 if fault == "500" else 200)
            if fault == "short":
                self.send_header("Content-Length", "9912422")
            self.end_headers()
            with contextlib.suppress(OSError):
                while fault == "trickle" and not ended.wait(0.01):
                    self.wfile.write(b"x")
                while fault == "endless" and not ended.is_set():
                    self.wfile.write(bytes(1 << 20))
                self.wfile.write(b"x")

    if fault == "trickle":
        monkeypatch.setattr(mnist, "_PATIENCE", 0.2)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        mirror(f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(data.DataError) as caught:
            data.load("mnist", data_dir=tmp_path)
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
    complete = fault in ("endless", "short")  # to HTTP; not to the sum
    assert ("train-images-idx3-ubyte.gz is truncated" if complete else MESSAGE) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert not list((tmp_path / "manual").glob("*/*"))


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


@pytest.mark.mnist
def test_a_mirror_that_lacks_an_archive(copies, tmp_path, serve, mirror):
    (copies / data.ARCHIVES[2]).unlink()
    mirror(serve(copies))
    with pytest.raises(data.DataError, match=MESSAGE):
        data.load("mnist", data_dir=tmp_path / "data")


# --- damage ---------------------------------------------------------------------------------------


@pytest.fixture
def manual(tmp_path, monkeypatch):
    """The folder of a small dataset's archives, which `mnist` means now."""
    monkeypatch.setattr(mnist, "_EXAMPLES", mnist._EXAMPLES)
    monkeypatch.setattr(mnist, "_MIRRORS", mnist._MIRRORS)
    checksums = tfds.core.download.checksums
    monkeypatch.setattr(checksums, "get_all_url_infos", checksums.get_all_url_infos)
    small.install()
    return small.write(tmp_path / "archives")


@pytest.fixture
def prepared(manual, tmp_path):
    """A folder in which that dataset is prepared."""
    data.load("mnist", data_dir=tmp_path / "prepared", manual_dir=manual)
    return tmp_path / "prepared"


def check_whole(dataset):
    assert [len(split.inputs) for split in dataset[1:4]] == [54, 6, 20]
    assert dataset.test.labels.tolist() == [*range(10)] * 2


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def put_file(folder):
    shutil.rmtree(folder)
    folder.write_text("x")


def put_empty_folder(folder):
    shutil.rmtree(folder)
    folder.mkdir()


STORED = {
    "truncated": lambda record: os.truncate(record, record.stat().st_size // 2),
    "flipped": flip,
    "zeros": lambda record: record.write_bytes(bytes(record.stat().st_size)),
    "missing": lambda record: record.unlink(),
    "empty": lambda record: record.write_bytes(b""),
    "empty JSON": lambda record: record.with_name("dataset_info.json").write_text(""),
    "no JSON": lambda record: record.with_name("dataset_info.json").unlink(),
    "other JSON": lambda record: record.with_name("dataset_info.json").write_text("[1]"),
    "other features": lambda record: record.with_name("features.json").write_text("{}"),
    "empty version": lambda record: put_empty_folder(record.parent),
    "empty folder": lambda record: put_empty_folder(record.parents[1]),
    "a file as version": lambda record: put_file(record.parent),
    "a file": lambda record: put_file(record.parents[1]),
}


@pytest.mark.parametrize("damage", STORED)
def test_stored_examples_that_are_damaged_are_prepared_anew(prepared, manual, tmp_path, damage):
    cache = prepared / "mnist-1.npz"
    cache.unlink()
    (record,) = prepared.glob("mnist_idx/1.0.0/*train*")
    STORED[damage](record)
    check_whole(data.load("mnist", data_dir=prepared, manual_dir=manual))
    cache.unlink()  # what is stored serves now without archives
    check_whole(data.load("mnist", data_dir=prepared, manual_dir=tmp_path / "nowhere"))


def test_what_is_damaged_and_cannot_be_prepared_anew(prepared, tmp_path):
    (prepared / "mnist-1.npz").unlink()
    (record,) = prepared.glob("mnist_idx/1.0.0/*train*")
    flip(record)
    with pytest.raises(data.DataError, match="nowhere lacks train-images"):
        data.load("mnist", data_dir=prepared, manual_dir=tmp_path / "nowhere")
    with pytest.raises(data.DataError, match="cannot be had from"):
        data.load("mnist", data_dir=prepared)


def cache_with(name, change):
    def write(path):
        with np.load(path) as file:
            arrays = {each: file[each] for each in file.files}
        np.savez(path, **{**arrays, name: change(arrays[name])})

    return write


def put_npy(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def put_folder(path):
    path.unlink()
    path.mkdir()
    (path / "x").touch()


def put_fifo(path):
    path.unlink()
    os.mkfifo(path)


def put_link(path):
    path.unlink()
    path.symlink_to("nothing")


RANDOM = np.random.default_rng(0)
CACHES = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "flipped": flip,
    "empty": lambda path: path.write_bytes(b""),
    "npy": put_npy,
    "folder": put_folder,
    "fifo": put_fifo,
    "link to nothing": put_link,
    "other arrays": lambda path: np.savez(path, train_images=np.zeros(3)),
    "labels of 255": cache_with("train_labels", lambda x: np.full_like(x, 255)),
    "random labels": cache_with("test_labels", lambda x: RANDOM.integers(0, 256, x.shape, "u1")),
    "label 11": cache_with("test_labels", lambda x: np.where(x == 3, 11, x)),
    "labels all 0": cache_with("train_labels", np.zeros_like),
    "labels of floats": cache_with("train_labels", lambda x: x.astype(float)),
    "negative labels": cache_with("train_labels", lambda x: x.astype(int) - 1),
    "labels of strings": cache_with("train_labels", lambda x: x.astype(str)),
    "labels of objects": cache_with("train_labels", lambda x: x.astype(object)),
    "labels of NaN": cache_with("train_labels", lambda x: np.full(x.shape, np.nan)),
    "images of floats": cache_with("test_images", lambda x: x.astype(np.float32)),
    "fewer images": cache_with("test_images", lambda x: x[:-1]),
}


@pytest.mark.parametrize("damage", CACHES)
def test_a_cache_that_is_damaged_is_written_anew(prepared, damage):
    cache = prepared / "mnist-1.npz"
    content = cache.read_bytes()
    CACHES[damage](cache)
    check_whole(data.load("mnist", data_dir=prepared))
    assert cache.read_bytes() == content


def test_leftovers_of_runs_that_died_are_removed(prepared):
    (prepared / "mnist-1.npz").unlink()
    leftovers = [
        prepared / ".mnist-1.4711.npz",
        prepared / ".mnist-1.npz.0123456789abcdef.partial",
        prepared / "mnist_idx" / "incomplete.A_1.0.0" / "x",
    ]
    for path in leftovers:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (prepared / ".mnist.lock").write_text("process 4711 on a machine that is gone")
    (prepared / ".fashion_mnist-1.4711.npz").touch()
    check_whole(data.load("mnist", data_dir=prepared))
    names = {path.name for path in prepared.iterdir()} - {"downloads"}
    assert names == {"mnist-1.npz", "mnist_idx", ".fashion_mnist-1.4711.npz"}
    assert [path.name for path in (prepared / "mnist_idx").iterdir()] == ["1.0.0"]


@pytest.mark.parametrize("number", [28, 30])  # a full disk, a read-only one
@pytest.mark.parametrize("function", ["replacing", "lock"])
def test_a_prepared_folder_that_cannot_be_written(prepared, monkeypatch, caplog, number, function):
    (prepared / "mnist-1.npz").unlink()

    def fail(path, **_):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(files, function, fail)
    check_whole(data.load("mnist", data_dir=prepared))
    (message,) = caplog.messages
    assert "the next run prepares the data again" in message
    assert str(prepared) in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("function", ["_read_back", "_builder"])
def test_a_folder_that_is_full(manual, tmp_path, monkeypatch, function):
    def fail(*_):
        raise RuntimeError("No space left on device\nat array_record.cc")

    folder = tmp_path / "full"
    with monkeypatch.context() as patched:
        patched.setattr(mnist, function, fail)
        with pytest.raises(data.DataError, match=r"cannot prepare mnist in .*full: No space .*e$"):
            data.load("mnist", data_dir=folder, manual_dir=manual)
    check_whole(data.load("mnist", data_dir=folder, manual_dir=manual))


def test_an_empty_environment_variable_is_not_set(prepared, monkeypatch):
    monkeypatch.setenv("JAXNET_MANUAL_DIR", "")
    monkeypatch.setenv("JAXNET_DATA_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(prepared.parent))
    prepared.rename(prepared.parent / "jaxnet")
    check_whole(data.load("mnist"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes([0, 0, 8, 1, 255, 255, 255, 255, 1, 2, 3]),
        bytes([0, 0, 8, 1, 0, 0, 0, 3, 1, 2]),
        bytes([0, 0, 8, 1, 0, 0, 0, 3, 1, 2, 3, 4]),
        bytes([0, 0, 9, 1, 0, 0, 0, 3, 1, 2, 3]),
        bytes([0, 0, 8, 255, 0, 0, 0, 3]),
        bytes([0, 0, 8, 1, 0, 0, 0, 3]) + bytes(10**7),
    ],
)
def test_idx_that_claims_other_than_there_is(tmp_path, content):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(data.DataError, match=r"x\.gz is not an IDX file of uint8 and shape \(3,\)"):
        idx.read(path, (3,))
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 3, 1, 2, 3]))[:-9])
    with pytest.raises(data.DataError, match=r"x\.gz is damaged"):
        idx.read(path, (3,))


# --- two at once ----------------------------------------------------------------------------------


def test_one_prepares_and_the_other_waits(manual, tmp_path, monkeypatch):
    prepared, found, waiting = [], [], threading.Event()
    prepare = mnist._prepare

    def slow(*arguments):
        assert waiting.wait(60)  # until the other has found the lock taken
        prepared.append(arguments)
        return prepare(*arguments)

    class Listener(logging.Handler):
        def emit(self, record):
            if "waiting for another process that prepares mnist" in record.getMessage():
                waiting.set()

    monkeypatch.setattr(mnist, "_prepare", slow)
    listener = Listener()
    monkeypatch.setattr(mnist._log, "handlers", [listener])
    load = functools.partial(data.load, "mnist", data_dir=tmp_path / "d", manual_dir=manual)
    threads = [threading.Thread(target=lambda: found.append(load())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(prepared) == 1
    assert len(found) == 2
    for dataset in found:
        check_whole(dataset)


LOAD = """
import os, sys
from jaxnet import data
from jaxnet.data import mnist
from tests.data import small
small.install()
if "die" in sys.argv:
    mnist._read_back = lambda _: os._exit(9)
print(len(data.load("mnist", data_dir=sys.argv[1], manual_dir=sys.argv[2]).test.inputs))
"""


def start(folder, manual, *more):
    command = [sys.executable, "-c", LOAD, folder, manual, *more]
    return subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_processes_prepare_one_folder(manual, tmp_path):
    for process in [start(tmp_path / "d", manual) for _ in range(3)]:
        out, err = process.communicate(timeout=300)
        assert (process.returncode, out) == (0, "20\n"), err
        assert all("waiting for another process" in line for line in err.splitlines())


def test_a_process_that_dies_while_preparing_disturbs_nobody(manual, tmp_path):
    folder = tmp_path / "d"
    died = start(folder, manual, "die")
    died.communicate(timeout=300)
    assert died.returncode == 9
    assert (folder / ".mnist.lock").exists()
    (folder / "mnist_idx" / "1.0.0" / "dataset_info.json").unlink()
    check_whole(data.load("mnist", data_dir=folder, manual_dir=manual))
    assert not (folder / ".mnist.lock").exists()
