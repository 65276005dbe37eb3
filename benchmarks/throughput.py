"""Audio seconds a second: this project against transformers, the same clips on the same machine in the same run.

    python benchmarks/throughput.py                                  bark-small, 16 clips, slots and batches of 8
    python benchmarks/throughput.py --model bark --dtypes bfloat16   the large model, on an accelerator

Random weights at the real sizes; clips of 60 to 500 semantic tokens, seeded, their lengths forced: greedy decoding,
an end token that is never the best, and a cap a row. Each contender runs in a process of its own, so that its peak
memory is its own. transformers allows one voice and one cap a batch, so its batches are bucketed by length and run
to their longest row. Needs bark_model, torch and transformers only.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIZES = {"bark": (24, 16, 1024), "bark-small": (12, 12, 768), "tiny": None}
STAGES = ("semantic", "coarse", "fine", "audio")


def workload(clips: int, longest: int) -> list[int]:
    """Semantic tokens of each clip: evenly drawn from 60..500 (or the model's cap), the same for every contender."""
    low, high = min(60, longest // 2), min(500, longest)
    return np.random.default_rng(7).integers(low, high + 1, clips).tolist()


def write_checkpoint(folder: Path, model: str) -> None:
    """Random weights whose end token never wins: its head row is zero."""
    from bark_model.checkpoint import save
    from bark_model.random_checkpoint import TINY, bark_preset, random_tensors, write_random

    config = TINY if SIZES[model] is None else bark_preset(*SIZES[model])
    checkpoint = write_random(folder, config, voices=1)
    tensors = random_tensors(config, seed=3)
    tensors["semantic.lm_head.weight"][config.generation.semantic_pad_token] = 0
    save(folder, checkpoint.config, tensors)


def run_ours(folder: Path, lengths: list[int], dtype: str, rows: int) -> dict:
    """Our engine: every stage over all clips; the first pass compiles, the second is timed."""
    import jax

    from bark_model import Bark, CoarseSampling, FineSampling, Request, Sampling, SemanticSampling

    start = time.perf_counter()
    bark = Bark.load(str(folder), slots=rows, dtype=dtype)
    loading, rate = time.perf_counter() - start, bark.config.generation.semantic_rate_hz
    requests = [
        Request(
            id=str(number),
            text=f"clip number {number}",
            sampling=Sampling(
                semantic=SemanticSampling(temperature=0, min_eos_p=None, max_duration_s=(length - 0.5) / rate),
                coarse=CoarseSampling(temperature=0),
                fine=FineSampling(temperature=0),
            ),
        )
        for number, length in enumerate(lengths)
    ]

    def every_stage() -> tuple[dict[str, float], list]:
        seconds, given = {}, requests
        for stage in STAGES:
            begin = time.perf_counter()
            results = bark.synthesize(given, to=stage)
            seconds[stage] = time.perf_counter() - begin
            tokens = {"semantic": "semantic", "coarse": "coarse", "fine": "fine"}.get(stage)
            if tokens:
                given = [
                    Request(id=r.id, sampling=r.sampling, **{tokens: getattr(result, tokens)})
                    for r, result in zip(requests, results, strict=True)
                ]
        return seconds, results

    begin = time.perf_counter()
    every_stage()
    first = time.perf_counter() - begin
    seconds, results = every_stage()
    stats = jax.local_devices()[0].memory_stats() or {}
    return {
        "load_s": loading,
        "compile_s": first - sum(seconds.values()),
        "stage_s": seconds,
        "audio_s": sum(len(result.audio) for result in results) / bark.sample_rate,
        "device": str(jax.local_devices()[0].device_kind),
        "device_bytes": stats.get("peak_bytes_in_use"),
    }


def run_transformers(folder: Path, lengths: list[int], dtype: str, rows: int) -> dict:
    """transformers' BarkModel, batches bucketed by length; a first short batch warms up."""
    import torch
    from transformers import BarkModel
    from transformers.models.bark import generation_configuration_bark as configs

    device = "cuda" if torch.cuda.is_available() else "cpu"
    start = time.perf_counter()
    model = BarkModel.from_pretrained(folder, dtype=getattr(torch, dtype)).to(device).eval()
    loading = time.perf_counter() - start
    generation = model.generation_config
    semantic = configs.BarkSemanticGenerationConfig(**generation.semantic_config)
    coarse = configs.BarkCoarseGenerationConfig(**generation.coarse_acoustics_config)
    fine = configs.BarkFineGenerationConfig(**generation.fine_acoustics_config)
    common = {"semantic_generation_config": semantic, "coarse_generation_config": coarse}
    size = generation.codebook_size
    seconds = dict.fromkeys(STAGES, 0.0)

    def clock(stage: str, function):
        begin = time.perf_counter()
        result = function()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds[stage] += time.perf_counter() - begin
        return result

    @torch.no_grad()
    def batch(wanted: list[int]) -> None:
        ids = torch.randint(0, 200, (len(wanted), semantic.max_input_semantic_length), device=device)
        semantic.max_new_tokens = max(wanted)
        tokens = clock("semantic", lambda: model.semantic.generate(ids, semantic_generation_config=semantic))
        for row, length in enumerate(wanted):
            tokens[row, length:] = semantic.semantic_pad_token
        ids = clock("coarse", lambda: model.coarse_acoustics.generate(tokens, codebook_size=size, **common))
        codes = clock(
            "fine",
            lambda: model.fine_acoustics.generate(
                ids, fine_generation_config=fine, codebook_size=size, temperature=None, **common
            ),
        )
        clock("audio", lambda: model.codec_decode(codes))

    batch([8] * rows)
    seconds = dict.fromkeys(STAGES, 0.0)
    ordered = sorted(lengths)
    for first in range(0, len(ordered), rows):
        batch(ordered[first : first + rows])
    ratio = coarse.coarse_rate_hz / semantic.semantic_rate_hz
    return {
        "load_s": loading,
        "compile_s": 0.0,
        "stage_s": seconds,
        "audio_s": sum(int(length * ratio) for length in lengths) / coarse.coarse_rate_hz,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "device_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else None,
    }


CONTENDERS = {"bark-beam": run_ours, "transformers": run_transformers}


def measure(name: str, folder: Path, lengths: list[int], dtype: str, rows: int) -> dict:
    """One contender at one setting, in a fresh process."""
    arguments = json.dumps({"name": name, "folder": str(folder), "lengths": lengths, "dtype": dtype, "rows": rows})
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, __file__, "--contender", arguments], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise SystemExit(f"{name} {dtype} x{rows} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def contender(arguments: str) -> None:
    """The child process: runs one contender and prints its figures as JSON."""
    given = json.loads(arguments)
    run = CONTENDERS[given["name"]]
    figures = run(Path(given["folder"]), given["lengths"], given["dtype"], given["rows"])
    figures["peak_rss_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(figures))


def row(name: str, dtype: str, rows: int, figures: dict) -> str:
    stages, total = figures["stage_s"], sum(figures["stage_s"].values())
    memory = figures["device_bytes"] or figures["peak_rss_bytes"]
    times = " | ".join(f"{stages[stage]:.1f}" for stage in STAGES)
    return (
        f"| {name} | {dtype} | {rows} | {figures['audio_s'] / total:.3f} | {total:.1f} | {times} "
        f"| {figures['compile_s']:.0f} | {memory / 2**30:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--model", choices=SIZES, default="bark-small")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--rows", type=int, nargs="+", default=[8], help="slots, and batch sizes of transformers")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    options = parser.parse_args()
    if options.contender:
        contender(options.contender)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder), options.model)
        from bark_model.config import BarkConfig

        lengths = workload(options.clips, BarkConfig.from_folder(folder).generation.max_new_tokens)
        print(f"{options.model}, {options.clips} clips of {min(lengths)} to {max(lengths)} semantic tokens,")
        print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
        print(f"| engine | dtype | rows | audio s/s | total s | {' s | '.join(STAGES)} s | compile s | memory GiB |")
        print("|---" * 10 + "|")
        best: dict[str, float] = {}
        for name in CONTENDERS:
            for dtype in options.dtypes:
                for rows in options.rows:
                    figures = measure(name, Path(folder), lengths, dtype, rows)
                    print(row(name, dtype, rows, figures), flush=True)
                    speed = figures["audio_s"] / sum(figures["stage_s"].values())
                    best[name] = max(best.get(name, 0), speed)
        print(f"\non {figures['device']}: {best['bark-beam'] / best['transformers']:.2f} x the best of transformers")


if __name__ == "__main__":
    main()
