"""Published models of the families: names, licences and sizes, as their model cards state them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Output = Literal["single", "multi", "score"]
PERMISSIVE = ("Apache-2.0", "MIT")


@dataclass(frozen=True)
class KnownModel:
    """A published model."""

    name: str  # name on the Hugging Face hub
    license: str
    family: str
    parameters: int  # millions
    outputs: tuple[Output, ...] = ("single",)
    results: str | None = None  # file in benchmarks/results that measures its weights; None: its layout alone is tested
    note: str = ""

    @property
    def permissive(self) -> bool:
        """True for a licence without conditions on use."""
        return self.license in PERMISSIVE


_BERT = (
    KnownModel("sentence-transformers/all-MiniLM-L6-v2", "Apache-2.0", "bert", 23, results="accuracy.json"),
    KnownModel("sentence-transformers/all-MiniLM-L12-v2", "Apache-2.0", "bert", 33),
    KnownModel("BAAI/bge-small-en-v1.5", "MIT", "bert", 33),
    KnownModel("BAAI/bge-base-en-v1.5", "MIT", "bert", 109),
    KnownModel("BAAI/bge-large-en-v1.5", "MIT", "bert", 335),
    KnownModel("intfloat/e5-small-v2", "MIT", "bert", 33, note="prompts `query: ` and `passage: ` with `--prompt`"),
    KnownModel("intfloat/e5-base-v2", "MIT", "bert", 109, note="prompts as e5-small-v2"),
    KnownModel(
        *("intfloat/multilingual-e5-small", "MIT", "bert", 118),
        results="families-e5.json",
        note="prompts as e5-small-v2",
    ),
    KnownModel("sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2", "Apache-2.0", "bert", 118),
    KnownModel("BAAI/bge-base-zh-v1.5", "MIT", "bert", 102),
    KnownModel("sentence-transformers/LaBSE", "Apache-2.0", "bert", 471),
    KnownModel("thenlper/gte-small", "MIT", "bert", 33),
    KnownModel("thenlper/gte-base", "MIT", "bert", 109),
    KnownModel("Snowflake/snowflake-arctic-embed-s", "Apache-2.0", "bert", 33),
    KnownModel("mixedbread-ai/mxbai-embed-large-v1", "Apache-2.0", "bert", 335),
    KnownModel("WhereIsAI/UAE-Large-V1", "MIT", "bert", 335),
)
_ROBERTA = (
    KnownModel("intfloat/multilingual-e5-base", "MIT", "xlm-roberta", 278, note="prompts as e5-small-v2"),
    KnownModel("intfloat/multilingual-e5-large", "MIT", "xlm-roberta", 560, note="prompts as e5-small-v2"),
    KnownModel(
        "BAAI/bge-m3",
        "MIT",
        "xlm-roberta",
        568,
        note="single vectors; its other heads are pickle files, which are not read",
    ),
    KnownModel("Snowflake/snowflake-arctic-embed-l-v2.0", "Apache-2.0", "xlm-roberta", 568),
    KnownModel("ibm-granite/granite-embedding-107m-multilingual", "Apache-2.0", "xlm-roberta", 107),
    KnownModel("ibm-granite/granite-embedding-278m-multilingual", "Apache-2.0", "xlm-roberta", 278),
    KnownModel("ibm-granite/granite-embedding-125m-english", "Apache-2.0", "roberta", 125),
    KnownModel("antoinelouis/biencoder-camembert-L8-mmarcoFR", "MIT", "camembert", 82),
)
_OTHER_ENCODERS = (
    KnownModel("sentence-transformers/all-mpnet-base-v2", "Apache-2.0", "mpnet", 109),
    KnownModel("sentence-transformers/distiluse-base-multilingual-cased-v2", "Apache-2.0", "distilbert", 135),
    KnownModel("ibm-granite/granite-embedding-small-english-r2", "Apache-2.0", "modernbert", 48),
    KnownModel("nomic-ai/modernbert-embed-base", "Apache-2.0", "modernbert", 149),
    KnownModel("Alibaba-NLP/gte-modernbert-base", "Apache-2.0", "modernbert", 149),
    KnownModel("ibm-granite/granite-embedding-english-r2", "Apache-2.0", "modernbert", 149),
    KnownModel("nomic-ai/nomic-embed-text-v1.5", "Apache-2.0", "nomic_bert", 137),
    KnownModel("Snowflake/snowflake-arctic-embed-m-v2.0", "Apache-2.0", "gte", 305),
    KnownModel("Alibaba-NLP/gte-multilingual-base", "Apache-2.0", "gte", 305),
    KnownModel("EuroBERT/EuroBERT-210m", "see its card", "eurobert", 210, note="for models trained from it"),
    KnownModel(
        *("jinaai/jina-embeddings-v3", "CC-BY-NC-4.0", "jina_embeddings_v3", 572),
        note="five tasks, each with its adapter, and `base` without one; switchable by default",
    ),
    KnownModel("jinaai/jina-clip-v2", "CC-BY-NC-4.0", "jina_clip", 865, note="texts and images in one space"),
)
_COLBERT = (
    KnownModel("mixedbread-ai/mxbai-edge-colbert-v0-17m", "Apache-2.0", "modernbert", 17, ("multi",), note="PyLate"),
    KnownModel("mixedbread-ai/mxbai-edge-colbert-v0-32m", "Apache-2.0", "modernbert", 32, ("multi",), note="PyLate"),
    KnownModel("answerdotai/answerai-colbert-small-v1", "Apache-2.0", "bert", 33, ("multi",), note="ColBERT's layout"),
    KnownModel("colbert-ir/colbertv2.0", "MIT", "bert", 110, ("multi",), note="ColBERT's layout"),
    KnownModel("lightonai/GTE-ModernColBERT-v1", "Apache-2.0", "modernbert", 149, ("multi",), note="PyLate"),
    KnownModel(
        "jinaai/jina-colbert-v2", "CC-BY-NC-4.0", "jina_colbert_v2", 559, ("multi",), note="128, 96, 64 dimensions"
    ),
)
_DECODERS = (
    KnownModel(
        *("HuggingFaceTB/SmolLM2-135M", "Apache-2.0", "llama", 135),
        results="families-smollm2.json",
        note="for models trained from it; measured: its Instruct weights, from 4 bits",
    ),
    KnownModel(
        "Qwen/Qwen2.5-Coder-0.5B",
        "Apache-2.0",
        "qwen2",
        494,
        results="families-qwen2.json",
        note="for models trained from it; measured: its Instruct weights, from 4 bits",
    ),
    KnownModel("HIT-TMG/KaLM-embedding-multilingual-mini-instruct-v1", "MIT", "qwen2", 494),
    KnownModel("codefuse-ai/F2LLM-0.6B", "Apache-2.0", "qwen3", 596),
    KnownModel("microsoft/harrier-oss-v1-0.6b", "MIT", "qwen3", 596),
    KnownModel("Qwen/Qwen3-Embedding-0.6B", "Apache-2.0", "qwen3", 596),
    KnownModel("intfloat/e5-mistral-7b-instruct", "MIT", "mistral", 7111),
    KnownModel("jinaai/jina-code-embeddings-0.5b", "CC-BY-NC-4.0", "qwen2", 494, note="ten prompts in one task"),
    KnownModel("jinaai/jina-code-embeddings-1.5b", "CC-BY-NC-4.0", "qwen2", 1544, note="ten prompts in one task"),
    KnownModel(
        *("jinaai/jina-embeddings-v5-text-small", "CC-BY-NC-4.0", "jina_embeddings_v5", 677),
        note="four tasks, each with its adapter",
    ),
    KnownModel(
        *("jinaai/jina-embeddings-v5-text-nano", "CC-BY-NC-4.0", "jina_embeddings_v5", 239),
        note="four tasks, each with its adapter",
    ),
    KnownModel(
        *("jinaai/jina-embeddings-v5-omni-small", "CC-BY-NC-4.0", "jina_embeddings_v5_omni", 1626),
        note="texts; images and sounds are left out",
    ),
    KnownModel(
        *("jinaai/jina-embeddings-v5-omni-nano", "CC-BY-NC-4.0", "jina_embeddings_v5_omni", 986),
        note="texts; images and sounds are left out",
    ),
    KnownModel(
        *("jinaai/jina-embeddings-v5-text-small-retrieval", "CC-BY-NC-4.0", "qwen3", 596),
        note="one task, merged; the repositories of the other tasks too",
    ),
    KnownModel("jinaai/jina-embeddings-v5-text-nano-retrieval", "CC-BY-NC-4.0", "eurobert", 212, note="as small"),
    KnownModel(
        *("jinaai/jina-embeddings-v4", "Qwen Research", "qwen2_5_vl", 3935, ("single", "multi")),
        note="texts and images; the layout is tested at full size",
    ),
)
_RERANKERS = (
    KnownModel(
        *("Qwen/Qwen3-Reranker-0.6B", "Apache-2.0", "qwen3", 596, ("score",)),
        note="its prompt with an instruction; the files with `modules.json`",
    ),
    KnownModel("cross-encoder/ms-marco-MiniLM-L6-v2", "Apache-2.0", "bert", 23, ("score",)),
    KnownModel("cross-encoder/ms-marco-MiniLM-L12-v2", "Apache-2.0", "bert", 33, ("score",)),
    KnownModel("BAAI/bge-reranker-base", "MIT", "xlm-roberta", 278, ("score",)),
    KnownModel("BAAI/bge-reranker-large", "MIT", "xlm-roberta", 560, ("score",)),
    KnownModel("BAAI/bge-reranker-v2-m3", "Apache-2.0", "xlm-roberta", 568, ("score",)),
    KnownModel("Alibaba-NLP/gte-reranker-modernbert-base", "Apache-2.0", "modernbert", 150, ("score",)),
    KnownModel("Alibaba-NLP/gte-multilingual-reranker-base", "Apache-2.0", "gte", 306, ("score",)),
    KnownModel(
        *("jinaai/jina-reranker-v2-base-multilingual", "CC-BY-NC-4.0", "jina_reranker_v2", 278, ("score",)),
        note="long documents in windows, as its `rerank`",
    ),
    KnownModel(
        *("jinaai/jina-reranker-v3", "CC-BY-NC-4.0", "jina_reranker_v3", 597, ("score",)),
        note="listwise: up to 125 documents in one prompt, as its `rerank`",
    ),
    KnownModel(
        *("jinaai/jina-reranker-v3.5", "CC-BY-NC-4.0", "jina_reranker_v3_5", 597, ("score",)),
        note="listwise, with sliding windows and documents of up to 8,192 tokens",
    ),
    KnownModel(
        *("jinaai/jina-reranker-m0", "CC-BY-NC-4.0", "jina_reranker_m0", 2445, ("score",)),
        note="documents are texts or images",
    ),
)
KNOWN_MODELS = (*_RERANKERS, *_BERT, *_ROBERTA, *_OTHER_ENCODERS, *_COLBERT, *_DECODERS)
