"""Walks through the lecture, from a perceptron that guesses to the vectorised network.

  pip install -e '.[lecture]'                           what pictures and formulas need
  python scripts/lecture.py                             all of it, on the embedded digits
  python scripts/lecture.py --only circuits,ladder      some sections, in results/lecture-part
  python scripts/lecture.py --dataset mnist             with all of MNIST, in half an hour

Writes a page, results/lecture/index.html, that a browser shows without a network; its pictures; and
the numbers behind them.
"""

import importlib.util
import sys
import time
from pathlib import Path
from typing import NamedTuple

import cli
import tqdm

from jaxnet import data, plots, record

TITLE = "From guessing to backpropagation"
PREFACE = (
    "A walk through a lecture on neural networks. Its numbers and pictures were computed by the "
    "library, when the page was made; the functions at its heart are shown as they are."
)


class Flags(NamedTuple):
    """What the user asked for."""

    only: tuple[str, ...]
    out: Path
    dataset: data.Dataset
    steps: int


def parse(arguments: list[str] | None) -> Flags:
    """Returns the flags, once they make sense and there is all that they need."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--only", help="some sections, in a folder of their own: circuits,ladder")
    add("--out", type=Path, help="folder (results/lecture; of some sections, results/lecture-part)")
    add("--iterations", type=cli.positive_integer, default=5000, help="of the program (5000)")
    cli.add_data_flags(parser)
    found = parser.parse_args(arguments)
    missing = [name for name in ("igraph", "latex2mathml") if not importlib.util.find_spec(name)]
    if missing:
        raise cli.StopError(f"needs {' and '.join(missing)}: pip install -e '.[lecture]'")
    from jaxnet.lecture.sections import SECTIONS

    names = tuple(found.only.replace(" ", "").split(",")) if found.only else tuple(SECTIONS)
    for name in names:
        if name not in SECTIONS:
            parser.error(f"argument --only: must be of {', '.join(SECTIONS)}, got {name!r}")
    # A part does not take the place of the whole.
    out = found.out or Path("results", "lecture-part" if found.only else "lecture")
    try:
        dataset = data.load(
            found.dataset or "digits",
            validation_split=0,
            data_dir=found.data_dir,
            manual_dir=found.manual_dir,
        )
    except ValueError as error:
        raise cli.StopError(error) from error
    try:
        record.check_writable(out)  # rather now than after the work
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cli.StopError(f"--out {out} cannot be written: {error.strerror or error}") from error
    return Flags(names, out, dataset, found.iterations)


def main(flags: Flags) -> int:
    """Computes the sections and writes the page."""
    from jaxnet.lecture import page
    from jaxnet.lecture.sections import SECTIONS

    start, found = time.perf_counter(), []
    names = [name for name in SECTIONS if name in flags.only]  # in the lecture's order
    with plots.styled(), tqdm.tqdm(names, disable=None) as bar:
        for name in bar:
            bar.set_description(name)
            began = time.perf_counter()
            if name == "program":
                section = SECTIONS[name](flags.dataset, flags.steps, bar_of(flags.steps))
            else:
                section = SECTIONS[name]()
            found.append(section)
            tqdm.tqdm.write(f"{section.title}: {time.perf_counter() - began:.1f} s")
    pictures = [picture for section in found for picture in page.pictures(section)]
    for picture in pictures:
        path = flags.out / f"{picture.name}.{'svg' if picture.vector else 'png'}"
        path.write_bytes(picture.content)
    for section in found:
        numbers = {**section.numbers, "environment": record.environment()}
        record.write_json(flags.out / f"{section.name}.json", numbers)
    (flags.out / "index.html").write_text(page.render(TITLE, PREFACE, found), encoding="utf-8")
    seconds, written = time.perf_counter() - start, flags.out / "index.html"
    print(f"{len(found)} sections, {len(pictures)} pictures in {seconds:.0f} s: {written}")
    return 0


def bar_of(steps: int):
    """Returns what shows how far the program is."""
    bar = tqdm.tqdm(total=steps, desc="iterations", disable=None, leave=False)

    def show(done: int) -> None:
        bar.update(done - bar.n)
        if done >= steps:
            bar.close()

    return show


if __name__ == "__main__":
    sys.exit(cli.run("lecture.py", lambda: main(parse(None))))
