"""Choose demo-corpus/corpus.jsonl, the texts of the search demo, from English Debian package descriptions.

TRAIN_DIR has debian-desc-en/pairs.jsonl.gz, lines {"query": short description, "positive": long description}. Needs
nothing but Python.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from training.program import add_training_sets, program

OUT = Path(__file__).parents[2] / "export/embedpack_export/data/demo-corpus/corpus.jsonl"
EXAMPLES = """example:
  python -m training.data.make_demo_corpus --data TRAIN_DIR"""
SIZE = 800
MIN_CHARACTERS, MAX_CHARACTERS = 80, 700
MAX_SHARED = 2  # a sentence in more packages is boilerplate of a family of packages

# Packages for software developers. A user of the demo searches for programs, games, fonts, tools.
EXCLUDED_TITLES = re.compile(
    r"""\b(?:docs?|documentation|manuals?|reference|examples?|dev|devel|development|headers?|debug|debugging
    |profiling|symbols|librar(?:y|ies)|libs?|modules?|bindings?|wrappers?|runtimes?|classes|class|packages?
    |metapackage|dummy|transitional|dependenc(?:y|ies)|common|data|shared|static|feature|introspection|gir|api|sdk
    |plugins?|extensions?|frameworks?|toolkits?|components?|functions?|objects?|types?|implementations?|test|tests
    |testing|support|compiler|cross|binutils|translations?|languages?|locale|l10n|i18n|dictionar(?:y|ies)
    |hyphenation|thesaurus|haskell|perl|python\d?|pypy|ruby|rubygem|rust|go|golang|node|nodejs|node\.js|php|java
    |javascript|js|ocaml|lisp|lua|erlang|tcl|octave|elpa|emacs|vim|latex|tex|qt\d?|gtk\d?|kde|gnome\ shell|gnu\ r|c
    |c\+\+|django|catalyst|symfony|horde|openstack|ros|puppet|ansible|kernel|firmware|daemon|server|rails|rack|moo
    |moose|clojure|scala|scheme|flask|aiohttp|jquery|typelib|middleware|routines|parsers?|reader\ and\ writer
    |strategy|methods?|models?|operators|environment|engine|backend|abstraction|kodi|icinga|prometheus)\b
    |\((?:[^)]*\b)?(?:files|version)\)|\.js\b|::""",
    re.IGNORECASE | re.VERBOSE,
)
# Words of titles of programs with a user interface, fonts and media; such packages are taken first.
PREFERRED_TITLES = re.compile(
    r"""\b(?:games?|puzzles?|play(?:er|s)?|viewers?|editors?|browser|client|manager|tools?|utilit(?:y|ies)|programs?|app
    |applications?|fonts?|typeface|simulator|emulator|calculator|converts?|converter|recorder|mixer|tuner|synthesizer
    |calendar|clock|clipboard|desktop|backups?|monitor(?:ing)?|scanner|screensaver|screen|notes?|password|chat|music|audio
    |video|photos?|images?|pdf|maps?|spell|typing|tutor|terminal|search|find|finds|files?|gui|graphical|applet|dockapp
    |interface|encrypt(?:ion|ed)?|e?mail|archiver|compression|learn|educational|drawing?|astronomy|chess|chemical)\b""",
    re.IGNORECASE | re.VERBOSE,
)
EXCLUDED_TEXTS = re.compile(
    r"\bthis (?:is an? )?(?:\w+ )?"
    r"(?:meta-?package|package (?:contains|provides|ships|includes|installs|is a dependency))"
    r"|\b(?:header files|shared library|transitional|programming language|developers?\b.*\bAPI)\b|https?://|<URL:",
    re.IGNORECASE,
)


class Description(NamedTuple):
    """Short and long description of a package; the source has no names."""

    title: str
    text: str


def rank(description: Description) -> str:
    """Sort key of a fixed shuffle, which depends on the text alone, not on a random generator or the file's order."""
    return hashlib.sha256(description.text.encode()).hexdigest()


def read(path: Path) -> list[Description]:
    """Read all descriptions."""
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as stream:
        pairs = [json.loads(line) for line in stream]
    return [Description(pair["query"].strip(), pair["positive"].strip()) for pair in pairs]


def sentences(text: str) -> set[str]:
    """Sentences of a text; short ones are left out, since they may occur elsewhere by chance."""
    parts = re.split(r"(?<=[.!?])\s+|\n+", text)
    return {part.strip() for part in parts if len(part.strip()) > 20}


def usable(description: Description) -> bool:
    """Report whether a user of the demo may search for this package, judged by its words."""
    if not MIN_CHARACTERS <= len(description.text) <= MAX_CHARACTERS:
        return False
    return not EXCLUDED_TITLES.search(description.title) and not EXCLUDED_TEXTS.search(description.text)


def choose(descriptions: Sequence[Description], size: int) -> list[Description]:
    """Choose `size` descriptions with distinct titles, without families of packages that share sentences."""
    uses = Counter(sentence for description in descriptions for sentence in sentences(description.text))
    distinctive = [
        description
        for description in descriptions
        if all(uses[sentence] <= MAX_SHARED for sentence in sentences(description.text))
    ]
    candidates = sorted(filter(usable, distinctive), key=rank)
    # Of equal titles the first in rank stays.
    by_title = {description.title.casefold(): description for description in reversed(candidates)}
    order = sorted(by_title.values(), key=lambda each: (PREFERRED_TITLES.search(each.title) is None, rank(each)))
    return sorted(order[:size], key=lambda each: each.title.casefold())


def main() -> None:
    """Run the command line."""
    parser = program("data.make_demo_corpus", __doc__, EXAMPLES)
    add_training_sets(parser)
    options = parser.parse_args()

    chosen = choose(read(options.data / "debian-desc-en" / "pairs.jsonl.gz"), SIZE)
    records = [{"id": f"d{number:04}", **each._asdict()} for number, each in enumerate(chosen, start=1)]
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    OUT.write_text("".join(lines), encoding="utf-8", newline="\n")
    print(f"{len(chosen)} descriptions, {OUT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
