"""Contradictions between heads, spaces, prompts, images and scores of a manifest: each is one clear PackError."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from embedpack.pack.folder import read_pack
from tests.helpers.broken_packs import (
    LISTS,
    MAXSIM,
    PAIRS,
    Change,
    Edit,
    adapted,
    changes,
    drop,
    prompt,
    put,
    refusal,
    reranker,
    with_images,
    with_multi,
    without_single,
)

SQUARE = {
    "type": "square",
    "size": 224,
    "patch_size": 14,
    "resize": "shortest",
    "filter": "bicubic",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
}
FILL = {"token": 5, "length": 16, "attended": False}


def square(**fields: Any) -> Change:
    """A change of the manifest that makes the pack read images of one size as single vectors."""
    return changes(with_images(vision={"gives": "vectors"}), put("image", {**SQUARE, **fields}))


def second_task(space: str) -> Change:
    """A change of the manifest that adds a task `base` without an adapter next to an adapted one."""

    def apply(manifest: dict[str, Any]) -> None:
        manifest["tasks"]["base"] = {**manifest["tasks"]["default"], "space": space}
        adapted(manifest)
        manifest["variants"] = {"switchable-int8": manifest["variants"]["default-int8"]}
        manifest["variants"]["switchable-int8"].update(
            task=None, adapters="switchable", adapter_files={"default": "LICENSE"}, checks={}
        )

    return apply


@pytest.mark.parametrize(
    "change",
    [
        with_multi(),
        changes(with_multi(), put("score", MAXSIM)),
        changes(with_multi(), without_single),
        put("late_chunking", True),
        put("default_task", "default"),
        prompt(max_tokens=20, marker=7, fill=FILL, skip=[1, 2]),
        put("text", "after", [7]),
        square(),
        with_images({"window_size": None}),
        reranker(PAIRS),
        reranker(PAIRS, parts=[{"slot": "instruction"}, *PAIRS["parts"]], instruction="rank"),
        reranker(PAIRS, overlap=8),
        reranker(LISTS),
        second_task("default"),
        put("variants", "default-fp32", "device", "cuda"),
    ],
)
def test_recipes_of_these_tests_are_valid(pack: Path, edit: Edit, change: Change) -> None:
    edit(change)
    read_pack(pack)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(put("kind", "reranker"), "a reranker has neither single nor multi - at `$.kind`", id="kind"),
        pytest.param(put("single", None), "an embedder needs single or multi - at `$.kind`", id="no_head"),
        pytest.param(put("kind", "poet"), "Invalid enum value 'poet' - at `$.kind`", id="unknown_kind"),
        pytest.param(
            with_multi(truncate_dims=[16, 8]),
            "the truncations are not ascending - at `$.multi.truncate_dims`",
            id="unsorted_truncations_of_multi_vectors",
        ),
        pytest.param(
            with_multi(truncate_dims=[8]),
            "the last truncation is not the full dimension, 16 - at `$.multi.truncate_dims`",
            id="truncations_of_multi_vectors_without_the_full_dimension",
        ),
        pytest.param(
            changes(put("late_chunking", True), put("single", "pooling", "cls")),
            "late chunking needs single vectors with mean pooling - at `$.late_chunking`",
            id="late_chunking_with_cls_pooling",
        ),
        pytest.param(
            put("default_task", "defalt"),
            "unknown task 'defalt'; known: default; did you mean 'default'? - at `$.default_task`",
            id="unknown_default_task",
        ),
        pytest.param(
            put("tasks", "default", "space", "defalt"),
            "unknown space 'defalt'; known: default; did you mean 'default'? - at `$.tasks['default'].space`",
            id="unknown_space",
        ),
        pytest.param(
            put("tasks", "default", "space", None),
            "a task of an embedder has a space, that of a reranker has none - at `$.tasks['default'].space`",
            id="no_space",
        ),
        pytest.param(
            lambda manifest: manifest["spaces"].update(other=manifest["spaces"]["default"]),
            "no task has this space - at `$.spaces['other']`",
            id="unused_space",
        ),
        pytest.param(
            changes(with_multi(), put("spaces", "default", "multi", None)),
            "a space has codes for the heads of the pack - at `$.spaces['default'].multi`",
            id="multi_vectors_without_codes",
        ),
        pytest.param(
            changes(with_multi(), put("multi", None)),
            "a space has codes for the heads of the pack - at `$.spaces['default'].multi`",
            id="codes_without_multi_vectors",
        ),
        pytest.param(
            changes(with_multi(), put("single", None)),
            "a space has codes for the heads of the pack - at `$.spaces['default'].single`",
            id="codes_without_single_vectors",
        ),
        pytest.param(
            put("variants", "default-int8", "accuracy", "multi", {"tokens": 9, "mean": 1.0, "p1": 1.0}),
            "a variant has the accuracy of the heads of the pack - at `$.variants['default-int8'].accuracy.multi`",
            id="accuracy_of_multi_vectors_that_do_not_exist",
        ),
        pytest.param(
            put("variants", "default-int8", "accuracy", "single", None),
            "a variant has the accuracy of the heads of the pack - at `$.variants['default-int8'].accuracy.single`",
            id="no_accuracy_of_single_vectors",
        ),
        pytest.param(
            changes(second_task("default"), put("variants", "switchable-int8", "adapter_files", "base", "LICENSE")),
            "merged variants need one task, switchable ones a file for each task with an adapter - "
            "at `$.variants['switchable-int8'].adapters`",
            id="adapter_file_of_a_task_without_adapter",
        ),
        pytest.param(
            put("variants", "default-fp32", "weights", "fp16"),
            "fp16 is for the device cuda - at `$.variants['default-fp32'].device`",
            id="fp16_on_cpus",
        ),
        pytest.param(
            put("variants", "default-fp32", "weights", "int8"),
            "'default-fp32' has the same task and weights - at `$.variants['default-int8']`",
            id="two_variants_of_a_weights_format",
        ),
        pytest.param(
            put("variants", "default-fp32", "device", "tpu"),
            "Invalid enum value 'tpu' - at `$.variants[...].device`",
            id="unknown_device",
        ),
    ],
)
def test_heads_spaces_and_devices(pack: Path, edit: Edit, change: Change, message: str) -> None:
    edit(change)
    assert refusal(pack, lambda: read_pack(pack)) == f"PACK/pack.json: {message}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            prompt(max_tokens=33),
            "33 tokens are more than the 32 of `$.text` - at `$.tasks['default'].prompts['query'].max_tokens`",
            id="limit_above_that_of_texts",
        ),
        pytest.param(
            prompt(marker=252),
            "token 252 is not below the vocabulary, 252 - at `$.tasks['default'].prompts['query'].marker`",
            id="marker_outside_the_vocabulary",
        ),
        pytest.param(
            prompt(marker=7, max_tokens=1),
            "a text with a marker has at least 2 tokens, not 1 - at `$.tasks['default'].prompts['query'].max_tokens`",
            id="marker_without_room",
        ),
        pytest.param(
            prompt(fill={**FILL, "token": 252}),
            "token 252 is not below the vocabulary, 252 - at `$.tasks['default'].prompts['query'].fill.token`",
            id="fill_outside_the_vocabulary",
        ),
        pytest.param(
            prompt(fill={**FILL, "length": 21}, max_tokens=20),
            "texts have at most 20 tokens, not 21 - at `$.tasks['default'].prompts['query'].fill.length`",
            id="fill_above_the_limit",
        ),
        pytest.param(
            prompt(skip=[1, 252]),
            "token 252 is not below the vocabulary, 252 - at `$.tasks['default'].prompts['query'].skip`",
            id="skip_outside_the_vocabulary",
        ),
        pytest.param(
            prompt(suffix="?"),
            "Object contains unknown field `suffix` - at `$.tasks[...].prompts[...]`",
            id="unknown_field_of_a_prompt",
        ),
        pytest.param(
            put("text", "after", [252]),
            "token 252 is not below the vocabulary, 252 - at `$.text.after`",
            id="after_outside_the_vocabulary",
        ),
        pytest.param(
            put("text", "after", [5] * 32), "there are 32 tokens for at most 32 - at `$.text.after`", id="only_after"
        ),
        pytest.param(
            drop("text", "strip"), "Object missing required field `strip` - at `$.text`", id="text_without_strip"
        ),
        pytest.param(
            put("vision", {"fp32": {"gives": "tokens", "graph": "LICENSE", "external_data": [], "operators": []}}),
            "there is a vision graph, but no image - at `$.vision['fp32']`",
            id="vision_without_image",
        ),
        pytest.param(
            with_images(vision={"gives": "vectors"}),
            "images of the type qwen2_vl give tokens - at `$.vision['fp32'].gives`",
            id="vectors_of_qwen_images",
        ),
        pytest.param(
            changes(square(), with_multi(), without_single),
            "vectors of images need single - at `$.vision['fp32'].gives`",
            id="vectors_of_images_without_single_vectors",
        ),
        pytest.param(
            changes(square(), with_multi()),
            "vectors of images are single ones, and the pack has multi - at `$.vision['fp32'].gives`",
            id="vectors_of_images_beside_multi_vectors",
        ),
        pytest.param(
            changes(square(), put("vision", "int8", "gives", "tokens")),
            "some vision graphs give tokens, others vectors - at `$.vision`",
            id="vision_graphs_that_differ",
        ),
        pytest.param(square(size=13), "the size is below the patch size - at `$.image.size`", id="square_size"),
        pytest.param(square(resize="longest"), "Invalid enum value 'longest' - at `$.image.resize`", id="resize"),
        pytest.param(square(type="round"), "Invalid value 'round' - at `$.image.type`", id="unknown_type_of_image"),
        pytest.param(
            square(window_size=4),
            "Object contains unknown field `window_size` - at `$.image`",
            id="field_of_other_type",
        ),
    ],
)
def test_texts_and_images(pack: Path, edit: Edit, change: Change, message: str) -> None:
    edit(change)
    assert refusal(pack, lambda: read_pack(pack)) == f"PACK/pack.json: {message}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            reranker(MAXSIM), "a reranker needs scores of pairs or lists - at `$.score`", id="reranker_without_scores"
        ),
        pytest.param(
            put("score", PAIRS), "an embedder has no scores of pairs or lists - at `$.score`", id="embedder_with_pairs"
        ),
        pytest.param(put("score", MAXSIM), "MaxSim needs multi - at `$.score`", id="maxsim_without_multi_vectors"),
        pytest.param(
            changes(with_multi(), put("score", {**MAXSIM, "task": "code"})),
            "unknown task 'code'; known: default - at `$.score.task`",
            id="maxsim_of_an_unknown_task",
        ),
        pytest.param(
            changes(with_multi(), put("score", {**MAXSIM, "query_prompt": "q"})),
            "unknown prompt 'q'; known: query, passage - at `$.score.query_prompt`",
            id="maxsim_with_an_unknown_prompt",
        ),
        pytest.param(
            changes(with_multi(), put("score", {**MAXSIM, "document_prompt": "d"})),
            "unknown prompt 'd'; known: query, passage - at `$.score.document_prompt`",
            id="maxsim_with_an_unknown_prompt_of_documents",
        ),
        pytest.param(
            reranker(PAIRS, parts=[{"slot": "query"}]),
            "a template of pairs has one document - at `$.score.parts`",
            id="pair_without_document",
        ),
        pytest.param(
            reranker(PAIRS, parts=[{"slot": "document"}]),
            "a template of pairs has one query - at `$.score.parts`",
            id="pair_without_query",
        ),
        pytest.param(
            reranker(PAIRS, parts=[*PAIRS["parts"], {"slot": "count"}]),
            "there is no count in this template - at `$.score.parts`",
            id="count_in_a_pair",
        ),
        pytest.param(
            reranker(PAIRS, parts=[*PAIRS["parts"], {"slot": "title"}]),
            "Invalid enum value 'title' - at `$.score.parts[5].slot`",
            id="unknown_slot",
        ),
        pytest.param(
            reranker(PAIRS, parts=[*PAIRS["parts"], [252]]),
            "token 252 is not below the vocabulary, 252 - at `$.score.parts`",
            id="template_outside_the_vocabulary",
        ),
        pytest.param(
            reranker(PAIRS, instruction="rank"),
            "there is an instruction if the template has a slot for it - at `$.score.instruction`",
            id="instruction_without_slot",
        ),
        pytest.param(
            reranker(PAIRS, parts=[{"slot": "instruction"}, *PAIRS["parts"]]),
            "there is an instruction if the template has a slot for it - at `$.score.instruction`",
            id="slot_without_instruction",
        ),
        pytest.param(
            changes(reranker(PAIRS), put("tasks", "default", "space", "default")),
            "a task of an embedder has a space, that of a reranker has none - at `$.tasks['default'].space`",
            id="reranker_with_a_space",
        ),
        pytest.param(
            reranker(LISTS, max_query_tokens=33),
            "33 tokens are more than the 32 of a whole input - at `$.score.max_query_tokens`",
            id="query_above_the_limit_of_a_block",
        ),
        pytest.param(
            reranker(PAIRS, max_tokens=33),
            "33 tokens are more than the 32 of `$.text` - at `$.score.max_tokens`",
            id="pair_above_the_limit_of_texts",
        ),
        pytest.param(
            reranker(PAIRS, max_query_tokens=33),
            "33 tokens are more than the 32 of a whole input - at `$.score.max_query_tokens`",
            id="query_above_the_limit",
        ),
        pytest.param(
            reranker(PAIRS, max_document_tokens=33),
            "33 tokens are more than the 32 of a whole input - at `$.score.max_document_tokens`",
            id="document_above_the_limit",
        ),
        pytest.param(
            changes(reranker(PAIRS), with_images()),
            "pairs with images are cut at their end, and have no token types - at `$.score`",
            id="images_cut_as_documents",
        ),
        pytest.param(
            reranker(PAIRS, overlap=32),
            "windows of at most 32 tokens cannot share 32 - at `$.score.overlap`",
            id="overlap_of_whole_windows",
        ),
        pytest.param(
            reranker(PAIRS, overlap=8, cut="end"),
            "windows take the place of a cut of the document, not of 'end' - at `$.score.overlap`",
            id="windows_and_cut",
        ),
        pytest.param(
            reranker(LISTS, before=[{"slot": "index"}]),
            "there is no index in this template - at `$.score.before`",
            id="index_before_documents",
        ),
        pytest.param(
            reranker(LISTS, document=[[4]]),
            "a template of documents has one document - at `$.score.document`",
            id="template_without_document",
        ),
        pytest.param(
            reranker(LISTS, document_mark=6),
            "a template of documents has one document_mark - at `$.score.document`",
            id="document_without_mark",
        ),
        pytest.param(
            reranker(LISTS, before=[[4], {"slot": "query"}]),
            "4 stands before or after the documents too - at `$.score.document_mark`",
            id="document_mark_before_documents",
        ),
        pytest.param(
            reranker(LISTS, stripped=[""]),
            "Expected `str` of length >= 1 - at `$.score.stripped[0]`",
            id="empty_string_to_remove",
        ),
        pytest.param(
            reranker(LISTS, query_mark=6), "there is no query_mark - at `$.score.after`", id="query_without_mark"
        ),
        pytest.param(
            reranker(LISTS, after=[{"slot": "document"}, [5]]),
            "there is no document in this template - at `$.score.after`",
            id="document_after_documents",
        ),
        pytest.param(reranker(LISTS, type="tree"), "Invalid value 'tree' - at `$.score.type`", id="unknown_scores"),
    ],
)
def test_scores(pack: Path, edit: Edit, change: Change, message: str) -> None:
    edit(change)
    assert refusal(pack, lambda: read_pack(pack)) == f"PACK/pack.json: {message}"
