import dataclasses
import subprocess
import sys

import pytest
from transformers import EncodecConfig

from bark_model.encodec.config import CodecConfig, CodecConfigError


def test_the_24_khz_codec():
    config = CodecConfig.from_json({})
    assert (config.hop_length, config.frame_rate_hz, config.num_quantizers, config.latent_channels) == (
        320,
        75,
        32,
        512,
    )
    assert config.num_codebooks(6.0) == 8
    assert (config.num_frames(1), config.num_frames(320), config.num_frames(321)) == (1, 1, 2)
    assert config.num_samples(600) == 8 * 24_000


def test_defaults_and_derived_values_are_those_of_transformers():
    theirs = EncodecConfig()
    config = CodecConfig.from_json({})
    for field in dataclasses.fields(CodecConfig):
        wanted = getattr(theirs, field.name)
        assert getattr(config, field.name) == (None if field.name == "codebook_dim" else wanted), field.name
    assert CodecConfig.from_json(theirs.to_dict()) == dataclasses.replace(config, codebook_dim=128)


@pytest.mark.parametrize(
    "changes",
    [
        {"target_bandwidths": [1.2], "codebook_size": 16},
        {"sampling_rate": 16_000, "upsampling_ratios": [5, 3], "target_bandwidths": [50.0]},
        {"upsampling_ratios": [7, 3], "target_bandwidths": [10.5, 60.0], "codebook_size": 2},
    ],
)
def test_derived_values_of_other_sizes(changes):
    config, theirs = CodecConfig.from_json(changes), EncodecConfig(**changes)
    assert config.num_quantizers == theirs.num_quantizers
    assert config.frame_rate_hz == theirs.frame_rate
    assert config.hop_length == theirs.hop_length


MONO = "use a codec of the mono causal kind of facebook/encodec_24khz"
FILE = "correct the checkpoint's config.json"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("audio_channels", 2, f"is 2, must be 1: {MONO}"),
        ("normalize", True, f"is True, must be False: {MONO}"),
        ("chunk_length_s", 1.0, f"is 1.0, must be None: {MONO}"),
        ("norm_type", "time_group_norm", f"is 'time_group_norm', must be 'weight_norm': {MONO}"),
        ("use_causal_conv", False, f"is False, must be True: {MONO}"),
        ("pad_mode", "constant", f"is 'constant', must be 'reflect': {MONO}"),
        ("use_conv_shortcut", 1, "is 1, must be true or false: transformers' default is true"),
        ("num_filters", 0, f"is 0, must be a whole number from 1: {FILE}"),
        ("num_lstm_layers", 0, f"is 0, must be a whole number from 1: {FILE}"),
        ("kernel_size", 7.0, f"is 7.0, must be a whole number from 1: {FILE}"),
        ("num_residual_layers", True, f"is True, must be a whole number from 0: {FILE}"),
        ("upsampling_ratios", [], "is (), must be whole numbers from 1: the 24 kHz codec has [8, 5, 4, 2]"),
        ("upsampling_ratios", 8, "is 8, must be whole numbers from 1: the 24 kHz codec has [8, 5, 4, 2]"),
        ("compress", 64, "is 64, must be at most num_filters = 32: or no channel is left"),
        ("trim_right_ratio", 1.5, "is 1.5, must be 0 to 1: the 24 kHz codec has 1.0"),
        ("codebook_size", 1000, "is 1000, must be a power of two: the 24 kHz codec has 1024"),
        ("codebook_dim", 64, "is 64, must be hidden_size = 128: or null, which means it"),
        ("target_bandwidths", ["6"], "is ('6',), must be kbit/s above 0: the 24 kHz codec ends with 24.0"),
        ("target_bandwidths", [0.5], "is (0.5,), must be 0.75 at its end or more: one codebook needs as much"),
    ],
)
def test_refusals(name, value, message):
    with pytest.raises(CodecConfigError) as error:
        CodecConfig.from_json({name: value})
    assert str(error.value) == f"codec_config.{name} {message}"


def test_unlisted_bandwidth_is_refused():
    with pytest.raises(CodecConfigError) as error:
        CodecConfig().num_codebooks(5)
    assert str(error.value) == "bandwidth is 5 kbit/s, this codec has 1.5, 3, 6, 12, 24: choose one of them"


def test_importing_the_config_imports_no_jax():
    code = "import sys, bark_model.encodec.config; print({'jax', 'flax', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
