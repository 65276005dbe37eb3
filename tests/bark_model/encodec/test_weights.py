import dataclasses
import re

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import torch
from transformers import EncodecConfig, EncodecModel

from bark_model.encodec.weights import CodecWeightError, codec_tensors, codec_weights

UP = "decoder.layers.3.conv"


def renamed(tensors, g: str, v: str):
    """The same tensors with the names of another weight-norm implementation."""
    return {
        name.replace("parametrizations.weight.original0", g).replace("parametrizations.weight.original1", v): value
        for name, value in tensors.items()
    }


def folded_by_torch(reference: EncodecModel):
    """Plain weights: torch removes the parametrization itself."""
    tensors = {name: tensor.numpy() for name, tensor in reference.state_dict().items()}
    for name, module in reference.named_modules():
        if isinstance(module, torch.nn.Conv1d | torch.nn.ConvTranspose1d):
            for part in ("0", "1"):
                del tensors[f"{name}.parametrizations.weight.original{part}"]
            tensors[f"{name}.weight"] = module.weight.detach().numpy()
    return tensors


def test_every_form_of_the_weights_folds_to_torchs(small):
    tensors = small.reference_tensors()
    plain = codec_weights(small.config, folded_by_torch(small.reference))
    by_parametrization = codec_weights(small.config, tensors)
    by_g_and_v = codec_weights(small.config, renamed(tensors, "weight_g", "weight_v"))
    assert plain.keys() == by_parametrization.keys() == by_g_and_v.keys()
    for path, wanted in plain.items():
        np.testing.assert_array_equal(by_g_and_v[path], by_parametrization[path], err_msg=path)
        np.testing.assert_allclose(by_g_and_v[path], wanted, rtol=1e-6, atol=1e-7, err_msg=path)
    kernel = by_parametrization["decoder.stages.0.up.kernel"]
    assert not np.allclose(kernel, tensors[f"{UP}.parametrizations.weight.original1"].transpose(2, 0, 1))


def test_half_precision_tensors_fold_in_float32(small):
    tensors = small.reference_tensors()
    rounded = {name: value.astype(ml_dtypes.bfloat16) for name, value in tensors.items()}
    wanted = codec_weights(small.config, {name: value.astype(np.float32) for name, value in rounded.items()})
    for path, value in codec_weights(small.config, rounded).items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, wanted[path])


def test_weights_there_and_back_are_the_same(small):
    weights = codec_weights(small.config, small.reference_tensors())
    back = codec_weights(small.config, codec_tensors(small.config, weights))
    assert back.keys() == weights.keys()
    for path, wanted in weights.items():
        np.testing.assert_allclose(back[path], wanted, rtol=3e-7, err_msg=path)


def test_zero_kernel_rows_survive_the_inverse(small):
    weights = codec_weights(small.config, small.reference_tensors())
    weights["decoder.output_conv.kernel"] = np.zeros_like(weights["decoder.output_conv.kernel"])
    back = codec_weights(small.config, codec_tensors(small.config, weights))
    assert not back["decoder.output_conv.kernel"].any()


def test_transformers_loads_what_the_inverse_writes(small, tmp_path):
    tensors = codec_tensors(small.config, codec_weights(small.config, small.reference_tensors()))
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    EncodecConfig(**dataclasses.asdict(small.config)).save_pretrained(tmp_path)
    loaded, info = EncodecModel.from_pretrained(tmp_path, output_loading_info=True)
    assert {key: list(value) for key, value in info.items() if value} == {}
    codes = torch.from_numpy(small.random_codes(1, 8, 20)).long()[None]
    with torch.no_grad():
        wanted = small.reference.decode(codes, [None]).audio_values
        torch.testing.assert_close(loaded.decode(codes, [None]).audio_values, wanted, rtol=1e-5, atol=1e-5)


def test_the_real_codec_has_every_tensor_of_transformers(real):
    tensors = real.reference_tensors()
    back = codec_tensors(real.config, codec_weights(real.config, tensors))
    assert {n: v.shape for n, v in back.items()} == {n: v.shape for n, v in tensors.items()}


def _changed(tensors, **changes):
    return {**tensors, **changes}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: _changed(t, **{f"{UP}.bias": np.zeros(7, np.float32)}),
            f"codec tensor {UP}.bias is [7], must be [16]: config.json does not belong to these weights",
        ),
        (
            lambda t: _changed(t, **{f"{UP}.parametrizations.weight.original1": np.zeros((16, 32, 8), np.float32)}),
            f"codec tensor {UP}.parametrizations.weight.original1 is [16, 32, 8], must be [32, 16, 8]: "
            "config.json does not belong to these weights",
        ),
        (
            lambda t: _changed(t, **{f"{UP}.parametrizations.weight.original1": np.zeros((32, 16, 8), np.float32)}),
            f"codec tensor {UP}.parametrizations.weight.original1 has a row of zeros: "
            "weight norm divides by its length",
        ),
        (
            lambda t: {name: value for name, value in t.items() if not name.startswith(f"{UP}.param")},
            f"codec tensor {UP}.weight [32, 16, 8] is missing: the checkpoint is incomplete",
        ),
        (
            lambda t: {name: value for name, value in t.items() if name != "encoder.layers.10.lstm.bias_hh_l1"},
            "codec tensor encoder.layers.10.lstm.bias_hh_l1 [128] is missing: the checkpoint is incomplete",
        ),
        (
            lambda t: _changed(t, **{f"{UP}.extra": np.zeros(1), "a.b": np.zeros(1)}),
            "codec tensor a.b and 1 more is unknown: config.json does not belong to these weights",
        ),
        (
            lambda t: _changed(t, **{f"{UP}.bias": np.full(16, np.nan, np.float32)}),
            f"codec tensor {UP}.bias holds NaN or infinity: the checkpoint is damaged",
        ),
    ],
)
def test_refusals(small, change, message):
    with pytest.raises(CodecWeightError) as error:
        codec_weights(small.config, change(small.reference_tensors()))
    assert str(error.value) == message


def test_a_checkpoint_with_more_codebooks_than_its_config_is_refused(small):
    fewer = dataclasses.replace(small.config, target_bandwidths=(20.0,))
    with pytest.raises(CodecWeightError, match=re.escape("quantizer.layers.4.codebook.cluster_size and 15 more")):
        codec_weights(fewer, small.reference_tensors())
