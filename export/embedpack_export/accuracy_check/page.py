"""report/index.html: the page of the accuracy check of an export."""

from __future__ import annotations

from collections.abc import Iterator

from embedpack.pack.accuracy_records import Check, CheckOutcome, Cosines
from embedpack.pack.manifest import Manifest
from embedpack_export.accuracy_check.figures import AccuracyFigures, TaskAccuracy
from embedpack_export.html.axis import Axis
from embedpack_export.html.page import Badge, Heading, Page, Paragraph, Part, Table, columns
from embedpack_export.html.plot import Point, Scatter, pareto_front

LOSS = Axis("ranking loss, points of nDCG@10", better="low")
NO_FIGURE = "–"
BADGES: dict[CheckOutcome, Badge] = {
    "within budget": Badge("within budget", "good"),
    "over budget": Badge("over budget", "bad"),
    "allowed": Badge("allowed", "open"),
    "not judged": Badge("too few texts", "open"),
}
REFERENCES = {
    "torch": "the model before export, computed by transformers in float32 with unmerged adapters",
    "fp32 graph": "the merged weights in float32, computed by the exporter before quantization",
}


def accuracy_page(manifest: Manifest, figures: AccuracyFigures) -> Page:
    """Build the page of a pack."""
    allowed = []
    if figures.allow_loss is not None:
        allowed = [f"The export accepted losses of up to {figures.allow_loss:g} points (--allow-loss)."]
    return Page(
        f"Accuracy of {manifest.name}",
        [
            f"A pack for embedpack: {manifest.family}, {_dimensions(manifest)}"
            f"{_counted(len(manifest.tasks), 'task')} ({', '.join(manifest.tasks)}), "
            f"{_counted(len(manifest.variants), 'variant')}.",
            f"The accuracy check at the end of the export compared {_compared(manifest, figures)}. The reference is "
            f"{REFERENCES[figures.reference]}.",
            *figures.notes,
            *allowed,
        ],
        [
            Heading("Variants"),
            _variants(figures) if manifest.kind == "embedder" else _scores(figures),
            *_tokens(figures),
            *_images(figures),
            *_headroom(manifest),
            *_sizes(figures),
            *_codes(manifest, figures),
            *_method(manifest, figures),
        ],
    )


def _checks(figures: AccuracyFigures) -> Iterator[tuple[str, str, TaskAccuracy]]:
    for name, variant in figures.variants.items():
        for task, accuracy in variant.tasks.items():
            yield name, task, accuracy


def _variants(figures: AccuracyFigures) -> Table:
    numbers = ("ranking loss", "95 % interval", "budget", "top-10 overlap", "cosine mean", "1 %", "lowest", "MB")
    header = columns(("variant", "task", "outcome"), numbers)
    rows: list[list[str | Badge]] = []
    for name, task, accuracy in _checks(figures):
        check = accuracy.check
        size = f"{figures.variants[name].bytes / 1e6:.1f}"
        rows.append([name, task, BADGES[check.outcome], *_ranking(check), *_cosines(check.single), size])
    return Table("Vectors of the pack compared with those of the reference; losses in points of nDCG@10", header, rows)


def _scores(figures: AccuracyFigures) -> Table:
    numbers = ("ranking loss", "95 % interval", "budget", "top-10 overlap")
    of_scores = ("Kendall's tau", "largest difference", "difference / spread", "MB")
    rows: list[list[str | Badge]] = []
    for name, task, accuracy in _checks(figures):
        check, agreement = accuracy.check, accuracy.check.score
        values = (
            [NO_FIGURE] * 3
            if agreement is None
            else [
                f"{agreement.kendall:.4f}",
                f"{agreement.largest_difference:.2g}",
                f"{100 * agreement.relative_difference:.2g} %",
            ]
        )
        size = f"{figures.variants[name].bytes / 1e6:.1f}"
        rows.append([name, task, BADGES[check.outcome], *_ranking(check), *values, size])
    return Table(
        "Scores of the pack compared with those of the reference; losses in points of nDCG@10",
        columns(("variant", "task", "outcome"), (*numbers, *of_scores)),
        rows,
    )


def _cosines(cosines: Cosines | None) -> list[str]:
    if cosines is None:
        return [NO_FIGURE] * 3
    return [f"{value:.5f}" for value in (cosines.mean, cosines.p1, cosines.min)]


def _ranking(check: Check) -> list[str]:
    if check.ranking_loss is None or check.ranking_loss_95 is None or check.top_10_overlap is None:
        return [NO_FIGURE, NO_FIGURE, f"{check.budget:g}", NO_FIGURE]
    low, high = check.ranking_loss_95
    kept = f"{100 * check.top_10_overlap:.1f} %"
    return [f"{check.ranking_loss:.3f}", f"{low:.3f} to {high:.3f}", f"{check.budget:g}", kept]


def _tokens(figures: AccuracyFigures) -> Iterator[Part]:
    rows = [
        [name, task, f"{multi.tokens:,}", f"{multi.mean:.5f}", f"{multi.p1:.5f}"]
        for name, task, accuracy in _checks(figures)
        if (multi := accuracy.check.multi) is not None
    ]
    if rows:
        header = columns(("variant", "task"), ("tokens", "cosine mean", "1 %"))
        yield Table("Multi-vectors, token by token", header, rows)


def _images(figures: AccuracyFigures) -> Iterator[Part]:
    rows = [
        [
            name,
            task,
            str(images.images),
            NO_FIGURE if images.single is None else f"{images.single.mean:.5f}",
            NO_FIGURE if images.single is None else f"{images.single.min:.5f}",
            NO_FIGURE if images.multi is None else f"{images.multi.mean:.5f}",
        ]
        for name, task, accuracy in _checks(figures)
        if (images := accuracy.check.images) is not None
    ]
    if rows:
        header = columns(("variant", "task"), ("images", "cosine mean", "lowest", "of multi-vectors"))
        yield Table("Images, which the exporter draws: too few to rank, so cosines count", header, rows)


def _headroom(manifest: Manifest) -> Iterator[Part]:
    rows = [
        [name, found.value, f"{found.largest:,.1f}", f"{found.factor:,.1f}", str(found.products)]
        for name, variant in manifest.variants.items()
        if (found := variant.accuracy.headroom) is not None
    ]
    if rows:
        header = columns(("variant", "largest value"), ("its magnitude", "head-room", "products"))
        yield Table("Products in float16 on the calibration texts; head-room is 65504 over the magnitude", header, rows)


def _sizes(figures: AccuracyFigures) -> Iterator[Scatter]:
    points = [
        Point(f"{name}, {task}" if name != f"{task}-{weights}" else name, variant.bytes / 1e6, loss, weights)
        for name, variant in figures.variants.items()
        for task, accuracy in variant.tasks.items()
        if (loss := accuracy.check.ranking_loss) is not None and (weights := variant.weights)
    ]
    if points:
        size = Axis("MB of the variant", better="low")
        yield Scatter("Size and loss of the variants", size, LOSS, points, pareto_front(points, size, LOSS))


def _codes(manifest: Manifest, figures: AccuracyFigures) -> Iterator[Part]:
    size = Axis("bytes of a vector (log scale)", better="low", log=True)
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
            "Float32 queries against coded documents, compared with rankings by the reference's full vectors. The loss "
            "includes the weights format, the truncation and the precision. The budget does not apply to codes."
        )
        yield Scatter("Bytes and loss", size, LOSS, points, pareto_front(points, size, LOSS))
        header = columns(("variant", "precision"), ("dimensions", "bytes", "ranking loss", "top-10 overlap"))
        yield Table("Variants, precisions and truncations", header, rows)


def _method(manifest: Manifest, figures: AccuracyFigures) -> Iterator[Part]:
    yield Heading("How this was measured")
    groups = (
        "Each text is a query for all others (self-retrieval). The gain of a text is its similarity to the query under "
        "the reference, less the median of that query's similarities, and 0 below the median."
        if manifest.kind == "embedder"
        else "The documents of a query are texts that share most trigrams of characters with it, and some others. The "
        "gain of a document is its score under the reference, less the median of that query's scores, and 0 below the "
        "median. The spread is the standard deviation of the reference's scores."
    )
    yield Paragraph(
        f"{groups} With these gains the reference has an nDCG@10 of 1; the ranking loss is 1 minus the nDCG@10 of a "
        "variant, times 100, averaged over the queries. The 95 % interval is a bootstrap of the queries with 10,000 "
        "resamples."
    )
    yield Paragraph(
        "The texts are the calibration texts of the export, not evaluation data: the figures measure the change by the "
        "export, not the quality of the model."
    )
    rows = [
        ["calibration texts, sha256", figures.calibration],
        ["model, fingerprint", figures.fingerprint],
        ["seed", str(figures.seed)],
        *([name, version] for name, version in figures.tools.items()),
    ]
    yield Table("Provenance", columns(("item", "value")), rows)


def _compared(manifest: Manifest, figures: AccuracyFigures) -> str:
    if manifest.kind == "embedder":
        count = _counted(figures.texts, "calibration text")
        return f"vectors of the finished pack with those of the reference on {count}"
    count = _counted(figures.texts, "query", "queries")
    return f"scores of the finished pack with those of the reference for {count} made of the calibration texts"


def _dimensions(manifest: Manifest) -> str:
    return "" if manifest.single is None else f"{manifest.single.dimensions} dimensions, "


def _counted(count: int, noun: str, plural: str | None = None) -> str:
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"
