"""Let festival speak the sentences, and keep audio, semantic tokens and alignments in shards.

A shard holds SHARD sentences: `text`, `audio` (int16, 24 kHz, all sentences in a row), `semantic` (int16),
`span` (first and last character each token belongs to) and the lengths that cut them apart.
"""

import argparse
import subprocess
import tempfile
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from phones import (
    PHONES,
    SAMPLE_RATE,
    SAMPLES_PER_SEMANTIC,
    SEMANTIC_RATE_HZ,
    THIRDS,
    pitch_classes,
    semantic_ids,
    spread_phones,
)
from scipy.io import wavfile
from scipy.signal import resample_poly

SHARD = 200
UNTAUGHT = ("development", "heldout")
# festival begins and ends with a pause of 0.165 s; kept are two tokens before and four after the speech
LEAD_S = 2 / SEMANTIC_RATE_HZ
TAIL_S = 4 / SEMANTIC_RATE_HZ
SCRIPT = """
(voice_cmu_us_slt_arctic_hts)
(define (speak text wave segments)
  (let ((utt (utt.synth (eval (list 'Utterance 'Text text)))) (out (fopen segments "w")))
    (utt.save.wave utt wave 'riff)
    (mapcar (lambda (s)
      (format out "%s %f %s %s\\n" (item.name s) (item.feat s 'end)
        (item.feat s "R:SylStructure.parent.parent.R:Token.parent.id")
        (item.feat s "R:SylStructure.parent.parent.R:Token.parent.name")))
      (utt.relation.items utt 'Segment))
    (fclose out)))
"""


def run_festival(texts: list[str], folder: Path) -> None:
    """Speak every text into folder/N.wav and folder/N.txt."""
    script = SCRIPT + "".join(
        f'(speak "{text}" "{folder}/{n}.wav" "{folder}/{n}.txt")\n' for n, text in enumerate(texts)
    )
    (folder / "speak.scm").write_text(script, encoding="utf-8")
    subprocess.run(["festival", "-b", str(folder / "speak.scm")], check=True, capture_output=True)


def read_segments(path: Path) -> list[tuple[str, float, str, str]]:
    """Rows (phone, end in seconds, id of its text token or "0", the token's text)."""
    rows = [line.split(maxsplit=3) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(phone, float(end), token, name) for phone, end, token, name in rows]


def character_spans(rows: list[tuple[str, float, str, str]], text: str) -> list[tuple[int, int]]:
    """First and last character that each phone is spelled by: its share of the word, one more on either side.

    A pause takes the character after the word before it.
    """
    spans: list[tuple[int, int]] = []
    cursor, index = 0, 0
    while index < len(rows):
        token, name = rows[index][2], rows[index][3]
        if token == "0":
            spans.append((max(cursor - 1, 0), min(cursor, len(text) - 1)))
            index += 1
            continue
        count = 1
        while index + count < len(rows) and rows[index + count][2] == token:
            count += 1
        found = text.find(name, cursor)
        start = found if found >= 0 else cursor
        length = min(len(name), len(text) - start)
        for n in range(count):
            low, high = int(n / count * length) - 1, int(np.ceil((n + 1) / count * length))
            spans.append((start + max(low, 0), start + min(high, length - 1)))
        cursor, index = start + length, index + count
    return spans


def read_sentence(text: str, folder: Path, number: int) -> dict:
    """Audio, semantic tokens and spans of one spoken sentence, its outer pauses shortened."""
    rate, wave = wavfile.read(folder / f"{number}.wav")
    audio = resample_poly(wave.astype(np.float32) / 32768, SAMPLE_RATE // 1000, rate // 1000)
    rows = read_segments(folder / f"{number}.txt")
    begin = max(0.0, rows[0][1] - LEAD_S)
    end = min(rows[-1][1], rows[-2][1] + TAIL_S)
    ends = [min(row[1], end) - begin for row in rows]
    counts = spread_phones(ends, end - begin)
    tokens = int(counts.sum())
    first = round(begin * SAMPLE_RATE)
    audio = audio[first : first + tokens * SAMPLES_PER_SEMANTIC]
    audio = np.pad(audio, (0, tokens * SAMPLES_PER_SEMANTIC - len(audio)))
    phone = np.repeat([PHONES.index(row[0]) for row in rows], counts)
    third = np.concatenate([np.arange(count) * THIRDS // count for count in counts])
    return {
        "audio": (audio.clip(-1, 1) * 32767).astype(np.int16),
        "semantic": semantic_ids(phone, third, pitch_classes(audio, tokens)).astype(np.int16),
        "span": np.repeat(np.array(character_spans(rows, text), np.uint8), counts, axis=0),
    }


def make_shard(job: tuple[list[str], Path]) -> str:
    """Speak one shard and write it whole; a shard that exists is left alone."""
    texts, path = job
    if path.exists():
        return f"{path.name}: kept"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_festival(texts, folder)
        rows = [read_sentence(text, folder, n) for n, text in enumerate(texts)]
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(
            file,
            text=np.array(texts),
            lengths=np.array([len(row["semantic"]) for row in rows]),
            audio=np.concatenate([row["audio"] for row in rows]),
            semantic=np.concatenate([row["semantic"] for row in rows]),
            span=np.concatenate([row["span"] for row in rows]),
        )
    partial.rename(path)
    return f"{path.name}: {sum(len(row['semantic']) for row in rows) / SEMANTIC_RATE_HZ / 60:.1f} minutes"


def main() -> None:
    """Speak the held-out sentences, then as many shards of the training text as asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--shards", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    folder = args.work / "speech"
    folder.mkdir(parents=True, exist_ok=True)
    texts = args.work / "text"
    jobs = [((texts / f"{name}.txt").read_text().splitlines(), folder / f"{name}.npz") for name in UNTAUGHT]
    training = (texts / "train.txt").read_text().splitlines()
    for number, start in enumerate(range(0, len(training), SHARD)):
        jobs.append((training[start : start + SHARD], folder / f"train{number:03d}.npz"))
    with Pool(args.processes) as pool:
        for line in pool.imap(make_shard, jobs[: args.shards + len(UNTAUGHT)]):
            print(line, flush=True)


if __name__ == "__main__":
    main()
