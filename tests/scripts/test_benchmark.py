import importlib.util
import json

import benchmark
import jax
import numpy as np
import optax
import peers
import pytest
import tqdm
from suites import accuracy, common, scaling, step

from jaxnet import mlp
from jaxnet.cli.common import StopError, run
from jaxnet.train.config import PRESETS

pytestmark = pytest.mark.long


def test_step_suite_measures_peers_in_turn(run_script, tmp_path):
    done = run_script("benchmark.py", "--suite", "step", "--quick", "--peers", "jaxnet,numpy")
    assert done.returncode == 0, done.stderr
    assert "random images take its place" in done.stdout
    (path,) = (tmp_path / "results" / "benchmark").glob("step-*.json")
    found = json.loads(path.read_text())
    assert set(found["peers"]) == {"jaxnet", "numpy"}
    for peer in found["peers"].values():
        assert len(peer["seconds"]) == 2
        assert peer["gflops"] == pytest.approx(found["work"]["gflop"] / np.median(peer["seconds"]))
    # The same work: the same losses, iteration by iteration.
    np.testing.assert_allclose(
        found["peers"]["jaxnet"]["values"], found["peers"]["numpy"]["values"], rtol=1e-4
    )
    assert found["ceilings"]["matmul"] > 0
    assert (tmp_path / "results" / "benchmark" / "roofline.png").stat().st_size > 10_000


def test_other_suites_measure_too(run_script, tmp_path):
    flags = ("--suite", "startup,gradients", "--quick", "--peers", "jaxnet,numpy")
    done = run_script("benchmark.py", *flags)
    assert done.returncode == 0, done.stderr
    read = {
        suite: json.loads(next((tmp_path / "results" / "benchmark").glob(f"{suite}-*")).read_text())
        for suite in ("startup", "gradients")
    }
    assert {name: len(each) for name, each in read["startup"]["seconds"].items()} == {
        "jaxnet": 2,
        "numpy": 2,
    }
    for work in read["gradients"]["works"]:
        assert set(work["peers"]) == {"jaxnet", "jaxnet-auto"}
        assert work["compiled"]["jaxnet"]["products"] >= 5
        by_hand, automatic = (work["peers"][name]["values"] for name in work["peers"])
        np.testing.assert_allclose(by_hand, automatic, rtol=1e-3)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--suite", "sprint"], "--suite: must be of step, epoch"),
        (["--peers", "jaxnet,theano"], "--peers: must be of jaxnet, jaxnet-auto"),
        (["--suite", "time-to-accuracy", "--manual-dir", "."], "train-images-idx3-ubyte.gz"),
        (["--out", "/dev/null/here"], "--out /dev/null/here cannot be written"),
    ],
)
def test_bad_flags_get_one_line(flags, message, capsys):
    assert _status(flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def _status(flags):
    try:
        return run("benchmark.py", lambda: benchmark.main(benchmark.parse(flags)))
    except SystemExit as stop:
        return stop.code


def test_peer_that_is_not_installed_is_left_out_with_a_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    flags = benchmark.Flags((), ("torch", "flax"), True, tmp_path, None)
    with pytest.raises(StopError, match="none of the peers is installed"):
        benchmark.main(flags)
    assert capsys.readouterr().out.splitlines() == [
        "flax is left out: flax is not installed",
        "torch is left out: torch is not installed",
    ]


def test_operations_are_those_of_the_lecture():
    assert step.flops(common.LECTURE, 60_000) == pytest.approx(60.4e9, rel=1e-3)


def test_exponents_are_those_of_the_larger_half():
    curve = [{"size": n, "median": max(1.0, n / 100) ** 2} for n in (1, 10, 100, 1_000, 10_000)]
    assert scaling._exponent(curve) == pytest.approx(2)


def a_run(folder):
    return common.Run([], True, None, folder, tqdm.tqdm(disable=True))


class Paced:
    """A peer that says how many epochs it has run, and that each took so many seconds."""

    def __init__(self, name, seconds):
        self.name, self.seconds, self.ran = name, seconds, 0

    def ask(self, order):
        self.ran += 1
        return {"value": self.ran, "seconds": self.seconds, "peak_mb": 1.0}


def test_all_peers_run_as_many_epochs_however_long_they_take(tmp_path):
    paced = [Paced("numpy", 0.001), Paced("torch", 5.0), Paced("nielsen", 1_000.0)]
    found = common.interleave(a_run(tmp_path), paced, 2, epochs=2)
    # After the first round's one: in each round one that does not count, and two that do.
    assert [found[peer.name]["values"] for peer in paced] == [[3, 4, 6, 7]] * 3


def test_recipe_is_the_fast_preset():
    fast = PRESETS["fast"]
    assert {name: getattr(fast, name) for name in accuracy.RECIPE} == accuracy.RECIPE
    assert (784, *fast.hidden, 10) == common.LECTURE


def test_peer_that_ends_is_left_out_and_the_others_go_on(tmp_path, capsys):
    measured = a_run(tmp_path)
    measured.write_images(1_000)
    work = measured.work((784, 3, 10), 100, epochs=1)  # a schedule, which Nielsen's loop has not
    with common.processes(measured, ["nielsen", "numpy"]) as started:
        assert set(common.prepare(measured, started, work)) == {"numpy"}
        found = common.interleave(measured, started, 1)
    assert set(found) == {"numpy"}
    assert "ValueError" in measured.failed["nielsen"]
    assert "nielsen is left out from here on: it ended with status 1" in capsys.readouterr().out


def test_rates_rise_and_fall_as_optax_has_them():
    work = peers.Work(
        np.zeros((100, 4), np.uint8), np.zeros(100), [], 10, "adam", 0.5, epochs=5, warmup=0.2
    )
    expected = optax.warmup_cosine_decay_schedule(0, 0.5, 10, 50)
    for number in (0, 3, 10, 11, 30, 49):
        assert work.rate(number) == pytest.approx(float(expected(number)), rel=1e-5, abs=1e-7)


def test_parameters_that_processes_read_are_those_of_the_library(tmp_path):
    name = a_run(tmp_path).work((4, 3, 2), 1, seed=7)["params"]
    expected = mlp.init(jax.random.key(7), (4, 3, 2), dtype=np.float32)
    with np.load(tmp_path / f"{name}.npz") as file:
        np.testing.assert_array_equal(file["weight1"], expected[1].weight)
        np.testing.assert_array_equal(file["bias0"], expected[0].bias)
