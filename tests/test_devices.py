"""Batches shared out among devices, in a process whose CPU has two."""

import subprocess
import sys

import jax
import pytest

from jaxnet import backprop, batches

BEGINNING = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
import numpy as np
from jaxnet import batches, data, mlp, train

digits = data.load("digits", dtype=np.uint8)
images = data.Split(*(each[:1200] for each in digits.train))
params = mlp.init(jax.random.key(0), (64, 40, 10))
devices = jax.devices()
assert len(devices) == 2

def losses(gradient, batch_size, devices):
    run = train.fit(params, images, digits.validation, key=jax.random.key(1), epochs=3,
                    optimizer=train.make_optimizer("momentum", 0.1), batch_size=batch_size,
                    value_and_grad=train.GRADIENTS[gradient], chunk=100, devices=devices)
    return [(e.train_loss, e.validation_loss, e.validation_accuracy) for e in run.epochs]
"""


def run(program):
    done = subprocess.run(
        [sys.executable, "-c", BEGINNING + program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("gradient", ["hand", "auto"])
@pytest.mark.parametrize("batch_size", [200, 1200])
def test_two_devices_train_as_one_does(gradient, batch_size):
    run(f"""
one, two = (losses({gradient!r}, {batch_size}, some) for some in (None, devices))
np.testing.assert_allclose(two, one, rtol=1e-4)
assert one[0] != one[2]
""")


def test_each_device_has_its_rows_and_all_parameters():
    run("""
rows = batches.place(images, devices, rows=True)
assert [shard.data.shape for shard in rows.inputs.addressable_shards] == [(600, 64)] * 2
same = batches.place(params, devices, rows=False)
assert {shard.data.shape for shard in same[0].weight.addressable_shards} == {(64, 40)}
gradient = batches.share(batches.from_bytes(train.GRADIENTS["hand"]), devices)
program = jax.jit(gradient).lower(same, *rows).compile().as_text()
assert "all-reduce" in program and "all-gather" not in program
""")


def test_rows_that_two_devices_cannot_share_evenly_are_refused():
    run("""
shared = batches.share(train.GRADIENTS["hand"], devices)
for call in (
    lambda: losses("hand", 125, devices),
    lambda: shared(params, np.zeros((3, 64)), np.zeros((3, 10))),
):
    try:
        call()
    except ValueError as error:
        assert "125 rows" in str(error) or "3 rows" in str(error), error
    else:
        raise AssertionError("nothing was refused")
""")


def test_one_device_has_nothing_to_share():
    assert batches.share(backprop.value_and_grad, jax.devices()[:1]) is backprop.value_and_grad


def test_no_devices_are_refused():
    with pytest.raises(ValueError, match="devices must be one or more, got none"):
        batches.share(lambda *_: None, [])


@pytest.mark.parametrize(
    ("batch", "chosen"), [(1, 1), (1_999, 1), (2_000, 2), (60_000, 6), (5_003, 1), (6_001, 1)]
)
def test_as_many_devices_share_a_batch_as_have_a_thousand_rows(batch, chosen):
    devices = [jax.devices()[0]] * 7
    assert len(batches.choose_devices(devices, batch)) == chosen
