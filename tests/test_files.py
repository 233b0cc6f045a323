import errno
import io
import os
import subprocess
import sys
import threading
import warnings
import zipfile

import numpy as np
import pytest

from jaxnet import files

# --- replacing ------------------------------------------------------------------------------------


def test_the_old_content_stays_until_the_new_is_complete(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with files.replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_block_that_raises_leaves_the_old_content(tmp_path, error):
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(error), files.replacing(path) as file:
        raise error(file.write(b"new"))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_errors_name_the_path(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone/x"), files.replacing(tmp_path / "gone/x"):
        pass
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match="folder"), files.replacing(tmp_path / "folder"):
        pass
    with pytest.raises(OSError, match=r"No space left.*/x'$"), files.replacing(tmp_path / "x"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(FileNotFoundError, match="another"), files.replacing(tmp_path / "x"):
        (tmp_path / "another").read_text()
    with pytest.raises(io.UnsupportedOperation, match="seek"), files.replacing(tmp_path / "x"):
        raise io.UnsupportedOperation("seek")
    with pytest.raises(IsADirectoryError), files.replacing(""):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("name", ["x" * 255, "\u00e9" * 127, "[a]*?", "a b\nc"])
def test_names_of_all_kinds(tmp_path, name):
    with files.replacing(tmp_path / name) as file:
        file.write(b"new")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_leftovers_of_the_dead_are_removed_and_those_of_the_living_stay(tmp_path):
    dead, alien = tmp_path / ".[x].0.partial", tmp_path / ".x.0.partial"
    for path in (dead, alien):
        path.touch()
    os.mkfifo(tmp_path / ".[x].1.partial")  # opening it would wait for ever
    with files.replacing(tmp_path / "[x]") as first:
        assert not dead.exists()
        first.write(b"first")
        with files.replacing(tmp_path / "[x]") as second:
            second.write(b"second")
        assert (tmp_path / "[x]").read_bytes() == b"second"
    assert (tmp_path / "[x]").read_bytes() == b"first"
    assert alien.exists()


def test_a_writer_whose_file_was_taken_for_a_leftover_makes_it_anew(tmp_path, monkeypatch):
    """Between making a file and locking it, another process may remove it."""
    flock, removed = files.fcntl.flock, []

    def late(file, operation):
        if not removed:
            removed.append(next(tmp_path.iterdir()))
            removed[0].unlink()
        flock(file, operation)

    monkeypatch.setattr(files.fcntl, "flock", late)
    with files.replacing(tmp_path / "x") as file:
        file.write(b"new")
    assert (tmp_path / "x").read_bytes() == b"new"


WRITER = """
import os, sys
from pathlib import Path
os.getpid = lambda: 1  # as in containers
import numpy as np
from jaxnet import files
path, value = Path(sys.argv[1]), int(sys.argv[2])
for _ in range(100):
    with files.replacing(path) as file:
        np.savez(file, x=np.full(5000 * value, value))
    files.write_json(path.with_suffix(".json"), {"x": [value] * 1000})
"""


def test_processes_and_threads_write_and_read_one_path(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, x=np.full(15_000, 3))
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, path, value], stderr=subprocess.PIPE)
        for value in ("1", "2")
    ]
    failures, done = [], threading.Event()

    def write(value):
        try:
            for _ in range(100):
                with files.replacing(path) as file:
                    np.savez(file, x=np.full(5000 * value, value))
        except Exception as error:
            failures.append(error)

    def read():
        try:
            while not done.is_set():
                x = files.read_npz(path)["x"]
                assert (x == x[0]).all()
                assert len(x) == 5000 * x[0]
        except Exception as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(value,)) for value in (4, 5)]
    for thread in (reader, *writers):
        thread.start()
    errors = [process.communicate(timeout=300)[1] for process in processes]
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert errors == [b"", b""]
    assert failures == []
    assert sorted(each.name for each in tmp_path.iterdir()) == ["x.json", "x.npz"]


# --- lock -----------------------------------------------------------------------------------------


def test_one_holds_a_lock(tmp_path):
    path = tmp_path / "lock"
    with files.lock(path):
        with pytest.raises(files.BusyError, match=f"in use by process {os.getpid()} on"):
            files.lock(path).__enter__()
        assert path.exists()
    assert not path.exists()
    with pytest.raises(ZeroDivisionError), files.lock(path):
        raise ZeroDivisionError
    assert not path.exists()


def test_the_lock_of_a_dead_process_is_free(tmp_path):
    program = "import os, sys; from jaxnet import files\nwith files.lock(sys.argv[1]): os._exit(9)"
    subprocess.run([sys.executable, "-c", program, tmp_path / "lock"], check=False)
    assert (tmp_path / "lock").exists()
    with files.lock(tmp_path / "lock"):
        pass
    assert not (tmp_path / "lock").exists()


def test_those_who_wait_take_turns(tmp_path):
    inside, most = [], []

    def work(number):
        for _ in range(50):
            with files.lock(tmp_path / "lock", wait=True):
                inside.append(number)
                most.append(len(inside))
                inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 200
    assert not list(tmp_path.iterdir())


def test_a_lock_follows_no_link_and_needs_no_space(tmp_path, monkeypatch):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "lock").symlink_to("precious")
    with pytest.raises(OSError, match="lock"):
        files.lock(tmp_path / "lock").__enter__()
    assert (tmp_path / "precious").read_text() == "precious"

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "write", full)
    with files.lock(tmp_path / "free"), pytest.raises(files.BusyError, match="another process"):
        files.lock(tmp_path / "free").__enter__()


# --- check_writable -------------------------------------------------------------------------------


def test_check_writable(tmp_path):
    files.check_writable(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nothing")
    with pytest.raises(NotADirectoryError):
        files.check_writable(tmp_path / "file")
    with pytest.raises(NotADirectoryError):
        files.check_writable(tmp_path / "file" / "b")
    with pytest.raises(OSError, match="link"):
        files.check_writable(tmp_path / "link")
    with pytest.raises(OSError, match="link"):
        files.check_writable(tmp_path / "link" / "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


# --- npz ------------------------------------------------------------------------------------------


def npy(shape, content=b"", dtype="|u1", version=b"\x01\x00"):
    """An array file whose header says what it is told to."""
    header = repr({"descr": dtype, "fortran_order": False, "shape": shape}) + "\n"
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header.encode() + content


def archive(path, compression=zipfile.ZIP_DEFLATED, **members):
    with zipfile.ZipFile(path, "w", compression) as opened:
        for name, content in members.items():
            opened.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy((10**12,)), "claims shape .* and has"),
        (npy((2**63, 4), b"1"), "claims shape"),
        (npy((-1, -3), b"123"), "x.npz"),
        (npy((3,), b"1"), "claims shape"),
        (npy((3,), b"1234"), "claims shape"),
        (npy((1,), b"12345678", "|O"), "Python objects"),
        (b"", "x.npz"),
        (b"weights", "x.npz"),
        (npy((3,), b"123", version=b"\x03\x00"), "version"),
    ],
)
def test_a_header_that_claims_other_than_there_is(tmp_path, content, message):
    path = archive(tmp_path / "x.npz", x=content)
    with pytest.raises(ValueError, match=message) as caught:
        files.read_npz(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_directory_that_claims_other_than_there_is(tmp_path):
    """The sizes in the archive's directory are numbers of the file, too."""
    content = npy((1 << 30,), b"123")
    path = archive(tmp_path / "x.npz", x=content)
    real, claimed = ((len(content) + more).to_bytes(4, "little") for more in (0, (1 << 30) - 3))
    assert path.read_bytes().count(real) == 2
    path.write_bytes(path.read_bytes().replace(real, claimed))
    with pytest.raises(ValueError, match=r"x\.npz cannot be read as \.npz: .* claims 1,07.* hold"):
        files.read_npz(path)


def test_an_archive_that_inflates_beyond_memory(tmp_path, monkeypatch):
    path = archive(tmp_path / "x.npz", x=npy((10**6,), bytes(10**6)), y=npy((3,), b"123"))
    monkeypatch.setattr(files, "available_memory", lambda: 500_000)
    with pytest.raises(ValueError, match=r"need 0\.0 GB, and 0\.0 GB are free"):
        files.read_npz(path)
    assert files.read_npz(path, ["y"])["y"].tolist() == [49, 50, 51]


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_that_numpy_does_not_write(tmp_path, compression):
    path = archive(tmp_path / "x.npz", compression, x=npy((3,), b"123"))
    with pytest.raises(ValueError, match="must be stored or deflated"):
        files.read_npz(path)


def test_members_that_are_there_twice(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as opened:
            for name in ("x.npy", "x.npy", "y.npy", "z.npy", "z"):
                opened.writestr(name, npy((3,), b"123"))
    for name in ("x", "z"):
        with pytest.raises(ValueError, match=f"it holds {name} twice"):
            files.read_npz(tmp_path / "x.npz", [name])
    assert list(files.read_npz(tmp_path / "x.npz", ["y", "other"])) == ["y"]
    assert files.npz_names(tmp_path / "x.npz") == ["x", "y", "z"]


def test_write_json_refuses_before_it_writes(tmp_path):
    (tmp_path / "x.json").write_text("old")
    for value in ({1: 2}, {"x": object()}):
        with pytest.raises(TypeError, match="JSON"):
            files.write_json(tmp_path / "x.json", value)
    assert (tmp_path / "x.json").read_text() == "old"
