"""The fewest FLOPs and bytes that exact Bark needs for a workload, from a checkpoint's sizes by formulas.

Everything here is a lower bound: matrix products alone count (2 FLOPs a multiplication and addition), norms, GELU and
softmax do not; of memory, weights, the KV cache and audio count, activations, embeddings, norms and biases do not.
D is the width, L the layers. A block's matrices have 12 D² entries: qkv 3 D², out D², MLP 4 D² + 4 D².
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bark_model.coarse import CoarseRow
from bark_model.config import BarkConfig, TransformerConfig
from bark_model.encodec.config import CodecConfig
from bark_model.fine import FineRow

FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Work:
    """FLOPs, and bytes read from and written to memory."""

    flops: float = 0
    bytes: float = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flops + other.flops, self.bytes + other.bytes)

    def seconds(self, flops_a_second: float, bytes_a_second: float) -> float:
        """At least so long: arithmetic and memory at their full rates, side by side."""
        return max(self.flops / flops_a_second, self.bytes / bytes_a_second)


def block_entries(config: TransformerConfig) -> int:
    """Entries of the matrices of all blocks: 12 D² L."""
    return 12 * config.hidden_size**2 * config.num_layers


def pairs(length: int, outputs: int, *, causal: bool) -> int:
    """Pairs of a query and a key it sees, for the last `outputs` of `length` positions.

    length 3, all outputs:  causal 1 + 2 + 3 = 6, else 3 · 3 = 9
    """
    return outputs * length - (outputs * (outputs - 1) // 2 if causal else 0)


def sequence_flops(config: TransformerConfig, length: int, outputs: int, *, causal: bool) -> int:
    """All blocks over a sequence of which only the last `outputs` positions are used.

    A block costs 2 · 12 D² a position and 4 D a pair (D products for the score, D for the weighted value). The last
    block needs keys and values (4 D²) everywhere, and the rest (20 D²) only where its output is used.
    """
    width = config.hidden_size
    full = 24 * width**2 * length + 4 * width * pairs(length, length, causal=causal)
    last = width**2 * (4 * length + 20 * outputs) + 4 * width * pairs(length, outputs, causal=causal)
    return (config.num_layers - 1) * full + last


def head_entries(config: TransformerConfig, classes: int) -> int:
    """Entries of the head for the classes that can be drawn."""
    return config.hidden_size * classes


def prefills(config: TransformerConfig, lengths: Sequence[int], classes: int, slots: int, item_bytes: int) -> Work:
    """Prompts of `lengths`, each up to its last position's logits; `slots` of them share a reading of the weights."""
    head = head_entries(config, classes)
    flops = sum(sequence_flops(config, length, 1, causal=True) + 2 * head for length in lengths)
    read = math.ceil(len(lengths) / slots) * (block_entries(config) + head)
    written = 2 * config.hidden_size * config.num_layers * sum(lengths)
    return Work(flops, (read + written) * item_bytes)


def decode(config: TransformerConfig, places: np.ndarray, steps: int, classes: int, item_bytes: int) -> Work:
    """Row-steps whose tokens stand at `places` (from 0), done in `steps` steps that each read the weights once.

    A token at place p sees p + 1 positions; it reads the keys and values of p of them and writes its own.
    """
    weights = block_entries(config) + head_entries(config, classes)
    kv = 2 * config.hidden_size * config.num_layers
    flops = 2 * weights * len(places) + 2 * kv * int((places + 1).sum())
    return Work(flops, (steps * weights + kv * int((places + 1).sum())) * item_bytes)


def fewest_steps(steps_of_clips: Sequence[int], slots: int) -> int:
    """Steps of a schedule without an idle slot, or the longest clip's."""
    return max(max(steps_of_clips), math.ceil(sum(steps_of_clips) / slots))


def semantic(config: BarkConfig, lengths: Sequence[int], slots: int, item_bytes: int) -> tuple[Work, Work]:
    """Prefill and decode. The prefill draws the first token, so n tokens take n - 1 steps (ends are forced)."""
    g = config.generation
    classes, first = g.semantic_vocab_size + 1, g.semantic_prefill_length
    places = np.concatenate([np.arange(first, first + n - 1) for n in lengths])
    steps = fewest_steps([n - 1 for n in lengths], slots)
    return (
        prefills(config.semantic, [first] * len(lengths), classes, slots, item_bytes),
        decode(config.semantic, places, steps, classes, item_bytes),
    )


def coarse_runs(config: BarkConfig, num_semantic: int) -> Iterator[tuple[int, int]]:
    """(prompt length, tokens drawn from one cache) of a clip without a voice, in order.

    A window that has not moved goes on with the cache it has: the windows before the first move are one run. What
    has moved stands at other positions, so nothing of its cache can be kept.
    """
    g = config.generation
    row = CoarseRow(np.zeros(num_semantic, np.int32), None, config)
    prompt, drawn = 0, 0
    while not row.done:
        if not row.continues:
            if drawn:
                yield prompt, drawn
            prompt, drawn = row.window()[1], 0
        drawn += min(g.sliding_window_len, row.num_tokens - row.num_done)
        row.advance(np.zeros(g.sliding_window_len, np.int32))
    if drawn:
        yield prompt, drawn


def coarse(config: BarkConfig, lengths: Sequence[int], slots: int, item_bytes: int) -> tuple[Work, Work]:
    """Prefill and decode; each prefill draws the first token of its run. A step computes one codebook's classes."""
    size = config.generation.codebook_size
    clips = [list(coarse_runs(config, n)) for n in lengths]
    runs = [run for clip in clips for run in clip]
    places = np.concatenate([np.arange(prompt, prompt + drawn - 1) for prompt, drawn in runs])
    steps = fewest_steps([sum(drawn - 1 for _, drawn in clip) for clip in clips], slots)
    return (
        prefills(config.coarse, [prompt for prompt, _ in runs], size, slots, item_bytes),
        decode(config.coarse, places, steps, size, item_bytes),
    )


def fine(config: BarkConfig, lengths: Sequence[int], slots: int, item_bytes: int) -> Work:
    """A forward a predicted codebook and window, over all positions: the network is not causal.

    What one forward predicts is what the next ones read, padding included, so outputs are needed from the fill
    position on; of the very last forward only the clip's own frames are.
    """
    g, size = config.generation, config.generation.codebook_size
    head = head_entries(config.fine, size)
    flops = forwards = 0
    for n in lengths:
        row = FineRow(np.zeros((g.n_coarse_codebooks, frames(config, n)), np.int32), None, g)
        while not row.done:
            buffer, fill = row.window()
            last = row.index + 1 == row.num_windows
            for codebook in range(g.n_coarse_codebooks, g.n_fine_codebooks):
                used = buffer.shape[1] - fill
                if last and codebook + 1 == g.n_fine_codebooks:
                    used = min(used, row.num_frames)
                flops += sequence_flops(config.fine, buffer.shape[1], used, causal=False) + 2 * head * used
                forwards += 1
            row.advance(buffer)
    read = math.ceil(forwards / slots) * (block_entries(config.fine) + head)
    return Work(flops, read * item_bytes)


def frames(config: BarkConfig, num_semantic: int) -> int:
    """Codec frames of a clip."""
    return CoarseRow(np.zeros(num_semantic, np.int32), None, config).num_tokens // config.generation.n_coarse_codebooks


def codec_frame_flops(config: CodecConfig) -> int:
    """The decoder's FLOPs a frame: convolutions at each stage's own rate, and the LSTM.

    A convolution costs 2 · kernel · C in · C out a position (a transposed one: a position of its input); an LSTM
    layer 2 · 4 C (C + C) a frame.
    """
    channels = config.latent_channels
    products = config.kernel_size * config.hidden_size * channels + config.num_lstm_layers * 8 * channels**2
    positions = 1
    for ratio in config.upsampling_ratios:
        half, inner = channels // 2, channels // 2 // config.compress
        products += positions * 2 * ratio * channels * half
        positions *= ratio
        block = config.residual_kernel_size * half * inner + inner * half + config.use_conv_shortcut * half * half
        products += positions * config.num_residual_layers * block
        channels = half
    products += positions * config.last_kernel_size * config.num_filters * config.audio_channels
    return 2 * products


def codec(config: BarkConfig, lengths: Sequence[int]) -> Work:
    """Codes to audio, in float32 whatever the dtype; of memory only the audio counts."""
    total = sum(frames(config, n) for n in lengths)
    return Work(total * codec_frame_flops(config.codec), total * config.codec.hop_length * FLOAT32_BYTES)


def parts(config: BarkConfig, lengths: Sequence[int], slots: int, item_bytes: int) -> dict[tuple[str, str], Work]:
    """(stage, part) -> its work, for clips of `lengths` semantic tokens without a voice, `slots` of them at a time."""
    semantic_prefill, semantic_decode = semantic(config, lengths, slots, item_bytes)
    coarse_prefill, coarse_decode = coarse(config, lengths, slots, item_bytes)
    return {
        ("semantic", "prefill"): semantic_prefill,
        ("semantic", "decode"): semantic_decode,
        ("coarse", "prefill"): coarse_prefill,
        ("coarse", "decode"): coarse_decode,
        ("fine", "forwards"): fine(config, lengths, slots, item_bytes),
        ("audio", "codec"): codec(config, lengths),
    }
