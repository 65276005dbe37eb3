"""Write the sentences to teach with (`train.txt`), to decide with (`development.txt`), to judge with (`heldout.txt`).

Four kinds of text, all free: sentences of Debian's fortune files, lists of dictionary words (they teach
spelling), filled-in templates (numbers in words, names, questions), and at the end the same prose with most of its
longer words replaced by rare words of the dictionary. The two lists of 200 are in no other list; the one to decide
with is as the fortunes have it, misprints and verses too, the one to judge with is ordinary.
"""

import argparse
import random
import re
from collections import Counter
from pathlib import Path

FORTUNES = Path("/usr/share/games/fortunes")
DICTIONARY = Path("/usr/share/dict/american-english")
COMMON_WORDS = Path("/usr/share/dict/american-english-small")
MAX_CHARACTERS = 120  # the checkpoint reads 128 characters; festival then speaks at most about 9 s
HELD_OUT = 200
RARE = 10  # a word that the other sentences say less often is taught more
RARE_ROUNDS = 4  # times that every rare word is put into a sentence
SKIPPED_FILES = {"ascii-art", "perl", "magic", "startrek"}

ONES = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
MONTHS = "January February March April May June July August September October November December".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
NAMES = (
    "Mary John Alice Peter Susan Robert Linda Michael Emma David Laura James Anna William Sarah Thomas "
    "Karen George Helen Daniel Julia Martin Rachel Simon Olivia Henry Grace Oliver Sophie Charles Lucy "
    "Edward Maria Frank Nancy Paul Diana Kevin Rose Arthur Clara Victor Irene Samuel Ruth Walter Jane"
).split()
PLACES = (
    "London Paris Boston Chicago Berlin Rome Madrid Dublin Texas Florida Canada France Germany Italy Spain "
    "China India Japan Mexico Brazil Australia Egypt Kenya Norway Sweden Scotland Ireland California Oregon"
).split()
THINGS = (
    "car house book table window garden river train letter dinner phone coat bag key picture ticket dog "
    "cat boat lamp computer guitar camera bottle chair kitchen bicycle umbrella hammer basket mirror"
).split()
ADJECTIVES = (
    "old new red green blue small large quiet bright heavy broken empty cheap strange warm cold clean dark "
    "round soft narrow lovely famous early"
).split()
VERBS = "find see buy sell bring take leave clean open close carry paint lose borrow repair remember".split()
TEMPLATES = (
    "What did {name} say about the {adj} {thing}?",
    "{name} will be {number} years old in {month}.",
    "Where can I {verb} a {adj} {thing} in {place}?",
    "The train to {place} leaves at {number} minutes past {hour}.",
    "Could you please {verb} the {thing} for {name}?",
    "My phone number is {digit} {digit} {digit}, {digit} {digit} {digit} {digit}.",
    "On {day}, {name} and {name2} went from {place} to {place2}.",
    "Is the {thing} in the {adj} {thing2}, or did you {verb} it?",
    "It costs {number} dollars and {number2} cents.",
    "I was born on {month} the {ordinal}, nineteen {tens}.",
    "Hello, {name}, how are you today?",
    "Please {verb} the {adj} {thing} before {day}.",
    "There are {number} hundred people and {number2} {thing}s in {place}.",
    "Why does {name} always {verb} the {thing} on {day}?",
    "Good morning! My name is {name}, and I come from {place}.",
    "{name}'s {thing} was {adj}, but the {thing2} was {adj2}.",
    "Do you want the {adj} {thing} or the {adj2} {thing2}?",
    "He paid {number} thousand {number2} hundred dollars for a {thing}.",
)
ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth twelfth twentieth".split()


def number_words(rng: random.Random) -> str:
    """A number from one to ninety-nine, in words."""
    value = rng.randint(1, 99)
    if value < 20:
        return ONES[value - 1]
    tens = TENS[value // 10 - 2]
    return f"{tens} {ONES[value % 10 - 1]}" if value % 10 else tens


def template_sentence(rng: random.Random) -> str:
    """One filled-in template."""
    return rng.choice(TEMPLATES).format(
        name=rng.choice(NAMES),
        name2=rng.choice(NAMES),
        place=rng.choice(PLACES),
        place2=rng.choice(PLACES),
        thing=rng.choice(THINGS),
        thing2=rng.choice(THINGS),
        adj=rng.choice(ADJECTIVES),
        adj2=rng.choice(ADJECTIVES),
        verb=rng.choice(VERBS),
        number=number_words(rng),
        number2=number_words(rng),
        digit="{digit}",
        hour=rng.choice(ONES[:12]),
        tens=rng.choice(TENS),
        ordinal=rng.choice(ORDINALS),
        month=rng.choice(MONTHS),
        day=rng.choice(DAYS),
    )


def fill_digits(sentence: str, rng: random.Random) -> str:
    """Replace each `{digit}` by another spoken digit."""
    return re.sub(r"\{digit\}", lambda _: rng.choice(["zero", *ONES[:9]]), sentence)


def fortune_sentences() -> list[str]:
    """Sentences of the fortune files that are plain prose: letters and simple punctuation only."""
    found = set()
    for path in sorted(FORTUNES.iterdir()):
        if path.suffix or path.is_symlink() or path.name in SKIPPED_FILES:
            continue
        for fortune in path.read_text(encoding="utf-8", errors="ignore").split("\n%\n"):
            lines = [line for line in fortune.split("\n") if not line.strip().startswith("--")]
            prose = re.sub(r"\s+", " ", " ".join(lines))
            found.update(s for s in re.split(r"(?<=[.!?])\s+", prose) if is_plain(s))
    return sorted(found)


def is_plain(sentence: str) -> bool:
    """Whether a sentence is spoken as it is written."""
    words = sentence.split()
    return (
        len(words) >= 3
        and 12 <= len(sentence) <= MAX_CHARACTERS
        and re.fullmatch(r"[A-Z][A-Za-z' ,;:-]*[.!?]", sentence) is not None
        and not re.search(r"\b[A-Z]{2,}\b|\s['-]|['-]\s|--|''|(?<![A-Za-z])[b-hj-z]\b(?<!')", sentence)
    )


def word_lists(rng: random.Random, count: int) -> list[str]:
    """Short lists of dictionary words."""
    words = [w for w in DICTIONARY.read_text(encoding="utf-8").split() if re.fullmatch(r"[A-Z]?[a-z]{2,12}", w)]
    lists = []
    for _ in range(count):
        chosen = rng.sample(words, rng.randint(2, 6))
        text = rng.choice([" ", ", "]).join(chosen)
        lists.append(text[0].upper() + text[1:] + ".")
    return [text for text in lists if len(text) <= MAX_CHARACTERS]


def ordinary(sentences: list[str]) -> list[str]:
    """Sentences of 4 to 18 words of the dictionary, without names, titles and lists of clauses."""
    words = set(DICTIONARY.read_text(encoding="utf-8").split())
    return [
        s
        for s in sentences
        if 4 <= len(s.split()) <= 18
        and not re.search(r"[;:]|\s[A-HJ-Z]|\sI[a-z]", s)
        and all(word in words for word in re.findall(r"[a-z']+", s[0].lower() + s[1:]))
    ]


def rare_words(rng: random.Random, sentences: list[str]) -> list[str]:
    """Words of the small dictionary that the sentences say less than RARE times, RARE_ROUNDS times over, shuffled."""
    said = Counter(word for sentence in sentences for word in re.findall(r"[a-z]+", sentence.lower()))
    words = [w for w in COMMON_WORDS.read_text(encoding="utf-8").split() if re.fullmatch(r"[a-z]{2,14}", w)]
    words = [word for word in words if said[word] < RARE]
    return [word for _ in range(RARE_ROUNDS) for word in rng.sample(words, len(words))]


def reworded(rng: random.Random, prose: list[str], words: list[str]) -> list[str]:
    """Prose with seven of ten of its longer words replaced by the next of `words`, until these are used up.

    Rhythm and short words stay, so the rare words are learned where words stand in sentences, not in lists only.
    """
    frames = [s for s in prose if len(s) < 100 and len(re.findall(r"\b[a-z]{4,}\b", s)) >= 4]
    sentences, left = [], words[::-1]

    def replaced(word: re.Match) -> str:
        return left.pop() if left and rng.random() < 0.7 else word[0]

    while left:
        sentences.append(re.sub(r"\b[a-z]{4,}\b", replaced, rng.choice(frames)))
    return [sentence for sentence in sentences if len(sentence) <= MAX_CHARACTERS]


def main() -> None:
    """Write the three lists, in a fixed order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    args = parser.parse_args()
    rng = random.Random(20)
    prose = fortune_sentences()
    rng.shuffle(prose)
    templates = [fill_digits(template_sentence(rng), rng) for _ in range(4000)]
    development = [s for s in prose if 4 <= len(s.split()) <= 18][: HELD_OUT - 20] + templates[:20]
    excluded = set(development)
    training = [s for s in prose + templates + word_lists(rng, 6000) if s not in excluded]
    training = list(dict.fromkeys(training))
    rng.shuffle(training)
    # from the end: an excerpt of the beginning, which is what was spoken, stays the same
    last = training[::-1]
    from_prose, filled_in = set(prose), set(templates)
    held_out = ordinary([s for s in last if s in from_prose])[: HELD_OUT - 20]
    held_out += [s for s in last if s in filled_in][:20]
    excluded = set(held_out)
    lists = {"train": [s for s in training if s not in excluded], "development": development, "heldout": held_out}
    # these come last: whoever speaks fewer shards leaves out the reworded sentences first
    taught = lists["train"]
    taught += reworded(rng, [s for s in taught if s in from_prose], rare_words(rng, taught))
    args.work.mkdir(parents=True, exist_ok=True)
    for name, sentences in lists.items():
        (args.work / f"{name}.txt").write_text("\n".join(sentences) + "\n", encoding="utf-8")
        print(f"{name}: {len(sentences)} sentences")


if __name__ == "__main__":
    main()
