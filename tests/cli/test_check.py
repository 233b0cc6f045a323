import json
import re
import sys

import pytest

from jaxnet import backprop, faults, record
from tests.conftest import call


def test_check_gradients_agrees_and_says_so(run_script, tmp_path):
    done = run_script("check_gradients.py", "--epochs", 2, "--json", "report.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("training for 2 epochs on digits ...\n")
    report = record.read_json(tmp_path / "report.json")
    assert report["verdict"] == "pass"
    assert report["dtype"] == "float64"
    assert len(report["leaves"]) == 6
    for leaf in report["leaves"]:
        assert leaf["path"] in done.stdout
        assert leaf["autodiff_error"] < 1e-12
        assert leaf["interval"]["high"] < 1e-7
    assert json.dumps(report)


@pytest.mark.parametrize("fault", ["sign", "bias-not-summed"])
def test_check_gradients_exits_1_on_a_fault(capsys, fault):
    assert call("check", "--fault", fault, "--float32") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("check_gradients.py: the gradient does not pass: ")
    assert {"sign": " and 5 more", "bias-not-summed": "params[0].bias"}[fault] in line


@pytest.mark.long
@pytest.mark.parametrize("fault", ["transposed-weight"])
def test_check_gradients_exits_1_in_float64(run_script, fault):
    done = run_script("check_gradients.py", "--fault", fault)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("few", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_self_test_catches_every_fault(few, tmp_path, monkeypatch, capsys):
    if few:
        for name, keep in (("CATALOGUE", 40), ("FUNCTIONS", 27)):  # the last ones
            catalogue = list(getattr(faults, name).items())[keep:]
            monkeypatch.setattr(faults, name, dict(catalogue))
    out = tmp_path / "report.json"
    assert call("check", "--self-test", "--json", out) == 0
    trials = record.read_json(out)["trials"]
    planted = [trial for trial in trials if trial["expected"] == "fail"]
    assert {trial["name"] for trial in planted} == {*faults.CATALOGUE, *faults.FUNCTIONS}
    assert len(planted) >= (5 if few else 70)
    assert all(trial["verdict"] == trial["expected"] for trial in trials)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["fault", "verdict", "leaf", "cause", "as", "diagnosed"]
    right, wrong = len(trials) - len(planted), len(planted)
    assert lines[-1].startswith(
        f"{wrong} of {wrong} faults caught; {right} of {right} right gradients passed, in float"
    )
    assert sum(line.split()[1] == "caught" for line in lines[1:-2]) == wrong


def test_a_self_test_that_misses_a_fault_fails(monkeypatch, capsys):
    """The control of the control: a right gradient that is said to be wrong."""
    monkeypatch.setattr(faults, "CATALOGUE", {"not-a-fault": backprop.value_and_grad})
    monkeypatch.setattr(faults, "FUNCTIONS", {})
    assert call("check", "--self-test") == 1
    captured = capsys.readouterr()
    assert captured.err == "check_gradients.py: not as expected: not-a-fault\n"
    assert "MISSED" in captured.out
    assert "0 of 1 faults caught" in captured.out


OWN = """
import jax, jax.numpy as jnp, numpy as np
def loss(params, x): return jnp.sum(jnp.tanh(params["w"] @ x))
def wrong(params, x): return {"w": 2 * jax.grad(loss)(params, x)["w"]}
def example(): return {"w": jnp.ones((2, 3)) / 4}, jnp.arange(3.0)
point = ({"w": np.ones((2, 3), np.float32)}, np.ones(3, np.float32))
number = 3
def vector(params, x): return params["w"] @ x
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "own_functions.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop("own_functions", None)


@pytest.mark.parametrize(
    ("flags", "status", "text"),
    [
        ("--arguments own_functions:example", 0, "params['w']"),
        ("--arguments own_functions:point --argnums 0,1 --exhaustive --control", 0, "pass: grad"),
        ("--arguments own_functions:example --gradient own_functions:wrong", 1, "a factor of 2"),
    ],
)
@pytest.mark.usefixtures("own_module")
def test_a_function_of_the_users(flags, status, text, capsys):
    assert call("check", "--target", "own_functions:loss", *flags.split()) == status
    assert text in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--target own_functions:loss", "argument --target: needs --arguments"),
        ("--arguments own_functions:point", "argument --arguments: needs --target"),
        ("--target own_functions --arguments a:b", "--target must be MODULE:NAME, got 'own_funct"),
        ("--target nowhere:f --arguments a:b", "nowhere:f: ModuleNotFoundError: No module named"),
        ("--target own_functions:f --arguments a:b", "own_functions has no f"),
        (
            "--target own_functions:number --arguments own_functions:point",
            "--target must name a function, got a int",
        ),
        (
            "--target own_functions:loss --arguments own_functions:number",
            "own_functions:number must give a tuple, (x,) for a single argument, got int",
        ),
        (
            "--target own_functions:vector --arguments own_functions:point",
            "f must return a scalar, got",
        ),
        (
            "--target own_functions:loss --arguments own_functions:point --argnums 2",
            "argnums must be from 0 to 1, got 2",
        ),
        (
            "--target own_functions:loss --arguments own_functions:point --hidden 3",
            "argument --hidden: not allowed with argument --target",
        ),
        ("--self-test --fault sign", "argument --fault: not allowed with argument --self-test"),
    ],
)
@pytest.mark.usefixtures("own_module")
def test_bad_targets(flags, message, capsys):
    assert call("check", *flags.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--batch-size 1295", "batch_size must be from 1 to the 1294 examples"),
        ("--directions 0", "argument --directions: must be a positive integer, got '0'"),
        ("--tolerance 1e-20", "tolerance must be 2e-16 or more, which is what float64 resolves"),
        ("--tolerance 0", "argument --tolerance: must be a positive number, got '0'"),
        ("--fault none", "argument --fault: there is no 'none' (--list-faults lists them)"),
        ("--fault hiden-sigmoid", "no 'hiden-sigmoid'; did you mean hidden-sigmoid? (--list-f"),
        ("--json new/report.json --float32", "cannot be written: there is no folder new"),
        ("--fault transposed-weight --hidden 8,9 --float32", "needs a square layer"),
        ("--fault bias-not-summed --no-bias --float32", "needs a network that has them"),
        ("--dataset minst --float32", "dataset must be one of"),
        ("--json setup.py/report.json --float32", "--json setup.py/report.json cannot be written"),
        ("--json . --float32", "--json . cannot be written: it is a folder"),
        ("--fault hidden-sigmoid --hidden none --float32", "hidden layers needs one, got none"),
    ],
)
def test_check_gradients_bad_input(flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "setup.py").touch()
    assert call("check", *flags.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


RAISES = """
import jax, jax.numpy as jnp, sys
def loss(x): return jnp.sum(x**2)
point = (jnp.ones(3),)
def raises(*args): raise RuntimeError("a fault of the user's\\nand more")
def refuses(*args): raise ValueError("not this")
def misses(x): return {"a": x}["b"]
def quits(*args): sys.exit(0)
def silent(*args): assert False
def steers(x): return jnp.sum(x) if x[0] > 0 else jnp.sum(x)
"""


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            "--target faulty:raises --arguments faulty:point",
            "--target faulty:raises: RuntimeError: a fault of the user's",
        ),
        (
            "--target faulty:refuses --arguments faulty:point",
            "--target faulty:refuses: ValueError: not this",
        ),
        (
            "--target faulty:misses --arguments faulty:point",
            "--target faulty:misses: KeyError: 'b'",
        ),
        ("--target faulty:quits --arguments faulty:point", "--target faulty:quits: SystemExit: 0"),
        ("--target faulty:silent --arguments faulty:point", "faulty:silent: AssertionError"),
        (
            "--target faulty:steers --arguments faulty:point",
            "--target faulty:steers: TracerBoolConversionError: ",
        ),
        (
            "--target faulty:loss --arguments faulty:raises",
            "--arguments faulty:raises: RuntimeError: a fault of the user's",
        ),
        (
            "--target faulty:loss --arguments faulty:point --gradient faulty:raises",
            "--target faulty:loss: RuntimeError: a fault of the user's",
        ),
        ("--target unreadable:f --arguments faulty:point", "--target unreadable:f: SyntaxError: "),
        ("--target divides:f --arguments faulty:point", "divides:f: ZeroDivisionError: "),
        ("--target leaves:f --arguments faulty:point", "--target leaves:f: SystemExit: 0"),
    ],
)
def test_what_a_users_code_raises_is_bad_input(flags, message, tmp_path, monkeypatch, capsys):
    modules = {
        "faulty": RAISES,
        "unreadable": "def f(:",
        "divides": "1 / 0",
        "leaves": "raise SystemExit(0)",
    }
    for name, text in modules.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    try:
        assert call("check", *flags.split()) == 2
    finally:
        for name in modules:
            sys.modules.pop(name, None)
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_every_fault_is_listed_with_its_sentence(capsys):
    assert call("check", "--list-faults") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert [line.split()[0] for line in lines] == [*faults.CATALOGUE, *faults.FUNCTIONS]
    assert all(line.endswith((".", ").")) and len(line.split()) > 4 for line in lines)


MORE = """
import jax.numpy as jnp, numpy as np
def loss(x): return jnp.sum(x**2)
point = (jnp.ones(3, jnp.float32),)
array = jnp.ones(3, jnp.float32)
def misshapen(x): return jnp.ones(4, jnp.float32)
def plain(x):
    return jnp.sum(np.sin(x))
def deep(x):
    return jnp.dot(x, jnp.ones(4, jnp.float32))
"""


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (
            "--target more:plain",
            2,
            "more:plain: must be JAX code, of jax.numpy where it calls NumPy: Tracer.*"
            r" \(more.py:8 in plain\)",
        ),
        ("--target more:deep", 2, r"TypeError: dot_general .* \(more.py:10 in deep\)"),
        ("--target more:loss --gradient more:misshapen", 2, r"must have shape \(3,\), got \(4,\)$"),
        ("--target more:loss --arguments more:array", 2, r"\(x,\) for a single .*, got an array"),
        (
            "--target more:loss --argnums 0,",
            2,
            "argument --argnums: must be the number .* got '0,'",
        ),
        ("--target more:loss --float32", 2, "whose dtype is that of its arguments"),
        ("--target more:loss --control", 0, "control: an error of .* in 1 leaf, and seen"),
    ],
)
def test_a_line_says_what_is_wrong_with_a_target_and_where(
    flags, status, message, tmp_path, monkeypatch, capsys
):
    (tmp_path / "more.py").write_text(MORE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    arguments = [] if "--arguments" in flags else ["--arguments", "more:point"]
    try:
        assert call("check", *flags.split(), *arguments) == status
    finally:
        sys.modules.pop("more", None)
    captured = capsys.readouterr()
    text = captured.err if status else captured.out
    assert re.search(message, text.splitlines()[-1])
