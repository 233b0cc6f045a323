import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnet import backprop, data, gradcheck, mlp, train
from jaxnet.gradcheck.differences import make_estimator

# float64 here whatever the configuration: the figures are about the formulas, not about float32.
HIDDEN = {1: (), 2: (12,), 3: (12, 9), 4: (12, 9, 7), 5: (12, 9, 7, 6)}


# What finite_difference_at runs; one for all tests, so that networks of a shape compile it once.
ESTIMATE = make_estimator(mlp.loss, 0, "central")


def relative_errors(ours, theirs):
    def error(a, b):
        return float(np.linalg.norm(np.ravel(a - b)) / np.linalg.norm(np.ravel(b)))

    return jax.tree.leaves(jax.tree.map(error, ours, theirs))


@functools.cache
def network(depth, bias, scheme, trained):
    """Returns the parameters of a float64 network, and data; called under `jax.enable_x64`."""
    params = mlp.init(jax.random.key(depth), (64, *HIDDEN[depth], 10), scheme=scheme, bias=bias)
    examples = data.load("digits", dtype=np.float64).train
    if trained:
        with jax.numpy_dtype_promotion("standard"):
            run = train.fit(
                params,
                examples,
                key=jax.random.key(1),
                optimizer=optax.adam(0.01),
                batch_size=32,
                epochs=10,
            )
        params = run.params
    return params, examples


def problem(depth, batch, *, bias=True, scheme="glorot", trained=False):
    params, examples = network(depth, bias, scheme, trained)
    return params, jnp.asarray(examples.inputs[:batch]), jnp.asarray(examples.targets[:batch])


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("depth", [1, 2, 3, pytest.param(4, marks=pytest.mark.long), 5])
def test_three_gradients_agree(depth, bias):
    batch = 1 if depth % 2 == bias else 100
    for trained in (False, True):
        with jax.enable_x64(True):
            args = problem(depth, batch, bias=bias, trained=trained)
            value, gradient = backprop.value_and_grad(*args)
            expected, automatic = jax.value_and_grad(mlp.loss)(*args)
            assert float(value) == pytest.approx(float(expected), rel=1e-14)
            assert max(relative_errors(gradient, automatic)) < 1e-12

            coordinates = gradcheck.sample_coordinates(jax.random.key(2), args[0], 50)
            differences = ESTIMATE(coordinates, args, None)
            sampled = jax.tree.map(lambda leaf, at: leaf.ravel()[at], gradient, coordinates)
            assert max(relative_errors(sampled, differences)) < 1e-7


@pytest.mark.parametrize("scheme", mlp.SCHEMES)
def test_every_coordinate_agrees_with_differences(scheme):
    with jax.enable_x64(True):
        args = problem(3, 20, scheme=scheme)
        _, gradient = backprop.value_and_grad(*args)
        differences = gradcheck.finite_difference(mlp.loss, *args)
        assert max(relative_errors(gradient, differences)) < 1e-7


def test_gradient_is_the_slides():
    """The slides' own lines in NumPy, columns and all, times the 2 / n that they leave out."""
    with jax.enable_x64(True):
        params, inputs, targets = problem(3, 50, bias=False)
        _, gradient = backprop.value_and_grad(params, inputs, targets)
    X, T = np.asarray(inputs).T, np.asarray(targets).T
    W1, W2, W3 = (np.asarray(layer.weight).T for layer in params)

    def sigmoid(x):
        return 1.0 / (1.0 + np.e ** (-x))

    L1 = sigmoid(W1.dot(X))
    L2 = sigmoid(W2.dot(L1))
    L3 = sigmoid(W3.dot(L2))
    dW3 = (L3 - T) * L3 * (1 - L3)
    dW2 = W3.T.dot(dW3) * (L2 * (1 - L2))
    dW1 = W2.T.dot(dW2) * (L1 * (1 - L1))
    updates = [np.dot(dW1, X.T), np.dot(dW2, L1.T), np.dot(dW3, L2.T)]
    for layer, update in zip(gradient, updates, strict=True):
        np.testing.assert_allclose(layer.weight, 2 / 50 * update.T, rtol=1e-12, atol=1e-17)


def test_loss_runs_the_hand_written_pass():
    with jax.enable_x64(True):
        params, inputs, targets = problem(3, 20)
        value, gradient = backprop.value_and_grad(params, inputs, targets)
        for transform in (lambda f: f, jax.jit):
            again, through = transform(jax.value_and_grad(backprop.loss))(params, inputs, targets)
            assert float(again) == pytest.approx(float(value), rel=1e-14)
            assert max(relative_errors(through, gradient)) < 1e-14


def test_jax_differentiates_the_loss_by_the_hand_written_pass(monkeypatch):
    """It is what builds the gradient, layer by layer, when jax.grad is asked for one."""
    built = []

    class Spy(mlp.Layer):
        def __new__(cls, *args):
            built.append(args)
            return mlp.Layer(*args)

    with jax.enable_x64(True):
        args = problem(3, 20)
        monkeypatch.setattr(backprop, "Layer", Spy)
        jax.grad(lambda *args: backprop._loss(*args, None))(*args)
    assert len(built) == 3


def test_loss_differentiates_in_inputs_and_targets_too():
    with jax.enable_x64(True):
        args = problem(3, 20)
        ours = jax.grad(backprop.loss, argnums=(0, 1, 2))(*args)
        theirs = jax.grad(mlp.loss, argnums=(0, 1, 2))(*args)
        assert max(relative_errors(ours, theirs)) < 1e-12


def test_loss_passes_the_cotangent_on():
    with jax.enable_x64(True):
        args = problem(2, 20)
        ours = jax.grad(lambda p: jnp.exp(3 * backprop.loss(p, *args[1:])))(args[0])
        theirs = jax.grad(lambda p: jnp.exp(3 * mlp.loss(p, *args[1:])))(args[0])
        assert max(relative_errors(ours, theirs)) < 1e-12


@pytest.mark.parametrize(("dtype", "error"), [(jnp.bfloat16, 6e-3), (jnp.float16, 1e-3)])
@pytest.mark.parametrize(
    "value_and_grad", [backprop.value_and_grad, jax.value_and_grad(mlp.loss)], ids=["hand", "auto"]
)
def test_sixteen_bits_are_as_good_as_their_digits(dtype, error, value_and_grad):
    """Of a trained network, whose outputs are so close to their targets that digits may be lost."""
    with jax.enable_x64(True):
        args = problem(2, 100, trained=True)
        args = jax.tree.map(lambda leaf: leaf.astype(dtype), args)
        value, ours = value_and_grad(*args)
        assert {leaf.dtype for leaf in jax.tree.leaves(ours)} == {jnp.dtype(dtype)}
        args, ours = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (args, ours))
        right_value, right = jax.value_and_grad(mlp.loss)(*args)
        assert float(value) == pytest.approx(float(right_value), rel=error)
        assert max(relative_errors(ours, right)) < error


def test_loss_differentiates_twice():
    with jax.enable_x64(True):
        params, inputs, targets = problem(3, 5)
        direction = jax.tree.map(
            lambda leaf: jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype)), params
        )
        direction = jax.tree.map(lambda d, leaf: d.reshape(leaf.shape), direction, params)

        def product(loss):
            gradient = jax.grad(loss)
            return jax.jvp(lambda p: gradient(p, inputs, targets), (params,), (direction,))[1]

        assert max(relative_errors(product(backprop.loss), product(mlp.loss))) < 1e-11


def test_loss_vectorises():
    """Per-example gradients under vmap average to the batch's."""
    with jax.enable_x64(True):
        params, inputs, targets = problem(3, 20)
        each = jax.vmap(jax.grad(backprop.loss), in_axes=(None, 0, 0))(
            params, inputs[:, None, :], targets[:, None, :]
        )
        mean = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), each)
        _, gradient = backprop.value_and_grad(params, inputs, targets)
        assert max(relative_errors(mean, gradient)) < 1e-12


@pytest.mark.usefixtures("optax_dtypes")
def test_loss_trains_with_optax(digits):
    inputs, targets = digits.train
    params = mlp.init(jax.random.key(0), (64, 16, 10))
    optimizer = optax.adam(0.01)

    @jax.jit
    def step(params, state):
        value, gradient = jax.value_and_grad(backprop.loss)(params, inputs, targets)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, value

    state = optimizer.init(params)
    values = []
    for _ in range(30):
        params, state, value = step(params, state)
        values.append(float(value))
    assert values[-1] < 0.5 * values[0]
    assert all(later < earlier for earlier, later in itertools.pairwise(values))


@pytest.mark.parametrize("function", [backprop.value_and_grad, backprop.loss])
def test_bad_calls_say_what_was_expected_and_what_came(digits, function):
    params = mlp.init(jax.random.key(0), (64, 16, 10))
    inputs, targets = digits.train
    with pytest.raises(ValueError, match=r"targets must have shape \(\d+, 10\), got \(3, 10\)"):
        function(params, inputs, targets[:3])
    with pytest.raises(ValueError, match=r"inputs must have shape \(batch, 64\)"):
        function(params, inputs[:, 1:], targets)
    with pytest.raises(TypeError, match="targets must have the dtype"):
        function(params, inputs, targets.astype(np.float16))


def test_forward_mode_is_refused_not_wrong(digits):
    inputs, targets = digits.train
    params = mlp.init(jax.random.key(0), (64, 10))
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda p: backprop.loss(p, inputs, targets), (params,), (params,))
