"""A chapter while it is executed: it measures, and its page shows, tells, judges and hands on.

All that a page shows is stored first and drawn from what was stored, so that it can be drawn again without a model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import Markdown, display

from ..errors import DamagedRunError
from ..models.loading import Loading
from ..models.model import Model
from ..models.parts import Parts, PartsIn
from ..paper import CLAIMS
from ..prompts.sets import PromptSet, categories_of
from ..publishing.evidence import Evidence
from ..publishing.ledger import NEEDS_TWO, claim_text, read_ledger
from ..publishing.provenance import RUN_NOTE, facts_of
from ..publishing.publish import Figure, Text
from ..publishing.run_folder import RunFolder, digest_of, effects_file, handed_file
from ..publishing.shown import Item, Shown
from ..statistics import Values
from ..study import Scale, Study, open_study
from ..tracing.heads import Head

PARTS = ".parts"  # of a workplace: where parts are kept, and what makes them
BY_HAND = ".twotowers-run"  # where the files of a chapter go that is executed without the pipeline


def open_page(
    chapter: str,
    model: str,
    task: str,
    scale: str,
    seed: int,
    loading: Mapping[str, Any] | None = None,
    folder: str = "",
    reads: Mapping[str, str] | None = None,
) -> Page:
    """Begin a chapter: open its study, and say on the page what is run.

    Args:
        loading: fields of `Loading` that are not at their default.
        folder: the chapter's workplace; without the pipeline a hidden folder beside the notebook.
        reads: the files that it may read of its run's folder, with their digests; without the pipeline any.

    Raises:
        UserError: names, texts or weights that are not possible.
    """
    study = open_study(model, task, scale, seed, Loading(**(loading or {})))
    page = Page(chapter, study, Path(folder or BY_HAND), None if not folder else dict(reads or {}))
    page.tell(RUN_NOTE, tokens=len(study.evaluation[0].prompts[0].ids))
    return page


def keep_parts(workplace: Path, folder: Path, made_of: Mapping[str, Any]) -> None:
    """Let the chapter that is made in a workplace keep parts of its sweeps in a folder, and find those that are there.

    Args:
        made_of: all that decides its results: parts that were made of anything else are not found.
    """
    maker = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
    (workplace / PARTS).write_text(json.dumps({"folder": str(folder), "maker": maker}), encoding="utf-8")


def _parts_kept(workplace: Path) -> Parts:
    """Where `keep_parts` said; nowhere if it did not."""
    file = workplace / PARTS
    if not file.is_file():
        return Parts()
    told = json.loads(file.read_text(encoding="utf-8"))
    return PartsIn(Path(told["folder"]), told["maker"])


class Page:
    """What a chapter's text speaks to. Use `open_page`."""

    def __init__(self, chapter: str, study: Study, folder: Path, reads: dict[str, str] | None) -> None:
        self.study, self._folder, self._reads = study, folder, reads
        self._run = RunFolder(folder if reads is None else folder.parent)
        self.shown = Shown(folder, chapter, facts_of(study))
        study.model.traffic.log = folder / ".traffic"
        study.model.parts = _parts_kept(folder)

    @property
    def model(self) -> Model:
        return self.study.model

    @property
    def selection(self) -> list[PromptSet]:
        """Prompt sets on which heads are chosen."""
        return self.study.selection

    @property
    def evaluation(self) -> list[PromptSet]:
        """Prompt sets, of other texts, on which everything is reported."""
        return self.study.evaluation

    @property
    def half(self) -> list[PromptSet]:
        """The first half of the evaluation sets, at least two, for what has to run whole prompts again and again.

        Their numbers are those of the evaluation sets, and they show all categories as equally often as can be.
        """
        return self.evaluation[: max(2, len(self.evaluation) // 2)]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, sorted."""
        return self.study.evaluation[0].labels

    @property
    def scale(self) -> Scale:
        return self.study.scale

    @property
    def seed(self) -> int:
        return self.study.seed

    def show(self, figure: Figure, /, **inputs: Any) -> None:
        """Keep the results that a figure is made of, draw it from what was kept, and show it with its files."""
        self._put(figure, inputs)

    def tell(self, text: Text, /, **inputs: Any) -> None:
        """The same for a computed text."""
        self._put(text, inputs)

    def judge(
        self,
        claim: str,
        effects: pd.DataFrame,
        *,
        random: Values | None = None,
        control: pd.DataFrame | None = None,
        folds: Values | None = None,
        before: pd.DataFrame | None = None,
        accuracy: pd.DataFrame | None = None,
    ) -> None:
        """Keep a claim's effect in each evaluation set, and what controls it, and say its verdict by itself.

        Args:
            effects: a row per set or per prompt, `set, effect`; positive if the paper is right.
            random, control, folds, before: as in `statistics.judge`; a claim is not supported without those that it
                needs (`paper.CLAIMS`).
            accuracy: two-way accuracy of each set at the chapter's own shots; left out, what `task` has handed on.

        Raises:
            UnknownNameError: no such claim.
            ValueError: an effect of a set that is no evaluation set.
        """
        gate = pd.DataFrame(self.handed("accuracy")) if accuracy is None else accuracy
        evidence = Evidence(
            claim, self.seed, effects, categories_of(self.evaluation), control, before, gate, random, folds
        )
        self._put(claim_text(claim), {"evidence": evidence.record()}, {"evidence": effects_file(claim)})

    def needs_two_labels(self) -> None:
        """Say that the chapter's question has no meaning with more than two labels; its claims are not testable."""
        own = [name for name, claim in CLAIMS.items() if claim.chapter == self.shown.chapter]
        self.tell(NEEDS_TWO, claims=own)
        nothing, categories = pd.DataFrame({"set": [], "effect": []}, dtype=float), categories_of(self.evaluation)
        for claim in own:
            evidence = Evidence(claim, self.seed, nothing, categories)
            self._put(claim_text(claim), {"evidence": evidence.record()}, {"evidence": effects_file(claim)})

    def hand_on(self, name: str, value: Any) -> None:
        """Keep a result, as JSON, for later chapters of the same run."""
        place = self._folder / handed_file(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps({"made_of": self.study.digest, "value": value}) + "\n", encoding="utf-8")

    def handed(self, name: str) -> Any:
        """What an earlier chapter of the same run has handed on.

        Raises:
            DamagedRunError: it is missing, or was made of another model, task, scale or seed.
        """
        file = handed_file(name)
        own = self._folder / file  # a chapter may read what it has handed on itself
        text = own.read_text(encoding="utf-8") if own.is_file() else self._run.read(file, self._digest(file))
        record = json.loads(text)
        if record["made_of"] != self.study.digest:
            raise DamagedRunError(f"{file} was made of another model, task, scale or seed; run its chapter first.")
        return record["value"]

    @property
    def selected(self) -> dict[str, list[Head]]:
        """The in-context heads that the knock-out chapter has selected: a list for each label, and `all` of them."""
        return {name: [(layer, head) for layer, head in heads] for name, heads in self.handed("heads").items()}

    @property
    def folds(self) -> list[list[Head]]:
        """The in-context heads as each fold of the selection sets would choose them."""
        return [[(layer, head) for layer, head in heads] for heads in self.handed("folds")]

    def ledger(self) -> pd.DataFrame:
        """The claims of this run with their verdicts, as `publishing.ledger.ledger`."""
        digests = self._reads
        if digests is None:
            files = [str(file.relative_to(self._folder)) for file in self._folder.glob("claims/*")]
            digests = {file: digest for file in files if (digest := self._digest(file))}
        return read_ledger(self._run, digests)

    def _digest(self, file: str) -> str | None:
        """With which digest a file of the run's folder may be read."""
        if self._reads is not None:
            return self._reads.get(file)
        return digest_of(self._run.path / file) if (self._run.path / file).is_file() else None

    def _put(self, item: Item, inputs: Mapping[str, Any], places: Mapping[str, str] | None = None) -> None:
        self.shown.add(item, inputs, places)
        display(Markdown(self.shown.render(item)), metadata={"item": item.id})
