import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import data, files
from tests.data import check_splits


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


@pytest.mark.parametrize("name", ["", " ", "digits.npy", ".npz", "a\0b.npz"])
def test_names_that_mean_nothing(name):
    with pytest.raises(data.DataError) as caught:
        data.load(name)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", [None, 5, b"digits"])
def test_a_name_is_a_string_or_a_path(name):
    with pytest.raises(TypeError, match="name must be a string or a path, got"):
        data.load(name)


@pytest.mark.parametrize("argument", ["data_dir", "manual_dir"])
@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_an_empty_folder_is_not_an_absent_one(name, argument, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(data.DataError, match=f"{argument} must name a folder, got ''"):
        data.load(name, **{argument: ""})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [bool, object, int, "S3", ">f4", "float33", complex, "int8", 7])
def test_dtypes_that_inputs_cannot_have(dtype):
    with pytest.raises(ValueError, match=r"dtype must be float16, bfloat16, .* or uint8, got"):
        data.load("digits", dtype=dtype)


@pytest.mark.parametrize("dtype", ["float16", jnp.bfloat16, np.uint8])
def test_dtypes_that_inputs_can_have(dtype):
    train = data.load("digits", dtype=dtype).train
    expected = jnp.result_type(float) if dtype == np.uint8 else jnp.dtype(dtype)
    assert train.inputs.dtype == expected


def test_data_that_does_not_fit_into_memory_is_refused(monkeypatch):
    monkeypatch.setattr(files, "available_memory", lambda: 1000)
    with pytest.raises(data.DataError, match=r"10 classes need 0\.0 GB as float32, and .* free"):
        data.load("digits", dtype=jnp.float32)


def test_import_is_cheap():
    program = (
        "import sys, jaxnet.data, jaxnet.data.mnist; "
        "print({'sklearn', 'tensorflow_datasets', 'tensorflow'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert ran.stdout == b"set()\n"
