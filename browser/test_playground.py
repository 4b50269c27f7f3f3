"""What a person sees of texts on the dashboard: how alike they are, in each view, and the code."""

import re
import shlex
import subprocess
import sys

import httpx2
import numpy as np
import pytest
from playwright.sync_api import expect

from browser.support import MODEL, RANKER, TEXTS, Opened, embed, load, look, vectors


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


def test_a_reranker_s_order_is_shown_beside_that_of_the_vectors(
    ranking: str, open_page: Opened
) -> None:
    page = open_page(ranking)
    load(page)
    embed(page, TEXTS)
    look(page, "Rerank")
    expect(page.get_by_label("Reranker", exact=True)).to_have_value(RANKER)
    expect(page.locator("#view .readout")).to_have_text(f"{RANKER} is loaded when it is used.")
    for ranker in (RANKER, MODEL):
        page.get_by_label("Reranker", exact=True).select_option(ranker)
        page.get_by_label("Query").fill("what to eat")
        page.keyboard.press("Enter")
        body = {"model": ranker, "query": "what to eat", "documents": TEXTS}
        answer = httpx2.post(f"{ranking}/v1/rerank", json=body, timeout=30).raise_for_status()
        results = answer.json()["results"]
        cosines = vectors(ranking, TEXTS) @ vectors(ranking, ["what to eat"])[0]
        before = [int((cosines > cosines[result["index"]]).sum()) for result in results]
        up = [old - new for new, old in enumerate(before)]
        expect(page.locator("#results .text")).to_have_text([TEXTS[r["index"]] for r in results])
        expect(page.locator("#results .number:not(.before)")).to_have_text(
            [f"{result['relevance_score']:.3f}" for result in results]
        )
        expect(page.locator("#results .before")).to_have_text(
            [f"{cosines[result['index']]:.3f}" for result in results]
        )
        expect(page.locator("#results .moved")).to_have_text(
            [f"up {n}" if n > 0 else f"down {-n}" if n else "stays" for n in up]
        )
        expect(page.locator("#view .readout")).to_contain_text(f"4 texts by {ranker} in ")


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


def test_what_is_pasted_is_text_whatever_it_looks_like(ranking: str, open_page: Opened) -> None:
    page = open_page(ranking)
    load(page, RANKER)
    load(page)
    hostile = "<img src=x onerror='document.title = 1'><script>document.title = 2</script>"
    embed(page, [hostile, hostile, "</textarea></script>"])
    for view in ("Search", "Rerank", "Map", "Tokens", "Similarity"):
        look(page, view)
        page.locator("#view :is(td, .map, .token, #results li)").first.wait_for()
        assert page.locator("img, main script").count() == 0
    expect(page.locator(".readout")).to_contain_text("<img src=x onerror=")
    assert page.title() == "embedsvc"


@pytest.mark.parametrize("view", ["Similarity", "Search", "Rerank", "Map", "Tokens"])
def test_the_code_does_what_is_on_screen(ranking: str, open_page: Opened, view: str) -> None:
    page = open_page(ranking)
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
    if view == "Rerank":
        best = got["results"][0]
        first = f"{best['relevance_score']:.3f}  {texts[best['index']]}"
        assert done.stdout.splitlines()[0] == first
        return
    found = np.array([each["embedding"] for each in got["data"]])
    if view == "Search":
        (scores,) = found @ vectors(ranking, texts).T
        assert done.stdout.split("\n")[0] == f"{scores.max():.3f}  {texts[scores.argmax()]}"
    else:
        assert np.abs(found - vectors(ranking, texts)).max() < 1e-6
        read = np.array([float(each) for each in re.findall(r"-?\d+\.\d*(?:e-\d+)?", done.stdout)])
        size = 25 if view == "Similarity" else 10
        assert read.shape == (size,)
        if view == "Similarity":
            assert np.abs(read - (found @ found.T).flatten()).max() < 0.006
