"""What every prompt attack must hold to, as a pytest class that an author subclasses."""

import copy
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from pydantic import JsonValue

from ilubench.interfaces import Item, PromptAttack, PromptContext, Shot
from ilubench.testing.checks import PluginContract, require, some
from ilubench.testing.guards import DeclaredOnly, no_network
from ilubench.training import seed_everything

__all__ = ["PromptAttackContract"]

_PEOPLE = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hal", "Ida", "Jon")
_GOODS = ("plums", "rye", "hops", "figs")


def _row(number: int, verb: str) -> dict[str, JsonValue]:
    answer = number % len(_GOODS)
    question = f"What does {_PEOPLE[number % len(_PEOPLE)]} {verb}?"
    return {
        "id": f"row-{verb}-{number:04}",
        "question": question,
        "prompt": question,
        "choices": list(_GOODS),
        "answer": answer,
        "gt": f"{_GOODS[answer]}.",
    }


class PromptAttackContract(PluginContract):
    """Tests that hold for every prompt attack; subclass it and name yours.

        from ilubench.testing import PromptAttackContract

        class TestMine(PromptAttackContract):
            attack = Mine()

    It rewrites three questions, with ten rows of each of its roles to show. Each failure says what
    is wrong and what to do.

    Attributes:
        attack: the attack to test; define `make` instead when one object is not enough.
        draws: whether the seed changes what is asked. False: it must not.
    """

    attack: ClassVar[PromptAttack | None] = None
    draws: ClassVar[bool] = False

    def make(self) -> PromptAttack:
        """Return the attack to test."""
        if self.attack is None:
            name = type(self).__name__
            raise TypeError(f"{name} has no attack: write `attack = Mine()` in it")
        return self.attack

    def items(self) -> Sequence[Item]:
        """Return what is asked: questions with options; define it where yours needs others."""
        rows = [copy.deepcopy(_row(number, "grow")) for number in range(3)]
        return [Item(str(row["id"]), row, "Go on. " if row is rows[0] else "") for row in rows]

    def shots(self) -> Mapping[str, Sequence[Shot]]:
        """Return role -> the rows that it may show; define it where yours needs others."""
        rows = [_row(number, "sell") for number in range(10)]
        shown = [Shot(row, f"Q: {row['question']}", f" A: {row['gt']}") for row in rows]
        return {role: tuple(shown) for role in self.make().roles()}

    def _context(self, seed: int = 7) -> PromptContext:
        attack, shots = self.make(), self.shots()
        rows = {role: tuple(shot.fields for shot in own) for role, own in shots.items()}
        return PromptContext({role: shots[role] for role in attack.shows()}, seed, rows)

    def _asked(self, seed: int = 7, *, backwards: bool = False, noise: int = 0) -> list[list[Item]]:
        """Return what is asked in the place of each item, by its order."""
        seed_everything(noise)
        attack, context, items = self.make(), self._context(seed), list(self.items())
        order = sorted(range(len(items)), reverse=backwards)
        made = {place: list(attack.rewrite(items[place], context)) for place in order}
        return [made[place] for place in range(len(items))]

    def _tried(self) -> list[str]:
        with no_network() as tried:
            self._asked()
        return tried

    # ------------------------------------------------------------------ what is asked

    def test_it_asks_something(self) -> None:
        """At least one item stands in the place of each, with all that a scorer reads of it."""
        for item, asked in zip(self.items(), self._asked(), strict=True):
            require(bool(asked), f"it asks nothing in place of {item.id!r}; return the item itself")
            for one in asked:
                gone = sorted(set(item.fields) - set(one.fields))
                require(
                    not gone,
                    f"what it asks in place of {item.id!r} has no {some(gone)}, which scorers "
                    "read; change fields in a copy: {**item.fields, ...}",
                )

    def test_it_asks_differently(self) -> None:
        """An attack that asks the same in the same way would show every method as robust."""
        attack = self.make()
        same = all(asked == [item] for item, asked in zip(self.items(), self._asked(), strict=True))
        require(
            not same or attack.sampling() is not None,
            "it asks every item as it is; change `before` or `fields`, or return a `sampling`",
        )

    def test_rewriting_is_pure(self) -> None:
        """The same item is asked alike whenever it comes, and nothing that is given changes."""
        first = self._asked()
        again = (self._asked(), self._asked(noise=1), self._asked(backwards=True))
        for problem, found in zip(
            (
                "a second time it asks otherwise; keep nothing between items",
                "it draws from the global random states; draw from random.Random(context.seed) or "
                "seed_for(context.seed, item.id)",
                "in another order of the items it asks otherwise; keep nothing between items",
            ),
            again,
            strict=True,
        ):
            require(found == first, problem)
        items, shots = list(self.items()), self.shots()
        attack, before = self.make(), copy.deepcopy((items, dict(shots)))
        for item in items:
            attack.rewrite(item, replace(self._context(), shots=shots))
        require(
            (items, dict(shots)) == before,
            "it changed the item or the shots that it was given, which others read; work on a copy",
        )

    def test_the_seed_determines_what_it_draws(self) -> None:
        """Another seed asks otherwise, if `draws`, else the same."""
        changed = self._asked(seed=8) != self._asked()
        if self.draws:
            remedy = "use context.seed, or set `draws = False` in the contract"
            require(changed, f"two seeds ask the same; {remedy}")
        else:
            remedy = "set `draws = True` in the contract where that is meant"
            require(not changed, f"two seeds ask otherwise, and `draws` is False; {remedy}")

    def test_it_shows_no_id(self) -> None:
        """Ids tell topic and answer; they are no text."""
        ids = {shot.fields["id"] for shots in self.shots().values() for shot in shots}
        for item, asked in zip(self.items(), self._asked(), strict=True):
            for one in asked:
                text = one.before + repr({k: v for k, v in one.fields.items() if k != "id"})
                shown = [str(name) for name in (item.id, *sorted(map(str, ids))) if name in text]
                require(not shown, f"it shows the id {some(shown)}; show the other columns")

    # ------------------------------------------------------------------ scores

    def test_its_score_is_on_the_scale_of_the_scores(self) -> None:
        """Of scores from 0 to 1 it makes one from 0 to 1: 0 of zeros, 1 of ones, always alike."""
        attack, sampling = self.make(), self.make().sampling()
        size = (1 if sampling is None else sampling.n) * len(self._asked()[0])
        draw = random.Random(7)
        mixed = [draw.random() for _ in range(size)]
        for scores, low, high in (([0.0] * size, 0, 0), ([1.0] * size, 1, 1), (mixed, 0, 1)):
            given = list(scores)
            found = attack.reduce(given)
            require(
                math.isfinite(found) and low - 1e-9 <= found <= high + 1e-9,
                f"of {size} scores from {min(scores):.3g} to {max(scores):.3g} it makes {found}; "
                "return a mean, an extreme or a share of them",
            )
            require(
                given == scores and attack.reduce(given) == found,
                "reduce changes the scores that it is given, or makes another one of them a "
                "second time; work on a copy",
            )

    # ------------------------------------------------------------------ a run's demands

    def test_it_reads_only_the_data_that_it_declares(self) -> None:
        """Overlap with the evaluation is looked for in what is declared, before anything runs."""
        attack, roles = self.make(), self.make().roles()
        require(len(set(roles)) == len(roles), f"roles() repeats a name: {roles}")
        plain = self._context()
        shots, rows = DeclaredOnly(plain.shots, "shows()"), DeclaredOnly(plain.rows, "roles()")
        for item in self.items():
            attack.rewrite(item, replace(plain, shots=shots, rows=rows))
        asked = sorted(shots.undeclared | rows.undeclared)
        require(not asked, f"it asked for {asked}, which roles() does not declare")
        unread = sorted(set(roles) - shots.read - rows.read)
        require(not unread, f"it declares {unread} in roles() and never reads them; leave them out")
