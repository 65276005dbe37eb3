"""Voice presets in and out, checked: Suno's `.npz` and HF's `speaker_embeddings_path.json` with `.npy` files.

A voice comes from a stranger: its header is read before its data, nothing is unpickled, and memory is bounded.
"""

import difflib
import hashlib
import io
import math
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from bark_model.axes import CoarseCodes, FineCodes, SemanticTokens
from bark_model.config import ConfigError, Generation, read_json

MAX_TOKENS = 1_000_000
"""Most tokens of one prompt: hours of audio, where Bark uses the last 15 seconds."""
MAX_VOICE_BYTES = 64 * 2**20
KEYS = ("semantic_prompt", "coarse_prompt", "fine_prompt")
PRESET_INDEX = "speaker_embeddings_path.json"


class VoiceError(ValueError):
    """BadVoice or UnknownVoice: one line that names the voice, the key and the value."""


@dataclass(frozen=True, kw_only=True)
class Voice:
    """A history prompt for all three stages.

    `semantic` [T] at the semantic rate, `coarse` [2, T] and `fine` [8, T] at the codec's; their T differ. Longer
    prompts than a stage uses are kept whole: each stage takes its own tail.
    """

    name: str
    semantic: SemanticTokens
    coarse: CoarseCodes
    fine: FineCodes

    @property
    def sha256(self) -> str:
        """Digest of the tokens: equal for equal voices, whatever file or dtype they came in."""
        digest = hashlib.sha256()
        for array in (self.semantic, self.coarse, self.fine):
            digest.update(repr(array.shape).encode() + np.ascontiguousarray(array, "<i4").tobytes())
        return digest.hexdigest()


def make_voice(name: str, arrays: Mapping[str, np.ndarray], constants: Generation) -> Voice:
    """A checked voice from its three arrays; any integer dtype (released presets use four)."""
    g = constants
    wanted = {
        "semantic_prompt": (None, g.semantic_vocab_size),
        "coarse_prompt": (g.n_coarse_codebooks, g.codebook_size),
        "fine_prompt": (g.n_fine_codebooks, g.codebook_size),
    }
    checked = {}
    for key, (codebooks, limit) in wanted.items():
        if key not in arrays:
            raise VoiceError(f"BadVoice {name!r}: {key} is missing, needs {', '.join(KEYS)}")
        checked[key] = _check_prompt(name, key, np.asarray(arrays[key]), codebooks, limit)
    return Voice(
        name=name,
        semantic=checked["semantic_prompt"],
        coarse=checked["coarse_prompt"],
        fine=checked["fine_prompt"],
    )


def _check_prompt(name: str, key: str, array: np.ndarray, codebooks: int | None, limit: int) -> np.ndarray:
    where = f"BadVoice {name!r}: {key}"
    if array.dtype.kind not in "iu":
        raise VoiceError(f"{where} has dtype {array.dtype}, must be integers")
    dimensions = 1 if codebooks is None else 2
    if array.ndim != dimensions or (codebooks is not None and array.shape[0] != codebooks):
        wanted = "(tokens,)" if codebooks is None else f"({codebooks}, frames)"
        raise VoiceError(f"{where} has shape {array.shape}, must be {wanted}")
    if not 1 <= array.shape[-1] <= MAX_TOKENS:
        raise VoiceError(f"{where} has {array.shape[-1]} tokens, must be 1 to {MAX_TOKENS}")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= limit:
        raise VoiceError(f"{where} holds {low if low < 0 else high}, must be 0 to {limit - 1}")
    return np.ascontiguousarray(array, np.int32)


def _read_npy(stream, name: str, key: str) -> np.ndarray:
    """One `.npy`, its header first: 4 kB may claim 400 MB."""
    try:
        version = np.lib.format.read_magic(stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"npy version {version} is unknown")
        shape, fortran_order, dtype = readers[version](stream)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise VoiceError(f"BadVoice {name!r}: {key} is no .npy array: {error}") from error
    if dtype.hasobject:
        raise VoiceError(f"BadVoice {name!r}: {key} has dtype {dtype}, must be integers")
    if len(shape) > 2 or math.prod(shape) > MAX_TOKENS * 8:
        raise VoiceError(f"BadVoice {name!r}: {key} claims shape {shape}, more than {MAX_TOKENS} tokens a codebook")
    size = math.prod(shape) * dtype.itemsize
    try:
        data = stream.read(size + 1)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise VoiceError(f"BadVoice {name!r}: {key} cannot be read: {error}") from error
    if len(data) != size:
        raise VoiceError(f"BadVoice {name!r}: {key} claims shape {shape} ({size} bytes) but holds {len(data)} or more")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran_order else "C")


def read_voice_npz(name: str, data: bytes, constants: Generation) -> Voice:
    """A voice from the bytes of an `.npz`."""
    if len(data) > MAX_VOICE_BYTES:
        raise VoiceError(f"BadVoice {name!r}: {len(data)} bytes, more than {MAX_VOICE_BYTES}")
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        raise VoiceError(f"BadVoice {name!r}: no .npz archive: {error}") from error
    arrays = {}
    with archive:
        members = set(archive.namelist())
        for key in KEYS:
            if f"{key}.npy" not in members:
                raise VoiceError(f"BadVoice {name!r}: {key} is missing, needs {', '.join(KEYS)}")
            try:
                member = archive.open(f"{key}.npy")
            except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError) as error:
                raise VoiceError(f"BadVoice {name!r}: {key} cannot be read: {error}") from error
            with member:
                try:
                    arrays[key] = _read_npy(member, name, key)
                except _DECOMPRESSION_ERRORS as error:
                    raise VoiceError(f"BadVoice {name!r}: {key} cannot be read: {error}") from error
    return make_voice(name, arrays, constants)


def _decompression_errors() -> tuple[type[Exception], ...]:
    import lzma
    import zlib

    return (zlib.error, lzma.LZMAError)


_DECOMPRESSION_ERRORS = _decompression_errors()


def voice_npz(voice: Voice) -> bytes:
    """The bytes of an `.npz` that Suno's code, transformers and this module load."""
    buffer = io.BytesIO()
    np.savez(buffer, **dict(zip(KEYS, (voice.semantic, voice.coarse, voice.fine), strict=True)))
    return buffer.getvalue()


def list_presets(folder: str | Path) -> dict[str, dict[str, str]]:
    """The presets of a checkpoint folder: name -> key -> relative path. Empty without an index."""
    index = Path(folder) / PRESET_INDEX
    if not index.is_file():
        return {}
    try:
        entries = read_json(index)
    except ConfigError as error:
        raise VoiceError(f"BadVoice index: {error}") from error
    return {
        name: {key: str(paths[key]) for key in KEYS if key in paths}
        for name, paths in entries.items()
        if isinstance(paths, dict)
    }


def read_preset(folder: str | Path, name: str, constants: Generation) -> Voice:
    """A preset of a checkpoint folder by name; unknown names are refused with the nearest ones."""
    presets = list_presets(folder)
    if name not in presets:
        near = difflib.get_close_matches(name, presets, n=3) or sorted(presets)[:3]
        hint = f"near: {', '.join(near)}" if near else "this checkpoint has none: give an .npz file"
        raise VoiceError(f"UnknownVoice {name!r}: {hint}")
    arrays = {}
    for key, relative in presets[name].items():
        path = PurePosixPath(relative)
        if path.is_absolute() or ".." in path.parts or not re.fullmatch(r"[\w./-]+\.npy", relative):
            raise VoiceError(f"BadVoice {name!r}: {key} is {relative[:80]!r}, must be a .npy inside the checkpoint")
        try:
            with open(Path(folder) / path, "rb") as stream:
                arrays[key] = _read_npy(stream, name, key)
        except OSError as error:
            raise VoiceError(f"BadVoice {name!r}: {key} cannot be read: {error}") from error
    return make_voice(name, arrays, constants)


def load_voice(
    name: str,
    folder: str | Path,
    constants: Generation,
    read_bytes: Callable[[str], bytes] = lambda path: Path(path).read_bytes(),
) -> Voice:
    """A voice by preset name or by the path of an `.npz`, read through `read_bytes`."""
    if not name.endswith(".npz"):
        return read_preset(folder, name, constants)
    try:
        data = read_bytes(name)
    except OSError as error:
        raise VoiceError(f"BadVoice {name!r}: cannot be read: {error}") from error
    return read_voice_npz(name, data, constants)
