import html.parser
import inspect
import re
import shutil
import subprocess

import pytest

from jaxnet import backprop
from jaxnet.lecture import neuron, neurons, page

from ..conftest import ROOT

VOID = {"meta", "link", "img", "br"}
COMMITTED = ROOT / "results" / "lecture" / "index.html"


class Reader(html.parser.HTMLParser):
    """Notes what a page consists of, and that its tags close."""

    def __init__(self, text):
        super().__init__()
        self.open, self.addresses, self.texts, self.ids = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href") and v]
        self.ids += [v for k, v in attrs if k == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_page_needs_nothing_else():
    text = page.render("A title", "A `preface`.", [neuron.section()])
    reader = Reader(text)
    assert not reader.open
    assert reader.ids == ["neuron"]
    assert all(each.startswith(("#", "data:")) for each in reader.addresses)
    assert "script" not in text
    assert not re.search(r"url\(|@import", text)
    assert "<code>preface</code>" in text


def test_committed_page_needs_nothing_else():
    text = COMMITTED.read_text()
    reader = Reader(text)
    assert not reader.open
    assert all(each.startswith(("#", "data:")) for each in reader.addresses)
    assert len(text) < 1_000_000


def test_source_is_that_of_the_function_without_its_docstring():
    assert page.source(neurons.chain).splitlines() == [
        "def chain(w: jax.Array, x: jax.Array, t: float) -> jax.Array:",
        "    sigma = jax.nn.sigmoid(x @ w)",
        "    return 2 * (sigma - t) * sigma * (1 - sigma) * x",
    ]


def test_private_functions_are_shown_by_name():
    (backward,) = page.named(backprop, "_backward")
    text = page.source(backward)
    assert text.startswith("def _backward(")
    assert '"""' not in text
    assert inspect.getsource(backward).endswith(text[-200:] + "\n")
    with pytest.raises(AttributeError, match="_sideways"):
        page.named(backprop, "_sideways")


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
@pytest.mark.parametrize(
    ("width", "scheme", "paper"), [(1280, 0, "rgb(23, 25, 28)"), (390, 1, "rgb(253, 253, 251)")]
)
def test_browser_shows_the_page(tmp_path, width, scheme, paper):
    # An iframe is as narrow as it is told to be; a window has at least 500 pixels.
    shutil.copy(COMMITTED, tmp_path / "index.html")
    frame = tmp_path / "frame.html"
    frame.write_text(
        f"<iframe id=page src=index.html width={width} height=900></iframe><script>"
        "window.onload = () => { const page = document.getElementById('page').contentDocument;"
        "document.title = [page.documentElement.scrollWidth, page.documentElement.clientWidth,"
        "getComputedStyle(page.body).backgroundColor,"
        "[...page.images].filter(each => !each.naturalWidth).length].join(';') }</script>"
    )
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
            "--allow-file-access-from-files", "--enable-logging=stderr",
            "--virtual-time-budget=5000", "--host-resolver-rules=MAP * 0.0.0.0",
            f"--blink-settings=preferredColorScheme={scheme}",
            f"--user-data-dir={tmp_path / 'profile'}", frame.as_uri(),
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    (title,) = re.findall(r"<title>([^<]*)</title>", done.stdout)
    wide, room, background, broken = title.split(";")
    assert int(wide) <= int(room) <= width
    assert background == paper
    assert broken == "0"
    assert "CONSOLE" not in done.stderr
