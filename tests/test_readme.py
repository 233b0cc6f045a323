import re
import subprocess
import sys

import pytest

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
