"""E12: one page, light, complete, without network; figures with their numbers beside it."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
from html.parser import HTMLParser

import detectors
import judged
import pytest

from calo_train.errors import UsageError
from calo_train.evaluation.comparison import evaluate
from calo_train.evaluation.figures import ReportFigure, report_items
from calo_train.evaluation.metrics import SCHEMA, metrics_of, planned_inputs
from calo_train.evaluation.report import write_report
from calo_train.evaluation.report_folder import ReportFolder
from calo_train.evaluation.results import Evaluation, Settings

SHOWN = (
    "models", "overview", "longitudinal_profile", "visible_energy", "correlations_2",
    "event_display", "single_showers",
)  # fmt: skip


class Page(HTMLParser):
    """Collects what a page loads, links to and says."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.scripts: list[dict[str, str | None]] = []
        self.images: list[dict[str, str | None]] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        if tag not in ("meta", "img", "br", "link", "input", "hr"):
            self.open.append(tag)
        self.links += [str(values[name]) for name in ("href", "src") if name in values]
        if tag == "script":
            self.scripts.append(values)
        if tag == "img":
            self.images.append(values)
        if "id" in values:
            self.ids.add(str(values["id"]))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def two_samples(label: str = "<b>bold & name</b>") -> Evaluation:
    first, reference = judged.independent_pair(120)
    second = judged.changed(first, first.energies * 1.3)
    samples = [judged.shower_set(first, label), judged.shower_set(second, "second")]
    settings = Settings(judged.THRESHOLD, repetitions=10, classifiers=(judged.TINY,))
    return evaluate(samples, judged.shower_set(reference, "reference"), settings)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    evaluation = two_samples()
    folder = ReportFolder(tmp_path_factory.mktemp("a report") / "inner")
    # Drawing takes most of the time; the browser test sees every figure.
    items = [item for item in report_items(evaluation) if item.name in SHOWN]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("calo_train.evaluation.report.report_items", lambda _: items)
        write_report(folder, evaluation, metrics_of(evaluation))
    return evaluation, folder, [item for item in items if isinstance(item, ReportFigure)]


def test_page_is_well_formed_and_loads_nothing(report):
    page = Page(report[1].page.read_text(encoding="utf-8"))
    assert page.open == []
    assert page.scripts == [{"type": "application/json", "id": "event-display-data"}, {}]
    assert "link" not in page.tags
    for link in page.links:
        assert link.startswith(("data:image/png;base64,", "#")), link[:60]
    assert {link[1:] for link in page.links if link.startswith("#")} <= page.ids


def test_page_lets_only_its_own_script_run(report):
    text = report[1].page.read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert "default-src 'none'" in text


def test_page_is_light(report):
    assert report[1].page.stat().st_size < 5_000_000


def test_page_shows_every_figure_with_a_caption_of_both_files(report):
    _, folder, figures = report
    text = folder.page.read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.images) == len(figures)
    assert all(f"figure-{figure.name}" in page.ids for figure in figures)
    for caption in re.findall(r"<figcaption>(.*?)</figcaption>", text, flags=re.DOTALL):
        assert "memory.h5, 120 showers" in caption
        assert "Seed 0" in caption


def test_page_escapes_what_others_wrote(report):
    text = report[1].page.read_text(encoding="utf-8")
    assert "<b>bold" not in text
    assert "&lt;b&gt;bold &amp; name&lt;/b&gt;" in text


def test_page_has_the_verdicts_of_the_metrics(report):
    evaluation, folder, _ = report
    text = folder.page.read_text(encoding="utf-8")
    metrics = json.loads(folder.metrics.read_text(encoding="utf-8"))
    shown = re.findall(r'<span class="verdict \w+">([^<]+)</span>', text)
    expected = []
    for sample in metrics["samples"]:
        entries = sorted(sample["observables"].values(), key=lambda entry: -entry["significance"])
        expected += [entry["verdict"] for entry in entries]
        expected += [sample["correlations"]["verdict"]]
        expected += [entry["verdict"] for entry in sample["classifiers"].values()]
    assert shown == expected
    assert str(evaluation.size) in text


def test_every_figure_lies_beside_the_page_with_its_numbers(report):
    _, folder, figures = report
    names = {f"{figure.name}{suffix}" for figure in figures for suffix in (".png", ".pdf", ".csv")}
    assert {path.name for path in folder.figures.iterdir()} >= names
    for figure in figures:
        with (folder.figures / f"{figure.name}.csv").open(encoding="utf-8") as table:
            rows = list(csv.DictReader(table))
        assert len(rows) == len(next(iter(figure.numbers.values())))
        assert list(rows[0]) == list(figure.numbers)


def test_a_table_puts_the_models_side_by_side_and_marks_the_better_one(report):
    """The second sample has 30 % more energy; what it differs in most comes first."""
    _, folder, _ = report
    with (folder.figures / "models.csv").open(encoding="utf-8") as table:
        rows = list(csv.reader(table))
    assert rows[0][1:] == ["floor", "<b>bold & name</b>", "second"]
    assert rows[1][0] == "visible over incident energy"
    assert rows[1][2].startswith("★")
    assert not rows[1][3].startswith("★")
    assert f">{rows[1][3]}</td>" in folder.page.read_text(encoding="utf-8")


def test_histogram_numbers_are_those_of_the_table(report):
    evaluation, folder, _ = report
    with (folder.figures / "longitudinal_profile.csv").open(encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    means = evaluation.reference_table.observables["layer_energy"].mean(axis=0)
    assert [float(row["reference"]) for row in rows] == pytest.approx(means.tolist(), rel=1e-6)


@pytest.mark.parametrize("name", ["polar", "ragged", "single_voxel"])
def test_figures_of_every_detector(name):
    pair = [detectors.make_showers(detectors.ALL[name](), 60, seed) for seed in (1, 2)]
    items = report_items(judged.judge(*pair))
    figures = [item for item in items if isinstance(item, ReportFigure)]
    assert len({figure.name for figure in figures}) == len(figures)
    for figure in figures:
        assert len({len(values) for values in figure.numbers.values()}) == 1


def planned(seed: int = 0) -> dict:
    sample, reference = judged.independent_pair(50)
    sets = [judged.shower_set(sample)], judged.shower_set(reference)
    return planned_inputs(*sets, Settings(judged.THRESHOLD, seed=seed, classifiers=(judged.TINY,)))


def test_a_report_of_the_same_inputs_is_written_anew_and_another_asks(tmp_path):
    """U9: never silently; --force names what it replaces."""
    folder = ReportFolder(tmp_path / "report")
    folder.require_replaceable(planned(), is_forced=False)
    folder.write("page", planned() | {"schema": "calo-train/metrics"}, {"old.png": b"1"})
    folder.require_replaceable(planned(), is_forced=False)
    with pytest.raises(UsageError, match="--force") as caught:
        folder.require_replaceable(planned(seed=1), is_forced=False)
    assert "sample against sample" in caught.value.what
    folder.require_replaceable(planned(seed=1), is_forced=True)
    folder.write("new page", planned(seed=1) | {"schema": "calo-train/metrics"}, {"new.png": b""})
    assert [path.name for path in folder.figures.iterdir()] == ["new.png"]


def test_a_new_report_appears_when_it_is_whole(tmp_path, monkeypatch):
    """Whoever is stopped amid its figures leaves nothing; who is killed, what the next removes."""
    killed = tmp_path / ".report.part-99999999"  # of a process that cannot live
    killed.mkdir()
    (killed / "report.html").write_text("half")
    folder, metrics = ReportFolder(tmp_path / "report"), planned() | {"schema": SCHEMA}
    with monkeypatch.context() as patch:
        patch.setattr("calo_train.evaluation.report_folder.write_text", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            folder.write("page", metrics, {"figure.png": b"1"})
    assert list(tmp_path.iterdir()) == []
    folder.path.mkdir()
    folder.write("page", metrics, {"figure.png": b"1"})
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    assert folder.page.read_text() == "page"


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_metrics_alone_keep_a_page_of_the_same_inputs_and_remove_one_of_others(tmp_path):
    """A page must not stand beside numbers that it does not show."""
    folder, schema = ReportFolder(tmp_path / "report"), {"schema": "calo-train/metrics"}
    folder.write_metrics(planned() | schema)
    assert [path.name for path in folder.path.iterdir()] == ["metrics.json"]
    folder.write("page", planned() | schema, {"old.png": b"1"})
    folder.write_metrics(planned() | schema)
    assert folder.page.read_text() == "page"
    folder.write_metrics(planned(seed=1) | schema)
    assert not folder.page.exists()
    assert list(folder.figures.iterdir()) == []


@pytest.mark.parametrize("is_forced", [False, True])
def test_a_folder_that_is_no_report_is_never_written_to(tmp_path, is_forced):
    (tmp_path / "thesis.tex").write_text("keep")
    with pytest.raises(UsageError, match="not a report"):
        ReportFolder(tmp_path).require_replaceable(planned(), is_forced=is_forced)
