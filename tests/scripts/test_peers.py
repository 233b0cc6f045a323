"""What the peers compute is what jaxnet computes; how fast is not asked here."""

import importlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import peers
import pytest
from peers import Program, Work

from jaxnet import backprop, mlp

# torch.compile imports what PyTorch itself would have replaced.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.long,
]

RATE = 0.5
ALL = list(peers.MODULES)
# One of each library's variants: which optimizer there is does not depend on the variant.
ADAM = ["jaxnet", "numpy", "torch", "sklearn", "jax", "jax-scan", "flax", "equinox", "keras"]
SCHEDULED = [name for name in ADAM if name != "sklearn"]


@pytest.fixture(autouse=True)
def _manners_of_libraries(monkeypatch):
    """Lets them mix dtypes and ranks, as all but jaxnet do; jaxnet keeps no compiled programs."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def images(digits) -> np.ndarray:
    """The training images of the digits, ``(n, 64)`` uint8."""
    return np.rint(np.asarray(digits.train.inputs) * 16 * 15).astype(np.uint8)


@pytest.fixture
def work(digits, images):
    """Makes work on the digits; full-batch gradient descent unless told otherwise."""

    def make_work(*, bias: bool = True, **options) -> Work:
        params = mlp.init(jax.random.key(0), (64, 32, 16, 10), bias=bias, dtype=jnp.float32)
        arrays = [(np.array(w), None if b is None else np.array(b) + 0.1) for w, b in params]
        given = {"batch_size": len(images), "optimizer": "sgd", "learning_rate": RATE}
        return Work(images, digits.train.labels, arrays, **{**given, **options})

    return make_work


def make(name: str, work: Work) -> Program:
    """Makes a peer's program, if what it needs is installed."""
    module, package = peers.MODULES[name]
    if not peers.is_installed(name):
        pytest.skip(f"{package} is not installed")
    if name == "torch-compile" and not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("torch.compile needs a C++ compiler")
    module = importlib.import_module(f"peers.{module}")
    if name.endswith("chunked"):
        module.CHUNK = 500  # so that the digits are three chunks, the last of them smaller
    assert module.VARIANTS[name].endswith(".")
    return module.make(name, work)


def expected(work: Work) -> tuple[float, float]:
    """Returns jaxnet's loss before and after a step of gradient descent on all images."""
    params = tuple(
        mlp.Layer(jnp.asarray(w), None if b is None else jnp.asarray(b)) for w, b in work.params
    )
    inputs = jnp.asarray(work.images.astype(np.float32) / 255)
    targets = jnp.eye(work.sizes[-1], dtype=jnp.float32)[work.labels]
    first, gradient = backprop.value_and_grad(params, inputs, targets)
    assert first == pytest.approx(float(mlp.loss(params, inputs, targets)), rel=1e-6)
    params = jax.tree.map(lambda p, g: p - work.learning_rate * g, params, gradient)
    return float(first), float(mlp.loss(params, inputs, targets))


@pytest.mark.parametrize("bias", [True, False], ids=["biases", "no biases"])
@pytest.mark.parametrize("name", ALL)
def test_a_step_on_all_images_is_jaxnets(name, bias, work):
    asked = work(bias=bias)
    epoch = make(name, asked).epoch
    before, after = epoch(), epoch()
    assert isinstance(before, float)
    if name == "sklearn":  # its loss is another
        assert after < before
        return
    tolerance = 2e-2 if "bfloat16" in name else 1e-4
    assert (before, after) == pytest.approx(expected(asked), rel=tolerance)
    fall = expected(asked)[0] - expected(asked)[1]
    assert before - after == pytest.approx(fall, rel=5e-2 if "bfloat16" in name else 1e-3)


@pytest.mark.parametrize("name", ALL)
def test_an_epoch_of_minibatches_lowers_the_loss(name, work, images):
    program = make(name, work(batch_size=100, learning_rate=1.0))
    losses = [program.epoch() for _ in range(3)]
    assert losses[2] < losses[1] < losses[0]
    found = program.predict(images[:50])
    assert found.shape == (50,)
    assert np.issubdtype(found.dtype, np.integer)
    assert set(found) <= set(range(10))


@pytest.mark.parametrize("name", ADAM)
def test_adams_steps_are_the_same_in_all(name, work):
    asked = work(optimizer="adam", learning_rate=0.01, beta2=0.5)
    epoch = make(name, asked).epoch
    found = [epoch() for _ in range(5)]
    if name == "sklearn":
        assert found[-1] < found[0]
        return
    epoch = make("numpy-float64", asked).epoch
    assert found == pytest.approx([epoch() for _ in range(5)], rel=5e-4)
    other = make("numpy-float64", asked._replace(beta2=0.999)).epoch
    assert found != pytest.approx([other() for _ in range(5)], rel=2e-3)


@pytest.mark.parametrize("name", SCHEDULED)
def test_the_learning_rate_falls_along_a_cosine(name, work):
    """In two epochs of a step: all of it, half of it, then nothing that would change the loss."""
    asked = work(epochs=2)
    epoch = make(name, asked).epoch
    before, second, third, fourth = (epoch() for _ in range(4))
    assert (before, second) == pytest.approx(expected(asked), rel=1e-4)
    assert third < second
    assert fourth == pytest.approx(third, rel=1e-6)


@pytest.mark.parametrize("name", SCHEDULED)
def test_the_learning_rate_rises_before_it_falls(name, work):
    asked = work(epochs=4, warmup=0.5)
    assert [asked.rate(step) / RATE for step in range(4)] == pytest.approx([0, 0.5, 1, 0.5])
    epoch = make(name, asked).epoch
    params = tuple(mlp.Layer(*map(jnp.asarray, layer)) for layer in asked.params)
    inputs = jnp.asarray(asked.images, jnp.float32) / 255
    targets = jax.nn.one_hot(asked.labels, 10, dtype=jnp.float32)
    for step in range(4):
        loss, slopes = backprop.value_and_grad(params, inputs, targets)
        assert epoch() == pytest.approx(float(loss), rel=1e-4)
        rate = asked.rate(step)
        params = jax.tree.map(lambda leaf, slope, rate=rate: leaf - rate * slope, params, slopes)


@pytest.mark.parametrize("name", ["nielsen", "sklearn"])
def test_what_a_library_has_not_is_refused(name, work):
    with pytest.raises(ValueError, match=name):
        make(name, work(epochs=2))
    if name == "nielsen":
        with pytest.raises(ValueError, match=name):
            make(name, work(optimizer="adam"))
