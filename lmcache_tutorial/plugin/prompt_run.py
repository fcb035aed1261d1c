"""One pytest session with groups of prompts: asks each of its deployment, judges, and keeps what was seen."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..gate.baseline import Baseline, Margin, fingerprint
from ..gate.decide import UndecidedError
from ..gate.judge_baseline import judge_baseline
from ..gate.judge_group import judge_group
from ..gate.prompt_group import ask_group
from ..gate.verdict import worst
from ..report.groups import figures
from ..report.results import Claim, RunRecord
from ..settings.shown import shown
from .deployments import Deployments
from .prompt_items import GroupFailedError, PromptItem


@dataclass(frozen=True)
class PromptRun:
    """What asks and judges. Nothing is asked before the first group runs."""

    deployments: Deployments
    record: RunRecord
    baseline: Baseline | None = None
    margin: Margin = field(default_factory=Margin)

    def run(self, item: PromptItem) -> None:
        """Ask a group of its deployment and judge it.

        Raises:
            GroupFailedError: a claim failed.
            UndecidedError: none failed, and one has no answer.
            DeploymentError: the deployment cannot be judged.
            NoAnswerError: a request had no answer.
        """
        deployment = self.deployments.at(item.url)
        self._describe()
        measured = ask_group(deployment, item.group)
        group = self.record.groups[item.nodeid]
        group.figures, group.url = figures(measured), deployment.document()["url"]
        judged = judge_group(measured, self.record.thresholds, mask=self.deployments.options.mask)
        if self.baseline:
            judged += judge_baseline(
                self.baseline,
                group.document(item.nodeid),
                fingerprint({**self.record.environment, "deployments": [deployment.document()]}),
                self.margin,
                (lambda: figures(ask_group(deployment, item.group))) if item.group.bars.times else None,
            )
        group.claims = [Claim(one.claim, one.outcome, shown(one.seen)) for one in judged]
        group.outcome = worst([claim.outcome for claim in group.claims])
        item.user_properties += group.figures["headline"].items()
        words = "\n".join(f"{one.outcome}: {one.name}: {one.message}" for one in group.claims)
        if group.outcome == "failed":
            raise GroupFailedError(words)
        if group.outcome != "passed":
            raise UndecidedError(words)

    def _describe(self) -> None:
        """Take what was found into the report's environment."""
        known = self.deployments.documents
        self.record.environment["deployments"] = known
        if self.record.environment["profile"] == "deployment":
            self.record.environment["model"] = ", ".join(dict.fromkeys(one["model"] for one in known))
