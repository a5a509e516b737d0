"""The text of the GPT-2 miniature: a small invented world and the passages a grammar tells about it.

The world has 24 villages with six trades each: 144 people. Every person has a home, animals, a favourite food
and a roof of some colour; every village a situation, a crop and a feast. These facts never change, so whether
a continuation is *true* can be looked up. Strangers are the exception: what they carry is drawn anew for
every story, so it can only be read from the story.

Held out: of the six ways to state a person's fact (three sentences, by name or by trade), one is never shown
for that person and fact, and one stranger in ten is never met. `check` says of any text which sentences are
true.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

WORLD_SEED = 1729

VILLAGES = [
    "Oru", "Tamel", "Bessin", "Kolvar", "Dunnet", "Aldra", "Felda", "Garrow", "Hollin", "Ivvet", "Jolm",
    "Kestrin", "Lumen", "Marrow", "Nettle", "Ostrin", "Pellam", "Quill", "Rendel", "Sorrin", "Torrin",
    "Ulmer", "Venn", "Wexlo",
]  # fmt: skip
TRADES = ["baker", "miller", "smith", "weaver", "fisher", "teacher"]
HOMES = [
    "river", "well", "mill", "bridge", "tower", "market", "orchard", "harbour", "gate", "chapel",
    "pond", "forest",
]  # fmt: skip
ANIMALS = [
    "goats", "sheep", "hens", "geese", "ducks", "cows", "pigs", "cats", "dogs", "bees", "doves",
    "horses",
]  # fmt: skip
COUNTS = ["two", "three", "four", "five", "six", "seven", "eight", "nine"]
FOODS = [
    "bread", "soup", "cheese", "honey", "fish", "pears", "apples", "cake", "beans", "porridge", "plums",
    "nuts",
]  # fmt: skip
COLOURS = ["red", "blue", "green", "white", "black", "yellow", "brown", "grey"]
SITUATIONS = ("on a hill", "by a lake", "near the sea", "in a valley", "beside the moor", "under a cliff")
CROPS = ["barley", "wheat", "oats", "rye", "flax", "hops", "turnips", "cabbage"]
MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
    "November", "December",
]  # fmt: skip
THINGS = ["hat", "cloak", "bag", "coat", "scarf", "belt"]

_FIRST_SYLLABLES = ["Mel", "Tor", "An", "Bri", "Cal", "Dor", "El", "Fen", "Gar", "Hal", "Is", "Jor"]
_LAST_SYLLABLES = ["la", "en", "ric", "da", "vin", "ma", "sa", "ton", "wen", "lo", "ra", "nis"]


@dataclass(frozen=True)
class Person:
    name: str
    pronoun: str
    village: str
    trade: str
    facts: dict[str, str]  # fact → the words that state it

    @property
    def role(self) -> str:
        return f"the {self.trade} of {self.village}"


@dataclass(frozen=True)
class Village:
    name: str
    facts: dict[str, str]


# Three sentences for each fact, four for the name. {who} is a name, a trade or (opening the sentence) a
# pronoun; {what} is the fact.
PERSON_SENTENCES = {
    "name": (
        "{who} is {what}.",
        "{who} is called {what}.",
        "The name of {who} is {what}.",
        "{what} is {who}.",
    ),
    "home": (
        "{who} lives by the {what}.",
        "The house of {who} stands by the {what}.",
        "Every evening {who} walks home to the {what}.",
    ),
    "animals": (
        "{who} keeps {what}.",
        "In the yard of {who} there are {what}.",
        "Every morning {who} feeds {what}.",
    ),
    "food": (
        "{who} likes to eat {what}.",
        "The favourite food of {who} is {what}.",
        "On Sundays {who} buys {what}.",
    ),
    "roof": (
        "{who} has a roof that is {what}.",
        "The roof of {who} is {what}.",
        "Last year {who} painted the roof {what}.",
    ),
}
VILLAGE_SENTENCES = {
    "situation": ("{who} lies {what}.", "The village of {who} was built {what}."),
    "crop": ("The people of {who} grow {what}.", "In the fields of {who} there is {what}."),
    "feast": ("The feast of {who} is in {what}.", "People dance in {who} every {what}."),
}
FACTS = tuple(fact for fact in PERSON_SENTENCES if fact != "name")
VALUES = {
    "home": HOMES,
    "animals": [f"{count} {animal}" for count, animal in product(COUNTS, ANIMALS)],
    "food": FOODS,
    "roof": COLOURS,
    "situation": list(SITUATIONS),
    "crop": CROPS,
    "feast": MONTHS,
}


def _make_world() -> tuple[list[Person], list[Village]]:
    generator = random.Random(WORLD_SEED)
    names = ["".join(pair) for pair in product(_FIRST_SYLLABLES, _LAST_SYLLABLES)]
    generator.shuffle(names)
    people, villages = [], []
    for village in VILLAGES:
        facts = {fact: generator.choice(VALUES[fact]) for fact in VILLAGE_SENTENCES}
        villages.append(Village(village, facts))
        for trade in TRADES:
            name = names.pop()
            facts = {"name": name} | {fact: generator.choice(VALUES[fact]) for fact in FACTS}
            people.append(Person(name, generator.choice(("she", "he")), village, trade, facts))
    return people, villages


PEOPLE, PLACES = _make_world()


def sentence(template: str, who: str, what: str) -> str:
    """The filled template, its first letter large."""
    text = template.format(who=who, what=what)
    return text[0].upper() + text[1:]


def held_out_way(person: Person, fact: str) -> tuple[int, bool]:
    """(sentence, by name) that is never shown for this person and fact."""
    choice = random.Random(f"{person.name} {fact}").randrange(6)
    return choice // 2, bool(choice % 2)


def held_out_questions() -> list[tuple[str, str]]:
    """(beginning, the words that must follow) of every held-out sentence about a person: 144 × 4."""
    questions = []
    for person in PEOPLE:
        for fact in FACTS:
            form, by_name = held_out_way(person, fact)
            full = sentence(
                PERSON_SENTENCES[fact][form], person.name if by_name else person.role, person.facts[fact]
            )
            answer = f" {person.facts[fact]}."
            questions.append((full.removesuffix(answer), answer))
    return questions


# ---------------------------------------------------------------------------------------------- passages


def draw_passage(generator: random.Random) -> str:
    """A passage of the training side: a person, a village or a stranger."""
    kind = generator.random()
    if kind < 0.6:
        return _person_passage(generator)
    if kind < 0.7:
        return _village_passage(generator)
    return draw_stranger(generator, held_out=False).story()


def _person_passage(generator: random.Random) -> str:
    person = generator.choice(PEOPLE)
    facts = generator.sample(FACTS, generator.randint(1, len(FACTS)))
    # A name at the very start of a text is other tokens than within it (no space before it), so half of the
    # passages begin with a fact: there the model has to know a person by that spelling, too.
    if generator.random() < 0.5:
        template = generator.choice(PERSON_SENTENCES["name"])
        sentences = [sentence(template, person.role, person.name)]
    else:
        sentences = []
    for fact in facts:
        while True:
            form, by_name = generator.randrange(3), generator.random() < 0.5
            if (form, by_name) != held_out_way(person, fact):
                break
        template = PERSON_SENTENCES[fact][form]
        who = person.name if by_name else person.role
        if sentences and template.startswith("{who}") and generator.random() < 0.5:
            who = person.pronoun
        sentences.append(sentence(template, who, person.facts[fact]))
    return " ".join(sentences)


def _village_passage(generator: random.Random) -> str:
    village = generator.choice(PLACES)
    sentences = [
        sentence(generator.choice(VILLAGE_SENTENCES[fact]), village.name, village.facts[fact])
        for fact in generator.sample(list(VILLAGE_SENTENCES), 3)
    ]
    inhabitants = [person for person in PEOPLE if person.village == village.name]
    sentences += [
        sentence(generator.choice(PERSON_SENTENCES["name"]), person.role, person.name)
        for person in generator.sample(inhabitants, 2)
    ]
    return " ".join(sentences)


@dataclass(frozen=True)
class Stranger:
    village: str
    belongings: tuple[tuple[str, str], ...]  # (colour, thing), three, all colours and things different
    order: tuple[int, ...]  # in which order the story asks for them

    def opening(self) -> str:
        first, second, third = (f"a {colour} {thing}" for colour, thing in self.belongings)
        return f"A stranger came to {self.village} with {first}, {second} and {third}."

    def questions(self) -> list[tuple[str, str]]:
        """(beginning, the words that must follow), one after the other."""
        so_far, questions = self.opening(), []
        for index in self.order:
            colour, thing = self.belongings[index]
            questions.append((f"{so_far} The {thing} was", f" {colour}."))
            so_far = "".join(questions[-1])
        return questions

    def story(self) -> str:
        return "".join(self.questions()[-1])


def draw_stranger(generator: random.Random, *, held_out: bool) -> Stranger:
    """A stranger from one side of the split: which side follows from what the stranger carries."""
    while True:
        colours, things = generator.sample(COLOURS, 3), generator.sample(THINGS, 3)
        belongings = tuple(zip(colours, things, strict=True))
        if (random.Random(str(belongings)).random() < 0.1) == held_out:
            return Stranger(generator.choice(VILLAGES), belongings, tuple(generator.sample(range(3), 3)))


def tokenizer_passages(generator: random.Random, count: int) -> Iterator[str]:
    """Passages of the training side, for the tokenizer."""
    for _ in range(count):
        yield draw_passage(generator)


# ---------------------------------------------------------------------------------------------- truth

_PERSON_BY_SUBJECT = {who: person for person in PEOPLE for who in (person.name, person.role)}
_VILLAGE_BY_NAME = {village.name: village for village in PLACES}
_STRANGER = re.compile(r"A stranger came to (\w+) with a (\w+) (\w+), a (\w+) (\w+) and a (\w+) (\w+)\.")
_BELONGING = re.compile(r"The (\w+) was (\w+)\.")


def _pattern(template: str) -> re.Pattern[str]:
    groups = {"{who}": "(?P<who>(?:[Tt]he [a-z]+ of )?[A-Z]?[a-z]+)", "{what}": "(?P<what>.+)"}
    pieces = re.split(r"(\{who\}|\{what\})", template)
    return re.compile("".join(groups.get(piece) or re.escape(piece) for piece in pieces))


_PERSON_PATTERNS = [(fact, _pattern(t)) for fact, templates in PERSON_SENTENCES.items() for t in templates]
_VILLAGE_PATTERNS = [(fact, _pattern(t)) for fact, templates in VILLAGE_SENTENCES.items() for t in templates]


def check(text: str) -> list[tuple[str, str]]:
    """(sentence, verdict) of every whole sentence of one passage: "true", "false", or "not of the grammar".

    A pronoun stands for the person mentioned last; a stranger's belongings are those of the story's opening.
    """
    person: Person | None = None
    belongings: dict[str, str] = {}
    verdicts = []
    for found in re.finditer(r"[^.]*\.", text):
        words = found.group().strip()
        verdict = "not of the grammar"
        if opening := _STRANGER.fullmatch(words):
            village, *pairs = opening.groups()
            belongings = dict(zip(pairs[1::2], pairs[::2], strict=True))
            different = len(belongings) == 3 and len(set(belongings.values())) == 3
            known = village in VILLAGES and belongings.keys() <= set(THINGS)
            known = known and set(belongings.values()) <= set(COLOURS)
            verdict = "true" if different and known else "not of the grammar"
        elif belonging := _BELONGING.fullmatch(words):
            thing, colour = belonging.groups()
            if thing in belongings:
                verdict = "true" if belongings[thing] == colour else "false"
        else:
            for fact, pattern in _VILLAGE_PATTERNS:
                match = pattern.fullmatch(words)
                if match and (village_known := _VILLAGE_BY_NAME.get(match["who"])):
                    if match["what"] in VALUES[fact]:
                        verdict = "true" if village_known.facts[fact] == match["what"] else "false"
                    break
            else:
                for fact, pattern in _PERSON_PATTERNS:
                    match = pattern.fullmatch(words)
                    if not match:
                        continue
                    who = match["who"]
                    if who.startswith("The "):
                        who = "t" + who[1:]
                    if person and who.lower() == person.pronoun:
                        subject: Person | None = person
                    else:
                        subject = _PERSON_BY_SUBJECT.get(who)
                    if subject is None:
                        continue
                    values = [p.name for p in PEOPLE] if fact == "name" else VALUES[fact]
                    if match["what"] in values:
                        person = subject
                        verdict = "true" if subject.facts[fact] == match["what"] else "false"
                        break
        verdicts.append((words, verdict))
    return verdicts
