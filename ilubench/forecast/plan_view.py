"""`ilubench plan`: a run's jobs as a table, and what they will cost."""

from collections.abc import Iterator

from rich.table import Table

from ilubench.forecast.estimate import Forecast, JobCost
from ilubench.forecast.memory import Fit, Peak
from ilubench.forecast.outlook import Outlook
from ilubench.forecast.sources import Source
from ilubench.forecast.took import ORIGINS
from ilubench.records.figure_text import format_duration

__all__ = ["cost_table", "jobs_table", "sources_table"]


def _size(count: float) -> str:
    if count < 1e6:
        return f"{count / 1e3:.0f} kB"
    if count < 1e9:
        return f"{count / 1e6:.0f} MB"
    return f"{count / 1e9:.1f} GB" if count < 1e11 else f"{count / 1e9:.0f} GB"


def jobs_table(outlook: Outlook) -> Table:
    """Return the jobs: one line each, cached or to do."""
    suite = outlook.experiments[0].suite
    names = [one.method_name for one in outlook.experiments]
    if len(names) > 1:  # as they were asked for: two may be variants of one method
        names = [one.run.method.use for one in outlook.experiments]
    table = Table(
        title=f"Plan: {', '.join(names)} on suite {suite.name} v{suite.version}, {outlook.device}",
        title_justify="left",
        caption=f"engine {outlook.engine.name}: {outlook.engine.reason}",
        caption_justify="left",
    )
    for name in ("job", "state", "key"):
        table.add_column(name)
    costs = {c.job.key: c for c in outlook.forecast.jobs} if outlook.forecast else {}
    for job in outlook.jobs:
        key = job.key[:10] if outlook.plan is not None else ""
        table.add_row(job.label, _state(outlook, costs.get(job.key), job.key), key)
    return table


def _state(outlook: Outlook, cost: JobCost | None, key: str) -> str:
    if key in outlook.done:
        given = outlook.jobs[0].key == key and outlook.experiments[0].suite.target.model is not None
        return "given" if given else "cached"
    if cost is None or cost.took is None:
        return "to do"
    return f"to do, about {format_duration(cost.took.seconds)}"


def cost_table(outlook: Outlook) -> Table:
    """Return time, memory and disk, each with where the figure is from."""
    table = Table(title="What the open jobs will cost", title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("figure", overflow="fold")
    for name, where in outlook.experiments[0].suite.unused_recipes.items():
        table.add_row(f"{name} model", f"{where}; its recipe is not used")
    if outlook.missing:
        table.add_row("not at hand", f"{outlook.missing} (`plan` itself fetches nothing)")
    found_sets = [row.references for row in outlook.plan.rows] if outlook.plan is not None else []
    for words in dict.fromkeys(words for one in found_sets for words in one.shipped):
        table.add_row("shipped", words)
    for reason in dict.fromkeys(reason for one in found_sets for reason in one.refused):
        table.add_row("run here", reason)
    found = outlook.forecast
    if found is None:
        table.add_row("no estimate", outlook.unknown)
        return table
    for what, figure in _rows(found):
        table.add_row(what, figure)
    return table


def _rows(found: Forecast) -> Iterator[tuple[str, str]]:
    if found.peak is None:
        yield "time", "nothing is to do"
        return
    yield "time", _time(found)
    known = [(stage, n, seconds) for stage, (n, seconds) in found.stages.items() if seconds]
    if found.total is not None:
        yield "", ", ".join(f"{stage} {n} jobs {format_duration(s)}" for stage, n, s in known)
    for origin, jobs in found.origins.items():
        yield f"{jobs} job{'s' * (jobs > 1)} from", ORIGINS[origin]
    scoring = max(job.peak.scoring for job in found.jobs)
    yield "memory", _memory(found.peak, scoring)
    if found.held:
        yield "", f"{_size(found.held)} were held by the probe"
    else:
        yield "", f"{_size(found.copy)} more for each copy of the weights that a method keeps"
    yield "cards", "; ".join(_fit(fit) for fit in found.fits)
    short = "" if found.disk + found.scratch < found.free else " TOO LITTLE:"
    free = f"{short} {_size(found.free)} free"
    yield "disk", f"{_size(found.disk)} stay, {_size(found.scratch)} while a job runs;{free}"
    if found.stated:
        yield "stated, approximate", f"sizes of {', '.join(found.stated)}"


def _time(found: Forecast) -> str:
    jobs = len(found.jobs)
    if found.total is None:
        unknown = sum(job.took is None for job in found.jobs)
        return (
            f"unknown for {unknown} of {jobs} jobs on {found.device}: no finished job of the suite "
            "here is like them; --probe times the model, --card NAME plans for a card"
        )
    seconds, low, high = found.total
    kind = "CPU" if found.device == "cpu" else "GPU"
    hours = f"{seconds / 3600:.2g} {kind} hours"
    between = f"{format_duration(low)} to {format_duration(high)}"
    return f"{format_duration(seconds)} ({between}) for {jobs} jobs on {found.device}: {hours}"


def _memory(peak: Peak, scoring: float) -> str:
    parts = {
        "weights": peak.weights,
        "gradients": peak.gradients,
        "optimizer": peak.optimizer,
        "activations": peak.activations,
        "logits": peak.logits,
    }
    told = ", ".join(f"{name} {_size(size)}" for name, size in parts.items())
    host = f"; {_size(peak.host)} of the machine's memory" if peak.host else ""
    return f"{_size(peak.total)} at the peak: {told}; scoring {_size(scoring)}{host}"


def _fit(fit: Fit) -> str:
    if fit.words is None:
        return f"{fit.card} too small"
    return f"{fit.card} fits" + (f" with {fit.words} ({_size(fit.then)})" if fit.words else "")


def sources_table(sources: tuple[Source, ...]) -> Table:
    """Return what comes from a hub: one line a part of a data set, or a model."""
    table = Table(title="From a hub", title_justify="left")
    for name in ("id@revision", "part", "licence", "gated", "here", "size"):
        table.add_column(name, overflow="fold")
    for source in sources:
        size = _size(source.bytes) if source.bytes else "?"
        table.add_row(
            f"{source.name}@{source.revision[:12]}",
            source.part,
            source.license or "not stated",
            "yes" if source.gated else "no",
            "yes" if source.cached else "no",
            size,
        )
    todo = [source for source in sources if not source.cached]
    if todo:
        known = sum(source.bytes or 0 for source in todo)
        table.caption = f"{len(todo)} to fetch, {_size(known)} as far as known"
        table.caption_justify = "left"
    return table
