import re
import tracemalloc
from functools import cache

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from pipeline.chunking import LANGUAGES, chunk, estimate_seconds, speakable

LETTERS = "abcdefghijklmnopqrstuvwxyzàéüñçąłßığşåабвгдежзийклмнопрстуфхцчшщъыьэюя0123456789"


def words(text):
    """A token a word or sign."""
    return [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]


def characters(text):
    """A token a character that is no white space."""
    return [match.span() for match in re.finditer(r"\S", text)]


@cache
def wordpiece():
    """A tokenizer of Bark's kind: BERT's splitting, words in pieces of two letters, words over 100 letters unknown."""
    pairs = [a + b for a in LETTERS[:26] for b in LETTERS[:26]]
    pieces = ["[UNK]", *LETTERS, *pairs, *("##" + piece for piece in [*LETTERS, *pairs]), *".,;:!?-[]()♪"]
    made = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(dict.fromkeys(pieces))}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return made


def wordpieces(text):
    return wordpiece().encode(text).offsets


def texts(chunks):
    return [part.text for part in chunks]


def test_a_text_that_fits_is_one_chunk_with_its_offsets():
    (part,) = chunk("  Two short\nsentences. Here they are. ", words)
    assert (part.text, part.start, part.end) == ("Two short\nsentences. Here they are.", 2, 37)


def test_whole_sentences_are_packed_up_to_the_limit():
    text = "One two three. Four five six. Seven eight nine. Ten eleven twelve."
    assert texts(chunk(text, words, limit_tokens=9)) == [
        "One two three. Four five six.",
        "Seven eight nine. Ten eleven twelve.",
    ]


def test_a_long_sentence_is_cut_at_its_clauses_and_evenly():
    text = "When the rain had stopped at last, we went out, and the whole town smelled of wet stone and lilac."
    assert texts(chunk(text, words, limit_tokens=20)) == [
        "When the rain had stopped at last, we went out,",
        "and the whole town smelled of wet stone and lilac.",
    ]


def test_a_long_clause_is_cut_between_words_and_evenly():
    text = " ".join(f"word{i % 10}" for i in range(24))
    assert [len(part.split()) for part in texts(chunk(text, words, limit_tokens=10))] == [8, 8, 8]


def test_a_long_word_is_cut_between_characters():
    assert texts(chunk("a" * 25, characters, limit_tokens=10)) == ["a" * 10, "a" * 10, "a" * 5]


def test_a_word_that_the_tokenizer_would_not_read_is_cut_until_it_does():
    parts = chunk("ab" * 400, wordpieces)
    assert "".join(texts(parts)) == "ab" * 400
    unknown = wordpiece().token_to_id("[UNK]")
    assert all(unknown not in wordpiece().encode(part.text).ids for part in parts)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("M. Dupont est arrivé ce matin avec toute sa famille et trois grosses valises.", "fr"),
        ("Dr. Kowalski przyjechał dziś rano z całą rodziną i trzema walizkami do domu.", "pl"),
        ("Yes. I would like to have three more of these, and a cup of black tea please.", "en"),
    ],
)
def test_neither_an_abbreviation_nor_a_single_word_becomes_a_clip(text, language):
    parts = texts(chunk(text, words, limit_tokens=10, language=language))
    assert all(len(part.split()) >= 4 for part in parts)


@pytest.mark.parametrize(
    ("text", "language", "first"),
    [
        ("今日はとても良い天気です。明日は雨が降るでしょう。", "ja", "今日はとても良い天気です。"),
        ("今天天气很好，我们去公园。明天会下雨，我们在家。", "zh", "今天天气很好，我们去公园。"),
        ("आज मौसम बहुत अच्छा है। कल बारिश हो सकती है।", "hi", "आज मौसम बहुत अच्छा है।"),
        ("오늘은 날씨가 아주 좋아요. 내일은 비가 올 거예요.", "ko", "오늘은 날씨가 아주 좋아요."),
        ("Сегодня очень хорошая погода. Завтра пойдёт дождь.", "ru", "Сегодня очень хорошая погода."),
        ("Bugün hava çok güzel oldu. Yarın yağmur yağacak.", "tr", "Bugün hava çok güzel oldu."),
        ("¿Quieres venir con nosotros? Salimos muy temprano.", "es", "¿Quieres venir con nosotros?"),
    ],
)
def test_sentences_end_in_each_script(text, language, first):
    limit = len(characters(first)) + 3
    assert texts(chunk(text, characters, limit_tokens=limit, language=language))[0] == first
    if language in ("ja", "zh"):
        assert texts(chunk(text, characters, limit_tokens=limit))[0] == first


def test_cjk_clauses_are_cut_behind_their_comma():
    assert texts(chunk("今天天气很好，我们去公园散步吧", characters, limit_tokens=10)) == [
        "今天天气很好，",
        "我们去公园散步吧",
    ]


def test_a_combined_character_stays_whole():
    parts = texts(chunk("e\u0301" * 10, characters, limit_tokens=5))
    assert all(part.startswith("e") and part.endswith("\u0301") for part in parts)


@pytest.mark.parametrize("limit", range(4, 20))
def test_a_cue_is_never_cut(limit):
    text = "Well [clears throat] that was a long day, was it not [laughs] my dear old friend"
    parts = texts(chunk(text, words, limit_tokens=limit))
    assert sum(part.count("[clears throat]") for part in parts) == 1
    assert sum(part.count("[laughs]") for part in parts) == 1


@pytest.mark.parametrize("limit", range(6, 14))
def test_a_song_that_fits_stays_whole(limit):
    text = "He began to hum it. ♪ Over the hill. Over the sea ♪ and then he stopped and left the room."
    parts = texts(chunk(text, words, limit_tokens=limit))
    assert ("♪ Over the hill. Over the sea ♪" in " | ".join(parts)) == (limit >= 9)


@pytest.mark.parametrize("limit", range(3, 9))
def test_the_notes_of_a_longer_song_stay_with_their_words(limit):
    parts = texts(chunk("♪ Over the hill and over the sea we go ♪", words, limit_tokens=limit))
    assert parts[0].startswith("♪ Over")
    assert parts[-1].endswith("go ♪")
    assert len(parts) > 1


def test_a_speaker_stays_with_what_is_said():
    text = "MAN: I have not seen it. WOMAN: It was here a moment ago"
    for limit in range(4, 14):
        assert not any(part.endswith(("MAN:", "WOMAN:")) for part in texts(chunk(text, words, limit_tokens=limit)))


def test_a_line_of_dashes_becomes_no_clip():
    text = "The end of chapter one." + " - " * 200 + "The start of chapter two."
    parts = texts(chunk(text, words, limit_tokens=10))
    assert all(speakable(part) for part in parts)
    assert "".join(re.findall(r"\w", "".join(parts))) == "".join(re.findall(r"\w", text))


@pytest.mark.parametrize("text", ["", "  \n", "?!...", "🎉🎉", "\u200b\u200d\ufeff", "\x01\x02", "\u3164", "__", "—"])
def test_nothing_to_speak(text):
    assert not speakable(text)
    assert chunk(text, words) == ()


@pytest.mark.parametrize("text", ["a", "7", "♪", "[laughs]", "ん", "हाँ", "½", "…no"])
def test_something_to_speak(text):
    assert speakable(text)
    assert "".join(texts(chunk(text, words))) == text


@pytest.mark.parametrize("limit", [0, 257])
def test_the_limit_has_limits(limit):
    with pytest.raises(ValueError, match=f"^limit_tokens is {limit}, must be 1 to 256: Bark speaks best to about 37$"):
        chunk("text", words, limit_tokens=limit)


@pytest.mark.parametrize(
    "unit",
    ["a", "word ", "。", ". ", '"', "[a ", "♪ a ", "A. ", "é\u0301", "字", "-", "a,", " ", "Yes. ", "\n", "x\u200d"],
)
def test_a_long_text_without_help_is_cut_with_linear_work(unit):
    text = unit * (100_000 // len(unit))
    seen = 0

    def counted(part):
        nonlocal seen
        seen += len(part)
        return characters(part)

    parts = chunk(text, counted)
    assert "".join("".join(texts(parts)).split()) == ("".join(text.split()) if speakable(unit) else "")
    assert seen < 4 * len(text)


def test_memory_is_a_small_multiple_of_the_text():
    text = "word, " * 80_000
    tracemalloc.start()
    chunk(text, words)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6


MARKS = st.sampled_from(
    [". ", "! ", ", ", "; ", " ", "\n\n", "。", "、", "। ", "[laughs]", "♪", " - ", "...", "\u0301", "MAN: "]
)
WORDS = st.text(alphabet="abcdeéß字語かनमय가나жщ1\u200d", min_size=1, max_size=12)
PROSE = st.lists(st.one_of(WORDS, MARKS), max_size=60).map("".join)


@pytest.mark.parametrize("tokenizer", [words, characters, wordpieces])
@given(text=st.one_of(PROSE, st.text(max_size=200)), limit=st.integers(1, 40), language=st.sampled_from(LANGUAGES))
@example(text="♪[♪a]♪ [b", limit=1, language="en")
def test_chunks_lose_nothing_fit_and_repeat(tokenizer, text, limit, language):
    parts = chunk(text, tokenizer, limit_tokens=limit, language=language)
    assert parts == chunk(text, tokenizer, limit_tokens=limit, language=language)
    position = 0
    for part in parts:
        assert not speakable(text[position : part.start])
        assert part.text == text[part.start : part.end] == part.text.strip()
        assert speakable(part.text)
        assert len(tokenizer(part.text)) <= limit or len(part.text) == 1
        position = part.end
    assert not speakable(text[position:])


def test_estimates_grow_with_the_script():
    assert estimate_seconds("a" * 140) == pytest.approx(10)
    assert estimate_seconds("字" * 50) == pytest.approx(10)
    assert estimate_seconds("가나다 라") == pytest.approx(4 / 5 + 1 / 14)
