"""Packs of a server: opened when it starts, loaded by the engine's thread, chosen by the model of a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from embedpack.engine.devices import choose_device
from embedpack.engine.encoder import Encoder
from embedpack.engine.golden import compare_golden
from embedpack.engine.loading import open_encoder
from embedpack.engine.prepared import cache_folder
from embedpack.engine.variant_choice import choose_variant
from embedpack.errors import OptionError, unknown
from embedpack.host.cores import available_cores
from embedpack.pack.codebooks import Codebooks, open_codebooks
from embedpack.pack.folder import Pack, read_pack
from embedpack.pack.graph_io import CHUNK_SUMS, SENTENCE_EMBEDDING, TOKEN_EMBEDDINGS
from embedpack.pack.heads import changes_tokens, late_chunking_problem
from embedpack.pack.manifest import NO_PREFIX, Manifest
from embedpack.pack.variants import Device
from embedpack.server.request_errors import ErrorKind, RequestError, invalid
from embedpack.server.requests import EmbeddingsCall
from embedpack.server.schemas import Model
from embedpack.server.settings import PackSettings, ServeSettings
from embedpack.server.tasks import TaskPrompt, choose_task, task_names


@dataclass(frozen=True)
class ForwardKey:
    """Everything that separates runs of graphs: requests of one key share batches.

    `adapter` is a task of a switchable variant; `output` is that of the graph.
    """

    model: str
    variant: str
    adapter: str | None
    output: str
    images: bool


@dataclass(frozen=True)
class ServedPack:
    """A pack, the variant of each of its tasks, the names of its tasks, and the codebooks of those with vectors."""

    name: str
    pack: Pack
    variants: Mapping[str, str]
    names: Mapping[str, TaskPrompt]
    codebooks: Mapping[str, Codebooks]
    device: Device = "cpu"

    @property
    def manifest(self) -> Manifest:
        """Manifest of the pack."""
        return self.pack.manifest

    @property
    def takes_images(self) -> bool:
        """True if the pack reads images."""
        return self.manifest.image is not None

    def task(self, call: EmbeddingsCall) -> TaskPrompt:
        """Task and prompt of a call; RequestError if the pack has no vectors or no such task, or reads no images."""
        if self.manifest.kind == "reranker":
            raise invalid("model", f"{self.name} gives scores, not vectors; call /v1/rerank")
        if call.inputs.images and not self.takes_images:
            raise invalid("input", f"{self.name} reads texts only")
        task = choose_task(self.names, call.task, self.manifest.unnamed_task, call.side)
        if call.late_chunking:
            self._check_late_chunking(task)
        return task

    def _check_late_chunking(self, task: TaskPrompt) -> None:
        problem = late_chunking_problem(self.manifest)
        if problem is not None:
            raise invalid("late_chunking", f"{self.name}: {problem}")
        if changes_tokens(task.prompt):
            raise invalid("late_chunking", "not possible under a prompt with a marker or a fill; pass another task")

    def key(self, call: EmbeddingsCall, task: str) -> ForwardKey:
        """Key of the runs of a call."""
        single = CHUNK_SUMS if call.late_chunking else SENTENCE_EMBEDDING
        output = TOKEN_EMBEDDINGS if call.multi else single
        return self.forward_key(task, output, images=call.inputs.images)

    def forward_key(self, task: str, output: str, *, images: bool = False) -> ForwardKey:
        """Key of runs for a task."""
        variant = self.variants[task]
        return ForwardKey(self.name, variant, self.manifest.variants[variant].adapter_of(task), output, images)

    def described(self) -> Model:
        """Entry of `/v1/models`."""
        return Model(
            id=self.name,
            name=self.manifest.name,
            context_length=self.manifest.text.max_tokens,
            input_modalities=["text", "image"] if self.takes_images else ["text"],
            output_modalities=["scores" if self.manifest.kind == "reranker" else "embeddings"],
            quantization=sorted({self.manifest.variants[name].weights for name in self.variants.values()}),
            tasks=list(self.names),
            dimensions=[] if self.manifest.single is None else list(self.manifest.single.truncate_dims),
            outputs=[name for name in ("single", "multi", "score") if getattr(self.manifest, name) is not None],
        )


@dataclass(frozen=True)
class ServedPacks:
    """All packs of a server by name."""

    packs: Mapping[str, ServedPack]
    threads: int

    @classmethod
    def open(cls, settings: ServeSettings) -> ServedPacks:
        """Open packs without their graphs; PackError for a broken one, OptionError for a name that is given twice."""
        packs: dict[str, ServedPack] = {}
        for each in settings.packs:
            if each.name in packs:
                raise OptionError(f"two packs are named {each.name!r}; pass NAME=FOLDER with another name")
            packs[each.name] = _open(each)
        return cls(packs, settings.threads or max(1, available_cores() // settings.workers))

    def find(self, model: str) -> ServedPack:
        """Pack of a request's model: by its name, with any owner before it; RequestError if there is none."""
        found = self.packs.get(model) or self.packs.get(model.rpartition("/")[2])
        if found is None:
            raise RequestError(ErrorKind.UNKNOWN_MODEL, unknown("model", model, self.packs), "model")
        return found

    def load(self) -> dict[tuple[str, str], Encoder]:
        """Load all graphs, by pack and variant, and compare the golden vectors of each; errors as of `check_golden`."""
        encoders = {}
        for served in self.packs.values():
            for name in dict.fromkeys(served.variants.values()):
                chosen = served.manifest.variants[name]
                encoder = open_encoder(served.pack, chosen, self.threads, cache_folder(), served.device)
                compare_golden(served.pack, name, encoder)
                encoders[served.name, name] = encoder
        return encoders


def _open(settings: PackSettings) -> ServedPack:
    pack = read_pack(settings.folder)
    manifest = pack.manifest
    tasks = manifest.tasks
    device = choose_device(pack, settings.device, settings.weights, None)
    variants = {task: choose_variant(pack, None, task, settings.weights, settings.adapters, device) for task in tasks}
    if manifest.kind == "reranker":
        names = {task: TaskPrompt(task, NO_PREFIX) for task in tasks}
        return ServedPack(settings.name, pack, variants, names, {}, device)
    codebooks = {task: open_codebooks(pack, task) for task in tasks}
    return ServedPack(settings.name, pack, variants, task_names(tasks), codebooks, device)
