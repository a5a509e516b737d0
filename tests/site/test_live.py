"""The live pages in a browser: they compute on one's own sentence, and everybody can use them."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from llm_rebuild import verify
from llm_rebuild.copies.local_copy import MINIATURES, LocalCopy
from llm_rebuild.diagnosis.mutants import Mutant, mutated
from llm_rebuild.models import RECORDS
from llm_rebuild.using.embedding import embed
from llm_rebuild.using.generate import Settings, generate
from tools.live import SENTENCES

from .conftest import DESKTOP, OF_A_PHONE, PHONE, Reader, Site, barriers

Alive = Callable[[str], Reader]
PAGES = {record.published: record.file for record in RECORDS}
LIVE = ["minilm", "gpt2", "t5-small", pytest.param("llama", marks=pytest.mark.weekly)]  # with GPT-2's parts
CELLS = {"minilm": 64, "gpt2": 78, "t5-small": 244, "llama": 136}
ENDS = {  # its first cell, and its last
    "minilm": ("embeddings.word_embeddings", "sentence.embedding"),
    "gpt2": ("wte", "lm_head"),
    "t5-small": ("encoder.embed_tokens", "lm_head"),
    "llama": ("model.embed_tokens", "lm_head"),
}
MOST_SCRIPT = 120_000  # bytes of a live page's JavaScript, compressed
TYPE = """text => {
  const field = document.querySelector("[data-part=sentence] input[type=text]");
  field.value = text;
  field.dispatchEvent(new Event("input"));
}"""
FOLLOW = """() => {  // from here on: where the focus is behind each key
  if (!window.reached) addEventListener("keyup", () => reached.push(document.activeElement), true);
  window.reached = [];
  return document.activeElement.getAttribute("href")?.slice(1);
}"""
HOSTILE = "<img src=x onerror='window.hit=1'><script>window.hit=1</script>"


def opened(visitor: Reader, live: Site, name: str, hash: str = "") -> Page:
    """A live page that has answered its first sentence, every part of it brought to life."""
    page = visitor.open(f"{live.url}live/{PAGES[name]}/{hash}")
    for box in page.locator("[data-live]").all():
        box.scroll_into_view_if_needed()
        box.and_(page.locator("[data-started=done]")).wait_for(state="attached")
    answered(page, SENTENCES[name][0])
    return page


@pytest.fixture(scope="module")
def windows(browser: Browser, live: Site) -> Iterator[dict[str, Reader]]:
    """The live pages, each opened once, for all the tests that put back what they change."""
    opened_once: dict[str, Reader] = {}
    yield opened_once
    for visitor in opened_once.values():
        visitor.context.close()


@pytest.fixture
def alive(browser: Browser, live: Site, windows: dict[str, Reader]) -> Alive:
    """`alive("gpt2").page`: a live page on its first sentence. Where a test left off, it is put back."""

    def window(name: str) -> Reader:
        if name not in windows:
            windows[name] = Reader(browser, viewport=DESKTOP, reduced_motion="reduce", color_scheme="light")
            opened(windows[name], live, name)
        page = windows[name].page
        page.set_viewport_size(DESKTOP)
        page.emulate_media(color_scheme="light")
        if page.get_by_role("button", name="Back to the sentence").is_visible():  # from a capture
            page.get_by_role("button", name="Back to the sentence").click()
        if page.get_by_role("button", name="Back to the miniature").is_visible():
            page.get_by_role("button", name="Back to the miniature").click()
            page.get_by_text("trained for this course").wait_for()
        if page.locator("[data-part=sentence]").get_attribute("data-answered") != SENTENCES[name][0]:
            page.evaluate(TYPE, SENTENCES[name][0])
            answered(page, SENTENCES[name][0])
        page.locator("[value=verdicts]:not(:disabled)").wait_for(state="attached")
        return windows[name]

    return window


def script_of(visitor: Reader, live: Site) -> int:
    """How many bytes of JavaScript were fetched, compressed."""
    files = {url.partition("#")[0] for url in visitor.requests if url.partition("?")[0].endswith(".js")}
    assert any(url.endswith("/ops.js") for url in files)  # the worker's are among them
    contents = [(live.root / url.removeprefix(live.url)).read_bytes() for url in files]
    return sum(len(gzip.compress(content)) for content in contents)


def copy_of(name: str) -> LocalCopy:
    return LocalCopy(name, MINIATURES / name, "miniature")


def answered(page: Page, text: str) -> None:
    page.wait_for_function(
        "text => [...document.querySelectorAll('[data-live]')].every((box) => box.dataset.answered === text)",
        arg=text,
    )


@pytest.mark.parametrize("name", PAGES)
def test_it_computes_every_checkpoint_and_says_how_near_to_the_official_ones(
    live: Site, alive: Alive, name: str, figure: Callable[[str], None]
) -> None:
    visitor = alive(name)
    page = visitor.page
    assert page.locator("a.cell").count() == CELLS[name]
    page.get_by_label("how near to the official tensors").check()
    kinds = page.locator("a.cell").evaluate_all("(all) => all.map((cell) => cell.className.split(' ')[1])")
    assert set(kinds) == {"identical", "near"}
    figure(f"live {name}: {kinds.count('identical')} of {len(kinds)} bit-identical, the others rounding")
    figure(f"live {name}: {script_of(visitor, live):,} bytes of JavaScript with all parts, compressed")
    assert visitor.outside == []
    assert visitor.errors == []


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_likeliest_next_token_is_python_s(alive: Alive, name: str) -> None:
    page = alive(name).page
    copy = copy_of(name)
    for text in SENTENCES[name][1:]:
        page.get_by_label("Your sentence").fill(text)
        answered(page, text)
        page.wait_for_function("document.querySelector('.bars tbody code')")
        [whole] = generate(copy, text, Settings(max_new_tokens=1)).texts
        assert page.locator(".bars tbody code").first.text_content() == whole[len(text) :].replace(" ", "·")


def test_nothing_is_loaded_before_it_comes_into_view(live: Site, reader: Any) -> None:
    visitor = reader()
    page = visitor.open(live.url + "below/")
    page.wait_for_timeout(300)
    assert page.locator("[data-live]").text_content() == "as a picture"
    assert [url for url in visitor.requests if "/live/models/" in url or "/live/data/" in url] == []
    page.locator("[data-live]").scroll_into_view_if_needed()
    page.locator(".bars tbody tr").first.wait_for()
    assert len([url for url in visitor.requests if url.endswith("model.safetensors")]) == 1


SHIFTS = """window.moved = 0;
new PerformanceObserver((list) => list.getEntries().forEach(({ value }) => (window.moved += value)))
  .observe({ type: "layout-shift", buffered: true });"""


@pytest.mark.parametrize("name", LIVE)
def test_nothing_moves_when_a_page_comes_to_life_and_its_scripts_are_small(
    live: Site, reader: Any, name: str, figure: Callable[[str], None]
) -> None:
    for size in (DESKTOP, PHONE):
        visitor = reader(viewport=size)
        page = visitor.page
        page.add_init_script(SHIFTS)
        page.goto(f"{live.url}live/{PAGES[name]}/")
        page.locator("[data-part=sentence][data-answered]").wait_for()
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 100)))")
        assert page.evaluate("window.moved") < 0.05
        if size == DESKTOP:
            page.locator("[data-part=map][data-answered]").wait_for()
            first = script_of(visitor, live)
            figure(f"live {name}: {first:,} bytes of JavaScript, compressed")
            assert first < MOST_SCRIPT


def test_an_address_leads_to_a_checkpoint(live: Site, reader: Any) -> None:
    page = opened(reader(), live, "gpt2", "#h.1.attn.scores")
    assert page.locator(".tensor h3").text_content() == "h.1.attn.scores"
    page.locator(".tensor a", has_text="h.1.attn.scaled").click()
    page.wait_for_function("document.querySelector('.tensor h3').textContent === 'h.1.attn.scaled'")
    assert page.evaluate("location.hash") == "#h.1.attn.scaled"


@pytest.mark.parametrize("name", LIVE)
def test_there_is_no_barrier_of_any_kind(alive: Alive, name: str) -> None:
    visitor = alive(name)
    page = visitor.page
    page.get_by_label("what it is").check()
    page.locator("a.cell[href$='.probs']").last.click()  # which has many columns with long names
    page.locator(".tensor .numbers summary").click()
    page.locator(".tensor .numbers td").first.wait_for()
    assert barriers(page) == []
    page.get_by_label("how near to the official tensors").check()
    assert barriers(page, within="[data-part=map]") == []
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("document.body.dataset.mdColorScheme === 'slate'")
    assert barriers(page, []) == []
    page.locator(".tensor .numbers").evaluate("(fold) => (fold.open = true)")  # closed meanwhile
    page.locator(".tensor .numbers td").first.wait_for()
    assert visitor.on_a_phone() == []
    assert barriers(page, OF_A_PHONE, colours=False) == []
    assert visitor.errors == []


@pytest.mark.parametrize("name", PAGES)
def test_every_cell_and_every_control_is_reached_by_the_keyboard(
    alive: Alive, name: str, figure: Callable[[str], None]
) -> None:
    page = alive(name).page
    assert page.locator('a.cell[tabindex="0"]').count() == 1
    page.locator('a.cell[tabindex="0"]').focus()
    page.keyboard.press("Home")
    cells = [page.evaluate(FOLLOW)]
    for _ in range(CELLS[name] - 1):
        page.keyboard.press("ArrowRight")
    cells += page.evaluate("reached.map((one) => one.getAttribute('href').slice(1))")
    assert len(set(cells)) == CELLS[name]
    assert (cells[0], cells[-1]) == ENDS[name]
    assert cells == page.locator("a.cell").evaluate_all("all => all.map(one => one.hash.slice(1))")
    page.keyboard.press("ArrowUp")
    above = page.evaluate("document.activeElement.getAttribute('href').slice(1)")
    assert above != cells[-1]
    page.keyboard.press("Enter")
    page.wait_for_function(
        "name => document.querySelector('.tensor h3').textContent.startsWith(name)", arg=above
    )
    page.evaluate("document.querySelector('.live input').focus()")
    page.evaluate(FOLLOW)
    for _ in range(120):
        page.keyboard.press("Tab")
    page.evaluate("for (const one of reached) one.dataset.stop = 'yes'")
    left = page.locator(".live :is(button, input, select, summary):visible:not(:disabled):not([data-stop])")
    missed = left.evaluate_all(
        "(all) => all.filter((one) => one.type !== 'radio').map((one) => one.outerHTML)"
    )
    assert [html for html in missed if 'type="text"' not in html] == []  # where the walk began
    stops = page.locator(".live [data-stop]").count()
    figure(f"live {name} by keyboard: {len(cells)} cells and {stops} controls, none missed")


# ------------------------------------------------------------------------------------ as in Python


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_beam_search_is_python_s(alive: Alive, name: str) -> None:
    page = alive(name).page
    copy, text = copy_of(name), SENTENCES[name][0]
    for beams in (5, 3):
        page.get_by_label("beams", exact=True).fill(str(beams))
        [whole] = generate(copy, text, Settings(max_new_tokens=6, beams=beams)).texts
        said = f"“{whole[len(text) :].strip()}”"
        page.wait_for_function(
            "said => document.querySelector('[data-part=beams] .note-line b')?.textContent === said", arg=said
        )
    assert page.locator("[data-part=beams] path.won").count() == 6


def test_a_translation_is_python_s(alive: Alive) -> None:
    page = alive("t5-small").page
    for text in SENTENCES["t5-small"]:
        page.get_by_label("Your sentence").fill(text)
        answered(page, text)
        [answer] = generate(copy_of("t5-small"), text).texts
        assert page.locator("[data-part=crossing] .written strong").text_content() == answer


def test_similarities_are_python_s(alive: Alive) -> None:
    page = alive("minilm").page
    texts = ["The cook sleeps.", "A cook is asleep.", "Ten lamps"]
    page.locator("textarea").fill("\n".join(texts))
    page.wait_for_function("document.querySelectorAll('.matrix tbody tr').length === 3")
    vectors = embed(copy_of("minilm"), texts).embeddings
    cells = page.locator(".matrix tbody td").all_text_contents()
    expected = (vectors @ vectors.T).flatten().tolist()
    assert [abs(float(cell) - value) <= 0.0051 for cell, value in zip(cells, expected, strict=True)] == [
        True
    ] * 9


def test_the_cache_is_counted(alive: Alive) -> None:
    """Seven tokens and two more: in three passes 7 + 1 + 1 are read, and without a cache 7 + 8 + 9."""
    page = alive("gpt2").page
    said = page.locator("[data-part=write] .cache .note-line").last
    assert "the decoder read 9 tokens anew" in said.text_content()
    assert "would have read 24: 15 were not computed again" in said.text_content()
    page.get_by_role("slider", name="Pass by pass").fill("1")
    assert "0 were not computed again" in said.text_content()


# ------------------------------------------------------------------------------ files of one's own


def choose(page: Page, *paths: Path) -> None:
    field = "input[webkitdirectory]" if paths[0].is_dir() else "input[accept]"
    page.locator(field).set_input_files(paths[0] if len(paths) == 1 else list(paths))


def refused(page: Page) -> str:
    problem = page.locator("[data-part=sentence] .live-problem:not([hidden])")
    problem.wait_for()
    return str(problem.text_content())


@pytest.mark.parametrize("name", PAGES)
def test_a_copy_of_one_s_own_runs_and_nothing_leaves_the_machine(
    alive: Alive, name: str, tmp_path: Path
) -> None:
    visitor = alive(name)
    page = visitor.page
    folder = tmp_path / "my-model"
    shutil.copytree(MINIATURES / name, folder)
    before = len(visitor.requests)
    choose(page, folder)
    page.get_by_text("Your copy, my-model").wait_for()
    assert page.locator("a.cell").count() == CELLS[name]
    assert [url for url in visitor.requests[before:] if not url.endswith(".js")] == []
    page.get_by_role("button", name="Back to the miniature").click()
    page.get_by_text("trained for this course").wait_for()
    assert visitor.errors == []


def header_of(file: Path) -> tuple[dict[str, Any], bytes]:
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """The weight file with another header."""
    file = folder / "model.safetensors"
    header, numbers = header_of(file)
    change(header)
    data = json.dumps(header).encode()
    file.write_bytes(len(data).to_bytes(8, "little") + data + numbers)


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def huge(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(4_100_000_000)  # a hole: it takes no room


def edited(field: str, value: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {field: value}))

    return edit


Faults = dict[str, tuple[Callable[[Path], object], str]]
FAULTS: Faults = {
    "cut": (cut, "it is cut off, or not what it says"),
    "empty": (lambda folder: (folder / "model.safetensors").write_bytes(b""), "model.safetensors is empty"),
    "no header": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 500),
        "its header is longer than the file",
    ),
    "huge": (huge, "this page reads up to 1.9 GB"),
    "other shape": (lambda folder: with_header(folder, lambda h: h["wpe.weight"].update(shape=[96, 192])),
                    "wpe.weight has the shape [96,192], config.json says [192,96]"),
    "offsets beyond": (
        lambda folder: with_header(folder, lambda h: h["wpe.weight"].update(data_offsets=[0, 10**12])),
        "its header speaks of",
    ),
    "laid over": (
        lambda folder: with_header(
            folder, lambda h: h["h.0.ln_1.bias"].update(data_offsets=h["h.1.ln_1.bias"]["data_offsets"])
        ),
        "tensors lie over each other in the file",
    ),
    "no place": (
        lambda folder: with_header(folder, lambda h: h["wpe.weight"].update(data_offsets=[0] * 200_000)),
        "wpe.weight has no shape or no place",
    ),
    "heads that do not share": (edited("n_head", 5), "n_head is 5, which does not divide n_embd 96"),
    "absent": (lambda folder: with_header(folder, lambda h: h.pop("h.1.ln_1.bias")),
               "lacks h.1.ln_1.bias"),
    "half": (lambda folder: with_header(folder, lambda h: h["wpe.weight"].update(dtype="F16")),
             "wpe.weight is F16; this page works in float32"),
    "other model": (edited("model_type", "llama"), '"llama"; this page takes GPT-2 apart'),
    "other size": (edited("n_layer", 5), "lacks h.3.ln_1.weight"),
    "a billion blocks": (edited("n_layer", 10**9), "1,000,000,000 blocks"),
    "no object": (
        lambda folder: (folder / "config.json").write_text("[]"), "config.json is not what it should be",
    ),
    "no model": (
        lambda folder: (folder / "model.safetensors").unlink(), "There is no model in what you chose",
    ),
    "a pickle": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        "files such as .bin can hold programs",
    ),
    "two models": (
        lambda folder: [shutil.copytree(MINIATURES / name, folder / name) for name in ("gpt2", "minilm")],
        "models in what you chose",
    ),
    "no vocabulary": (lambda folder: (folder / "merges.txt").unlink(), "the folder has no tokenizer"),
    "markup": (edited("activation_function", HOSTILE), "activation_function"),
}  # fmt: skip


def tokenizer(field: str, value: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        file = json.loads((folder / "tokenizer.json").read_text())
        (folder / "tokenizer.json").write_text(json.dumps(file | {field: value}))

    return edit


ROPE = {"rope_type": "yarn", "factor": 4.0}
FAULTS_OF_LLAMA: Faults = {
    "half": (
        lambda folder: with_header(folder, lambda h: h["lm_head.weight"].update(dtype="BF16")),
        "lm_head.weight is BF16; this page works in float32",
    ),
    "no head": (lambda folder: with_header(folder, lambda h: h.pop("lm_head.weight")), "lacks lm_head"),
    "other model": (edited("model_type", "gpt2"), '"gpt2"; this page takes Llama apart'),
    "other heads": (edited("num_key_value_heads", 3), "num_key_value_heads is 3, which does not divide"),
    "more heads": (edited("num_key_value_heads", 4), "has the shape [48,96], config.json says [96,96]"),
    "no head width": (edited("head_dim", 23), "head_dim is 23, expected an even number from 4"),
    "no number": (edited("head_dim", HOSTILE), "head_dim is"),
    "biases": (edited("attention_bias", True), "lacks model.layers.0.self_attn.q_proj.bias"),
    "a kind unheard of": (edited("rope_scaling", {"rope_type": HOSTILE}), "supports default, linear"),
    "no factor": (edited("rope_scaling", {"rope_type": "linear"}), "factor is null, expected a number"),
    "means nothing": (edited("rope_scaling", {"factor": 2.0}), "factor means nothing for rope_type"),
    "two kinds": (edited("rope_scaling", {**ROPE, "type": "linear"}), "it is one of them"),
    "half a head": (edited("partial_rotary_factor", 0.5), "this rebuild turns whole heads"),
    "quantised": (edited("quantization_config", {}), "quantization_config is {}"),
    "a million blocks": (edited("num_hidden_layers", 10**6), "1,000,000 blocks"),
    "other words": (
        tokenizer("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "(a+)+b"}}),
        "which no model here was published with",
    ),
    "no vocabulary": (lambda folder: (folder / "tokenizer.json").unlink(), "it needs tokenizer.json"),
}  # fmt: skip


@pytest.mark.parametrize(("model", "faults"), [("gpt2", FAULTS), ("llama", FAULTS_OF_LLAMA)])
def test_a_folder_at_fault_is_refused_with_a_sentence(
    alive: Alive, tmp_path: Path, model: str, faults: Faults
) -> None:
    visitor = alive(model)
    page = visitor.page
    for name, (fault, words) in faults.items():
        folder = tmp_path / name
        shutil.copytree(MINIATURES / model, folder)
        fault(folder)
        page.evaluate("document.querySelector('[data-part=sentence] .live-problem').textContent = ''")
        choose(page, folder)
        page.wait_for_function(
            "document.querySelector('[data-part=sentence] .live-problem').textContent !== ''"
        )
        said = refused(page)
        assert words in said, f"{name}: {said}"
        assert len(said) < 400, name
        assert "should not" not in said, f"{name}: {said}"
    page.get_by_label("Your sentence").fill("The cook")  # the miniature is still there
    answered(page, "The cook")
    assert page.evaluate("window.hit === undefined")
    assert visitor.errors == []


POOLING, NETWORK = "1_Pooling/config.json", "sentence_bert_config.json"
OTHER_SENTENCES: dict[str, tuple[str, object, str]] = {
    "cls": (POOLING, {"pooling_mode": "cls"}, "asks for cls"),
    "max, older": (POOLING, {"pooling_mode_max_tokens": True}, "asks for pooling_mode_max_tokens"),
    "two": (POOLING, {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, "mean"),
    "a layer more": ("modules.json", [{"type": "a.Transformer"}, {"type": "a.Dense"}], "Transformer, Dense"),
    "no list": ("modules.json", {}, "modules.json is not what it should be"),
    "markup in it": (POOLING, {"pooling_mode": HOSTILE}, "asks for <img"),
    "length": (NETWORK, {"max_seq_length": 0}, "max_seq_length is 0, expected a whole number from 2"),
    "case": (NETWORK, {"do_lower_case": 1}, "do_lower_case is 1, expected true or false"),
    "task": (NETWORK, {"transformer_task": "fill-mask"}, 'transformer_task is "fill-mask"'),
    "prompt": (
        "config_sentence_transformers.json",
        {"default_prompt_name": "a"},
        'default_prompt_name is "a"',
    ),
}


def test_a_sentence_s_vector_is_made_as_the_folder_says_or_not_at_all(alive: Alive, tmp_path: Path) -> None:
    visitor = alive("minilm")
    page = visitor.page
    for name, (file, content, words) in OTHER_SENTENCES.items():
        folder = tmp_path / name
        shutil.copytree(MINIATURES / "minilm", folder)
        (folder / file).write_text(json.dumps(content))
        page.evaluate("document.querySelector('[data-part=sentence] .live-problem').textContent = ''")
        choose(page, folder)
        page.wait_for_function(
            "document.querySelector('[data-part=sentence] .live-problem').textContent !== ''"
        )
        assert words in refused(page), name
    assert page.evaluate("window.hit === undefined")


PIPELINES: dict[str, dict[str, dict[str, object]]] = {
    "shorter": {NETWORK: {"max_seq_length": 6}},
    "an older name": {NETWORK: {}, "sentence_roberta_config.json": {"max_seq_length": 7}},
    "the tokenizer's length": {
        NETWORK: {"max_seq_length": None},
        "tokenizer_config.json": {"model_max_length": 9},
    },
    "as it is written": {"tokenizer_config.json": {"do_lower_case": False}},
    "lower-cased first": {
        NETWORK: {"do_lower_case": True, "max_seq_length": 128},
        "tokenizer_config.json": {"do_lower_case": False},
    },
    "a prompt": {
        "config_sentence_transformers.json": {
            "prompts": {"query": "the lamp "},
            "default_prompt_name": "query",
        }
    },
}


def test_a_sentence_becomes_tokens_as_the_folder_s_files_say(alive: Alive, tmp_path: Path) -> None:
    page = alive("minilm").page
    for name, files in PIPELINES.items():
        folder = tmp_path / name
        shutil.copytree(MINIATURES / "minilm", folder)
        for file, content in files.items():
            path = folder / file
            whole = json.loads(path.read_text()) if path.exists() and content else {}
            path.write_text(json.dumps(whole | content))
        if not json.loads((folder / "tokenizer_config.json").read_text())["do_lower_case"]:
            whole = json.loads((folder / "tokenizer.json").read_text())
            whole["normalizer"]["lowercase"] = False  # the two files must say the same
            (folder / "tokenizer.json").write_text(json.dumps(whole))
        choose(page, folder)
        page.get_by_text(f"Your copy, {name}").wait_for()
        text = f"A Stranger came to the Market with {name}"  # another each time: this answer
        page.get_by_label("Your sentence").fill(text)
        answered(page, text)
        [official] = verify.ask(LocalCopy("minilm", folder, "folder"), text).inputs.rows
        shown = [int(id) for id in page.locator(".tokens li small").all_text_contents()]
        assert shown == official, name


def test_weights_may_have_the_names_of_long_ago(alive: Alive, tmp_path: Path) -> None:
    page = alive("minilm").page
    folder = tmp_path / "long-ago"
    shutil.copytree(MINIATURES / "minilm", folder)

    def older(header: dict[str, Any]) -> None:
        for key in [key for key in header if "LayerNorm." in key]:
            name = key.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            )
            header[f"bert.{name}"] = header.pop(key)

    with_header(folder, older)
    choose(page, folder)
    page.get_by_text("Your copy, long-ago").wait_for()
    assert page.locator("a.cell").count() == CELLS["minilm"]


# ------------------------------------------------------------------------------- reports and captures


def reports(folder: Path) -> Iterable[tuple[str, object, str]]:
    with mutated([Mutant("m", "gpt2", "scaled = product * scale", "scaled = product", "", "")]):
        wrong = verify.prove(copy_of("gpt2"), "The cook", coverage=False)
    yield "wrong.json", wrong.report.to_json(), "They part at h.0.attn.scaled"
    hand = {"name": HOSTILE, "verdict": HOSTILE, "shape": [1, HOSTILE]}
    half = {"name": "h.0.\ud800", "verdict": "\udfff", "shape": []}
    yield "half.json", {"checkpoints": [half, half]}, "1 checkpoints, 0 bit-identical"
    yield "hand.json", {"checkpoints": [hand, None, 7, {"name": 3}]}, "1 checkpoints, 0 bit-identical"


def test_a_report_is_shown_on_the_map(alive: Alive, tmp_path: Path) -> None:
    visitor = alive("gpt2")
    page = visitor.page
    before = len(visitor.requests)
    for name, report, words in reports(tmp_path):
        (tmp_path / name).write_text(json.dumps(report))
        choose(page, tmp_path / name)
        page.locator("[data-part=map] .note-line", has_text=name).wait_for()
        assert words in page.locator("[data-part=map] .note-line").text_content()
        page.locator(".tensor:visible").wait_for()
    assert page.locator("a.cell").count() == 1
    assert page.locator(".tensor h3").text_content() == HOSTILE
    assert page.evaluate("window.hit === undefined")
    page.get_by_role("button", name="Back to the sentence").click()
    page.wait_for_function("document.querySelectorAll('a.cell').length === 78")
    for text in ("", "{", "[]", '{"checkpoints": 3}', '{"checkpoints": []}', "null"):
        (tmp_path / "no.json").write_text(text)
        page.evaluate("document.querySelector('[data-part=sentence] .live-problem').textContent = ''")
        choose(page, tmp_path / "no.json")
        page.wait_for_function(
            "document.querySelector('[data-part=sentence] .live-problem').textContent !== ''"
        )
        assert "report" in refused(page)
    assert [url for url in visitor.requests[before:] if not url.endswith(".js")] == []
    assert visitor.errors == []


def test_a_capture_is_shown_on_the_map(alive: Alive, tmp_path: Path) -> None:
    visitor = alive("gpt2")
    page = visitor.page
    verify.capture(verify.ask(copy_of("gpt2"), ["The cook", "A lamp in the"])).save(
        tmp_path / "c.safetensors"
    )
    choose(page, tmp_path / "c.safetensors")
    page.get_by_text("2 texts, of which the first is shown").wait_for()
    assert page.locator("a.cell").count() == 72  # without keys and values
    page.locator(".tensor canvas[role=img]").first.wait_for()
    choose(page, MINIATURES / "gpt2" / "model.safetensors")
    assert "This is no capture" in refused(page)
    assert visitor.errors == []


# ------------------------------------------------------------------------------------------ bad input

SENTENCES_AT_FAULT = [
    "x", "👩‍👩‍👧 🇩🇪 é", "שלום عالم", "\x00\x07\x1b[31m", HOSTILE, "<|endoftext|>", "\u2028",
]  # fmt: skip
LONG = {"minilm": "word " * 2000, "gpt2": "a" * 10_000, "t5-small": "a" * 10_000, "llama": "word " * 2000}


@pytest.mark.parametrize("name", LIVE)
def test_whatever_is_typed_there_is_an_answer_or_a_sentence(alive: Alive, name: str) -> None:
    visitor = alive(name)
    page = visitor.page
    for text in (*SENTENCES_AT_FAULT, LONG[name]):
        page.evaluate(TYPE, text)
        value = page.evaluate("document.querySelector('[data-part=sentence] input[type=text]').value")
        answered(page, value)
    page.evaluate(TYPE, SENTENCES[name][1])
    answered(page, SENTENCES[name][1])
    page.evaluate(TYPE.replace("field.value = text", "field.value = 'a\\ud800b'"), "")
    assert "surrogate" in refused(page)
    if name == "gpt2":
        page.evaluate(TYPE, "")
        page.wait_for_function(
            "document.querySelector('[data-part=sentence] .live-problem').textContent.includes('empty')"
        )
    page.evaluate(TYPE, SENTENCES[name][0])
    answered(page, SENTENCES[name][0])
    assert page.locator("[data-part=sentence] .live-problem").is_hidden()
    assert page.evaluate("window.hit === undefined && document.images.length === 0")
    assert visitor.errors == []
    assert visitor.outside == []


# ---------------------------------------------------------------------------- with less than usual


def test_without_workers_the_page_computes_itself(live: Site, reader: Any) -> None:
    visitor = reader()
    visitor.page.add_init_script("window.Worker = class { constructor() { throw new Error('refused'); } }")
    page = visitor.page
    page.goto(f"{live.url}live/gpt2/", wait_until="load")
    answered_map = page.locator("[data-part=sentence][data-answered]")
    answered_map.wait_for()
    page.get_by_label("Your sentence").fill("The cook")
    answered(page, "The cook")
    assert page.locator(".tokens li").count() > 1


def test_without_scripts_there_is_a_picture_and_a_sentence(live: Site, reader: Any) -> None:
    page = reader(java_script_enabled=False).page
    for name in PAGES.values():
        page.goto(f"{live.url}live/{name}/")
        assert page.get_by_text("needs JavaScript").is_visible()
        assert page.locator("[data-part=map] svg").is_visible()
