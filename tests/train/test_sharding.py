"""Data parallelism, on the CPU devices that conftest.py asks for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnet import backprop, data, mlp, train
from jaxnet.data import pixels

pytestmark = pytest.mark.usefixtures("optax_dtypes")


@pytest.fixture(scope="module")
def devices():
    if jax.device_count() < 2:
        pytest.skip("there is one device")
    return jax.devices()[:2]


@pytest.fixture(scope="module")
def images():
    digits = data.load("digits", dtype=np.uint8)
    return data.Split(*(np.asarray(each[:1200]) for each in digits.train))


@pytest.fixture
def params():
    return mlp.init(jax.random.key(0), (64, 40, 10))


@pytest.mark.parametrize("gradient", ["hand", "auto"])
@pytest.mark.parametrize("batch_size", [200, 1200])
def test_two_devices_train_as_one_does(params, images, digits, devices, gradient, batch_size):
    found = []
    for some in (None, devices):
        run = train.fit(
            params,
            images,
            digits.validation,
            key=jax.random.key(1),
            epochs=3,
            optimizer=optax.sgd(0.1, momentum=0.9),
            batch_size=batch_size,
            value_and_grad=train.GRADIENTS[gradient],
            microbatch=100,
            devices=some,
        )
        found.append([metrics[1:4] for metrics in run.history])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)
    assert found[0][0] != found[0][2]


def test_each_device_has_its_rows_and_all_parameters(params, images, devices):
    rows = train.shard_rows(images, devices)
    assert [shard.data.shape for shard in rows.inputs.addressable_shards] == [(600, 64)] * 2
    same = train.replicate(params, devices)
    assert {shard.data.shape for shard in same[0].weight.addressable_shards} == {(64, 40)}
    gradient = train.shard(pixels.from_uint8(train.GRADIENTS["hand"]), devices)
    found = jax.jit(gradient)(same, *rows)
    expected = backprop.value_and_grad(params, *pixels.as_floats(*images, params[0].weight.dtype))
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_rows_that_two_devices_do_not_divide_are_refused(params, images, devices):
    sharded = train.shard(train.GRADIENTS["hand"], devices)
    with pytest.raises(ValueError, match="devices must divide the 3 rows of a batch, got 2"):
        sharded(params, jnp.zeros((3, 64)), jnp.zeros((3, 10)))
    with pytest.raises(ValueError, match="devices must divide the 125 rows of a batch, got 2"):
        train.prepare(
            params,
            images,
            key=jax.random.key(1),
            optimizer=optax.sgd(0.1),
            batch_size=125,
            devices=devices,
        )


def test_one_device_has_nothing_to_share():
    assert train.shard(backprop.value_and_grad, jax.devices()[:1]) is backprop.value_and_grad


def test_no_devices_are_refused():
    for call in (
        lambda: train.shard(lambda *_: None, []),
        lambda: train.choose_devices([], 100),
    ):
        with pytest.raises(ValueError, match="devices must be one or more, got none"):
            call()


@pytest.mark.parametrize(
    ("batch", "chosen"), [(1, 1), (1_999, 1), (2_000, 2), (60_000, 6), (5_003, 1), (6_001, 1)]
)
def test_as_many_devices_share_a_batch_as_have_a_thousand_rows(batch, chosen):
    devices = [jax.devices()[0]] * 7
    assert len(train.choose_devices(devices, batch)) == chosen
