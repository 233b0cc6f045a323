import json

import jax
import matplotlib as mpl
import numpy as np
import pytest

from jaxnet import checkpoint, mlp, plots, record

PICTURES = {"training.png", "weights.png", "confusion.png", "mistakes.png"}


def test_numbers_that_json_lacks_are_strings_that_float_reads(tmp_path):
    record.write_json(tmp_path / "a.json", {"row": [1.0, float("nan")], "one": -float("inf")})
    found = json.loads((tmp_path / "a.json").read_text())
    assert found == {"row": [1.0, "nan"], "one": "-inf"}
    assert float(found["one"]) == -float("inf")


def test_what_is_no_json_is_refused(tmp_path):
    for value in ({1: 2}, {"a": {2.0: 3}}, {"a": object()}, {"a": {1, 2}}):
        with pytest.raises(TypeError, match="JSON"):
            record.write_json(tmp_path / "a.json", value)
    assert not list(tmp_path.iterdir())
    with record.Record(tmp_path / "run", {}) as log:
        log.log({"epoch": 1, "loss": float("nan")})
        assert list(record.read_metrics(tmp_path / "run")) == [{"epoch": 1, "loss": "nan"}]


def test_a_record_is_whole_at_any_moment(tmp_path):
    with record.Record(tmp_path / "run", {"epochs": 2}) as log:
        assert record.read_json(log.path("config.json")) == {"epochs": 2}
        log.log({"epoch": 1, "train_loss": 0.5})
        assert list(record.read_metrics(log.directory)) == [{"epoch": 1, "train_loss": 0.5}]
        log.log({"epoch": 2, "train_loss": 0.25})
        log.finish({"test_accuracy": 0.9})
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == {"test_accuracy": 0.9}
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]


def test_json_is_laid_out_by_rows_and_means_the_same(tmp_path):
    values = {
        "rows": [[1, 2], [3.5, None]],
        "empty": [[], {}],
        "text": 'a [ 1,\n 2 ] "b"',
        "tree": {"leaves": [{"shape": [3, 4], "ok": True}]},
    }
    record.write_json(tmp_path / "values.json", values)
    assert record.read_json(tmp_path / "values.json") == values
    assert "    [3.5, null]\n" in (tmp_path / "values.json").read_text()


def test_a_new_record_leaves_nothing_of_the_old_and_all_else(tmp_path):
    with record.Record(tmp_path, {"run": 1}) as log:
        log.log({"epoch": 1})
        log.finish({"test_accuracy": 0.9})
        log.path("training.png").touch()
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "holiday.png").touch()
    with record.Record(tmp_path, {"run": 2}) as log:
        log.finish({"test_accuracy": 0.8})
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"config.json", "metrics.jsonl", "summary.json", "notes.txt", "holiday.png"}
    assert not list(record.read_metrics(tmp_path))


def test_a_record_that_nothing_was_logged_to_leaves_no_trace(tmp_path):
    with record.Record(tmp_path / "a" / "b", {"run": 1}):
        assert (tmp_path / "a" / "b").exists()
    assert not list(tmp_path.iterdir())
    with record.Record(tmp_path, {"run": 1}) as log:
        log.finish({"test_accuracy": 0.9})
    with record.Record(tmp_path, {"run": 2}):
        assert record.read_json(tmp_path / "running" / "config.json") == {"run": 2}
    assert record.read_json(tmp_path / "config.json") == {"run": 1}
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "metrics.jsonl",
        "summary.json",
    }


def test_one_run_writes_to_a_folder_at_a_time(tmp_path):
    with record.Record(tmp_path, {"run": 1}) as log:
        with pytest.raises(OSError, match="in use by process"):
            record.Record(tmp_path, {"run": 2})
        log.log({"epoch": 1})
    with record.Record(tmp_path, {"run": 3}) as log:
        log.finish({})
    assert record.read_json(tmp_path / "config.json") == {"run": 3}


def test_check_writable_leaves_no_trace(tmp_path):
    record.check_writable(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(NotADirectoryError, match="file is not a folder"):
            record.check_writable(place)


def test_environment_names_what_a_measurement_depends_on():
    environment = record.environment()
    assert environment["versions"]["jax"] == jax.__version__
    assert environment["platform"] == jax.default_backend()
    assert environment["cpus"] >= 1
    assert environment["dtype"] in ("float32", "float64")
    json.dumps(environment)


def make_run(directory, *, epochs, wrong, validated=True):
    """Writes a record as the script does, of numbers made up here."""
    confusion = np.diag([30, 20, 10])
    confusion[0, 1] = wrong
    mistake = {"index": 3, "label": 0, "predicted": 1, "image": np.full((4, 5), 128).tolist()}
    with record.Record(directory, {}) as log:
        for epoch in range(1, epochs + 1):
            held_out = (0.5, 0.9) if validated else (None, None)
            keys = ("epoch", "train_loss", "validation_loss", "validation_accuracy")
            log.log(dict(zip(keys, (epoch, 1 / epoch, *held_out), strict=True)))
        checkpoint.save(log.path(record.PARAMS), mlp.init(jax.random.key(0), (20, 70, 3)))
        record.write_json(log.path(record.MISTAKES), [mistake] * wrong)
        log.finish(
            {
                "test_loss": 0.4,
                "test_accuracy": 60 / (60 + wrong),
                "test_examples": 60 + wrong,
                "image_shape": [4, 5],
                "confusion": confusion.tolist(),
            }
        )


@pytest.mark.parametrize("epochs", [1, 5])
@pytest.mark.parametrize("validated", [True, False])
def test_pictures_are_drawn_from_the_record(tmp_path, epochs, validated):
    make_run(tmp_path, epochs=epochs, wrong=9, validated=validated)
    paths = plots.draw_run(tmp_path)
    assert {path.name for path in paths} == PICTURES
    for path in paths:
        picture = mpl.image.imread(path)
        assert min(picture.shape[:2]) > 100
        assert picture[..., :3].std() > 0.02  # not blank


def test_no_mistakes_no_picture_of_them(tmp_path):
    make_run(tmp_path, epochs=2, wrong=0)
    assert {path.name for path in plots.draw_run(tmp_path)} == PICTURES - {"mistakes.png"}


def test_weights_are_shown_where_they_belong():
    """The largest neuron first, each weight at its pixel."""
    weight = np.zeros((6, 3))
    weight[:, 1] = [1, 2, 3, 4, 5, 6]
    weight[0, 2] = 1
    (axes, _) = plots.first_layer(weight, (2, 3)).axes
    shown = np.ma.filled(axes.images[0].get_array(), np.nan)
    np.testing.assert_array_equal(shown[:2, :3], [[1, 2, 3], [4, 5, 6]])
    assert shown[0, 4] == 1


def test_mosaic_leaves_nothing_out():
    images = np.arange(1, 5 * 6 + 1, dtype=float).reshape(5, 2, 3)
    mosaic, corners = plots.run._mosaic(images, columns=2)
    for image, (top, left) in zip(images, corners, strict=True):
        np.testing.assert_array_equal(mosaic[top : top + 2, left : left + 3], image)
    assert np.nansum(mosaic) == images.sum()


def test_a_folder_of_the_users_own_is_not_removed(tmp_path):
    (tmp_path / "running").mkdir()
    (tmp_path / "running" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is not of an unfinished run"):
        record.Record(tmp_path, {"run": 1})
    assert (tmp_path / "running" / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["running"]
