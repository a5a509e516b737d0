"""Mistakes in the live pages: each is first seen where its mutant is, and everybody can make and find one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from llm_rebuild.diagnosis import mutants
from llm_rebuild.diagnosis.mutants import TEXTS
from tools import mistakes
from tools.live import FOLDER, SENTENCES, ids, miniature

from .conftest import DESKTOP, OF_A_PHONE, Reader, Site, barriers
from .test_live import LIVE, PAGES, answered

CATALOGUE = json.loads(mistakes.FILE.read_text(encoding="utf-8"))
MISTAKES = {name: [one for one in CATALOGUE["mistakes"] if one["model"] == name] for name in PAGES}

# The first checkpoint of each mistake, as the page runs them: one text, and a cache where there is one.
IN_THE_PAGE = """async ({ root, name, record, text, mistakes }) => {
  const { Service } = await import(`${root}javascripts/live/service.js`);
  const service = new Service(), firsts = {};
  await service.fetch(record, `${root}live/models/${name}/`);
  for (const { name, file, before, after } of mistakes) {
    await service.edit({ [file]: [[before, after]] });
    const { names } = service.run(text), verdicts = service.compareWithRight();
    firsts[name] = names.map(([name]) => name).find((name) => verdicts[name].kind !== "identical") ?? "";
  }
  await service.edit({});
  service.run(text);
  return { firsts, before: service.before };
}"""
# The same on two texts of different lengths, without a cache, as the mutants of Python are run.
PADDED = """async ({ root, name, record, rows, mistakes }) => {
  const { modules } = await import(`${root}javascripts/live/modules.js`);
  const { compare } = await import(`${root}javascripts/live/compare.js`);
  const at = (file) => fetch(`${root}live/models/${name}/${file}`);
  const config = await (await at("config.json")).json();
  const weights = await (await at("model.safetensors")).arrayBuffer();
  const tensorOf = (rows) => ({ shape: [rows.length, rows[0].length], data: Int32Array.from(rows.flat()) });
  const batch = Object.fromEntries(Object.entries(rows).map(([key, value]) => [key, tensorOf(value)]));
  const run = async (edits) => {
    const code = await modules(edits), recorder = new code.weights.Recorder();
    const tensors = code.weights.readSafetensors(weights);
    const { forward, model } = await code.models.open(config, tensors, recorder.tap);
    forward(batch, model);
    return recorder.tensors;
  };
  const right = await run({}), firsts = {};
  for (const { name, file, before, after } of mistakes) {
    const wrong = await run({ [file]: [[before, after]] });
    const same = (key) => compare(wrong.get(key), right.get(key)).kind === "identical";
    firsts[name] = [...right.keys()].find((key) => !same(key)) ?? "";
  }
  return firsts;
}"""


def test_the_data_is_what_follows_from_the_mutants() -> None:
    assert mistakes.FILE.read_text(encoding="utf-8") == mistakes.text()


def test_there_are_enough_and_each_shows(figure: Callable[[str], None]) -> None:
    everything = CATALOGUE["mistakes"]
    assert len({one["name"] for one in everything}) == len(everything) >= 40
    assert min(map(len, MISTAKES.values())) >= 10
    for one in everything:
        source = (mistakes.REBUILD / one["file"]).read_text(encoding="utf-8")
        assert source.count(one["before"]) == 1, one["name"]
        assert one["first"], f"{one['name']} changes no number of its page"
    counts = ", ".join(f"{name} {len(of)}" for name, of in MISTAKES.items())
    figure(f"mistakes as switches: {len(everything)} ({counts}), of {len(CATALOGUE['causes'])} causes")


@pytest.fixture(scope="module")
def page_of_modules(live: Site, browser: Any) -> Any:
    """One page for all mistakes: only its modules are used."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(live.url + "start/")
    yield page
    context.close()


def asked(live: Site, name: str, some: list[dict[str, Any]]) -> dict[str, Any]:
    record = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    of = [{key: one[key] for key in mistakes.BY_HAND} for one in some]
    return {"root": live.url, "name": name, "record": record, "mistakes": of}


@pytest.fixture(params=[3, pytest.param(1, marks=pytest.mark.weekly)])
def every(request: pytest.FixtureRequest) -> int:
    """One of so many mistakes is made."""
    return int(request.param)


@pytest.mark.parametrize("name", PAGES)
def test_each_is_first_seen_where_its_mutant_is(
    live: Site, page_of_modules: Page, name: str, every: int, figure: Callable[[str], None]
) -> None:
    text, some = SENTENCES[name][0], MISTAKES[name][::every]
    answer = page_of_modules.evaluate(IN_THE_PAGE, {**asked(live, name, some), "text": text})
    assert answer["firsts"] == {one["name"]: one["first"] for one in some}
    assert answer["before"] is None
    figure(f"{name}: {len(answer['firsts'])} of {len(answer['firsts'])} first red cells are the mutants'")


@pytest.mark.parametrize("name", PAGES)
def test_so_it_is_with_padding_and_without_a_cache(
    live: Site, page_of_modules: Page, name: str, every: int
) -> None:
    some = MISTAKES[name][every // 2 :: every]
    batch = mutants.scene(miniature(name), texts=TEXTS[name]).truth.inputs.batch
    rows = {"tokenIds": batch.token_ids.tolist(), "mask": batch.mask.long().tolist()}
    if batch.decoder_ids is not None:
        rows |= {"decoderIds": ids(batch.decoder_ids), "decoderMask": ids(batch.decoder_mask.long())}
    firsts = page_of_modules.evaluate(PADDED, {**asked(live, name, some), "rows": rows})
    python = mistakes.mutants()
    assert firsts == {one["name"]: python[one["name"]].first for one in some}


# ---------------------------------------------------------------------------------------- in the page


@pytest.fixture(scope="module")
def visitor(browser: Browser) -> Iterator[Reader]:
    """One window for all: a page that is opened in it again costs half."""
    with_window = Reader(browser, viewport=DESKTOP, reduced_motion="reduce", color_scheme="light")
    yield with_window
    assert with_window.errors == []
    assert with_window.outside == []
    with_window.context.close()


def opened(visitor: Reader, live: Site, name: str, hash: str) -> Page:
    visitor.page.goto("about:blank")
    visitor.page.set_viewport_size(DESKTOP)
    visitor.page.emulate_media(color_scheme="light")
    page: Page = visitor.open(f"{live.url}live/{PAGES[name]}/{hash}")
    page.locator("[data-part=map]").scroll_into_view_if_needed()
    page.locator("[data-part=map][data-started=done]").wait_for()
    page.locator("[data-part=mistakes][data-started=done]").wait_for()
    answered(page, SENTENCES[name][0])
    return page


def kinds(page: Page) -> list[str]:
    cells = page.locator("a.cell").evaluate_all("(all) => all.map((cell) => cell.className.split(' ')[1])")
    return [str(kind) for kind in cells]


def names(page: Page) -> list[str]:
    cells = page.locator("a.cell").evaluate_all("(all) => all.map((cell) => cell.hash.slice(1))")
    return [str(name) for name in cells]


BROKEN = {
    "minilm": "minilm-key-bias-from-query", "gpt2": "gpt2-gelu-exact", "t5-small": "t5-scaled",
    "llama": "llama-kv-heads-tiled",
}  # fmt: skip


@pytest.mark.parametrize("name", LIVE)
def test_an_address_breaks_it_and_there_is_a_way_back(live: Site, visitor: Reader, name: str) -> None:
    page = opened(visitor, live, name, f"#break={BROKEN[name]}")
    page.locator(".mistake:visible .says-now").wait_for()
    mistake = next(one for one in MISTAKES[name] if one["name"] == BROKEN[name])
    at = names(page).index(mistake["first"])
    assert set(kinds(page)[:at]) <= {"identical"}
    assert kinds(page)[at] in {"wrong", "missing"}
    said = page.locator(".mistake").text_content()
    for words in (*mistake["javascript"][1].split("\n"), *mistake["python"][2].split("\n")):
        assert words in said
    assert page.locator(".mistake svg.depth rect").count() == len(names(page))
    page.locator(".mistake a", has_text=mistake["first"]).first.click()
    page.wait_for_function(
        "first => document.querySelector('.tensor h3').textContent === first", arg=mistake["first"]
    )
    assert page.locator(".tensor [role=switch][aria-checked=true]").count() == 1
    page.get_by_role("button", name="Repair it").click()
    page.locator(".mistake").wait_for(state="hidden")
    page.wait_for_function("document.querySelectorAll('a.cell.wrong, a.cell.missing').length === 0")
    assert page.evaluate("location.hash") == ""
    assert visitor.errors == []
    assert visitor.outside == []


def test_the_tensor_has_both_sides_and_their_difference(live: Site, visitor: Reader) -> None:
    page = opened(visitor, live, "gpt2", "#break=gpt2-scale-missing")
    page.locator(".mistake:visible").wait_for()
    page.locator(".tensor figcaption", has_text="difference").wait_for()
    captions = page.locator(".tensor figcaption").all_text_contents()
    assert captions[-3:] == ["computed here", "with the mistake", "difference"]


def test_a_mistake_that_no_answer_shows(live: Site, visitor: Reader) -> None:
    """The key's bias falls out of the softmax: the vector is the right one, and most cells are wrong."""
    page = opened(visitor, live, "minilm", "#break=minilm-key-bias-from-query")
    page.locator(".mistake:visible .says-now").wait_for()
    assert "1.000 to the right vector" in page.locator(".says-now").text_content()
    assert "Who looks at answers only sees nothing." in page.locator(".says-now").text_content()


@pytest.mark.parametrize("name", LIVE)
def test_a_mistake_is_to_be_found(live: Site, visitor: Reader, name: str) -> None:
    page = opened(visitor, live, name, "#find=7")
    game = page.locator(".game")
    game.get_by_text("Mistake number 7").wait_for()
    assert not set(kinds(page)) & {"wrong", "missing", "identical"}  # nothing is given away
    assert page.locator(".mistake").is_hidden()
    # Halving, by what the page answers.
    all_names = names(page)
    low, high, looks = 0, len(all_names) - 1, 0
    while low < high:
        middle = (low + high) // 2
        choose(page, all_names[middle])
        game.get_by_role("button", name="Compare the chosen cell").click()
        looks += 1
        game.get_by_text(f"{looks} so far").wait_for()
        wrong = "is wrong" in game.locator(".answer").text_content()
        low, high = (low, middle) if wrong else (middle + 1, high)
    if low:
        choose(page, all_names[low - 1])
        game.get_by_role("button", name="It begins at the chosen cell").click()
        game.get_by_text("it is right still").wait_for()
    choose(page, all_names[low])
    game.get_by_role("button", name="It begins at the chosen cell").click()
    game.locator("fieldset").wait_for()
    for button in range(game.locator("fieldset button").count()):
        game.locator("fieldset button").nth(button).click()
        game.get_by_text("Found, with").or_(game.get_by_text("another mistake")).wait_for()
        if game.get_by_text("Found, with").count():
            break
    page.locator(".mistake:visible .says-now").wait_for()
    assert f"Found, with {looks} comparisons" in game.text_content()
    assert all_names[low] in page.locator(".mistake").text_content()
    assert visitor.errors == []


def choose(page: Page, name: str) -> None:
    page.evaluate("name => document.querySelector(`a.cell[href='#${name}']`).click()", name)
    page.wait_for_function("name => document.querySelector('.tensor h3')?.textContent === name", arg=name)


def test_there_is_no_barrier_of_any_kind(live: Site, visitor: Reader) -> None:
    page = opened(visitor, live, "t5-small", "#break=t5-silu")
    page.locator(".mistake:visible .says-now").wait_for()
    page.locator(".breaking summary").click()
    page.get_by_text("The differences as a table").click()
    page.locator(".mistake td").first.wait_for()
    assert barriers(page) == []
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("document.body.dataset.mdColorScheme === 'slate'")
    assert barriers(page, []) == []
    assert visitor.on_a_phone() == []
    assert barriers(page, OF_A_PHONE, colours=False) == []
    page.get_by_role("button", name="Give me a mistake to find").click()
    page.locator(".game fieldset, .game .controls").first.wait_for()
    assert barriers(page, within=".game") == []
    assert visitor.errors == []


def test_the_keyboard_breaks_and_repairs(live: Site, visitor: Reader) -> None:
    page = opened(visitor, live, "gpt2", "")
    page.locator(".breaking summary").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('role')") == "switch"
    page.keyboard.press("Space")
    page.locator(".mistake:visible .says-now").wait_for()
    page.wait_for_function("document.activeElement.getAttribute('aria-checked') === 'true'")
    page.keyboard.press("Space")
    page.locator(".mistake").wait_for(state="hidden")


def test_an_address_that_names_no_mistake_breaks_nothing(live: Site, visitor: Reader) -> None:
    for hash in (
        "?break=no-such",
        "#break=",
        "#find=x",
        "#find=99999999",
        "#break=t5-scaled",
        "#break=%00<b>",
    ):
        page = opened(visitor, live, "gpt2", hash)
        assert page.locator(".mistake").is_hidden()
        assert page.locator(".game").is_hidden()
    assert visitor.errors == []


def test_the_catalogue_leads_to_each_mistake_that_has_a_switch() -> None:
    page = (mistakes.PROJECT / "docs" / "part-4" / "mistakes.md").read_text(encoding="utf-8")
    linked = re.findall(r"\]\(\.\./live/(\w+)\.md\?break=([\w-]+)\)", page)
    models = {name: PAGES[one["model"]] for one in CATALOGUE["mistakes"] if (name := one["name"])}
    assert [(address, name) for address, name in linked if models.get(name) != address] == []
    causes = {one["name"]: one["cause"] for one in CATALOGUE["mistakes"]}
    assert {causes[name] for _, name in linked} == set(CATALOGUE["causes"])


def test_the_hero_is_no_picture_before_it_has_a_name(live: Site, reader: Any) -> None:
    """Where what it waits for never comes."""
    page = reader().page
    page.route("**/data/mistakes.json", lambda route: None)
    page.goto(live.url)
    page.locator(".hero-map").wait_for(state="attached")
    assert page.locator("[role=img]:not([aria-label])").count() == 0


def test_the_home_page_s_model_can_be_broken(live: Site, reader: Any) -> None:
    visitor = reader()
    page = visitor.open(live.url)
    switches = page.locator("[data-part=hero] [role=switch]")
    switches.nth(2).wait_for()
    for number in range(3):
        switches.nth(number).click()
        page.locator("[data-part=hero] .wrong-count").wait_for()
        page.wait_for_function(
            "number => document.querySelectorAll('[role=switch]')[number].ariaChecked === 'true'", arg=number
        )
        assert page.locator(".hero-map .cell.wrong").count() > 30
        assert page.locator(".hero-map .cell.identical").count() > 3
    assert barriers(page) == []
    switches.nth(2).click()
    page.locator(".wrong-count").wait_for(state="detached")
    assert page.locator(".hero-map .cell.wrong").count() == 0
    assert visitor.errors == []


def test_two_checkpoints_and_two_sentences_stand_side_by_side(live: Site, visitor: Reader) -> None:
    page = opened(visitor, live, "gpt2", "#h.0.attn.probs")
    page.get_by_role("button", name="Pin this one").click()
    page.locator(".pinned canvas[role=img]").first.wait_for()
    choose(page, "h.1.attn.probs")
    captions = page.locator(".pinned figcaption").all_text_contents()
    assert captions[-2:] == ["pinned", "difference"]
    choose(page, "h.1.ln_1")  # of another shape
    assert page.locator(".pinned figcaption").all_text_contents()[-1] == "pinned"
    page.get_by_label("Your sentence").fill(SENTENCES["gpt2"][1])
    answered(page, SENTENCES["gpt2"][1])
    choose(page, "h.0.attn.probs")
    assert SENTENCES["gpt2"][0] in page.locator(".pinned").text_content()
    assert barriers(page) == []
    page.get_by_role("button", name="Let the pinned one go").click()
    page.locator(".pinned").wait_for(state="detached")
    assert visitor.errors == []
