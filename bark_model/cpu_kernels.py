"""Kernels for a CPU, in C++, where XLA leaves most of the machine idle: compiled by the machine that runs them.

The first process on a machine compiles cpu_kernels.cc for its processor and keeps the library in ~/.cache/bark-beam
(XDG_CACHE_HOME). Without a C++ compiler XLA's code does the same work, more slowly, and sums in another order.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

SOURCE = Path(__file__).with_suffix(".cc")
FLAGS = ("-std=gnu++17", "-O3", "-march=native", "-shared", "-fPIC", "-w")
COMPILERS = ("c++", "g++", "clang++")
COMPILE_S = 120
HANDLERS = ("bark_beam_product", "bark_beam_attend", "bark_beam_attend_cache")
MOST_ROWS = 32
"""Rows of a product up to which reading the weights, not multiplying, takes the time."""
LANES, LARGEST_HEAD = 16, 128
AS_BTNH = (0, 2, 1, 3)
"""Memory order of [B, N, T, H] as projections leave it, position by position, so that nothing is transposed."""


def multiplies(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether `product` is the way to x [..., A] times kernel [A, C]: bfloat16, few rows. XLA is as fast in float32."""
    few = x.size <= MOST_ROWS * x.shape[-1]
    return few and x.dtype == kernel.dtype == jnp.bfloat16 and x.shape[-1] % 2 == 0 and _loaded()


def attends(query: jax.Array) -> bool:
    """Whether `attend` and `attend_cache` are the way for queries [..., H]."""
    size = query.shape[-1]
    return query.dtype in (jnp.float32, jnp.bfloat16) and size % LANES == 0 and size <= LARGEST_HEAD and _loaded()


def product(x: jax.Array, kernel: jax.Array, first: int = 0, count: int | None = None) -> jax.Array:
    """x [..., A] times columns first..first+count-1 of kernel [A, C]: float32 [..., count]."""
    count = kernel.shape[1] if count is None else count
    shape = jax.ShapeDtypeStruct((x.size // x.shape[-1], count), jnp.float32)
    y = jax.ffi.ffi_call("bark_beam_product", shape)(x.reshape(-1, x.shape[-1]), kernel, first=np.int64(first))
    return y.reshape(*x.shape[:-1], count)


def attend(query: jax.Array, key: jax.Array, value: jax.Array, *, causal: bool) -> jax.Array:
    """attention.attend: [B, N, T, H] each, of one dtype; returns that dtype."""
    shape = jax.ShapeDtypeStruct(query.shape, query.dtype)
    call = jax.ffi.ffi_call("bark_beam_attend", shape, input_layouts=[AS_BTNH] * 3, output_layouts=AS_BTNH)
    return call(query, key, value, causal=causal)


def attend_cache(query: jax.Array, keys: jax.Array, values: jax.Array, place: jax.Array) -> jax.Array:
    """attention.attend_cache: query [S, N, H] over a packed cache [S, N, T, H] up to place [S]; float32 [S, N, H]."""
    shape = jax.ShapeDtypeStruct(query.shape, jnp.float32)
    return jax.ffi.ffi_call("bark_beam_attend_cache", shape)(query, keys, values, place)


def note() -> str:
    """What users should know: that this machine could run faster, why it does not, and what to do; empty if nothing."""
    reason = _missing() if jax.default_backend() == "cpu" else ""
    return reason and (
        f"bark_model/cpu_kernels.cc was not compiled ({reason}), a decode step takes twice as long on this CPU: "
        "install a C++ compiler (g++), or name one in CXX"
    )


def _loaded() -> bool:
    return jax.default_backend() == "cpu" and not _missing()


@cache
def _missing() -> str:
    """Why there are no kernels, empty when there are; the first call of a process opens or compiles them."""
    try:
        library = _open()
    except (OSError, subprocess.SubprocessError) as error:
        return (getattr(error, "stderr", "") or str(error)).strip().partition("\n")[0]
    for name in HANDLERS:
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    return ""


def _open() -> ctypes.CDLL:
    """The compiled kernels, from the cache or new."""
    command = [*_compiler(), *FLAGS, "-isystem", jax.ffi.include_dir(), str(SOURCE)]
    parts = (SOURCE.read_bytes(), command, jax.__version__, _processor())
    name = f"cpu_kernels-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}.so"
    try:
        kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bark-beam" / name
    except RuntimeError:  # a user without a home, as in some containers
        kept = None
    if kept and kept.exists():
        return ctypes.CDLL(str(kept))
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / name
        subprocess.run([*command, "-o", str(made)], check=True, capture_output=True, text=True, timeout=COMPILE_S)
        library = ctypes.CDLL(str(made))  # stays open when the file is gone
        with suppress(OSError):  # what cannot be kept is compiled again by the next process
            if kept:
                kept.parent.mkdir(parents=True, exist_ok=True)
                partial = kept.with_suffix(f".{os.getpid()}")
                shutil.copy(made, partial)
                os.replace(partial, kept)
    return library


def _compiler() -> list[str]:
    """The command of the C++ compiler: CXX, or the first that is installed."""
    if chosen := shlex.split(os.environ.get("CXX", "")):
        return chosen
    found = next((path for path in map(shutil.which, COMPILERS) if path), None)
    if found is None:
        raise FileNotFoundError(f"none of {', '.join(COMPILERS)} is installed")
    return [found]


def _processor() -> str:
    """What -march=native depends on: a home may be shared by machines of several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(dict.fromkeys(line for line in lines if line.startswith(("model name", "flags", "Features"))))
