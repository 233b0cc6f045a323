"""Every public name says what it is, and its example runs."""

import doctest
import importlib
import inspect
import pkgutil

import jax
import pytest

import jaxnet

MODULES = [
    module.name
    for module in pkgutil.walk_packages(jaxnet.__path__, "jaxnet.")
    if not module.name.endswith("__main__")
]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def public(module):
    """Yields the public functions and classes that a module defines, with their names."""
    for name in module.__all__:
        found = getattr(module, name)
        found = inspect.unwrap(found) if callable(found) else found
        is_code = inspect.isclass(found) or inspect.isfunction(found)
        if is_code and found.__module__ == module.__name__:
            yield name, found


@pytest.mark.parametrize("name", MODULES)
def test_modules_say_what_is_public(name):
    module = importlib.import_module(name)
    assert module.__doc__
    assert all(hasattr(module, each) for each in module.__all__)
    assert len(set(module.__all__)) == len(module.__all__)


@pytest.mark.parametrize("name", MODULES)
def test_public_functions_have_types_and_an_example(name):
    module = importlib.import_module(name)
    for public_name, found in public(module):
        assert found.__doc__, f"{name}.{public_name} has no docstring"
        if inspect.isclass(found):
            continue
        for parameter in inspect.signature(found).parameters.values():
            assert parameter.annotation is not parameter.empty, f"{public_name}: {parameter.name}"
        shared = "jaxnet.cli" in name or "jaxnet.lecture" in name  # called by commands alone
        assert ">>>" in found.__doc__ or shared, f"{name}.{public_name} has no example"


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    with jax.numpy_dtype_promotion("standard"):
        failed, _ = doctest.testmod(module, optionflags=FLAGS)
    assert failed == 0


def test_an_example_that_is_wrong_is_noticed(capsys):
    example = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3", {}, "planted", None, 0)
    assert doctest.DocTestRunner(optionflags=FLAGS).run(example).failed == 1
    assert "Got:" in capsys.readouterr().out
