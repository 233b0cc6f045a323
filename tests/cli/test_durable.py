"""What ends a run, or comes in its way, costs nothing that was there before."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from jaxnet import checkpoint, record
from tests.cli.test_train import FILES, start, wait_for_epoch
from tests.conftest import ROOT, call

QUICK = ("--epochs", 2, "--no-check-gradients", "--progress", "none")
pytestmark = pytest.mark.usefixtures("optax_dtypes")


@pytest.fixture
def earlier(tmp_path):
    """A folder with a finished record; returns it and what is in it."""
    folder = tmp_path / "run"
    assert call("train", *QUICK, "--out", folder) == 0
    return folder, contents(folder)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_new_run_replaces_the_earlier_record_when_it_is_finished(earlier):
    folder, before = earlier
    assert call("train", *QUICK, "--seed", 1, "--out", folder) == 0
    after = contents(folder)
    assert set(after) == set(before)
    assert after["params.npz"] != before["params.npz"]
    assert record.read_json(folder / "config.json")["seed"] == 1
    assert not (folder / "running").exists()


def test_a_run_that_is_killed_leaves_the_earlier_record(earlier, tmp_path):
    folder, before = earlier
    process = start(tmp_path, "--epochs", 1_000_000, "--out", folder)
    wait_for_epoch(process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    after = contents(folder)
    assert {name: after[name] for name in before} == before
    assert list(record.read_metrics(folder / "running"))  # what there was of the new one
    # The next run is not disturbed by what the dead one left, its lock among it.
    assert call("train", *QUICK, "--out", folder) == 0
    assert set(contents(folder)) == set(before)
    assert not (folder / "running").exists()


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_the_first_epoch_leaves_the_earlier_record(earlier, tmp_path, number):
    folder, before = earlier
    process = start(tmp_path, "--epochs", 9, "--no-check-gradients", "--out", folder)
    process.stdout.readline()  # the network is made, and compilation begins
    process.send_signal(number)
    _, stderr = process.communicate()
    if process.returncode == 128 + number and "stopped after" not in stderr:
        assert stderr == f"train.py: ended by {number.name}\n"
        assert contents(folder) == before
    else:  # it was caught by the loop, after an epoch
        assert "interrupted by" in stderr
        assert set(contents(folder)) >= FILES - {"mistakes.png"}


def test_a_second_run_into_the_same_folder_is_refused(tmp_path):
    first = start(tmp_path, "--epochs", 1_000_000, "--out", "run")
    wait_for_epoch(first)
    second = start(tmp_path, *QUICK, "--out", "run")
    out, stderr = second.communicate()
    assert second.returncode == 2
    (line,) = stderr.splitlines()
    assert line.startswith("train.py: error: --out run is in use by process ")
    assert str(first.pid) in line
    assert out == ""
    first.send_signal(signal.SIGINT)
    first.communicate()
    assert first.returncode == 130
    assert record.read_json(tmp_path / "run" / "config.json")["epochs"] == 1_000_000


@pytest.mark.long
def test_a_folder_that_is_removed_during_the_run_is_made_again(tmp_path):
    process = start(tmp_path, "--epochs", 1_000_000, "--out", "run")
    wait_for_epoch(process)
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    metrics = list(record.read_metrics(tmp_path / "run"))
    assert [line["epoch"] for line in metrics] == list(range(1, len(metrics) + 1))
    summary = record.read_json(tmp_path / "run" / "summary.json")
    assert summary["epochs"] == len(metrics)
    checkpoint.load(tmp_path / "run" / "params.npz")


LIMITED = """
import resource, sys
from jaxnet import cli
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
sys.exit(cli.run("train", sys.argv[1:], program="train.py"))
"""


@pytest.mark.parametrize("size", [100, 10_000])
def test_a_disk_that_takes_no_more_is_one_line_and_the_earlier_record_stays(
    earlier, tmp_path, size
):
    """No file may grow beyond some bytes: the record, or only the parameters, cannot be written."""
    folder, before = earlier
    program = LIMITED.format(size=size)
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, QUICK), "--out", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "File too large" in line
    assert str(folder) in line
    assert {name: contents(folder).get(name) for name in before} == before


@pytest.mark.parametrize("name", ["training.png", "metrics.jsonl", "params.npz"])
def test_a_folder_in_the_place_of_a_file_is_told_before_the_work(earlier, capsys, name):
    folder, before = earlier
    (folder / name).unlink()
    (folder / name).mkdir()
    assert call("train", *QUICK, "--out", folder) == 2
    captured = capsys.readouterr()
    assert captured.err == f"train.py: error: {folder / name}: is a folder\n"
    assert contents(folder) == {n: c for n, c in before.items() if n != name}


def test_a_link_to_nothing_is_told_before_the_work(tmp_path, capsys):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert call("train", *QUICK, "--out", tmp_path / "link") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("link is a link to nothing")


EMPTY = {
    "train": ["--out", "--dataset", "--data-dir", "--manual-dir", "--hidden", "--seed", "--preset"],
    "check": ["--target", "--arguments", "--gradient", "--json", "--dataset", "--fault"],
    "lecture": ["--only", "--out", "--dataset"],
}


@pytest.mark.parametrize("form", ["{} ''", "{}=", "{} ' '"])
@pytest.mark.parametrize(("command", "flag"), [(c, f) for c in EMPTY for f in EMPTY[c]])
def test_an_empty_value_is_an_error(command, flag, form, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    argv = [flag + "="] if "=" in form else [flag, form.split("'")[1]]
    others = ["--arguments", "os:getcwd"] if flag == "--target" else []
    assert call(command, *argv, *others) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.endswith(f"error: argument {flag}: must not be empty")
    assert captured.out == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--devices 512 --batch-size 512", "--devices: must be at most "),
        ("--devices 100000", "--devices: must be at most "),
        ("--devices 10000000000", "--devices: must be at most "),
        ("--hidden 100000,100000", "needs some "),
        ("--hidden 1000000,1000000", "needs some "),
        ("--hidden 1000000000", "needs some "),
        ("--hidden 1000000000000000000000", "needs some "),
        ("--epochs 1000000000000", "--epochs: must be at most 53,687,091, which is 2,147,483,647"),
        ("--epochs 100000000000000000000000000000", "--epochs: must be at most "),
    ],
)
def test_what_the_machine_cannot_do_is_refused_before_the_work(flags, message, tmp_path, capsys):
    assert call("train", *flags.split(), "--out", tmp_path / "run") == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert message in line
    assert captured.out == ""
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flags", ["--hidden 100000,100000", "--directions 99999999999"])
def test_check_gradients_refuses_it_too(flags, capsys):
    assert call("check", *flags.split(), "--float32") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_rate_that_saturates_all_sigmoids_is_no_success(tmp_path, capsys):
    flags = ("--learning-rate", 1e30, "--no-check-gradients", "--out", tmp_path / "run")
    assert call("train", *flags) == 1
    assert "a parameter is " in capsys.readouterr().err
    assert record.read_json(tmp_path / "run" / "summary.json")["status"] == "diverged"


def test_a_network_that_learned_nothing_is_told(tmp_path, capsys):
    flags = ("--learning-rate", 1e-9, *QUICK, "--out", tmp_path / "run")
    assert call("train", *flags) == 0
    assert "nothing was learned: 0.90 is the loss of the same outputs" in capsys.readouterr().out


def shell(command, tmp_path, **environment):
    script = f"{sys.executable} {ROOT / 'scripts' / 'train.py'} {' '.join(map(str, QUICK))}"
    return subprocess.run(
        ["bash", "-c", command.format(script)],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.long
@pytest.mark.parametrize(
    "command",
    [
        "{} --out run 2>&-",
        "{} --out run >&-",
        "{} --out run >&- 2>&-",
        "{} --out run > /dev/full",
        "set -o pipefail; {} --out run --progress lines | head -1",
    ],
)
def test_output_that_nobody_reads_does_not_end_the_run(tmp_path, command):
    done = shell(command, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in (tmp_path / "run").iterdir()} >= FILES - {"mistakes.png"}


@pytest.mark.long
def test_a_terminal_of_ascii_shows_other_letters_escaped(tmp_path):
    done = shell("{} --out läufe/å", tmp_path, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "record and pictures in l\\xe4ufe/\\xe5" in done.stdout
    assert (tmp_path / "läufe" / "å" / "summary.json").exists()


def test_a_current_folder_that_is_gone_is_told(tmp_path):
    (tmp_path / "gone").mkdir()
    done = shell("cd gone && rmdir ../gone && {}", tmp_path)
    assert done.returncode == 2
    assert done.stderr == "train.py: error: the current folder has been removed\n"


def test_the_devices_of_a_run_are_in_its_record(tmp_path):
    flags = ("--preset", "lecture", "--dataset", "digits", "--iterations", 1)
    assert call("train", *flags, "--out", tmp_path / "run") == 0
    devices = record.read_json(tmp_path / "run" / "summary.json")["devices"]
    assert devices == record.read_json(tmp_path / "run" / "config.json")["devices"] >= 1
    assert np.isfinite(record.read_json(tmp_path / "run" / "summary.json")["train_loss"])


@pytest.mark.parametrize(
    ("command", "flags", "message"),
    [
        ("train", "--preset lecture --warmup 0.5", "--warmup: 0.5 is not allowed with --schedule"),
        ("train", "--warmup 0.0001", "--warmup: must be a step or more, got 0.0001 of the 4,000"),
        ("train", "--preset fast --optimizer sgd", "--beta2: 0.95 is not allowed with --optimizer"),
        ("check", "--list-faults --json x.json", "--json: not allowed with argument --list-faults"),
        ("check", "--list-faults --epochs 3", "--epochs: not allowed with argument --list-faults"),
        ("lecture", "--only grid --iterations 5", "--iterations: needs the section program"),
        ("lecture", "--only grid --dataset mnist", "--dataset: needs the section program"),
    ],
)
def test_no_flag_is_accepted_and_ignored(command, flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call(command, *flags.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not list(tmp_path.iterdir())
