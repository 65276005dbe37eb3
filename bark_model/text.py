"""Text -> tokenizer ids, with the checkpoint's own tokenizer; cues such as [laughs] and ♪ pass through untouched."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bark_model.axes import TextIds

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TextError(ValueError):
    """A text that cannot be spoken; `kind` is EmptyText, TextTooLong or BadText."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


def load_tokenizer(folder: str | Path) -> "Tokenizer":
    """The tokenizer of a checkpoint folder: `tokenizer.json`, or the `vocab.txt` of BERT's cased WordPiece."""
    from tokenizers import Tokenizer

    path, vocabulary = Path(folder) / "tokenizer.json", Path(folder) / "vocab.txt"
    try:
        if path.is_file():
            tokenizer = Tokenizer.from_file(str(path))
        elif vocabulary.is_file():
            from tokenizers import BertWordPieceTokenizer

            tokenizer = BertWordPieceTokenizer(str(vocabulary), lowercase=False)._tokenizer
        else:
            raise TextError("BadText", f"{folder} has neither tokenizer.json nor vocab.txt: no tokenizer to load")
    except TextError:
        raise
    except Exception as error:  # tokenizers raises bare Exception
        raise TextError("BadText", f"{folder}: the tokenizer cannot be read: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def normalize(text: str) -> str:
    """Runs of white space become one space, as in Suno's and HF's code."""
    return re.sub(r"\s+", " ", text).strip()


def text_ids(text: str, tokenizer: "Tokenizer", *, max_tokens: int, vocab_size: int) -> TextIds:
    """Tokenizer ids [T] of a text that one clip holds, without special tokens.

    Raises TextError: EmptyText, TextTooLong (never cut silently), or BadText for what the tokenizer refuses.
    """
    text = normalize(text)
    if not text:
        raise TextError("EmptyText", "the text is empty: nothing to speak")
    try:
        ids = np.array(tokenizer.encode(text, add_special_tokens=False).ids, np.int32)
    except Exception as error:  # a lone surrogate, say; tokenizers raises bare Exception or TypeError
        raise TextError("BadText", f"the tokenizer refuses {text[:40]!r}: {error}") from error
    if ids.size == 0:
        raise TextError("EmptyText", f"{text[:40]!r} gives no token: nothing to speak")
    if ids.size > max_tokens:
        raise TextError(
            "TextTooLong", f"the text has {ids.size} tokens, one clip holds {max_tokens}: split it at sentences"
        )
    if ids.max() >= vocab_size:
        raise TextError("BadText", f"tokenizer id {ids.max()} is outside the checkpoint's {vocab_size} text tokens")
    return ids
