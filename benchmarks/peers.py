"""transformers' side: unit costs of BarkModel at one setting, and the whole workload, its batches bucketed by length.

transformers allows one voice and one cap a batch, so a batch runs to its longest row. A mode is how its caches and
its compilation are set:
    dynamic    as it comes: a growing cache, nothing compiled
    static     cache_implementation="static": on a GPU `generate` then compiles the decode step with CUDA graphs
    compiled   the growing cache, and torch.compile of every block
    sdpa, flash_attention_2    that attention, where BarkModel has it
"""

import time
from collections.abc import Callable
from copy import copy
from statistics import median
from typing import Any

import torch
from transformers import BarkModel, LogitsProcessor, LogitsProcessorList
from transformers.generation.utils import GenerationMixin
from transformers.models.bark import generation_configuration_bark as configs
from transformers.utils import logging

from bark_model.config import BarkConfig
from benchmarks.predict import buckets, busy
from benchmarks.workload import STAGES, seconds

ATTENTIONS = ("sdpa", "flash_attention_2")
STEPS = 8
CODEC_FRAMES = 375
SLOWEST_SHARE = 1 / 3
"""A dtype whose matrix products run at less than this share of float32's rate is not measured further."""


class Peer:
    """BarkModel on the fastest device there is, greedy, at one dtype and mode."""

    def __init__(self, folder: str, dtype: str, mode: str):
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        attention: dict[str, Any] = {"attn_implementation": mode} if mode in ATTENTIONS else {}
        self.model: Any = BarkModel.from_pretrained(folder, dtype=getattr(torch, dtype), **attention)
        self.model.to(self.device).eval()
        generation = self.model.generation_config
        self.semantic = configs.BarkSemanticGenerationConfig(**generation.semantic_config)
        self.coarse = configs.BarkCoarseGenerationConfig(**generation.coarse_acoustics_config)
        self.fine = configs.BarkFineGenerationConfig(**generation.fine_acoustics_config)
        self.codebook_size = generation.codebook_size
        for config in (self.semantic, self.coarse):
            config.do_sample = False
            if mode == "static":
                config.cache_implementation = "static"
        if mode == "compiled":
            self._compile()

    def _compile(self) -> None:
        """Block by block: the whole network takes minutes to compile, for each of prefill and decode step."""
        torch._dynamo.config.recompile_limit = 256  # a block's number is a constant to the compiler
        for network in (self.model.semantic, self.model.coarse_acoustics, self.model.fine_acoustics):
            for block in network.layers:
                block.compile(dynamic=True)

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def random(self, classes: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, classes, shape, device=self.device)

    def figures(self) -> dict:
        """The device and its peak memory."""
        if self.device == "cpu":
            return {"device": "cpu", "device_bytes": None}
        return {"device": torch.cuda.get_device_name(), "device_bytes": torch.cuda.max_memory_allocated()}


class Clock(LogitsProcessor):
    """Notes when each step's logits are there; changes nothing."""

    def __init__(self, wait: Callable[[], None]):
        self.wait = wait
        self.times: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.wait()
        self.times.append(time.perf_counter())
        return scores


@torch.no_grad()
def units(folder: str, dtype: str, mode: str, rows: list[int]) -> dict:
    """Seconds of each unit by batch size: a prefill's position and a decode step, both of the whole batch and within
    `generate`, for either causal network (a prompt of mid length); a row's fine forward; a row's second of audio.
    """
    _check_speed(dtype)
    peer, config = Peer(folder, dtype, mode), BarkConfig.from_folder(folder)
    g, measured = config.generation, {}
    begin = time.perf_counter()
    for batch in rows:
        # A CPU is busy with two rows already.
        few = batch if peer.device == "cuda" else min(batch, 2)
        fine_codes = peer.random(g.codebook_size, few, g.max_fine_input_length, g.n_fine_codebooks)
        codes = peer.random(g.codebook_size, few, g.n_fine_codebooks, CODEC_FRAMES)
        middle = g.semantic_prefill_length + g.max_new_tokens * 3 // 16
        semantic = _generate_units(peer, peer.model.semantic, peer.semantic, batch, middle, mode)
        middle = g.max_coarse_input_length + 1 + g.max_coarse_history // 2
        coarse = _generate_units(peer, peer.model.coarse_acoustics, peer.coarse, batch, middle, mode)
        fine = _seconds(peer, lambda codes=fine_codes: peer.model.fine_acoustics(g.n_coarse_codebooks, codes))
        audio = _seconds(peer, lambda codes=codes: peer.model.codec_decode(codes))
        measured[batch] = {
            "semantic_position": semantic[0],
            "semantic_step": semantic[1],
            "coarse_position": coarse[0],
            "coarse_step": coarse[1],
            "fine": fine / few,
            "audio": audio / few / (CODEC_FRAMES / g.coarse_rate_hz),
        }
    return {"units": measured, "sweep_s": time.perf_counter() - begin, **peer.figures()}


def _check_speed(dtype: str) -> None:
    """Raises RuntimeError for a dtype that this machine has no fast products for."""
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def rate(of: torch.dtype) -> float:
        a, b = torch.randn(2, 1024, 1024, device=device).to(of)
        return 2 * 1024**3 / seconds(lambda: (a @ b).sum().item())

    if dtype == "float32":
        return
    found, float32 = rate(getattr(torch, dtype)), rate(torch.float32)
    if found < SLOWEST_SHARE * float32:
        raise RuntimeError(f"left out: its products run at {found / 1e9:.0f} GFLOP/s, float32's at {float32 / 1e9:.0f}")


def _seconds(peer: Peer, function: Callable[[], object]) -> float:
    def waited() -> None:
        function()
        peer.wait()

    return seconds(waited, calls=3)


def _generate_units(peer: Peer, network: Any, config: Any, batch: int, length: int, mode: str) -> tuple[float, float]:
    """Seconds a prompt position and a decode step of a batch, within transformers' own `generate`."""
    generate: Any = vars(GenerationMixin)["generate"]
    config = copy(config)
    config.max_new_tokens = STEPS + 1
    ids = peer.random(64, batch, length)

    def timed(prompt: torch.Tensor) -> list[float]:
        clock = Clock(peer.wait)
        begin = time.perf_counter()
        # The networks' own `generate` adds prompts and rules; this is what both of them call.
        generate(network, prompt, generation_config=config, logits_processor=LogitsProcessorList([clock]))
        return [now - then for then, now in zip([begin, *clock.times], clock.times, strict=False)]

    timed(ids[:, :8])
    if mode != "dynamic":
        timed(ids)  # compiles for this length, too
    prefill, *steps = timed(ids)
    return prefill / length, median(steps)


@torch.no_grad()
def run(folder: str, lengths: list[int], dtype: str, rows: int, mode: str) -> dict:
    """Every clip, in batches bucketed by length, after a short batch that warms up (and compiles)."""
    begin = time.perf_counter()
    peer = Peer(folder, dtype, mode)
    loading = time.perf_counter() - begin
    ratio = peer.coarse.coarse_rate_hz / peer.semantic.semantic_rate_hz
    stage_s: dict[str, float] = dict.fromkeys(STAGES, 0.0)
    warm: list[float] = []
    for _ in range(2):
        begin = time.perf_counter()
        _batch(peer, [8] * min(rows, len(lengths)), dict(stage_s))
        warm.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    for bucket in buckets(lengths, rows):
        _batch(peer, bucket, stage_s)
    total = time.perf_counter() - begin
    frames = [int(length * ratio) for length in lengths]
    return {
        "load_s": loading,
        "compile_s": 0.0 if mode == "dynamic" else warm[0] - warm[1],
        "total_s": total,
        "stage_s": stage_s,
        "busy": dict.fromkeys(STAGES, busy(lengths, rows)),
        "audio_s": sum(frames) / peer.coarse.coarse_rate_hz,
        "tokens": {"semantic": sum(lengths), "coarse": 2 * sum(frames)},
        **peer.figures(),
    }


def _batch(peer: Peer, wanted: list[int], stage_s: dict[str, float]) -> None:
    """One batch through all stages, run to its longest row; adds each stage's seconds."""
    model, semantic, coarse = peer.model, peer.semantic, peer.coarse
    configs_of_both = {"semantic_generation_config": semantic, "coarse_generation_config": coarse}

    def clock(stage: str, function: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        result = function()
        peer.wait()
        stage_s[stage] += time.perf_counter() - begin
        return result

    ids = peer.random(200, len(wanted), semantic.max_input_semantic_length)
    semantic.max_new_tokens = max(wanted)
    tokens = clock("semantic", lambda: model.semantic.generate(ids, semantic_generation_config=semantic))
    if tokens.shape[1] != max(wanted):
        raise RuntimeError(f"a clip of {tokens.shape[1]} semantic tokens instead of the {max(wanted)} that were forced")
    for row, length in enumerate(wanted):
        tokens[row, length:] = semantic.semantic_pad_token
    size = peer.codebook_size
    flat = clock("coarse", lambda: model.coarse_acoustics.generate(tokens, codebook_size=size, **configs_of_both))
    fine = {"fine_generation_config": peer.fine, "codebook_size": size, "temperature": None} | configs_of_both
    codes = clock("fine", lambda: model.fine_acoustics.generate(flat, **fine))
    clock("audio", lambda: model.codec_decode(codes))
