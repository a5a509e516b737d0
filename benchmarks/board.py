"""What was measured, as a page. Every number in it comes from the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.harness import NOT_INSTALLED, PEERS, Row

Rows = Sequence[Row]
Table = Callable[[Rows], list[str]]
WIDE = 0.15  # of a ratio: quartiles so far apart say more of what else the machine did


@dataclass(frozen=True)
class Section:
    """One benchmark on the page.

    words   What is measured, a paragraph.
    table   The lines of its rows.
    figure  A plot in docs/figures, where there is one.
    """

    title: str
    words: str
    table: Table
    figure: str = ""
    caption: str = ""


def number(value: float) -> str:
    """A ratio: two digits behind the point, or none where it is large."""
    return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


def seconds(value: float) -> str:
    """A time in the unit in which it is read best."""
    if value >= 1:
        return f"{value:,.2f} s"
    return f"{value * 1e3:,.1f} ms" if value >= 1e-3 else f"{value * 1e6:,.0f} µs"


def spread(row: Row) -> str:
    """A ratio with its quartiles, where there were rounds enough to have some. Where they are far apart it is
    none of the code's alone."""
    low, high = row["quartiles"]
    if row["rounds"] < 3:
        return number(row["ratio"])
    about = "≈ " if high - low > WIDE * row["ratio"] else ""
    return f"{about}{number(row['ratio'])} ({number(low)} to {number(high)})"


def table(head: Sequence[str], lines: Sequence[Sequence[object]]) -> list[str]:
    """A table of Markdown."""
    rows = [list(head), ["---"] * len(head), *([str(cell) for cell in line] for line in lines)]
    return [f"| {' | '.join(row)} |".replace("|  |", "| |") for row in rows]


def case(row: Row) -> str:
    """What was measured, in words: `GPT-2, 64 tokens, 1 text`."""
    words = []
    for key, value in row["case"].items():
        if isinstance(value, int):
            words.append(f"{value:,} {key.removesuffix('s') if value == 1 else key}")
        else:
            words.append(f"{value}")
    return ", ".join(words)


def plain(rows: Rows, more: Mapping[str, tuple[str, Callable[[Row], str]]] | None = None) -> list[str]:
    """A line a row: the case, both times, the ratio. `more` names further columns."""
    columns = dict(more or {})
    head = ["case", "what", "time", "beside", "time", "ratio", "rounds", *(t for t, _ in columns.values())]
    lines: list[list[object]] = []
    for row in rows:
        if "missing" in row:
            lines.append([case(row), row["what"], row["missing"], *[""] * (len(head) - 3)])
            continue
        further = [show(row) if key in row else "" for key, (_, show) in columns.items()]
        times = [seconds(row["seconds"]), row["baseline"], seconds(row["baseline_seconds"])]
        lines.append([case(row), row["what"], *times, spread(row), row["rounds"], *further])
    return table(head, lines)


# ---------------------------------------------------------------------------------- one by one


def forward(rows: Rows) -> list[str]:
    """A line for each model, attention and number of texts; a column for each number of tokens."""
    tokens = sorted({row["case"]["tokens"] for row in rows})
    shapes: dict[tuple[str, str, int], dict[int, Row]] = {}
    for row in rows:
        key = (row["case"]["model"], row["case"]["attention"], row["case"]["texts"])
        shapes.setdefault(key, {})[row["case"]["tokens"]] = row
    lines = [
        [model, attention, texts, *(spread(cells[count]) if count in cells else "" for count in tokens)]
        for (model, attention, texts), cells in sorted(shapes.items(), key=lambda item: item[0][1] != "sdpa")
    ]
    ratios = [row["ratio"] for row in rows]
    worst = max(rows, key=lambda row: row["ratio"])
    same = f"{sum(row['identical'] for row in rows)} of {len(rows)}"
    return [
        *table(["model", "attention", "texts", *(f"{n} token{'s' * (n > 1)}" for n in tokens)], lines),
        "",
        f"The median of these {len(rows)} ratios is {number(median(ratios))}, the largest "
        f"{number(worst['ratio'])} ({case(worst)}). In {same} both answers have the same bits.",
    ]


def watching(rows: Rows) -> list[str]:
    """With what an operation costs."""
    return plain(rows, {"microseconds_an_operation": ("an operation", lambda r: f"{_each(r)} µs")})


def _each(row: Row) -> str:
    return f"{row['microseconds_an_operation']:.1f}"


def decode(rows: Rows) -> list[str]:
    """In tokens a second, for that is what is waited for."""
    head = ["case", "what", "tokens a second", "official", "times as fast", "of the bandwidth", "same tokens"]
    lines = []
    for row in rows:
        ratios = [1 / ratio for ratio in (row["ratio"], *reversed(row["quartiles"]))]
        times = spread(row | {"ratio": ratios[0], "quartiles": ratios[1:]})
        speeds = [f"{row[key]:.1f}" for key in ("tokens_a_second", "official_tokens_a_second")]
        share = f"{row['bandwidth_share']:.0%}"
        lines.append([case(row), row["what"], *speeds, times, share, "yes" if row["tokens_equal"] else "no"])
    fastest = max(row["bandwidth"] for row in rows) / 1e9
    return [
        *table(head, lines),
        "",
        f"The memory gave {fastest:.1f} GB a second, read in order by all threads; of that a token's weights "
        "take the share above.",
    ]


def encode(rows: Rows) -> list[str]:
    """With texts a second, and how far the numbers are apart."""
    return plain(
        rows,
        {
            "texts_a_second": ("texts a second", lambda row: f"{row['texts_a_second']:,}"),
            "difference": ("largest difference", lambda row: f"{row['difference']:.1e}"),
        },
    )


def tokenizing(rows: Rows) -> list[str]:
    """With lines a second."""
    return plain(rows, {"lines_a_second": ("lines a second", lambda row: f"{row['lines_a_second']:,}")})


def checking(rows: Rows) -> list[str]:
    """What each mistake adds, and the 95th percentile of it."""
    more = sorted(row["more_seconds"] for row in rows)
    lines = [
        [case(r), f"`{r['what']}`", seconds(r["baseline_seconds"]), f"{r['more_seconds']:+.2f} s"]
        for r in rows
    ]
    return [
        *table(["case", "the mistake", "check of the right one", "more with the mistake"], lines),
        "",
        f"At the 95th percentile a mistake and its diagnosis add {more[int(0.95 * len(more))]:.2f} s.",
    ]


def proving(rows: Rows) -> list[str]:
    """With what a sweep would take."""
    lines = plain(rows, {"seconds_a_text": ("a text", lambda row: seconds(row["seconds_a_text"]))})
    hours = [row for row in rows if "sweep_hours" in row]
    if hours:
        lines += ["", "So 1,000 such models on 1,000,000 such texts take of this machine:", ""]
        lines += [f"- {case(row)}: {row['sweep_hours']:,} hours" for row in hours]
    return lines


def growth(rows: Rows) -> list[str]:
    """A table for each kind, with its exponents."""
    lines = []
    for row in rows:
        over, time, memory = row["case"]["over"], row["time_exponent"], row["memory_exponent"]
        words = f"time grows with the power {time:.2f} of the {over}, peak memory with {memory:.2f}"
        values = zip(row["sizes"], row["seconds"], row["megabytes"], strict=True)
        cells = [[f"{size:,}", seconds(lasted), f"{peak:,} MB"] for size, lasted, peak in values]
        lines += [
            f"**{row['case']['what']}:** {words}.",
            "",
            *table([over, "time", "peak memory"], cells),
            "",
        ]
    return lines[:-1]


SECTIONS: Mapping[str, Section] = {
    "forward": Section(
        "A forward pass",
        "The rebuild's time ÷ the official model's, from ids to answer, nobody watching. MiniLM has "
        "its published weights; GPT-2, T5-small and SmolLM2-135M have their published sizes and seeded "
        "weights. T5's decoder reads as many tokens as its encoder.",
        forward,
        "speed-forward",
        "The rebuild's time ÷ the official model's, in torch's fused attention. Below 1 the rebuild is "
        "quicker.",
    ),
    "watching": Section(
        "Watching the official model",
        "What is seen, and what it costs beside the same pass with nothing around it, in eager attention. "
        "Plain hooks keep a copy of what each module returns, nnsight what each returns that has no others "
        "in it; neither sees what happens within. TorchLens keeps what every operation returns, and so does "
        "our trace.",
        watching,
        "speed-watching",
        "How many times as long as the bare forward pass. Bars end at 8; the number does not.",
    ),
    "decode": Section(
        "Writing",
        "Full-size GPT-2 with seeded weights, greedy, one prompt, fused attention, keys and values kept: the "
        "rebuild beside the official `generate`. Such a model writes one token again and again, so "
        "`fast`, which reads a guess of several tokens in one pass, does its best here; its share of the "
        "bandwidth counts the weights once a token, though it reads them once a pass. Where every guess is "
        "wrong it is slower than without.",
        decode,
    ),
    "encode": Section(
        "Embedding many texts",
        "Texts of one to 64 words, their number drawn evenly on a logarithmic scale, with MiniLM. "
        "Everything stands beside sentence-transformers; all sort texts by length and run 32 at a "
        "time. onnxruntime runs the official network and its pooling, exported, behind the tokenizers "
        "library. The difference is that of the first 200 embeddings from those of "
        "sentence-transformers.",
        encode,
        "speed-encode",
        "The time for all texts ÷ that of sentence-transformers.",
    ),
    "tokenizing": Section(
        "Tokenizers",
        "A hundred lines of the course's own pages, one at a time, others in every round. Ours are written "
        "in plain Python, to be read; the tokenizers library is compiled. Both remember the words before.",
        tokenizing,
    ),
    "start": Section(
        "From the shell to the answer",
        "Each command in a process of its own, on GPT-2's miniature, beside a Python that only imports "
        "torch and transformers; and `verify minilm` beside what no verification can do without: the "
        "imports, loading, and one official pass.",
        plain,
        "speed-start",
        "Seconds from the shell to the answer.",
    ),
    "checking": Section(
        "A check that finds a mistake",
        "`llm-rebuild check` of a rebuild with a mistake, beside the right one, both the second time.",
        checking,
    ),
    "proving": Section(
        "Proofs, and searches",
        "A whole proof: official run, rebuild, every checkpoint compared, loading included; beside the "
        "bare official pass of the same texts. And `find`: a tensor sought among all that the official "
        "model computed.",
        proving,
    ),
    "growth": Section(
        "How it grows",
        "Each size in a process of its own, twice, in seconds of the processor; the exponent is that of the "
        "power that fits best. Memory is the peak of the whole process, torch included.",
        growth,
        "speed-growth",
        "Time beside that of the smallest size, on logarithmic scales.",
    ),
}


def page(numbers: Mapping[str, Any]) -> str:
    """The page, of the benchmarks that were run."""
    machines = [numbers[name]["machine"] for name in SECTIONS if name in numbers]
    one = all(_same(machine) == _same(machines[0]) for machine in machines)
    lines = [
        "---",
        "description: How fast the rebuilds and the tools are, beside what one would pick instead.",
        "---",
        "",
        "# Speed",
        "",
        "A time means little by itself. Here each stands beside that of what one would use instead, measured",
        "in turns, so that whatever else the machine does meets both alike. A ratio is the median over the",
        "rounds of the ratio within a round; in brackets stand its quartiles. Below 1 is quicker. Where",
        f"they are more than {WIDE:.0%} of it apart stands ≈: there what else the machine did had its say.",
        "`make bench` measures all of it and writes this page; `make bench ONLY=forward` measures one part,",
        "`make bench QUICK=1` a few small cases.",
        "",
        *_took(machines),
        *([f"Measured on {_words(machines[0])}.", ""] if one and machines else []),
        *(_peers(machines[-1]) if machines else []),
    ]
    missing = [f"`{name}`" for name in SECTIONS if name not in numbers]
    if missing:
        lines += ["", f"Not measured yet: {', '.join(missing)}."]
    if unfinished := [f"`{name}`" for name in numbers if not is_whole(numbers[name])]:
        lines += ["", f"Not measured to the end: {', '.join(unfinished)}."]
    for name, section in SECTIONS.items():
        if name not in numbers:
            continue
        lines += ["", f"## {section.title}", "", section.words, ""]
        if not one:
            lines += [f"Measured on {_words(numbers[name]['machine'])}.", ""]
        if section.figure and is_whole(numbers[name]):
            lines += _figure(section)
        lines += section.table(numbers[name]["rows"])
    return "\n".join(lines) + "\n"


def is_whole(part: Mapping[str, Any]) -> bool:
    """Whether a part was measured to its end; of the others there is no figure."""
    return bool(part["machine"].get("whole", True))


def _figure(section: Section) -> list[str]:
    return [
        "<figure markdown>",
        '<div class="figure-scroll" markdown="0">',
        f'--8<-- "docs/figures/{section.figure}.svg"',
        "</div>",
        f'<figcaption markdown="span">{section.caption}</figcaption>',
        "</figure>",
        "",
    ]


def _same(machine: Mapping[str, Any]) -> dict[str, Any]:
    """What must agree for two parts of the page to be of one measurement. The load never does."""
    return {key: value for key, value in machine.items() if key not in ("load", "peers", "took", "whole")}


def _took(machines: Sequence[Mapping[str, Any]]) -> list[str]:
    """How long it takes to measure it."""
    if not all("took" in machine for machine in machines):
        return []
    minutes = sum(machine["took"] for machine in machines) / 60
    return [f"To measure all that stands here took {minutes:.0f} minutes of one processor.", ""]


def _words(machine: Mapping[str, Any]) -> str:
    """A machine, its releases and its clock."""
    clock = "by the clock" if machine["clock"] == "wall" else "seconds of the processor"
    short = ", in the short form" if machine["quick"] else ""
    load = machine["load"]
    busy = "" if load is None else f", with a load of {load:g} when it began"
    threads = machine["threads"]
    return (
        f"{machine['processor']} ({machine['cpu_capability']}), {machine['cores']} cores, {threads} "
        f"thread{'s' * (threads > 1)}{busy}; torch {machine['torch']}, transformers "
        f"{machine['transformers']}, Python {machine['python']}; {clock}{short}"
    )


def _peers(machine: Mapping[str, Any]) -> list[str]:
    """Who else took part, and who did not."""
    releases = (f"{name} {machine['peers'].get(name) or f'({NOT_INSTALLED})'}" for name in PEERS)
    return [f"Beside it: {', '.join(releases)}. They come with `pip install --editable '.[bench]'`."]
