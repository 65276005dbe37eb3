"""The demo voice's tokenizer: characters, after a normalizer that spells small numbers and drops what is not read."""

from pathlib import Path

from constants import CHARACTERS
from make_text import ONES, TENS
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPOKEN_SYMBOLS = {
    "&": " and ",
    "%": " percent ",
    "+": " plus ",
    "=": " equals ",
    "@": " at ",
    "’": "'",
    "‘": "'",
    "—": ", ",
    "–": ", ",
    "…": ".",
    "...": ".",
}


def number_rules() -> list[normalizers.Normalizer]:
    """Lone numbers from 10 to 99 in words, every other figure by itself."""
    rules = []
    for value in range(10, 100):
        words = ONES[value - 1] if value < 20 else TENS[value // 10 - 2]
        if value >= 20 and value % 10:
            words += f" {ONES[value % 10 - 1]}"
        rules.append(normalizers.Replace(Regex(rf"(?<!\d){value}(?!\d)"), f" {words} "))
    digits = ["zero", *ONES[:9]]
    return [*rules, *(normalizers.Replace(str(value), f" {word} ") for value, word in enumerate(digits))]


def make_tokenizer() -> Tokenizer:
    """Character tokenizer; its ids are the places in CHARACTERS, then [UNK] and [PAD]."""
    vocabulary = {character: n for n, character in enumerate(CHARACTERS)}
    vocabulary["[UNK]"] = len(CHARACTERS)
    vocabulary["[PAD]"] = len(CHARACTERS) + 1
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    symbols = [normalizers.Replace(symbol, spoken) for symbol, spoken in SPOKEN_SYMBOLS.items()]
    tokenizer.normalizer = normalizers.Sequence(
        [
            *symbols,
            normalizers.NFKD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
            *number_rules(),
            normalizers.Replace(Regex("[^a-z'.,?!;:-]+"), " "),
            normalizers.Replace(Regex(" +(?=[.,?!;:])"), ""),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    return tokenizer


def save_tokenizer(folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    fast = PreTrainedTokenizerFast(tokenizer_object=make_tokenizer(), unk_token="[UNK]", pad_token="[PAD]")
    fast.save_pretrained(folder)
