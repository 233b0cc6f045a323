import os

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jaxnet import checkpoint, mlp
from jaxnet.mlp import Layer

SIZES = (7, 5, 4, 3)


@pytest.mark.parametrize("bias", [True, False])
def test_save_and_load(tmp_path, bias):
    params = mlp.init(jax.random.key(0), SIZES, bias=bias)
    checkpoint.save(tmp_path / "params.npz", params)
    loaded = checkpoint.load(tmp_path / "params.npz")
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    assert [path.name for path in tmp_path.iterdir()] == ["params.npz"]
    with np.load(tmp_path / "params.npz") as file:
        expected = ["[0].weight", "[0].bias"] if bias else ["[0].weight"]
        assert file.files[: len(expected)] == expected


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"w": np.zeros((2, 2))}, r"must hold arrays named \[0\]\.weight"),
        ({}, "must hold arrays named"),
        ({"[1].weight": np.zeros((2, 2))}, r"lacks \[0\]\.weight"),
        (
            {"[0].weight": np.zeros((2, 3)), "[1].weight": np.zeros((2, 3))},
            r"params\[1\]\.weight must have shape \(3, outputs\), got \(2, 3\)",
        ),
        (
            {"[0].weight": np.zeros(3)},
            r"params\[0\]\.weight must have shape \(inputs, outputs\), got \(3,\)",
        ),
        (
            {"[0].weight": np.zeros((2, 3)), "[0].bias": np.zeros(2)},
            r"params\[0\]\.bias must have shape \(3,\), got \(2,\)",
        ),
    ],
)
def test_load_refuses_other_files(tmp_path, arrays, message):
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        checkpoint.load(tmp_path / "other.npz")


def test_load_refuses_what_is_not_npz(tmp_path):
    (tmp_path / "other.npz").write_text("weights")
    with pytest.raises(ValueError, match=r"other\.npz is not an \.npz archive"):
        checkpoint.load(tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError):
        checkpoint.load(tmp_path / "nowhere.npz")
    with pytest.raises(ValueError, match=r"must end in \.npz"):
        checkpoint.save(tmp_path / "params", mlp.init(jax.random.key(0), SIZES))


def test_bfloat16_is_stored_as_float32(tmp_path):
    params = mlp.init(jax.random.key(0), SIZES, dtype=jnp.bfloat16)
    checkpoint.save(tmp_path / "params.npz", params)
    loaded = checkpoint.load(tmp_path / "params.npz")
    assert loaded[0].weight.dtype == jnp.float32
    back = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), loaded)
    jax.tree.map(np.testing.assert_array_equal, back, params)


def test_save_refuses_what_load_would(tmp_path):
    params = mlp.init(jax.random.key(0), SIZES)
    with pytest.raises(TypeError, match="params must be a non-empty tuple of Layer, got list"):
        checkpoint.save(tmp_path / "params.npz", list(params))
    with pytest.raises(ValueError, match=r"params\[1\]\.weight must have shape"):
        checkpoint.save(tmp_path / "params.npz", params[::-1])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("position", range(100, 1000, 90))
def test_load_refuses_a_damaged_file_or_reads_it_whole(tmp_path, position):
    """zip and deflate answer damage with errors of many kinds; all become one."""
    path = tmp_path / "params.npz"
    layer = mlp.init(jax.random.key(0), (40, 10))[0]
    np.savez_compressed(path, **{"[0].weight": layer.weight, "[0].bias": layer.bias})
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"params\.npz"):
        checkpoint.load(path)


W = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"[0].weight": W, "[99999999999].weight": W}, r"lacks \[1\]\.weight"),
        ({"[0].weight": W, "[1].bias": W[0]}, r"lacks \[1\]\.weight"),
        ({"[1].bias": W[0]}, r"lacks \[0\]\.weight"),
        ({"[00].weight": W}, "must hold arrays named"),
        ({"[-1].weight": W}, "must hold arrays named"),
        ({"[0].weight": W, "[\u0661].weight": W}, "must hold arrays named"),
        ({f"x{i}": W for i in range(9)}, "x5 and 3 more$"),
        ({"[0].weight": W.astype(np.longdouble)}, "must be float16, float32 or float64, got"),
        ({"[0].weight": W.astype(str)}, r"must be float16, .* got <U"),
        ({"[0].weight": W.astype(int)}, r"must be float16, .* got int64"),
        ({"[0].weight": W.astype(ml_dtypes.float8_e4m3fn)}, r"must be float16, .* got"),
        ({"[0].weight": W.astype(object)}, "Python objects, which are never loaded"),
        ({"[0].weight": W.astype([("a", "f4")])}, "must be float16"),
        ({"[0].weight": np.zeros((2, 0), np.float32)}, "must not be empty"),
        ({"[0].weight": W, "[0].bias": W[0].astype(np.float16)}, "bias"),
        ({"[0].weight": np.full((2, 3), np.nan)}, "must be finite, got NaN or inf"),
        ({"[0].weight": W, "[0].bias": np.full(3, -np.inf, np.float32)}, "bias must be finite"),
    ],
)
def test_load_refuses_in_one_line_that_names_the_file(tmp_path, arrays, message):
    path = tmp_path / "other.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=message) as caught:
        checkpoint.load(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_load_refuses_numbers_that_would_become_infinite(tmp_path):
    np.savez(tmp_path / "p.npz", **{"[0].weight": np.full((2, 3), 1e300)})
    with jax.enable_x64(False), pytest.raises(ValueError, match="must fit float32, got 1e"):
        checkpoint.load(tmp_path / "p.npz")
    with jax.enable_x64(True):
        assert checkpoint.load(tmp_path / "p.npz")[0].weight.dtype == np.float64


def test_load_reads_other_byte_orders(tmp_path):
    weight = np.arange(6, dtype=">f4").reshape(2, 3)
    np.savez(tmp_path / "p.npz", **{"[0].weight": weight})
    (layer,) = checkpoint.load(tmp_path / "p.npz")
    np.testing.assert_array_equal(layer.weight, weight.astype(np.float32))


@pytest.mark.parametrize("dtype", [jnp.float8_e4m3fn, jnp.float8_e5m2, jnp.bfloat16])
def test_what_save_writes_load_reads(tmp_path, dtype):
    params = (Layer(jnp.ones((2, 3), dtype)),)
    checkpoint.save(tmp_path / "p.npz", params)
    assert checkpoint.load(tmp_path / "p.npz")[0].weight.tolist() == [[1, 1, 1]] * 2


@pytest.mark.parametrize("kind", ["fifo", "folder", "/dev/zero", "nothing"])
def test_load_refuses_what_is_no_file(tmp_path, kind):
    path = tmp_path / "p.npz"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(kind)
    error = FileNotFoundError if kind == "nothing" else ValueError
    with pytest.raises(error, match=str(path)):
        checkpoint.load(path)


def test_junk_is_refused_unread(tmp_path, monkeypatch):
    np.savez(tmp_path / "p.npz", **{"[0].weight": W, "junk": W})
    monkeypatch.setattr("jaxnet.files.read_npz", None)
    with pytest.raises(ValueError, match="must hold arrays named"):
        checkpoint.load(tmp_path / "p.npz")
