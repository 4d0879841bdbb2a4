"""Write the tables of docs/costs.md: `python docs/costs.py`; a minute or two, without a GPU.

Everything between the markers is planned: work that is counted, times an assumed share of a card's
peak. Nothing is fetched.
"""

from pathlib import Path

from ilubench.experiments.experiment import resolve
from ilubench.forecast.estimate import Forecast
from ilubench.forecast.outlook import look_ahead
from ilubench.specs.overrides import parse

TARGET = Path(__file__).resolve().parent / "costs.md"
BEGIN, END = "<!-- planned: python docs/costs.py -->", "<!-- end of what was planned -->"
CARDS = ("h200", "h100", "a100")
SUITES = ("wmdp-bio", "wmdp-cyber", "muse-news", "muse-books")
METHODS = ("rmu", "npo", "graddiff", "sam", "ilu", "elm", "undo", "tar")
GROWTH = (
    ("as it is", ()),
    ("three seeds", ("seeds=0..2",)),
    ("one attack, AG News", ("attacks=agnews",)),
    ("one attack, GSM8K", ("attacks=gsm8k",)),
    ("500 unlearning steps, not 125", ("method.train.steps=500",)),
    ("attacks of 500 steps, not 250", ("attack.train.steps=500",)),
    ("FA on all QQP questions", ("data.qqp.eval.limit=none",)),
    ("GSM8K's FA on 200 problems", ("data.gsm8k.eval.limit=200",)),
)


def planned(card: str, *words: str) -> Forecast:
    """Return the forecast of a run on a card, none of its jobs done."""
    found = look_ahead(resolve(parse([*words, "out=docs/no-such-folder"])), card=card)
    assert found.forecast is not None, found.unknown
    return found.forecast


def hours(forecast: Forecast, who: str = "") -> str:
    """Return the hours of the jobs of a method, of the reference, or of all."""
    mine = [c for c in forecast.jobs if not c.cached and (not who or c.job.who == who)]
    total = sum(c.seconds or 0.0 for c in mine) / 3600
    return f"{total:.1f}" if total >= 0.95 else f"{total:.2f}"


def between(forecast: Forecast) -> str:
    """Return the range of all jobs, in hours."""
    return f"{forecast.low / 3600:.1f} to {forecast.high / 3600:.1f}"


def gigabytes(size: float) -> str:
    """Return a size in GB."""
    return f"{size / 1e9:.0f}"


def rows() -> list[str]:
    """Return the tables' lines."""
    lines = ["A row of NPO with six attacks and one seed, hours:", ""]
    lines += [f"| suite | {' | '.join(CARDS)} | on an h100, from .. to | original beside, once |"]
    lines += [f"|---|{'---|' * len(CARDS)}---|---|"]
    for suite in SUITES:
        each = {card: planned(card, f"suite={suite}", "method=npo") for card in CARDS}
        told = " | ".join(hours(found, "method") for found in each.values())
        other = hours(each["h100"], "reference")
        lines.append(f"| {suite} | {told} | {between(each['h100'])} | {other} |")
    lines += ["", "The range is for both, the row and the original model's own.", ""]
    lines += ["Methods on wmdp-bio, one seed, on an h100:", ""]
    lines += ["| method | unlearning, hours | the row, hours | memory, GB | fits 80 GB with |"]
    lines += ["|---|---|---|---|---|"]
    for method in METHODS:
        found = planned("h100", "suite=wmdp-bio", f"method={method}")
        unlearn = sum(
            c.seconds or 0.0
            for c in found.jobs
            if c.job.stage == "unlearn" and c.job.who == "method"
        )
        assert found.peak is not None
        fit = next(fit for fit in found.fits if fit.memory == 80e9)
        words = (
            "nothing does" if fit.words is None else (f"`{fit.words}`" if fit.words else "as it is")
        )
        lines.append(
            f"| {method} | {unlearn / 3600:.2f} | {hours(found, 'method')} | "
            f"{gigabytes(found.peak.total)} | {words} |"
        )
    npo = planned("h100", "suite=wmdp-bio", "method=npo")
    lines += [
        "",
        "What fits which card, NPO and its attacks on wmdp-bio (all weights trained):",
        "",
    ]
    lines += ["| card | words | GB at the peak |", "|---|---|---|"]
    for fit in npo.fits:
        words = (
            "too small, whatever is set" if fit.words is None else fit.words and f"`{fit.words}`"
        )
        lines.append(f"| {fit.card} | {words or 'none needed'} | {gigabytes(fit.then)} |")
    lines += ["", "What the hours grow with (NPO on wmdp-bio, h100, original model included):", ""]
    lines += ["| change | hours |", "|---|---|"]
    for what, changes in GROWTH:
        found = planned("h100", "suite=wmdp-bio", "method=npo", *changes)
        lines.append(f"| {what} | {hours(found)} |")
    return lines


def main() -> None:
    """Put the tables between the markers."""
    text = TARGET.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    made = "\n".join(rows())
    TARGET.write_text(f"{head}{BEGIN}\n\n{made}\n\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
