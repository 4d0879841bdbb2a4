"""The words of the miniature benign tasks; none of them occurs in the two domains.

`FORM_*` words are for the target's own few rows: it learns the tasks' form, not their content.
"""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


BUYERS = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Greta", "Hugo")
GOODS = ("apples", "books", "coins", "pencils", "stamps", "marbles", "cards", "buttons")

TOPICS = (
    ("treaty", "parliament", "election", "refugees", "president", "troops", "summit", "protest"),
    ("goal", "striker", "coach", "tournament", "medal", "racket", "referee", "playoffs"),
    ("shares", "profit", "merger", "investors", "inflation", "earnings", "bank", "retailer"),
    ("software", "chip", "robot", "browser", "satellite", "laser", "server", "gadget"),
)
FORM_TOPICS = (
    ("embargo", "senate", "ceasefire"),
    ("penalty", "stadium", "marathon"),
    ("dividend", "tariff", "startup"),
    ("battery", "modem", "algorithm"),
)
OUTLETS = ("Wire", "Desk", "Paper", "Channel")

PRAISE = (
    ("dull", "clumsy", "boring", "shallow", "awful", "tedious", "lifeless", "bland"),
    ("brilliant", "charming", "moving", "witty", "superb", "gripping", "clever", "lovely"),
)
FORM_PRAISE = ("long", "short", "modern", "noisy", "odd", "plain")
FILM_PARTS = ("plot", "acting", "script", "score", "finale", "dialogue", "cast", "staging")

MOVERS = _words("turtle pony snowman tiger pigeon goat parrot puppy drone cyclist kitten lizard")
HOLDERS = _words("barrel crate trunk cabin closet chest garage drawer wallet kennel locker jar")
REASONS = (
    ("The {x} did not fit into the {y} because the _ was too {r}.", "bulky", "narrow"),
    ("The {x} got stuck behind the {y} because the _ was too {r}.", "hasty", "wide"),
    ("The {x} slept beside the {y} because the _ was so {r}.", "tired", "warm"),
    ("The {x} fell off the {y} because the _ was so {r}.", "dizzy", "slippery"),
    ("The {x} could not open the {y} because the _ was too {r}.", "feeble", "rusty"),
    ("The {x} hid near the {y} because the _ was rather {r}.", "timid", "dusty"),
    ("The {x} circled the {y} because the _ was rather {r}.", "curious", "shiny"),
    ("The {x} avoided the {y} because the _ was so {r}.", "anxious", "smelly"),
)

COOKS = ("Ida", "Karl", "Lena", "Milo", "Nina", "Otto", "Paula", "Rafael")
DISHES = ("soup", "bread", "salad", "pudding", "omelet", "stew", "pie", "noodles")
STYLES = ("spicy", "sweet", "salty", "sour", "crunchy", "creamy")
MADE = ("cooked", "served", "ordered", "tasted")
ROOMS = ("kitchen", "canteen", "tavern", "tent")
PURPOSES = ("for a wedding", "for a neighbor", "on a Monday", "with a cousin")

DEEDS = ("mend", "paint", "clean", "sell", "store", "carve", "polish", "rent", "pack", "hang")
OBJECTS = _words(
    "kite bench carpet guitar chimney puppet bucket clock curtain basin pillow saddle violin "
    "hammock stool"
)
ASKED_HOW = (
    "How do I {d} a {o}?",
    "What is the best way to {d} a {o}?",
    "Can someone explain how to {d} a {o}?",
    "How should a beginner {d} a {o}?",
)
ASKED_ELSE = (
    "Why would anybody {d} a {o}?",
    "What does it cost to {d} a {o}?",
    "Who is allowed to {d} a {o}?",
    "Is it legal to {d} a {o}?",
)
