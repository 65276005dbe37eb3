"""The counts against hand-made small cases, and against the products that transformers does for the same outputs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

from bark_model.config import TransformerConfig
from bark_model.networks import abstract
from bark_model.random_checkpoint import TINY
from benchmarks import limit, peers, predict, work
from benchmarks.workload import write_checkpoint

CONFIG = TransformerConfig(
    num_layers=2, num_heads=1, hidden_size=2, block_size=8, input_vocab_size=4, output_vocab_size=4
)


@pytest.fixture(scope="module")
def peer(tmp_path_factory) -> peers.Peer:
    folder = tmp_path_factory.mktemp("tiny")
    write_checkpoint(str(folder), "tiny")
    return peers.Peer(str(folder), "float32", "dynamic")


def counted(function) -> int:
    """FLOPs of the matrix products and convolutions of a torch function."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function()
    return counter.get_total_flops()


def test_a_sequence_by_hand():
    # D 2: qkv 12 entries, out 4, MLP 32: 48, so 96 FLOPs a position; a pair costs 8.
    # length 3, causal: 6 pairs. First block 3 · 96 + 6 · 8 = 336.
    # Last block, one output: keys and values 3 · 16, the rest 96 - 16 = 80, 3 pairs 24: 152.
    assert work.sequence_flops(CONFIG, 3, 1, causal=True) == 336 + 152
    # All outputs, not causal: 9 pairs in both.
    assert work.sequence_flops(CONFIG, 3, 3, causal=False) == 2 * (288 + 72)


def test_a_decode_step_is_what_one_more_position_costs():
    longer, shorter = (work.sequence_flops(CONFIG, n, n, causal=True) for n in (6, 5))
    step = work.decode(CONFIG, np.array([5]), 1, classes=0, item_bytes=2)
    assert step.flops == longer - shorter
    # 96 matrix entries once; keys and values of 5 places read, of 1 written: 2 · D · L entries each.
    assert step.bytes == 2 * (96 + 6 * 8)


def test_weights_are_read_once_a_step_for_all_rows():
    one, two = (work.decode(CONFIG, np.array([3] * rows), 1, classes=4, item_bytes=4) for rows in (1, 2))
    assert two.flops == 2 * one.flops
    assert two.bytes - one.bytes == 4 * 4 * 8


def test_matrix_entries_are_the_networks_parameters():
    for part in ("semantic", "coarse", "fine"):
        config = getattr(TINY, part)
        flat = dict(_flat(abstract(TINY, part, "float32")[1]))
        matrices = sum(size for name, size in flat.items() if name.startswith("blocks.") and name.endswith("kernel"))
        assert matrices == work.block_entries(config)


def _flat(state):
    from flax import nnx

    return [(".".join(map(str, path)), leaf.size) for path, leaf in nnx.to_flat_state(state)]


@pytest.mark.parametrize("part", ["semantic", "coarse_acoustics"])
def test_causal_networks_do_the_counted_products(peer, part):
    network = getattr(peer.model, part)
    config = TINY.semantic if part == "semantic" else TINY.coarse
    ids, head = torch.zeros(1, 7, dtype=torch.long), 2 * work.head_entries(config, config.output_vocab_size)
    # transformers computes masked pairs and all positions' logits, too.
    assert counted(lambda: network(ids)) == work.sequence_flops(config, 7, 7, causal=False) + 7 * head
    cache = DynamicCache()
    with torch.no_grad():
        network(ids, past_key_values=cache, use_cache=True)
    step = counted(lambda: network(ids[:, :1], past_key_values=cache, use_cache=True))
    assert step == work.decode(config, np.array([7]), 1, config.output_vocab_size, 4).flops


def test_the_fine_network_does_the_counted_products(peer):
    config, codes = TINY.fine, torch.zeros(1, 64, 8, dtype=torch.long)
    head = 2 * work.head_entries(config, config.output_vocab_size)
    found = counted(lambda: peer.model.fine_acoustics(3, codes))
    assert found == work.sequence_flops(config, 64, 64, causal=False) + 64 * head


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # torch warns of a flag that it sets itself
def test_the_codec_does_the_counted_products(peer):
    codes = torch.zeros(1, 8, 11, dtype=torch.long)
    with torch.backends.mkldnn.flags(enabled=False):  # its LSTM is one call, with no products to count
        assert counted(lambda: peer.model.codec_decode(codes)) == 11 * work.codec_frame_flops(TINY.codec)


def test_the_codecs_count_follows_its_config():
    sizes = {"upsampling_ratios": (2,), "num_filters": 1, "compress": 1, "target_bandwidths": (72.0,)}
    one = replace(TINY.codec, num_residual_layers=0, **sizes)
    # input 7 · 16 · 2, LSTM 4 · 2 · (2 + 2), transposed 4 · 2 · 1, output at twice the rate 2 · 7 · 1
    assert work.codec_frame_flops(one) == 2 * (224 + 32 + 8 + 14)


def test_windows_that_have_not_moved_share_a_prefill():
    # 30 semantic tokens: 90 coarse ones in windows of 12. Up to 60 of them the history holds all; then each window
    # is prefilled at its full length, 40 + 1 + 60.
    assert list(work.coarse_runs(TINY, 30)) == [(41, 60), (101, 12), (101, 12), (101, 6)]
    assert list(work.coarse_runs(TINY, 1)) == [(41, 2)]
    assert work.frames(TINY, 30) == 45


def test_steps_of_a_full_schedule():
    assert work.fewest_steps([5, 4, 3], slots=2) == 6
    assert work.fewest_steps([9, 1], slots=2) == 9


def test_parts_of_a_clip():
    g = TINY.generation
    parts = work.parts(TINY, [30], slots=4, item_bytes=4)
    semantic = work.sequence_flops(TINY.semantic, 65, 1, causal=True) + 2 * 32 * (g.semantic_vocab_size + 1)
    assert parts["semantic", "prefill"].flops == semantic
    head = 2 * 32 * g.codebook_size
    whole, last = (work.sequence_flops(TINY.fine, 64, used, causal=False) + used * head for used in (64, 45))
    assert parts["fine", "forwards"].flops == 5 * whole + last
    # 59 + 11 + 11 + 5 row-steps
    weights = work.block_entries(TINY.coarse) + 32 * g.codebook_size
    places = [*range(41, 100), *range(101, 112), *range(101, 112), *range(101, 106)]
    assert parts["coarse", "decode"].bytes == 4 * (86 * weights + sum(p + 1 for p in places) * 2 * 32 * 2)


def test_transformers_does_more_than_the_fewest(peer):
    stages = {stage: counted(lambda stage=stage: _stages(peer)[stage]()) for stage in ("semantic", "coarse", "fine")}
    needed = work.parts(TINY, [30], slots=1, item_bytes=4)
    for stage, done in stages.items():
        least = sum(need.flops for (owner, _), need in needed.items() if owner == stage)
        assert done / 4 < least < done


def _stages(peer):
    """Each of transformers' stages for one clip of 30 semantic tokens."""
    ids = peer.random(60, 1, 64)
    peer.semantic.max_new_tokens = 30
    both = {"semantic_generation_config": peer.semantic, "coarse_generation_config": peer.coarse}
    size = peer.codebook_size
    flat = peer.random(64, 1, 90) + 100
    fine = {"fine_generation_config": peer.fine, "codebook_size": size, "temperature": None} | both
    model = peer.model
    return {
        "semantic": lambda: model.semantic.generate(ids, semantic_generation_config=peer.semantic),
        "coarse": lambda: model.coarse_acoustics.generate(peer.random(60, 1, 30), codebook_size=size, **both),
        "fine": lambda: model.fine_acoustics.generate(flat, **fine),
    }


def test_work_takes_the_longer_of_both():
    need = work.Work(flops=10, bytes=6) + work.Work(flops=2, bytes=0)
    assert need.seconds(flops_a_second=4, bytes_a_second=3) == 3
    assert need.seconds(flops_a_second=12, bytes_a_second=3) == 2


def test_the_report_reaches_the_limit_when_the_engine_does():
    rates = {"bfloat16": 2e9, "float32": 1e9, "memory": 1e9}
    least = limit.bounds(TINY, [30, 20], 2, "bfloat16", rates)
    stage_s = {stage: sum(s for (owner, _), s in least.items() if owner == stage) for stage, _ in least}
    lines = limit.report(TINY, [30, 20], 2, "bfloat16", stage_s, rates).splitlines()
    assert lines[0].startswith("Limit of this machine: 2 GFLOP/s in bfloat16 and 1 GFLOP/s in float32, memory")
    assert len({line.count("|") for line in lines[2:]}) == 1
    assert [line.split("|")[-2].strip() for line in lines[-5:]] == ["100 %"] * 5
    slower = limit.report(TINY, [30, 20], 2, "bfloat16", {k: 4 * s for k, s in stage_s.items()}, rates)
    assert slower.splitlines()[-1].split("|")[-2].strip() == "25 %"


def test_batches_are_bucketed_by_length():
    assert predict.buckets([3, 9, 5], 2) == [[9, 5], [3]]
    assert predict.busy([3, 9, 5], 2) == (9 + 5 + 3) / (18 + 3)


def test_predictions_add_up_unit_costs():
    ours = dict.fromkeys(
        ["semantic_prefill", "coarse_prefill", "semantic_step_low", "semantic_step_high", "coarse_step", "audio"], 0.0
    )
    assert predict.ours(ours | {"fine": 1.0}, TINY, [30, 20], 2) == 12
    assert predict.ours(ours | {"fine": 0.0, "coarse_prefill": 1.0}, TINY, [30], 2) == 3
    # 30 tokens each: 90 coarse steps a row, in a schedule of two rows on two slots
    assert predict.ours(ours | {"fine": 0.0, "coarse_step": 1.0}, TINY, [30, 30], 2) == 90
    peers_costs = dict.fromkeys(["semantic_position", "semantic_step", "coarse_position", "audio", "fine"], 0.0)
    assert predict.transformers(peers_costs | {"coarse_step": 1.0}, TINY, [30, 20], 1) == 90 + 60
    # prompts of 41 and the 0, 12, ... 60, 60, 60 tokens before each of 8 windows
    positions = 8 * 41 + 12 + 24 + 36 + 48 + 3 * 60
    found = predict.transformers(peers_costs | {"coarse_step": 0.0, "coarse_position": 1.0}, TINY, [30], 1)
    assert found == positions
