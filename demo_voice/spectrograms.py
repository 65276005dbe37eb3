"""Pictures of three held-out sentences: the teacher above, the demo voice below."""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from data import read_shard
from phones import SAMPLE_RATE
from scipy.io import wavfile


def draw(axis: plt.Axes, audio: np.ndarray, title: str) -> None:
    """One spectrogram, 0 to 12 kHz, 70 dB deep."""
    window, step = 768, 192
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(audio, window // 2), window)[::step]
    level = 20 * np.log10(np.abs(np.fft.rfft(frames * np.hanning(window))) + 1e-6).T
    seconds = len(audio) / SAMPLE_RATE
    top = level.max()
    axis.imshow(
        level, origin="lower", aspect="auto", vmin=top - 70, vmax=top, extent=(0, seconds, 0, SAMPLE_RATE / 2000)
    )
    axis.set_title(title, fontsize=8, loc="left")
    axis.set_ylabel("kHz", fontsize=8)
    axis.tick_params(labelsize=7)


def main() -> None:
    """Write PICTURES/sentence_N.png from the audio that evaluate.py left in the work folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--sentences", type=int, nargs=3, default=[1, 6, 17])
    args = parser.parse_args()
    args.pictures.mkdir(parents=True, exist_ok=True)
    rows = read_shard(args.work / "speech" / "heldout.npz", with_audio=True)
    for number in args.sentences:
        own = wavfile.read(args.work / "eval" / "text" / f"{number}.wav")[1] / 32768
        figure, axes = plt.subplots(2, 1, figsize=(7, 4), layout="constrained")
        draw(axes[0], rows[number].audio / 32768, f"teacher: {rows[number].text}")
        draw(axes[1], own, "demo voice, from the text")
        axes[1].set_xlabel("s", fontsize=8)
        figure.savefig(args.pictures / f"sentence_{number}.png", dpi=80)
        plt.close(figure)


if __name__ == "__main__":
    main()
