"""Text to ids: normalised, never cut, never changed otherwise; vocab.txt is BERT's cased WordPiece."""

import json
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertTokenizer

from bark_model.text import TextError, load_tokenizer, normalize, text_ids

LANGUAGES = {
    "en": "In the light of the moon, a little egg lay on a leaf.",
    "de": "Größere Füße hört man übers Parkett schlurfen.",
    "es": "¿Dónde está el niño? ¡Mañana será otro día!",
    "fr": "L'été dernier, ça a été une drôle d'aventure à Nîmes.",
    "hi": "नमस्ते, आप कैसे हैं?",
    "it": "Perché no? È così che va la città.",
    "ja": "こんにちは、世界。今日はいい天気ですね。",
    "ko": "안녕하세요, 오늘 날씨가 좋네요.",
    "pl": "Zażółć gęślą jaźń.",
    "pt": "Não há solução à vista, coração.",
    "ru": "Съешь ещё этих мягких французских булок.",
    "tr": "İstanbul'da ığdır şöyle güzel çocuk.",
    "zh": "你好，今天天气很好。",
}
CUES = (
    "[laughs] oh no",
    "[sighs]...",
    "♪ In the jungle ♪",
    "WOMAN: hello",
    "MAN: well — [clears throat] hm...",
    "A — B",
)
TEXTS = (*LANGUAGES.values(), *CUES)

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    """A vocab.txt of characters, their continuations and a few words: enough of the texts, not all of them."""
    characters = sorted({c for text in TEXTS for c in unicodedata.normalize("NFC", text) if not c.isspace()})
    words = ["light", "moon", "##on", "lau", "##ghs", "##ghs]", "Größe", "##re", "été", "hell", "##o", "你好", "niño"]
    dropped = {"ź", "булок", "世"}  # so that something is unknown
    tokens = [*SPECIAL, *(c for c in characters if c not in dropped), *(f"##{c}" for c in characters if c.isalpha())]
    folder = tmp_path_factory.mktemp("vocabulary")
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys([*tokens, *words])) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def wordpiece(vocabulary):
    return load_tokenizer(vocabulary)


@pytest.fixture(scope="module")
def bert(vocabulary):
    return BertTokenizer(str(vocabulary / "vocab.txt"), do_lower_case=False)


@pytest.fixture(scope="module")
def byte_tokenizer(folders):
    return load_tokenizer(folders["tiny"].folder)


def fault(call, *arguments, **keywords) -> tuple[str, str]:
    with pytest.raises(TextError) as caught:
        call(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return caught.value.kind, str(caught.value)


class Spy:
    """A tokenizer that keeps what it is given."""

    def __init__(self):
        self.given: list[tuple[str, bool]] = []

    def encode(self, text: str, *, add_special_tokens: bool):
        self.given.append((text, add_special_tokens))
        return type("Encoding", (), {"ids": [1]})


@pytest.mark.parametrize("text", TEXTS)
def test_text_reaches_the_tokenizer_untouched(text):
    spy = Spy()
    text_ids(f" \t{text.replace(' ', chr(10) + ' ')}\r\n", spy, max_tokens=9, vocab_size=9)  # type: ignore[arg-type]
    assert spy.given == [(text, False)]


@pytest.mark.parametrize("text", TEXTS)
def test_bytes_come_back(text, byte_tokenizer):
    """The byte tokenizer loses nothing, so ids prove that cues and every script pass through."""
    ids = text_ids(text, byte_tokenizer, max_tokens=10_000, vocab_size=256)
    assert ids.dtype == np.int32
    assert byte_tokenizer.decode(ids.tolist()) == text


@pytest.mark.parametrize("text", [*TEXTS, "[MASK] [UNK]", "naïve café", "日本x語", "a\u0301b", "x" * 200])
def test_vocabulary_file_is_berts_cased_wordpiece(text, wordpiece, bert):
    ours = text_ids(text, wordpiece, max_tokens=10_000, vocab_size=10_000)
    assert ours.tolist() == bert.encode(text, add_special_tokens=False)


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("".join(TEXTS) + "\u200b\u0301 \t[]#'-"), min_size=1, max_size=40))
def test_any_text_gives_berts_ids(wordpiece, bert, text):
    theirs = bert.encode(normalize(text), add_special_tokens=False)
    try:
        ours = text_ids(text, wordpiece, max_tokens=10_000, vocab_size=10_000).tolist()
    except TextError as error:
        ours = [] if error.kind == "EmptyText" else None
    assert ours == theirs


def test_a_tokenizer_json_of_transformers_is_the_same(bert, wordpiece, tmp_path):
    """transformers saves truncation and padding with a tokenizer, too: they must not act."""
    bert.backend_tokenizer.enable_truncation(4)
    bert.backend_tokenizer.enable_padding(length=99)
    try:
        bert.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    finally:
        bert.backend_tokenizer.no_truncation()
        bert.backend_tokenizer.no_padding()
    saved = json.loads((tmp_path / "tokenizer.json").read_text())
    assert None not in (saved["truncation"], saved["padding"])
    loaded = load_tokenizer(tmp_path)
    for text in TEXTS:
        ids = text_ids(text, loaded, max_tokens=10_000, vocab_size=10_000)
        assert np.array_equal(ids, text_ids(text, wordpiece, max_tokens=10_000, vocab_size=10_000))


@pytest.mark.parametrize("text", ["", " \t\n", "\u3000\u2003", "\x1c\x1d"])
def test_empty_text(text, wordpiece):
    assert fault(text_ids, text, wordpiece, max_tokens=9, vocab_size=9) == (
        "EmptyText",
        "the text is empty: nothing to speak",
    )


def test_text_of_no_token(wordpiece):
    kind, message = fault(text_ids, "\u200b\u200d", wordpiece, max_tokens=9, vocab_size=9)
    assert (kind, message) == ("EmptyText", "'\\u200b\\u200d' gives no token: nothing to speak")


def test_long_text_is_never_cut(byte_tokenizer):
    assert text_ids("x" * 64, byte_tokenizer, max_tokens=64, vocab_size=256).shape == (64,)
    assert fault(text_ids, "x" * 65, byte_tokenizer, max_tokens=64, vocab_size=256) == (
        "TextTooLong",
        "the text has 65 tokens, one clip holds 64: split it at sentences",
    )


def test_id_outside_the_vocabulary(byte_tokenizer):
    [highest] = [byte_tokenizer.encode("é").ids[0]]
    assert fault(text_ids, "é", byte_tokenizer, max_tokens=9, vocab_size=highest) == (
        "BadText",
        f"tokenizer id {highest} is outside the checkpoint's {highest} text tokens",
    )


def test_lone_surrogate(byte_tokenizer):
    kind, message = fault(text_ids, "a\ud800b", byte_tokenizer, max_tokens=9, vocab_size=256)
    assert kind == "BadText"
    assert message.startswith("the tokenizer refuses 'a\\ud800b': ")


@pytest.mark.parametrize(("name", "content"), [("tokenizer.json", "{"), ("vocab.txt", "a\nb\n")])
def test_damaged_tokenizer(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    kind, message = fault(load_tokenizer, tmp_path)
    assert kind == "BadText"
    assert message.startswith(f"{tmp_path}: the tokenizer cannot be read: ")


def test_no_tokenizer(tmp_path):
    assert fault(load_tokenizer, tmp_path) == (
        "BadText",
        f"{tmp_path} has neither tokenizer.json nor vocab.txt: no tokenizer to load",
    )


@given(st.text(max_size=60))
def test_normalizing_is_stable(text):
    once = normalize(text)
    assert normalize(once) == once
    assert once == " ".join(text.split())
