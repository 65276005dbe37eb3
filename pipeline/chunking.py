"""A record's text -> chunks that one clip holds: cut at sentences, then clauses, then words, then characters.

Nothing that can be spoken is lost, and the same text gives the same chunks everywhere.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.boundaries import Boundaries, find_boundaries
from pipeline.records import Chunk

LANGUAGES = ("en", "de", "es", "fr", "hi", "it", "ja", "ko", "pl", "pt", "ru", "tr", "zh")
"""The languages Bark speaks."""

HARD_CAP_TOKENS = 256
"""What Bark's text window holds; beyond it text would be cut silently."""

TokenSpans = Callable[[str], Sequence[tuple[int, int]]]
"""A tokenizer: text -> (start, end) character offsets of each of its tokens, in order."""

_LANGUAGE_TAG = re.compile(r"([a-z]{2})(?:[-_][a-z0-9]{1,8})*", re.IGNORECASE)
_SPOKEN = re.compile(r"[^\W_]|[♪♫♬♩]")
_NO_SPACE = re.compile(r"\S")
_BLANK_LETTERS = re.compile("[\u115f\u1160\u3164\uffa0]")  # Hangul fillers: letters to Unicode, nothing to a reader
_WIDE = re.compile(
    "[\u1100-\u11ff\u3040-\u30ff\u3130-\u318f\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"
)

_LATIN_CHARACTERS_PER_S = 14.0
_WIDE_CHARACTERS_PER_S = 5.0
# Assumptions, to be calibrated on real clips: English is read aloud at about 150 words a minute of 5.6 characters with
# their spaces; a Chinese character or a Korean syllable is a syllable, of which about five are spoken in a second.

_WINDOW_CHARACTERS_PER_TOKEN = 64  # text is tokenized in stretches of about ten chunks
_AHEAD_CHUNKS = 3  # a sentence of up to so many chunks is shared out evenly
_LONGEST_TOKEN_CHARACTERS = 100  # BERT's tokenizer makes one unknown token of a longer word, which is then not spoken
_LOOK_BACK_CHARACTERS = 64  # how far a cut inside a word moves to leave a combined character whole


def language_code(tag: str) -> str | None:
    """One of LANGUAGES from a tag such as en, en-US or EN_gb; None for a language that Bark does not speak."""
    found = _LANGUAGE_TAG.fullmatch(tag)
    code = found[1].lower() if found else None
    return code if code in LANGUAGES else None


def speakable(text: str) -> bool:
    """Whether there is anything to speak: a letter, a digit or a note sign. `[laughs]` and `♪` are."""
    return _SPOKEN.search(_BLANK_LETTERS.sub("", text)) is not None


def estimate_seconds(text: str) -> float:
    """About how many seconds of audio a text becomes (see the constants above for how good a guess it is)."""
    wide = len(_WIDE.findall(text))
    return wide / _WIDE_CHARACTERS_PER_S + (len(text.strip()) - wide) / _LATIN_CHARACTERS_PER_S


def chunk(
    text: str, token_spans: TokenSpans, *, limit_tokens: int = 37, language: str | None = None
) -> tuple[Chunk, ...]:
    """Cuts a text into chunks of at most `limit_tokens` tokens, counted on each chunk's own text.

    A chunk is as many whole sentences as fit. A sentence that is too long is cut at clauses, evenly rather than
    leaving a short rest; a clause at words; a word, or a script without spaces, between characters. `[cues]` are never
    cut, nor is a `♪ song ♪` that fits; a note of a longer song stays with the text next to it. Stretches with nothing
    to speak that do not fit beside speech (a line of dashes) are left out; everything else is kept, in order, and
    `chunk.text == text[chunk.start:chunk.end]`. Only a single character of more tokens than the limit exceeds it.

    Time and memory grow linearly with the text: the tokenizer sees a window at a time. ValueError: a limit that is
    not 1 to HARD_CAP_TOKENS.
    """
    if not 1 <= limit_tokens <= HARD_CAP_TOKENS:
        raise ValueError(
            f"limit_tokens is {limit_tokens}, must be 1 to {HARD_CAP_TOKENS}: Bark speaks best to about 37"
        )

    def fits(part: str) -> bool:
        return len(part) <= limit_tokens * _WINDOW_CHARACTERS_PER_TOKEN and len(token_spans(part)) <= limit_tokens

    cutter = _Cutter(
        text,
        token_spans,
        limit_tokens,
        find_boundaries(text, language or "en", fits),
        _Window(text, token_spans, limit_tokens),
    )
    chunks = []
    position = cutter.skip_space(0)
    while position < len(text):
        end = cutter.next_end(position)
        part = text[position:end].rstrip()
        if speakable(part):
            chunks.append(Chunk(text=part, start=position, end=position + len(part)))
        position = cutter.skip_space(end)
    return tuple(chunks)


class _Window:
    """Tokens of a stretch of the text, made anew when those from a position on run short."""

    def __init__(self, text: str, token_spans: TokenSpans, limit: int):
        self._text, self._token_spans, self._limit = text, token_spans, limit
        self._start, self.end = 0, 0
        self._spans: list[tuple[int, int]] = []
        self._starts: list[int] = []

    def tokens(self, start: int) -> list[tuple[int, int]]:
        """Spans, relative to `start`, of tokens from there on: enough for several chunks, or all there are."""
        place = bisect_left(self._starts, start)
        runs_short = self.end < len(self._text) and len(self._spans) - place < _AHEAD_CHUNKS * self._limit
        if runs_short or (place and self._spans[place - 1][1] > start):  # or a token was cut here
            self.end = min(len(self._text), start + self._limit * _WINDOW_CHARACTERS_PER_TOKEN)
            self._spans = [(start + a, start + b) for a, b in self._token_spans(self._text[start : self.end])]
            self._starts = [first for first, _ in self._spans]
            place = 0
        ahead = self._spans[place : place + _AHEAD_CHUNKS * self._limit]
        return [(first - start, last - start) for first, last in ahead]


@dataclass(frozen=True)
class _Cutter:
    text: str
    token_spans: TokenSpans
    limit: int
    boundaries: Boundaries
    window: _Window

    def skip_space(self, position: int) -> int:
        """The first character from `position` that is no white space."""
        found = _NO_SPACE.search(self.text, position)
        return found.start() if found else len(self.text)

    def next_end(self, start: int) -> int:
        """Where the chunk that starts at `start` ends."""
        spans = self.window.tokens(start)
        reach = self._reach(start, self.window.end, spans)
        end = reach
        if reach < len(self.text):
            end = self._best_cut(
                start, self.skip_space(reach), [(start + first, start + last) for first, last in spans]
            )
        # Tokens may differ once the text around them is gone: count again, and step back until it fits.
        while end - start > 1:
            own_reach = self._reach(start, end, self.token_spans(self.text[start:end].rstrip()))
            if own_reach == end:
                return end
            end = self._best_cut(start, min(own_reach, end - 1), [])
        return end

    def _reach(self, start: int, end: int, spans: Sequence[tuple[int, int]]) -> int:
        """The furthest character up to `end` with at most `limit` tokens before it; always past `start`."""
        for place, (first, last) in enumerate(spans):
            if place == self.limit:
                return max(start + first, start + 1)
            if last - first > _LONGEST_TOKEN_CHARACTERS:
                # What stands before the long word, or else as much of it as is still read as a word.
                return start + (first or _LONGEST_TOKEN_CHARACTERS)
        return end

    def _best_cut(self, start: int, reach: int, ahead: list[tuple[int, int]]) -> int:
        """The best place in (start, reach]: the last sentence end, or else a place in the clauses, words, letters."""
        sentence = _last(self.boundaries.sentences, start, reach)
        if sentence is not None:
            return sentence
        for cuts in (self.boundaries.clauses, self.boundaries.words):
            last = _last(cuts, start, reach)
            if last is not None:
                return self._even_cut(cuts, start, last, ahead)
        return self._character_cut(start, reach)

    def _even_cut(self, cuts: list[int], start: int, last: int, ahead: list[tuple[int, int]]) -> int:
        """The cut up to `last` that shares the sentence out evenly, if its end is in sight; else `last`."""
        sentence_end = _first(self.boundaries.sentences, start, len(self.text))
        if not ahead or sentence_end > self.skip_space(ahead[-1][1]):
            return last
        token_starts = [first for first, _ in ahead]
        tokens = bisect_right(token_starts, sentence_end - 1)
        parts = -(-tokens // self.limit)
        fair = tokens / parts
        # A cut before `least` would leave more than the other parts can hold.
        least = tokens - (parts - 1) * self.limit
        candidates = [
            (abs(before - fair), cut)
            for cut in cuts[bisect_right(cuts, start) : bisect_right(cuts, last)]
            if (before := bisect_right(token_starts, cut - 1)) >= least
        ]
        return min(candidates)[1] if candidates else last

    def _character_cut(self, start: int, reach: int) -> int:
        """The last place up to `reach` that is within no combined character, cue or note."""
        before_kept = self.boundaries.before_kept(reach)
        if before_kept > start:
            reach = before_kept
        for cut in range(reach, max(start, reach - _LOOK_BACK_CHARACTERS), -1):
            if self.boundaries.may_cut(cut):
                return cut
        return reach


def _last(cuts: list[int], start: int, reach: int) -> int | None:
    """The last cut in (start, reach]."""
    place = bisect_right(cuts, reach)
    return cuts[place - 1] if place and cuts[place - 1] > start else None


def _first(cuts: list[int], start: int, default: int) -> int:
    """The first cut after `start`."""
    place = bisect_right(cuts, start)
    return cuts[place] if place < len(cuts) else default
