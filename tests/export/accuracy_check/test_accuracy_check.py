"""Accuracy check: each damage of a pack fails the export with its own message and leaves no files."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from embedpack import AccuracyError, InputError, MissingExtraError
from embedpack.cli.main import main
from embedpack.inputs.prompt_rules import PromptOrPrefix
from embedpack.pack.accuracy_records import Cosines, ImageAccuracy, TokenCosines
from embedpack.pack.digests import describe_file
from embedpack.pack.folder import read_pack
from embedpack.pack.manifest import Manifest, Pooling, Task
from embedpack.vectors.arrays import Float32
from embedpack_export.accuracy_check.budget import Budget, is_damaged
from embedpack_export.accuracy_check.check import CheckResult, check_pack
from embedpack_export.accuracy_check.figures import AccuracyFigures
from embedpack_export.accuracy_check.sample import sampled
from embedpack_export.families.model import PROJECTOR
from embedpack_export.pipeline import export
from embedpack_export.planning.plan import ExportPlan, make_plan
from embedpack_export.planning.settings import MAX_LOSS, ReferenceKind
from embedpack_export.reference.choice import PROBE_TEXT
from embedpack_export.reference.protocol import Input
from embedpack_export.reference.torch_reference import TorchReference, library_errors
from embedpack_export.sources.lora_config import LoraConfig
from tests.helpers.accuracy_check import checked_by_torch, checked_export, many_texts
from tests.helpers.exports import TEXTS, calibration_file, exactly, quick, tree
from tests.helpers.peft_oracle import save_adapter
from tests.helpers.tiny_checkpoint import make_checkpoint
from tests.helpers.token_projector import save_tasks

ADAPTERS = ("code", "retrieval")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint with two adapters and its pack, with torch as the reference; tests only read it."""
    folder = tmp_path_factory.mktemp("contract")
    checkpoint = make_checkpoint(folder / "toy")
    many_texts(folder)
    for seed, task in enumerate(ADAPTERS):
        save_adapter(checkpoint, folder / task, seed=seed)
    export(
        checked_export(
            checkpoint, folder / "pack", adapters(folder), adapter_modes=("merged", "switchable"), max_loss=None
        )
    )
    return folder


def adapters(folder: Path) -> dict[str, Path]:
    return {task: folder / task for task in ADAPTERS}


@pytest.fixture
def pack(home: Path, tmp_path: Path) -> Path:
    return shutil.copytree(home / "pack", tmp_path / "pack")


def plan_of(home: Path, pack: Path, **changes: Any) -> ExportPlan:
    return make_plan(checked_export(home / "toy", pack, adapters(home), **changes))


def checked_pack(home: Path, pack: Path, **changes: Any) -> CheckResult:
    plan = plan_of(home, pack, **changes)
    return check_pack(pack, plan, checked_by_torch(plan), Budget())


def failures_of(found: CheckResult) -> dict[str, str]:
    """The failures by "variant, task"."""
    return {" ".join(text.split(" ", 3)[:3]).rstrip(":"): text for text in found.failures}


# --- a good pack


def test_a_good_pack_passes(home: Path) -> None:
    found = checked_pack(home, home / "pack")
    assert found.failures == []
    assert found.texts == 24
    found.raise_failures(home / "pack")


def test_the_manifest_has_the_outcomes(home: Path) -> None:
    manifest = read_pack(home / "pack").manifest
    budgets = {"fp32": 0.05, "int8": 0.3}
    assert len(manifest.variants) == 6
    for variant in manifest.variants.values():
        assert set(variant.checks) == (set(ADAPTERS) if variant.task is None else {variant.task})
        for check in variant.checks.values():
            assert (check.reference, check.texts, check.outcome) == ("torch", 24, "within budget")
            assert check.ranking_loss is not None
            assert 0 <= check.ranking_loss <= check.budget == budgets[variant.weights]
            assert check.single is not None
            assert check.single.mean > 0.999
    assert manifest.export.settings["max_loss"] is None
    assert {"torch", "transformers", "peft"} < set(manifest.export.tools)


def test_the_report_holds_the_figures_of_the_manifest(home: Path) -> None:
    manifest = read_pack(home / "pack").manifest
    assert manifest.report is not None
    assert {manifest.report.figures, manifest.report.page} < set(manifest.files)
    figures = msgspec.json.decode((home / "pack" / manifest.report.figures).read_bytes(), type=AccuracyFigures)
    assert figures.calibration == manifest.export.calibration
    assert figures.tools == manifest.export.tools
    for name, variant in manifest.variants.items():
        assert {task: found.check for task, found in figures.variants[name].tasks.items()} == variant.checks
    codes = {(code.precision, code.truncate_dim): code for code in figures.variants["code-int8"].tasks["code"].codes}
    assert {precision for precision, _ in codes} == {
        *("float32", "float16", "int8"),
        *("4bit", "2bit", "ternary", "binary"),
    }
    assert {dimensions for _, dimensions in codes} == {8, 16, 32}
    full = codes["float32", 32]
    assert (full.bytes, codes["binary", 8].bytes, codes["ternary", 32].bytes) == (128, 1, 7)
    check = manifest.variants["code-int8"].checks["code"]
    assert full.ranking_loss == pytest.approx(check.ranking_loss, abs=1e-3)
    assert full.ranking_loss < codes["2bit", 32].ranking_loss < codes["binary", 8].ranking_loss


def test_the_page_has_variants_and_outcomes(home: Path) -> None:
    page = (home / "pack" / "report" / "index.html").read_text("utf-8")
    for name in read_pack(home / "pack").manifest.variants:
        assert f'<th scope="row">{name}</th>' in page
    assert page.count('<span class="badge good">within budget</span>') == 8
    assert "transformers in float32 with unmerged adapters" in page


def test_inspect_prints_outcomes_and_the_place_of_the_report(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(home / "pack")]) == 0
    told = capsys.readouterr().out
    assert told.count("within budget: loss of 0.") == 8
    assert f"report      {home / 'pack' / 'report' / 'index.html'}\n" in told


# --- damaged packs


def double_scales(pack: Path) -> None:
    """Change the scales of one layer's matrices, and the file's digest in the manifest."""
    path = pack / "code-int8.onnx"
    model = onnx.load(path, load_external_data=False)
    scales = [item for item in model.graph.initializer if re.search(r"layer\.1\..*weight\.scales$", item.name)]
    assert len(scales) == 6
    for tensor in scales:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 2, tensor.name))
    onnx.save(model, path)
    entry = {path.name: msgspec.to_builtins(describe_file(path))}
    edit_manifest(pack, lambda manifest: manifest["files"].update(entry))


def edit_manifest(pack: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads((pack / "pack.json").read_text("utf-8"))
    edit(content)
    (pack / "pack.json").write_text(json.dumps(content), "utf-8")


def swap_adapters(manifest: dict[str, Any]) -> None:
    """The graph of each task under the name of the other."""
    code, retrieval = (manifest["variants"][f"{task}-int8"] for task in ADAPTERS)
    for field in ("graph", "external_data", "operators"):
        code[field], retrieval[field] = retrieval[field], code[field]


def swap_adapter_files(manifest: dict[str, Any]) -> None:
    files = manifest["variants"]["switchable-int8"]["adapter_files"]
    files["code"], files["retrieval"] = files["retrieval"], files["code"]


def drop_prompts(manifest: dict[str, Any]) -> None:
    manifest["tasks"]["code"]["prompts"] = {}


def mix_up_prompts(manifest: dict[str, Any]) -> None:
    prompts = manifest["tasks"]["code"]["prompts"]
    prompts["query"], prompts["passage"] = prompts["passage"], prompts["query"]


def test_doubled_scales_of_one_layer_fail_by_the_figures(home: Path, pack: Path) -> None:
    double_scales(pack)
    found = checked_pack(home, pack)
    failures = failures_of(found)
    assert "code-int8, task 'code'" in failures
    assert all("int8" in name for name in failures)
    text = failures["code-int8, task 'code'"]
    assert "points of nDCG@10 (95 %: " in text
    assert "; the budget is 0.3. No other adapter, prompt or pooling explains it" in text
    assert "rounding to int8, or damaged weights: leave the format out" in text
    assert found.variants["code-int8"].tasks["code"].check.outcome == "over budget"
    assert found.variants["code-fp32"].tasks["code"].check.outcome == "within budget"


@pytest.mark.parametrize(
    ("damage", "failing", "message"),
    [
        pytest.param(
            swap_adapters,
            {"code-int8": "code", "retrieval-int8": "retrieval"},
            "its vectors are those of the task {other!r}: the adapters were swapped (",
            id="adapters",
        ),
        pytest.param(
            swap_adapter_files,
            {"switchable-int8": "code"},
            "its vectors are those of the task {other!r}: the adapters were swapped (",
            id="adapter files",
        ),
        pytest.param(
            drop_prompts,
            {"code-fp32": "code", "code-int8": "code"},
            "its vectors are those of the texts without their prompts: the prompts were dropped (",
            id="prompts",
        ),
        pytest.param(
            mix_up_prompts,
            {"code-fp32": "code", "code-int8": "code"},
            "whatever prompt was asked for: the prompts were mixed up (",
            id="mixed prompts",
        ),
    ],
)
def test_damage_is_told_by_its_name(
    home: Path, pack: Path, damage: Callable[[dict[str, Any]], None], failing: dict[str, str], message: str
) -> None:
    edit_manifest(pack, damage)
    found = checked_pack(home, pack)
    failures = failures_of(found)
    for variant, task in failing.items():
        other = next(name for name in ADAPTERS if name != task)
        assert message.format(other=other) in failures[f"{variant}, task {task!r}"]
    with pytest.raises(AccuracyError, match="the export fails its accuracy check\n"):
        found.raise_failures(pack)


def test_another_pooling_is_told(home: Path, tmp_path: Path) -> None:
    export(checked_export(home / "toy", tmp_path / "cls", adapters(home), pooling="cls", weights=("int8",)))
    failures = checked_pack(home, tmp_path / "cls").failures
    assert len(failures) == 2
    for text in failures:
        assert "its vectors are those of cls pooling, not mean: the pooling was changed (" in text


def test_an_adapter_that_was_left_out_is_told(home: Path, tmp_path: Path) -> None:
    export(checked_export(home / "toy", tmp_path / "base", {}, tasks=("code",), weights=("fp32",)))
    plan = make_plan(checked_export(home / "toy", tmp_path / "base", {"code": home / "code"}))
    (text,) = check_pack(tmp_path / "base", plan, checked_by_torch(plan), Budget()).failures
    assert "its vectors are those of the model without an adapter: the adapter was left out (" in text


@pytest.mark.parametrize(
    ("loss", "damaged", "allowed", "outcome"),
    [
        (0.3, False, None, "within budget"),
        (0.31, False, None, "over budget"),
        (0.31, False, 0.31, "allowed"),
        (0.5, False, 0.4, "over budget"),
        (None, False, None, "not judged"),
        (0.1, True, None, "over budget"),
        (None, True, None, "over budget"),
        (0.1, True, 5.0, "allowed"),
    ],
)
def test_outcomes_of_int8(loss: float | None, damaged: bool, allowed: float | None, outcome: str) -> None:
    assert Budget(allow_loss=allowed).outcome("int8", loss, damaged) == outcome


@pytest.mark.parametrize(
    ("tokens", "images", "tokens_of_images", "damaged"),
    [
        (None, None, None, False),
        (0.99, None, None, False),
        (0.9, None, None, True),
        (0.99, 0.99, 0.99, False),
        (None, 0.9, None, True),
        (0.99, 0.99, 0.9, True),
    ],
)
def test_damage_of_vectors_that_are_not_ranked(
    tokens: float | None, images: float | None, tokens_of_images: float | None, damaged: bool
) -> None:
    def accuracy(cosine: float | None) -> TokenCosines | None:
        return None if cosine is None else TokenCosines(tokens=9, mean=cosine, p1=cosine)

    of_images = None
    if images is not None:
        single = Cosines(mean=images, p1=images, min=images)
        of_images = ImageAccuracy(images=6, single=single, multi=accuracy(tokens_of_images))
    assert is_damaged("int8", accuracy(tokens), of_images) == damaged


@pytest.fixture(scope="module")
def headed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint whose adapter has a projector, and its pack."""
    folder = tmp_path_factory.mktemp("headed")
    checkpoint = make_checkpoint(folder / "toy")
    many_texts(folder)
    export(
        checked_export(
            checkpoint, folder / "pack", {"code": save_tasks(checkpoint, folder / "adapters")}, weights=("fp32",)
        )
    )
    return folder


def edit_projector(pack: Path, edit: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change the layer of multi-vectors alone."""
    initializers = ir.load(pack / "code-fp32.onnx").graph.initializers
    (tensor,) = [value.const_value for name, value in initializers.items() if name == f"{PROJECTOR}.weight"]
    assert isinstance(tensor, ir.ExternalTensor)
    path, start, end = pack / str(tensor.location), int(tensor.offset or 0), int(tensor.length or 0)
    content = path.read_bytes()
    values = np.frombuffer(content, np.float32, end // 4, start)
    path.write_bytes(content[:start] + edit(values).tobytes() + content[start + end :])
    entry = {str(tensor.location): msgspec.to_builtins(describe_file(path))}
    edit_manifest(pack, lambda manifest: manifest["files"].update(entry))


def test_a_damaged_projector_fails_by_its_tokens(headed: Path, tmp_path: Path) -> None:
    pack = shutil.copytree(headed / "pack", tmp_path / "pack")
    plan = make_plan(checked_export(headed / "toy", pack, {"code": headed / "adapters"}))
    assert check_pack(pack, plan, checked_by_torch(plan), Budget()).failures == []
    edit_projector(pack, lambda values: values[::-1])
    (text,) = check_pack(pack, plan, checked_by_torch(plan), Budget()).failures
    assert "it loses 0.00 points" in text
    assert re.search(r"; of multi-vectors -?0\.[0-8]", text)


def test_vectors_that_are_not_finite_are_damage(headed: Path, tmp_path: Path) -> None:
    pack = shutil.copytree(headed / "pack", tmp_path / "pack")
    plan = make_plan(checked_export(headed / "toy", pack, {"code": headed / "adapters"}))
    edit_projector(pack, lambda values: values * np.float32(np.nan))
    message = r"code-fp32, task 'code': no vectors: .* computed a vector that is zero, not finite or not of length 1"
    with pytest.raises(AccuracyError, match=message):
        check_pack(pack, plan, checked_by_torch(plan), Budget())


# --- an export that fails


def test_an_export_over_its_budget_fails_with_the_figures(home: Path, tmp_path: Path) -> None:
    output = tmp_path / "packs" / "toy"
    settings = checked_export(
        home / "toy", output, adapters(home), weights=("int4",), max_loss=0.01, reference="fp32 graph"
    )
    with pytest.raises(AccuracyError) as raised:
        export(settings)
    assert list(output.parent.iterdir()) == []
    first, *failed = str(raised.value).splitlines()
    assert first == f"{output}: the export fails its accuracy check"
    assert [text.split(":")[0] for text in failed] == ["code-int4, task 'code'", "retrieval-int4, task 'retrieval'"]
    assert all("points of nDCG@10" in text and "the budget is 0.01." in text for text in failed)


def test_a_failed_overwrite_keeps_the_old_pack(home: Path, pack: Path) -> None:
    before = tree(pack)
    settings = checked_export(
        home / "toy", pack, adapters(home), weights=("int4",), max_loss=0.01, reference="fp32 graph"
    )
    with pytest.raises(AccuracyError):
        export(replace(settings, overwrite=True))
    assert tree(pack) == before


def test_a_loss_that_is_allowed_is_recorded(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MAX_LOSS, "int4", 0.001)
    settings = checked_export(
        home / "toy", tmp_path / "pack", adapters(home), weights=("int4",), max_loss=None, allow_loss=50,
        reference="fp32 graph",
    )  # fmt: skip
    manifest = export(settings)
    assert manifest.export.settings["allow_loss"] == 50
    assert {manifest.variants[f"{task}-int4"].checks[task].outcome for task in ADAPTERS} == {"allowed"}
    page = (tmp_path / "pack" / "report" / "index.html").read_text("utf-8")
    assert "The export accepted losses of up to 50 points (--allow-loss)." in page
    assert page.count('<span class="badge open">allowed</span>') == 2


def test_prompts_that_an_export_drops_stop_it(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The accuracy check reads the pack from disk, as a user does."""

    def without_prompts(**fields: Any) -> Task:
        return Task(**{**fields, "prompts": {}})

    monkeypatch.setattr("embedpack_export.assembly.text_graphs.Task", without_prompts)
    with pytest.raises(AccuracyError, match="the prompts were dropped"):
        export(checked_export(home / "toy", tmp_path / "pack", adapters(home), weights=("int8",)))
    assert list(tmp_path.iterdir()) == []


def test_the_command_fails_with_status_1(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["export", str(home / "toy"), "-o", str(tmp_path / "pack"), "--weights", "int4", "--max-loss", "0.01"]
    arguments += ["--calibrate", str(home / "texts.jsonl"), "--reference", "graph"]
    assert main(arguments) == 1
    assert "default-int4, task 'default': it loses " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_budget_and_allowance_exclude_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["export", "x", "-o", "y", "--max-loss", "1", "--allow-loss", "2"])
    assert "not allowed with argument" in capsys.readouterr().err
    with pytest.raises(InputError, match="--max-loss and --allow-loss exclude each other"):
        checked_export(tmp_path, tmp_path, {}, max_loss=1, allow_loss=2)


@pytest.mark.parametrize("value", [-0.1, 101, float("nan")])
def test_a_budget_is_a_number_of_points(tmp_path: Path, value: float) -> None:
    with pytest.raises(
        InputError, match=exactly(f"--max-loss {value}: points of nDCG@10 that may be lost, from 0 to 100")
    ):
        checked_export(tmp_path, tmp_path, {}, max_loss=value)


# --- the reference


def test_few_texts_are_not_judged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy")
    with caplog.at_level(logging.WARNING, "embedpack"):
        manifest = export(quick(checkpoint, tmp_path / "pack", weights=("int8",)))
    check = manifest.variants["default-int8"].checks["default"]
    assert (check.outcome, check.ranking_loss, check.texts) == ("not judged", None, len(TEXTS))
    assert f"default-int8, default: not judged; {len(TEXTS)} texts are too few to rank" in caplog.text
    figures = json.loads((tmp_path / "pack" / "report" / "accuracy.json").read_text())
    assert figures["variants"]["default-int8"]["tasks"]["default"]["codes"] == []
    page = (tmp_path / "pack" / "report" / "index.html").read_text("utf-8")
    assert '<span class="badge open">too few texts</span>' in page
    assert "Images were not compared" not in page


def test_both_references_agree(home: Path, tmp_path: Path) -> None:
    graph = export(checked_export(home / "toy", tmp_path / "pack", adapters(home), reference="fp32 graph"))
    torch = read_pack(home / "pack").manifest
    for name, variant in graph.variants.items():
        for task, check in variant.checks.items():
            judged = torch.variants[name].checks[task]
            assert (check.reference, judged.reference) == ("fp32 graph", "torch")
            assert check.single is not None
            assert judged.single is not None
            assert check.single.mean == pytest.approx(judged.single.mean, abs=1e-5)
            assert check.ranking_loss == pytest.approx(judged.ranking_loss, abs=0.05)
    assert "torch" not in graph.export.tools


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("importlib.util.find_spec", None, "this needs 'torch', which is not installed"),
        ("available_memory", 1000, r"it needs about 0 MB of memory, 0 MB are available"),
    ],
)
def test_the_log_tells_why_torch_does_not_judge(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    name: str, value: object, reason: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(f"embedpack_export.reference.choice.{name}", lambda *_: value)
    with caplog.at_level(logging.WARNING, "embedpack"):
        found = export(checked_export(home / "toy", tmp_path / "pack", adapters(home), weights=("fp32",)))
    assert found.variants["code-fp32"].checks["code"].reference == "fp32 graph"
    assert f"reference: the fp32 graph, not torch: {reason}" in caplog.text
    if value is None:
        with pytest.raises(MissingExtraError, match="torch"):
            export(checked_export(home / "toy", tmp_path / "other", adapters(home), reference="torch"))


def test_an_adapter_that_peft_refuses_is_judged_by_the_graph(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # A later PEFT may name its tensors otherwise.
    monkeypatch.setattr("embedpack_export.reference.torch.unmerged_adapter.KEY_PREFIX", "base_model.")
    with caplog.at_level(logging.WARNING, "embedpack"):
        found = export(checked_export(home / "toy", tmp_path / "pack", {"code": home / "code"}, weights=("fp32",)))
    assert found.variants["code-fp32"].checks["code"].reference == "fp32 graph"
    assert "the keys of the file are not those that PEFT makes of adapter_config.json" in caplog.text


class OutOfMemoryReference(TorchReference):
    """Torch that computes a text of a letter before the calibration, and nothing after it."""

    def single(
        self, task: str | None, inputs: Sequence[Input], prompt: PromptOrPrefix = "", pooling: Pooling | None = None
    ) -> Float32:
        if list(inputs) == [PROBE_TEXT]:
            return super().single(task, inputs, prompt, pooling)
        with library_errors(Path("toy")):
            raise RuntimeError("not enough memory:\n you tried to allocate 7 bytes")


@pytest.mark.parametrize("kind", [None, "torch"])
def test_a_finished_pack_is_judged_by_the_graph_where_torch_fails(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    kind: ReferenceKind | None,
) -> None:  # fmt: skip
    monkeypatch.setattr("embedpack_export.reference.choice.TorchReference", OutOfMemoryReference)
    with caplog.at_level(logging.WARNING, "embedpack"):
        found = export(
            checked_export(home / "toy", tmp_path / "pack", adapters(home), weights=("fp32",), reference=kind)
        )
    assert found.variants["code-fp32"].checks["code"].reference == "fp32 graph"
    assert "torch" not in found.export.tools
    reason = "fails at it with RuntimeError: not enough memory: you tried to allocate 7 bytes"
    assert reason in caplog.text
    page = (tmp_path / "pack" / "report" / "index.html").read_text("utf-8")
    assert "The reference is not torch, which failed when the pack was finished" in page
    assert reason in page


def test_a_model_that_torch_reads_in_another_way_is_told_as_such(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the exporter computes wrongly in float32, a budget or another calibration does not help."""
    monkeypatch.setattr(LoraConfig, "scale", lambda config, path, module, rank: 9.0)
    with pytest.raises(AccuracyError) as raised:
        export(checked_export(home / "toy", tmp_path / "pack", adapters(home), max_loss=0.01))
    failed = str(raised.value).splitlines()[1:]
    assert len(failed) == 4
    assert all("it reads the model in another way than transformers does" in text for text in failed)
    assert "--allow-loss" not in str(raised.value)


@pytest.mark.parametrize(("work", "count"), [(1.2e11, 24), (20 * 5e4, 20), (1.0, 16)])
def test_large_models_are_compared_on_fewer_texts(
    home: Path, monkeypatch: pytest.MonkeyPatch, work: float, count: int
) -> None:
    plan = plan_of(home, home / "pack")
    work = work * plan.parameters / 5e4 if count == 20 else work
    monkeypatch.setattr("embedpack_export.accuracy_check.sample.WORK", work)
    assert len(sampled(plan, TorchReference(plan))) == count


def test_calibration_texts_of_a_few_are_all_taken(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "toy", tmp_path / "toy")
    plan = make_plan(checked_export(tmp_path / "toy", tmp_path / "pack", {}, calibrate=calibration_file(tmp_path)))
    assert len(sampled(plan, TorchReference(plan))) == len(TEXTS)


def test_a_pack_that_was_not_compared_is_read(home: Path, pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def without(manifest: dict[str, Any]) -> None:
        del manifest["report"]
        for variant in manifest["variants"].values():
            del variant["checks"]

    edit_manifest(pack, without)
    manifest: Manifest = read_pack(pack).manifest
    assert manifest.report is None
    assert main(["inspect", str(pack)]) == 0
    assert "report      none (export ran without a check)" in capsys.readouterr().out
