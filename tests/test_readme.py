import json
import re
import runpy
import subprocess
import sys

import pytest
from suites import accuracy

from .conftest import ROOT

README = (ROOT / "README.md").read_text()
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def test_there_are_programs():
    assert len(PROGRAMS) == 4


@pytest.mark.parametrize("program", PROGRAMS, ids=["network", "gradcheck", "circuit", "training"])
def test_programs_run_as_printed(program, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    if "check_grads" in program:
        assert "the sign: it is minus the right gradient" in done.stdout
        assert done.stdout.splitlines()[-1].startswith("fail: gradient in float")


def test_circuit_is_printed_as_shown(tmp_path):
    (program,) = [each for each in PROGRAMS if "circuit.trace" in each]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout in README


def test_links_lead_somewhere():
    for text in ("README.md", "results/README.md", "CONTRIBUTING.md"):
        page = ROOT / text
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{text} links to {link}"


def test_tables_of_the_benchmark_are_its_records():
    tables = runpy.run_path(str(ROOT / "scripts" / "studies" / "tables.py"))
    pages = [page.read_text() for page in tables["PAGES"]]
    named = [name for page in pages for name in re.findall("<!-- table: (.*) -->", page)]
    assert sorted(named) == sorted(tables["TABLES"])
    for page in pages:
        assert tables["with_tables"](page) == page
        forged = re.sub(r"\| jaxnet \| \S+", "| jaxnet | 0.001", page)
        assert tables["with_tables"](forged) == page != forged


def test_recipe_of_the_benchmark_is_told_as_it_was_run():
    folder = ROOT / "results" / "benchmark"
    reached = json.loads((folder / "time-to-accuracy-cpu-2.json").read_text())
    assert reached["recipe"] == accuracy.RECIPE
    told = f"{accuracy.RECIPE['epochs']} epochs, a learning rate that rises to"
    assert told in (folder / "README.md").read_text()
