"""Walks through the lecture, from a perceptron that guesses to the vectorised network.

  pip install -e '.[lecture]'     what pictures and formulas need
  %(prog)s                        all of it, on the embedded digits
  %(prog)s --only circuits,ladder some sections, in results/lecture-part
  %(prog)s --dataset mnist        with all of MNIST, in half an hour

Writes a page, results/lecture/index.html, that a browser shows without a network; its pictures; and
the numbers behind them.
"""

import dataclasses
import importlib.util
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import tqdm

from jaxnet import cli, data, files, plots, record
from jaxnet.cli.common import Parser, StopError, check_out, given, say
from jaxnet.train.config import DataOptions
from jaxnet.train.options import Kind, add_flags, flag, option, path, positive_integer

__all__ = ["Options", "main", "parse"]

_TITLE = "From guessing to backpropagation"
_PREFACE = (
    "A walk through a lecture on neural networks. Its numbers and pictures were computed by the "
    "library, when the page was made; the functions at its heart are shown as they are."
)
_names = Kind(
    "names of sections",
    lambda text: tuple(text.replace(" ", "").split(",")),
    lambda v: isinstance(v, tuple),
    metavar="NAMES",
)


@dataclasses.dataclass(frozen=True)
class Options(DataOptions):
    """Which sections to compute, on what, and where they go."""

    only: tuple[str, ...] | None = option(
        None, _names, "some sections, in a folder of their own: circuits,ladder"
    )
    out: Path = option(
        None, path, "folder (results/lecture; of some sections, results/lecture-part)"
    )
    iterations: int = option(5000, positive_integer, "of the program (5000)")


def parse(program: str, argv: Sequence[str]) -> Options:
    """Returns the options, once they make sense and there is all that the sections need."""
    parser = Parser(program, __doc__)
    add_flags(parser, Options)
    flags = given(parser, argv)
    if "program" not in flags.get("only", ("program",)):
        for name in ("iterations", *(field.name for field in dataclasses.fields(DataOptions))):
            if name in flags:
                parser.error(f"argument {flag(name)}: needs the section program, see --only")
    options = Options(**flags)
    missing = [name for name in ("igraph", "latex2mathml") if not importlib.util.find_spec(name)]
    if missing:
        raise StopError(f"needs {' and '.join(missing)}: pip install -e '.[lecture]'")
    from jaxnet.lecture.sections import SECTIONS

    for name in options.only or ():
        if name not in SECTIONS:
            parser.error(f"argument --only: must be of {', '.join(SECTIONS)}, got {name!r}")
    # Some sections do not take the place of all.
    out = options.out or Path("results", "lecture-part" if options.only else "lecture")
    return dataclasses.replace(options, only=options.only or tuple(SECTIONS), out=out)


def main(program: str, argv: Sequence[str]) -> int:
    """Computes the sections and writes the page."""
    options = parse(program, argv)
    try:
        dataset = data.load(
            options.dataset,
            validation_split=0,
            data_dir=options.data_dir,
            manual_dir=options.manual_dir,
        )
    except ValueError as error:
        raise StopError(error) from error
    check_out(options.out)
    from jaxnet.lecture import page
    from jaxnet.lecture.sections import SECTIONS

    found = []
    names = [name for name in SECTIONS if name in (options.only or ())]  # in the lecture's order
    with plots.styled(), tqdm.tqdm(names, disable=None) as bar:
        for name in bar:
            bar.set_description(name)
            began = time.perf_counter()
            if name == "program":
                shown = _bar_of(options.iterations)
                section = SECTIONS[name](dataset, options.iterations, shown)
            else:
                section = SECTIONS[name]()
            found.append(section)
            say(f"{section.title}: {time.perf_counter() - began:.1f} s")
    # All is computed before anything is written, and each file is written whole.
    options.out.mkdir(parents=True, exist_ok=True)
    pictures = [picture for section in found for picture in page.pictures(section)]
    for picture in pictures:
        with files.replacing(
            options.out / f"{picture.name}.{'svg' if picture.vector else 'png'}"
        ) as file:
            file.write(picture.content)
    for section in found:
        numbers = {**section.numbers, "environment": record.environment()}
        files.write_json(options.out / f"{section.name}.json", numbers)
    written = options.out / "index.html"
    with files.replacing(written) as file:
        file.write(page.render(_TITLE, _PREFACE, found).encode())
    seconds = time.perf_counter() - cli.START
    say(f"{len(found)} sections, {len(pictures)} pictures in {seconds:.0f} s: {written}")
    return 0


def _bar_of(steps: int) -> Callable[[int], None]:
    """Returns what shows how far the program is."""
    bar = tqdm.tqdm(total=steps, desc="iterations", disable=None, leave=False)

    def show(done: int) -> None:
        bar.update(done - bar.n)
        if done >= steps:
            bar.close()

    return show
