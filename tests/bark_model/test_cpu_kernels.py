"""The C++ kernels give what the plain formulas give, whatever the threads; without a compiler XLA's code runs."""

import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bark_model import attention, cpu_kernels
from bark_model.layers import Linear
from tests.bark_model.test_attention import TOLERANCE, drawn, plain
from tests.lanes import did_not_run

DTYPES = ("float32", "bfloat16")


@pytest.fixture(autouse=True)
def kernels():
    """Without a C++ compiler these tests do not run, which CI does not accept."""
    if not cpu_kernels._loaded():
        did_not_run("the tests of the CPU kernels did not run: no C++ compiler (install g++)")


@pytest.mark.parametrize("rows", [1, 7, 8, 19, 32])
@pytest.mark.parametrize(
    ("depth", "width", "first", "count"), [(64, 96, 0, 96), (130, 50, 3, 41), (256, 1000, 968, 32)]
)
def test_a_product_of_few_rows(rows, depth, width, first, count):
    """Depths and columns that are not whole tiles, all columns and some, against float64."""
    x, kernel = drawn(0, rows, 1, depth, dtype="bfloat16"), drawn(1, depth, width, dtype="bfloat16")
    assert cpu_kernels.multiplies(x, kernel)
    found = jax.jit(cpu_kernels.product, static_argnums=(2, 3))(x, kernel, first, count)
    expected = np.asarray(x, np.float64) @ np.asarray(kernel, np.float64)[:, first : first + count]
    assert (found.shape, found.dtype) == ((rows, 1, count), jnp.float32)
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize(
    ("x", "kernel"),
    [
        (jnp.zeros((33, 64), jnp.bfloat16), jnp.zeros((64, 32), jnp.bfloat16)),
        (jnp.zeros((8, 64), jnp.float32), jnp.zeros((64, 32), jnp.float32)),
        (jnp.zeros((8, 63), jnp.bfloat16), jnp.zeros((63, 32), jnp.bfloat16)),
    ],
    ids=["many rows", "float32", "an odd depth"],
)
def test_products_that_are_left_to_xla(x, kernel):
    assert not cpu_kernels.multiplies(x, kernel)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("size", [16, 48, 64])
@pytest.mark.parametrize("length", [1, 31, 33, 300])
def test_attention_over_whole_sequences(length, size, causal, dtype):
    arrays = [drawn(seed, 2, 3, length, size, dtype=dtype) for seed in range(3)]
    assert cpu_kernels.attends(arrays[0])
    found = jax.jit(lambda q, k, v: attention.attend(q, k, v, causal=causal))(*arrays)
    assert found.dtype == dtype
    visible = np.tri(length, dtype=bool) if causal else True
    np.testing.assert_allclose(np.asarray(found, np.float32), plain(*arrays, visible), atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", range(16, 129, 16))
def test_attention_of_one_query_over_a_cache(size, dtype):
    """What lies behind a row's place is never read: it may be NaN here, if nowhere else."""
    place = np.array([0, 14, 15, 16, 127], np.int32)
    query = drawn(0, 5, 3, size, dtype=dtype)
    keys, values = (drawn(seed, 5, 3, 128, size, dtype=dtype) for seed in (1, 2))
    visible = (np.arange(128) <= place[:, None])[:, None, None]
    expected = plain(query[:, :, None], keys, values, visible)[:, :, 0]
    keys, values = (jnp.where(visible.swapaxes(-1, -2), x, jnp.nan) for x in (keys, values))
    found = jax.jit(lambda *arrays: attention.attend_cache(*arrays, dtype))(
        query, attention.pack(keys), attention.pack(values), place
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("query", [jnp.zeros((1, 1, 4, 12)), jnp.zeros((1, 1, 4, 16), jnp.float16)])
def test_attention_that_is_left_to_xla(query):
    assert not cpu_kernels.attends(query)
    assert attention.attend(query, query, query, causal=True).shape == query.shape


@pytest.mark.parametrize("large", [50.0, 1000.0])
def test_weights_far_below_the_largest_vanish(large):
    """exp over its whole range: one score far above the others, which must neither overflow nor turn negative."""
    query = jnp.zeros((1, 1, 16)).at[..., 0].set(4.0)
    keys = jnp.zeros((1, 1, 128, 16)).at[0, 0, 5, 0].set(large)
    values = jnp.broadcast_to(jnp.arange(128.0)[:, None], (1, 1, 128, 16))
    found = attention.attend_cache(query, keys, values, np.array([127], np.int32), "float32")
    rest = 127 * np.exp(-large)
    np.testing.assert_allclose(found, (5 + (8128 - 5) * np.exp(-large)) / (1 + rest) * np.ones((1, 1, 16)), rtol=1e-6)


def test_not_a_number_is_seen():
    """A network that gives NaN must be found out, not smoothed over."""
    query = jnp.full((1, 1, 16), jnp.nan)
    cache = jnp.ones((1, 1, 128, 16))
    assert np.isnan(attention.attend_cache(query, cache, cache, np.array([60], np.int32), "float32")).all()
    whole = jnp.full((1, 1, 3, 16), jnp.nan)
    assert np.isnan(attention.attend(whole, whole, whole, causal=True)).all()


def test_rows_and_threads_change_no_bit():
    """Calls that compete for the threads, as programs of several devices do, and rows alone give equal bits."""
    x, kernel = drawn(0, 8, 256, dtype="bfloat16"), drawn(1, 256, 700, dtype="bfloat16")
    run = jax.jit(cpu_kernels.product)
    expected = np.asarray(run(x, kernel))
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: np.asarray(run(x, kernel)), range(200)):
            assert np.array_equal(found, expected)
    alone = np.concatenate([run(x[row : row + 1], kernel) for row in range(8)])
    assert np.array_equal(alone, expected)


def test_layers_use_them():
    layer = Linear(64, 96, bias=True, rngs=nnx.Rngs(0), dtype=jnp.bfloat16)
    assert "bark_beam_product" in str(jax.make_jaxpr(layer.__call__)(jnp.zeros((8, 1, 64), jnp.bfloat16)))


def run_fresh(home: Path, **environment: str) -> subprocess.CompletedProcess:
    """A process of its own that asks for the kernels and computes with whatever it got."""
    code = (
        "import jax.numpy as jnp; from bark_model import attention, cpu_kernels\n"
        "q = jnp.ones((1, 1, 4, 16)); print(cpu_kernels.attends(q), attention.attend(q, q, q, causal=True).sum())\n"
        "print(cpu_kernels.note())"
    )
    environment = os.environ | {"XDG_CACHE_HOME": str(home), "PYTHONPATH": os.getcwd()} | environment
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


def test_compiled_once_a_machine(tmp_path):
    first = run_fresh(tmp_path)
    assert (first.stdout, first.stderr) == ("True 64.0\n\n", "")
    [library] = (tmp_path / "bark-beam").iterdir()
    second = run_fresh(tmp_path, PATH="/nowhere", CXX=shlex.join(cpu_kernels._compiler()))
    assert second.stdout == "True 64.0\n\n"
    assert [library] == list((tmp_path / "bark-beam").iterdir())


def test_no_home_to_write_to(tmp_path):
    (tmp_path / "file").touch()
    assert run_fresh(tmp_path / "file").stdout == "True 64.0\n\n"


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"PATH": "/nowhere", "CXX": ""}, "none of c++, g++, clang++ is installed"),
        ({"CXX": "/nowhere/c++"}, "[Errno 2] No such file or directory: '/nowhere/c++'"),
    ],
)
def test_without_a_compiler(tmp_path, environment, reason):
    done = run_fresh(tmp_path, **environment)
    computed, note = done.stdout.splitlines()
    assert computed == "False 64.0"
    assert note == (
        f"bark_model/cpu_kernels.cc was not compiled ({reason}), a decode step takes twice as long on this CPU: "
        "install a C++ compiler (g++), or name one in CXX"
    )


def test_a_compiler_that_fails(tmp_path):
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho 'unknown option -march=native' >&2\nexit 1\n")
    compiler.chmod(0o755)
    done = run_fresh(tmp_path, CXX=str(compiler))
    assert done.stdout.startswith("False 64.0\n")
    assert "was not compiled (unknown option -march=native)" in done.stdout
    assert list(tmp_path.iterdir()) == [compiler]
