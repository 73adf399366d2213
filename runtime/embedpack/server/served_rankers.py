"""Packs that score documents: recipe, prompts and adapter of a call."""

from __future__ import annotations

from embedpack.errors import unknown
from embedpack.pack.graph_io import TOKEN_EMBEDDINGS
from embedpack.pack.heads import main_output
from embedpack.pack.prompts import document_prompt, query_prompt
from embedpack.pack.score_recipes import ListScores, MaxSimScores, PairScores
from embedpack.server.rank_requests import RankCall
from embedpack.server.rank_work import MaxSimWork, ScoreWork
from embedpack.server.request_errors import invalid
from embedpack.server.served_packs import ServedPack
from embedpack.server.tasks import SEARCH
from embedpack.server.work import Work


def rank_work(served: ServedPack, call: RankCall, max_tokens: int) -> Work:
    """Work of a call; RequestError if the pack scores no documents, or has no such task or instruction."""
    scores = served.manifest.score
    if call.texts.instruction is not None and not (isinstance(scores, PairScores) and scores.instruction is not None):
        raise invalid("instruction", f"{served.name} takes none; leave it out")
    if not (served.takes_images and isinstance(scores, PairScores)):
        for number, document in enumerate(call.texts.documents):
            if not isinstance(document, str):
                raise invalid(f"documents[{number}]", f"{served.name} scores texts, no images; pass a text")
    if isinstance(scores, PairScores | ListScores):
        key = served.forward_key(_task(served, call, served.manifest.unnamed_task), main_output(served.manifest))
        return ScoreWork(key, call.texts, scores, served.pack.folder, max_tokens)
    if served.manifest.multi is None:
        raise invalid("model", f"{served.name} has neither scores nor multi-vectors; call /v1/embeddings")
    recipe = scores if isinstance(scores, MaxSimScores) else None
    task = _task(served, call, recipe.task if recipe is not None else served.manifest.unnamed_task)
    prompts = served.manifest.tasks[task]
    of_query, of_document = (
        (query_prompt(prompts), document_prompt(prompts))
        if recipe is None
        else (recipe.query_prompt, recipe.document_prompt)
    )
    return MaxSimWork(
        key=served.forward_key(task, TOKEN_EMBEDDINGS),
        texts=call.texts,
        query_prompt=prompts.prompt(of_query),
        document_prompt=prompts.prompt(of_document),
        per_query_token=recipe is not None and recipe.per_query_token,
        max_tokens=max_tokens,
    )


def _task(served: ServedPack, call: RankCall, unnamed: str | None) -> str:
    """Task of a call; that of a search if the call and the pack name none."""
    tasks = served.manifest.tasks
    wanted = call.task or unnamed or SEARCH
    if wanted not in tasks:
        raise invalid("task", unknown("task", wanted, tasks))
    return wanted
