"""Recipes of published rerankers: the manifest can express each of them, and reads it back from its JSON."""

from __future__ import annotations

import msgspec
import pytest

from embedpack.pack.accuracy_records import ScoreAgreement, TokenCosines
from embedpack.pack.folder import read_pack
from embedpack.pack.input_recipes import Fill, Prompt
from embedpack.pack.manifest import Manifest, MultiVectors
from embedpack.pack.rules import contradictions
from embedpack.pack.score_recipes import ListScores, MaxSimScores, PairScores, Slot
from tests.helpers.tiny_pack import TINY_PACK

QUERY, DOCUMENT, INSTRUCTION = Slot(slot="query"), Slot(slot="document"), Slot(slot="instruction")
COUNT, INDEX = Slot(slot="count"), Slot(slot="index")
# Tokens of Qwen's vocabulary.
START, END, EMBED, RERANK = (151644,), (151645,), (151670,), (151671,)
THOUGHT = "assistant\n<think>\n\n</think>\n\n"

# XLM-RoBERTa: <s> query </s></s> document </s>.
JINA_V2 = PairScores(
    parts=((0,), QUERY, (2, 2), DOCUMENT, (2,)),
    instruction=None,
    max_tokens=1024,
    max_query_tokens=512,
    max_document_tokens=None,
    cut="document",
    overlap=80,
    token_types=False,
    offset=0.0,
    activation="sigmoid",
)
BGE = msgspec.structs.replace(JINA_V2, max_tokens=512, max_query_tokens=None, cut="longest", overlap=None)
# BERT: [CLS] query [SEP] document [SEP].
MS_MARCO = msgspec.structs.replace(
    BGE, parts=((101,), QUERY, (102,), DOCUMENT, (102,)), token_types=True, activation="none"
)
QWEN3 = PairScores(
    parts=(
        START,
        "system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. "
        'Note that the answer can only be "yes" or "no".',
        END,
        "\n",
        START,
        "user\n<Instruct>: ",
        INSTRUCTION,
        "\n<Query>: ",
        QUERY,
        "\n<Document>: ",
        DOCUMENT,
        END,
        "\n",
        START,
        THOUGHT,
    ),
    instruction="Given a web search query, retrieve relevant passages that answer the query",
    max_tokens=8192,
    max_query_tokens=None,
    max_document_tokens=None,
    cut="document",
    overlap=None,
    token_types=False,
    offset=0.0,
    activation="sigmoid",
)
# Id 100 behind each text is `text.after`.
JINA_M0 = PairScores(
    parts=("**Document**:\n", DOCUMENT, "\n**Query**:\n", QUERY),
    instruction=None,
    max_tokens=10_240,
    max_query_tokens=None,
    max_document_tokens=9728,
    cut="end",
    overlap=None,
    token_types=False,
    offset=-2.65,
    activation="sigmoid",
)
JINA_V3 = ListScores(
    before=(START, "system\nYou are a search relevance expert.", END, "\n", START, "user\nI will provide you with ",
            COUNT, " passages. Rank the passages based on their relevance to query: ", QUERY, "\n"),
    document=('<passage id="', INDEX, '">\n', DOCUMENT, EMBED, "\n</passage>"),
    between="\n",
    after=("\n<query>\n", QUERY, RERANK, "\n</query>", END, "\n", START, THOUGHT),
    document_mark=EMBED[0],
    query_mark=RERANK[0],
    stripped=("<|embed_token|>", "<|rerank_token|>"),
    max_query_tokens=512,
    max_document_tokens=2048,
    max_tokens=131_072,
    max_documents=125,
)  # fmt: skip
# Two marks of the query, of which the last counts.
JINA_V3_5 = msgspec.structs.replace(
    JINA_V3,
    before=(*JINA_V3.before[:-1], RERANK, "\n"),
    after=(
        *JINA_V3.after[:3],
        "\n</query>\nPlease provide the ranking of all passages based on their relevance to the search query, in "
        "descending order of relevance, with each label enclosed in square brackets (e.g., [2] > [1] > [3] > [0]).",
        *JINA_V3.after[4:],
    ),
    stripped=(*JINA_V3.stripped, "<|score_token|>"),
    max_query_tokens=1024,
    max_document_tokens=8192,
)
COLBERT = MaxSimScores(task="default", query_prompt="query", document_prompt="passage", per_query_token=False)


@pytest.fixture(scope="module")
def large() -> Manifest:
    """The manifest of the tiny pack, with the vocabulary and the limit of a large model."""
    manifest = read_pack(TINY_PACK).manifest
    text = msgspec.structs.replace(manifest.text, vocabulary=151_936, max_tokens=131_072)
    return msgspec.structs.replace(manifest, text=text)


def reranker(manifest: Manifest, score: PairScores | ListScores) -> Manifest:
    """The manifest as that of a reranker."""
    tasks = {name: msgspec.structs.replace(task, space=None) for name, task in manifest.tasks.items()}
    agreement = ScoreAgreement(queries=4, pairs=16, largest_difference=0.01, relative_difference=0.02, kendall=0.98)
    variants = {
        name: msgspec.structs.replace(
            variant, accuracy=msgspec.structs.replace(variant.accuracy, single=None, score=agreement)
        )
        for name, variant in manifest.variants.items()
    }
    return msgspec.structs.replace(
        manifest, kind="reranker", single=None, spaces={}, tasks=tasks, variants=variants, score=score
    )


@pytest.mark.parametrize("score", [JINA_V2, BGE, MS_MARCO, QWEN3, JINA_M0, JINA_V3, JINA_V3_5])
def test_rerankers(large: Manifest, score: PairScores | ListScores) -> None:
    manifest = reranker(large, score)
    assert list(contradictions(manifest)) == []
    assert msgspec.json.decode(msgspec.json.encode(manifest), type=Manifest) == manifest


def test_late_interaction(large: Manifest) -> None:
    """Query augmentation and markers as in jina-colbert-v2."""
    query = Prompt(max_tokens=32, marker=98_066, fill=Fill(token=4, length=32, attended=True))
    document = Prompt(max_tokens=8192, marker=98_067, skip=(4, 5))
    task = msgspec.structs.replace(large.tasks["default"], prompts={"query": query, "passage": document})
    space = large.spaces["default"]
    multi = TokenCosines(tokens=9, mean=1.0, p1=1.0)
    manifest = msgspec.structs.replace(
        large,
        multi=MultiVectors(dimensions=128, truncate_dims=(64, 96, 128)),
        score=COLBERT,
        tasks={"default": task},
        spaces={"default": msgspec.structs.replace(space, multi=space.single)},
        variants={
            name: msgspec.structs.replace(variant, accuracy=msgspec.structs.replace(variant.accuracy, multi=multi))
            for name, variant in large.variants.items()
        },
    )
    assert list(contradictions(manifest)) == []
    assert msgspec.json.decode(msgspec.json.encode(manifest), type=Manifest) == manifest
