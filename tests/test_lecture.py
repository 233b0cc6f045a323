import html.parser
import importlib.util
import json
import re
import shutil
import subprocess

import cli
import jax
import jax.numpy as jnp
import lecture
import numpy as np
import pytest

from jaxnet import data, gradcheck, optimizers
from jaxnet.lecture import differences, ladder, neuron, neurons, page, program, rungs, slopes

from .conftest import ROOT

VOID = {"meta", "link", "img", "br"}


class Reader(html.parser.HTMLParser):
    """Notes what a page consists of, and that its tags close."""

    def __init__(self, text):
        super().__init__()
        self.open, self.addresses, self.texts, self.ids = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href") and v]
        self.ids += [v for k, v in attrs if k == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def section():
    return neuron.section()


def test_page_needs_nothing_else(section):
    text = page.render("A title", "A `preface`.", [section])
    reader = Reader(text)
    assert not reader.open
    assert reader.ids == ["neuron"]
    assert all(each.startswith(("#", "data:")) for each in reader.addresses)
    assert "script" not in text
    assert not re.search(r"url\(|@import", text)
    assert "<code>preface</code>" in text


def test_source_is_that_of_the_function_without_its_docstring():
    text = page.source(neurons.chain)
    assert text.splitlines() == [
        "def chain(w: Any, x: Any, t: Any) -> Any:",
        "    sigma = jax.nn.sigmoid(x @ w)",
        "    return 2 * (sigma - t) * sigma * (1 - sigma) * x",
    ]


def test_penalties_are_the_slides():
    assert neuron.penalties() == [(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0)]


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
    key = jax.random.key(2)
    radius = 0.2  # so that the cube holds the whole ball
    needed = ladder.guesses_needed(
        lambda w: jnp.sum((w - 0.3) ** 2), dimension, radius**2, key, draws=2**20
    )
    volume = {1: 2 * radius, 2: np.pi * radius**2, 3: 4 / 3 * np.pi * radius**3}[dimension]
    assert needed == pytest.approx(2**dimension / volume, rel=0.05)


def test_goal_that_is_hardly_ever_reached_has_no_number():
    key = jax.random.key(2)
    assert np.isnan(ladder.guesses_needed(ladder.distance(key, 8), 8, 1e-4, key, draws=2**17))


def test_number_of_draws_need_not_fill_blocks():
    def loss(w):  # below the goal for a fifth of [-1, 1)
        return jnp.abs(w[0])

    for draws in (60_000, 100_000, 2**17):
        needed = ladder.guesses_needed(loss, 1, 0.2, jax.random.key(0), draws=draws)
        assert needed == pytest.approx(5, rel=0.05)


def test_dimension_zero_is_refused():
    with pytest.raises(ValueError, match="dimension must be 1 or more, got 0"):
        ladder.guesses_needed(jnp.sum, 0, 0.25, jax.random.key(0))


def test_slopes_are_one_and_two():
    found = differences.errors(
        lambda s: jax.nn.sigmoid(s[0]), np.array([1.0]), np.array([1.0]), "float64"
    )
    assert found.slope("forward", 1e-6, 1e-3) == pytest.approx(1, rel=0.02)
    assert found.slope("central", 1e-4, 1e-2) == pytest.approx(2, rel=0.02)


def test_derivatives_of_the_product_are_the_slides():
    point = jnp.array([5.0, -2.0])
    assert slopes.product(point) == -10
    assert jax.grad(slopes.product)(point).tolist() == [-2, 5]
    with jax.enable_x64(True):
        wide = jnp.array([5.0, -2.0])
        np.testing.assert_allclose(
            gradcheck.finite_difference(slopes.product, wide), [-2, 5], rtol=1e-9
        )


def test_central_difference_of_a_product_is_exact():
    found = differences.errors(
        slopes.product, np.array([5.0, -2.0]), np.array([1.0, 1.0]), "float64"
    )
    assert found.central[found.steps >= 2**-20].max() < 1e-8
    assert np.isnan(found.slope("central", 1e-4, 1e-2)) or found.central.max() < 1e-4


def test_chain_is_jax_grads():
    with jax.enable_x64(True):
        w, x = jnp.array([-3.0, 2.0, -3.0]), jnp.array([1.0, -1.0, -2.0])
        right = jax.grad(lambda w: (jax.nn.sigmoid(x @ w) - 1) ** 2)(w)
        np.testing.assert_allclose(neurons.chain(w, x, 1.0), right, rtol=1e-12)


def test_ladder_is_as_the_page_says(optax_dtypes):
    problem = ladder.is_it_a_three()
    assert ladder.dimension(problem) == 65
    needed = {rung.name: ladder.climb(rung, problem).needed for rung in ladder.RUNGS}
    assert needed["random guessing"] is None  # not in 20,000
    numerical = needed["gradient descent, central differences"]
    by_hand = needed["gradient descent, gradient by hand"]
    assert numerical / by_hand == pytest.approx((2 * 65 + 1) / 3)
    assert needed["gradient descent, forward differences"] < numerical
    assert needed["coordinate descent"] < numerical  # the rung that is out of order
    assert max(needed[rung] for rung in ("momentum", "Adam", "L-BFGS with line search")) < by_hand


def test_ladder_on_the_network_is_as_the_page_says(optax_dtypes):
    problem = ladder.small_network()
    needed = {
        rung.name: ladder.climb(rung, problem).needed
        for rung in ladder.RUNGS
        if "differences" not in rung.name and rung.name != "random guessing"
    }
    assert needed.pop("momentum") is None  # outputs saturate
    by_hand = needed.pop("gradient descent, gradient by hand")
    assert needed.pop("gradient descent, jax.grad") == pytest.approx(by_hand, rel=0.1)
    assert needed.pop("coordinate descent") > by_hand
    assert max(needed.values()) < by_hand
    assert len(needed) == 2


def test_search_along_a_line_counts_for_the_loss_after_it():
    rung = next(rung for rung in ladder.RUNGS if "line search" in rung.name)
    climb = ladder.climb(rung, ladder.two_points())
    assert climb.losses[0] == 3  # a gradient; the search comes after


def test_numerical_descent_goes_the_way_of_the_gradient_by_hand():
    problem = ladder.small_network()
    of_name = {rung.name: rung for rung in ladder.RUNGS}
    by_hand = of_name["gradient descent, gradient by hand"]._replace(steps=lambda problem: 20)
    found = ladder.climb(by_hand, problem).values
    for name in ("gradient descent, central differences", "gradient descent, forward differences"):
        numerical = ladder.climb(of_name[name], problem)
        assert len(numerical.values) == 20
        np.testing.assert_allclose(numerical.values, found, rtol=0.01)


def test_guessing_makes_a_million_guesses_a_second():
    problem = ladder.two_points()
    rung = ladder.RUNGS[0]._replace(
        make=lambda problem: optimizers.random_search(10_000), steps=lambda problem: 100
    )
    climb = min((ladder.climb(rung, problem) for _ in range(3)), key=lambda each: each.seconds)
    assert climb.losses[-1] / climb.seconds > 1e6


def test_program_learns_and_names_its_shapes():
    found = program.section(data.load("digits", validation_split=0), 120)
    assert list(found.numbers["loss"]) == ["0", "100", "120"]
    assert found.numbers["loss"]["120"] < found.numbers["loss"]["0"] / 3
    assert found.numbers["test accuracy"]["120"] > found.numbers["test accuracy"]["0"]
    text = page.render("", "", [found])
    assert "<td>(1,438, 256)</td>" in text
    assert "<td>256 x 60,000</td>" in text


def test_last_loss_is_of_the_last_parameters():
    digits = data.load("digits", validation_split=0)
    last, passing = (program.section(digits, steps).numbers["loss"] for steps in (100, 101))
    assert last["100"] == pytest.approx(passing["100"], rel=1e-6)
    assert passing["101"] < passing["100"] < passing["0"]


def test_program_takes_as_many_classes_as_there_are(tmp_path):
    labels = np.arange(60) % 3
    images = np.random.default_rng(0).integers(0, 256, (60, 4, 4), np.uint8)
    np.savez(tmp_path / "three.npz", images=images, labels=labels)
    found = program.section(data.load(tmp_path / "three.npz", validation_split=0), 2)
    assert "<td>(128, 3)</td>" in page.render("", "", [found])


@pytest.mark.slow
@pytest.mark.mnist
def test_program_on_mnist_is_the_experiments(mnist_dir):
    examples = data.load("mnist", validation_split=0, data_dir=mnist_dir)
    found = program.section(examples, 501).numbers
    assert found["images"] == 60_000
    assert [round(found["loss"][at], 4) for at in ("0", "100", "500")] == [4.3652, 0.8168, 0.3916]
    assert [round(found["test accuracy"][at], 2) for at in ("0", "100", "500")] == [
        0.06,
        0.31,
        0.75,
    ]


def test_script_writes_page_pictures_and_numbers(run_script, tmp_path):
    done = run_script("lecture.py", "--only", "circuits,neuron", "--out", "page")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    names = {path.name for path in (tmp_path / "page").iterdir()}
    assert {"index.html", "neuron.json", "circuits.json", "neuron.png", "sigmoid.svg"} <= names
    reader = Reader((tmp_path / "page" / "index.html").read_text())
    assert reader.ids == ["neuron", "circuits"]  # in the lecture's order
    numbers = json.loads((tmp_path / "page" / "circuits.json").read_text())
    assert numbers["compound"]["f"] == [-12, 1]
    assert [round(numbers["neuron"][wire][1], 4) for wire in ("w1", "x1", "w2", "x2", "w0")] == [
        -0.1966, 0.3932, -0.3932, -0.5898, 0.1966,
    ]  # fmt: skip


def test_part_does_not_take_the_place_of_the_whole(run_script, tmp_path):
    done = run_script("lecture.py", "--only", " neuron")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["lecture-part"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--only", "circus"], "--only: must be of neuron, ladder"),
        (["--dataset", "cifar"], "dataset must be one of digits, mnist"),
        (["--dataset", "mnist", "--manual-dir", "."], "train-images-idx3-ubyte.gz"),
        (["--out", "/dev/null/page"], "/dev/null"),
        (["--iterations", "0"], "--iterations: must be a positive integer"),
    ],
)
def test_bad_flags_get_one_line(run_script, flags, message):
    done = run_script("lecture.py", *flags)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_extra_that_is_missing_is_named(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cli.run("lecture.py", lambda: lecture.main(lecture.parse([]))) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "lecture.py: error: needs igraph and latex2mathml: pip install -e '.[lecture]'"


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize(("scheme", "paper"), [(0, "rgb(23, 25, 28)"), (1, "rgb(253, 253, 251)")])
def test_browser_shows_the_page(tmp_path, width, scheme, paper):
    # An iframe is as narrow as it is told to be, where a window is 500 pixels wide or more.
    shutil.copy(ROOT / "results" / "lecture" / "index.html", tmp_path / "index.html")
    frame = tmp_path / "frame.html"
    frame.write_text(
        f"<iframe id=page src=index.html width={width} height=900></iframe><script>"
        "window.onload = () => { const page = document.getElementById('page').contentDocument;"
        "document.title = [page.documentElement.scrollWidth, page.documentElement.clientWidth,"
        "getComputedStyle(page.body).backgroundColor,"
        "[...page.images].filter(each => !each.naturalWidth).length].join(';') }</script>"
    )
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
            "--allow-file-access-from-files", "--enable-logging=stderr",
            "--virtual-time-budget=5000", "--host-resolver-rules=MAP * 0.0.0.0",
            f"--blink-settings=preferredColorScheme={scheme}",
            f"--user-data-dir={tmp_path / 'profile'}", frame.as_uri(),
        ],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    (title,) = re.findall(r"<title>([^<]*)</title>", done.stdout)
    wide, room, background, broken = title.split(";")
    assert int(wide) <= int(room) <= width
    assert background == paper
    assert broken == "0"
    assert "CONSOLE" not in done.stderr


def test_committed_page_needs_nothing_else():
    text = (ROOT / "results" / "lecture" / "index.html").read_text()
    reader = Reader(text)
    assert not reader.open
    assert all(each.startswith(("#", "data:")) for each in reader.addresses)
    assert len(text) < 1_000_000
