import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet.gradcheck import arguments
from jaxnet.gradcheck.measure import Measurement, remember_last
from jaxnet.gradcheck.point import Compiled
from jaxnet.gradcheck.thresholds import THRESHOLDS

from .common import smooth


def measurement(f, *args):
    argument = arguments.examine(f, args, 0)
    return Measurement(Compiled(f, 0), argument, args, (0,))


def test_slopes_along_directions_and_coordinates_are_the_gradients():
    x = jnp.linspace(-1, 1, 6, dtype=jnp.float32)
    found, (right,) = measurement(smooth, x), measurement(smooth, x).gradient
    found.measure([0], 3)
    along = found.along(0, 3)
    expected = [right @ found.draw(number)[0] for number in range(3)]
    assert np.all(np.abs(along.value - expected) <= along.bar)
    table = found.tabulate(0)
    assert np.all(np.abs(table.value - right) <= table.bar)
    np.testing.assert_allclose(found.table(0)[0], right, atol=1e-8)


def test_values_beyond_the_domain_leave_no_noise_to_compare():
    """The float32 function is infinite wherever the nine nearest values are, but at the point."""

    def f(x):
        y = x.astype(jnp.float32)
        return jnp.where(y == 1, y, jnp.inf).sum()

    found = measurement(f, jnp.ones((), jnp.float32))
    found.measure([0], 1)
    assert np.isinf(found.along(0, 1).bar).all()


def test_the_last_point_is_kept_while_its_arrays_are():
    at = remember_last(Compiled(smooth, 0))
    x = jnp.ones(3)
    argument = arguments.examine(smooth, (x,), 0)
    first = at(argument, (x,), (0,))
    assert at(argument, (x,), (0,)) is first
    assert at(argument, (x,), (1,)) is not first
    assert at(argument, (jnp.array(x),), (1,)) is not at(argument, (x,), (1,))
    mutable = np.ones(3, np.float32)
    assert at(argument, (mutable,), (1,)) is not at(argument, (mutable,), (1,))


def test_thresholds_cannot_be_changed_by_accident():
    with pytest.raises(dataclasses.FrozenInstanceError):
        THRESHOLDS.miss = 1.0
    with pytest.raises(TypeError):
        THRESHOLDS.tolerance[4] = 1.0


def test_leaves_are_measured_in_float64_whatever_the_configuration():
    found = measurement(smooth, jnp.ones(3, jnp.float32))
    assert found.precise
    assert found.leaves[0].dtype == np.float64
    assert jnp.result_type(float) == jax.dtypes.canonicalize_dtype(float)
