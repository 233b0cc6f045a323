import numpy as np
import pytest

from jaxnet import data
from jaxnet.lecture import page, program


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", validation_split=0)


@pytest.fixture(scope="module")
def found(digits):
    return program.section(digits, steps=120)


def test_program_learns(found):
    assert list(found.numbers["loss"]) == ["0", "100", "120"]
    assert found.numbers["loss"]["120"] < found.numbers["loss"]["0"] / 3
    assert found.numbers["test accuracy"]["120"] > found.numbers["test accuracy"]["0"]


def test_page_names_shapes_and_shows_the_loop_of_the_backward_pass(found):
    text = page.render("", "", [found])
    assert "<td>(1,438, 256)</td>" in text
    assert "<td>256 x 60,000</td>" in text
    assert '<p class="file">jaxnet/backprop.py</p>' in text
    assert "def _backward(" in text
    assert "delta = error * above * (1 - above)" in text


def test_last_loss_is_of_the_last_parameters(digits, found):
    done = []
    run = program.run(digits, steps=100, say=done.append)
    assert done == [100]
    assert len(run.losses) == 101
    assert run.losses[100] == pytest.approx(found.numbers["loss"]["100"], rel=1e-6)
    assert run.losses[100] < run.losses[99] < run.losses[0]
    assert list(run.weights) == [0, 100]


def test_program_takes_as_many_classes_as_there_are(tmp_path):
    labels = np.arange(60) % 3
    images = np.random.default_rng(0).integers(0, 256, (60, 4, 4), np.uint8)
    np.savez(tmp_path / "three.npz", images=images, labels=labels)
    found = program.section(data.load(tmp_path / "three.npz", validation_split=0), steps=2)
    assert "<td>(128, 3)</td>" in page.render("", "", [found])


@pytest.mark.slow
@pytest.mark.mnist
def test_program_on_mnist_is_the_experiments(mnist_dir):
    examples = data.load("mnist", validation_split=0, data_dir=mnist_dir)
    found = program.section(examples, steps=501).numbers
    assert found["images"] == 60_000
    assert [round(found["loss"][at], 4) for at in ("0", "100", "500")] == [4.3652, 0.8168, 0.3916]
    assert [round(found["test accuracy"][at], 2) for at in ("0", "100", "500")] == [
        0.06,
        0.31,
        0.75,
    ]
