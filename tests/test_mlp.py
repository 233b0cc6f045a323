import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import mlp
from jaxnet.mlp import Layer

SIZES = (7, 5, 4, 3)
DTYPE = jnp.result_type(float)


@pytest.fixture
def params():
    return mlp.init(jax.random.key(0), SIZES)


@pytest.fixture
def batch():
    inputs = jax.random.uniform(jax.random.key(1), (6, 7), DTYPE)
    return inputs, jax.nn.one_hot(jnp.arange(6) % 3, 3, dtype=DTYPE)


def numpy_forward(params, inputs):
    """The slide's program, in float64: columns, W.dot(X), and 1/(1 + e^-s)."""
    activation = np.asarray(inputs, np.float64).T
    for weight, bias in params:
        logits = np.asarray(weight, np.float64).T.dot(activation)
        if bias is not None:
            logits = logits + np.asarray(bias, np.float64)[:, None]
        activation = 1 / (1 + np.e**-logits)
    return activation.T


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("scheme", mlp.SCHEMES)
def test_forward_and_loss_are_the_slides(scheme, bias, batch):
    params = mlp.init(jax.random.key(0), SIZES, scheme=scheme, bias=bias)
    inputs, targets = batch
    expected = numpy_forward(params, inputs)
    rtol = 50 * float(jnp.finfo(DTYPE).eps)
    np.testing.assert_allclose(mlp.forward(params, inputs), expected, rtol=rtol)
    squares = np.sum((expected.T - np.asarray(targets).T) ** 2)
    np.testing.assert_allclose(mlp.loss(params, inputs, targets), squares / 6, rtol=rtol)


def test_activations_begin_with_the_inputs_and_end_with_the_outputs(params, batch):
    inputs, _ = batch
    layers = mlp.activations(params, inputs)
    assert [layer.shape for layer in layers] == [(6, 7), (6, 5), (6, 4), (6, 3)]
    np.testing.assert_array_equal(layers[0], inputs)
    np.testing.assert_allclose(layers[-1], mlp.forward(params, inputs), rtol=1e-6)


def test_glorot_is_uniform_with_the_sigmoids_variance():
    (layer,) = mlp.init(jax.random.key(0), (400, 300))
    limit = 4 * np.sqrt(6 / 700)
    weight = np.asarray(layer.weight)
    assert weight.min() < -0.999 * limit
    assert 0.999 * limit < weight.max()
    assert np.abs(weight).max() <= limit * (1 + 1e-6)
    # A uniform distribution's variance; its estimate from n draws is off by sqrt(0.8 / n).
    assert weight.var() == pytest.approx(limit**2 / 3, rel=5 * np.sqrt(0.8 / weight.size))
    assert not np.asarray(layer.bias).any()


def test_lecture_is_uniform_from_minus_one_to_one_biases_too():
    (layer,) = mlp.init(jax.random.key(0), (400, 300), scheme="lecture")
    for leaf in layer:
        leaf = np.asarray(leaf)
        assert -1 <= leaf.min() < -0.95
        assert 0.95 < leaf.max() < 1
        assert leaf.var() == pytest.approx(1 / 3, rel=5 * np.sqrt(0.8 / leaf.size))


def test_init_draws_layers_independently_and_the_same_each_time():
    first = mlp.init(jax.random.key(0), (5, 5, 5), scheme="lecture")
    again = mlp.init(jax.random.key(0), (5, 5, 5), scheme="lecture")
    jax.tree.map(np.testing.assert_array_equal, first, again)
    leaves = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(first)])
    assert len(np.unique(leaves)) == len(leaves)


def test_init_weights_do_not_depend_on_whether_there_are_biases():
    with_biases = mlp.init(jax.random.key(0), SIZES)
    without = mlp.init(jax.random.key(0), SIZES, bias=False)
    for ours, theirs in zip(with_biases, without, strict=True):
        np.testing.assert_array_equal(ours.weight, theirs.weight)
        assert theirs.bias is None


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_init_draws_the_dtype_asked_for(dtype):
    params = mlp.init(jax.random.key(0), SIZES, dtype=dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
    inputs = jnp.ones((2, 7), dtype)
    assert mlp.loss(params, inputs, jnp.zeros((2, 3), dtype)).dtype == jnp.float32


def test_predict_and_accuracy(batch):
    inputs, targets = batch
    params = mlp.init(jax.random.key(0), SIZES)
    predicted = mlp.predict(params, inputs)
    np.testing.assert_array_equal(predicted, numpy_forward(params, inputs).argmax(axis=1))
    share = np.mean(np.asarray(predicted) == np.asarray(targets).argmax(axis=1))
    assert float(mlp.accuracy(params, inputs, targets)) == pytest.approx(share)


def test_one_output_answers_yes_above_one_half():
    params = (Layer(jnp.array([[1.0]], DTYPE), jnp.array([0.0], DTYPE)),)
    inputs = jnp.array([[-2.0], [3.0]], DTYPE)
    np.testing.assert_array_equal(mlp.predict(params, inputs), [0, 1])
    assert mlp.accuracy(params, inputs, jnp.array([[0.0], [1.0]], DTYPE)) == 1
    assert mlp.accuracy(params, inputs, jnp.array([[1.0], [1.0]], DTYPE)) == 0.5


def test_functions_vectorise_over_networks(batch):
    inputs, targets = batch
    keys = jax.random.split(jax.random.key(0), 3)
    networks = jax.vmap(lambda key: mlp.init(key, SIZES))(keys)
    losses = jax.vmap(mlp.loss, in_axes=(0, None, None))(networks, inputs, targets)
    expected = [mlp.loss(mlp.init(key, SIZES), inputs, targets) for key in keys]
    np.testing.assert_allclose(losses, jnp.stack(expected), rtol=1e-6)


def test_sizes(params):
    assert mlp.sizes(params) == SIZES


@pytest.mark.parametrize(
    ("sizes", "keywords", "error", "message"),
    [
        ((7,), {}, ValueError, "two or more positive integers, got \\(7,\\)"),
        ((7, 0), {}, ValueError, "two or more positive integers"),
        ((7, -3), {}, ValueError, "two or more positive integers"),
        ((7, 2.5), {}, ValueError, "two or more positive integers"),
        ((7, "3"), {}, ValueError, "two or more positive integers"),
        ((7, True), {}, ValueError, "two or more positive integers"),
        ((7, 3), {"scheme": "he"}, ValueError, "one of glorot, lecture, got 'he'"),
        ((7, 3), {"dtype": int}, TypeError, "floating-point, got int"),
    ],
)
def test_init_says_what_it_expected(sizes, keywords, error, message):
    with pytest.raises(error, match=message):
        mlp.init(jax.random.key(0), sizes, **keywords)


@pytest.mark.skipif(jnp.float64 == DTYPE, reason="float64 is on")
def test_float64_is_never_narrowed_in_silence():
    with pytest.raises(ValueError, match="float64 needs jax_enable_x64"):
        mlp.init(jax.random.key(0), SIZES, dtype=jnp.float64)


BAD_CALLS = {
    "targets of shape (n,)": (
        lambda p, x, t: (p, x, t[:, 0]),
        ValueError,
        r"targets must have shape \(6, 3\), got \(6,\)",
    ),
    "targets of shape (n, 1)": (
        lambda p, x, t: (p, x, t[:, :1]),
        ValueError,
        r"targets must have shape \(6, 3\), got \(6, 1\)",
    ),
    "targets of another batch": (
        lambda p, x, t: (p, x, t[:1]),
        ValueError,
        r"targets must have shape \(6, 3\), got \(1, 3\)",
    ),
    "one image": (
        lambda p, x, t: (p, x[0], t),
        ValueError,
        r"inputs must have shape \(batch, 7\), got \(7,\)",
    ),
    "images of another size": (
        lambda p, x, t: (p, x[:, :5], t),
        ValueError,
        r"inputs must have shape \(batch, 7\), got \(6, 5\)",
    ),
    "an empty batch": (lambda p, x, t: (p, x[:0], t[:0]), ValueError, "at least one row"),
    "bytes": (
        lambda p, x, t: (p, x.astype(jnp.uint8), t),
        TypeError,
        r"inputs must have the dtype of params\[0\]\.weight, float\d\d, got uint8",
    ),
    "another precision": (
        lambda p, x, t: (p, x, t.astype(jnp.bfloat16)),
        TypeError,
        r"targets must have the dtype of params\[0\]\.weight, float\d\d, got bfloat16",
    ),
    "lists": (lambda p, x, t: (p, [[1.0] * 7], t), TypeError, "inputs must be an array, got list"),
    "no layers": (lambda p, x, t: ((), x, t), TypeError, "non-empty tuple of Layer"),
    "bare arrays": (
        lambda p, x, t: ((p[0].weight,), x, t),
        TypeError,
        r"params\[0\] must be a Layer",
    ),
    "layers that do not fit": (
        lambda p, x, t: ((p[0], p[2]), x, t),
        ValueError,
        r"params\[1\]\.weight must have shape \(5, outputs\), got \(4, 3\)",
    ),
    "a bias that would broadcast": (
        lambda p, x, t: ((p[0]._replace(bias=jnp.zeros(1, DTYPE)), *p[1:]), x, t),
        ValueError,
        r"params\[0\]\.bias must have shape \(5,\), got \(1,\)",
    ),
    "integer weights": (
        lambda p, x, t: (jax.tree.map(lambda leaf: leaf.astype(int), p), x, t),
        TypeError,
        r"params\[0\]\.weight must be floating-point, got int",
    ),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls_say_what_was_expected_and_what_came(case, params, batch):
    change, error, message = BAD_CALLS[case]
    with pytest.raises(error, match=message):
        mlp.loss(*change(params, *batch))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_sixteen_bits_round_the_factors_and_nothing_else(dtype):
    """A saturated output keeps the digits of its distance from 1."""
    params = (Layer(jnp.array([[4.0]], dtype), jnp.array([2.0], dtype)),)
    inputs, targets = jnp.ones((3, 1), dtype), jnp.ones((3, 1), dtype)
    distance = 1 - float(mlp.forward(params, inputs)[0, 0])
    assert distance == pytest.approx(1 / (1 + np.exp(6.0)), rel=1e-4)
    assert float(mlp.loss(params, inputs, targets)) == pytest.approx(distance**2, rel=1e-3)


def test_float16_holds_the_loss_of_many_images():
    params = mlp.init(jax.random.key(0), (3, 10), dtype=jnp.float16)
    loss = mlp.loss(
        params, jnp.ones((60_000, 3), jnp.float16), jnp.zeros((60_000, 10), jnp.float16)
    )
    few = mlp.loss(params, jnp.ones((10, 3), jnp.float16), jnp.zeros((10, 10), jnp.float16))
    assert float(loss) == pytest.approx(float(few), rel=1e-2)
