"""The table between HF's tensors and our parameters: complete both ways, and exact in what it refuses."""

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

from bark_model.networks import abstract
from bark_model.random_checkpoint import TINY, bark_preset, random_tensors
from bark_model.weights import WeightError, causal_table, drop_tied_heads, fine_table, from_tensors, to_tensors
from tests.bark_model.conftest import SHAPES

TABLES = {"semantic": causal_table, "coarse": causal_table, "fine": fine_table}
REAL = {
    "bark": bark_preset(24, 16, 1024),
    "bark-small": bark_preset(12, 12, 768),
    "biased": bark_preset(1, 1, 8, bias=True),
}


def leaves(config, part):
    """Name -> shape of the module's own tree, by eval_shape."""
    from flax import nnx

    return {
        ".".join(map(str, path)): leaf.shape for path, leaf in nnx.to_flat_state(abstract(config, part, np.float32)[1])
    }


@pytest.mark.parametrize("part", TABLES)
@pytest.mark.parametrize("config", [*SHAPES.values(), *REAL.values()], ids=[*SHAPES, *REAL])
def test_table_is_the_modules_tree(config, part):
    """Every parameter of the module, at its shape, at tiny and at real sizes; nothing is allocated."""
    found, stacks = {}, {}
    for entry in TABLES[part](getattr(config, part)):
        shape = entry.shape[::-1] if entry.transpose else entry.shape
        if entry.index is None:
            found[entry.parameter] = shape
        else:
            stacks.setdefault(entry.parameter, []).append(shape)
    found |= {name: (len(shapes), *shapes[0]) for name, shapes in stacks.items()}
    assert found == leaves(config, part)


@pytest.mark.parametrize(("name", "millions"), [("bark", (446.0, 327.8, 311.7)), ("bark-small", (193.0, 104.3, 92.2))])
def test_parameter_counts_are_barks(name, millions):
    for part, expected in zip(TABLES, millions, strict=True):
        count = sum(int(np.prod(shape)) for shape in leaves(REAL[name], part).values())
        assert abs(count / 1e6 - expected) < 0.1


@pytest.mark.parametrize("part", TABLES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_round_trip(part, shape, dtype):
    config = SHAPES[shape]
    prefix = {"semantic": "semantic.", "coarse": "coarse_acoustics.", "fine": "fine_acoustics."}[part]
    tensors = {
        name.removeprefix(prefix): array.astype(np.dtype(dtype))
        for name, array in random_tensors(config, seed=1).items()
        if name.startswith(prefix)
    }
    table = TABLES[part](getattr(config, part))
    parameters = from_tensors(prefix[:-1], table, tensors)
    back = to_tensors(table, parameters)
    assert back.keys() == tensors.keys()
    for name, array in back.items():
        assert array.dtype == np.dtype(dtype)
        assert array.tobytes() == tensors[name].tobytes()


def fine_tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {e.tensor: rng.standard_normal(e.shape).astype("f4") for e in fine_table(TINY.fine)}


def test_causal_masks_are_ignored():
    tensors = fine_tensors() | {
        "layers.0.attn.bias": np.ones((1, 1, 4, 4), bool),
        "layers.1.attn.masked_bias": np.ones(1),
    }
    assert "code_embeddings" in from_tensors("fine_acoustics", fine_table(TINY.fine), tensors)


def test_a_missing_name_is_told_before_an_unknown_one():
    tensors = fine_tensors()
    tensors["layers.0.attn.att_projection.weight"] = tensors.pop("layers.0.attn.att_proj.weight")
    with pytest.raises(WeightError) as caught:
        from_tensors("fine_acoustics", fine_table(TINY.fine), tensors)
    assert str(caught.value) == (
        "tensor fine_acoustics.layers.0.attn.att_proj.weight is missing, config.json expects shape (96, 32): "
        "the weights do not belong to this config.json"
    )


def test_large_finite_values_pass():
    """Their sum overflows float32, they themselves do not."""
    tensors = fine_tensors()
    tensors["layernorm_final.weight"] = np.full(32, 3e38, np.float32)
    from_tensors("fine_acoustics", fine_table(TINY.fine), tensors)


def test_infinity_in_bfloat16():
    tensors = fine_tensors()
    tensors["layernorm_final.bias"] = np.full(32, np.inf, ml_dtypes.bfloat16)
    with pytest.raises(WeightError, match=r"tensor fine_acoustics\.layernorm_final\.bias holds NaN or infinity"):
        from_tensors("fine_acoustics", fine_table(TINY.fine), tensors)


def test_tied_heads_beside_or_in_place_of_embeddings():
    tensors = fine_tensors()
    heads = {f"lm_heads.{k}.weight": tensors[f"input_embeds_layers.{k + 1}.weight"].copy() for k in range(7)}
    only_heads = {"input_embeds_layers.0.weight": tensors["input_embeds_layers.0.weight"]} | {
        name: array for name, array in tensors.items() if not name.startswith("input_embeds")
    }
    for given in (tensors, tensors | heads, only_heads | heads):
        kept = drop_tied_heads(TINY.fine, given)
        assert kept.keys() == tensors.keys()
        assert all(np.array_equal(kept[name], tensors[name]) for name in tensors)


def test_tied_heads_that_differ():
    tensors = fine_tensors()
    tensors["lm_heads.2.weight"] = tensors["input_embeds_layers.3.weight"] + 1
    with pytest.raises(WeightError) as caught:
        drop_tied_heads(TINY.fine, tensors)
    assert str(caught.value) == (
        "tensor fine_acoustics.lm_heads.2.weight differs from input_embeds_layers.3.weight, to which "
        "config.json ties it: set tie_word_embeddings to false"
    )
    untied = replace(TINY.fine, tie_word_embeddings=False)
    assert drop_tied_heads(untied, tensors) is tensors
