"""Word errors of Whisper base on the held-out sentences: teacher, codec, true semantic tokens, and from the text.

Audio is kept in the work folder, a file a sentence, so that a stopped evaluation goes on where it was.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from codec import MEL_SCALES, mel_filters
from data import Sentence, read_shard
from listen import Listener, Score
from make_speech import UNTAUGHT
from phones import SAMPLE_RATE, SEMANTIC_RATE_HZ, phone_of
from scipy.io import wavfile
from speak import Voice, audio_of, coarse_codes, load_voice, semantic_tokens

BATCH = 20


def batches(rows: list[Sentence]) -> list[list[int]]:
    """Sentence numbers in batches of similar length."""
    order = sorted(range(len(rows)), key=lambda n: len(rows[n].semantic))
    return [order[start : start + BATCH] for start in range(0, len(order), BATCH)]


def render(voice: Voice, mode: str, rows: list[Sentence], folder: Path) -> None:
    """Write folder/N.wav, and the semantic tokens as N.npy, of every sentence."""
    folder.mkdir(parents=True, exist_ok=True)
    for numbers in batches(rows):
        if all((folder / f"{n}.wav").exists() for n in numbers):
            continue
        torch.manual_seed(numbers[0])
        chosen = [rows[n] for n in numbers]
        if mode in ("teacher", "codec"):
            signals = [row.audio / 32768 for row in chosen]
            if mode == "codec":
                signals = [through_codec(voice, signal) for signal in signals]
            spoken = [row.semantic for row in chosen]
        else:
            spoken = [row.semantic for row in chosen]
            if mode == "text":
                spoken = semantic_tokens(voice, [row.text for row in chosen])
            signals = [audio_of(voice, row) for row in coarse_codes(voice, spoken)]
        for n, tokens, signal in zip(numbers, spoken, signals, strict=True):
            np.save(folder / f"{n}.npy", tokens)
            wavfile.write(folder / f"{n}.wav", SAMPLE_RATE, (np.clip(signal, -1, 1) * 32767).astype(np.int16))


@torch.no_grad()
def through_codec(voice: Voice, signal: np.ndarray) -> np.ndarray:
    """Encode with all eight codebooks and decode."""
    codec = voice.model.codec_model
    latents = codec.encoder(torch.from_numpy(signal.astype(np.float32))[None, None])
    codes = codec.quantizer.encode(latents, bandwidth=6.0)
    return codec.decoder(codec.quantizer.decode(codes))[0, 0].numpy()


def mel_distance_db(got: np.ndarray, wanted: np.ndarray) -> float:
    """Mean absolute difference of 80-band mel levels in dB, floor 60 dB under the loudest; same alignment."""
    fft, bands = MEL_SCALES[-1]
    length = min(len(got), len(wanted))
    levels = []
    for signal in (wanted, got):
        x = torch.from_numpy(signal[:length].astype(np.float32))
        power = torch.stft(x, fft, fft // 4, window=torch.hann_window(fft), return_complex=True).abs().square()
        levels.append(power.T @ mel_filters(fft, bands))
    floor = levels[0].max() * 1e-6
    return float((10 * torch.log10(levels[0] + floor) - 10 * torch.log10(levels[1] + floor)).abs().mean())


def si_sdr_db(got: np.ndarray, wanted: np.ndarray) -> float:
    """Scale-invariant signal to distortion ratio."""
    length = min(len(got), len(wanted))
    got, wanted = got[:length].astype(np.float64), wanted[:length].astype(np.float64)
    target = (got @ wanted) / (wanted @ wanted) * wanted
    return float(10 * np.log10((target @ target) / (((got - target) ** 2).sum() + 1e-12)))


def phone_string(tokens: np.ndarray) -> list[int]:
    """Phones without repetitions and pauses. A phone said twice in a row counts once."""
    phones = phone_of(tokens)
    keep = np.r_[True, phones[1:] != phones[:-1]] & (phones > 0) if len(phones) else np.zeros(0, bool)
    return list(phones[keep])


def measure(mode: str, rows: list[Sentence], folder: Path, listener: Listener, cap: int) -> tuple[dict, list[str]]:
    """All figures of one mode, and the misheard sentences."""
    score, phones = Score(), Score()
    mel, sdr, duration, capped, empty = [], [], [], 0, 0
    for n, row in enumerate(rows):
        signal = wavfile.read(folder / f"{n}.wav")[1] / 32768
        tokens, wanted = np.load(folder / f"{n}.npy"), row.audio / 32768
        score.add(listener.hear(signal), row.text)
        capped += len(tokens) >= cap
        empty += len(tokens) == 0
        duration.append(abs(len(tokens) - len(row.semantic)) / len(row.semantic))
        phones.add_sequences(phone_string(tokens), phone_string(row.semantic))
        if mode != "text":
            mel.append(mel_distance_db(signal, wanted))
            sdr.append(si_sdr_db(signal, wanted))
    figures = {
        "sentences": len(rows),
        "word_error_percent": round(100 * score.word_errors / score.words, 2),
        "character_error_percent": round(100 * score.character_errors / score.characters, 2),
    }
    if mode in ("codec", "semantic"):
        figures |= {"mel_distance_db": round(np.mean(mel), 2), "si_sdr_db": round(np.mean(sdr), 2)}
    if mode == "text":
        figures |= {
            "phone_error_percent": round(100 * phones.word_errors / phones.words, 2),
            "duration_error_percent": round(100 * np.mean(duration), 2),
            "at_the_cap": capped,
            "empty": empty,
        }
    figures["seconds"] = round(sum(len(np.load(folder / f"{n}.npy")) for n in range(len(rows))) / SEMANTIC_RATE_HZ)
    return figures, score.lines


def main() -> None:
    """Render and measure the asked modes; figures go to WORK/eval/MODE[-greedy].json and to the screen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("folder", type=Path, help="the exported checkpoint")
    parser.add_argument("--modes", nargs="+", default=["teacher", "codec", "semantic", "text"])
    parser.add_argument("--list", choices=UNTAUGHT, default="heldout")
    parser.add_argument("--sentences", type=int, default=200)
    parser.add_argument("--greedy", action="store_true")
    parser.add_argument("--name", default="", help="keeps the figures of several checkpoints apart")
    parser.add_argument("--temperatures", type=float, nargs=3, help="semantic, coarse, fine")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    temperatures = (
        dict(zip(("semantic", "coarse", "fine"), args.temperatures, strict=True)) if args.temperatures else None
    )
    rows = read_shard(args.work / "speech" / f"{args.list}.npz", with_audio=True)[: args.sentences]
    voice = load_voice(args.folder, greedy=args.greedy, temperatures=temperatures)
    listener = Listener(args.work, args.threads)
    for mode in args.modes:
        name = mode + ("-greedy" if args.greedy else "") + args.name
        folder = args.work / "eval" / name
        render(voice, mode, rows, folder)
        figures, lines = measure(mode, rows, folder, listener, voice.semantic.max_new_tokens)
        (args.work / "eval" / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        (args.work / "eval" / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(name, json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
