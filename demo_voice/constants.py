"""Every constant of the checkpoint's generation config: vocabularies, offsets, windows."""

from codec import CODES
from lm import Size
from phones import SEMANTIC_RATE_HZ, SEMANTIC_VOCAB

__all__ = ["CODES", "SEMANTIC_RATE_HZ", "SEMANTIC_VOCAB"]

# text -> semantic: the text is spelled in characters
CHARACTERS = " abcdefghijklmnopqrstuvwxyz'.,?!;:-"
TEXT_LENGTH = 128  # max_input_semantic_length
MAX_SEMANTIC_TOKENS = 384  # 10.2 s; the longest sentence of 120 characters takes about 7.5 s
SEMANTIC_PAD = SEMANTIC_VOCAB  # also the end of speech
TEXT_OFFSET = SEMANTIC_VOCAB + 1
TEXT_PAD = TEXT_OFFSET + len(CHARACTERS) + 1  # one id more for characters that are not known
SEMANTIC_INFER = TEXT_PAD + 1
SEMANTIC_INPUTS = SEMANTIC_INFER + 1
SEMANTIC_OUTPUTS = SEMANTIC_VOCAB + 1

# semantic -> coarse: a semantic token is four coarse tokens, and stays at the same place in every window
RATIO = 4
COARSE_WINDOW = 60  # sliding_window_len: 0.4 s
COARSE_HISTORY = 120
COARSE_SEMANTIC = 60  # max_coarse_input_length: 30 of history, 15 to speak, 15 ahead
COARSE_PAD = SEMANTIC_VOCAB + 2 * CODES
COARSE_INFER = COARSE_PAD + 1
COARSE_VOCAB = COARSE_INFER + 1

# coarse -> fine
FINE_WINDOW = 256
FINE_HISTORY = 128
FINE_VOCAB = CODES + 1  # the pad is CODES

SEMANTIC_SIZE = Size(layers=6, width=192, heads=3, positions=TEXT_LENGTH + 1 + MAX_SEMANTIC_TOKENS)
COARSE_SIZE = Size(layers=4, width=256, heads=4, positions=COARSE_SEMANTIC + 1 + COARSE_HISTORY + COARSE_WINDOW)
FINE_SIZE = Size(layers=4, width=192, heads=3, positions=FINE_WINDOW)
