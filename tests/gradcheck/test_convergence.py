import jax
import pytest

from jaxnet import gradcheck, mlp


def test_convergence_has_the_slides_orders_and_the_models_best_steps(problem):
    with jax.enable_x64(True):
        found = gradcheck.convergence(mlp.loss, *problem, leaf=2)
    assert found.path == "params[1].weight"
    assert found.forward.slope == pytest.approx(1, abs=0.02)
    assert found.central.slope == pytest.approx(2, abs=0.04)
    for curve in (found.forward, found.central):
        assert 1 / 3 < curve.best / curve.predicted < 3
        assert curve.errors.min() < 1e-6
