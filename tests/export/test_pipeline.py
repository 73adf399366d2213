"""Whole exports: the same bytes every time, nothing stored twice, records of what was made."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest

from embedpack import Embedder
from embedpack.cli.main import main
from embedpack.engine.golden import TOLERANCE, check_golden
from embedpack.engine.loading import open_encoder
from embedpack.engine.options import EncodeOptions
from embedpack.pack.codebooks import read_codebooks
from embedpack.pack.folder import read_pack
from embedpack_export.graph.external_data import WeightStore
from embedpack_export.pipeline import export
from embedpack_export.quantization.gptq import RoundingMethod
from tests.helpers.exports import (
    QUERY,
    TEXTS,
    calibration_file,
    center_helps,
    edit_json,
    exactly,
    query_update,
    quick,
    tree,
    write_adapter,
)
from tests.helpers.tiny_checkpoint import make_checkpoint

TASKS = ("code", "retrieval")
# Enough texts for a codebook with a center.
CODED_TEXTS = tuple(
    f"{first} {second}" for first in ("the cat", "a house", "rain", "how to", "blue") for second in TEXTS
)


def adapters_of(folder: Path) -> dict[str, Path]:
    """Two adapters of the first query matrix."""
    return {task: write_adapter(folder / task, query_update(seed=seed)) for seed, task in enumerate(TASKS)}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, two adapters and a pack of both in all formats; tests only read it."""
    folder = tmp_path_factory.mktemp("pipeline")
    checkpoint = make_checkpoint(folder / "toy")
    settings = quick(checkpoint, folder / "pack", weights=("fp32", "int8", "int4"), adapters=adapters_of(folder))
    export(settings)
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "toy")


def tensors_of(pack: Path, variant: str) -> dict[str, ir.ExternalTensor]:
    """External tensors of a variant's graph by name."""
    values = ir.load(pack / f"{variant}.onnx").graph.initializers.values()
    return {str(v.name): v.const_value for v in values if isinstance(v.const_value, ir.ExternalTensor)}


def place(tensor: ir.ExternalTensor) -> tuple[str, int, int]:
    return str(tensor.location), int(tensor.offset or 0), int(tensor.length or 0)


# --- what a pack holds


def test_a_second_export_is_byte_identical(home: Path, tmp_path: Path) -> None:
    adapters = {task: home / task for task in TASKS}
    export(quick(home / "toy", tmp_path / "again", weights=("fp32", "int8", "int4"), adapters=adapters))
    assert tree(tmp_path / "again") == tree(home / "pack")


def test_an_export_of_another_process_is_byte_identical(home: Path, tmp_path: Path) -> None:
    """Another hash seed: the order of a set decides nothing."""
    code = (
        "import sys; from pathlib import Path; from tests.helpers.exports import quick;"
        "from embedpack_export.pipeline import export; home = Path(sys.argv[1]);"
        "adapters = {task: home / task for task in ('code', 'retrieval')};"
        "weights = ('fp32', 'int8', 'int4');"
        "export(quick(home / 'toy', Path(sys.argv[2]), weights=weights, adapters=adapters))"
    )
    arguments = [str(home), str(tmp_path / "other")]
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, *arguments], env=environment, check=True)
    assert tree(tmp_path / "other") == tree(home / "pack")


def test_the_manifest_names_every_file(home: Path) -> None:
    pack = read_pack(home / "pack")
    assert sorted(pack.check_files()) == sorted(set(tree(home / "pack")) - {"pack.json"})
    assert {name.split("/")[0] for name in pack.manifest.files} == {
        "LICENSE",
        "calibration",
        "report",
        "tokenizer.json",
        "weights",
        *(f"{task}-{weights}.onnx" for task in TASKS for weights in ("fp32", "int8", "int4")),
    }


def test_the_manifest_tells_where_the_weights_came_from(home: Path) -> None:
    source = read_pack(home / "pack").manifest.source
    of_sentence_transformers = (
        "modules.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
    )
    names = ("config.json", "tokenizer.json", "model.safetensors", *of_sentence_transformers)
    paths = {name: home / "toy" / name for name in names}
    for task in TASKS:
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            paths[f"adapters/{task}/{name}"] = home / task / name
    assert source.name == "toy"
    assert dict(source.files) == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items()}


def test_the_fingerprint_follows_what_decides_the_vectors(checkpoint: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", query_update())

    def fingerprint(name: str, **changes: Any) -> str:
        return export(quick(checkpoint, tmp_path / name, weights=("fp32",), **changes)).source.fingerprint

    plain = fingerprint("plain")
    assert fingerprint("plain-again", truncate_dims=(8,), seed=3) == plain
    others = [
        fingerprint("pooling", pooling="cls"),
        fingerprint("length", max_tokens=16),
        fingerprint("adapted", adapters={"retrieval": adapter}),
    ]
    edit_json(checkpoint / "config_sentence_transformers.json", prompts={"query": "other: "})
    others.append(fingerprint("prompts"))
    assert len({plain, *others}) == 5


def test_the_record_tells_settings_and_tools(home: Path) -> None:
    record = read_pack(home / "pack").manifest.export
    assert record.settings == {
        "weights": ["fp32", "int8", "int4"],
        "adapters": list(TASKS),
        "adapter_modes": ["merged"],
        "max_loss": None,
        "allow_loss": None,
    }
    assert set(record.tools) == {"embedpack", "numpy", "onnx", "onnx-ir", "onnxruntime", "tokenizers"}
    assert record.seed == 0


def test_another_rounding_of_int4_is_recorded_and_changes_the_weights_alone(checkpoint: Path, tmp_path: Path) -> None:
    methods: tuple[RoundingMethod, ...] = ("rtn", "gptq", "gptaq")
    manifests = [
        export(quick(checkpoint, tmp_path / method, weights=("int4",), int4_method=method)) for method in methods
    ]
    assert [manifest.export.settings.get("int4_method") for manifest in manifests] == ["rtn", "gptq", None]
    assert len({manifest.files["weights/int4.bin"].sha256 for manifest in manifests}) == 3
    assert len({manifest.files["weights/shared.bin"].sha256 for manifest in manifests}) == 1


def test_a_pack_is_as_readable_as_any_folder(home: Path) -> None:
    assert stat.S_IMODE((home / "pack").stat().st_mode) == 0o755
    (home / "plain").touch()
    for path in (home / "pack").rglob("*"):
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((home / "plain").stat().st_mode), path


def test_every_variant_gives_its_golden_vectors_again(home: Path) -> None:
    pack = read_pack(home / "pack")
    assert len(pack.manifest.variants) == 6
    for name, variant in pack.manifest.variants.items():
        assert check_golden(pack, name) <= TOLERANCE[variant.weights]


def test_each_task_has_its_own_vectors(home: Path) -> None:
    base = export(quick(home / "toy", home / "base", weights=("fp32",)))
    assert base.tasks["default"].adapter is None
    vectors = [
        Embedder(home / pack, variant=variant).encode(TEXTS).decode()
        for pack, variant in (("base", "default-fp32"), ("pack", "code-fp32"), ("pack", "retrieval-fp32"))
    ]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (1 - (vectors[one] * vectors[other]).sum(1)).max() > 1e-3


def test_the_accuracy_of_each_variant_is_measured_on_the_calibration_texts(home: Path) -> None:
    for variant in read_pack(home / "pack").manifest.variants.values():
        single = variant.accuracy.single
        assert variant.accuracy.inputs == len(TEXTS)
        assert single is not None
        assert single.min <= single.p1 <= single.mean <= 1
        assert single.min > {"fp32": 0.999999, "int8": 0.999, "int4": 0.97}[variant.weights]


def test_the_adapter_record_counts_what_was_merged(home: Path) -> None:
    for task in read_pack(home / "pack").manifest.tasks.values():
        assert task.adapter is not None
        assert task.adapter.modules == 1
        assert task.adapter.relative_change > 0.1


# --- external data


def test_large_tensors_begin_on_a_page_and_all_on_a_cache_line(home: Path) -> None:
    sizes = []
    for weights in ("fp32", "int8", "int4"):
        for name, tensor in tensors_of(home / "pack", f"code-{weights}").items():
            _, offset, length = place(tensor)
            assert offset % (4096 if length >= 4096 else 64) == 0, name
            sizes.append(length)
    assert min(sizes) < 4096 <= max(sizes)


@pytest.mark.parametrize("weights", ["fp32", "int8", "int4"])
def test_tensors_do_not_overlap(home: Path, weights: str) -> None:
    spans = sorted({place(tensor) for tensor in tensors_of(home / "pack", f"code-{weights}").values()})
    for (file, offset, length), (next_file, next_offset, _) in pairwise(spans):
        assert file != next_file or offset + length <= next_offset


def test_norms_and_biases_are_shared_by_formats_and_tasks(home: Path) -> None:
    """Equal tensors are stored once: LayerNorm weights in all four graphs, biases of fp32 in both of its own."""
    graphs = [tensors_of(home / "pack", f"{task}-{weights}") for task in TASKS for weights in ("fp32", "int4")]
    name = "embeddings.position_embeddings.weight"
    assert len({place(graph[name]) for graph in graphs}) == 1
    assert place(graphs[0][name])[0] == "weights/shared.bin"


def test_matrices_that_no_adapter_changed_are_stored_once(home: Path) -> None:
    code, retrieval = (tensors_of(home / "pack", f"{task}-fp32") for task in TASKS)
    differing = {name for name in code if place(code[name]) != place(retrieval[name])}
    assert differing == {f"{QUERY}.weight"}


def test_two_tasks_of_one_adapter_need_no_more_room_than_one(checkpoint: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", query_update())
    formats = ("fp32", "int8", "int4")
    export(quick(checkpoint, tmp_path / "one", weights=formats, adapters={"a": adapter}))
    export(quick(checkpoint, tmp_path / "two", weights=formats, adapters={"a": adapter, "b": adapter}))
    assert tree(tmp_path / "one" / "weights") == tree(tmp_path / "two" / "weights")


def test_the_store_keeps_equal_tensors_apart_where_type_or_shape_differ(tmp_path: Path) -> None:
    store = WeightStore(tmp_path)
    zeros = np.zeros(256, np.float32)
    first = store.add("a", "x", [zeros], np.float32, (256,))
    again = store.add("b", "x", [zeros[:100], zeros[100:]], np.float32, (256,))
    shaped = store.add("c", "x", [zeros], np.float32, (16, 16))
    typed = store.add("d", "x", [zeros.astype(np.int32)], np.int32, (256,))
    elsewhere = store.add("e", "y", [zeros], np.float32, (256,))
    assert place(again) == place(first)
    assert again.name == "b"
    assert len({place(first), place(shaped), place(typed)}) == 3
    assert place(elsewhere) == ("weights/y.bin", 0, 1024)
    assert (tmp_path / "weights" / "x.bin").stat().st_size == 3 * 1024


def test_the_store_refuses_a_tensor_of_another_size_than_announced(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=exactly("a: 12 bytes written, 16 announced")):
        WeightStore(tmp_path).add("a", "x", [np.zeros(3, np.float32)], np.float32, (4,))


def vectors_and_bits(folder: Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Both outputs of the fp32 graph."""
    pack = read_pack(folder)
    encoder = open_encoder(pack, pack.manifest.variants["default-fp32"], 1)
    items = list(encoder.processor.items(TEXTS))
    vectors, bits = (encoder.run(items, f"sentence_embedding{end}", EncodeOptions()) for end in ("", "_binary"))
    return vectors, bits


def test_the_graph_codes_with_the_codebook_of_its_task(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fitted to the calibration texts, the same every time, in the file that the manifest names."""
    monkeypatch.setattr("embedpack_export.quantization.codebook_fit.neighbour_recall", center_helps)
    settings = quick(checkpoint, tmp_path / "pack", weights=("fp32",))
    calibration_file(tmp_path, CODED_TEXTS)
    manifest = export(settings)
    export(replace(settings, output=tmp_path / "again"))
    assert tree(tmp_path / "again") == tree(tmp_path / "pack")
    space = manifest.codes("default")
    assert (space.codebooks, space.inputs, space.multi) == ("calibration/default.safetensors", 20, None)
    assert space.single is not None
    assert space.single.kept == ("center",)
    recall = space.single.recall_at_10
    assert list(recall) == ["none", "center", "center+rotation"]
    assert recall["center"]["binary"] > recall["none"]["binary"]
    codebook = read_codebooks(tmp_path / "pack" / space.codebooks, 32, None).single
    assert codebook is not None
    vectors, bits = vectors_and_bits(tmp_path / "pack")
    np.testing.assert_array_equal(bits, np.packbits(codebook.digits(vectors, "binary"), axis=-1))
    assert not np.array_equal(bits, np.packbits(vectors > 0, axis=-1))


def test_plain_binary_codes_are_the_signs_of_the_vectors(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedpack_export.quantization.codebook_fit.neighbour_recall", center_helps)
    texts, pack = calibration_file(tmp_path, CODED_TEXTS), tmp_path / "pack"
    plain = ["--code-center", "none", "--weights", "fp32", "--reference", "graph", "--calibrate", str(texts)]
    assert main(["export", str(checkpoint), "-o", str(pack), *plain]) == 0
    manifest = read_pack(pack).manifest
    assert manifest.export.settings["code_center"] == "none"
    codes = manifest.codes("default").single
    assert codes is not None
    assert codes.kept == ()
    assert list(codes.recall_at_10) == ["none"]
    vectors, bits = vectors_and_bits(pack)
    np.testing.assert_array_equal(bits, np.packbits(vectors > 0, axis=-1))


def test_few_texts_give_plain_signs(home: Path) -> None:
    space = read_pack(home / "pack").manifest.codes("code")
    assert space.single is not None
    assert (space.inputs, space.single.kept, space.single.recall_at_10) == (len(TEXTS), (), {})
    codebook = read_codebooks(home / "pack" / space.codebooks, 32, None).single
    assert codebook is not None
    assert not codebook.center.any()
