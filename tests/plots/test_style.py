import pytest
from matplotlib.figure import Figure

from jaxnet import plots


def test_the_ending_is_the_format(tmp_path):
    path = tmp_path / "picture.svg"
    plots.save(Figure(figsize=(1, 1)), path)
    assert b"<svg" in path.read_bytes()
    with pytest.raises(ValueError, match=r"picture.txt must be one of .*png"):
        plots.save(Figure(), tmp_path / "picture.txt")
    assert list(tmp_path.iterdir()) == [path]


def test_margins_can_be_cut_off_and_dots_counted(tmp_path):
    sizes = []
    for number, options in enumerate([{"dpi": 50}, {"dpi": 100}, {"dpi": 100, "crop": True}]):
        figure = Figure(figsize=(3, 3))
        figure.text(0.5, 0.5, "in the middle")
        path = tmp_path / f"{number}.png"
        plots.save(figure, path, **options)
        sizes.append(int.from_bytes(path.read_bytes()[16:20]))  # the width, in a PNG's header
    assert sizes[:2] == [150, 300]
    assert sizes[2] < 200


@pytest.mark.parametrize("vector", [True, False])
def test_the_same_picture_is_the_same_bytes(vector):
    one, other = (plots.encode(Figure(figsize=(1, 1)), "empty", vector=vector) for _ in range(2))
    assert one == other
