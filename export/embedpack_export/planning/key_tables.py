"""Tables of the keys of all files that an export reads: followed, without effect, or refused.

python -m embedpack_export.planning.key_tables docs/inputs.md
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from embedpack.errors import InputError
from embedpack_export.families import families
from embedpack_export.sources.adapter_keys import ADAPTER_CONFIG
from embedpack_export.sources.config_keys import COMMON, DECODERS, ENCODERS
from embedpack_export.sources.key_rules import Checked, Followed, KeyTable, NoEffect, Rule, json_value
from embedpack_export.sources.logit_score import LOGIT_LIMITS, LOGIT_SCORE
from embedpack_export.sources.multi_vector_keys import (
    ARTIFACT,
    MASK,
    MULTI_LIMITS,
    MULTI_SETTINGS,
    TOKEN_DENSE,
    TOKEN_NORMALIZE,
)
from embedpack_export.sources.sentence_transformers_keys import (
    DENSE,
    LAYER_NORM,
    LIMITS,
    MODULES,
    NORMALIZE,
    POOLING,
    SETTINGS,
)
from embedpack_export.sources.tokenizer_keys import SPECIAL_TOKENS_MAP, TOKENIZER_CONFIG, TOKENIZER_JSON

START = "<!-- keys: written by python -m embedpack_export.planning.key_tables docs/inputs.md -->"
END = "<!-- keys end -->"


def all_tables() -> Iterator[KeyTable]:
    """Tables of all files; those of families without what all families, encoders or decoders have in common."""
    yield from (TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP, TOKENIZER_JSON, LIMITS, SETTINGS, MODULES)
    yield from (POOLING, DENSE, LAYER_NORM, NORMALIZE)
    yield KeyTable(MULTI_SETTINGS.file, _without(MULTI_SETTINGS.rules, SETTINGS.rules))
    yield KeyTable(MULTI_LIMITS.file, _without(MULTI_LIMITS.rules, LIMITS.rules))
    yield KeyTable(TOKEN_DENSE.file, _without(TOKEN_DENSE.rules, DENSE.rules))
    yield KeyTable(LOGIT_LIMITS.file, _without(LOGIT_LIMITS.rules, LIMITS.rules))
    yield from (LOGIT_SCORE, MASK, TOKEN_NORMALIZE, ARTIFACT, ADAPTER_CONFIG)
    yield KeyTable("config.json", COMMON)
    yield KeyTable("config.json of encoders", _without(ENCODERS, COMMON))
    yield KeyTable("config.json of decoders", _without(DECODERS, COMMON))
    shown = set()
    for family in families().values():
        for table in family.keys:
            if table.file not in shown:
                shown.add(table.file)
                base = min((COMMON, ENCODERS, DECODERS), key=lambda rules: len(_without(table.rules, rules)))
                yield KeyTable(table.file, _without(table.rules, base))


def outcome(rule: Rule) -> str:
    """Column of a rule: followed, no effect, or values that are not refused."""
    if isinstance(rule, Followed):
        return f"followed: {rule.note}"
    if isinstance(rule, NoEffect):
        return f"no effect: {rule.reason}"
    if isinstance(rule, Checked):
        return f"refused unless: {rule.note}"
    return f"refused unless: {', '.join(map(json_value, rule.values))}"


def counts() -> Counter[str]:
    """Number of keys by outcome."""
    return Counter(outcome(rule).split(":")[0] for table in all_tables() for rule in table.rules.values())


def markdown() -> str:
    """The tables in Markdown."""
    lines = [f"{sum(counts().values())} keys: {', '.join(f'{n} {name}' for name, n in sorted(counts().items()))}.", ""]
    for table in all_tables():
        lines += [f"### {table.file}", "", "| key | what happens |", "|---|---|"]
        by_outcome: dict[str, list[str]] = {}
        for key, rule in table.rules.items():
            by_outcome.setdefault(outcome(rule), []).append(f"`{key}`")
        lines += [f"| {', '.join(keys)} | {text} |" for text, keys in sorted(by_outcome.items())]
        lines.append("")
    return "\n".join(lines)


def updated(text: str) -> str:
    """The text of the page with its tables written anew; InputError without the lines around them."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise InputError(f"the lines {START} and {END} are missing")
    return f"{before}{START}\n\n{markdown()}\n{END}{after}"


def _without(rules: Mapping[str, Rule], base: Mapping[str, Rule]) -> dict[str, Rule]:
    return {key: rule for key, rule in rules.items() if base.get(key) != rule}


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(updated(page.read_text("utf-8")), "utf-8")
