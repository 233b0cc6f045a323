import os
import zipfile

import numpy as np
import pytest

from jaxnet import data
from jaxnet.data import npz


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
        ({"images": np.array([None] * 50)}, "cannot be read as .npz: .*Python objects"),
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


def refused(path, message):
    with pytest.raises(data.DataError, match=message) as caught:
        data.load(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("largest", [10**9, 2**63 + 5, 2**64 - 1, 2**31])
@pytest.mark.parametrize("full", [False, True])
def test_a_label_sizes_nothing(tmp_path, largest, full):
    labels = np.arange(50, dtype=np.uint64) if full else np.arange(50, dtype=np.uint64) % 2
    labels[7] = largest
    np.savez(tmp_path / "own.npz", **arrays(labels=labels))
    refused(tmp_path / "own.npz", f"the largest is {largest}, and {7 if full else 2} does not")
    own = arrays(test_images=arrays()["images"], test_labels=labels)
    np.savez(tmp_path / "own.npz", **own)
    refused(tmp_path / "own.npz", f"test_labels must be below 3, .* got {largest}")


def test_most_classes(tmp_path):
    n = npz.MAX_CLASSES + 1
    np.savez(tmp_path / "own.npz", images=np.zeros((n, 1), np.uint8), labels=np.arange(n))
    refused(tmp_path / "own.npz", "at most 10,000 classes, got 10,001")


@pytest.mark.parametrize("dtype", ["i1", ">i2", ">u8", "u4"])
def test_labels_of_any_integer_dtype(tmp_path, dtype):
    np.savez(tmp_path / "own.npz", **arrays(labels=arrays()["labels"].astype(dtype)))
    dataset = data.load(tmp_path / "own.npz", validation_split=0)
    labels = np.concatenate([dataset.train.labels, dataset.test.labels])
    assert np.bincount(labels).tolist() == [17, 17, 16]


@pytest.mark.parametrize("dtype", [">f4", np.longdouble, np.float16])
def test_images_of_any_floating_dtype(tmp_path, dtype):
    images = (arrays()["images"] / 255).astype(dtype)
    np.savez(tmp_path / "own.npz", **arrays(images=images))
    inputs = data.load(tmp_path / "own.npz", validation_split=0, dtype="float32").train.inputs
    assert inputs.dtype == np.float32
    assert inputs.dtype.isnative


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.full((50, 4), 1.0000001), r"got \[1\.0000001, 1\.0000001\]"),
        (np.full((50, 4), np.nextafter(1, 2)), r"got \[1\.0000000000000002, "),
        (np.full((50, 4), 1e300), r"got \[1e\+300, "),
        (np.zeros((50, 4), [("a", "f4"), ("b", "f4")]), "got a structured dtype"),
        (np.zeros((50, 4), "V1"), r"got \|V1"),
        (np.zeros((50, 4), complex), "got complex128"),
        (np.zeros((50, 4), bool), "got bool"),
    ],
)
def test_images_just_outside_their_range_or_of_other_dtypes(tmp_path, images, message):
    np.savez(tmp_path / "own.npz", **arrays(images=images))
    refused(tmp_path / "own.npz", message)


@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "dangling", "loop"])
def test_what_is_no_file(tmp_path, kind):
    path = tmp_path / "own.npz"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"device": "/dev/zero", "dangling": "nothing", "loop": path}[kind])
    refused(path, {"dangling": "does not exist", "loop": "own"}.get(kind, "not a regular file"))


def test_members_that_are_not_used_are_not_read(tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, **arrays())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("junk.npy", b"no array")
        archive.writestr("notes.txt", b"no array")
    assert len(data.load(path).test.inputs) == 10


def test_members_without_the_ending(tmp_path):
    path = tmp_path / "own.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images", b"12345678")
        archive.writestr("labels", b"12345678")
    refused(path, "images is not an array")
