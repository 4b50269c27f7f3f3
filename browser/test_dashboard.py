"""What a person does with the dashboard, and sees."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import httpx2
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from browser.support import MODEL, Opened, embed, load, row, serving
from tests.support.project import ROOT

TEXTS = ["a cat sat on the mat", "interest rates rose", "a kitten lay on the rug", "pasta boils"]
KEY = "sk-a-right-key-123456"
IMAGES = ROOT / "docs/images"


def vectors(url: str, texts: list[str], **fields: object) -> np.ndarray:
    """The vectors that the API gives, as JSON floats."""
    body = {"model": MODEL, "input": texts, "truncate": "end"} | fields
    answer = httpx2.post(f"{url}/v1/embeddings", json=body, timeout=30)
    return np.array([each["embedding"] for each in answer.raise_for_status().json()["data"]])


def look(page: Page, view: str) -> None:
    page.get_by_role("tab", name=view).click()


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


def test_the_heat_map_shows_the_similarities_that_the_api_gives(
    server: str, open_page: Opened
) -> None:
    page = open_page(server)
    load(page)
    embed(page, TEXTS)
    found = vectors(server, TEXTS)
    cells = page.locator("#view td")
    shown = np.array([float(each.get_attribute("data-value") or "") for each in cells.all()])
    assert np.abs(shown.reshape(4, 4) - found @ found.T).max() < 1e-6
    for cell, value in zip(cells.all(), (found @ found.T).flat, strict=True):
        assert float(cell.inner_text()) == pytest.approx(value, abs=0.005001)
    light = [
        sum(map(int, re.findall(r"\d+", each)))
        for each in cells.evaluate_all("all => all.map(each => each.style.backgroundColor)")
    ]
    order = np.argsort((found @ found.T).flatten(), kind="stable")
    assert (np.diff(np.array(light)[order]) <= 3).all()  # the more alike, the darker
    expect(page.locator(".readout")).to_contain_text("Most alike: 1 “a cat sat on the mat” and 3")
    cells.first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".readout")).to_have_text(
        f"2 “interest rates rose” and 3 “a kitten lay on the rug”: {found[1] @ found[2]:.3f}"
    )


def test_search_ranks_as_the_api_does(server: str, open_page: Opened) -> None:
    page = open_page(server)
    load(page)
    embed(page, TEXTS)
    look(page, "Search")
    for query in ("a sleeping animal", "what to eat"):
        page.get_by_label("Query").fill(query)
        page.keyboard.press("Enter")
        scores = vectors(server, TEXTS) @ vectors(server, [query])[0]
        expected = [TEXTS[i] for i in scores.argsort()[::-1]]
        expect(page.locator("#results .text")).to_have_text(expected)
        expect(page.locator("#results .number")).to_have_text(
            [f"{score:.3f}" for score in sorted(scores, reverse=True)]
        )


def test_the_map_is_of_the_two_principal_components(server: str, open_page: Opened) -> None:
    page = open_page(server)
    load(page)
    embed(page)
    look(page, "Map")
    texts = page.get_by_label("Texts, one a line").input_value().split("\n")
    points = page.locator(".places li").evaluate_all(
        "all => all.map(e => JSON.parse(e.dataset.point))"
    )
    found = vectors(server, texts)
    u, s, _ = np.linalg.svd(found - found.mean(axis=0), full_matrices=False)
    assert np.abs(np.abs(points) - np.abs((u * s)[:, :2])).max() < 1e-4
    kept = round(100 * float((s[:2] ** 2).sum() / (s**2).sum()))
    expect(page.locator(".readout")).to_contain_text(f"{kept}% of the variance")
    circles = page.locator(".map circle").evaluate_all(
        "all => all.map(e => [e.cx.baseVal.value, e.cy.baseVal.value])"
    )
    near = np.linalg.norm(
        np.subtract.outer(np.array(points), np.array(points))[:, [0, 1], :, [0, 1]], axis=0
    )
    drawn = np.linalg.norm(
        np.subtract.outer(np.array(circles), np.array(circles))[:, [0, 1], :, [0, 1]], axis=0
    )
    scale = drawn.max() / near.max()
    assert np.abs(drawn - scale * near).max() < 0.5  # pixels: distances are true in any direction


def test_tokens_are_shown_and_what_was_cut(server: str, open_page: Opened) -> None:
    page = open_page(server)
    load(page)
    embed(page, ["unbelievably good", "word " * 300])
    expect(page.locator("#said")).to_contain_text("1 cut")
    look(page, "Tokens")
    texts = page.locator(".tokens > li")
    expect(texts.nth(0).locator(".token")).to_have_text(
        ["[CLS]", "un", "bel", "ie", "va", "bly", "good", "[SEP]"]
    )
    expect(texts.nth(0)).to_contain_text("8 of 256 tokens")
    expect(texts.nth(1)).to_contain_text("256 of 256 tokens, 46 tokens cut")
    assert texts.nth(1).locator("del").count() == 46


def test_what_is_pasted_is_text_whatever_it_looks_like(server: str, open_page: Opened) -> None:
    page = open_page(server)
    load(page)
    hostile = "<img src=x onerror='document.title = 1'><script>document.title = 2</script>"
    embed(page, [hostile, hostile, "</textarea></script>"])
    for view in ("Search", "Map", "Tokens", "Similarity"):
        look(page, view)
        page.locator("#view :is(td, .map, .token, #results li)").first.wait_for()
        assert page.locator("img, main script").count() == 0
    expect(page.locator(".readout")).to_contain_text("<img src=x onerror=")
    assert page.title() == "embedsvc"


@pytest.mark.parametrize("view", ["Similarity", "Search", "Map", "Tokens"])
def test_the_code_does_what_is_on_screen(server: str, open_page: Opened, view: str) -> None:
    page = open_page(server)
    load(page)
    texts = [*TEXTS, 'it\'s "quoted" $HOME \\ `x`']
    embed(page, texts)
    look(page, view)
    page.get_by_role("button", name="curl").click()
    name, url, *options = shlex.split(page.locator("#code").inner_text().replace("\\\n", ""))
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert (name, given["-H"]) == ("curl", "Content-Type: application/json")
    got = httpx2.post(url, content=given["-d"], timeout=30).raise_for_status().json()
    page.get_by_role("button", name="Python").click()
    code = page.locator("#code").inner_text()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    if view == "Tokens":
        read = [[each["text"] for each in text] for text in got]
        assert done.stdout.splitlines() == [f"{len(each)} {each}" for each in read]
        return
    found = np.array([each["embedding"] for each in got["data"]])
    if view == "Search":
        (scores,) = found @ vectors(server, texts).T
        assert done.stdout.split("\n")[0] == f"{scores.max():.3f}  {texts[scores.argmax()]}"
    else:
        assert np.abs(found - vectors(server, texts)).max() < 1e-6
        read = np.array([float(each) for each in re.findall(r"-?\d+\.\d*(?:e-\d+)?", done.stdout)])
        size = 25 if view == "Similarity" else 10
        assert read.shape == (size,)
        if view == "Similarity":
            assert np.abs(read - (found @ found.T).flatten()).max() < 0.006


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
    for view in ("Search", "Map", "Tokens", "Similarity"):
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
    for view in ("Similarity", "Search", "Map", "Tokens"):
        look(page, view)
        ready = {"Similarity": "td", "Search": "#results li", "Map": ".map", "Tokens": ".token"}
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
