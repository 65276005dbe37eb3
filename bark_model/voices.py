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
from typing import IO, TYPE_CHECKING

import numpy as np

from bark_model.axes import CoarseCodes, FineCodes, SemanticTokens
from bark_model.config import ConfigError, Generation, read_json
from bark_model.sums import SumError, check_sum, recorded_sums, sha256_of

if TYPE_CHECKING:
    from bark_model.outcomes import Result

MAX_TOKENS = 1_000_000
"""Most tokens of one prompt: hours of audio, where Bark uses the last 15 seconds."""
MAX_VOICE_BYTES = 64 * 2**20
MAX_ENTRIES = 16
"""Most entries of an `.npz`: three arrays and whatever a tool left beside them."""
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


def _read_npy(stream: IO[bytes], name: str, key: str) -> np.ndarray:
    """One `.npy`, its header first: 4 kB may claim 400 MB."""
    where = f"BadVoice {name!r}: {key}"
    try:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):  # later ones differ by headers of up to 4 GB
            raise ValueError(f"its version is {version}, must be (1, 0)")
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    except Exception as error:  # numpy parses a header as Python: there is no list of what that raises
        raise VoiceError(f"{where} is no .npy array: {_line(error)}") from error
    if dtype.kind not in "iu":
        raise VoiceError(f"{where} has dtype {dtype}, must be integers")
    if len(shape) > 2 or any(size < 0 for size in shape) or math.prod(shape) > MAX_TOKENS * 8:
        raise VoiceError(f"{where} claims shape {shape}, more than {MAX_TOKENS} tokens a codebook")
    size = math.prod(shape) * dtype.itemsize
    try:
        data = stream.read(size + 1)
    except Exception as error:  # as zipfile and zlib find it
        raise VoiceError(f"{where} cannot be read: {_line(error)}") from error
    if len(data) != size:
        held = len(data) if len(data) < size else f"more than {size}"
        raise VoiceError(f"{where} claims shape {shape} ({size} bytes) but holds {held}")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran_order else "C")


def _line(error: BaseException) -> str:
    """An error's text as one short line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _open_archive(name: str, data: bytes) -> zipfile.ZipFile:
    """The archive of an `.npz`, refused by its size and its count of entries before it is read."""
    if len(data) > MAX_VOICE_BYTES:
        raise VoiceError(f"BadVoice {name!r}: more than {MAX_VOICE_BYTES} bytes")
    if data.count(b"PK\x01\x02") > MAX_ENTRIES:  # the mark of each entry in a zip's directory
        raise VoiceError(f"BadVoice {name!r}: more than {MAX_ENTRIES} entries, needs {', '.join(KEYS)}")
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except Exception as error:  # zipfile raises a dozen types
        raise VoiceError(f"BadVoice {name!r}: no .npz archive: {_line(error)}") from error


def read_voice_npz(name: str, data: bytes, constants: Generation) -> Voice:
    """A voice from the bytes of an `.npz`."""
    arrays = {}
    with _open_archive(name, data) as archive:
        members = {member.filename: member for member in archive.infolist()}
        for key in KEYS:
            member = members.get(f"{key}.npy")
            if member is None:
                raise VoiceError(f"BadVoice {name!r}: {key} is missing, needs {', '.join(KEYS)}")
            if member.flag_bits & 1:
                raise VoiceError(f"BadVoice {name!r}: {key} is encrypted: use savez")
            # Other methods decompress without a bound.
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise VoiceError(f"BadVoice {name!r}: {key} is compressed by method {member.compress_type}: use savez")
            try:
                with archive.open(member) as stream:
                    arrays[key] = _read_npy(stream, name, key)
            except VoiceError:
                raise
            except Exception as error:  # a damaged local header, say
                raise VoiceError(f"BadVoice {name!r}: {key} cannot be read: {_line(error)}") from error
    return make_voice(name, arrays, constants)


def voice_npz(voice: Voice) -> bytes:
    """The bytes of an `.npz` that Suno's code, transformers and this module load."""
    buffer = io.BytesIO()
    np.savez(buffer, **dict(zip(KEYS, (voice.semantic, voice.coarse, voice.fine), strict=True)))
    return buffer.getvalue()


def voice_from_result(name: str, result: "Result") -> Voice:
    """Any result that went through the fine stage as a voice, at its whole length."""
    coarse = result.coarse
    if coarse is None and result.fine is not None:
        coarse = result.fine[:2]  # Bark's fine stage keeps the coarse codes as its first two rows
    if result.semantic is None or coarse is None or result.fine is None:
        missing = [stage for stage in ("semantic", "coarse", "fine") if getattr(result, stage) is None]
        raise VoiceError(f"BadVoice {name!r}: the result has no {' and no '.join(missing)} tokens: make it from text")
    semantic, coarse, fine = (np.ascontiguousarray(array, np.int32) for array in (result.semantic, coarse, result.fine))
    return Voice(name=name, semantic=semantic, coarse=coarse, fine=fine)


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
        if isinstance(paths, dict)  # transformers keeps the repository's name beside the presets
    }


def preset_files(folder: str | Path) -> list[str]:
    """The relative paths of a folder's presets and their index, all inside it; those that are there."""
    presets = list_presets(folder)
    paths = {_inside(name, key, paths[key]) for name, paths in presets.items() for key in paths}
    if presets:
        paths.add(PRESET_INDEX)
    return sorted(path for path in paths if (Path(folder) / path).is_file())


def _inside(name: str, key: str, relative: str) -> str:
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts or not re.fullmatch(r"[\w./-]+\.npy", relative):
        raise VoiceError(f"BadVoice {name!r}: {key} is {relative[:80]!r}, must be a .npy inside the checkpoint")
    return relative


def read_preset(folder: str | Path, name: str, constants: Generation) -> Voice:
    """A preset of a checkpoint folder by name; unknown names are refused with the nearest ones.

    A file that SHA256SUMS lists with another digest is refused.
    """
    presets, folder = list_presets(folder), Path(folder)
    if name not in presets:
        near = difflib.get_close_matches(name[:80], presets, n=3) or sorted(presets)[:3]
        hint = f"near: {', '.join(near)}" if near else "this checkpoint has none: give an .npz file"
        raise VoiceError(f"UnknownVoice {name[:80]!r}: {hint}")
    arrays = {}
    for key, relative in presets[name].items():
        path = folder / _inside(name, key, relative)
        try:
            check_sum(folder, relative, sha256_of(path), recorded_sums(folder))
            with open(path, "rb") as stream:
                arrays[key] = _read_npy(stream, name, key)
        except (OSError, SumError) as error:
            raise VoiceError(f"BadVoice {name!r}: {key} cannot be used: {_line(error)}") from error
    return make_voice(name, arrays, constants)


def _read_file(path: str) -> bytes:
    with open(path, "rb") as stream:
        return stream.read(MAX_VOICE_BYTES + 1)


def load_voice(
    name: str,
    folder: str | Path,
    constants: Generation,
    read_bytes: Callable[[str], bytes] = _read_file,
) -> Voice:
    """A voice by preset name or by the path of an `.npz`, read through `read_bytes`."""
    if not name.endswith(".npz"):
        return read_preset(folder, name, constants)
    try:
        data = read_bytes(name)
    except (OSError, ValueError) as error:
        raise VoiceError(f"BadVoice {name[:200]!r}: cannot be read: {_line(error)}") from error
    return read_voice_npz(name, data, constants)
