"""Walks through the lecture, from a perceptron that guesses to the vectorised network.

  pip install -e '.[lecture]'     installs what pictures and formulas need
  %(prog)s                        all sections, on the embedded digits
  %(prog)s --only circuits,ladder some sections, in results/lecture-part
  %(prog)s --dataset mnist        all sections, on all of MNIST, in half an hour

Writes results/lecture/index.html, a page that a browser shows offline, its pictures, and a JSON
file with the numbers of each section.
"""

import contextlib
import dataclasses
import errno
import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tqdm

from jaxnet import cli, data, files, plots, record, text
from jaxnet.cli.common import Parser, StopError, check_out, given, say
from jaxnet.train.config import DataOptions
from jaxnet.train.options import Kind, add_flags, flag, option, path, positive_integer

__all__ = ["Options", "main", "parse"]

_TITLE = "From guessing to backpropagation"
_PREFACE = (
    "A walk through a lecture on neural networks. jaxnet computed every number and picture when it "
    "made this page. The code that the page shows is the code that ran."
)
_INDEX, _LOCK = "index.html", ".lock"
_names = Kind(
    "names of sections",
    lambda text: tuple(text.replace(" ", "").split(",")),
    lambda v: isinstance(v, tuple),
    metavar="NAMES",
)


@dataclasses.dataclass(frozen=True)
class Options(DataOptions):
    """The sections to compute, the data of the section program, and the folder to write to."""

    only: tuple[str, ...] | None = option(
        None, _names, "compute some sections only: circuits,ladder"
    )
    out: Path = option(
        None, path, "folder to write to (results/lecture, or with --only results/lecture-part)"
    )
    iterations: int = option(5000, positive_integer, "iterations of the section program (5000)")


def parse(program: str, argv: Sequence[str]) -> Options:
    """Returns the options.

    Exits with status 2 and one line on standard error if the command line is wrong.

    Raises:
      StopError: if a package that the page needs is missing.
    """
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
    # By default a page of some sections does not replace the page of all.
    out = options.out or Path("results", "lecture-part" if options.only else "lecture")
    return dataclasses.replace(options, only=options.only or tuple(SECTIONS), out=out)


def main(program: str, argv: Sequence[str]) -> int:
    """Computes the sections, writes the page, and returns the exit status."""
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
    with _hold(options.out):
        sections = _compute(options, dataset)
        contents = _encode(sections)
        _write(options.out, contents)
    seconds, pictures = time.perf_counter() - cli.START, len(contents) - len(sections) - 1
    written = options.out / _INDEX
    say(f"{len(sections)} sections, {pictures} pictures in {seconds:.0f} s: {written}")
    return 0


def _compute(options: Options, dataset: data.Dataset) -> list[Any]:
    """Returns the sections, in the lecture's order."""
    from jaxnet.lecture.sections import SECTIONS

    sections = []
    names = [name for name in SECTIONS if name in (options.only or ())]
    with plots.styled(), tqdm.tqdm(names, disable=None) as bar:
        for name in bar:
            bar.set_description(name)
            began = time.perf_counter()
            if name == "program":
                shown = _bar_of(options.iterations)
                section = SECTIONS[name](dataset, steps=options.iterations, say=shown)
            else:
                section = SECTIONS[name]()
            sections.append(section)
            say(f"{section.title}: {time.perf_counter() - began:.1f} s")
    return sections


def _encode(sections: Sequence[Any]) -> dict[str, bytes]:
    """Returns the content of every file, by name."""
    from jaxnet.lecture import page

    contents = {_INDEX: page.render(_TITLE, _PREFACE, sections).encode()}
    for section in sections:
        numbers = {**section.numbers, "environment": record.environment()}
        contents[f"{section.name}.json"] = (text.dumps(numbers, indent=True) + "\n").encode()
        for picture in page.pictures(section):
            contents[picture.file_name] = picture.content
    return contents


@contextlib.contextmanager
def _hold(folder: Path) -> Iterator[None]:
    """Keeps the folder from other processes; one that was made for nothing is removed again."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with files.lock(folder / _LOCK):
            yield
    except files.BusyError as error:
        raise StopError(f"--out {folder} is {error.strerror}: another run") from error
    finally:
        with contextlib.suppress(OSError):  # the first that is not empty
            for each in made:
                each.rmdir()


def _write(folder: Path, contents: dict[str, bytes]) -> None:
    """Writes all files; none takes its place before all are on the disk."""
    for name in contents:
        if (folder / name).is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder", str(folder / name))
    with contextlib.ExitStack() as stack:
        for name, content in contents.items():  # the page comes first here, so it moves last
            file = stack.enter_context(files.replacing(folder / name))
            file.write(content)
            file.flush()


def _bar_of(steps: int) -> Callable[[int], None]:
    """Returns a function that shows the program's progress."""
    bar = tqdm.tqdm(total=steps, desc="iterations", disable=None, leave=False)

    def show(done: int) -> None:
        bar.update(done - bar.n)
        if done >= steps:
            bar.close()

    return show
