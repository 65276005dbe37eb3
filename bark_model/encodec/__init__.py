"""EnCodec 24 kHz, mono and causal, in the parts of its paper.

Défossez et al. 2022, "High Fidelity Neural Audio Compression", arXiv:2210.13438.

    config.py      sizes of a checkpoint's codec; imports no jax, so that a launcher can read it
    conv.py        padded, strided and transposed convolutions     lstm.py       the LSTM between encoder and bottleneck
    encoder.py     waveform -> latent frames (SEANet)              decoder.py    latent frames -> waveform
    quantizer.py   latent frames <-> codes of K codebooks          codec.py      the whole: `encode`, `decode`
    weights.py     the table between transformers' tensor names and this package's parameters

Layout is channels-last [B, T, C]. Nothing is imported here: importing `config` stays free of jax.
"""
