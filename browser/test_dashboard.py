"""What a person does with the dashboard, and sees: models, charts, keys, and how it can be read."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from browser.support import MODEL, TEXTS, Opened, embed, load, look, row, serving, vectors
from tests.support.project import ROOT

KEY = "sk-a-right-key-123456"
IMAGES = ROOT / "docs/images"


def test_a_model_is_loaded_and_unloaded(server: str, open_page: Opened) -> None:
    page = open_page(server)
    expect(page.locator("#connection")).to_have_text("Live")
    expect(row(page)).to_contain_text("Not loaded")
    row(page).get_by_role("button", name=f"Load {MODEL}").click()
    expect(row(page)).to_contain_text("Ready")
    expect(row(page)).to_contain_text("90.9 MB")
    expect(row(page)).to_contain_text("384 dimensions · 256 tokens")
    expect(page.locator("#memory")).to_contain_text("90.9 MB of")
    expect(page.locator("#models-said")).to_have_text(f"{MODEL}: ready")
    row(page).get_by_role("button", name=f"Unload {MODEL}").click()
    expect(row(page)).to_contain_text("Not loaded")
    expect(page.locator("#memory")).to_contain_text("0 bytes of")


def test_models_are_found_by_any_of_their_names(server: str, open_page: Opened) -> None:
    page = open_page(server)
    items = page.locator("#model-list li")
    expect(items).to_have_count(6)
    page.get_by_role("button", name="Show all").click()
    assert items.count() > 40
    page.get_by_label("Find a model").fill("text-embedding-3-large")
    expect(items).to_have_count(1)
    expect(items).to_contain_text("nomic-embed-text-v1.5")


def test_what_goes_wrong_is_said(server: str, open_page: Opened) -> None:
    page = open_page(server)
    expect(page.locator("#model-list li")).to_have_count(6)
    page.get_by_label("Find a model").fill("broken")
    row(page, "broken").get_by_role("button").click()
    expect(row(page, "broken")).to_contain_text("Failed")
    expect(row(page, "broken").locator(".error")).to_contain_text("no-such-folder")
    expect(row(page, "broken").get_by_role("button")).to_have_text("Try again")
    page.get_by_label("Find a model").fill("no/such-model")
    page.get_by_role("button", name="Load it from Hugging Face").click()
    expect(page.locator("#models-error")).to_contain_text("`no/such-model` does not exist")
    page.get_by_label("Model", exact=True).select_option("broken")
    page.get_by_role("button", name="Embed", exact=True).click()
    expect(page.locator("#playground-error")).to_contain_text("no-such-folder")
    page.get_by_label("Texts, one a line").fill(" \n ")
    page.get_by_role("button", name="Embed", exact=True).click()
    expect(page.locator("#playground-error")).to_have_text("There are no texts: write one a line.")
    assert [re.findall(r"\d{3}", each)[0] for each in open_page.refusals] == ["404", "503"]


def test_charts_show_what_clients_do(server: str, open_page: Opened) -> None:
    page = open_page(server)
    load(page)
    for number in range(20):
        vectors(server, [f"text {number} {os.getpid()}", "the same"])
    for title, said in (
        ("Requests", r"[1-9]\S* at the top"),
        ("Texts", r"[1-9]\S* at the top"),
        ("Latency", r"\d+ m?s at the top"),
        ("Batch size", r"[1-9]\S* at the top"),
    ):
        expect(page.get_by_role("img", name=re.compile(f"{title}.*{said}"))).to_have_count(1)
        path = page.locator("figure", has_text=title).locator("path.line-1").first
        expect(path).to_have_attribute("d", re.compile("M"))
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#when")).to_have_text("paused")
    page.get_by_role("button", name="Go on").click()
    expect(page.locator("#when")).to_contain_text("seconds")


def test_a_download_shows_how_far_it_is(server: str, open_page: Opened) -> None:
    """The event stream is made up here, since a real download needs a network."""
    page = open_page("about:blank")
    instance = {
        "id": "1", "object": "instance", "model": "bge-m3", "state": "downloading", "error": None,
        "progress": {"done": 450_000_000, "total": 2_270_000_000}, "memory_bytes": 0, "users": 1,
        "pinned": False, "keep_alive": -1.0,
    }  # fmt: skip
    told = {
        "version": "1", "backend": "numpy", "dtype": "float32", "device": "cpu", "activity": None,
        "instances": {"data": [instance], "memory_bytes": 0, "max_memory_bytes": 8_000_000_000},
    }  # fmt: skip
    page.route(
        "**/v1/activity",
        lambda route: route.fulfill(
            content_type="text/event-stream", body=f"data: {json.dumps(told)}\n\n"
        ),
    )
    page.goto(server)
    expect(row(page, "bge-m3")).to_contain_text("Downloading")
    expect(row(page, "bge-m3")).to_contain_text("450 MB of 2.27 GB")
    bar = row(page, "bge-m3").get_by_role("progressbar")
    expect(bar).to_have_js_property("position", 450 / 2270)
    expect(row(page, "bge-m3").get_by_role("button")).to_have_text("Cancel")


def test_where_there_are_keys_the_page_asks_for_one(cards: Path, open_page: Opened) -> None:
    with serving(cards, EMBEDSVC_API_KEYS=KEY) as (url, _):
        page = open_page(url)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        dialog = page.get_by_role("dialog", name="This server has keys")
        expect(dialog).to_be_visible()
        check(page)
        page.keyboard.press("Escape")
        expect(page.locator("#connection")).to_have_text("Locked")
        expect(page.locator("#model-list li")).to_have_count(0)
        page.get_by_role("button", name="Enter key").click()
        page.get_by_label("Key", exact=True).fill("wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#key-said")).to_be_visible()
        page.get_by_label("Key", exact=True).fill(KEY)
        page.keyboard.press("Enter")
        expect(dialog).to_be_hidden()
        expect(page.locator("#connection")).to_have_text("Live")
        load(page)
        embed(page, TEXTS)
        expect(page.locator("#view td")).to_have_count(16)
        expect(page.locator("#code")).to_contain_text('-H "Authorization: Bearer $EMBEDSVC_KEY"')
        assert KEY not in page.content()
        assert not [each for each in [page.url, *asked] if KEY in each]
        assert page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 1]
        page.reload()
        expect(page.locator("#connection")).to_have_text("Live")  # the tab remembers it
        page.get_by_role("button", name="Forget key").click()
        expect(dialog).to_be_visible()
        assert page.evaluate("sessionStorage.length") == 0
    assert all("401" in each for each in open_page.refusals)


def test_a_server_that_stops_is_noticed_and_so_is_its_return(
    cards: Path, open_page: Opened
) -> None:
    with serving(cards) as (url, _):
        page = open_page(url)
        expect(page.locator("#connection")).to_have_text("Live")
        expect(page.locator("#model-list li")).to_have_count(6)
    # It has stopped in time, although the page was watching.
    expect(page.locator("#connection")).to_have_text("No connection, trying again")
    page.get_by_role("button", name="Embed", exact=True).click()
    expect(page.locator("#playground-error")).to_have_text("The server does not answer.")
    with serving(cards, "--port", url.rpartition(":")[2]):
        expect(page.locator("#connection")).to_have_text("Live")


def test_the_keyboard_is_enough(server: str, open_page: Opened) -> None:
    page = open_page(server)
    load(page)
    page.keyboard.press("Tab")
    page.reload()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the playground")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Model", exact=True)).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#view td")).to_have_count(64)
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_role("tab", name="Similarity")).to_be_focused()
    for view in ("Search", "Rerank", "Map", "Tokens", "Similarity"):
        page.keyboard.press("ArrowRight")
        tab = page.get_by_role("tab", name=view)
        expect(tab).to_be_focused()
        expect(tab).to_have_attribute("aria-selected", "true")


def check(page: Page) -> None:
    """Check the page with axe, which must find no barrier."""
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("width", [1280, 390], ids=["desk", "phone"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_can_be_read_by_everybody(
    server: str, open_page: Opened, width: int, dark: bool
) -> None:
    page = open_page(server, width=width, dark=dark)
    check(page)
    load(page)
    page.get_by_label("Find a model").fill("broken")
    row(page, "broken").get_by_role("button").click()
    expect(row(page, "broken")).to_contain_text("Failed")
    page.get_by_label("Find a model").fill("")
    embed(page)
    for view in ("Similarity", "Search", "Rerank", "Map", "Tokens"):
        look(page, view)
        ready = {"Similarity": "td", "Search": "#results li", "Map": ".map", "Tokens": ".token"}
        ready["Rerank"] = "select"
        page.locator(f"#view {ready[view]}").first.wait_for()
        check(page)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{view} makes the page {wide} wide"
    page.get_by_label("Texts, one a line").fill("\n".join(f"text {i}" for i in range(30)))
    check(page)  # what is shown belongs to other texts
    embed(page)
    look(page, "Similarity")
    expect(page.locator("#view td")).to_have_count(900)
    check(page)


def test_pictures_for_the_documentation(open_page: Opened) -> None:
    with serving(ROOT / "models.toml") as (server, _):
        pages = {
            "dashboard": (open_page(server), "Similarity"),
            "dashboard-dark": (open_page(server, dark=True), "Map"),
            "dashboard-phone": (open_page(server, width=390), "Search"),
        }
        for page, _ in pages.values():
            load(page)
        page, _ = pages["dashboard"]
        for moment in range(45):
            busy = 3 + round(4 * np.sin(moment / 7) ** 2) + moment % 2
            for number in range(busy):
                some = [f"text {moment}, {number}, {j}" for j in range(1 + (number * 5) % 9)]
                vectors(server, [*some, *["asked for again and again"] * (busy // 2)])
            page.wait_for_timeout(500)
        IMAGES.mkdir(exist_ok=True)
        for name, (page, view) in pages.items():
            embed(page)
            look(page, view)
            page.locator("#view td, #results li, .map").first.wait_for()
            page.screenshot(path=IMAGES / f"{name}.png", full_page=True)
