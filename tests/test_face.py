"""What ``import jaxnet`` gives, and what it does not cost."""

import subprocess
import sys

import pytest

import jaxnet

HEAVY = ("matplotlib", "tensorflow_datasets", "tensorflow", "sklearn", "tqdm", "igraph", "optax")


def loaded(program: str) -> set[str]:
    """Returns the packages that a fresh process has loaded after a program."""
    program += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("name", jaxnet.__all__)
def test_every_module_is_there_on_demand(name):
    assert getattr(jaxnet, name).__name__ == f"jaxnet.{name}"
    assert name in dir(jaxnet)


def test_what_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'jaxnet' has no attribute 'layers'"):
        _ = jaxnet.layers  # pyright: ignore[reportAttributeAccessIssue]


def test_the_version_is_that_of_the_distribution():
    assert jaxnet.__version__.count(".") == 2


def test_importing_the_package_imports_nothing_else():
    assert not loaded("import jaxnet") & {"jax", "numpy", *HEAVY}


@pytest.mark.parametrize("module", ["mlp", "backprop", "gradcheck", "circuit", "data"])
def test_modules_do_not_load_what_they_do_not_need(module):
    assert not loaded(f"from jaxnet import {module}") & set(HEAVY)


def test_training_waits_for_no_pictures_and_no_tensorflow():
    heavy = {"matplotlib", "tensorflow_datasets", "tensorflow", "sklearn", "igraph"}
    assert not loaded("import jaxnet.cli.train") & heavy


def test_parameters_are_still_found_where_they_were():
    with pytest.warns(DeprecationWarning, match=r"mlp.load is checkpoint.load now"):
        assert jaxnet.mlp.load is jaxnet.checkpoint.load
