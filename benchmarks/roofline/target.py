"""Graph that is measured, and its inputs: random token ids without padding, or a page of random pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.speed.workloads import Shape
from embedpack.engine.loading import open_processor
from embedpack.engine.session import Feeds
from embedpack.errors import InputError
from embedpack.inputs.patches import image_patches
from embedpack.inputs.processor import ModelInput
from embedpack.inputs.square_image import square_patches
from embedpack.inputs.vision_layout import vision_feeds
from embedpack.pack.folder import Pack
from embedpack.pack.graph_io import IMAGE_EMBEDS, SENTENCE_EMBEDDING
from embedpack.pack.heads import main_output
from embedpack.pack.input_recipes import QwenImage
from embedpack.pack.variants import VisionGraph


@dataclass(frozen=True)
class Target:
    """The text graph of a variant, or its vision graph.

    A shape is rows x tokens of a batch of texts, or width x height of a page in pixels.
    """

    pack: Pack
    variant: str
    pages: bool

    @property
    def name(self) -> str:
        """Name of the graph in results: that of the variant, or the file name of the vision graph."""
        return Path(self._vision.graph).stem if self.pages else self.variant

    @property
    def graph(self) -> Path:
        """Path of the graph."""
        return self.pack.path(self._vision.graph if self.pages else self.pack.manifest.variants[self.variant].graph)

    @property
    def output(self) -> str:
        """Name of the output that is computed."""
        if not self.pages:
            return main_output(self.pack.manifest)
        return IMAGE_EMBEDS if self._vision.gives == "tokens" else SENTENCE_EMBEDDING

    def feeds(self, shape: Shape, seed: int) -> Feeds:
        """Random feeds of a shape.

        Raises:
            InputError: the model takes fewer tokens, or no images.
        """
        rng = np.random.default_rng(seed)
        if self.pages:
            return self._page_feeds(shape, rng)
        rows, tokens = shape
        text = self.pack.manifest.text
        if tokens > text.max_tokens:
            raise InputError(f"{rows}x{tokens}: this model takes at most {text.max_tokens} tokens")
        ids = rng.integers(0, text.vocabulary, (rows, tokens))
        inputs = [ModelInput(row, slice(0, tokens), np.zeros(tokens, np.bool_)) for row in ids]
        return open_processor(self.pack).collate(inputs, [])

    def _page_feeds(self, shape: Shape, rng: np.random.Generator) -> Feeds:
        width, height = shape
        spec = self.pack.manifest.image
        if spec is None:
            raise InputError("--page: this pack reads texts only; leave it out")
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        patches = image_patches(pixels, spec) if isinstance(spec, QwenImage) else square_patches(pixels, spec)
        return vision_feeds(patches, spec)

    @property
    def _vision(self) -> VisionGraph:
        return self.pack.manifest.vision[self.pack.manifest.variants[self.variant].weights]
