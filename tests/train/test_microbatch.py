import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import backprop, mlp, record, train
from jaxnet.data import pixels
from jaxnet.train import stream
from jaxnet.train.epoch import scan

DTYPE = np.dtype(jnp.result_type(float))
EPSILON = float(jnp.finfo(DTYPE).eps)
LECTURE = (784, 256, 128, 10)


def examples(rows, sizes=(20, 16, 10), seed=0):
    """Parameters, inputs as bytes, targets."""
    rng = np.random.default_rng(seed)
    inputs = rng.integers(0, 256, (rows, sizes[0]), np.uint8)
    targets = np.eye(sizes[-1], dtype=DTYPE)[rng.integers(0, sizes[-1], rows)]
    return mlp.init(jax.random.key(seed), sizes), inputs, targets


def assert_same(found, expected, tolerance):
    """Losses and gradients, each leaf to a share of its norm."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        distance = np.linalg.norm(np.asarray(a - b, np.float64))
        assert distance <= tolerance * np.linalg.norm(np.asarray(b, np.float64))


def whole(params, inputs, targets):
    return backprop.value_and_grad(params, pixels.as_float(inputs, DTYPE), targets)


def test_bytes_are_scaled_and_floats_are_not():
    scaled = pixels.as_float(jnp.arange(256, dtype=jnp.uint8), DTYPE)
    np.testing.assert_allclose(scaled, np.arange(256) / 255, rtol=2 * EPSILON)
    assert scaled[-1] == 1
    floats = jnp.array([0.5, 1.0], jnp.bfloat16)
    assert pixels.as_float(floats, DTYPE) is floats  # for `mlp.check` to refuse
    inputs, targets = pixels.as_floats(floats, jnp.array([0, 1], jnp.uint8), DTYPE)
    assert inputs is floats
    assert targets.dtype == DTYPE
    assert targets.tolist() == [0, 1]


@pytest.mark.parametrize("chunk", [1, 7, 50, 60, 100, 101])
def test_chunks_add_up_to_the_whole(chunk):
    params, inputs, targets = examples(100)
    gradient = train.accumulate(pixels.from_uint8(backprop.value_and_grad), chunk)
    found = jax.jit(gradient)(params, inputs, targets)
    assert_same(found, whole(params, inputs, targets), 100 * EPSILON)


def test_chunks_take_the_memory_of_a_chunk():
    params, inputs, targets = examples(60_000, LECTURE)

    def temporary(chunk):
        gradient = train.accumulate(pixels.from_uint8(backprop.value_and_grad), chunk)
        compiled = jax.jit(gradient).lower(params, inputs, targets).compile()
        memory = compiled.memory_analysis()
        if memory is None:
            pytest.skip("the device does not say what a program allocates")
        return memory.temp_size_in_bytes

    per_row = DTYPE.itemsize * sum(LECTURE)
    assert temporary(2_000) < 3 * 2_000 * per_row
    assert temporary(60_000) > 60_000 * per_row / 2


def test_chunk_below_one_is_refused():
    with pytest.raises(ValueError, match="rows must be 1 or more, got 0"):
        train.accumulate(backprop.value_and_grad, 0)


@pytest.mark.skipif(np.float32 != DTYPE, reason="the widths are chosen for float32")
@pytest.mark.parametrize(
    ("sizes", "batch", "platform", "rows"),
    [
        (LECTURE, 60_000, "cpu", 2_000),
        (LECTURE, 54_000, "cpu", 2_000),
        (LECTURE, 59_999, "cpu", 2_122),  # a prime number of rows
        (LECTURE, 64, "cpu", 64),
        (LECTURE, 128, "cpu", 64),  # two halves, side by side
        (LECTURE, 129, "cpu", 65),
        (LECTURE, 512, "cpu", 512),
        (LECTURE, 128, "cuda", 128),
        ((784, 1_000, 500, 10), 128, "cpu", 128),
        ((64, 64, 10), 128, "cpu", 128),
        ((10, 40_000, 2), 256, "cpu", 32),  # a half would not fit into a cache
        (LECTURE, 60_000, "cuda", 60_000),
        ((784, 10_000, 10), 60_000, "cpu", 200),  # 231 would fit
        ((10, 10_000_000), 4, "cpu", 1),
    ],
)
def test_rows_per_chunk_suit_device_and_widths(monkeypatch, sizes, batch, platform, rows):
    monkeypatch.setattr(record, "cpus", lambda: 2)
    params = jax.eval_shape(lambda: mlp.init(jax.random.key(0), sizes))
    assert train.microbatch_size(params, batch, platform) == rows


def test_no_halves_for_products_in_bfloat16_or_a_single_core(monkeypatch):
    params = jax.eval_shape(lambda: mlp.init(jax.random.key(0), LECTURE, dtype=jnp.float32))
    assert train.microbatch_size(params, 128, "cpu", precision="bfloat16") == 128
    assert train.microbatch_size(params, 256, "cpu", devices=2) == 128
    monkeypatch.setattr(record, "cpus", lambda: 1)
    assert train.microbatch_size(params, 128, "cpu") == 128


def test_two_chunks_are_compiled_without_a_loop():
    params, inputs, targets = examples(128)

    def loops(chunk):
        gradient = train.accumulate(pixels.from_uint8(backprop.value_and_grad), chunk)
        text = jax.jit(gradient).lower(params, inputs, targets).as_text()
        return text.count("stablehlo.while")

    assert loops(64) == loops(65) == 0
    assert loops(63) == 1


def test_every_example_is_drawn_once_and_each_epoch_anew():
    first, second = (np.asarray(train.draw(jax.random.key(0), i, 1000, 30)) for i in (1, 2))
    assert first.shape == (33, 30)
    assert len(set(first.ravel())) == 990
    assert set(first.ravel()) <= set(range(1000))
    assert (first != second).mean() > 0.9
    # As a uniform order has it: examples do not stay near where they were.
    assert abs(np.corrcoef(np.arange(990), first.ravel())[0, 1]) < 0.15


@pytest.mark.parametrize("examples", [1, 2, 3, 1_437, 60_000, 65_536, 65_537, 200_000])
def test_the_order_is_that_of_the_random_bits(examples):
    bits = jax.random.bits(jax.random.fold_in(jax.random.key(0), 1), (examples,), jnp.uint32)
    order = train.draw(jax.random.key(0), 1, examples, examples)[0]
    assert order.dtype == jnp.int32
    np.testing.assert_array_equal(order, np.argsort(bits, kind="stable"))


@pytest.mark.parametrize(("steps", "batch_size"), [(1, 5), (7, 1_000), (600, 10), (3, 3_000)])
def test_scan_takes_every_batch_in_order(steps, batch_size):
    inputs = jnp.arange(steps * batch_size, dtype=jnp.int32)
    rows = jax.random.permutation(jax.random.key(0), steps * batch_size)
    rows = rows.reshape(steps, batch_size)

    def step(state, inputs, targets):
        return state + 1, jnp.sum(inputs * (1 + state)) + jnp.sum(targets)

    state, losses = scan(step, jnp.int32(0), rows, inputs, inputs)
    sums = np.asarray(rows).sum(axis=1)
    assert state == steps
    assert losses.tolist() == (sums * (2 + np.arange(steps))).astype(np.int32).tolist()


def test_stream_from_files_is_the_whole(tmp_path):
    params, inputs, targets = examples(1_000)
    np.save(tmp_path / "inputs.npy", inputs)
    np.save(tmp_path / "targets.npy", targets)
    chunks = stream.read(tmp_path / "inputs.npy", tmp_path / "targets.npy", 300)
    found = stream.stream(backprop.value_and_grad, params, chunks)
    assert_same(found, whole(params, inputs, targets), 100 * EPSILON)


def test_rows_that_do_not_fit_are_refused(tmp_path):
    params, inputs, targets = examples(10)
    np.save(tmp_path / "inputs.npy", inputs)
    np.save(tmp_path / "targets.npy", targets[:5])
    paths = tmp_path / "inputs.npy", tmp_path / "targets.npy"
    gradient = pixels.from_uint8(backprop.value_and_grad)
    for call in (
        lambda: train.accumulate(gradient, 4)(params, inputs, targets[:5]),
        lambda: stream.stream(gradient, params, [(inputs, targets[:5])]),
        lambda: stream.read(*paths, 3),
    ):
        with pytest.raises(ValueError, match="must have as many rows, got 10 and 5"):
            call()
    with pytest.raises(ValueError, match="rows must be 1 or more, got 0"):
        stream.read(*paths, 0)
    with pytest.raises(ValueError, match="parts must be one or more, got none"):
        stream.stream(gradient, params, [])


@pytest.mark.parametrize("chunk", [3, 100])
def test_many_small_shares_of_16_bit_gradients_are_not_lost(chunk):
    params, inputs, targets = examples(1_000)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    inputs, targets = pixels.as_float(inputs, jnp.bfloat16), targets.astype(jnp.bfloat16)
    exact = backprop.value_and_grad(params, inputs, targets)
    chunks = [(inputs[i : i + chunk], targets[i : i + chunk]) for i in range(0, 1_000, chunk)]
    for found in (
        train.accumulate(backprop.value_and_grad, chunk)(params, inputs, targets),
        stream.stream(backprop.value_and_grad, params, chunks),
    ):
        assert_same(found, exact, 0.01)


@pytest.mark.skipif(np.float32 != DTYPE, reason="bfloat16 stands beside float32")
@pytest.mark.parametrize("chunk", [50, 200])
def test_bfloat16_is_within_its_bound(chunk):
    params, inputs, targets = examples(200, (784, 64, 32, 10))
    gradient = functools.partial(backprop.value_and_grad, precision="bfloat16")
    found = jax.jit(train.accumulate(pixels.from_uint8(gradient), chunk))(params, inputs, targets)
    exact = whole(params, inputs, targets)
    assert_same(found, exact, 0.02)
    # And it does round: what it gives is not float32's.
    assert float(jnp.abs(found[1][0].weight - exact[1][0].weight).max()) > 1e-6


def test_products_are_in_the_precision_and_sums_in_float32():
    params, inputs, targets = examples(10)
    gradient = functools.partial(backprop.value_and_grad, precision="bfloat16")
    inputs = pixels.as_float(inputs, DTYPE)
    program = jax.make_jaxpr(gradient)(params, inputs, targets)
    products = [
        equation
        for equation in program.jaxpr.eqns[0].params["jaxpr"].jaxpr.eqns
        if equation.primitive.name == "dot_general"
    ]
    assert len(products) >= 4
    for equation in products:
        assert [v.aval.dtype for v in equation.invars] == [jnp.bfloat16] * 2
        assert equation.outvars[0].aval.dtype == jnp.float32


def test_products_are_exact_on_all_devices_unless_the_user_says_otherwise():
    params, inputs, targets = examples(10)
    inputs = pixels.as_float(inputs, DTYPE)

    def precisions(gradient):
        return re.findall(
            r"precision=(\S+)", str(jax.make_jaxpr(gradient)(params, inputs, targets))
        )

    for gradient in (backprop.value_and_grad, jax.grad(mlp.loss)):
        assert {"(Precision.HIGHEST,"} == set(precisions(gradient))
        with jax.default_matmul_precision("tensorfloat32"):
            found = precisions(gradient)
        assert found
        assert not any("HIGHEST" in each for each in found)


def test_precision_that_is_no_float_is_refused():
    params, inputs, targets = examples(10)
    inputs = pixels.as_float(inputs, DTYPE)
    for call in (
        lambda: backprop.value_and_grad(params, inputs, targets, precision="int8"),
        lambda: mlp.forward(params, inputs, precision="int8"),
    ):
        with pytest.raises(TypeError, match="precision must be a floating-point dtype, got int8"):
            call()
    for call in (backprop.value_and_grad, mlp.loss):
        with jax.enable_x64(True), pytest.raises(TypeError, match="no wider than the parameters'"):
            call(*jax.tree.map(jnp.float32, (params, inputs, targets)), precision="float64")


def test_gradients_can_be_exported_to_other_platforms():
    params, inputs, targets = examples(10)
    inputs = pixels.as_float(inputs, DTYPE)
    exported = jax.export.export(backprop.value_and_grad, platforms=["cpu", "cuda", "tpu"])
    found = exported(params, inputs, targets).call(params, inputs, targets)
    assert_same(found, backprop.value_and_grad(params, inputs, targets), 10 * EPSILON)


def test_gradient_in_bfloat16_can_be_vmapped():
    params, inputs, targets = examples(8)
    inputs = pixels.as_float(inputs, DTYPE)
    gradient = functools.partial(backprop.value_and_grad, precision="bfloat16")
    several = jax.vmap(gradient, (None, 0, 0))(params, inputs[:, None], targets[:, None])
    found = jax.tree.map(lambda leaf: leaf.mean(axis=0), several)
    assert_same(found, gradient(params, inputs, targets), 0.02)
