"""The oracle: transformers' BarkModel on the same checkpoint folder, greedy, with the margin of every choice.

A margin is the distance of the two best logits. Where it is below the error measured between the two
implementations, float32 sums in another order may choose otherwise: such choices are counted, never hidden.
"""

import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from transformers import BarkModel
from transformers.models.bark.generation_configuration_bark import (
    BarkCoarseGenerationConfig,
    BarkFineGenerationConfig,
    BarkSemanticGenerationConfig,
)

from bark_model.voices import Voice


@dataclass
class Choices:
    """Tokens of one stage in the order they were chosen, and the margin of each choice."""

    tokens: list[int] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)


@dataclass
class FineChoices:
    """Codes [K, T] of the fine stage; the margin of each choice; the number of the step [K, T] that made it last.

    All choices of a step are made at once. The coarse codebooks are given: step -1, margin infinite.
    """

    codes: np.ndarray
    margins: np.ndarray
    steps: np.ndarray


def record(module: torch.nn.Module, seen: list[np.ndarray]):
    """Keeps every output of a module, as float32 numpy."""
    return module.register_forward_hook(lambda _m, _i, output: seen.append(output.detach().float().numpy()))


def margins(logits: np.ndarray) -> np.ndarray:
    """Best minus second best over the last axis."""
    best = np.partition(logits, -2, axis=-1)[..., -2:]
    return np.abs(best[..., 1] - best[..., 0])


class Reference:
    """A checkpoint in transformers, on the CPU in float32."""

    def __init__(self, folder: str | Path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.model = BarkModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        config = self.model.generation_config
        self.semantic_config = BarkSemanticGenerationConfig(**config.semantic_config)
        self.coarse_config = BarkCoarseGenerationConfig(**config.coarse_acoustics_config)
        self.fine_config = BarkFineGenerationConfig(**config.fine_acoustics_config)
        for stage in (self.semantic_config, self.coarse_config):
            stage.do_sample = False  # a checkpoint may ask for sampling
        self.codebook_size = config.codebook_size
        self.num_coarse = self.coarse_config.n_coarse_codebooks

    def _history(self, voice: Voice | None):
        if voice is None:
            return None
        return {
            "semantic_prompt": torch.tensor(voice.semantic),
            "coarse_prompt": torch.tensor(voice.coarse),
            "fine_prompt": torch.tensor(voice.fine),
        }

    @torch.no_grad()
    def semantic(self, ids: np.ndarray, voice: Voice | None = None, min_eos_p: float | None = None) -> Choices:
        """Greedy semantic tokens without the end token; the margins include the end token's choice."""
        config = self.semantic_config
        width = config.max_input_semantic_length
        padded, mask = np.zeros((1, width), np.int64), np.zeros((1, width), np.int64)
        padded[0, : len(ids)], mask[0, : len(ids)] = ids[:width], 1
        seen: list[np.ndarray] = []
        hook = record(self.model.semantic.lm_head, seen)
        output = self.model.semantic.generate(
            torch.tensor(padded),
            semantic_generation_config=config,
            history_prompt=self._history(voice),
            attention_mask=torch.tensor(mask),
            min_eos_p=min_eos_p,
        )[0].numpy()
        hook.remove()
        logits = np.stack([step[0, -1] for step in seen])
        allowed = np.r_[0 : config.semantic_vocab_size, config.semantic_pad_token]
        kept = output[output != config.semantic_pad_token]
        return Choices(kept.tolist(), margins(logits[:, allowed]).tolist())

    @torch.no_grad()
    def coarse(self, semantic: np.ndarray, voice: Voice | None = None) -> Choices:
        """Greedy coarse ids, flat, as transformers numbers them."""
        seen: list[np.ndarray] = []
        hook = record(self.model.coarse_acoustics.lm_head, seen)
        output = self.model.coarse_acoustics.generate(
            torch.tensor(np.array(semantic))[None],
            semantic_generation_config=self.semantic_config,
            coarse_generation_config=self.coarse_config,
            codebook_size=self.codebook_size,
            history_prompt=self._history(voice),
        )[0].numpy()
        hook.remove()
        first, size = self.semantic_config.semantic_vocab_size, self.codebook_size
        steps = [step[0, -1] for step in seen]
        even, odd = slice(first, first + size), slice(first + size, None)
        found = [float(margins(step[odd if n % 2 else even])) for n, step in enumerate(steps)]
        return Choices(output.tolist(), found)

    @torch.no_grad()
    def fine(self, coarse_ids: np.ndarray, voice: Voice | None = None) -> "FineChoices":
        """Greedy fine codes, each with the margin and the step of the choice that made it."""
        seen: list[np.ndarray] = []
        hooks = [record(head, seen) for head in self.model.fine_acoustics.lm_heads]
        output = self.model.fine_acoustics.generate(
            torch.tensor(np.array(coarse_ids))[None],
            semantic_generation_config=self.semantic_config,
            coarse_generation_config=self.coarse_config,
            fine_generation_config=self.fine_config,
            codebook_size=self.codebook_size,
            history_prompt=self._history(voice),
            temperature=None,
        )[0].numpy()
        for hook in hooks:
            hook.remove()
        steps = np.stack([margins(step[0, :, : self.codebook_size]) for step in seen])
        return FineChoices(output, *self._last_choices(steps, output.shape, voice))

    def _last_choices(
        self, steps: np.ndarray, shape: tuple[int, ...], voice: Voice | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Margins and numbers [K, T] of the steps that wrote a clip's codes last; `steps` has all steps' margins.

        history [h h], window 8, stride 4, clip of 9 frames, 2 codebooks to predict: two windows of two steps each
            window 0 fills 2..7, window 1 fills 6..10  ->  steps of codebook 2:  0 0 0 0 2 2 2 2 2
        """
        config = self.fine_config
        window, stride = config.max_fine_input_length, config.max_fine_history_length
        codebooks, frames = shape
        history = 0 if voice is None else min(voice.fine.shape[1], stride)
        predicted = codebooks - self.num_coarse
        total = max(history + frames, window)
        found, numbers = np.full((codebooks, total), np.inf), np.full((codebooks, total), -1)
        for index in range(len(steps) // predicted):
            start = min(index * stride, total - window)
            fill = min(history + index * stride, total - stride)
            for n in range(predicted):
                number = index * predicted + n
                found[self.num_coarse + n, fill : start + window] = steps[number, fill - start :]
                numbers[self.num_coarse + n, fill : start + window] = number
        return found[:, history : history + frames], numbers[:, history : history + frames]

    @torch.no_grad()
    def decode(self, fine: np.ndarray) -> np.ndarray:
        """Audio [L] of fine codes [8, T]."""
        return self.model.codec_decode(torch.tensor(np.array(fine))[None])[0].numpy()
