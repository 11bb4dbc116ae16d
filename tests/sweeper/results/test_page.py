"""The page, opened in a browser."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from sweeper.records import Teacher
from sweeper.results import page as pages
from sweeper.results.comparison import Comparison
from sweeper.results.table_text import as_text
from sweeper.store import Store
from tests.conftest import Done
from tests.sweeper.stores import student, sweep, teacher, trial

COMMAND = "sweeper report --store a&b"


@pytest.fixture(scope="module")
def written(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of the page of a finished comparison."""
    path = tmp_path_factory.mktemp("report") / "page.html"
    pages.write(Comparison.read(Store(finished / "runs"), None, None), path, COMMAND)
    return path


@pytest.fixture
def opened(written: Path, browser: Browser) -> Iterator[Page]:
    """Open the page in a browser without a network. Fail the test on a console error or a network request."""
    context = browser.new_context(offline=True, permissions=["clipboard-read", "clipboard-write"])
    page, problems = context.new_page(), []
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else 0)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: problems.append(request.url) if request.url.startswith("http") else None)
    page.goto(written.as_uri())
    yield page
    assert problems == []
    context.close()


def test_every_chart_is_drawn_and_described(opened: Page) -> None:
    charts = opened.locator("[data-chart]").evaluate_all("all => all.map(s => s.dataset.chart)")
    assert {"chart-pareto-fid", "chart-alpha-fid", "chart-rungs-students", "chart-curves", "chart-blur"} <= set(charts)
    for name in charts:
        drawn = opened.locator(f"#{name}")
        assert drawn.locator("g.trace").count() > 0, name
        assert len(drawn.get_attribute("aria-label") or "") > 20, name


def test_a_click_on_a_heading_sorts_by_number_and_a_second_click_reverses_the_order(opened: Page) -> None:
    heads = opened.locator("#compression th")
    column = heads.all_inner_texts().index("Params")
    cells = opened.locator(f"#compression td:nth-child({column + 1})")

    def shown() -> list[int]:
        return [int(text.replace(",", "")) for text in cells.all_inner_texts()]

    heads.nth(column).locator("button").click()
    assert shown() == sorted(shown())
    assert heads.nth(column).get_attribute("aria-sort") == "ascending"
    heads.nth(column).locator("button").press("Enter")  # by keyboard
    assert shown() == sorted(shown(), reverse=True)
    assert heads.nth(column).get_attribute("aria-sort") == "descending"


def test_the_size_axis_is_switched_by_keyboard_and_kept_when_the_theme_changes(opened: Page) -> None:
    chart = opened.locator("figure", has=opened.locator("#chart-pareto-fid"))
    title = "document.getElementById('chart-pareto-fid').layout.xaxis.title.text"
    chart.get_by_role("button", name="latency").press("Enter")
    assert opened.evaluate(title) == "CPU latency, ms per image"
    opened.locator("#theme").click()
    assert opened.evaluate(title) == "CPU latency, ms per image"
    assert chart.get_by_role("button", name="latency").get_attribute("aria-pressed") == "true"
    assert chart.get_by_role("button", name="parameters").get_attribute("aria-pressed") == "false"


def test_missing_values_are_sorted_last(opened: Page) -> None:
    heads = opened.locator("#compression th")
    column = heads.all_inner_texts().index("FID (Stu.)")
    for _ in range(2):
        heads.nth(column).locator("button").click()
        assert opened.locator(f"#compression td:nth-child({column + 1})").last.inner_text() == "—"


@pytest.mark.parametrize("style", ["csv", "latex", "md"])
def test_the_table_is_copied_as_text(opened: Page, finished: Path, style: str) -> None:
    opened.locator(f"[data-copy={style}]").click()
    opened.wait_for_function("document.getElementById('copied').textContent !== ''")
    built = Comparison.read(Store(finished / "runs"), None, None).table
    assert opened.evaluate("navigator.clipboard.readText()") == as_text(built, style)


def test_samples_have_alternative_texts_and_the_rows_of_the_paper_s_figure_11(opened: Page) -> None:
    rows = opened.locator(".strip img").evaluate_all("all => all.map(i => [i.alt, i.naturalWidth / i.naturalHeight])")
    teacher, *students, control = (alt.removeprefix("12 samples of the ") for alt, _ in rows[:5])
    assert teacher.startswith("teacher, d=")
    assert [name.partition(",")[0] for name in students] == ["mse student", "joint student", "perceptual student"]
    pruned = sum("at 8 updates" in name for name in students)
    assert pruned in (1, 2), "of four configurations one finishes, and a free slot may finish another"
    assert control.startswith("control, d="), "a control of the teacher's d would be the teacher"
    assert control[-1] != teacher[-1]
    assert {ratio for _, ratio in rows} == {float(pages.TILES)}
    assert sum("interpolation" in alt for alt, _ in rows) == 3


def test_the_theme_follows_the_system_and_the_button(written: Path, browser: Browser) -> None:
    backgrounds = {}
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme)
        page = context.new_page()
        page.goto(written.as_uri())
        background = "getComputedStyle(document.body).backgroundColor"
        backgrounds[scheme] = page.evaluate(background)
        page.locator("#theme").click()
        backgrounds[f"not {scheme}"] = page.evaluate(background)
        context.close()
    assert backgrounds["light"] == backgrounds["not dark"] != backgrounds["dark"] == backgrounds["not light"]


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_does_not_scroll_horizontally(opened: Page, width: int) -> None:
    opened.set_viewport_size({"width": width, "height": 800})
    opened.wait_for_timeout(300)
    assert opened.evaluate("document.documentElement.scrollWidth") <= width


def test_printing_uses_the_light_theme_without_buttons_and_restores_the_dark_theme(opened: Page) -> None:
    opened.emulate_media(color_scheme="dark")
    theme = "document.documentElement.dataset.theme"
    opened.wait_for_function(f"{theme} === 'dark'")
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert opened.evaluate(theme) == "light"
    opened.emulate_media(media="print")
    assert not opened.locator("#theme").is_visible()
    opened.evaluate("dispatchEvent(new Event('afterprint'))")
    assert opened.evaluate(theme) == "dark"


def test_the_page_states_protocols_and_commands(opened: Page, finished: Path) -> None:
    text = opened.inner_text("main")
    comparison = Comparison.read(Store(finished / "runs"), None, None)
    for expected in (
        *comparison.manifest.protocols.values(),
        *(s.manifest.command for s in comparison.sweeps),
        COMMAND,
    ):
        assert expected in text


def test_the_page_is_below_8_mb_and_the_table_is_written_in_three_formats(written: Path, finished: Path) -> None:
    assert written.stat().st_size < 8e6
    built = Comparison.read(Store(finished / "runs"), None, None).table
    for style, suffix in pages.TABLE_SUFFIXES.items():
        assert written.with_suffix(f".{suffix}").read_text() == as_text(built, style) + "\n"


def test_the_command_writes_the_page_into_the_store(finished: Path, sweeper: Any) -> None:
    done: Done = sweeper("report", cwd=finished)
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == str(finished / "runs" / "reports" / "mnist5k-students.html")


def test_an_unfinished_sweep_has_a_banner_with_its_command(tmp_path: Path) -> None:
    store = Store(tmp_path)
    trials = [trial(store, teacher(2), 40.0), trial(store, teacher(2, lr=0.1), 30.0)]
    sweep(store, "teacher", trials, command="sweeper run teachers --dataset mnist5k")
    text = pages.render_page(Comparison.read(store, None, None), COMMAND, {})
    assert "mnist5k-teachers is not finished (1 waiting, 1 pruned)" in text
    assert "Continue with <code>sweeper run teachers --dataset mnist5k</code>" in text


def test_json_cannot_close_its_script_element() -> None:
    assert "</script>" not in pages._json({"label": "</script><script>alert(1)</script>"})
    assert json.loads(pages._json({"label": "</script>"})) == {"label": "</script>"}


def test_with_fid_as_the_metric_the_limit_is_marked_on_the_logarithmic_axis(
    tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "runs")
    best = trial(store, teacher(16), 1.0, {"selection": (20.0, 9.0), "report": (20.0, 9.0)})
    control = trial(store, teacher(2), 1.0, {"selection": (90.0, 5.0), "report": (90.0, 5.0)})
    sweep(store, "teacher", [best, control], metric="fid")
    distilled = trial(store, student(4), 9.0, {"selection": (21.0, 9.0), "report": (21.0, 9.0)})
    sweep(store, "student", [distilled], Teacher(best, 30, "w", "mnist5k-teachers", "best"), metric="fid")
    pages.write(Comparison.read(store, None, None), tmp_path / "page.html", COMMAND)
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    low, high = page.evaluate("document.getElementById('chart-pareto-fid').layout.yaxis.range")
    assert 0 < low < high < 3, "log10 of FIDs from 20 to 90"
    assert "within 10% of the teacher: from d=4" in page.locator("#chart-pareto-fid").inner_text()
    assert page.inner_text("#pictures").count("its weights are missing or damaged") == 2
    page.close()


def test_a_page_may_not_have_the_name_of_its_table(finished: Path, sweeper: Any, tmp_path: Path) -> None:
    done: Done = sweeper("report", "-o", str(tmp_path / "x.csv"), cwd=finished)
    assert done.code == 2
    assert "try -o" in done.err
    done = sweeper("report", "-o", str(tmp_path), cwd=finished)
    assert done.code == 2
    assert "cannot be written" in done.err


def test_the_limit_of_compression_is_marked(tmp_path: Path) -> None:
    store = Store(tmp_path)
    best = trial(store, teacher(16), 1.0, {"selection": (20.0, 9.0), "report": (21.0, 9.0)})
    sweep(store, "teacher", [best])
    trials = [
        trial(store, student(d), 9.0, {"selection": (20.0, i), "report": (21.0, i)}) for d, i in ((2, 5.0), (4, 8.9))
    ]
    sweep(store, "student", trials, Teacher(best, 30, "w", "mnist5k-teachers", "best"))
    rows = pages._rows(Comparison.read(store, None, None).table)
    assert [row["limit"] for row in rows] == [False, True, False]


def test_a_page_replaces_only_what_a_page_wrote(finished: Path, tmp_path: Path) -> None:
    comparison, path = Comparison.read(Store(finished / "runs"), None, None), tmp_path / 'my "page".html'
    (tmp_path / 'my "page".tex').write_text("my paper")
    names = [[file.suffix for file in pages.write(comparison, path, COMMAND)] for _ in range(2)]
    assert names == [[".html", ".csv", ".md"]] * 2, "the second page replaces the first one and its tables"
    assert (tmp_path / 'my "page".tex').read_text() == "my paper"
    path.with_suffix(".md").write_text("my notes")
    assert [file.suffix for file in pages.write(comparison, path, COMMAND)] == [".html", ".csv"]
    assert path.with_suffix(".md").read_text() == "my notes"


def test_a_page_replaces_no_link(finished: Path, tmp_path: Path) -> None:
    comparison, link = Comparison.read(Store(finished / "runs"), None, None), tmp_path / "link.html"
    pages.write(comparison, tmp_path / "page.html", COMMAND)
    link.symlink_to("page.html")
    (tmp_path / "other.csv").symlink_to("nowhere.csv")
    assert pages.write(comparison, link, COMMAND)[0] == tmp_path / "page.html"
    assert link.is_symlink()
    written = pages.write(comparison, tmp_path / "other.html", COMMAND)
    assert tmp_path / "other.csv" not in written
    assert (tmp_path / "other.csv").is_symlink()
    (tmp_path / "new.html").symlink_to("made.html")
    pages.write(comparison, tmp_path / "new.html", COMMAND)
    assert (tmp_path / "made.html").is_file()


def test_a_page_does_not_replace_another_file(finished: Path, sweeper: Any, tmp_path: Path) -> None:
    (tmp_path / "thesis.html").write_text("<p>my thesis")
    done: Done = sweeper("report", "-o", str(tmp_path / "thesis.html"), cwd=finished)
    assert done.code == 2
    assert "is not a page of sweeper" in done.err
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.html"]
    assert (tmp_path / "thesis.html").read_text() == "<p>my thesis"


def test_a_page_can_be_written_to_a_device(finished: Path) -> None:
    pages.write(Comparison.read(Store(finished / "runs"), None, None), Path(os.devnull), COMMAND)
    assert Path(os.devnull).is_char_device()
