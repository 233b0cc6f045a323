import functools
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import checkpoint, data, faults, gradcheck, mlp, record, train
from tests.conftest import ROOT, call

FILES = {
    "config.json",
    "metrics.jsonl",
    "summary.json",
    "params.npz",
    "mistakes.json",
    "training.png",
    "weights.png",
    "confusion.png",
    "mistakes.png",
}


def test_the_main_job(run_script, tmp_path):
    """What the README's first command runs, and all that it leaves."""
    done = run_script("train.py")
    assert (done.returncode, done.stderr) == (0, "")
    out = tmp_path / "results" / "digits"
    assert {path.name for path in out.iterdir()} == FILES

    summary = record.read_json(out / "summary.json")
    assert summary["status"] == "finished"
    assert summary["dataset"] == "digits"
    assert summary["sizes"] == [64, 64, 10]
    assert summary["test_accuracy"] >= 0.96
    assert summary["epochs"] == 100
    assert summary["steps"] == 100 * (1294 // 32)
    assert summary["gradient_check"]["verdict"] == "pass"
    assert 0 < summary["compile_seconds"] < summary["total_seconds"]
    assert 0 < summary["train_seconds"] < summary["total_seconds"]
    assert summary["environment"]["versions"]["jax"] == jax.__version__
    assert f"test accuracy {summary['test_accuracy']:.2%}" in done.stdout
    assert "at most  against jax.grad  verdict" in done.stdout

    config = record.read_json(out / "config.json")
    assert config["gradient"] == "hand"
    metrics = list(record.read_metrics(out))
    assert [line["epoch"] for line in metrics] == list(range(1, 101))
    assert metrics[-1]["validation_accuracy"] > 0.9
    assert all(line["seconds"] > 0 for line in metrics)

    # The saved parameters, read with mlp alone, are the network of the summary.
    params = checkpoint.load(out / "params.npz")
    test = data.load("digits", dtype=params[0].weight.dtype).test
    inputs, targets = map(jax.numpy.asarray, test)
    assert float(mlp.accuracy(params, inputs, targets)) == pytest.approx(summary["test_accuracy"])
    assert float(mlp.loss(params, inputs, targets)) == pytest.approx(summary["test_loss"], rel=1e-5)
    confusion = np.array(summary["confusion"])
    assert np.trace(confusion) / confusion.sum() == pytest.approx(summary["test_accuracy"])
    mistakes = record.read_json(out / "mistakes.json")
    assert len(mistakes) == min(24, confusion.sum() - np.trace(confusion))
    for mistake in mistakes:
        index = mistake["index"]
        assert mistake["label"] == test.labels[index] != mistake["predicted"]
        image = np.array(mistake["image"]) / 255
        np.testing.assert_allclose(image.ravel(), test.inputs[index], atol=0.003)


@pytest.mark.long
@pytest.mark.mnist
def test_mnist_trains_with_its_own_recipe(run_script, mnist_dir, tmp_path):
    flags = ("--dataset", "mnist", "--data-dir", mnist_dir, "--epochs", 1, "--no-check-gradients")
    done = run_script("train.py", *flags, "--out", "run")
    assert (done.returncode, done.stderr) == (0, "")
    summary = record.read_json(tmp_path / "run" / "summary.json")
    assert summary["sizes"] == [784, 256, 128, 10]
    assert summary["gradient_check"] is None
    assert summary["test_accuracy"] > 0.8
    assert "jax.grad" not in done.stdout


def test_a_users_own_file(run_script, tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    images = rng.uniform(0, 0.4, (60, 5, 5)) + 0.5 * labels[:, None, None]
    np.savez(tmp_path / "own.npz", images=images, labels=labels)
    flags = ("--hidden", "none", "--learning-rate", 0.1, "--validation-split", 0)
    done = run_script("train.py", "--dataset", "own.npz", *flags, "--progress", "none")
    assert (done.returncode, done.stderr) == (0, "")
    summary = record.read_json(tmp_path / "results" / "own" / "summary.json")
    assert summary["sizes"] == [25, 2]
    assert summary["test_accuracy"] == 1
    assert np.trace(summary["confusion"]) == 12
    assert not (tmp_path / "results" / "own" / "mistakes.png").exists()


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "adamw"])
@pytest.mark.usefixtures("optax_dtypes")
def test_every_optimizer_and_gradient_trains(tmp_path, optimizer):
    losses = []
    for gradient in ("hand", "auto"):
        out = tmp_path / gradient
        flags = ("--optimizer", optimizer, "--gradient", gradient, "--schedule", "constant")
        assert call("train", *flags, "--epochs", 2, "--out", out, "--no-check-gradients") == 0
        losses.append([line["train_loss"] for line in record.read_metrics(out)])
    assert losses[0][1] < losses[0][0]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-2)


@pytest.mark.usefixtures("optax_dtypes")
def test_seed_and_flags_reach_the_run(tmp_path):
    flags = ("--epochs", 1, "--no-check-gradients", "--no-bias", "--hidden", "8,7", "--progress")
    runs = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        out = tmp_path / name
        assert call("train", *flags, "none", "--seed", seed, "--out", out) == 0
        runs[name] = checkpoint.load(out / "params.npz")
    assert mlp.sizes(runs["a"]) == (64, 8, 7, 10)
    assert all(layer.bias is None for layer in runs["a"])
    jax.tree.map(np.testing.assert_array_equal, runs["a"], runs["b"])
    assert not np.array_equal(runs["a"][0].weight, runs["c"][0].weight)


@pytest.mark.long
def test_x64_computes_in_float64(run_script, tmp_path):
    done = run_script("train.py", "--x64", "--epochs", 2, "--out", "run", JAX_ENABLE_X64="0")
    assert (done.returncode, done.stderr) == (0, "")
    summary = record.read_json(tmp_path / "run" / "summary.json")
    assert summary["environment"]["dtype"] == "float64"
    for leaf in summary["gradient_check"]["leaves"]:
        assert leaf["autodiff_error"] < 1e-12
        assert leaf["interval"]["high"] < 1e-7


@pytest.mark.usefixtures("optax_dtypes")
def test_differences_that_cannot_tell_do_not_stop_the_run(tmp_path, monkeypatch, capsys):
    """With a tolerance of the last digit, rounding is all that there is to see."""
    strict = functools.partial(
        gradcheck.make_check, tolerance=float(jnp.finfo(jnp.result_type(float)).eps)
    )
    monkeypatch.setattr(gradcheck, "make_check", strict)
    assert call("train", "--epochs", 1, "--out", tmp_path / "run") == 0
    summary = record.read_json(tmp_path / "run" / "summary.json")
    assert summary["gradient_check"]["verdict"] == "inconclusive"
    assert "inconclusive" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["sign", "zero-leaf", "bias-of-one-example"])
@pytest.mark.usefixtures("optax_dtypes")
def test_gradients_that_disagree_stop_the_run(tmp_path, monkeypatch, capsys, name):
    monkeypatch.setitem(train.GRADIENTS, "hand", faults.CATALOGUE[name])
    assert call("train", "--check-gradients", "--out", tmp_path / "run") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("train.py: the gradient does not pass: params[")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_record(run_script, tmp_path):
    flags = ("--learning-rate", 3e38, "--no-check-gradients", "--out", "run")
    done = run_script("train.py", *flags, JAX_ENABLE_X64="0")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "the loss is nan in epoch 1, step " in line
    assert record.read_json(tmp_path / "run" / "config.json")["learning_rate"] == 3e38
    summary = record.read_json(tmp_path / "run" / "summary.json")
    assert summary["status"] == "diverged"
    assert summary["epochs"] == 0


def start(tmp_path, *flags):
    """Starts scripts/train.py as a process of its own."""
    command = [sys.executable, ROOT / "scripts" / "train.py", *map(str, flags)]
    return subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_epoch(process):
    """Reads what a run prints until its first epoch is over."""
    for line in process.stdout:
        if line.startswith("epoch "):
            return
    raise AssertionError(f"no epoch: {process.stderr.read()}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_the_run_and_keep_the_record(tmp_path, number):
    process = start(tmp_path, "--epochs", 1_000_000, "--out", "run")
    wait_for_epoch(process)
    process.send_signal(number)
    _, stderr = process.communicate()
    assert process.returncode == 128 + number
    summary = record.read_json(tmp_path / "run" / "summary.json")
    by = "Ctrl-C" if number == signal.SIGINT else number.name
    stopped = f"stopped after {summary['epochs']:,} of 1,000,000 epochs: interrupted by {by}"
    assert stderr == f"train.py: {stopped}; the record is in run\n"
    assert summary["status"] == "interrupted"
    assert summary["epochs"] == len(list(record.read_metrics(tmp_path / "run"))) >= 1
    assert mlp.sizes(checkpoint.load(tmp_path / "run" / "params.npz")) == (64, 64, 10)
    assert {path.name for path in (tmp_path / "run").iterdir()} >= FILES - {"mistakes.png"}


@pytest.mark.long
def test_a_bar_on_a_terminal_and_lines_elsewhere(tmp_path):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    flags = ("--epochs", "3", "--out", "run", "--no-check-gradients")
    command = [sys.executable, ROOT / "scripts" / "train.py", *flags]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=theirs, text=True
    )
    os.close(theirs)
    seen = []

    def read():
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # how Linux tells that the other end is closed
                return
            if not part:
                return
            seen.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    stdout, _ = process.communicate(timeout=60)
    reader.join()
    os.close(ours)
    assert process.returncode == 0
    assert b"3/3" in b"".join(seen)
    assert b"validation loss" in b"".join(seen)
    assert "epoch    1" not in stdout

    with_lines = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert with_lines.stderr == ""
    assert "epoch    1  loss " in with_lines.stdout


BAD_FLAGS = {
    "--dataset minst": "dataset must be one of digits, mnist, fashion_mnist or a .npz file",
    "--dataset nowhere.npz": "nowhere.npz does not exist",
    "--dataset mnist --manual-dir nowhere": "nowhere lacks train-images-idx3-ubyte.gz",
    "--hidden 0": "argument --hidden: must be a positive integer, got '0'",
    "--hidden 16,-3": "argument --hidden: must be a positive integer, got '-3'",
    "--hidden 16,x": "argument --hidden: must be a positive integer, got 'x'",
    "--hidden 16,": "argument --hidden: must be a positive integer, got ''",
    "--batch-size 0": "argument --batch-size: must be a positive integer, got '0'",
    "--batch-size 2.5": "argument --batch-size: must be a positive integer, got '2.5'",
    "--batch-size 1295": "batch_size must be from 1 to the 1294 examples",
    "--epochs 0": "argument --epochs: must be a positive integer, got '0'",
    "--epochs -1": "argument --epochs: must be a positive integer, got '-1'",
    "--epochs many": "argument --epochs: must be a positive integer, got 'many'",
    "--learning-rate 0": "argument --learning-rate: must be a positive number, got '0'",
    "--learning-rate -1": "argument --learning-rate: must be a positive number, got '-1'",
    "--learning-rate nan": "argument --learning-rate: must be a positive number, got 'nan'",
    "--learning-rate inf": "argument --learning-rate: must be a positive number, got 'inf'",
    "--learning-rate fast": "argument --learning-rate: must be a positive number, got 'fast'",
    "--validation-split 1": "argument --validation-split: must be a number in [0, 1), got '1'",
    "--validation-split 0.9999": "too few to hold out 0.9999",
    "--seed -1": "argument --seed: must be an integer from 0 to",
    "--gradient numeric": "argument --gradient: invalid choice: 'numeric'",
    "--optimizer lion": "argument --optimizer: invalid choice: 'lion'",
    "--preset slides": "argument --preset: invalid choice: 'slides'",
    "--iterations 5": "argument --iterations: needs --preset lecture",
    "--preset lecture --iterations 5 --epochs 6": "not allowed with argument --epochs",
    "--preset lecture --batch-size 5": "the lecture's program takes all images at once",
    "--bogus": "unrecognized arguments: --bogus",
}


@pytest.mark.parametrize("flags", BAD_FLAGS)
def test_bad_input_is_one_line_and_status_2_and_overwrites_nothing(
    flags, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "summary.json").write_text("precious")
    assert call("train", *flags.split(), "--out", "run") == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert BAD_FLAGS[flags] in line
    assert captured.out == ""
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["summary.json"]
    assert (tmp_path / "run" / "summary.json").read_text() == "precious"


def test_out_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("precious")
    assert call("train", "--out", tmp_path / "file" / "run") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be written" in line
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("script", ["train.py", "check_gradients.py"])
def test_a_platform_that_is_not_there_is_never_replaced(run_script, script, platform):
    if jax.default_backend() == {"cuda": "gpu"}.get(platform, platform):
        pytest.skip(f"this machine has {platform}")
    done = run_script(script, "--platform", platform)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith(f"{script}: error:")]
    assert f"--platform {platform}: JAX finds no such device" in lines[0]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


# --- audits during training -----------------------------------------------------------------------


@pytest.mark.usefixtures("optax_dtypes")
def test_the_gradient_is_audited_during_training(tmp_path):
    out = tmp_path / "run"
    flags = ("--epochs", 4, "--no-check-gradients", "--check-gradients-every", 2, "--out", out)
    assert call("train", *flags) == 0
    lines = list(record.read_metrics(out))
    assert ["gradient" in line for line in lines] == [False, True, False, True]
    for line in lines[1::2]:
        assert line["gradient"]["verdict"] == "pass"
        assert set(line["gradient"]["errors"]) == {
            f"params[{i}].{name}" for i in range(2) for name in ("weight", "bias")
        }
        assert all(error < 1e-5 for error in line["gradient"]["errors"].values())
    assert (out / "training.png").exists()


@pytest.mark.usefixtures("optax_dtypes")
def test_a_gradient_that_is_wrong_stops_training_and_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(train.GRADIENTS, "hand", faults.CATALOGUE["hidden-sigmoid"])
    out = tmp_path / "run"
    flags = ("--epochs", 4, "--no-check-gradients", "--check-gradients-every", 2, "--out", out)
    assert call("train", *flags) == 1
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    stopped = "stopped after 2 of 4 epochs: the gradient does not pass: params[0].weight and 1 more"
    assert line == f"train.py: {stopped}; the record is in {out}"
    assert captured.out.splitlines()[-1] == stopped
    summary = record.read_json(out / "summary.json")
    assert (summary["status"], summary["epochs"]) == ("wrong gradient", 2)
    assert summary["gradient_check"] is None
    failed = summary["failed_gradient_check"]
    assert (failed["epoch"], failed["verdict"]) == (2, "fail")


# --- the lecture's program ------------------------------------------------------------------------


def slide(params, inputs, targets, iterations):
    """The slide's program in NumPy, float64, columns and all; yields its loss."""
    X, T = np.asarray(inputs, np.float64).T, np.asarray(targets, np.float64).T
    W1, W2, W3 = (np.array(layer.weight, np.float64).T for layer in params)
    lr = 1e-5

    def sigmoid(x):
        return 1.0 / (1.0 + np.e ** (-x))

    for _ in range(iterations):
        L1 = sigmoid(W1.dot(X))
        L2 = sigmoid(W2.dot(L1))
        L3 = sigmoid(W3.dot(L2))
        dW3 = (L3 - T) * L3 * (1 - L3)
        dW2 = W3.T.dot(dW3) * (L2 * (1 - L2))
        dW1 = W2.T.dot(dW2) * (L1 * (1 - L1))
        W3 -= lr * np.dot(dW3, L2.T)
        W2 -= lr * np.dot(dW2, L1.T)
        W1 -= lr * np.dot(dW1, X.T)
        yield np.sum((L3 - T) ** 2) / len(T.T)


def follow_the_slide(run_script, out, dataset, iterations, x64, *flags):
    """Runs preset and slide from the same weights; returns the losses of both, and the lines."""
    command = ("--preset", "lecture", "--dataset", dataset.name, "--iterations", iterations)
    done = run_script(
        "train.py", *command, *["--x64"] * x64, *flags, "--out", out, JAX_ENABLE_X64="0"
    )
    assert (done.returncode, done.stderr) == (0, "")
    key = jax.random.fold_in(jax.random.key(0), 0)
    sizes = (dataset.train.inputs.shape[1], 256, 128, 10)
    dtype = np.float64 if x64 else np.float32
    with jax.enable_x64(x64):
        params = mlp.init(key, sizes, scheme="lecture", bias=False, dtype=dtype)
        params = jax.tree.map(np.asarray, params)
    ours = [line["train_loss"] for line in record.read_metrics(out)]
    theirs = list(slide(params, *dataset.train, iterations))
    lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
    return np.array(ours), np.array(theirs), lines


@pytest.mark.parametrize(
    ("x64", "bar"), [pytest.param(False, 1e-6, marks=pytest.mark.slow), (True, 1e-12)]
)
def test_the_preset_is_the_slides_program(run_script, tmp_path, x64, bar):
    dataset = data.load("digits", validation_split=0, dtype=np.float64)
    ours, theirs, lines = follow_the_slide(run_script, tmp_path / "run", dataset, 100, x64)
    assert len(ours) == 100
    assert np.max(np.abs(ours / theirs - 1)) < bar
    assert lines == ["[%04d] MSE Loss: %0.3f" % (i, loss) for i, loss in enumerate(ours)]  # noqa: UP031
    config = record.read_json(tmp_path / "run" / "config.json")
    assert config["batch_size"] == 1438
    assert config["learning_rate"] == pytest.approx(1e-5 * 1438 / 2)


@pytest.mark.long
@pytest.mark.mnist
@pytest.mark.parametrize(
    ("iterations", "x64", "bar"),
    [
        (3, False, 1e-6),
        pytest.param(100, False, 1e-6, marks=pytest.mark.slow),
        pytest.param(100, True, 1e-12, marks=pytest.mark.slow),
    ],
)
def test_the_preset_is_the_slides_program_on_mnist(
    run_script, tmp_path, mnist_dir, iterations, x64, bar
):
    dataset = data.load("mnist", validation_split=0, dtype=np.float64, data_dir=mnist_dir)
    flags = ("--data-dir", mnist_dir)
    ours, theirs, _ = follow_the_slide(
        run_script, tmp_path / "run", dataset, iterations, x64, *flags
    )
    assert len(ours) == iterations
    error = np.max(np.abs(ours / theirs - 1))
    print(f"largest relative difference of the loss in {iterations} iterations: {error:.1e}")
    assert error < bar


@pytest.mark.usefixtures("optax_dtypes")
def test_the_gradient_that_is_audited_is_the_one_that_trains(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(train.GRADIENTS, "auto", faults.CATALOGUE["hidden-sigmoid"])
    flags = ("--epochs", 2, "--gradient", "auto", "--out", tmp_path / "run")
    assert call("train", *flags) == 1
    assert "\nthe gradient of jax.grad on 256 images\n" in capsys.readouterr().out
    assert call("train", *flags, "--no-check-gradients", "--check-gradients-every", 1) == 1
    out = capsys.readouterr().out
    assert "the gradient of jax.grad is audited after every 1 epochs, not before" in out
    assert "stopped after 1 of 2 epochs: the gradient does not pass: params[0]" in out


@pytest.mark.usefixtures("optax_dtypes")
def test_audits_that_pass_are_told_and_draw_their_tolerance(tmp_path, capsys):
    flags = ("--preset", "lecture", "--dataset", "digits", "--iterations", 3, "--check-gradients")
    out = tmp_path / "run"
    assert call("train", *flags, "--check-gradients-every", 3, "--out", out) == 0
    lines = capsys.readouterr().out.splitlines()
    told = [line for line in lines if "  gradient pass, error " in line]
    assert [line[:6] for line in told] == ["[0002]"]
    assert "audits of the gradient: 1 pass; largest error " in lines[-1]
    assert record.read_json(out / "summary.json")["unit"] == "iteration"
    assert list(record.read_metrics(out))[-1]["gradient"]["tolerance"] <= 1e-3


def test_audits_that_would_never_come_are_refused(tmp_path, capsys):
    flags = ("--epochs", 4, "--check-gradients-every", 5, "--out", tmp_path / "run")
    assert call("train", *flags) == 2
    captured = capsys.readouterr()
    assert "--check-gradients-every: must be at most the 4 epochs of the run" in captured.err
    assert captured.out == ""


@pytest.mark.long
def test_second_run_finds_what_the_first_compiled(run_script, tmp_path):
    cache = tmp_path / "cache"
    flags = ("train.py", "--epochs", "1", "--no-check-gradients")
    seconds = []
    for _ in range(2):
        done = run_script(*flags, JAX_COMPILATION_CACHE_DIR=str(cache))
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        summary = json.loads((tmp_path / "results" / "digits" / "summary.json").read_text())
        seconds.append((summary["compile_seconds"], summary["test_loss"]))
    assert seconds[1][1] == seconds[0][1]
    assert any(cache.iterdir())
    # What is broken is compiled anew, without a word.
    kept = [path for path in cache.iterdir() if path.suffix != ".atime" and path.is_file()]
    for path in kept:
        path.write_bytes(b"not a program")
    done = run_script(*flags, JAX_COMPILATION_CACHE_DIR=str(cache))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.long
def test_cache_that_cannot_be_written_gets_one_line(run_script, tmp_path):
    (tmp_path / "file").write_text("")
    done = run_script(
        "train.py",
        *("--epochs", "1", "--no-check-gradients"),
        JAX_COMPILATION_CACHE_DIR=str(tmp_path / "file"),
    )
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("no compilation cache: ")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--chunk", "100"], "--microbatch: must be at most the 32 rows of a batch, got 100"),
        (["--devices", "3"], "--devices: must divide the 32 rows of a batch, and be 1"),
        (["--devices", "2", "--debug-nans"], "and be 1 with --debug-nans, got 2"),
        (["--precision", "float8"], "--precision: invalid choice: 'float8'"),
        (["--precision", "bfloat16", "--x64"], "--precision: bfloat16 is not allowed with"),
        (["--warmup", "0.5", "--schedule", "constant"], "--warmup: 0.5 is not allowed with"),
        (
            ["--preset", "lecture", "--warmup", "0.5"],
            "--warmup: 0.5 is not allowed with --schedule",
        ),
        (["--preset", "fast", "--x64"], "--precision: bfloat16 is not allowed with"),
        (["--beta2", "1"], "--beta2: must be a number in [0, 1)"),
        (
            ["--beta2", "0.9", "--optimizer", "sgd"],
            "--beta2: 0.9 is not allowed with --optimizer sgd",
        ),
    ],
)
def test_speed_flags_that_make_no_sense_get_one_line(run_script, flags, message):
    done = run_script("train.py", *flags)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert message in line


@pytest.mark.long
def test_bfloat16_run_passes_its_audit(run_script, tmp_path):
    done = run_script("train.py", "--epochs", "2", "--precision", "bfloat16")
    assert done.returncode == 0, done.stderr
    assert "float32, products in bfloat16, on " in done.stdout
    summary = json.loads((tmp_path / "results" / "digits" / "summary.json").read_text())
    assert summary["gradient_check"]["verdict"] == "pass"
