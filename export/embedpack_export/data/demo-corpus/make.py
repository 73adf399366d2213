#!/usr/bin/env python3
"""Choose corpus.jsonl, the texts of the search demo, from English Debian package descriptions.

python make.py --data TRAIN_DIR        # rewrites corpus.jsonl beside this file

TRAIN_DIR holds debian-desc-en/pairs.jsonl.gz, lines {"query": short description, "positive": long description}.
No dependencies.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

OUT = Path(__file__).resolve().parent / "corpus.jsonl"
SIZE = 800
SHORTEST, LONGEST = 80, 700  # characters of a text
MOST_SHARED = 2  # a sentence that more packages share is boilerplate of a family of packages

# Packages for people who build software. A visitor of the demo asks for programs, games, fonts, tools.
TITLE_OUT = re.compile(
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
# Words of a title that promise something to start or to look at; such packages are taken first.
TITLE_FIRST = re.compile(
    r"""\b(?:games?|puzzles?|play(?:er|s)?|viewers?|editors?|browser|client|manager|tools?|utilit(?:y|ies)|programs?|app
    |applications?|fonts?|typeface|simulator|emulator|calculator|converts?|converter|recorder|mixer|tuner|synthesizer
    |calendar|clock|clipboard|desktop|backups?|monitor(?:ing)?|scanner|screensaver|screen|notes?|password|chat|music|audio
    |video|photos?|images?|pdf|maps?|spell|typing|tutor|terminal|search|find|finds|files?|gui|graphical|applet|dockapp
    |interface|encrypt(?:ion|ed)?|e?mail|archiver|compression|learn|educational|drawing?|astronomy|chess|chemical)\b""",
    re.IGNORECASE | re.VERBOSE,
)
TEXT_OUT = re.compile(
    r"\bthis (?:is an? )?(?:\w+ )?"
    r"(?:meta-?package|package (?:contains|provides|ships|includes|installs|is a dependency))"
    r"|\b(?:header files|shared library|transitional|programming language|developers?\b.*\bAPI)\b|https?://|<URL:",
    re.IGNORECASE,
)


class Description(NamedTuple):
    """A package, without its name: the source does not have it."""

    title: str
    text: str


def rank(description: Description) -> str:
    """A fixed shuffle: the order depends on the text alone, not on a generator's version or the file's order."""
    return hashlib.sha256(description.text.encode()).hexdigest()


def read(path: Path) -> list[Description]:
    """All descriptions; line breaks inside a paragraph are layout and go."""
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as stream:
        pairs = [json.loads(line) for line in stream]
    return [Description(pair["query"].strip(), pair["positive"].strip()) for pair in pairs]


def sentences(text: str) -> set[str]:
    """What a text says, in pieces long enough to be recognised elsewhere."""
    return {piece.strip() for piece in re.split(r"(?<=[.!?])\s+|\n+", text) if len(piece.strip()) > 20}


def usable(description: Description) -> bool:
    """Whether a person would look for this package, going by its words."""
    if not SHORTEST <= len(description.text) <= LONGEST:
        return False
    return not TITLE_OUT.search(description.title) and not TEXT_OUT.search(description.text)


def choose(descriptions: Sequence[Description], size: int) -> list[Description]:
    """`size` varied descriptions, none of a family that says the same of all its packages."""
    uses = Counter(piece for one in descriptions for piece in sentences(one.text))
    own = [one for one in descriptions if all(uses[piece] <= MOST_SHARED for piece in sentences(one.text))]
    found = sorted(filter(usable, own), key=rank)
    distinct = {one.title.casefold(): one for one in reversed(found)}  # the best-ranked of equal titles stays
    order = sorted(distinct.values(), key=lambda one: (TITLE_FIRST.search(one.title) is None, rank(one)))
    return sorted(order[:size], key=lambda one: one.title.casefold())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="TRAIN_DIR", help="folder of the training sets")
    options = parser.parse_args()

    chosen = choose(read(options.data / "debian-desc-en" / "pairs.jsonl.gz"), SIZE)
    records = [{"id": f"d{number:04}", **one._asdict()} for number, one in enumerate(chosen, start=1)]
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    OUT.write_text("".join(lines), encoding="utf-8", newline="\n")
    print(f"{len(chosen)} descriptions, {OUT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
