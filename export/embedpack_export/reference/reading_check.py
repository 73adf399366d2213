"""Comparison of token ids, before calibration: this export's reading of texts and that of the model's own libraries.

The fp32 graph and the torch reference compute vectors of the same ids, so that no comparison of vectors finds a wrong
length limit, prompt or tokenizer. Texts that spell special tokens are left out: here they are text on purpose.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from embedpack.errors import CheckpointError, EmbedpackError, MissingExtraError
from embedpack.inputs.prompt_rules import as_prompt
from embedpack.pack.manifest import Pooling
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.planning.prompt_options import PromptOptions
from embedpack_export.planning.settings import ExportSettings
from embedpack_export.reference.multi_vector_check import check_sides
from embedpack_export.reference.torch_reference import TORCH_PACKAGES, library_errors
from embedpack_export.sources.head_layers import ActivationName, Layer, LayerNorm

if TYPE_CHECKING:
    from embedpack_export.reference.torch.multi_vector_reading import MultiVectorReading
    from embedpack_export.reference.torch.own_reading import OwnReading

logger = logging.getLogger("embedpack")

Ids = npt.NDArray[np.int64]

# The words of sentence-transformers.
POOLINGS: Mapping[Pooling, str] = {
    "mean": "mean",
    "cls": "cls",
    "last": "lasttoken",
    "max": "max",
    "weighted_mean": "weightedmean",
    "mean_sqrt_len": "mean_sqrt_len_tokens",
}
# Names of the classes in torch.nn.
ACTIVATIONS: Mapping[ActivationName, str] = {
    "none": "Identity",
    "relu": "ReLU",
    "tanh": "Tanh",
    "gelu": "GELU",
    "silu": "SiLU",
    "sigmoid": "Sigmoid",
}
# Calibration texts that are compared without a prompt name, and under each prompt.
MAX_TEXTS = 200
MAX_PROMPTED_TEXTS = 8
# Capital letters, spaces, line ends, accents, other scripts: where tokenizers have options.
PROBES = (
    "Capital and SMALL Letters",
    "  two  spaces, and some   around  ",
    "naïve café — “quotes”, 数字 42",
    "a\nb\tc",
)


@dataclass(frozen=True)
class _Comparison:
    """Reading of a task's texts under one prompt name, there and here."""

    plan: ExportPlan
    task: str
    name: str | None  # name of the prompt; None: an input without a prompt name
    reading: OwnReading
    given: PromptOptions  # prompts of the caller, which the model's files do not have

    @property
    def here(self) -> str:
        """Text of the prompt in the plan."""
        return as_prompt(self.plan.tasks[self.task].prompt(self.name)).prefix

    @property
    def own_prompt(self) -> str:
        """Text of the prompt in the model's files, or else of the plan, which may be that of the family."""
        here, prompts = self.here, self.reading.prompts
        if self._is_given or not any(prompts.texts.values()):
            return here
        if self.name is None:
            return "" if prompts.default is None else prompts.texts[prompts.default]
        # sentence-transformers has an empty "query" and "document" where the files have none.
        return prompts.texts.get(self.name) or here

    @property
    def _is_given(self) -> bool:
        """True if the prompt is the caller's."""
        if self.name is None and self.given.default(self.task) is not None:
            return True
        name = self.plan.tasks[self.task].default_prompt_name if self.name is None else self.name
        return name in self.given.prefixes(self.task)

    def check(self, number: int, text: str) -> None:
        """Raise CheckpointError if the ids of a text differ."""
        prompt = self.here
        processor = self.plan.processor
        here = processor.process(processor.items([text]), prompt)[0].ids
        there = self.reading.ids(text, self.own_prompt)
        if np.array_equal(here, there):
            return
        place = _first_difference(here, there)
        ours, own = (self._piece(ids, place) for ids in (here, there))
        under = "" if self.name is None else f" under the prompt {self.name!r}"
        raise CheckpointError(
            f"{self.plan.checkpoint.folder}: {self.reading.library} reads text {number}{under} otherwise than this "
            f"export: token {place} is {own} there and {ours} here, of {len(there)} and {len(here)} tokens; the cause "
            f"is probably {self._cause(here, there, place)}; report it, or leave this comparison out with "
            "--reference graph"
        )

    def _piece(self, ids: Ids, place: int) -> str:
        return repr(self.reading.pieces(ids[place : place + 1])[0]) if place < len(ids) else "missing"

    def _cause(self, here: Ids, there: Ids, place: int) -> str:
        """The key that explains a difference most likely."""
        if self.own_prompt != self.here:
            return "the prompts of config_sentence_transformers.json"
        if len(here) != len(there) and min(len(here), len(there)) in (self.plan.max_tokens, self.reading.max_tokens):
            limits = f"{self.reading.max_tokens} there, {self.plan.max_tokens} here"
            return f"the length limit ({limits}; model_max_length, max_seq_length)"
        pieces = [self.reading.pieces(ids[place : place + 1]) for ids in (here, there)]
        if any(piece[0] in self.reading.special for piece in pieces if piece):
            return "the special tokens around a text (add_bos_token, add_eos_token, the post_processor)"
        if all(pieces) and pieces[0][0].lower() == pieces[1][0].lower():
            return "lower case (do_lower_case)"
        return "a key of tokenizer_config.json or tokenizer.json"


def check_reading(plan: ExportPlan, settings: ExportSettings) -> tuple[str, ...]:
    """Compare the token ids of texts; return sentences about what was not compared, for the report.

    Raises:
        CheckpointError: the model's own libraries give other ids, or pool otherwise.
    """
    if settings.reference == "fp32 graph":
        return _not_checked("--reference graph leaves it out")
    for package in TORCH_PACKAGES:
        if importlib.util.find_spec(package) is None:
            return _not_checked(str(MissingExtraError("reference", package)))
    if plan.single is None:
        return _check_multi_vectors(plan, settings)
    compared = 0
    for task in plan.tasks:
        try:
            with library_errors(plan.checkpoint.folder):
                reading = _open(plan, task)
        except EmbedpackError as failure:
            return _not_checked(str(failure))
        if settings.max_tokens is not None:
            reading.max_tokens = plan.max_tokens
        if settings.pooling is None:
            _check_pooling(plan, reading)
        _check_layers(plan, reading)
        compared += _check_task(plan, task, reading, settings.prompts)
    logger.info("tokens of %d texts are those of %s", compared, reading.library)
    return ()


def _check_multi_vectors(plan: ExportPlan, settings: ExportSettings) -> tuple[str, ...]:
    compared = 0
    for task in plan.tasks:
        try:
            with library_errors(plan.checkpoint.folder):
                reading = _open_multi(plan, task)
        except EmbedpackError as failure:
            return _not_checked(str(failure))
        if settings.max_tokens is not None:
            reading.set_document_length(plan.max_tokens)
        assert plan.tokens is not None
        _check_same_layers(plan, (*map(_description, plan.tokens.layers), "Normalize"), reading.layers)
        texts = [text.text for text in plan.calibration.texts]
        plain = [text for text in texts if not any(token in text for token in reading.special)]
        with library_errors(plan.checkpoint.folder):
            compared += check_sides(plan, task, reading, _chosen(plan, plain))
    logger.info("tokens of %d texts are those of %s", compared, reading.library)
    return ()


def _open_multi(plan: ExportPlan, task: str) -> MultiVectorReading:
    from embedpack_export.reference.torch.multi_vector_reading import open_multi_vector_reading

    return open_multi_vector_reading(plan, task)


def _open(plan: ExportPlan, task: str) -> OwnReading:
    from embedpack_export.reference.torch.own_reading import open_reading

    return open_reading(plan, task)


def _not_checked(reason: str) -> tuple[str, ...]:
    note = "The reading of inputs (tokens, prompts, length limit) was not compared with the model's own libraries"
    logger.warning("%s: %s", note, reason)
    return (f"{note}: {reason}.",)


def _check_pooling(plan: ExportPlan, reading: OwnReading) -> None:
    if plan.pooling is not None and reading.pooling not in (None, POOLINGS[plan.pooling]):
        raise CheckpointError(
            f"{plan.checkpoint.folder}: {reading.library} pools with {reading.pooling!r}, this export with "
            f"{plan.pooling!r}; pass --pooling, and report it"
        )


def _check_layers(plan: ExportPlan, reading: OwnReading) -> None:
    if reading.pooling is None or plan.single is None:
        return
    end = ("Normalize",) if plan.single.normalize else ()
    _check_same_layers(plan, (*map(_description, plan.single.layers), *end), reading.layers)


def _check_same_layers(plan: ExportPlan, here: tuple[str, ...], there: tuple[str, ...]) -> None:
    """Refuse another head, described as `OwnReading` does; layers follow the pooling, or the tokens."""
    if here != there:
        behind = "tokens" if plan.single is None else "pooling"
        raise CheckpointError(
            f"{plan.checkpoint.folder}: after the {behind} sentence-transformers has {', '.join(there) or 'nothing'}, "
            f"this export {', '.join(here) or 'nothing'}; report it"
        )


def _description(layer: Layer) -> str:
    """A layer in the words of `OwnReading`."""
    if isinstance(layer, LayerNorm):
        return f"LayerNorm {layer.outputs}"
    bias = "" if layer.bias else " without bias"
    residual = " residual" if layer.residual else ""
    return f"Dense {layer.inputs}->{layer.outputs}{bias} {ACTIVATIONS[layer.activation]}{residual}"


def _check_task(plan: ExportPlan, task: str, reading: OwnReading, given: PromptOptions) -> int:
    """Compare texts of a task under all prompts; returns their number."""
    texts = [text.text for text in plan.calibration.texts]
    plain = [text for text in texts if not any(token in text for token in reading.special)]
    with library_errors(plan.checkpoint.folder):
        for number, text in enumerate(_chosen(plan, plain)):
            _Comparison(plan, task, None, reading, given).check(number, text)
        names = {*plan.tasks[task].prompts, *(name for name, text in reading.prompts.texts.items() if text)}
        for name in sorted(names):
            for number, text in enumerate(plain[:MAX_PROMPTED_TEXTS]):
                _Comparison(plan, task, name, reading, given).check(number, text)
    return len(plain)


def _chosen(plan: ExportPlan, texts: Sequence[str]) -> Iterator[str]:
    """Evenly spaced texts, the probes, and a text beyond the length limit."""
    yield from (texts[row] for row in np.linspace(0, len(texts) - 1, min(len(texts), MAX_TEXTS)).astype(int).tolist())
    yield from PROBES
    long = " ".join([*texts, *PROBES])
    while not plan.processor.process(plan.processor.items([long]), "")[0].truncated:
        long = f"{long} {long}"
    yield long


def _first_difference(one: Ids, other: Ids) -> int:
    """First position at which two sequences differ; the length of the shorter one if it is the start of the other."""
    length = min(len(one), len(other))
    differing = np.flatnonzero(one[:length] != other[:length])
    return int(differing[0]) if len(differing) else length
