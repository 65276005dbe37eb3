"""EnCodec: codes -> audio and back, rows of one length bucket together."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bark_model.axes import FineCodes, Waveform
from bark_model.coarse import num_coarse_tokens
from bark_model.config import BarkConfig, Generation
from bark_model.encodec import codec
from bark_model.engines.slots import Engine, Hardware, NonFinite
from bark_model.networks import Network
from bark_model.replicated import Program


def bucket(length: int, smallest: int = 128) -> int:
    """The compiled length that holds `length`: 128, 192, 256, 384, 512, 768, ...: at most half is padding."""
    size = smallest
    while True:
        for candidate in (size, size + size // 2):
            if length <= candidate:
                return candidate
        size *= 2


class CodecEngine(Engine):
    """Rows of one length bucket run together; a row's bucket is its own length's, so neighbours change nothing."""

    def __init__(self, network: Network, config: BarkConfig, hardware: Hardware):
        super().__init__(network, config, hardware)
        num_codebooks = config.generation.n_fine_codebooks
        self._decode = self.program("codec decode", lambda model, rows: codec.decode(model, *rows))
        self._encode = self.program(
            "codec encode", lambda model, rows: codec.encode(model, *rows, num_codebooks=num_codebooks)
        )

    def _compile(self, parameters: Any) -> None:
        """Decoding alone, at each bucket up to the longest clip: nobody knows how long recordings to encode are."""
        g, longest = self.config.generation, bucket(num_frames(self.config.generation))
        lengths, width = [], 0
        while width < longest:
            lengths.append(width := bucket(width + 1))
        for width in lengths:
            rows = (np.zeros((1, g.n_fine_codebooks, width), np.int32), np.zeros(1, np.int32))
            self._decode.compile(parameters, self.hardware.replicas.spread(rows, self.hardware.batch_rows))

    def decode(self, codes: Sequence[FineCodes]) -> list[Waveform | NonFinite]:
        """[K, T] codes -> float32 [L] audio, L = T * samples a frame."""
        samples = self.config.codec.hop_length
        rows = self._by_bucket(self._decode, codes, [c.shape[-1] for c in codes], unit=1)
        audio = [row[: c.shape[-1] * samples] for row, c in zip(rows, codes, strict=True)]
        return [row if np.isfinite(row).all() else NonFinite() for row in audio]

    def encode(self, audio: Sequence[Waveform]) -> list[FineCodes]:
        """float32 [L] audio at the checkpoint's sample rate -> codes [K, T], T = ceil(L / samples a frame)."""
        samples = self.config.codec.hop_length
        rows = self._by_bucket(self._encode, audio, [len(a) for a in audio], unit=samples)
        return [row[:, : -(-len(a) // samples)] for row, a in zip(rows, audio, strict=True)]

    def _by_bucket(self, program: Program, arrays: Sequence[np.ndarray], lengths: list[int], unit: int) -> list:
        """Pads rows to their bucket of frames, runs each bucket in batches, returns rows in order."""
        buckets: dict[int, list[int]] = {}
        for i, length in enumerate(lengths):
            buckets.setdefault(bucket(-(-length // unit)) * unit, []).append(i)
        results: list[Any] = [None] * len(arrays)
        replicas, rows = self.hardware.replicas, self.hardware.batch_rows
        capacity = replicas.count * rows
        with self.session() as parameters:
            for width, members in sorted(buckets.items()):
                for first in range(0, len(members), capacity):
                    chosen = members[first : first + capacity]
                    padded = np.stack([_pad_right(arrays[i], width) for i in chosen])
                    batch = (padded, np.array([lengths[i] for i in chosen], np.int32))
                    done = replicas.run_rows(program, parameters, batch, rows)
                    self.meter.count(busy=sum(lengths[i] for i in chosen) // unit, slots=width // unit * capacity)
                    for i, row in zip(chosen, done, strict=True):
                        results[i] = row
        return results


def num_frames(constants: Generation) -> int:
    """Codec frames of the longest clip a text can become."""
    return num_coarse_tokens(constants.max_new_tokens, constants) // constants.n_coarse_codebooks


def _pad_right(array: np.ndarray, width: int) -> np.ndarray:
    return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, width - array.shape[-1])])
