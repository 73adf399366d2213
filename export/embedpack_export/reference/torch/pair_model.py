"""PairModel: scores of pairs by transformers' class for sequence classification, with PEFT's unmerged adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from embedpack.engine.options import ScoreSettings
from embedpack.engine.pair_scores import PairReader
from embedpack.inputs.pair_texts import Document, check_documents, check_query
from embedpack.inputs.processor import ModelInput
from embedpack.pack.score_recipes import PairScores
from embedpack.vectors.arrays import Float32
from embedpack_export.planning.model_source import ModelSource
from embedpack_export.planning.score_head import ScorePlan
from embedpack_export.reference.torch.pair_loading import load_pair_model


class PairModel:
    """Model of pairs in full precision: nothing merged, nothing quantized, nothing padded."""

    def __init__(self, source: ModelSource, scores: ScorePlan, task: str) -> None:
        """Load the model of a task; CheckpointError if transformers or PEFT would use the files otherwise."""
        self._model = load_pair_model(source, task)
        assert isinstance(scores.recipe, PairScores)
        self._reader = PairReader(source.folder, scores.recipe, source.processor.tokenizer)
        self._types = scores.token_types

    def scores(self, query: str, documents: Sequence[Document]) -> Float32:
        """Scores, float32 [documents]; InputError if a text cannot be used."""
        pairs = self._reader.read(check_query(query), check_documents(documents), ScoreSettings())
        with torch.inference_mode():
            logits = [self._model(**self._feeds(each)).logits for each in pairs.inputs]
        return pairs.scores([np.array(float(value.reshape(())), np.float32) for value in logits])

    def _feeds(self, pair: ModelInput) -> Mapping[str, torch.Tensor]:
        ids = torch.from_numpy(pair.ids[None])
        feeds = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if self._types and pair.types is not None:
            feeds["token_type_ids"] = torch.from_numpy(pair.types[None])
        return feeds
