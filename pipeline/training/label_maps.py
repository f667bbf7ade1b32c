"""Label maps from configs/labels: data in the emotions that a run knows, and answers in those that the data have."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from data_tools.dataset import UtteranceDataset
from data_tools.label_map import LabelMap
from models.output import Output
from pipeline.run_data import DataFacts, dataset_name, first_problems, without_counterpart
from pipeline.settings import ConfigError, load_config
from pipeline.training.losses import weights_by_count

# Of answers that stand for one emotion of the map together: their thresholds are taken off before they are compared.
_MERGED_THRESHOLD = 0.5


def read_label_map(name: str) -> LabelMap:
    """The label map configs/labels/<name>.yaml, or of the YAML file that `name` is a path to.

    Raises:
        ConfigError: no such file, or it is no label map.
    """
    values = load_config("labels", name)
    try:
        if unknown := sorted(map(str, set(values) - {"emotions", "corpora"})):
            raise ValueError(f"{', '.join(unknown)}: unknown")
        return TypeAdapter(LabelMap).validate_python(values | {"name": Path(name).stem})
    except ValueError as error:
        problem = first_problems(error) if isinstance(error, ValidationError) else str(error)
        raise ConfigError(
            f"the label map {name!r} cannot be used ({problem}); it needs `emotions`, a list, and `corpora`, for each "
            "corpus its own emotions with their counterparts"
        ) from None


def counterparts_of(data: Path, own: Sequence[str], label_map: LabelMap) -> dict[str, str]:
    """Emotion of the data folder `data` -> its counterpart in the map, for those that have one.

    Raises:
        ConfigError: none has.
    """
    corpus = dataset_name(data)
    if found := label_map.counterparts(corpus, own):
        return found
    raise ConfigError(
        f"the label map {label_map.name!r} has no counterpart for any emotion of {data} ({', '.join(own) or 'none'}); "
        f"name them as corpora: {corpus}: in a copy of the map, and give its path with --labels"
    )


def counterparts_in_run(facts: DataFacts, label_map: LabelMap) -> dict[str, str]:
    """Emotion of a run -> its counterpart in the map; a run that learned the emotions of a map has those."""
    if facts.label_map is not None:
        return {name: name for name in facts.emotions if name in label_map.emotions}
    return label_map.counterparts(str(facts.dataset.get("dataset", "")), facts.emotions)


def emotions_to_learn(
    asked: Sequence[str] | None, own: Sequence[tuple[Path, Sequence[str]]], label_map: LabelMap
) -> list[str]:
    """The emotions of the map that a run learns. asked: None for those that every data folder has.

    own: of each data folder its path and its own emotions.

    Raises:
        ConfigError: the map or the data lack one that is asked for, or nothing is left.
    """
    having = {folder: set(counterparts_of(folder, emotions, label_map).values()) for folder, emotions in own}
    if asked is None:
        found = [name for name in label_map.emotions if all(name in names for names in having.values())]
        if not found:
            listed = "; ".join(f"{folder}: {', '.join(sorted(names))}" for folder, names in having.items())
            raise ConfigError(f"by the label map {label_map.name!r} the data have no emotion in common ({listed})")
        return found
    possible = set().union(*having.values())
    if lacking := [name for name in asked if name not in possible]:
        raise ConfigError(
            f"learn_emotions has {', '.join(lacking)}, which no utterance can have by the label map "
            f"{label_map.name!r}; it has: {', '.join(sorted(possible))}"
        )
    return list(asked)


def relabel(parts: Sequence[UtteranceDataset], label_map: LabelMap, emotions: Sequence[str]) -> list[UtteranceDataset]:
    """The data sets with `emotions` of the map as their labels. Raises ConfigError as `counterparts_of`."""
    found = [counterparts_of(part.data_dir, part.emotions, label_map) for part in parts]
    return [part.relabelled(label_map, names, emotions) for part, names in zip(parts, found, strict=True)]


def relabel_for_run(
    facts: DataFacts, task: str, parts: Sequence[UtteranceDataset], label_map: LabelMap
) -> list[UtteranceDataset]:
    """The data sets with the emotions of the map that both the run and one of them have, in the map's order.

    task: of the run, which has emotions.

    Raises:
        ConfigError: a run of sentiment, or too few emotions in common.
    """
    if task == "sentiment":
        raise ConfigError("the task of the run is sentiment, which has no emotions to map; leave --labels out")
    of_run = set(counterparts_in_run(facts, label_map).values())
    of_parts = [counterparts_of(part.data_dir, part.emotions, label_map) for part in parts]
    of_data = {emotion for found in of_parts for emotion in found.values()}
    shared = [name for name in label_map.emotions if name in of_run and name in of_data]
    if len(shared) < (2 if task == "single-label" else 1):
        raise ConfigError(
            f"by the label map {label_map.name!r} the run has {', '.join(sorted(of_run)) or 'no emotion'} and the data "
            f"{', '.join(sorted(of_data))}: too few in common to score; use another map with --labels"
        )
    return relabel(parts, label_map, shared)


@dataclass(frozen=True)
class MappedAnswers:
    """Answers of a run in the emotions of a label map.

    emotions: those that the data have. sources: each of them -> the run's own emotions that stand for it, at least one.
    facts: of the run, in `emotions`: counts of merged emotions are added up. thresholds: likewise; those of several
    emotions are taken off their answers. task: of the run.
    """

    emotions: list[str]
    sources: dict[str, list[str]]
    facts: DataFacts
    thresholds: dict[str, float]
    task: str
    own_emotions: list[str]
    own_thresholds: dict[str, float]

    @classmethod
    def to_data(
        cls, facts: DataFacts, task: str, thresholds: Mapping[str, float], dataset: UtteranceDataset
    ) -> "MappedAnswers | None":
        """The answers to `dataset`; None where it has the emotions of the run. thresholds: of the run."""
        if dataset.mapped is None or dataset.emotions == facts.emotions:
            return None
        known = counterparts_in_run(facts, dataset.mapped.label_map)
        sources = {name: [own for own in facts.emotions if known.get(own) == name] for name in dataset.emotions}
        mapped = {
            name: thresholds[own[0]] if len(own) == 1 else _MERGED_THRESHOLD
            for name, own in sources.items()
            if thresholds
        }
        return cls(dataset.emotions, sources, _merged(facts, sources), mapped, task, facts.emotions, dict(thresholds))

    def output(self, output: Output) -> Output:
        """The output of the run's model (B, its emotions) as one of (B, `emotions`)."""
        further = {name: [self.logits(logits) for logits in views] for name, views in output.also_scored.items()}
        return replace(output, logits=self.logits(output.logits), also_scored=further)

    def logits(self, logits: Tensor) -> Tensor:
        """(B, emotions of the run) -> (B, `emotions`).

        Single-label: probabilities of merged emotions add up, those without a counterpart are taken out of the choice.
        Multi-label: of merged emotions the answer that is furthest above its threshold.
        """
        columns = []
        for own in self.sources.values():
            places = [self.own_emotions.index(name) for name in own]
            found = logits[:, places]
            if self.task == "single-label":
                columns.append(found.logsumexp(1))
            elif len(own) == 1:
                columns.append(found[:, 0])
            else:
                limits = torch.tensor([self.own_thresholds[name] for name in own], device=logits.device)
                columns.append((found - limits.logit()).amax(1))
        return torch.stack(columns, 1)


def _merged(facts: DataFacts, sources: Mapping[str, Sequence[str]]) -> DataFacts:
    """`facts` in the emotions of a map."""
    total = facts.train_utterances
    positives = {name: min(sum(facts.train_positives[e] for e in own), total) for name, own in sources.items()}
    weights = {
        name: facts.pos_weight[own[0]]
        if len(own) == 1
        else weights_by_count(torch.tensor([positives[name]]), total).item()
        for name, own in sources.items()
    }
    return replace(facts, emotions=list(sources), train_positives=positives, pos_weight=weights)


def describe_labels(dataset: UtteranceDataset, answers: MappedAnswers | None) -> dict[str, Any]:
    """Entry `labels` of a report: the map's name, and what it did to the labels of the data and to the answers."""
    parts = [(part.data_dir, part.mapped) for part in dataset.parts if part.mapped]
    return {
        "map": parts[0][1].label_map.name,
        "emotions": dataset.emotions,
        "data": {dataset_name(folder): mapped.counterparts for folder, mapped in parts},
        "run": None if answers is None else {own: name for name, of in answers.sources.items() for own in of},
        "left_out": without_counterpart(dataset),
        "beside_others": dict(sum((Counter(mapped.beside_others) for _, mapped in parts), Counter[str]())),
    }
