import importlib.util
import json

import pytest

from jaxnet import files

from ..conftest import call
from .test_page import Reader


def test_command_writes_page_pictures_and_numbers(tmp_path, capsys):
    out = tmp_path / "page"
    assert call("lecture", "--only", "circuits,neuron", "--out", out) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.splitlines()[-1].startswith("2 sections, 6 pictures in ")
    assert {path.name for path in out.iterdir()} == {
        "index.html", "neuron.json", "circuits.json", "neuron.png", "compound.svg", "sigmoid.svg",
        "folded.svg", "traced_0.svg", "traced_1.svg",
    }  # fmt: skip
    reader = Reader((out / "index.html").read_text())
    assert reader.ids == ["neuron", "circuits"]  # in the lecture's order
    numbers = json.loads((out / "circuits.json").read_text())
    assert numbers["compound"]["f"] == [-12, 1]
    assert [round(numbers["neuron"][wire][1], 4) for wire in ("w1", "x1", "w2", "x2", "w0")] == [
        -0.1966, 0.3932, -0.3932, -0.5898, 0.1966,
    ]  # fmt: skip


def test_a_part_does_not_take_the_place_of_the_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("lecture", "--only", " neuron") == 0
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["lecture-part"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--only", "circus"], "--only: must be of neuron, ladder"),
        (["--only", "neuron,,grid"], "--only: must be of neuron, ladder"),
        (["--dataset", "cifar"], "dataset must be one of digits, mnist"),
        (["--dataset", "mnist", "--manual-dir", "."], "train-images-idx3-ubyte.gz"),
        (["--out", "/dev/null/page"], "/dev/null"),
        (["--iterations", "0"], "--iterations: must be a positive integer"),
        (["--iterations", "ten"], "--iterations: must be a positive integer"),
    ],
)
def test_bad_flags_get_one_line(flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call("lecture", *flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "results").exists()


def test_extra_that_is_missing_is_named(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert call("lecture") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "lecture.py: error: needs igraph and latex2mathml: pip install -e '.[lecture]'"


def test_second_lecture_in_a_folder_is_refused(tmp_path, capsys):
    with files.lock(tmp_path / ".lock"):
        assert call("lecture", "--only", "neuron", "--out", tmp_path) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"--out {tmp_path} is in use by process " in line
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert call("lecture", "--only", "neuron", "--out", tmp_path) == 0
    assert not (tmp_path / ".lock").exists()


def test_where_one_file_cannot_be_written_none_is(tmp_path, capsys):
    (tmp_path / "index.html").write_text("earlier")
    (tmp_path / "neuron.json").mkdir()
    assert call("lecture", "--only", "neuron", "--out", tmp_path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"lecture.py: error: {tmp_path / 'neuron.json'}: is a folder"
    assert (tmp_path / "index.html").read_text() == "earlier"
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", "neuron.json"}


def test_folder_made_for_a_lecture_that_fails_is_removed(tmp_path, monkeypatch):
    from jaxnet.lecture import sections

    def fail():
        raise MemoryError

    monkeypatch.setitem(sections.SECTIONS, "neuron", fail)
    assert call("lecture", "--only", "neuron", "--out", tmp_path / "new" / "page") == 2
    assert not list(tmp_path.iterdir())
