"""Remeasure: what a release reaches on this machine, where its bundle was measured on another.

Neither latency nor accuracy is a file's own: static int8 answers otherwise on a processor that adds in another order or width.
"""

from datetime import UTC, datetime

from tasks.compress import against_limits, measure
from tasks.compression import Subject
from tasks.core.bundle import Bundle, Variant
from tasks.core.encoded import Encoded
from tasks.core.errors import GateError
from tasks.core.golden import Golden
from tasks.core.machine import Place
from tasks.core.predictor import Predictor
from tasks.core.recipe import Metric, Recipe
from tasks.core.stages import StageStore
from tasks.gate import Judged
from tasks.gates import GATES, Evidence, Verdict
from tasks.parent import recipe_of
from tasks.places import FAILED, PASSED, tag_of
from tasks.tracking import Release, Run, Tracking
from tasks.workshop import Made, Workshop


class RemeasureResult(Judged):
    """The chosen variant and fp32 as they are here, and the former as the bundle has it."""

    metric: Metric
    place: Place
    taken: str
    """When, in UTC."""
    chosen: Variant
    fp32: Variant
    released: Variant

    @property
    def file(self) -> str:
        """Where among the run's artifacts it is recorded."""
        return f"machines/{self.place.fingerprint}.json"

    @property
    def figure(self) -> str:
        here, there = self._figures(self.chosen), self._figures(self.released)
        return (
            f"{self.chosen.name} has a test {self.metric.replace('_', ' ')} of {here[0]} (in its bundle {there[0]}) and takes {here[1]} ms a row"
            f" ({there[1]}), {len(self.verdicts) - len(self.failed)} of {len(self.verdicts)} checks passed"
        )

    def _figures(self, variant: Variant) -> tuple[str, str]:
        found = variant.measurements
        return (f"{found.metrics['test'][self.metric]:.4f}", f"{found.latency_ms['1'].p50:.3g}") if found else ("none", "unknown")

    def require(self, release: Release) -> None:
        """Raises GateError unless all passed."""
        if failed := self.failed:
            raise GateError(
                f"{release.name} version {release.version} fails {len(failed)} of {len(self.verdicts)} checks on this machine"
                f" ({', '.join(failed)}); nothing was promoted\n{self.table()}",
                f"search for a variant on this machine: maasflow compress {release.name}@{release.version}; "
                f"its run in MLflow has all that was measured, in {self.file}",
            )


def remeasure(bundle: Bundle, encoded: Encoded) -> RemeasureResult:
    """Run fp32 and the chosen variant on the validation and the test split as they are served, and hold the latter against the recipe.

    Of its gates those that judge what a machine changes, its limits for compression, and its golden rows, for which a server here would
    refuse it: they stay those of the release, whose files never change. Raises MaasflowError where an answer is not finite.
    """
    manifest, recipe = bundle.manifest, recipe_of(bundle, ())
    served = {"threads": manifest.threads, "device": manifest.device}
    recipe = recipe.model_copy(update={"serving": recipe.serving.model_copy(update=served)})
    # Its store stays empty: what was answered before, on whatever machine, is not asked for.
    workshop = Workshop(Subject(recipe, encoded, len(manifest.labels)), manifest, bundle.file("fp32"), StageStore(bundle.folder))
    made = {
        variant.name: workshop.ask(variant.name, bundle.file(variant.name), variant.batch, variant.parallel)
        for variant in map(manifest.variant, dict.fromkeys(("fp32", manifest.chosen)))
    }
    variants = {variant.name: variant for variant in measure(workshop, bundle.folder, made)}
    chosen, fp32 = variants[manifest.chosen], variants["fp32"]
    assert chosen.place
    return RemeasureResult(
        verdicts=(
            *_batch(chosen),
            *_golden(bundle),
            *_gates(recipe, manifest.parity, chosen, fp32, made[manifest.chosen]),
            *_limits(recipe, chosen, fp32),
        ),
        metric=recipe.evaluation.metric,
        place=chosen.place,
        taken=datetime.now(UTC).isoformat(timespec="seconds"),
        chosen=chosen,
        fp32=fp32,
        released=manifest.variant(),
    )


def record(tracking: Tracking, release: Release, found: RemeasureResult) -> None:
    """Leave it with the release, passed or not: all of it among its run's artifacts, and what matters in a tag of the version."""
    run = Run(tracking, release.run)
    run.text(found.model_dump_json(indent=1), found.file)
    run.text(found.table() + "\n", found.file.replace(".json", ".txt"))
    # The tag goes last: with it, the release counts as measured.
    judged = PASSED if found.passed else f"{FAILED} ({', '.join(found.failed)})"
    tracking.tag(release.name, release.version, {tag_of(found.place): f"{judged}: {found.figure}; {found.place}; {found.taken}"})


def _batch(chosen: Variant) -> tuple[Verdict, ...]:
    """Whether rows go together here too, where the bundle says that they do: the server believes it."""
    invariance = chosen.measurements.invariance if chosen.measurements else None
    if invariance is None or chosen.batch == "one":
        return ()
    if invariance.changed:
        what, value, most = "labels that other rows beside them change", float(invariance.changed), 0.0
    else:
        what, value, most = "largest change of a probability by other rows beside it", invariance.difference, invariance.tolerance
    limit, passed = f"≤ {most:g}", invariance.holds
    return (Verdict(gate="batch", what=f"{what}, {chosen.name}", measured=value, limit=limit, margin=most - value, passed=passed),)


def _golden(bundle: Bundle) -> tuple[Verdict, ...]:
    """Whether a server here would take it for what was released."""
    golden, chosen = Golden.read(bundle), bundle.manifest.chosen
    if golden is None:
        return ()
    count = float(len(golden.otherwise(Predictor(bundle))))
    what = f"golden rows that {chosen} answers otherwise than when it was released"
    return (Verdict(gate="golden", what=what, measured=count, limit="≤ 0", margin=-count, passed=count == 0),)


def _gates(recipe: Recipe, parity: float, chosen: Variant, fp32: Variant, made: Made) -> tuple[Verdict, ...]:
    """The champion is not among what is held against: going back to an older version would be stopped by what it is to replace."""
    evidence = Evidence(
        metric=recipe.evaluation.metric,
        chosen=chosen,
        fp32=fp32,
        parity=parity,
        scored=made.scores["test"],
        champion=None,
        resamples=recipe.evaluation.bootstrap,
        seed=recipe.training.seed,
    )
    gates = [GATES.build(spec, recipe.origin.below("gates", index)) for index, spec in enumerate(recipe.gates)]
    return tuple(gate.check(evidence) for gate in gates if gate.by_machine)


def _limits(recipe: Recipe, chosen: Variant, fp32: Variant) -> tuple[Verdict, ...]:
    return tuple(
        Verdict(
            gate=f"limits.{name}",
            what=f"{what} of {chosen.name}",
            measured=value,
            limit=f"≤ {limit:g}",
            margin=limit - value,
            passed=value <= limit,
        )
        for name, (limit, value, what) in against_limits(recipe, chosen, fp32).items()
        # The file's size is the same everywhere.
        if limit is not None and name != "size_ratio"
    )
