"""The one table between HF's tensor names and our parameters, and the checks at that border.

Our names are nnx state paths joined by dots. A linear layer's `weight` [out, in] is our `kernel` [in, out];
the fine network's per-codebook tables are one stacked parameter each.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bark_model.config import FineConfig, TransformerConfig

Tensors = Mapping[str, np.ndarray]
Parameters = dict[str, np.ndarray]

IGNORED_SUFFIXES = (".attn.bias", ".attn.masked_bias")
"""Causal masks that torch keeps as buffers."""


class WeightError(ValueError):
    """A tensor is missing, unknown or of the wrong shape; one line that names it."""


@dataclass(frozen=True)
class Entry:
    """One HF tensor: its name and shape, the parameter it fills, whether it is transposed, its place in a stack."""

    tensor: str
    shape: tuple[int, ...]
    parameter: str
    transpose: bool = False
    index: int | None = None


def _linear(tensor: str, parameter: str, width_in: int, width_out: int, bias: bool) -> list[Entry]:
    entries = [Entry(f"{tensor}.weight", (width_out, width_in), f"{parameter}.kernel", transpose=True)]
    return entries + ([Entry(f"{tensor}.bias", (width_out,), f"{parameter}.bias")] if bias else [])


def _norm(tensor: str, parameter: str, width: int, bias: bool) -> list[Entry]:
    entries = [Entry(f"{tensor}.weight", (width,), f"{parameter}.scale")]
    return entries + ([Entry(f"{tensor}.bias", (width,), f"{parameter}.bias")] if bias else [])


def _blocks(config: TransformerConfig, norm_bias: bool) -> list[Entry]:
    width, bias = config.hidden_size, config.bias
    entries = []
    for i in range(config.num_layers):
        theirs, ours = f"layers.{i}", f"blocks.{i}"
        entries += _norm(f"{theirs}.layernorm_1", f"{ours}.norm_1", width, norm_bias)
        entries += _linear(f"{theirs}.attn.att_proj", f"{ours}.attention.qkv", width, 3 * width, bias)
        entries += _linear(f"{theirs}.attn.out_proj", f"{ours}.attention.out", width, width, bias)
        entries += _norm(f"{theirs}.layernorm_2", f"{ours}.norm_2", width, norm_bias)
        entries += _linear(f"{theirs}.mlp.in_proj", f"{ours}.mlp_in", width, 4 * width, bias)
        entries += _linear(f"{theirs}.mlp.out_proj", f"{ours}.mlp_out", 4 * width, width, bias)
    return entries + _norm("layernorm_final", "norm_final", width, norm_bias)


def _positions(config: TransformerConfig) -> Entry:
    shape = (config.block_size, config.hidden_size)
    return Entry("position_embeds_layer.weight", shape, "position_embedding.embedding")


def causal_table(config: TransformerConfig) -> list[Entry]:
    """Every weight of a semantic or coarse network, HF names without their `semantic.` prefix."""
    width = config.hidden_size
    return [
        Entry("input_embeds_layer.weight", (config.input_vocab_size, width), "token_embedding.embedding"),
        _positions(config),
        *_blocks(config, norm_bias=config.bias),
        *_linear("lm_head", "head", width, config.output_vocab_size, bias=False),
    ]


def fine_table(config: FineConfig) -> list[Entry]:
    """Every weight of a fine network. Tied heads are not in the table: the embeddings are their weights."""
    width = config.hidden_size
    embeddings = [
        Entry(f"input_embeds_layers.{k}.weight", (config.input_vocab_size, width), "code_embeddings", index=k)
        for k in range(config.n_codes_total)
    ]
    heads = [
        Entry(f"lm_heads.{k}.weight", (config.output_vocab_size, width), "heads", index=k)
        for k in range(config.n_codes_total - config.n_codes_given)
    ]
    return [*embeddings, _positions(config), *_blocks(config, True), *([] if config.tie_word_embeddings else heads)]


def from_tensors(owner: str, table: list[Entry], tensors: Tensors) -> Parameters:
    """HF tensors -> our parameters. Refuses missing, unknown and misshapen tensors by name; `owner` prefixes them."""
    known = {entry.tensor for entry in table}
    unknown = sorted(name for name in tensors if name not in known and not name.endswith(IGNORED_SUFFIXES))
    missing = sorted(known - set(tensors))
    if missing or unknown:
        kind, names = ("is missing", missing) if missing else ("is unknown", unknown)
        more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        raise WeightError(f"tensor {owner}.{names[0]} {kind}{more}: the weights do not belong to this config.json")
    stacks: dict[str, list[np.ndarray]] = {}
    parameters: Parameters = {}
    for entry in table:
        tensor = tensors[entry.tensor]
        if tensor.shape != entry.shape:
            raise WeightError(
                f"tensor {owner}.{entry.tensor} has shape {tensor.shape}, config.json expects {entry.shape}"
            )
        array = tensor.T if entry.transpose else tensor
        if entry.index is None:
            parameters[entry.parameter] = array
        else:
            stacks.setdefault(entry.parameter, []).append(array)
    return parameters | {name: np.stack(arrays) for name, arrays in stacks.items()}


def to_tensors(table: list[Entry], parameters: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `from_tensors`."""
    tensors = {}
    for entry in table:
        array = np.asarray(parameters[entry.parameter])
        array = array if entry.index is None else array[entry.index]
        tensors[entry.tensor] = np.ascontiguousarray(array.T if entry.transpose else array)
    return tensors


def drop_tied_heads(config: FineConfig, tensors: Tensors) -> Tensors:
    """A tied network's file may still hold its heads; they must then equal the embeddings they are tied to."""
    if not config.tie_word_embeddings:
        return tensors
    kept = dict(tensors)
    for k in range(config.n_codes_total - config.n_codes_given):
        head = kept.pop(f"lm_heads.{k}.weight", None)
        embedding = tensors.get(f"input_embeds_layers.{k + 1}.weight")
        if head is not None and embedding is not None and not np.array_equal(head, embedding):
            raise WeightError(
                f"tensor fine_acoustics.lm_heads.{k}.weight differs from input_embeds_layers.{k + 1}.weight, to which "
                "config.json ties it: set tie_word_embeddings to false"
            )
    return kept
