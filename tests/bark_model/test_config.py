"""The two JSON files: read, written and read again; whatever they hold, nothing but ConfigError comes out."""

import copy
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bark_model.config import BarkConfig, ConfigError, FineConfig, Generation, TransformerConfig
from bark_model.config_json import config_json, generation_json
from bark_model.random_checkpoint import TINY, bark_preset
from tests.bark_model.conftest import SHAPES

BARK = bark_preset(24, 16, 1024)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


def written(config: BarkConfig) -> tuple[dict, dict]:
    """Both files as JSON gives them back."""
    return json.loads(json.dumps(config_json(config, {}))), json.loads(json.dumps(generation_json(config, {})))


@pytest.mark.parametrize("config", [BARK, *SHAPES.values()], ids=["bark", *SHAPES])
def test_round_trip(config):
    assert BarkConfig.from_json(*written(config)) == config


def test_numbers_derived_from_barks_constants():
    g = Generation()
    assert round(g.coarse_per_semantic, 6) == 3.006012
    assert (g.max_semantic_history, g.semantic_prefill_length, g.coarse_prefill_length) == (209, 257, 887)
    assert (g.samples_per_frame, BARK.coarse_classes_end, BARK.text_vocab_size) == (320, 12_048, 119_547)


def test_sizes_that_transformers_leaves_out():
    """Its config classes have defaults; Bark's constants stand in for a file that names none."""
    config, _ = written(BARK)
    del config["semantic_config"]["block_size"]
    del config["coarse_acoustics_config"]["bias"]
    config["codec_config"] = {"model_type": "encodec"}
    parts = {"semantic_config": {}, "coarse_acoustics_config": {}, "fine_acoustics_config": {}}
    read = BarkConfig.from_json(config, parts)
    assert read == replace(BARK, coarse=replace(BARK.coarse, bias=True))


def test_constants_are_read_from_their_own_part():
    """transformers writes max_new_tokens null into every part, and options of the same name may be anywhere."""
    config, generation = written(TINY)
    generation["max_new_tokens"] = 3
    generation["coarse_acoustics_config"]["max_new_tokens"] = None
    generation["fine_acoustics_config"]["max_new_tokens"] = 5
    generation["semantic_config"]["semantic_pad_token"] = 7  # the end token wins, as in transformers
    generation["semantic_config"]["text_pad_token"] = None
    generation["semantic_config"]["temperature"] = 0.1
    with pytest.raises(ConfigError, match="text_pad_token"):
        BarkConfig.from_json(config, generation)
    generation["semantic_config"]["text_pad_token"] = 470
    assert BarkConfig.from_json(config, generation) == TINY


@pytest.mark.parametrize(
    ("file", "path", "value", "says"),
    [
        (0, ("semantic_config",), 3, "config.json: semantic_config is int, must be an object"),
        (0, ("codec_config",), None, "config.json: codec_config is NoneType, must be an object"),
        (1, ("fine_acoustics_config",), [], "generation_config.json: fine_acoustics_config is list, must be an object"),
        (
            0,
            ("coarse_acoustics_config", "num_heads"),
            3,
            "config.json: coarse_acoustics_config: TransformerConfig: hidden_size 32 is not a multiple of num_heads 3",
        ),
        (
            0,
            ("fine_acoustics_config", "num_layers"),
            "2",
            "config.json: fine_acoustics_config: FineConfig: num_layers is '2', must be a whole number from 1 to 1024",
        ),
        (
            0,
            ("semantic_config", "bias"),
            "x" * 1000,
            f"config.json: semantic_config: TransformerConfig: bias is '{'x' * 76}..., must be true or false",
        ),
        (
            0,
            ("fine_acoustics_config", "output_vocab_size"),
            70,
            "config.json: fine_acoustics_config: FineConfig: tied heads need input_vocab_size 72 "
            "equal to output_vocab_size 70",
        ),
        (
            1,
            ("semantic_config", "semantic_rate_hz"),
            0,
            "generation_config: semantic_rate_hz is 0, must be 0.1 to 10000 Hz",
        ),
        (
            1,
            ("coarse_acoustics_config", "sliding_window_len"),
            13,
            "generation_config: sliding_window_len 13 is not a multiple of n_coarse_codebooks 2: "
            "a window would end inside a frame",
        ),
        (
            1,
            ("coarse_acoustics_config", "n_coarse_codebooks"),
            1,
            "generation_config: n_coarse_codebooks is 1, Bark's is 2",
        ),
        (
            1,
            ("semantic_config", "max_new_tokens"),
            97,
            "checkpoint: semantic prompt and new tokens is 161, more than semantic block_size 160",
        ),
        (
            1,
            ("sample_rate",),
            12_000,
            "checkpoint: sample_rate is 12000 in generation_config.json but 24000 in the codec",
        ),
        (1, ("codebook_size",), 128, "more than"),
    ],
)
def test_refused_values(file, path, value, says):
    files = written(TINY)
    target = files[file]
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(ConfigError) as caught:
        BarkConfig.from_json(*files)
    assert str(caught.value) == says or (says == "more than" and says in str(caught.value))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("target_bandwidths", [1e308]),
        ("target_bandwidths", [2**70]),
        ("target_bandwidths", [2.0**15]),
        ("num_lstm_layers", float("nan")),
        ("num_residual_layers", 10**5000),
        ("sampling_rate", 2**2000),
        ("upsampling_ratios", [2**400, 2**400, 2**400]),
        ("codebook_size", 2**3000),
        ("num_filters", 2**70),
    ],
    ids=range(9),
)
def test_codec_numbers_beyond_floats(name, value):
    config, generation = written(TINY)
    config["codec_config"][name] = value
    with pytest.raises(ConfigError, match=r"must be at most 65536|more than the most there can be 256"):
        BarkConfig.from_json(config, generation)


@pytest.mark.parametrize("files", [([], {}), ({}, []), ("x", {}), (None, None), ({}, {})])
def test_not_even_objects(files):
    with pytest.raises(ConfigError):
        BarkConfig.from_json(*files)


@settings(max_examples=200, deadline=None)
@given(JSON, JSON)
def test_any_json_is_a_config_error(config, generation):
    with pytest.raises(ConfigError):
        BarkConfig.from_json(config, generation)


def places(value, path=()):
    """The path of every value in a nested dict."""
    for key, inner in value.items():
        yield (*path, key)
        if isinstance(inner, dict):
            yield from places(inner, (*path, key))


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_any_value_anywhere_is_a_config_or_a_config_error(data):
    files = copy.deepcopy(written(TINY))
    for _ in range(data.draw(st.integers(1, 3))):
        chosen = data.draw(st.sampled_from(files))
        *path, last = data.draw(st.sampled_from(list(places(chosen))))
        for key in path:
            chosen = chosen[key]
        chosen[last] = data.draw(JSON)
    try:
        message = repr(BarkConfig.from_json(*files))
    except ConfigError as error:
        message = str(error)
        assert len(message) < 1000
    assert "\n" not in message


@pytest.mark.parametrize("value", [0, -1, True, 2.0, None, "3", 2**24 + 1, 2**70])
def test_sizes_are_whole_numbers_in_range(value):
    with pytest.raises(
        ConfigError, match=r"TransformerConfig: block_size is .*, must be a whole number from 1 to 16777216"
    ):
        replace(TINY.semantic, block_size=value)


def test_codes_given_leave_one_to_predict():
    with pytest.raises(ConfigError, match="FineConfig: n_codes_given is 8, must be a whole number from 1 to 7"):
        replace(TINY.fine, n_codes_given=8)
    assert isinstance(TINY.fine, FineConfig)
    assert isinstance(TINY.fine, TransformerConfig)
