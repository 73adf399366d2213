"""report/index.html: the figures of an export, to read."""

from __future__ import annotations

from collections.abc import Iterator

from embedpack.pack.manifest import Check, Manifest, Verdict
from embedpack_export.gate.figures import Figures, TaskFigures
from embedpack_export.html.axis import Axis
from embedpack_export.html.page import Badge, Column, Heading, Page, Paragraph, Part, Table
from embedpack_export.html.plot import Point, Scatter, pareto_front

LOSS = Axis("ranking loss, points of nDCG@10", better="low")
MISSING = "–"
REFERENCES = {
    "torch": "the model before export: transformers in float32, adapters beside the weights",
    "fp32 graph": "what the exporter computed in float32 with the merged weights, before anything was rounded",
}


def accuracy_page(manifest: Manifest, figures: Figures) -> Page:
    """The page of a pack."""
    return Page(
        f"Accuracy of {manifest.name}",
        [
            f"A pack for embedpack: {manifest.family}, {manifest.dimensions} dimensions, "
            f"{_counted(len(manifest.tasks), 'task')} ({', '.join(manifest.tasks)}), "
            f"{_counted(len(manifest.variants), 'variant')}.",
            f"When it was exported, {_counted(figures.texts, 'calibration text')} were embedded with the finished pack "
            f"and with the reference: {REFERENCES[figures.reference]}.",
            *_allowed(figures),
        ],
        [
            Heading("Variants"),
            _verdicts(figures),
            *_tokens(figures),
            *_sizes(figures),
            *_codes(manifest, figures),
            *_method(figures),
        ],
    )


def _allowed(figures: Figures) -> Iterator[str]:
    if figures.allow_loss is not None:
        yield f"The export was told to accept losses up to {figures.allow_loss:g} points (--allow-loss)."


def _checks(figures: Figures) -> Iterator[tuple[str, str, TaskFigures]]:
    for name, variant in figures.variants.items():
        for task, found in variant.tasks.items():
            yield name, task, found


def _verdicts(figures: Figures) -> Table:
    names = ("ranking loss", "95 % interval", "budget", "top 10 kept", "cosine mean", "1 %", "lowest", "MB")
    header = [Column("variant"), Column("task"), Column("verdict"), *(Column(name, number=True) for name in names)]
    rows: list[list[str | Badge]] = []
    for name, task, found in _checks(figures):
        check = found.check
        size = f"{figures.variants[name].bytes / 1e6:.1f}"
        cosines = [f"{value:.5f}" for value in (check.cosine_mean, check.cosine_p1, check.cosine_min)]
        rows.append([name, task, _badge(check.verdict), *_ranking(check), *cosines, size])
    return Table("Vectors of the pack beside those of the reference; losses in points of nDCG@10", header, rows)


def _badge(verdict: Verdict) -> Badge:
    match verdict:
        case "within budget":
            return Badge(verdict, "good")
        case "over budget":
            return Badge(verdict, "bad")
        case _:
            return Badge(verdict, "open")


def _ranking(check: Check) -> list[str]:
    if check.ranking_loss is None or check.ranking_loss_95 is None or check.top_10_overlap is None:
        return [MISSING, MISSING, f"{check.budget:g}", MISSING]
    low, high = check.ranking_loss_95
    kept = f"{100 * check.top_10_overlap:.1f} %"
    return [f"{check.ranking_loss:.3f}", f"{low:.3f} to {high:.3f}", f"{check.budget:g}", kept]


def _tokens(figures: Figures) -> Iterator[Part]:
    rows = [
        [name, task, f"{tokens.tokens:,}", f"{tokens.cosine_mean:.5f}", f"{tokens.cosine_p1:.5f}"]
        for name, task, found in _checks(figures)
        if (tokens := found.check.tokens) is not None
    ]
    if rows:
        names = ("tokens", "cosine mean", "1 %")
        header = [Column("variant"), Column("task"), *(Column(name, number=True) for name in names)]
        yield Table("Multi-vectors, token by token", header, rows)


def _sizes(figures: Figures) -> Iterator[Scatter]:
    points = [
        Point(f"{name}, {task}" if name != f"{task}-{weights}" else name, variant.bytes / 1e6, loss, weights)
        for name, variant in figures.variants.items()
        for task, found in variant.tasks.items()
        if (loss := found.check.ranking_loss) is not None and (weights := variant.weights)
    ]
    if points:
        size = Axis("MB of the variant", better="low")
        yield Scatter("Size and loss of the variants", size, LOSS, points, pareto_front(points, size, LOSS))


def _codes(manifest: Manifest, figures: Figures) -> Iterator[Part]:
    size = Axis("bytes of a vector (doubling)", better="low", log=True)
    for task in manifest.tasks:
        points, rows = [], []
        for name, variant in figures.variants.items():
            for code in variant.tasks[task].codes if task in variant.tasks else ():
                label = f"{name}, {code.precision}, {code.truncate_dim} dimensions"
                points.append(Point(label, code.bytes, code.ranking_loss, name))
                kept = f"{100 * code.top_10_overlap:.1f} %"
                rows.append(
                    [name, code.precision, str(code.truncate_dim), str(code.bytes), f"{code.ranking_loss:.3f}", kept]
                )
        if not rows:
            continue
        yield Heading(f"Codes of {task}")
        yield Paragraph(
            "Float queries against coded documents, ranked beside the reference's full vectors: the loss of the "
            "variant, of the truncation and of the precision together. Budgets do not apply here: whoever asks for "
            "shorter codes trades loss for bytes."
        )
        yield Scatter("Bytes and loss", size, LOSS, points, pareto_front(points, size, LOSS))
        names = ("dimensions", "bytes", "ranking loss", "top 10 kept")
        header = [Column("variant"), Column("precision"), *(Column(name, number=True) for name in names)]
        yield Table("Variants, precisions and truncations", header, rows)


def _method(figures: Figures) -> Iterator[Part]:
    yield Heading("How this was measured")
    yield Paragraph(
        "Each text is a query against all others. What another text is worth is put by the reference: its similarity, "
        "as far as it lies above the median of that query's similarities. So the reference has an nDCG@10 of 1, and "
        "the ranking loss is 100 times what a variant falls short of that, in the mean over the queries. The interval "
        "is that of drawing the queries anew, 10,000 times."
    )
    yield Paragraph(
        "The texts are those that the export was calibrated on, and no evaluation data: the figures tell what the "
        "export changed, not how good the model is. Images were not compared here."
    )
    rows = [
        ["calibration texts, sha256", figures.calibration],
        ["model, fingerprint", figures.fingerprint],
        ["seed", str(figures.seed)],
        *([name, version] for name, version in figures.tools.items()),
    ]
    yield Table("What computed it", [Column("what"), Column("value")], rows)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
