"""Pictures of runs; that they show what the record holds is in test_record, too."""

import errno
import json
import os

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxnet import checkpoint, mlp, plots, record

SUMMARY = {"test_accuracy": 0.9, "test_loss": 0.1}
UNCLEAR = {"errors": {}, "tolerance": "high"}


def an_epoch(number, **others):
    unvalidated = {"validation_loss": None, "validation_accuracy": None}
    return {"epoch": number, "train_loss": 1 / number, **unvalidated, **others}


def test_the_gradients_error_is_drawn_beside_the_loss():
    audit = {"errors": {"w": 1e-7, "b": "nan"}, "tolerance": 1e-3}
    metrics = [an_epoch(i, **({"gradient": audit} if i % 2 else {})) for i in range(1, 6)]
    loss, errors = plots.training(metrics, {**SUMMARY, "unit": "iteration"}).axes
    assert loss.get_title().startswith("Squared error")
    w, b, tolerance = errors.lines
    assert [w.get_label(), b.get_label()] == ["w", "b"]
    assert tolerance.get_label() == "tolerance 0.001"
    assert tolerance.get_ydata()[0] == 1e-3
    assert w.get_xdata().tolist() == [1, 3, 5]
    assert np.isnan(b.get_ydata()).all()
    assert loss.get_xlabel() == errors.get_xlabel() == "iteration"


def test_an_audit_without_a_tolerance_has_a_picture():
    metrics = [an_epoch(1, gradient={"errors": {"w": None}})]  # as in older records
    _, errors = plots.training(metrics, SUMMARY).axes
    assert [line.get_label() for line in errors.lines] == ["w"]


@pytest.mark.parametrize("unknown", [None, "nan", "inf", np.nan])
def test_losses_that_are_not_finite_are_left_out(unknown):
    validated = {"validation_loss": unknown, "validation_accuracy": 0.5}
    metrics = [an_epoch(1, **validated), an_epoch(2, train_loss=unknown, **validated)]
    figure = plots.training(metrics, {"test_accuracy": 0.9, "test_loss": unknown})
    figure.draw_without_rendering()
    loss, accuracy = figure.axes
    training, validation, test = (line.get_ydata() for line in loss.lines)
    np.testing.assert_array_equal(training, [1, np.nan])
    assert np.isnan(validation).all()
    assert np.isnan(test).all()
    assert accuracy.lines[0].get_ydata().tolist() == [50, 50]


def test_weights_that_are_not_finite_are_white():
    weight = np.ones((6, 2))
    weight[:, 0] = np.nan
    figure = plots.first_layer(weight, (2, 3))
    (image,) = figure.axes[0].images
    assert image.get_clim() == (-1, 1)
    assert np.ma.count(image.get_array()) == 6


def test_thousands_of_mistakes_are_written_as_such():
    mistake = {"image": [[0, 255], [255, 0]], "label": 0, "predicted": 1}
    summary = {"test_accuracy": 1 - 1_234 / 11_234, "test_examples": 11_234}
    (axes,) = plots.mistakes([mistake] * 3, summary).axes
    assert axes.get_title() == "The 3 worst of 1,234 mistakes among 11,234 test images"


@pytest.fixture
def folder(tmp_path):
    """The record of a finished run."""
    checkpoint.save(tmp_path / record.PARAMS, mlp.init(jax.random.key(0), (4, 3, 2)))
    confusion = {"confusion": [[4, 1], [0, 5]], "test_examples": 10, "image_shape": [2, 2]}
    record.write_json(tmp_path / record.SUMMARY, {**SUMMARY, **confusion})
    mistake = {"image": [[0, 255], [255, 0]], "label": 0, "predicted": 1}
    record.write_json(tmp_path / record.MISTAKES, [mistake])
    (tmp_path / record.METRICS).write_text(json.dumps(an_epoch(1)) + "\n")
    return tmp_path


def test_a_record_without_a_confusion_matrix_has_no_picture_of_it(folder):
    change("summary.json", confusion=None)(folder)
    names = {path.name for path in plots.draw_run(folder)}
    assert names == set(record.PICTURES) - {"confusion.png"}


def names_in(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_picture_is_written_whole_or_not_at_all(folder, monkeypatch, error):
    before = names_in(folder)
    old = folder / record.PICTURES[1]
    old.write_bytes(b"old")

    def save_half(figure, file, **options):
        if len(names_in(folder) & set(record.PICTURES)) < 2:  # the first, and the old one
            return savefig(figure, file, **options)
        file.write(b"half")
        file.flush()
        assert old.read_bytes() == b"old"  # were the process killed now
        raise error

    savefig = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", save_half)
    with pytest.raises(type(error)) as caught:
        plots.draw_run(folder)
    assert isinstance(error, KeyboardInterrupt) or str(old) in str(caught.value)
    assert old.read_bytes() == b"old"
    assert names_in(folder) - before == {record.PICTURES[0], old.name}
    monkeypatch.undo()
    assert {path.name for path in plots.draw_run(folder)} == set(record.PICTURES)
    assert old.read_bytes().startswith(b"\x89PNG")


def change(name, **fields):
    def apply(folder):
        summary = json.loads((folder / name).read_text())
        record.write_json(folder / name, {**summary, **fields})

    return apply


def write(name, content):
    return lambda folder: (folder / name).write_text(content)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: os.remove(f / "summary.json"), "record of a finished run, but lacks summary"),
        (lambda f: os.remove(f / "params.npz"), "record of a finished run, but lacks params.npz"),
        (write("summary.json", "{"), "summary.json is not of a finished run: Expecting"),
        (write("summary.json", "[]"), "summary.json .*: expected a JSON object, got list"),
        (write("summary.json", "{}"), "summary.json .*: it lacks 'test_loss'"),
        (change("summary.json", test_loss="low"), "summary.json .*: could not convert"),
        (change("summary.json", image_shape=[2, 3]), r"summary.json .* 4 pixels, .* got \(2, 3\)"),
        (change("summary.json", confusion=[1]), "summary.json .*: confusion must be a square"),
        (change("summary.json", test_accuracy=2), "summary.json .* 0 to 1, got 2"),
        (change("summary.json", test_examples="ten"), "summary.json .* a count, got 'ten'"),
        (write("metrics.jsonl", '{"epoch": 1}\n'), "metrics.jsonl .*: it lacks 'train_loss'"),
        (write("metrics.jsonl", ""), "metrics.jsonl is not of a finished run: it holds no epoch"),
        (
            write("metrics.jsonl", json.dumps(an_epoch(1, gradient=UNCLEAR))),
            "metrics.jsonl .*: could not convert string to float: 'high'",
        ),
        (write("mistakes.json", '[{"image": [[1]]}]'), "mistakes.json .*: it lacks 'label'"),
        (write("mistakes.json", "7"), "mistakes.json .*: 'int' object"),
        (write("params.npz", "PK"), "params.npz is not an .npz archive"),
    ],
)
def test_the_record_of_something_else_is_refused(folder, spoil, message):
    spoil(folder)
    before = names_in(folder)
    with pytest.raises((FileNotFoundError, ValueError), match=message) as caught:
        plots.draw_run(folder)
    assert str(folder) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert names_in(folder) == before


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"there is no folder {tmp_path}/nothing"):
        plots.draw_run(tmp_path / "nothing")
