"""Voices from strangers: every fault is one `BadVoice` line, and memory stays bounded."""

import io
import json
import shutil
import struct
import subprocess
import sys
import textwrap
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bark_model.config import Generation
from bark_model.outcomes import Result
from bark_model.voices import (
    MAX_VOICE_BYTES,
    VoiceError,
    list_presets,
    load_voice,
    make_voice,
    read_preset,
    read_voice_npz,
    voice_from_result,
    voice_npz,
)

BARK = Generation()
PROMPTS = {
    "semantic_prompt": np.arange(300) % 10_000,
    "coarse_prompt": np.arange(900).reshape(2, 450) % 1024,
    "fine_prompt": np.arange(3600).reshape(8, 450) % 1024,
}


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def header(shape: str, descr: str = "'<i8'") -> bytes:
    """A `.npy` header of any claim, without data."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def archive_of(method: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    """An `.npz` of PROMPTS, some replaced by raw bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as target:
        for key, content in ({key: npy(array) for key, array in PROMPTS.items()} | members).items():
            target.writestr(f"{key}.npy", content)
    return buffer.getvalue()


def outcome(data: bytes) -> str:
    """The sum of a voice that could be read, or the error."""
    try:
        return read_voice_npz("v", data, BARK).sha256
    except VoiceError as error:
        return str(error)


def fault(data: bytes) -> str:
    with pytest.raises(VoiceError) as caught:
        read_voice_npz("v.npz", data, BARK)
    message = str(caught.value)
    assert message.startswith("BadVoice 'v.npz': ")
    assert "\n" not in message
    assert len(message) < 400
    return message.removeprefix("BadVoice 'v.npz': ")


@pytest.mark.parametrize(
    ("key", "array", "says"),
    [
        ("semantic_prompt", np.array([1, None]), "semantic_prompt has dtype object, must be integers"),
        ("semantic_prompt", np.ones(3), "semantic_prompt has dtype float64, must be integers"),
        ("coarse_prompt", np.ones((2, 3), bool), "coarse_prompt has dtype bool, must be integers"),
        ("semantic_prompt", np.ones((1, 3), int), "semantic_prompt has shape (1, 3), must be (tokens,)"),
        ("semantic_prompt", np.array(7), "semantic_prompt has shape (), must be (tokens,)"),
        ("coarse_prompt", np.ones(3, int), "coarse_prompt has shape (3,), must be (2, frames)"),
        ("coarse_prompt", np.ones((8, 3), int), "coarse_prompt has shape (8, 3), must be (2, frames)"),
        ("fine_prompt", np.ones((2, 3), int), "fine_prompt has shape (2, 3), must be (8, frames)"),
        ("semantic_prompt", np.array([3, 10_000]), "semantic_prompt holds 10000, must be 0 to 9999"),
        ("semantic_prompt", np.array([3, -1]), "semantic_prompt holds -1, must be 0 to 9999"),
        ("fine_prompt", np.full((8, 2), 1024), "fine_prompt holds 1024, must be 0 to 1023"),
        ("coarse_prompt", np.full((2, 2), 2**63, np.uint64), f"coarse_prompt holds {2**63}, must be 0 to 1023"),
        ("semantic_prompt", np.array([], int), "semantic_prompt has 0 tokens, must be 1 to 1000000"),
        ("fine_prompt", np.ones((8, 0), int), "fine_prompt has 0 tokens, must be 1 to 1000000"),
        (
            "semantic_prompt",
            np.zeros(1_000_001, np.uint8),
            "semantic_prompt has 1000001 tokens, must be 1 to 1000000",
        ),
        (
            "fine_prompt",
            np.zeros((8, 1_000_001), np.uint8),
            "fine_prompt claims shape (8, 1000001), more than 1000000 tokens a codebook",
        ),
        (
            "fine_prompt",
            np.ones((1, 8, 2), int),
            "fine_prompt claims shape (1, 8, 2), more than 1000000 tokens a codebook",
        ),
    ],
)
def test_bad_arrays(key, array, says):
    assert fault(archive_of(zipfile.ZIP_DEFLATED, **{key: npy(array)})) == says


@pytest.mark.parametrize("key", list(PROMPTS))
def test_missing_key(key):
    buffer = io.BytesIO()
    np.savez(buffer, **{name: array for name, array in PROMPTS.items() if name != key})
    assert fault(buffer.getvalue()) == f"{key} is missing, needs semantic_prompt, coarse_prompt, fine_prompt"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (header("(1000000,)"), "semantic_prompt claims shape (1000000,) (8000000 bytes) but holds 0"),
        (header("(1,)") + b"\0" * 99, "semantic_prompt claims shape (1,) (8 bytes) but holds more than 8"),
        (header("(50000000,)"), "semantic_prompt claims shape (50000000,), more than 1000000 tokens a codebook"),
        (header("(-1,)"), "semantic_prompt claims shape (-1,), more than 1000000 tokens a codebook"),
        (header("(1,)", "'|V1000000000'"), "semantic_prompt has dtype |V1000000000, must be integers"),
        (header("(1,)", "('<i8', (99999999,))"), "semantic_prompt has dtype ('<i8', (99999999,)), must be integers"),
        (
            b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31),
            "semantic_prompt is no .npy array: its version is (2, 0), must be (1, 0)",
        ),
        (b"", "semantic_prompt is no .npy array: EOF: reading magic string, expected 8 bytes got 0"),
    ],
)
def test_lying_headers(content, says):
    assert fault(archive_of(zipfile.ZIP_DEFLATED, semantic_prompt=content)) == says


def test_truncated_and_flipped():
    data = bytearray(archive_of())
    assert fault(bytes(data[:1000])).startswith("no .npz archive: ")
    place = data.find(npy(PROMPTS["fine_prompt"])) + 500
    data[place] ^= 4
    assert fault(bytes(data)) == "fine_prompt cannot be read: Bad CRC-32 for file 'fine_prompt.npy'"


def test_not_an_archive():
    assert fault(b"hello") == "no .npz archive: File is not a zip file"
    assert fault(b"\0" * (MAX_VOICE_BYTES + 1)) == "more than 67108864 bytes"


def test_encrypted_member():
    data = bytearray(archive_of())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flags of each header
        place = data.find(mark)
        data[place + offset] |= 1
    assert fault(bytes(data)) == "semantic_prompt is encrypted: use savez"


@pytest.mark.parametrize("method", [9, 12, 14])  # deflate64, bzip2, LZMA
def test_other_compressions(method):
    data = bytearray(archive_of())
    for mark, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        data[data.find(mark) + offset] = method
    assert fault(bytes(data)) == f"semantic_prompt is compressed by method {method}: use savez"


def test_many_entries():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for number in range(100_000):
            target.writestr(zipfile.ZipInfo(f"{number}"), b"")
    assert fault(buffer.getvalue()) == "more than 16 entries, needs semantic_prompt, coarse_prompt, fine_prompt"


def test_bombs_stay_under_the_memory_cap():
    """1 GB of zeros in 1 MB, behind honest and lying sizes, read in a process that may take 400 MB more."""
    program = """
    import resource, sys, zipfile, io, struct
    sys.path.insert(0, ".")
    from bark_model.config import Generation
    from bark_model.voices import VoiceError, read_voice_npz
    from tests.bark_model.test_voices import PROMPTS, bomb, header
    claim = header("(8000000,)")
    data = [bomb(header("(1000000000,)", "'|u1'")), bomb(claim), bomb(b""), bomb(claim, 99)]
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 400 * 2**20,) * 2)
    for content in data:
        assert len(content) < 3 * 2**20
        try:
            read_voice_npz("bomb", content, Generation())
        except VoiceError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4, done.stdout
    assert "MemoryError" not in done.stdout
    assert lines[0] == (
        "BadVoice 'bomb': semantic_prompt claims shape (1000000000,), more than 1000000 tokens a codebook"
    )
    assert lines[1].endswith("semantic_prompt claims shape (8000000,) (64000000 bytes) but holds more than 64000000")


def bomb(start: bytes, claimed_size: int | None = None) -> bytes:
    """An `.npz` whose semantic_prompt inflates to a gigabyte; the zip may claim another size."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = compressor.compress(start) + compressor.flush(zlib.Z_FULL_FLUSH)
    zeros = zlib.compressobj(9, zlib.DEFLATED, -15)
    megabyte = zeros.compress(bytes(2**20)) + zeros.flush(zlib.Z_FULL_FLUSH)
    end = zlib.compressobj(9, zlib.DEFLATED, -15).flush()
    raw = block + megabyte * 1000 + end
    size = len(start) + 1000 * 2**20 if claimed_size is None else claimed_size
    data = bytearray(archive_of(semantic_prompt=raw))
    for mark, method, sizes in ((b"PK\x03\x04", 8, 22), (b"PK\x01\x02", 10, 24)):
        place = data.find(mark)
        struct.pack_into("<H", data, place + method, zipfile.ZIP_DEFLATED)
        struct.pack_into("<I", data, place + sizes, size)
    return bytes(data)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_damage_is_a_voice_error(data):
    """Bytes changed anywhere give the same voice or a VoiceError, nothing else."""
    content = bytearray(archive_of(zipfile.ZIP_DEFLATED))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    assert "\n" not in outcome(bytes(content))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 80))
def test_any_npy_header_is_a_voice_error(garbage, place):
    content = bytearray(npy(PROMPTS["semantic_prompt"]))
    content[place : place + len(garbage)] = garbage
    assert "\n" not in outcome(archive_of(semantic_prompt=bytes(content)))


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "int64", "uint64", ">i4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_integer_types_are_equal_after_loading(dtype, order):
    arrays = {key: np.array(array, dtype, order=order) for key, array in PROMPTS.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    voice, expected = read_voice_npz("v", buffer.getvalue(), BARK), make_voice("other", PROMPTS, BARK)
    for name in ("semantic", "coarse", "fine"):
        assert getattr(voice, name).dtype == np.int32
        assert np.array_equal(getattr(voice, name), getattr(expected, name))
    assert voice.sha256 == expected.sha256


def test_sha256_tells_voices_apart():
    other = PROMPTS | {"semantic_prompt": PROMPTS["semantic_prompt"][1:]}
    assert make_voice("v", PROMPTS, BARK).sha256 != make_voice("v", other, BARK).sha256


def test_npz_round_trip_as_suno_reads_it(tmp_path):
    voice = make_voice("v", PROMPTS, BARK)
    (tmp_path / "v.npz").write_bytes(voice_npz(voice))
    with np.load(tmp_path / "v.npz") as loaded:  # as Suno's code does: no pickle
        assert {key: loaded[key].shape for key in loaded} == {key: array.shape for key, array in PROMPTS.items()}
    assert load_voice(str(tmp_path / "v.npz"), tmp_path, BARK).sha256 == voice.sha256


def test_any_result_is_a_voice():
    """Longer clips than Bark's histories are kept whole."""
    fine = np.arange(8 * 2000).reshape(8, 2000) % 1024
    result = Result(id="a", semantic=np.arange(900) % 10_000, coarse=fine[:2], fine=fine)
    voice = voice_from_result("mine", result)
    assert (voice.semantic.shape, voice.coarse.shape, voice.fine.shape) == ((900,), (2, 2000), (8, 2000))
    assert read_voice_npz("mine", voice_npz(voice), BARK).sha256 == voice.sha256
    without_coarse = Result(id="a", semantic=result.semantic, fine=fine)
    assert voice_from_result("mine", without_coarse).sha256 == voice.sha256


def test_result_without_tokens_is_no_voice():
    with pytest.raises(VoiceError) as caught:
        voice_from_result("mine", Result(id="a", coarse=PROMPTS["coarse_prompt"]))
    assert str(caught.value) == "BadVoice 'mine': the result has no semantic and no fine tokens: make it from text"


@pytest.fixture
def presets(tmp_path):
    """A folder in HF's layout, as transformers writes it: its repository's name beside the presets."""
    index: dict = {"repo_or_path": "suno/bark"}
    for name in ("v2/en_speaker_6", "v2/de_speaker_3", "announcer"):
        index[name] = {}
        for key, array in PROMPTS.items():
            path = f"speaker_embeddings/{name}_{key}.npy"
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            np.save(tmp_path / path, array)
            index[name][key] = path
    (tmp_path / "speaker_embeddings_path.json").write_text(json.dumps(index))
    return tmp_path


def preset_fault(folder, name: str) -> str:
    with pytest.raises(VoiceError) as caught:
        load_voice(name, folder, BARK)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_presets_load(presets):
    assert sorted(list_presets(presets)) == ["announcer", "v2/de_speaker_3", "v2/en_speaker_6"]
    assert read_preset(presets, "v2/en_speaker_6", BARK).sha256 == make_voice("v", PROMPTS, BARK).sha256


def test_unknown_presets(presets, tmp_path_factory):
    assert preset_fault(presets, "v2/en_speaker_66") == (
        "UnknownVoice 'v2/en_speaker_66': near: v2/en_speaker_6, v2/de_speaker_3"
    )
    for name in ("../x", "http://host/voice", "/etc/passwd", "\n"):
        assert (
            preset_fault(presets, name) == f"UnknownVoice {name!r}: near: announcer, v2/de_speaker_3, v2/en_speaker_6"
        )
    assert len(preset_fault(presets, "x" * 100_000)) < 200
    assert preset_fault(tmp_path_factory.mktemp("empty"), "x") == (
        "UnknownVoice 'x': this checkpoint has none: give an .npz file"
    )


def test_missing_file(presets):
    assert preset_fault(presets, "/nothing/x.npz").startswith("BadVoice '/nothing/x.npz': cannot be read: ")
    assert preset_fault(presets, "a\0b.npz").startswith("BadVoice 'a\\x00b.npz': cannot be read: ")
    (presets / "speaker_embeddings/announcer_fine_prompt.npy").unlink()
    assert preset_fault(presets, "announcer").startswith("BadVoice 'announcer': fine_prompt cannot be used: ")


@pytest.mark.parametrize("path", ["../secret.npy", "/etc/secret.npy", "a/../../b.npy", "x.txt", "a b.npy", ""])
def test_paths_that_leave_the_folder(presets, path):
    index = json.loads((presets / "speaker_embeddings_path.json").read_text())
    index["announcer"]["fine_prompt"] = path
    (presets / "speaker_embeddings_path.json").write_text(json.dumps(index))
    assert preset_fault(presets, "announcer") == (
        f"BadVoice 'announcer': fine_prompt is {path!r}, must be a .npy inside the checkpoint"
    )


def test_incomplete_preset(presets):
    (presets / "speaker_embeddings_path.json").write_text('{"a": {"semantic_prompt": 7}, "b": [], "c": {}}')
    assert list_presets(presets) == {"a": {"semantic_prompt": "7"}, "c": {}}
    assert preset_fault(presets, "c").startswith("BadVoice 'c': semantic_prompt is missing")
    (presets / "speaker_embeddings_path.json").write_text("[")
    assert preset_fault(presets, "c").startswith("BadVoice index: ")


def test_flipped_preset_is_found_by_its_sum(folders, tmp_path):
    folder, constants = tmp_path / "copy", folders["tiny"].config.generation
    shutil.copytree(folders["tiny"].folder, folder)
    path = folder / "speaker_embeddings/random_0_semantic_prompt.npy"
    array = np.load(path)
    array[0] ^= 1
    np.save(path, array)
    with pytest.raises(VoiceError, match=r"BadVoice 'random_0': semantic_prompt cannot be used: .* SHA256SUMS says"):
        read_preset(folder, "random_0", constants)
    assert read_preset(folder, "random_1", constants).name == "random_1"
