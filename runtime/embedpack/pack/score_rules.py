"""Cross-checks of the scores in a manifest: templates, marks, limits, the task of MaxSim."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from embedpack.errors import unknown
from embedpack.pack.input_rules import beyond_vocabulary
from embedpack.pack.manifest import Manifest
from embedpack.pack.score_recipes import ListScores, MaxSimScores, PairScores, Slot, Template


def bad_scores(manifest: Manifest) -> Iterator[str]:
    """Contradictions between the scores and the other parts of a manifest, each with its JSON path."""
    score = manifest.score
    if manifest.kind == "reranker" and not isinstance(score, PairScores | ListScores):
        yield "a reranker needs scores of pairs or lists - at `$.score`"
    if manifest.kind == "embedder" and isinstance(score, PairScores | ListScores):
        yield "an embedder has no scores of pairs or lists - at `$.score`"
    if isinstance(score, PairScores):
        yield from _bad_pairs(manifest, score)
    elif isinstance(score, ListScores):
        yield from _bad_lists(manifest, score)
    elif isinstance(score, MaxSimScores):
        yield from _bad_maxsim(manifest, score)


def _bad_pairs(manifest: Manifest, score: PairScores) -> Iterator[str]:
    yield from _bad_template(manifest, score.parts, {"query", "document", "instruction"}, "$.score.parts")
    for name in ("query", "document"):
        if _slots(score.parts).count(name) != 1:
            yield f"a template of pairs has one {name} - at `$.score.parts`"
    if (score.instruction is None) == ("instruction" in _slots(score.parts)):
        yield "there is an instruction if the template has a slot for it - at `$.score.instruction`"
    yield from _bad_limits(manifest, score)
    if score.overlap is not None and score.overlap >= score.max_tokens:
        yield f"windows of at most {score.max_tokens} tokens cannot share {score.overlap} - at `$.score.overlap`"
    if manifest.image is not None and (score.cut != "end" or score.token_types):
        yield "pairs with images are cut at their end, and have no token types - at `$.score`"
    if score.overlap is not None and score.cut != "document":
        yield f"windows take the place of a cut of the document, not of {score.cut!r} - at `$.score.overlap`"


def _bad_lists(manifest: Manifest, score: ListScores) -> Iterator[str]:
    yield from _bad_template(manifest, score.before, {"query", "count"}, "$.score.before")
    yield from _bad_template(manifest, score.document, {"document", "index"}, "$.score.document")
    yield from _bad_template(manifest, score.after, {"query", "count"}, "$.score.after")
    if _slots(score.document).count("document") != 1:
        yield "a template of documents has one document - at `$.score.document`"
    if _token_ids(score.document).count(score.document_mark) != 1:
        yield "a template of documents has one document_mark - at `$.score.document`"
    if score.document_mark in (*_token_ids(score.before), *_token_ids(score.after)):
        yield f"{score.document_mark} stands before or after the documents too - at `$.score.document_mark`"
    if score.query_mark not in _token_ids(score.after):
        yield "there is no query_mark - at `$.score.after`"
    yield from _bad_limits(manifest, score)


def _bad_maxsim(manifest: Manifest, score: MaxSimScores) -> Iterator[str]:
    if manifest.multi is None:
        yield "MaxSim needs multi - at `$.score`"
    if score.task not in manifest.tasks:
        yield f"{unknown('task', score.task, manifest.tasks)} - at `$.score.task`"
        return
    prompts = manifest.tasks[score.task].prompts
    for field, name in (("query_prompt", score.query_prompt), ("document_prompt", score.document_prompt)):
        if name not in prompts:
            yield f"{unknown('prompt', name, prompts)} - at `$.score.{field}`"


def _bad_template(manifest: Manifest, template: Template, allowed: Collection[str], path: str) -> Iterator[str]:
    for name in _slots(template):
        if name not in allowed:
            yield f"there is no {name} in this template - at `{path}`"
    yield from beyond_vocabulary(manifest, _token_ids(template), path)


def _bad_limits(manifest: Manifest, score: PairScores | ListScores) -> Iterator[str]:
    if score.max_tokens > manifest.text.max_tokens:
        yield (
            f"{score.max_tokens} tokens are more than the {manifest.text.max_tokens} of `$.text` - "
            "at `$.score.max_tokens`"
        )
    for field in ("max_query_tokens", "max_document_tokens"):
        limit = getattr(score, field)
        if limit is not None and limit > score.max_tokens:
            yield f"{limit} tokens are more than the {score.max_tokens} of a whole input - at `$.score.{field}`"


def _slots(template: Template) -> list[str]:
    return [part.slot for part in template if isinstance(part, Slot)]


def _token_ids(template: Template) -> list[int]:
    return [token for part in template if isinstance(part, tuple) for token in part]
