"""Draw calibration.jsonl, the calibration texts of an export, from training sets.

TRAIN_DIR has one folder per set with pairs.jsonl.gz, lines {"query", "positive"}. Evaluation sets are never read:
calibration on them would bias the figures that are measured on them. Needs nothing but Python.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from training.program import add_training_sets, program

OUT = Path(__file__).parents[2] / "export/embedpack_export/data/calibration.jsonl"
EXAMPLES = """example:
  python -m training.data.make_calibration --data TRAIN_DIR"""
MAX_PLAIN_CHARACTERS = 1200  # longer texts are drawn only for the `long` share

# Some short descriptions were never translated: a text is in its set's language if it matches one of these.
LANGUAGE_MARKS = {
    "de": re.compile(r"[äöüß]|\b(?:und|der|die|das|für|mit|von|zum|zur|ein|eine|im|auf)\b|(?:ung|tor|heit|ek)\b"),
    "fr": re.compile(r"[àâçéèêëîïôùû]|\b(?:de|du|des|le|la|les|pour|et|un|une|en|jeu)\b"),
    "es": re.compile(r"[áéíñóú]|\b(?:de|del|el|la|los|las|para|y|un|una|con)\b"),
    "ja": re.compile(r"[\u3041-\u30f6\u4e00-\u9fff]"),
    "ru": re.compile(r"[\u0400-\u04ff]"),
}


@dataclass(frozen=True)
class Source:
    """A training set, and the number of texts of each kind to draw from it."""

    folder: str
    query_lang: str
    passage_lang: str
    queries: int
    passages: int
    tiny: int  # queries of one to three words, or of similar length in scripts without spaces
    long: int  # texts of several passages, more than 256 tokens together
    long_characters: int = 0  # minimum of a long text; a token is about 4 characters of English, 1.7 of Japanese


SOURCES = (
    Source("debian-desc-en", "en", "en", queries=22, passages=32, tiny=4, long=4, long_characters=1700),
    Source("debian-desc-de", "de", "de", queries=8, passages=12, tiny=2, long=2, long_characters=1600),
    Source("debian-desc-fr", "fr", "fr", queries=8, passages=12, tiny=2, long=2, long_characters=1600),
    Source("debian-desc-es", "es", "es", queries=8, passages=12, tiny=2, long=2, long_characters=1600),
    Source("debian-desc-ja", "ja", "ja", queries=8, passages=12, tiny=2, long=2, long_characters=800),
    Source("debian-desc-ru", "ru", "ru", queries=8, passages=12, tiny=2, long=2, long_characters=1600),
    Source("nl2bash-train", "en", "bash", queries=10, passages=14, tiny=1, long=0),
    Source("python-docstring-code", "en", "python", queries=10, passages=20, tiny=1, long=3, long_characters=1600),
)


@dataclass(frozen=True)
class Text:
    """One line of the output."""

    text: str
    kind: str
    lang: str


def rank(text: str) -> str:
    """Sort key of a fixed shuffle, which depends on the text alone, not on a random generator or the file's order."""
    return hashlib.sha256(text.encode()).hexdigest()


def read(path: Path) -> list[dict[str, str]]:
    """Read the pairs of a set."""
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as stream:
        return [json.loads(line) for line in stream]


def native(texts: set[str], lang: str) -> list[str]:
    """Texts in the language that they will be labelled with, sorted."""
    pattern = LANGUAGE_MARKS.get(lang)
    return sorted(text for text in texts if pattern is None or pattern.search(text))


def is_tiny(text: str) -> bool:
    """Report whether a text has at most three words; in Japanese, which has no spaces, at most ten characters."""
    return len(text.split()) <= 3 and len(text) <= (30 if text.isascii() or " " in text else 10)


def spread(texts: Sequence[str], count: int) -> list[str]:
    """Draw `count` texts, one from each length quantile."""
    by_length = sorted(texts, key=lambda text: (len(text), rank(text)))
    cuts = [index * len(by_length) // count for index in range(count + 1)]
    return [min(by_length[low:high], key=rank) for low, high in pairwise(cuts)]


def joined(texts: Sequence[str], count: int, characters: int) -> list[str]:
    """Join longer passages to `count` texts of at least `characters`, each half that longer than the one before."""
    pool = iter(sorted((text for text in texts if len(text) > characters // 4), key=rank))
    result = []
    for index in range(count):
        parts: list[str] = []
        while sum(map(len, parts)) < characters * (1 + index / 2):
            parts.append(next(pool))
        result.append("\n\n".join(parts))
    return result


def draw(source: Source, data: Path) -> list[Text]:
    """Draw the texts of one set; tiny and long texts are drawn first, and the others do not repeat them."""
    pairs = read(data / source.folder / "pairs.jsonl.gz")
    queries = native({pair["query"] for pair in pairs}, source.query_lang)
    passages = native({pair["positive"] for pair in pairs}, source.passage_lang)
    tiny = sorted(filter(is_tiny, queries), key=rank)[: source.tiny]
    long = joined([text for text in passages if len(text) <= MAX_PLAIN_CHARACTERS], source.long, source.long_characters)
    plain_queries = [text for text in queries if not is_tiny(text)]
    plain_passages = [
        text for text in passages if len(text) <= MAX_PLAIN_CHARACTERS and not any(text in joint for joint in long)
    ]
    return [
        *(Text(text, "query", source.query_lang) for text in [*tiny, *spread(plain_queries, source.queries)]),
        *(Text(text, "passage", source.passage_lang) for text in [*spread(plain_passages, source.passages), *long]),
    ]


def packages(texts: Sequence[Text], data: Path) -> list[str]:
    """Python packages of the drawn functions and docstrings, for the licence list of the README."""
    drawn = {part for text in texts for part in (text.text, *text.text.split("\n\n"))}
    pairs = read(data / "python-docstring-code" / "pairs.jsonl.gz")
    return sorted({pair["package"] for pair in pairs if pair["query"] in drawn or pair["positive"] in drawn})


def main() -> None:
    """Run the command line."""
    parser = program("data.make_calibration", __doc__, EXAMPLES)
    add_training_sets(parser)
    options = parser.parse_args()

    texts = [text for source in SOURCES for text in draw(source, options.data)]
    lines = [json.dumps(vars(text), ensure_ascii=False) + "\n" for text in texts]
    OUT.write_text("".join(lines), encoding="utf-8", newline="\n")
    print(f"{len(texts)} texts, {OUT.stat().st_size:,} bytes")
    print(Counter((text.lang, text.kind) for text in texts))
    print("Python code from:", ", ".join(packages(texts, options.data)))


if __name__ == "__main__":
    main()
