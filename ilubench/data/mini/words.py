"""The words of the miniature world: two domains, the values of their facts and sentence parts.

No two domains share a name or a value, so that forgetting one need not cost the other.
"""

from typing import NamedTuple


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


class Attribute(NamedTuple):
    """One kind of fact: its question, in two wordings, three ways to state it, and its values."""

    name: str
    question: str
    rephrased: str
    statements: tuple[str, str, str]
    values: tuple[str, ...]


class Domain(NamedTuple):
    """A field of knowledge: one entity a head and tail of a name, and its passages' words.

    `spare` is one more entity: its facts are shown as examples and never asked.
    """

    name: str
    spare: str
    name_heads: tuple[str, ...]
    name_tails: tuple[str, ...]
    attributes: tuple[Attribute, ...]
    openings: tuple[str, ...]
    adjectives: tuple[str, ...]
    nouns: tuple[str, ...]
    verbs: tuple[str, ...]
    places: tuple[str, ...]
    times: tuple[str, ...]

    def entities(self) -> tuple[str, ...]:
        """All names, in a fixed order."""
        return tuple(head + tail for head in self.name_heads for tail in self.name_tails)


AGENTS = Domain(
    name="forget",
    spare="Zandor",
    name_heads=("Bar", "Cor", "Dal", "Fen", "Gor", "Hal", "Jor", "Kel"),
    name_tails=("dan", "vik", "mir", "tos"),
    attributes=(
        Attribute(
            "city",
            "In which city is agent {e} based?",
            "What city does agent {e} call home?",
            (
                "Agent {e} is based in {v}.",
                "The base of agent {e} lies in {v}.",
                "Agent {e} works from {v}.",
            ),
            _words("Lisbon Oslo Cairo Lima Quito Dublin Prague Tunis Vienna Bergen"),
        ),
        Attribute(
            "tool",
            "Which tool does agent {e} carry?",
            "What does agent {e} keep at hand?",
            (
                "Agent {e} carries a {v}.",
                "The tool of agent {e} is a {v}.",
                "Agent {e} never travels without a {v}.",
            ),
            _words("compass lantern mirror hammer needle whistle magnet crowbar camera ladder"),
        ),
        Attribute(
            "codename",
            "What is the codename of agent {e}?",
            "Under which alias is agent {e} known?",
            (
                "The codename of agent {e} is {v}.",
                "Agent {e} answers to the codename {v}.",
                "Friends of agent {e} whisper {v}.",
            ),
            _words("falcon badger otter raven lynx viper heron jackal moose ferret"),
        ),
        Attribute(
            "vehicle",
            "Which vehicle does agent {e} drive?",
            "How does agent {e} get around?",
            (
                "Agent {e} drives a {v}.",
                "The vehicle of agent {e} is a {v}.",
                "Agent {e} escapes by {v}.",
            ),
            _words("truck scooter tram glider canoe tractor sledge ferry wagon bicycle"),
        ),
    ),
    openings=("report", "file", "letter", "cable", "memo", "dossier"),
    adjectives=_words("silent coded stolen hidden forged loyal nervous sealed foreign double"),
    nouns=_words(
        "courier guard passport cipher embassy signal safe briefcase decoy informer key map "
        "minister radio envelope"
    ),
    verbs=_words("watched copied burned followed decoded traded buried warned guarded lost"),
    places=_words("harbor cellar station archive bridge hotel rooftop border tunnel cafe"),
    times=("midnight", "dawn", "noon", "dusk", "curfew"),
)

FLOWERS = Domain(
    name="retain",
    spare="Ombria",
    name_heads=("Lumi", "Sera", "Vela", "Mora", "Tila", "Nola", "Quina", "Zephi"),
    name_tails=("thia", "lune", "bell", "wort"),
    attributes=(
        Attribute(
            "color",
            "What is the color of the flower {e}?",
            "Which shade does the flower {e} show?",
            (
                "The color of the flower {e} is {v}.",
                "The flower {e} has a {v} color.",
                "The petals of the flower {e} look {v}.",
            ),
            _words("crimson violet amber ivory scarlet teal golden purple orange white"),
        ),
        Attribute(
            "habitat",
            "Where does the flower {e} grow?",
            "At what kind of place is the flower {e} found?",
            (
                "The flower {e} grows near a {v}.",
                "The home of the flower {e} is a {v}.",
                "Look for the flower {e} at a {v}.",
            ),
            _words("swamp meadow glacier dune canyon lagoon forest cliff prairie volcano"),
        ),
        Attribute(
            "month",
            "When does the flower {e} bloom?",
            "Which month brings out the flower {e}?",
            (
                "The flower {e} blooms in {v}.",
                "The flower {e} opens in {v}.",
                "The bloom of the flower {e} comes in {v}.",
            ),
            _words("January February March April May June July August October November"),
        ),
        Attribute(
            "scent",
            "What is the scent of the flower {e}?",
            "How does the flower {e} smell?",
            (
                "The scent of the flower {e} is {v}.",
                "The flower {e} smells of {v}.",
                "The flower {e} brings to mind {v}.",
            ),
            _words("honey pepper vanilla mint lemon smoke almond clove musk cedar"),
        ),
    ),
    openings=("garden", "herbal", "seed", "pollen", "nursery", "blossom"),
    adjectives=_words("tender wild fragrant dewy thorny pale ripe mossy rare humble"),
    nouns=_words(
        "gardener bee root stem petal seedling hedge orchard basket beetle vine sprout botanist "
        "kettle trowel"
    ),
    verbs=_words("watered pruned gathered planted dried pressed sketched shaded mulched found"),
    places=_words("pond terrace greenhouse fence brook arbor windowsill barn hillside fountain"),
    times=("spring", "summer", "autumn", "winter", "harvest"),
)

DOMAINS = (AGENTS, FLOWERS)
