"""Tests of the page in a browser: no request, no console message, no sideways scrolling, and full keyboard control."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs import report as job
from tests.results.browser import EXECUTABLE, Browser
from tests.results.run_builders import write_run

pytestmark = pytest.mark.skipif(EXECUTABLE is None, reason="no Chromium here: apt-get install chromium")

RUNS: tuple[dict[str, Any], ...] = ({"images": 20}, {"labels": False}, {"images": 0}, {"failed": tuple(range(7))})


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path / "profile") as browser:
        yield browser


@pytest.fixture
def page(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    # A name without a space that is wider than a narrow window must be broken.
    output = write_run(tmp_path / ("long_name_" * 12), **getattr(request, "param", {"images": 20}))
    assert job.main([output]) == 0
    return Path(output, "report/index.html").as_uri()


@pytest.mark.parametrize("page", RUNS, indirect=True)
def test_the_page_fits_and_asks_for_nothing(browser: Browser, page: str) -> None:
    for width in (390, 1280):
        browser.open(page, width)
        scrolled, seen = browser.evaluate("(d => [d.scrollWidth, d.clientWidth])(document.documentElement)")
        assert seen == width and scrolled <= seen
        assert browser.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
        assert browser.requests == [] and browser.complaints == []


def test_a_request_and_a_complaint_would_be_seen(browser: Browser, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text("<body><p style='width: 500px'>x<img src='gone.png'><script>console.error('x')</script>")
    browser.open(bad.as_uri(), 390)
    assert browser.evaluate("document.documentElement.scrollWidth") > 390
    assert [url.rsplit("/", 1)[-1] for url in browser.requests] == ["gone.png"] and browser.complaints


def test_the_keyboard_reaches_everything_and_the_focus_is_seen(browser: Browser, page: str) -> None:
    browser.open(page, 1280)
    focused = "(e => [e.tagName, e.textContent.trim().split('\\n')[0], getComputedStyle(e).outlineStyle])"
    reached: list[list[str]] = []
    while not reached or reached[-1][0] != "BODY":
        browser.press("Tab", 9)
        reached.append(browser.evaluate(f"{focused}(document.activeElement)"))
    tags, texts, outlines = zip(*reached[:-1], strict=True)
    assert texts[0] == "Skip to the scores" and "Values as a table" in texts and set(outlines) == {"solid"}
    # Wide tables scroll by themselves, so the keyboard must reach them.
    assert tags.count("DIV") == 3 and tags.count("SUMMARY") == 3


def test_words_can_be_read_on_their_ground(browser: Browser, page: str) -> None:
    browser.open(page, 390)
    poor = browser.evaluate(
        """(() => {
        const luminance = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
            .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
            .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
        const ground = element => {
            for (; element; element = element.parentElement) {
                const colour = getComputedStyle(element).backgroundColor;
                if (!colour.endsWith(', 0)')) return colour;
            }
            return 'rgb(255, 255, 255)';
        };
        return [...document.querySelectorAll('main *')].filter(element =>
            [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim())).filter(element => {
            const pair = [luminance(getComputedStyle(element).color), luminance(ground(element))].sort();
            return (pair[1] + 0.05) / (pair[0] + 0.05) < 4.5;
        }).map(element => element.outerHTML.slice(0, 200));
        })()"""
    )
    assert poor == []
