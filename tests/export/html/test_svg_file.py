"""Plots as files: well-formed, complete, with nothing from elsewhere."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from embedpack_export.html.axis import Axis
from embedpack_export.html.plot import Point, Scatter
from embedpack_export.html.svg_file import svg_file

PLOT = Scatter(
    "Cost & gain",
    Axis("ms <a query>", log=True),
    Axis("nDCG@10", "high"),
    [Point("binary", 1, 90, "news & <b>"), Point("int8", 10, 95, "news & <b>"), Point("binary", 2, 60, "code")],
    front=(0, 1),
)


def test_a_file_is_well_formed_and_names_points_and_groups() -> None:
    root = ElementTree.fromstring(svg_file(PLOT, "p"))
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    titles = [element.text for element in root.iter() if element.tag.endswith("title")]
    assert {"news & <b>", "code", "ms <a query>", "nDCG@10"} <= set(texts)
    assert titles == ["Cost & gain", "binary", "int8", "binary"]


def test_a_file_loads_nothing() -> None:
    addresses = re.findall(r"https?://[^\"' )]+|url\(|@import|<script", svg_file(PLOT, "p"))
    assert addresses == ["http://www.w3.org/2000/svg"]
