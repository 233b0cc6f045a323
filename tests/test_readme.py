import json
import re
import subprocess
import sys

import pytest
from suites import accuracy, common

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
    folder = ROOT / "results" / "benchmark"
    page = (folder / "README.md").read_text()
    step, startup, reached = (
        json.loads((folder / f"{suite}-cpu-2.json").read_text())
        for suite in ("step", "startup", "time-to-accuracy")
    )
    seconds = [(name, each["seconds"]) for name, each in step["peers"].items()]
    seconds += startup["seconds"].items()
    seconds += [(name, [e["seconds"] for e in each]) for name, each in reached["peers"].items()]
    assert len(seconds) > 30
    for name, of_peer in seconds:
        assert f"| {name} | {common.spread(of_peer)} |" in page
    assert reached["recipe"] == accuracy.RECIPE
    assert f"{accuracy.RECIPE['epochs']} epochs, a learning rate that rises to" in page
