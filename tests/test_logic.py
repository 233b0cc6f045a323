import itertools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import backprop, logic, mlp

DTYPE = jnp.result_type(float)
PYTHON = {
    "and": operator.and_,
    "or": operator.or_,
    "nand": lambda a, b: 1 - (a & b),
    "xor": operator.xor,
}
BITS = np.array(list(itertools.product((0, 1), repeat=2)))


@pytest.fixture(scope="module")
def neuron():
    return logic.train(jax.random.key(0), "nand")


def share_that_learns(gate, keys, **options):
    """Returns for how many of the keys all four answers are right."""
    inputs, targets = logic.table(gate)

    def accuracy(key):
        return mlp.accuracy(logic.train(key, gate, **options), inputs, targets)

    return float(np.mean(jax.vmap(accuracy)(keys) == 1))


@pytest.mark.parametrize("gate", logic.GATES)
@pytest.mark.parametrize("dtype", [None, np.float32, np.float64])
def test_tables_are_pythons(gate, dtype):
    inputs, targets = logic.table(gate, dtype=dtype)
    assert inputs.dtype == targets.dtype == (dtype or DTYPE)
    assert targets.shape == (4, 1)
    np.testing.assert_array_equal(inputs, BITS)
    np.testing.assert_array_equal(targets[:, 0], PYTHON[gate](*BITS.T))


# --- Learning -------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", ["and", "or", "nand"])
def test_neuron_learns_what_a_line_separates_from_every_seed(gate):
    assert share_that_learns(gate, jax.random.split(jax.random.key(1), 100)) == 1


def test_nand_by_its_numbers(neuron):
    ((weight, bias),) = jax.tree.map(np.asarray, neuron)
    assert weight.dtype == bias.dtype == DTYPE
    # Two ones silence it, one does not: (w1, w2) + w0 < 0 < wi + w0.
    assert weight.sum() + bias[0] < 0 < weight.min() + bias[0]
    inputs, targets = logic.table("nand")
    assert mlp.loss(neuron, inputs, targets) < 0.002
    _, gradient = backprop.value_and_grad(neuron, inputs, targets)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient)) < 1e-3


def test_no_neuron_is_xor():
    keys = jax.random.split(jax.random.key(2), 50)
    assert share_that_learns("xor", keys, steps=5000) == 0
    # The best of all neurons answers 1/2 to everything.
    assert mlp.loss(logic.train(keys[0], "xor"), *logic.table("xor")) == pytest.approx(0.25)


def test_four_of_five_networks_learn_xor():
    # Binomial: 0.82 with a standard deviation of 0.019.
    keys = jax.random.split(jax.random.key(3), 400)
    assert 0.74 < share_that_learns("xor", keys, sizes=(2, 2, 1)) < 0.90


def test_of_ten_networks_one_learns_xor():
    keys = jax.random.split(jax.random.key(4), 40)
    assert share_that_learns("xor", keys, sizes=(2, 2, 1), starts=10) == 1


def test_training_is_a_function_of_the_key():
    first, same, other = (logic.train(jax.random.key(seed), "nand", steps=5) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first[0].weight, same[0].weight)
    assert (first[0].weight != other[0].weight).all()


# --- Gates from NANDs -----------------------------------------------------------------------------


@pytest.mark.parametrize("gate", ["and", "or", "xor"])
@pytest.mark.parametrize("dtype", [bool, int, DTYPE])
def test_gates_from_nands(neuron, gate, dtype):
    outputs = logic.from_nands(neuron, gate, BITS.astype(dtype))
    np.testing.assert_array_equal(outputs, PYTHON[gate](*BITS.T))
    assert jnp.issubdtype(outputs.dtype, jnp.integer)


def test_not(neuron):
    assert logic.from_nands(neuron, "not", np.array([[0], [1]])).tolist() == [1, 0]


@pytest.mark.parametrize("gate", ["and", "or"])
def test_wiring_of_neurons_that_are_no_nand_is_no_xor(gate):
    other = logic.train(jax.random.key(0), gate)
    assert logic.from_nands(other, "xor", BITS).tolist() != [0, 1, 1, 0]


def test_nands_add(neuron):
    """All pairs of four-bit numbers, in a ripple-carry adder of nothing but the neuron."""

    def gate(name, *wires):
        return logic.from_nands(neuron, name, np.stack(wires, axis=1))

    left, right = np.array(list(itertools.product(range(16), repeat=2))).T
    carry, total = np.zeros(256, int), np.zeros(256, int)
    for place in range(4):
        a, b = left >> place & 1, right >> place & 1
        half = gate("xor", a, b)
        total += np.asarray(gate("xor", half, carry)) << place
        carry = gate("or", gate("and", a, b), gate("and", half, carry))
    np.testing.assert_array_equal(total + (np.asarray(carry) << 4), left + right)


def test_gates_may_be_compiled(neuron):
    compiled = jax.jit(logic.from_nands, static_argnums=1)
    assert compiled(neuron, "xor", BITS).tolist() == [0, 1, 1, 0]


# --- Errors ---------------------------------------------------------------------------------------


def test_unknown_gates(neuron):
    known = "gate must be one of and, or, nand, xor, got 'nor'"
    with pytest.raises(ValueError, match=known):
        logic.table("nor")
    with pytest.raises(ValueError, match=known):
        logic.train(jax.random.key(0), "nor")
    with pytest.raises(ValueError, match="gate must be one of not, and, or, xor, got 'nand'"):
        logic.from_nands(neuron, "nand", BITS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"starts": 0}, "starts must be 1 or more, got 0"),
        ({"steps": 0}, "steps must be 1 or more, got 0"),
        ({"sizes": (3, 1)}, r"inputs must have shape \(batch, 3\), got \(4, 2\)"),
        ({"sizes": (2, 2)}, r"targets must have shape \(4, 2\), got \(4, 1\)"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        logic.train(jax.random.key(0), "nand", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"starts": True}, "starts must be an integer, got True"),
        ({"starts": 2.0}, "starts must be an integer, got 2.0"),
        ({"steps": True}, "steps must be an integer, got True"),
        ({"dtype": int}, "dtype must be a floating-point dtype, got int"),
    ],
)
def test_options_of_a_wrong_kind(options, message):
    with pytest.raises(TypeError, match=message):
        logic.train(jax.random.key(0), "nand", **options)


def test_wires_that_do_not_fit(neuron):
    with pytest.raises(ValueError, match=r"inputs must have shape \(batch, 1\), got \(4, 2\)"):
        logic.from_nands(neuron, "not", BITS)
    with pytest.raises(ValueError, match=r"inputs must have shape \(batch, 2\), got \(2,\)"):
        logic.from_nands(neuron, "and", BITS[0])
    two = mlp.init(jax.random.key(0), (2, 2))
    with pytest.raises(ValueError, match="neuron must have one output, got 2"):
        logic.from_nands(two, "and", BITS)
