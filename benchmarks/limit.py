"""How near the engine comes to the machine's limit, measured in the same run.

    python -m benchmarks.limit                              bark-small, 16 clips, bfloat16, 8 slots
    python -m benchmarks.limit --dtype float32 --slots 16

The limit: the best rate of large matrix products and of reading memory that jax or torch reaches here, and the fewest
FLOPs and bytes that the clips need (benchmarks/work.py). A part takes at least the longer of the two.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence

from bark_model.config import BarkConfig
from benchmarks import work
from benchmarks.processes import call
from benchmarks.workload import SIZES, STAGES, clip_lengths, machine, seconds, table

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
SIZES_OF_PRODUCTS = {"cpu": (2048, 4096), "gpu": (4096, 8192, 16384)}
BYTES_READ = {"cpu": 2**29, "gpu": 2**33}


def jax_rates(dtypes: Sequence[str]) -> dict:
    """FLOP/s of matrix products by dtype (sums in float32) and bytes/s of reading, by XLA."""
    import jax
    import jax.numpy as jnp

    kind = "cpu" if jax.default_backend() == "cpu" else "gpu"

    @jax.jit
    def multiply(a, b):
        exact = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None  # or a GPU takes TF32
        return jnp.dot(a, b, preferred_element_type=jnp.float32, precision=exact)

    def rate(dtype: str, size: int) -> float:
        a, b = jax.random.normal(jax.random.key(0), (2, size, size)).astype(dtype)
        return 2 * size**3 / seconds(lambda: multiply(a, b).block_until_ready())

    total = jax.jit(jnp.sum)
    long = jnp.ones(BYTES_READ[kind] // 4, jnp.float32)
    rates = {dtype: max(rate(dtype, size) for size in SIZES_OF_PRODUCTS[kind]) for dtype in dtypes}
    return rates | {"memory": long.nbytes / seconds(lambda: total(long).block_until_ready(), calls=10, enough_s=2)}


def torch_rates(dtypes: Sequence[str]) -> dict:
    """The same by torch."""
    import torch

    kind = "gpu" if torch.cuda.is_available() else "cpu"
    device = "cuda" if kind == "gpu" else "cpu"

    def wait(_result: object) -> None:
        if kind == "gpu":
            torch.cuda.synchronize()

    def rate(dtype: str, size: int) -> float:
        a, b = torch.randn(2, size, size, device=device).to(getattr(torch, dtype))
        return 2 * size**3 / seconds(lambda: wait(a @ b))

    long = torch.ones(BYTES_READ[kind] // 4, device=device)
    rates = {dtype: max(rate(dtype, size) for size in SIZES_OF_PRODUCTS[kind]) for dtype in dtypes}
    return rates | {"memory": long.nbytes / seconds(lambda: wait(long.sum()), calls=10, enough_s=2)}


def machine_rates(dtype: str) -> dict[str, float]:
    """The better of both libraries: FLOP/s of `dtype` and of float32 (the codec's), bytes/s under "memory"."""
    dtypes = sorted({dtype, "float32"})
    found = [call(f"limit:{library}_rates", dtypes=dtypes) for library in ("jax", "torch")]
    return {name: max(rates[name] for rates in found) for name in (*dtypes, "memory")}


def bounds(
    config: BarkConfig, lengths: Sequence[int], slots: int, dtype: str, rates: Mapping[str, float]
) -> dict[tuple[str, str], float]:
    """(stage, part) -> the seconds it takes at least."""
    parts = work.parts(config, lengths, slots, DTYPE_BYTES[dtype])
    return {
        (stage, part): need.seconds(rates["float32" if stage == "audio" else dtype], rates["memory"])
        for (stage, part), need in parts.items()
    }


def report(
    config: BarkConfig,
    lengths: Sequence[int],
    slots: int,
    dtype: str,
    stage_s: Mapping[str, float],
    rates: Mapping[str, float],
) -> str:
    """Markdown: what each part needs, its bound, and the percentage that the measured stages reach."""
    parts = work.parts(config, lengths, slots, DTYPE_BYTES[dtype])
    least = bounds(config, lengths, slots, dtype, rates)
    rows: list[list] = []
    for (stage, part), need in parts.items():
        of_flops = need.flops / rates["float32" if stage == "audio" else dtype]
        of_bytes = need.bytes / rates["memory"]
        rows.append([stage, part, need.flops / 1e12, need.bytes / 2**30, of_flops, of_bytes, least[stage, part]])
    for stage in STAGES:
        bound = sum(s for (owner, _), s in least.items() if owner == stage)
        rows.append([f"**{stage}**", "all", *[None] * 4, bound, stage_s[stage], _percent(bound, stage_s[stage])])
    bound, taken = sum(least.values()), sum(stage_s.values())
    rows.append(["**total**", "all", *[None] * 4, bound, taken, _percent(bound, taken)])
    columns = "stage, part, TFLOP, GiB, FLOPs s, bytes s, bound s, measured s, limit reached".split(", ")
    rate = " and ".join(f"{rates[name] / 1e9:.0f} GFLOP/s in {name}" for name in sorted({dtype, "float32"}))
    return (
        f"Limit of this machine: {rate}, memory read at {rates['memory'] / 1e9:.1f} GB/s. Weights are read once a step "
        f"for {slots} rows.\n\n" + table(columns, [row + [None] * (len(columns) - len(row)) for row in rows])
    )


def _percent(bound: float, taken: float) -> str:
    return f"{100 * bound / taken:.0f} %"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SIZES, default="bark-small")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--dtype", choices=DTYPE_BYTES, default="bfloat16")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        call("workload:write_checkpoint", folder=folder, model=options.model)
        config = BarkConfig.from_folder(folder)
        lengths = clip_lengths(options.clips, config.generation.max_new_tokens)
        rates = machine_rates(options.dtype)
        made = call("ours:run", folder=folder, lengths=lengths, dtype=options.dtype, rows=options.slots)
    print(f"{options.model}, {options.dtype}, {options.slots} slots, {options.clips} clips, ", end="")
    print(f"{made['audio_s']:.0f} s of audio; {machine(made['device'])}\n")
    print(report(config, lengths, options.slots, options.dtype, made["stage_s"], rates))


if __name__ == "__main__":
    main()
