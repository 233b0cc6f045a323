import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import mlp, optimizers, record
from jaxnet.lecture import ladder, rungs

from ..conftest import ROOT

BY_NAME = {rung.name: rung for rung in ladder.RUNGS}
GUESSING, COORDINATES, FORWARD, CENTRAL, BY_HAND, JAX_GRAD, MOMENTUM, ADAM, LBFGS = BY_NAME


@pytest.fixture(scope="session")
def recorded():
    """What the committed page says: by problem and rung, losses to the goal."""
    problems = record.read_json(ROOT / "results" / "lecture" / "ladder.json")["problems"]
    return {
        name: {rung: each["losses to the goal"] for rung, each in problem["rungs"].items()}
        for name, problem in problems.items()
    }


@pytest.fixture(scope="session")
def three():
    return ladder.is_it_a_three()


@pytest.fixture(scope="session")
def network():
    return ladder.small_network()


def climb(name, problem, steps):
    """Runs a rung for fewer steps than the page does; they are the page's first ones."""
    return ladder.climb(BY_NAME[name]._replace(steps=lambda problem: steps), problem)


def test_walk_is_the_slides():
    walk = rungs.slides_walk()
    assert walk["y"] == {
        "start": pytest.approx(0.7),
        "w0 = -0.7": pytest.approx(1),
        "w1 = 0.6": pytest.approx(1),
    }
    assert walk["one step of coordinate descent"] == {
        "w0": pytest.approx(-0.7),
        "w1": pytest.approx(0.6),
        "w2": pytest.approx(0.25),
    }


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_guesses_are_those_of_the_volume(dimension):
    radius = 0.2  # so that the cube holds the whole ball
    needed = ladder.guesses_needed(
        lambda w: jnp.sum((w - 0.3) ** 2),
        dimension,
        radius**2,
        key=jax.random.key(2),
        draws=2**20,
    )
    volume = {1: 2 * radius, 2: np.pi * radius**2, 3: 4 / 3 * np.pi * radius**3}[dimension]
    assert needed == pytest.approx(2**dimension / volume, rel=0.05)


def test_goal_that_is_hardly_ever_reached_has_no_number():
    key = jax.random.key(2)
    loss = ladder.distance(key, 8)
    assert np.isnan(ladder.guesses_needed(loss, 8, 1e-4, key=key, draws=2**17))


def test_number_of_draws_need_not_fill_blocks():
    def loss(w):  # below the goal for a fifth of [-1, 1)
        return jnp.abs(w[0])

    for draws in (60_000, 100_000):
        needed = ladder.guesses_needed(loss, 1, 0.2, key=jax.random.key(0), draws=draws)
        assert needed == pytest.approx(5, rel=0.05)


def test_dimension_zero_is_refused():
    with pytest.raises(ValueError, match="dimension must be 1 or more, got 0"):
        ladder.guesses_needed(jnp.sum, 0, 0.25, key=jax.random.key(0))


def test_record_is_as_the_page_says_of_one_neuron(recorded):
    needed = recorded["is it a 3?"]
    assert needed[GUESSING] is None  # "guessing gets nowhere in 65 dimensions"
    assert needed[CENTRAL] / needed[BY_HAND] == pytest.approx((2 * 65 + 1) / 3)
    assert needed[FORWARD] / needed[BY_HAND] == pytest.approx((65 + 1) / 3)
    assert needed[COORDINATES] < needed[FORWARD]
    assert needed[BY_HAND] == needed[JAX_GRAD]
    assert max(needed[name] for name in (MOMENTUM, ADAM, LBFGS)) < needed[BY_HAND]


def test_record_is_as_the_page_says_of_the_network(recorded):
    needed = recorded["64-16-10"]
    assert needed[GUESSING] is None
    assert needed[FORWARD] is None  # stopped early
    assert needed[CENTRAL] is None
    assert needed[MOMENTUM] is None  # outputs saturate
    assert needed[JAX_GRAD] == pytest.approx(needed[BY_HAND], rel=0.1)
    assert max(needed[ADAM], needed[LBFGS]) < needed[BY_HAND] < needed[COORDINATES]


@pytest.mark.parametrize("name", [COORDINATES, FORWARD, CENTRAL, BY_HAND, JAX_GRAD, MOMENTUM, ADAM])
def test_one_neuron_reaches_its_goal_where_the_record_says(name, three, recorded, optax_dtypes):
    assert ladder.dimension(three) == 65
    expected = recorded[three.name][name]
    found = climb(name, three, 250 if name == COORDINATES else 50)
    assert found.needed == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("name", [BY_HAND, JAX_GRAD, ADAM])
def test_the_network_reaches_its_goal_where_the_record_says(name, network, recorded, optax_dtypes):
    expected = recorded[network.name][name]
    assert climb(name, network, 1100).needed == pytest.approx(expected, rel=0.1)


def test_search_along_a_line_counts_for_the_loss_after_it(network, recorded):
    found = climb(LBFGS, network, 120)
    assert found.losses[0] == 3  # a gradient; the search comes after
    assert (np.diff(found.losses) >= 3).all()
    assert found.needed == pytest.approx(recorded[network.name][LBFGS], rel=0.1)


def test_on_the_network_coordinates_take_longer_and_momentum_saturates(network, recorded):
    by_hand = recorded[network.name][BY_HAND]
    found = climb(COORDINATES, network, by_hand // 3)
    assert found.losses[-1] > by_hand
    assert found.needed is None
    found = climb(MOMENTUM, network, by_hand // 3)
    assert found.losses[-1] == by_hand
    assert found.needed is None


@pytest.mark.slow
def test_the_record_is_what_the_whole_ladder_finds(recorded, optax_dtypes):
    for problem in (ladder.two_points(), ladder.is_it_a_three(), ladder.small_network()):
        for rung in ladder.RUNGS:
            expected = recorded[problem.name][rung.name]
            found = ladder.climb(rung, problem).needed
            assert found == (expected and pytest.approx(expected, rel=0.1)), rung.name


@pytest.mark.parametrize(("name", "tolerance"), [(FORWARD, 1e-2), (CENTRAL, 1e-3)])
def test_descent_by_differences_takes_the_steps_of_the_gradient_by_hand(name, tolerance, network):
    inputs, targets = network.data
    few = network._replace(data=(inputs[:100], targets[:100]))
    by_hand, numerical = climb(BY_HAND, few, 12), climb(name, few, 12)
    np.testing.assert_allclose(numerical.values, by_hand.values, rtol=tolerance)
    cost = {FORWARD: 1211, CENTRAL: 2421}[name]
    assert numerical.losses.tolist() == [cost * step for step in range(1, 13)]


def test_losses_of_descent_that_was_stopped_early_are_those_of_the_same_steps(network):
    def stopped(values, needed):
        return ladder.Climb(np.arange(1, 4) * 2421, values, 0.0, needed, None)

    climbs = {
        CENTRAL: stopped(np.ones(3), None),
        BY_HAND: stopped(np.ones(3), 300),
        MOMENTUM: stopped(np.ones(3), None),
    }
    texts = [rungs.losses_to_goal(BY_NAME[name], network, climbs) for name in climbs]
    assert texts == ["about 242,100", "300", "not in 7,263"]


def test_the_loss_of_guesses_is_that_of_the_slides_neuron():
    w = jnp.array([-1.0, 0.5, 0.1])
    linear, sigmoid = ladder.neuron_loss(jnp.positive), ladder.neuron_loss(jax.nn.sigmoid)
    assert float(linear(w)) == pytest.approx(((0.7 - 1) ** 2 + (-2.3) ** 2) / 2)
    problem = ladder.two_points()
    assert float(sigmoid(w)) == pytest.approx(float(mlp.loss(problem.params, *problem.data)))


def test_a_step_of_many_guesses_counts_them_all():
    rung = BY_NAME[GUESSING]._replace(make=lambda problem: optimizers.random_search(guesses=1000))
    found = ladder.climb(rung._replace(steps=lambda problem: 3), ladder.two_points())
    assert found.losses.tolist() == [1000, 2000, 3000]
    assert (np.diff(found.values) <= 0).all()


def test_curves_are_thinned_from_the_first_to_the_last():
    assert rungs.thin(np.arange(5)) == [0, 1, 2, 3, 4]
    thinned = rungs.thin(np.arange(20_000))
    assert len(thinned) <= 200
    assert (thinned[0], thinned[-1]) == (0, 19_999)
