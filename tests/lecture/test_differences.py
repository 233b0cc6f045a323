import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import gradcheck
from jaxnet.lecture import differences, slopes


def test_slopes_are_one_and_two():
    found = differences.errors(
        lambda s: jax.nn.sigmoid(s[0]), np.array([1.0]), np.array([1.0]), dtype="float64"
    )
    assert found.slope("forward", 1e-6, 1e-3) == pytest.approx(1, rel=0.02)
    assert found.slope("central", 1e-4, 1e-2) == pytest.approx(2, rel=0.02)


def test_derivatives_of_the_product_are_the_slides():
    point = jnp.array([5.0, -2.0])
    assert slopes.product(point) == -10
    assert jax.grad(slopes.product)(point).tolist() == [-2, 5]
    with jax.enable_x64(True):
        wide = jnp.array([5.0, -2.0])
        np.testing.assert_allclose(
            gradcheck.finite_difference(slopes.product, wide), [-2, 5], rtol=1e-9
        )


def test_central_difference_of_a_product_is_exact():
    found = differences.errors(
        slopes.product, np.array([5.0, -2.0]), np.array([1.0, 1.0]), dtype="float64"
    )
    # Steps are powers of 2, so that these values are not rounded.
    assert found.central[found.steps >= 2**-20].max() == 0
    assert np.isnan(found.slope("central", 1e-4, 1e-2))
    assert found.slope("forward", 1e-4, 1e-2) == pytest.approx(1, rel=0.02)
