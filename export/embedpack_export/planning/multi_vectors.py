"""Models that give multi-vectors alone: their head, and the prompts that their files describe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from embedpack.errors import CheckpointError, OptionError, unknown
from embedpack.inputs.prompt_rules import PromptOrPrefix
from embedpack.pack.input_recipes import Fill, Prompt
from embedpack.pack.score_recipes import MaxSimScores
from embedpack_export.families.heads import TokenHead
from embedpack_export.planning.tasks import TaskPlan
from embedpack_export.planning.text_inputs import TextInputs
from embedpack_export.sources.checkpoint import Checkpoint
from embedpack_export.sources.colbert_metadata import PROJECTION
from embedpack_export.sources.head_layers import Dense
from embedpack_export.sources.multi_vector_config import DOCUMENT, QUERY, MultiVectorConfig, SideSettings


@dataclass(frozen=True)
class MultiVectorSource:
    """A model for multi-vectors as its files describe it."""

    config: MultiVectorConfig
    hidden: int  # size of a hidden state
    truncate_dims: tuple[int, ...]  # truncations in the files or of the family

    def head(self, checkpoint: Checkpoint) -> TokenHead:
        """Head of multi-vectors; CheckpointError if its layers do not fit the hidden states and each other."""
        layers = tuple(module.layer for module in self.config.layers) or (self._projection(checkpoint),)
        size = self.hidden
        for layer in layers:
            if layer.inputs != size:
                raise CheckpointError(
                    f"{self.config.path.parent}: {layer.module} takes vectors of {layer.inputs} dimensions, what comes "
                    f"before it has {size}; are both of one model?"
                )
            size = layer.outputs
        smaller = tuple(dims for dims in self.truncate_dims if dims < size)
        return TokenHead(layers, smaller)

    def complete(self, checkpoint: Checkpoint) -> Checkpoint:
        """The checkpoint with the tensors of the layers that are in files of their own."""
        tensors = {name: tensor for module in self.config.layers for name, tensor in module.tensors.items()}
        return replace(checkpoint, tensors={**checkpoint.tensors, **tensors})

    def _projection(self, checkpoint: Checkpoint) -> Dense:
        outputs, inputs = checkpoint.tensors[f"{PROJECTION}.weight"].shape
        return Dense(PROJECTION, inputs, outputs, bias=False)

    def with_prompts(self, plan: TaskPlan, inputs: TextInputs, max_tokens: int | None) -> TaskPlan:
        """A task with the prompts of both sides; `max_tokens` is the limit of the caller.

        Calls that name no prompt embed documents.

        Raises:
            CheckpointError: a marker or the added token is no token of the tokenizer, or no file has the limit of
                documents.
        """
        prompts: dict[str, PromptOrPrefix] = {
            **self.config.prompts,
            QUERY: self._query(inputs),
            DOCUMENT: self._document(inputs, max_tokens),
        }
        default = self.config.default_prompt_name or DOCUMENT
        if default not in prompts:
            raise CheckpointError(f"{self.config.path}: {unknown('prompt', default, prompts)}")
        return replace(plan, prompts=prompts, default_prompt_name=default)

    def score(self, tasks: Mapping[str, TaskPlan]) -> MaxSimScores | None:
        """Scores by MaxSim of the only task; None: there are several, and a pack has scores of one."""
        if len(tasks) != 1:
            return None
        return MaxSimScores(
            task=next(iter(tasks)),
            query_prompt=QUERY,
            document_prompt=DOCUMENT,
            per_query_token=self.config.mean_score,
        )

    def _query(self, inputs: TextInputs) -> Prompt:
        side = self.config.sides[QUERY]
        limit = _least(side.max_tokens, inputs.max_tokens)
        return Prompt(
            prefix=side.prefix, max_tokens=limit, marker=self._marker(side, inputs), fill=self._fill(inputs, limit)
        )

    def _document(self, inputs: TextInputs, max_tokens: int | None) -> Prompt:
        side = self.config.sides[DOCUMENT]
        # That of the longer side is no choice of the caller: a finished pack has it as its limit.
        own = side.max_tokens if max_tokens in (None, self.config.max_tokens) else max_tokens
        limit = _least(own, inputs.max_tokens)
        if own is None and self.config.needs_document_length:
            raise CheckpointError(
                f"{self.config.path}: has no limit of documents, and the libraries of this model assume different "
                "ones; pass --max-length"
            )
        ids = (inputs.tokens.skipped(word, with_unknown=self.config.skips_unknown) for word in self.config.skipped)
        skip = sorted({number for number in ids if number is not None})
        return Prompt(prefix=side.prefix, max_tokens=limit, marker=self._marker(side, inputs), skip=tuple(skip))

    def _marker(self, side: SideSettings, inputs: TextInputs) -> int | None:
        return None if side.marker is None else self._token(side.marker, inputs)

    def _fill(self, inputs: TextInputs, limit: int | None) -> Fill | None:
        expansion = self.config.expansion
        if expansion is None:
            return None
        token = inputs.tokens.fill if expansion.token is None else self._token(expansion.token, inputs)
        if token is None:
            raise CheckpointError(
                f"{self.config.path}: queries are filled up, and the tokenizer has no mask token and no end token; "
                "save the tokenizer with its mask_token"
            )
        length = expansion.length if limit is None else min(expansion.length, limit)
        return Fill(token=token, length=length, attended=expansion.attended)

    def _token(self, content: str, inputs: TextInputs) -> int:
        number = inputs.tokens.added.number(content)
        if number is None:
            raise CheckpointError(
                f"{self.config.path}: {content!r} is no token of {inputs.tokenizer}; save the model with the tokenizer "
                "that it was trained with"
            )
        return number


def check_pooling(pooling: str | None) -> None:
    """Refuse a pooling for a model without single vectors."""
    if pooling is not None:
        raise OptionError("--pooling: this model gives multi-vectors alone, nothing is pooled; leave it out")


def _least(one: int | None, limit: int) -> int | None:
    """A limit of a prompt, if it is lower than that of the model."""
    return None if one is None or one >= limit else one
