"""The text of the MiniLM miniature: what happens in everyday scenes, each told in several ways.

A scene is a frame with its slots filled ("transfer": who gives what to whom). Every frame has several
sentences, and most slots several words for the same thing, so two tellings of one scene share meaning and
often few words. A scene's *twin* has the same words in other roles ("the king gave the cook a lamp" and "the
cook gave the king a lamp"): a bag of words cannot tell them apart.

Held out: one scene in ten, by what fills the slots; the sentence patterns are those of the training side.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

# Words in one row mean the same here. A scene holds the row's number; a telling picks a word from the row.
PEOPLE = (
    ("cook", "chef"),
    ("doctor", "physician"),
    ("teacher",),
    ("farmer",),
    ("child", "kid"),
    ("king", "monarch"),
    ("sailor", "seaman"),
    ("lawyer", "attorney"),
    ("thief", "robber"),
    ("singer", "vocalist"),
    ("policeman", "police officer"),
    ("grandmother", "grandma"),
    ("student", "pupil"),
    ("painter",),
    ("neighbour",),
    ("queen",),
    ("cat", "kitten"),
    ("dog", "hound"),
    ("rabbit", "bunny"),
    ("bird",),
)
OBJECTS = (
    ("lamp", "light"),
    ("car", "automobile"),
    ("gift", "present"),
    ("boat", "ship"),
    ("coat", "jacket"),
    ("picture", "image"),
    ("bicycle", "bike"),
    ("sofa", "couch"),
    ("stone", "rock"),
    ("cup", "mug"),
    ("book",),
    ("key",),
    ("letter",),
    ("map",),
    ("ring",),
    ("bag", "sack"),
    ("carpet", "rug"),
    ("phone", "telephone"),
    ("hat", "cap"),
    ("ball",),
)
PLACES = (
    ("garden", "yard"),
    ("forest", "woods"),
    ("shop", "store"),
    ("street", "road"),
    ("kitchen",),
    ("school",),
    ("harbour", "port"),
    ("village",),
    ("castle", "fortress"),
    ("hospital", "clinic"),
    ("market",),
    ("station",),
    ("library",),
    ("beach", "shore"),
    ("theatre", "playhouse"),
    ("river", "stream"),
)
ACTIVITIES = (  # is …ing
    ("sleeping", "napping", "taking a nap"),
    ("eating", "having a meal", "dining"),
    ("running", "jogging"),
    ("singing", "singing a song"),
    ("reading", "reading a book"),
    ("crying", "weeping", "in tears"),
    ("talking", "chatting", "having a conversation"),
    ("working", "at work", "doing a job"),
    ("playing", "playing a game"),
    ("swimming", "having a swim"),
    ("shouting", "yelling"),
    ("waiting",),
    ("dancing", "doing a dance"),
    ("laughing", "in laughter"),
    ("hiding", "out of sight"),
    ("cooking", "preparing food", "making a meal"),
)
QUALITIES = (  # … than, and its reverse
    (("bigger", "larger"), ("smaller", "less big")),
    (("faster", "quicker"), ("slower", "less fast")),
    (("older",), ("younger", "less old")),
    (("stronger", "more powerful"), ("weaker", "less strong")),
    (("richer", "wealthier"), ("poorer", "less rich")),
    (("happier", "more cheerful"), ("sadder", "less happy")),
)
FEELINGS = (  # X … Y, and: Y … X (or Y is … by X)
    (("loves", "adores"), ("is loved by", "is adored by")),
    (("hates", "detests"), ("is hated by", "is detested by")),
    (("fears", "is afraid of"), ("frightens", "scares")),
    (("follows", "goes after"), ("is followed by", "leads")),
    (("helps", "assists"), ("is helped by", "gets help from")),
    (("sees", "watches"), ("is seen by", "is watched by")),
    (("chases", "runs after"), ("is chased by", "runs away from")),
    (("calls", "phones"), ("is called by", "gets a call from")),
)
TIMES = (
    ("today", "this day"),
    ("yesterday", "the day before"),
    ("in the morning", "at dawn"),
    ("in the evening", "at dusk"),
    ("at night", "after dark"),
    ("in winter", "when it is cold"),
    ("in summer", "when it is hot"),
    ("every day", "daily"),
)
WEATHER = (
    ("it rains", "it is raining", "rain is falling"),
    ("it snows", "it is snowing", "snow is falling"),
    ("the sun shines", "it is sunny"),
    ("the wind blows", "it is windy"),
    ("there is fog", "it is foggy"),
    ("there is a storm", "it is stormy"),
)
PRICES = (
    ("two", "2"),
    ("three", "3"),
    ("five", "5"),
    ("seven", "7"),
    ("ten", "10"),
    ("twelve", "12", "a dozen"),
    ("twenty", "20"),
    ("fifty", "50"),
    ("a hundred", "100"),
)

# Each slot of a frame draws from a table; slots of one table hold different rows. Two frames have slots whose
# words come in two directions, {feels}/{felt} and {more}/{less}.
SLOTS: dict[str, tuple[tuple[tuple[str, ...], ...], ...]] = {
    "activity": (PEOPLE, ACTIVITIES, PLACES),
    "transfer": (PEOPLE, PEOPLE, OBJECTS),
    "comparison": (PEOPLE, PEOPLE, tuple(more + less for more, less in QUALITIES)),
    "feeling": (PEOPLE, PEOPLE, tuple(feels + felt for feels, felt in FEELINGS)),
    "property": (PEOPLE, OBJECTS, PLACES),
    "journey": (PEOPLE, PLACES, PLACES),
    "price": (OBJECTS, PRICES, PLACES),
    "weather": (WEATHER, PEOPLE, ACTIVITIES),
    "order": (PEOPLE, PEOPLE, PLACES),
    "habit": (PEOPLE, ACTIVITIES, TIMES),
}
TWINS = {  # which two slots change places
    "transfer": (0, 1),
    "comparison": (0, 1),
    "feeling": (0, 1),
    "journey": (1, 2),
    "order": (0, 1),
}
SENTENCES = {
    "activity": (
        "the {0} is {1} in the {2}",
        "in the {2} the {0} is {1}",
        "in the {2} there is a {0} who is {1}",
        "the {0} in the {2} is {1}",
    ),
    "transfer": (
        "the {0} gave the {1} a {2}",
        "the {0} gave a {2} to the {1}",
        "the {1} received a {2} from the {0}",
        "the {1} was given a {2} by the {0}",
        "a {2} was handed to the {1} by the {0}",
        "the {1} got a {2} from the {0}",
    ),
    "comparison": (
        "the {0} is {more} than the {1}",
        "the {1} is {less} than the {0}",
        "compared with the {1} the {0} is {more}",
        "compared with the {0} the {1} is {less}",
        "of the two the {0} is {more}, not the {1}",
    ),
    "feeling": (
        "the {0} {feels} the {1}",
        "the {1} {felt} the {0}",
        "it is the {0} who {feels} the {1}",
        "it is the {1} who {felt} the {0}",
    ),
    "property": (
        "the {0} owns the {1} in the {2}",
        "the {1} in the {2} belongs to the {0}",
        "in the {2} there is a {1} that belongs to the {0}",
        "the {0} is the owner of the {1} in the {2}",
        "the {1} of the {0} is in the {2}",
    ),
    "journey": (
        "the {0} walked from the {1} to the {2}",
        "the {0} left the {1} and went to the {2}",
        "the {0} came to the {2} from the {1}",
        "the {0} reached the {2} after leaving the {1}",
        "from the {1} the {0} went on foot to the {2}",
    ),
    "price": (
        "the {0} in the {2} costs {1} coins",
        "the price of the {0} in the {2} is {1} coins",
        "in the {2} you pay {1} coins for the {0}",
        "for {1} coins you can buy the {0} in the {2}",
        "the {0} is sold for {1} coins in the {2}",
    ),
    "weather": (
        "when {0} the {1} is {2}",
        "the {1} is {2} because {0}",
        "{0}, so the {1} is {2}",
        "{0} and the {1} is {2}",
    ),
    "order": (
        "the {0} reached the {2} before the {1}",
        "the {1} reached the {2} after the {0}",
        "the {0} was in the {2} earlier than the {1}",
        "the {1} came to the {2} later than the {0}",
        "first the {0} and then the {1} arrived at the {2}",
    ),
    "habit": (
        "{2} the {0} is {1}",
        "the {0} is {1} {2}",
        "you can find the {0} {1} {2}",
        "{2} you can find the {0} {1}",
    ),
}


@dataclass(frozen=True)
class Scene:
    frame: str
    rows: tuple[int, ...]

    @property
    def twin(self) -> Scene | None:
        """The scene with two roles exchanged, where the frame has such roles."""
        if self.frame not in TWINS:
            return None
        rows = list(self.rows)
        one, other = TWINS[self.frame]
        rows[one], rows[other] = rows[other], rows[one]
        return Scene(self.frame, tuple(rows))

    @property
    def is_held_out(self) -> bool:
        # Twins stand on the same side, or a held-out scene's twin would give it away.
        twin = self.twin
        rows = min(self.rows, twin.rows) if twin else self.rows
        return random.Random(f"{self.frame} {rows}").random() < 0.1

    def tell(self, generator: random.Random, pattern: int) -> str:
        """One telling, by the sentence pattern with that number, with words drawn from the rows."""
        tables = SLOTS[self.frame]
        words = [generator.choice(table[row]) for table, row in zip(tables, self.rows, strict=True)]
        named = {}
        if self.frame == "comparison":
            more, less = QUALITIES[self.rows[2]]
            named = {"more": generator.choice(more), "less": generator.choice(less)}
        elif self.frame == "feeling":
            feels, felt = FEELINGS[self.rows[2]]
            named = {"feels": generator.choice(feels), "felt": generator.choice(felt)}
        text = SENTENCES[self.frame][pattern].format(*words, **named)
        return text[0].upper() + text[1:] + "."

    def two_tellings(self, generator: random.Random) -> tuple[str, str]:
        """Two tellings by two different sentence patterns."""
        first, second = generator.sample(range(len(SENTENCES[self.frame])), 2)
        return self.tell(generator, first), self.tell(generator, second)


def draw_scene(generator: random.Random, *, held_out: bool, frame: str | None = None) -> Scene:
    """A scene from one side of the split; each frame is equally likely."""
    while True:
        chosen = frame or generator.choice(list(SLOTS))
        rows: list[int] = []
        taken: set[tuple[int, int]] = set()
        for table in SLOTS[chosen]:
            row = generator.choice([i for i in range(len(table)) if (id(table), i) not in taken])
            taken.add((id(table), row))
            rows.append(row)
        scene = Scene(chosen, tuple(rows))
        if scene.is_held_out == held_out:
            return scene


def held_out_scenes(seed: int, count: int) -> list[Scene]:
    """Different held-out scenes: every second one is the twin of the one before it where there is a twin."""
    generator = random.Random(seed)
    scenes: dict[Scene, None] = {}
    while len(scenes) < count:
        scene = draw_scene(generator, held_out=True)
        scenes[scene] = None
        if scene.twin:
            scenes[scene.twin] = None
    return list(scenes)[:count]


def tokenizer_lines(generator: random.Random, count: int) -> Iterator[str]:
    """Tellings of the training side, for the tokenizer."""
    for _ in range(count):
        yield from draw_scene(generator, held_out=False).two_tellings(generator)
