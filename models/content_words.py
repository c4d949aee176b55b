"""How much of what people say of a photograph a caption says: F1 of content words."""

from __future__ import annotations

import re
from collections import Counter

# Words without a content of their own: articles, pronouns, prepositions, conjunctions, auxiliaries.
STOP_WORDS = frozenset(
    """a an the this that these those some any each every all both another other
    he she it its his her hers him they them their theirs who whom whose which what where when while
    of in on at by to from into onto over under with without near beside between behind through across along
    around against above below off out up down for about after before during toward towards upon inside
    outside and or but as if than then so not no nor is are was were be been being am has have had having do
    does doing did can could will would may might there here very just also too s t""".split()  # noqa: SIM905
)


def content_words(caption: str) -> frozenset[str]:
    """The distinct words of a caption, lower-cased, without stop words.

    >>> sorted(content_words("A dog is running on the grass ."))
    ['dog', 'grass', 'running']
    """
    return frozenset(re.findall(r"[a-z]+", caption.lower())) - STOP_WORDS


def overlap(said: frozenset[str], meant: frozenset[str]) -> float:
    """F1 = 2 |C & R| / (|C| + |R|) of two sets of words."""
    return 2 * len(said & meant) / (len(said) + len(meant)) if said or meant else 1.0


def content_f1(caption: str, references: list[str]) -> float:
    """Content-word F1 against the reference that it matches best, as METEOR takes the best of several
    references.

    >>> content_f1("a dog on the grass", ["A dog runs .", "Brown dog running on grass ."])
    0.6666666666666666
    """
    said = content_words(caption)
    return max(overlap(said, content_words(reference)) for reference in references)


def best_caption(references: list[list[str]]) -> str:
    """The one human caption that scores best on all images, of the 300 with the most frequent words."""
    meant = [[content_words(caption) for caption in captions] for captions in references]
    counts = Counter(word for sets in meant for words in sets for word in words)
    said = {content_words(caption): caption for captions in references for caption in captions}
    usual = sum(map(len, said)) / len(said)
    frequent = sorted(said, key=lambda words: -sum(counts[word] for word in words) / (len(words) + usual))[:300]
    return said[max(frequent, key=lambda words: sum(max(overlap(words, other) for other in sets) for sets in meant))]


def best_constant(references: list[list[str]]) -> str:
    """The one caption that scores best on all images, grown greedily from the 60 most common words."""
    meant = [[content_words(caption) for caption in captions] for captions in references]
    counts = Counter(word for sets in meant for words in sets for word in words)
    chosen: frozenset[str] = frozenset()
    best = 0.0
    while True:
        scores = {
            word: sum(max(overlap(chosen | {word}, words) for words in sets) for sets in meant)
            for word, _ in counts.most_common(60)
        }
        word = max(scores, key=lambda word: scores[word])
        if scores[word] <= best:
            return " ".join(sorted(chosen))
        chosen, best = chosen | {word}, scores[word]
