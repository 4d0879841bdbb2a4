"""What the open jobs of a plan will read, tried before any training."""

from collections.abc import Sequence

from ilubench.errors import DataError
from ilubench.experiments.experiment import Attack, environment_role
from ilubench.experiments.method_settings import made_by_recipe
from ilubench.experiments.scored_items import scored_items
from ilubench.interfaces import Method, PromptAttack, WeightAttack
from ilubench.records.ranges import fa_scorer
from ilubench.runs.jobs import Job
from ilubench.runs.plan import Plan
from ilubench.runs.stages.prompting import applicable_scorers, bind_attack
from ilubench.runs.stages.target import read_recipe, recipe_of
from ilubench.runs.stages.untouched import check_untouched
from ilubench.runs.stages.workbench import Workbench
from ilubench.specs import FineTuningAccuracySpec, MetricSpec
from ilubench.statistics.intervals import MIN_ITEMS
from ilubench.statistics.row import FA

__all__ = ["check_inputs"]


def check_inputs(plan: Plan) -> None:
    """Tokenise, bind and dry-run what the open jobs read: a wrong item shows before any training.

    Raises:
        DataError: data are missing, empty, or an item does not fit the model; or a metric of the
            row has a single item.
        ModelError: the retrained or the untouched model does not fit the target's.
        SpecError: an attack's settings do not go with its number of training examples, or a recipe
            makes another kind of model than the target.
        UsageError: no scorer that measures forgetting can apply a prompt attack.
    """
    bench, suite = plan.bench, plan.bench.suite
    open_jobs = [job for job in plan.jobs if not plan.is_done(job)]
    refs = {job.method.model_dump_json(): job.method for job in open_jobs if job.method}
    methods = [bench.method(ref) for ref in refs.values()]
    _check_models(bench, open_jobs, methods)
    for method in methods:
        if method.trains:
            bench.examples(suite.forget)
            bench.examples(suite.retain)
        for name in method.environment_names():
            bench.examples((environment_role(suite, name),))
    attacks = [bench.attack(name) for name in {job.attack: None for job in open_jobs if job.attack}]
    for attack in attacks:
        if not isinstance(attack.plugin, PromptAttack):
            for names in attack.trained(suite).values():
                bench.examples(names)
            _check_course(bench, attack)
        scored_items(bench.experiment, attack)
        asked = bench.check_items(bench.attack_scorers(attack))
        if attack.spec.fa is not None:
            items = asked[FA, attack.spec.fa.metric]
            _check_count(f"scorer {fa_scorer(attack.name)}", attack.spec.fa, items)
    if any(job.stage in ("score", "attack") for job in open_jobs):
        asked = bench.check_items(bench.suite_scorers())
        for spec in suite.metrics if bench.experiment.attacks else ():
            items = asked[spec.scorer, spec.metric]
            _check_count(f"scorer {spec.scorer}", spec, items)
            for attack in attacks:
                left = scored_items(bench.experiment, attack).get(spec.scorer, items)
                where = f"attack {attack.name}: only.{spec.scorer} leaves too few"
                _check_count(where, spec, [item for item in items if item in left])
    for attack in attacks:
        if isinstance(attack.plugin, PromptAttack):
            applicable_scorers(bench, bind_attack(bench, attack, bench.experiment.seeds[0]))


def _check_models(bench: Workbench, jobs: Sequence[Job], methods: Sequence[Method]) -> None:
    """Refuse recipes that cannot be carried out, and models that cannot be held to the target."""
    if any(job.stage == "target" for job in jobs):
        read_recipe(bench, recipe_of(bench.suite), retrain=False)
    if any(job.who == "untouched" for job in jobs):
        check_untouched(bench)
    for made in (made_by_recipe(bench.suite, method) for method in methods):
        if made is not None:
            read_recipe(bench, made, retrain=True)


def _check_course(bench: Workbench, attack: Attack) -> None:
    """Refuse settings of an attack that do not go with its training examples."""
    for link in attack.links.values():
        _check_course(bench, link)
    plugin = attack.plugin
    assert isinstance(plugin, WeightAttack)
    trained = attack.trained(bench.suite)
    with attack.naming():
        plugin.check_examples({role: len(bench.examples(names)) for role, names in trained.items()})


def _check_count(
    where: str, spec: MetricSpec | FineTuningAccuracySpec, items: Sequence[str]
) -> None:
    """Refuse a metric of the row with so few items that no interval could follow from them."""
    if len(items) < MIN_ITEMS:
        count = f"{len(items) or 'no'} item"
        problem = f"{where}: {count} for {spec.label}, and an interval needs two"
        raise DataError(f"{problem}; give more rows, or a higher limit")
