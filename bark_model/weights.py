"""The one table between HF's tensor names and our parameters, and the checks at that border.

Our names are nnx state paths joined by dots. A linear layer's `weight` [out, in] is our `kernel` [in, out];
the fine network's per-codebook tables are one stacked parameter each.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bark_model.config import BarkConfig, FineConfig, TransformerConfig
from bark_model.encodec.weights import CodecWeightError, codec_weights

Tensors = Mapping[str, np.ndarray]
Parameters = dict[str, np.ndarray]

IGNORED_SUFFIXES = (".attn.bias", ".attn.masked_bias")
"""Causal masks that torch keeps as buffers."""

FLOATS = ("float32", "float16", "bfloat16", "float64")


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
    """HF tensors -> our parameters. Refuses missing, unknown, misshapen and non-finite tensors by name.

    `owner` is the prefix of their full names. Any float dtype; parameters are views where no stacking is needed.
    """
    _check_names(owner, table, tensors)
    stacks: dict[str, list[np.ndarray]] = {}
    parameters: Parameters = {}
    for entry in table:
        tensor = tensors[entry.tensor]
        _check_tensor(f"{owner}.{entry.tensor}", entry.shape, tensor)
        array = tensor.T if entry.transpose else tensor
        if entry.index is None:
            parameters[entry.parameter] = array
        else:
            stacks.setdefault(entry.parameter, []).append(array)
    return parameters | {name: np.stack(arrays) for name, arrays in stacks.items()}


def _check_names(owner: str, table: list[Entry], tensors: Tensors) -> None:
    known = {entry.tensor: entry.shape for entry in table}
    missing = sorted(set(known) - set(tensors))
    unknown = sorted(name for name in set(tensors) - set(known) if not name.endswith(IGNORED_SUFFIXES))
    if missing:
        problem = f"{missing[0]} is missing, config.json expects shape {known[missing[0]]}"
    elif unknown:
        problem = f"{unknown[0]} of shape {tensors[unknown[0]].shape} is unknown"
    else:
        return
    count = len(missing or unknown)
    more = f" (and {count - 1} more)" if count > 1 else ""
    raise WeightError(f"tensor {owner}.{problem}{more}: the weights do not belong to this config.json")


def _check_tensor(name: str, shape: tuple[int, ...], tensor: np.ndarray) -> None:
    if tensor.shape != shape:
        raise WeightError(f"tensor {name} has shape {tensor.shape}, config.json expects {shape}")
    if tensor.dtype.name not in FLOATS:
        raise WeightError(f"tensor {name} has dtype {tensor.dtype}, must be float32, float16 or bfloat16")
    # One NaN or infinity makes the sum one, too, and a sum is the cheapest pass there is.
    with np.errstate(all="ignore"):
        total = tensor.sum(dtype=np.float32)
    if not np.isfinite(total) and not np.isfinite(tensor).all():
        raise WeightError(f"tensor {name} holds NaN or infinity: the checkpoint is damaged")


def part_parameters(config: BarkConfig, part: str, tensors: Tensors) -> Parameters:
    """A network's parameters by our names, as stored, from HF's tensors without the part's prefix; all checked.

    part: semantic, coarse, fine or codec, whose weight norm is folded.
    """
    if part == "codec":
        try:
            return codec_weights(config.codec, tensors)
        except CodecWeightError as error:
            raise WeightError(str(error)) from error
    if part == "fine":
        return from_tensors("fine_acoustics", fine_table(config.fine), drop_tied_heads(config.fine, tensors))
    owner = {"semantic": "semantic", "coarse": "coarse_acoustics"}[part]
    return from_tensors(owner, causal_table(getattr(config, part)), tensors)


def to_tensors(table: list[Entry], parameters: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `from_tensors`."""
    tensors = {}
    for entry in table:
        array = np.asarray(parameters[entry.parameter])
        array = array if entry.index is None else array[entry.index]
        tensors[entry.tensor] = np.ascontiguousarray(array.T if entry.transpose else array)
    return tensors


def drop_tied_heads(config: FineConfig, tensors: Tensors) -> Tensors:
    """A tied network's file may hold its heads beside the embeddings they are tied to, or in place of them."""
    if not config.tie_word_embeddings:
        return tensors
    kept = dict(tensors)
    for k in range(config.n_codes_total - config.n_codes_given):
        head = kept.pop(f"lm_heads.{k}.weight", None)
        if head is None:
            continue
        embedding = kept.setdefault(f"input_embeds_layers.{k + 1}.weight", head)
        if embedding is not head and not np.array_equal(head, embedding):
            raise WeightError(
                f"tensor fine_acoustics.lm_heads.{k}.weight differs from input_embeds_layers.{k + 1}.weight, to which "
                "config.json ties it: set tie_word_embeddings to false"
            )
    return kept
