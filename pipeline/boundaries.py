"""Where a text may be cut: after sentences, clauses and words, and nowhere inside cues, short songs or notes."""

import itertools
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sentencex import segment  # pyright: ignore[reportAttributeAccessIssue]  (made in Rust, untyped)

_NOTES = "♪♫♬♩"
# Cues, as in [laughs]; a longer bracket is text.
_CUE = re.compile(r"\[[^\[\]\n]{1,64}\]")
# A speaker's tag and the first character of what is said.
_SPEAKER = re.compile(r"\b(?:WOMAN|MAN):\s*\S")
_NOTE_RUN = re.compile(rf"[{_NOTES}]+")
# Full stops of scripts that need no space behind them: always the end of a sentence, whatever the language says.
_WIDE_STOP = re.compile(r"[。！？｡।॥][。！？｡।॥」』）】”’\"']*\s*")
_CLAUSE = re.compile(r"[.,;:!?…–—-][)\]}»”’\"']*\s+|[、，；：､…—][」』）】”’]*\s*|\n+\s*")
_WORD = re.compile(r"\s+")
# "Dr. " and "M. ": a capital and up to three letters before a full stop look like an abbreviation.
_ABBREVIATION = re.compile(r"(?:^|[\s(\"'«“„])(?=[^\W\d_])(\w)[^\W\d_]{0,3}\.\s*$")
_JOINERS = "\u200c\u200d"
_HANGUL_PARTS = ("\u1160", "\u11ff")


@dataclass(frozen=True)
class Boundaries:
    """Sorted character offsets at which a text may be cut, by what ends there. No cut falls into a `kept` span."""

    text: str
    sentences: list[int]
    clauses: list[int]
    words: list[int]
    kept: list[tuple[int, int]]
    kept_starts: list[int]

    def before_kept(self, cut: int) -> int:
        """The cut, or the start of the kept span that it falls into."""
        place = bisect_right(self.kept_starts, cut - 1)
        return self.kept_starts[place - 1] if _is_inside(cut, self.kept, self.kept_starts) else cut

    def may_cut(self, cut: int) -> bool:
        """Whether a cut between two characters leaves combined characters and kept spans whole."""
        if _is_inside(cut, self.kept, self.kept_starts):
            return False
        before, after = self.text[cut - 1], self.text[cut] if cut < len(self.text) else " "
        joined = before in _JOINERS or after in _JOINERS or unicodedata.category(after).startswith("M")
        return not joined and not _HANGUL_PARTS[0] <= after <= _HANGUL_PARTS[1]


def find_boundaries(text: str, language: str, fits: Callable[[str], bool]) -> Boundaries:
    """All places at which a text may be cut, found once for the whole text in linear time.

    `fits` says whether one chunk holds a cue or a song: it is kept whole only then.
    """
    kept = _kept_spans(text, fits)
    starts = [start for start, _ in kept]

    def allowed(cuts: Iterable[int]) -> list[int]:
        return [cut for cut in sorted(cuts) if 0 < cut < len(text) and not _is_inside(cut, kept, starts)]

    words = (match.end() for match in _WORD.finditer(text))
    return Boundaries(text, allowed(_sentences(text, language)), allowed(_clauses(text)), allowed(words), kept, starts)


def _sentences(text: str, language: str) -> set[int]:
    """Ends of sentences. Those after an abbreviation ("M. Dupont") or a single word ("Yes. I do.") are not taken:
    a clip of one word seldom sounds right."""
    cuts = {match.end() for match in _WIDE_STOP.finditer(text)}
    end = 0
    for sentence in segment(language, text):
        end += len(sentence)
        if len(sentence.split(maxsplit=2)) != 1 and not _is_abbreviated(sentence):
            cuts.add(end)
    return cuts


def _clauses(text: str) -> set[int]:
    """Ends of clauses, and of the sentences inside quotes, which sentencex leaves whole."""
    return {
        match.end()
        for match in _CLAUSE.finditer(text)
        if match[0][0] != "." or not _is_abbreviated(text[max(0, match.start() - 16) : match.start() + 1])
    }


def _is_abbreviated(sentence: str) -> bool:
    match = _ABBREVIATION.search(sentence[-16:])
    return match is not None and match[1].isupper()


def _is_inside(cut: int, spans: list[tuple[int, int]], starts: list[int]) -> bool:
    place = bisect_right(starts, cut - 1)
    return place > 0 and cut < spans[place - 1][1]


def _kept_spans(text: str, fits: Callable[[str], bool]) -> list[tuple[int, int]]:
    """Spans that no cut may fall into, sorted, overlapping ones joined."""
    spans = [match.span() for match in _CUE.finditer(text) if fits(match[0])]
    spans += [match.span() for match in _SPEAKER.finditer(text)]
    notes = [match.span() for match in _NOTE_RUN.finditer(text)]
    # Notes open and close in turn; the last of an odd number opens.
    for opening, closing in itertools.zip_longest(notes[::2], notes[1::2]):
        if closing and fits(text[opening[0] : closing[1]]):
            spans.append((opening[0], closing[1]))
            continue
        spans.append((opening[0], _next_character(text, opening[1])))
        if closing:
            spans.append((_last_character(text, closing[0]), closing[1]))
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _next_character(text: str, position: int) -> int:
    """Past the first character from `position` that is no white space."""
    while position < len(text) and text[position].isspace():
        position += 1
    return min(position + 1, len(text))


def _last_character(text: str, position: int) -> int:
    """The last character before `position` that is no white space."""
    while position > 0 and text[position - 1].isspace():
        position -= 1
    return max(position - 1, 0)
