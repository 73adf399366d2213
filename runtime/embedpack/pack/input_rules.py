"""Cross-checks of the inputs in a manifest: lengths, token ids, prompts, images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from embedpack.pack.input_recipes import Prompt, QwenImage, SquareImage
from embedpack.pack.manifest import Manifest


def bad_inputs(manifest: Manifest) -> Iterator[str]:
    """Contradictions between the inputs and the other parts of a manifest, each with its JSON path."""
    text = manifest.text
    if text.pad_token_id >= text.vocabulary:
        yield f"the pad token is not below the vocabulary, {text.vocabulary} - at `$.text.pad_token_id`"
    yield from beyond_vocabulary(manifest, text.after, "$.text.after")
    if len(text.after) >= text.max_tokens:
        yield f"there are {len(text.after)} tokens for at most {text.max_tokens} - at `$.text.after`"
    for name, task in manifest.tasks.items():
        for key, prompt in task.prompts.items():
            yield from _bad_prompt(manifest, prompt, f"$.tasks[{name!r}].prompts[{key!r}]")
    yield from _bad_vision(manifest)
    if isinstance(manifest.image, QwenImage):
        yield from _bad_qwen_image(manifest, manifest.image)
    if isinstance(manifest.image, SquareImage) and not manifest.image.grid:
        yield "the size is below the patch size - at `$.image.size`"


def beyond_vocabulary(manifest: Manifest, tokens: Iterable[int], path: str) -> Iterator[str]:
    """Contradictions for token ids that are no row of the embedding table."""
    for token in tokens:
        if token >= manifest.text.vocabulary:
            yield f"token {token} is not below the vocabulary, {manifest.text.vocabulary} - at `{path}`"


def _bad_prompt(manifest: Manifest, prompt: Prompt, path: str) -> Iterator[str]:
    limit = prompt.max_tokens or manifest.text.max_tokens
    if limit > manifest.text.max_tokens:
        yield f"{limit} tokens are more than the {manifest.text.max_tokens} of `$.text` - at `{path}.max_tokens`"
    if prompt.marker is not None:
        yield from beyond_vocabulary(manifest, [prompt.marker], f"{path}.marker")
        if limit < 2:
            yield f"a text with a marker has at least 2 tokens, not {limit} - at `{path}.max_tokens`"
    if prompt.fill is not None:
        yield from beyond_vocabulary(manifest, [prompt.fill.token], f"{path}.fill.token")
        if prompt.fill.length > limit:
            yield f"texts have at most {limit} tokens, not {prompt.fill.length} - at `{path}.fill.length`"
    yield from beyond_vocabulary(manifest, prompt.skip, f"{path}.skip")


def _bad_vision(manifest: Manifest) -> Iterator[str]:
    for weights, vision in manifest.vision.items():
        path = f"$.vision[{weights!r}]"
        if manifest.image is None:
            yield f"there is a vision graph, but no image - at `{path}`"
        if vision.gives == "vectors" and manifest.single is None:
            yield f"vectors of images need single - at `{path}.gives`"
        if vision.gives == "vectors" and manifest.multi is not None:
            yield f"vectors of images are single ones, and the pack has multi - at `{path}.gives`"
        if vision.gives == "vectors" and isinstance(manifest.image, QwenImage):
            yield f"images of the type qwen2_vl give tokens - at `{path}.gives`"
    if len({vision.gives for vision in manifest.vision.values()}) > 1:
        yield "some vision graphs give tokens, others vectors - at `$.vision`"


def _bad_qwen_image(manifest: Manifest, image: QwenImage) -> Iterator[str]:
    yield from beyond_vocabulary(manifest, (*image.tokens_before, image.token, *image.tokens_after), "$.image")
    if image.pooled_before > len(image.tokens_before) or image.pooled_after > len(image.tokens_after):
        yield "more tokens are pooled than exist - at `$.image`"
    if image.min_pixels > image.max_pixels:
        yield "min_pixels is above max_pixels - at `$.image`"
