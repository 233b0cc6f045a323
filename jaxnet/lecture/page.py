"""The page: sections of text, formulas, code, tables and pictures as one HTML file.

It needs no script, no font and no server.
"""

import base64
import html
import inspect
import textwrap
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from latex2mathml.converter import convert

from jaxnet import plots

__all__ = [
    "Block",
    "Code",
    "Folded",
    "Formula",
    "Picture",
    "Section",
    "Table",
    "Terminal",
    "Text",
    "named",
    "pictures",
    "render",
    "source",
]


class Text(NamedTuple):
    """A paragraph. Text between backquotes is set as code."""

    text: str


class Formula(NamedTuple):
    """A formula in LaTeX."""

    latex: str


class Code(NamedTuple):
    """The source of functions, without their docstrings.

    Attributes:
      functions: the functions; see `named` for private ones.
      folded: whether the source is hidden until the reader opens it.
    """

    functions: Sequence[Callable[..., Any]]
    folded: bool = False


class Terminal(NamedTuple):
    """The output of a program, in a fixed-width font."""

    text: str


class Picture(NamedTuple):
    """A picture.

    Attributes:
      name: the name of its file, without the suffix.
      figure: a figure of matplotlib.
      caption: what it shows; screen readers read this text, too.
      vector: whether it is stored as SVG (smaller if it has few lines) or as PNG.
    """

    name: str
    figure: Any
    caption: str
    vector: bool = True

    @property
    def file_name(self) -> str:
        """The name of the picture's file."""
        return f"{self.name}.{'svg' if self.vector else 'png'}"

    @property
    def content(self) -> bytes:
        """The bytes of the picture's file."""
        return plots.encode(self.figure, self.name, vector=self.vector)


class Folded(NamedTuple):
    """Pictures that are hidden until the reader opens them."""

    title: str
    pictures: Sequence[Picture]


class Table(NamedTuple):
    """A table. Its first column names the rows."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


Block = Text | Formula | Code | Terminal | Picture | Folded | Table


class Section(NamedTuple):
    """A part of the lecture, with its results.

    Attributes:
      name: a short name, for links and files.
      title: the heading.
      slides: the titles of the slides that it covers.
      blocks: the content of the page, in order.
      numbers: the results, as plain values for a JSON file.
    """

    name: str
    title: str
    slides: str
    blocks: Sequence[Block]
    numbers: dict[str, Any]


def render(title: str, preface: str, sections: Sequence[Section]) -> str:
    """Returns the page as HTML.

    Args:
      title: the page's heading.
      preface: the first paragraph.
      sections: the page's sections, in order.
    """
    links = "".join(f'<li><a href="#{each.name}">{_text(each.title)}</a></li>' for each in sections)
    body = "".join(map(_section, sections))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<link rel="icon" href="data:,">\n'  # otherwise browsers request a favicon
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{_text(title)}</h1>\n<p>{_text(preface)}</p>\n<nav><ol>{links}</ol></nav>\n"
        f"{body}</main>\n</body>\n</html>\n"
    )


def pictures(section: Section) -> list[Picture]:
    """Returns all pictures of a section, including the folded ones."""
    found: list[Picture] = []
    for block in section.blocks:
        if isinstance(block, Picture):
            found.append(block)
        elif isinstance(block, Folded):
            found.extend(block.pictures)
    return found


def named(module: ModuleType, *names: str) -> list[Callable[..., Any]]:
    """Returns functions of a module by name, to show their source.

    The page may show a private function, but it never calls one.
    """
    return [getattr(module, name) for name in names]


def source(function: Callable[..., Any]) -> str:
    """Returns a function's source without its docstring."""
    text = textwrap.dedent(inspect.getsource(function))
    if function.__doc__:
        before, quotes, rest = text.partition('"""')
        _, _, after = rest.partition('"""')
        text = before.rstrip() + after if quotes else text
    return text.rstrip()


def _section(section: Section) -> str:
    blocks = "\n".join(map(_block, section.blocks))
    return (
        f'<section id="{section.name}">\n<h2>{_text(section.title)}</h2>\n'
        f'<p class="slides">Slides: {_text(section.slides)}</p>\n{blocks}\n</section>\n'
    )


def _block(block: Block) -> str:
    match block:
        case Text(text):
            return f"<p>{_text(text)}</p>"
        case Formula(latex):
            return f'<div class="formula">{convert(latex, display="block")}</div>'
        case Code(functions, folded):
            files = dict.fromkeys(each.__module__.replace(".", "/") + ".py" for each in functions)
            sources = html.escape("\n\n".join(map(source, functions)))
            inside = f"<pre><code>{sources}</code></pre>"
            if folded:
                return f"<details><summary>{', '.join(files)}</summary>{inside}</details>"
            return f'<p class="file">{", ".join(files)}</p>{inside}'
        case Terminal(text):
            return f'<pre class="terminal">{html.escape(text)}</pre>'
        case Picture():
            return _picture(block)
        case Folded(title, inside):
            shown = "".join(map(_picture, inside))
            return f"<details><summary>{_text(title)}</summary>{shown}</details>"
        case Table(header, rows, caption):
            head = "".join(f"<th>{_text(each)}</th>" for each in header)
            lines = "".join(
                "<tr>" + "".join(f"<td>{_text(each)}</td>" for each in row) + "</tr>"
                for row in rows
            )
            title = f"<figcaption>{_text(caption)}</figcaption>" if caption else ""
            return (
                f'<figure class="table">{title}<div class="wide"><table><thead><tr>{head}</tr>'
                f"</thead><tbody>{lines}</tbody></table></div></figure>"
            )


def _picture(picture: Picture) -> str:
    kind = "image/svg+xml" if picture.vector else "image/png"
    data = base64.b64encode(picture.content).decode()
    caption = _text(picture.caption)
    # On a narrow screen, a wide picture scrolls instead of shrinking until it cannot be read.
    wide = ' class="wide"' if picture.figure.get_figwidth() > _WIDE else ""
    return (
        f'<figure><div{wide}><img alt="{html.escape(picture.caption, quote=True)}" '
        f'src="data:{kind};base64,{data}"></div><figcaption>{caption}</figcaption></figure>'
    )


def _text(text: str) -> str:
    parts = html.escape(text).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))


_WIDE = 7.0  # inches

_STYLE = """
:root { --ink: #1c1e21; --paper: #fdfdfb; --soft: #5d6269; --card: #f1f1ec; --link: #1f5fae; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e4e0; --paper: #17191c; --soft: #a0a5ac; --card: #24272b; --link: #82b1f0; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 17px/1.55 Georgia, "Times New Roman", serif; }
main { max-width: 56rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1, h2 { line-height: 1.2; font-weight: 600; }
h2 { margin-top: 3.5rem; }
a { color: var(--link); }
nav ol { padding-left: 1.3rem; }
.slides { color: var(--soft); font-size: .9rem; }
pre, code { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: .82rem; }
pre { background: var(--card); padding: .8rem 1rem; border-radius: 6px; overflow-x: auto;
  line-height: 1.4; }
figure { margin: 1.5rem 0; }
summary { cursor: pointer; color: var(--link); }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; background: #fff;
  border-radius: 6px; padding: 6px; }
figure.table { margin: 1rem 0; }
.file { color: var(--soft); font-size: .8rem; margin: 1rem 0 -.8rem; }
figcaption { color: var(--soft); font-size: .9rem; padding: .5rem 0; text-align: left; }
.formula, .wide { overflow-x: auto; }
.wide img { max-width: none; width: 100%; min-width: 46rem; }
table { border-collapse: collapse; font-size: .88rem; }
th, td { padding: .25rem .8rem .25rem 0; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead { border-bottom: 1px solid var(--soft); }
"""
