"""Data of a family: the checkpoints that it claims, and a checkpoint as it reads it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from embedpack.inputs.prompt_rules import PromptOrPrefix
from embedpack.inputs.tokenizer import TextRules
from embedpack.pack.input_recipes import QwenImage, SquareImage
from embedpack.pack.strict import AdapterMode
from embedpack.storage.safetensors import StoredTensor
from embedpack_export.families.heads import NO_HEADS, Heads, ScoreHead
from embedpack_export.graph.context import StagedModel
from embedpack_export.sources.adapter import AdapterSource
from embedpack_export.sources.checkpoint import Checkpoint
from embedpack_export.sources.key_rules import KeyTable
from embedpack_export.sources.name_rules import NameRules
from embedpack_export.sources.tokenizer_class import NO_CLASS, FamilyTokenizer

NO_RULES = TextRules()
# Module of the linear layer that makes multi-vectors, in checkpoints and adapters.
PROJECTOR = "multi_vector_projector"


@dataclass(frozen=True)
class TaskFacts:
    """Prompts and space of a task."""

    prompts: Mapping[str, PromptOrPrefix]  # by name
    default_prompt_name: str | None
    space: str | None = None  # space that it shares with other tasks; None: it has one of its own, of its own name


@dataclass(frozen=True)
class Vision:
    """Vision tower."""

    # Stages of the tower; the last one returns the vectors of image tokens, or of the image.
    model: StagedModel
    image: QwenImage | SquareImage  # processing of images to the tower's inputs
    tensors: re.Pattern[str]  # pattern of the names of the tower's tensors
    # "tokens": its vectors are inputs of the text graph; "vectors": single vectors, before they get the length 1.
    gives: Literal["tokens", "vectors"] = "tokens"


@dataclass(frozen=True)
class PairPrompt:
    """Prompt by which a language model answers about a pair; `before` and `after` have special tokens."""

    before: str
    instruction: str  # text before the instruction
    query: str  # text before the query
    document: str  # text before the document
    after: str
    marks: tuple[str, ...]  # tokens in `before` and `after` that the tokenizer must have
    default_instruction: str  # that of the chat template


@dataclass(frozen=True)
class ListPrompt:
    """Prompt of a query and a list of documents, with special tokens and `{query}`, `{document}`, `{count}`, `{index}`.

    It goes into the graph block by block, with the limits of the model's own code.
    """

    before: str
    document: str
    between: str  # text between two documents
    after: str
    document_mark: str  # special token in `document`
    query_mark: str  # special token in `after`, which may stand in `before` too
    marks: tuple[str, ...]  # all special tokens of the prompt, which the tokenizer must have
    stripped: tuple[str, ...]  # strings that are removed from texts
    max_query_tokens: int
    max_document_tokens: int
    max_documents: int  # largest number of documents in a block


@dataclass(frozen=True)
class FixedPairs:
    """Plain text of a query and a document, `{query}` and `{document}`, by the rules of the model's own code.

    The end of the whole is cut off. Ids behind it are those of `text_rules`.
    """

    template: str
    reserved: int  # tokens that a document leaves to the query; it has at least as many
    offset: float  # added to the logit, before a sigmoid


@dataclass(frozen=True)
class Model:
    """A checkpoint as its family reads it."""

    hidden: int  # size of a hidden state
    # Maximum length of a text in tokens, special tokens included, where the files of the tokenizer state no lower one.
    max_tokens: int
    pad_token_id: int | None  # id of the padding token in config.json, which may be no row of the embedding table
    vocabulary: int  # rows of the embedding table
    rules: NameRules  # names of the tensors in the checkpoint and in adapters
    text: StagedModel  # text graph; with `vision` it also takes the vectors of images
    text_alone: StagedModel | None = None  # text graph without images, if that is another one
    heads: Heads = NO_HEADS  # heads that the family itself has
    # Truncations in config.json, which hold if the files of sentence-transformers name none.
    truncate_dims: tuple[int, ...] = ()
    # Facts of each task, if the family has its own; under "" those of any other task.
    tasks: Mapping[str, TaskFacts] = field(default_factory=dict)
    text_rules: TextRules = NO_RULES  # treatment of every text, next to that of the tokenizer
    default_task: str | None = None  # task of calls that name none, if the family has one
    adapters: AdapterSource | None = None  # adapters that come with the checkpoint
    adapter_mode: AdapterMode = "merged"  # mode of those adapters, if the caller names none
    base_task: str | None = None  # name of the task without an adapter, beside those of `adapters`, if there is one
    has_fixed_adapter: bool = False  # its one adapter is a part of the model: no other replaces it or stands beside it
    adapted: frozenset[str] = frozenset()  # names of the modules that each of those adapters must change
    vision: Vision | None = None  # vision tower, if the model is to read images
    # Patterns of tensors outside of the text graph, also of parts that are not exported.
    other_tensors: tuple[re.Pattern[str], ...] = ()
    eos_token_id: int | None = None  # id of the token at the end of texts in config.json
    tokenizer: FamilyTokenizer = NO_CLASS  # class of its tokenizers in transformers
    scaled_tokens: int | None = None  # length that scaled positions allow beyond `max_tokens`
    pair_prompt: PairPrompt | None = None  # prompt of pairs, if a LogitScore module makes the model a reranker
    list_prompt: ListPrompt | None = None  # prompt of lists, if the model scores those with the MarkHead of `heads`
    fixed_pairs: FixedPairs | None = None  # pairs, if the model scores those with the ScoreHead of `heads`
    # Content of config.json in the spelling of transformers' class, for the reference; None: it is in that spelling.
    config_of_class: Mapping[str, object] | None = None

    def with_base_task(self, name: str | None) -> Model:
        """The model with another name of its task without an adapter; as it is if None, or if it has no such task."""
        own = self.base_task
        if name is None or own is None or name == own:
            return self
        tasks = {name if task == own else task: facts for task, facts in self.tasks.items()}
        default = name if self.default_task == own else self.default_task
        return replace(self, base_task=name, tasks=tasks, default_task=default)

    @property
    def longest(self) -> int:
        """Maximum length that an option or max_seq_length may set."""
        return max(self.max_tokens, self.scaled_tokens or 0)


@dataclass(frozen=True)
class ScoreModel:
    """Scores of pairs, as a class of transformers computes them: for sequence classification, or a language model."""

    head: ScoreHead  # of a classifier the last layer has the weight [labels, inputs]; one label is supported
    typed_text: StagedModel | None = None  # text graph that reads token types, if the model has several
    # Tokens that windows of a document share which is too long; None: it is cut as transformers cuts pairs.
    overlap: int | None = None
    prompt: PairPrompt | None = None  # prompt of a language model; None: pairs are those of the tokenizer
    tensors: Mapping[str, StoredTensor] = field(default_factory=dict)  # those of the head that are parts of others


@dataclass(frozen=True)
class Family:
    """One architecture."""

    name: str  # name in manifests; its file has this name, with "_" for "-"
    # True for a checkpoint of this architecture, by keys of its config.json and names of its tensors.
    claims: Callable[[Checkpoint], bool]
    # Builds the model of a checkpoint; raises CheckpointError if a value of config.json is missing or not supported.
    read: Callable[[Checkpoint], Model]
    keys: tuple[KeyTable, ...]  # rules of the keys of config.json, and of other files of the family
    # Builds the vision tower, if the architecture has one; errors as `read`.
    read_vision: Callable[[Checkpoint], Vision] | None = None
    # Reads the head of its class for sequence classification, if it has one; errors as `read`.
    read_scores: Callable[[Checkpoint], ScoreModel] | None = None
    own_modules: tuple[str, ...] = ()  # types in modules.json, of the checkpoint's own code, that the family covers


def by_model_type(name: str) -> Callable[[Checkpoint], bool]:
    """Claims of a family that is alone with its `model_type`, as `-` or `_` spells it."""

    def claims(checkpoint: Checkpoint) -> bool:
        return str(checkpoint.config.get("model_type")).replace("_", "-") == name.replace("_", "-")

    return claims
