"""README.md of a shared model: what it answers, how well and on which split, what it was trained on, and its limits."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pipeline.report.pages import labels_sentence, number, plain_line, table_line
from pipeline.run_data import DataFacts

# Names on the hub of what is measured, where they are others than ours.
_METRIC_TYPES = {"pearson": "pearsonr", "correlation": "pearsonr"}
_USE = """```
pipeline predict --run hub:USER/NAME film.mp4 --out timeline/
pipeline evaluate --run hub:USER/NAME --data data/mine
```

with emotion-pipeline, or `--run FOLDER` where this folder lies on your disk."""
_INTENDED = (
    "Research on emotion in recorded speech and film: comparing models, and timelines of films that people look at and "
    "judge themselves."
)
_LIMITS = (
    "A score is an answer learnt from the labels of one corpus, which annotators or actors gave. It does not measure "
    "what a person feels.",
    "The thresholds were chosen on that corpus. How good the model is for other languages, ages, cultures, cameras and "
    "ways of speaking is unknown until it is measured there.",
    "It is not meant for decisions about people, as in hiring, teaching, policing, insurance or medicine. In the "
    "European Union, inferring emotions at work and in education is prohibited, with few exceptions (AI Act, art. 5).",
    "Faces and voices are personal data: ask the people in a film before you score it.",
)
_NO_LICENCE = (
    "Not stated. Many corpora bind what is learnt from them too: ask who published the model, and read the terms of "
    "the corpus."
)
_FILES = (
    "Weights in safetensors, settings and facts in YAML and JSON. Nothing is pickled and no code is part of the model. "
    "Of the utterances that it learnt from there are digests of their ids alone, by which `pipeline evaluate` refuses "
    "to score them as a test."
)


class _Score(NamedTuple):
    """A score of a split. report: the split's part of metrics.json. entry: its value and baseline."""

    split: str
    report: Mapping[str, Any]
    name: str
    protocol: str
    entry: Mapping[str, Any]


def model_card(
    title: str,
    model: str,
    parameters: int,
    facts: DataFacts,
    task: str,
    thresholds: Mapping[str, float],
    scores: Mapping[str, Mapping[str, Any]],
    licence: str | None,
) -> str:
    """The model card with its front matter, as the Hugging Face hub reads it.

    model: its name. scores: split -> its part of metrics.json. licence: an identifier of the hub; None if not stated.
    """
    found = list(_scores(scores))
    answers = "one number, the sentiment" if task == "sentiment" else f"{task}, {', '.join(facts.emotions)}"
    lines = ["---", _front_matter(title, facts, task, found, licence), "---", "", f"# {plain_line(title)}", ""]
    if facts.notice:
        lines += [f"**{plain_line(facts.notice)}**", ""]
    lines += [f"Emotions in utterances of film that are seen, heard and read: {plain_line(answers)}.", "", _USE, ""]
    for split, report in scores.items():
        lines += [f"## Scores on {plain_line(split)}", "", _about_split(split, report), ""]
        lines += [table_line(["score", "value", "baseline"]), table_line(["---"] * 3)]
        for score in (score for score in found if score.split == split):
            values = (number(score.entry["value"]), number(score.entry["baseline"]))
            lines.append(table_line([f"{score.protocol} {score.name}", *values]))
        lines.append("")
    if thresholds:
        lines += ["## Thresholds", "", "An emotion is predicted from this score on; chosen on valid.", ""]
        lines += [table_line(["emotion", "threshold"]), table_line(["---"] * 2)]
        lines += [*(table_line([name, f"{value:.2f}"]) for name, value in thresholds.items()), ""]
    data = f"{facts.dataset.get('dataset', 'not named')}, split {facts.dataset.get('split', 'not stated')}"
    counts = ", ".join(f"{name} {count}" for name, count in facts.train_positives.items())
    parts = {
        "Data": f"{data}: {facts.train_utterances} utterances of train" + (f" ({counts})" if counts else ""),
        "Model": f"{model}, {parameters:,} parameters; its settings are in settings.yaml",
        "Licence": licence or _NO_LICENCE,
    }
    for heading, text in parts.items():
        lines += [f"## {heading}", "", plain_line(text), ""]
    lines += ["## Intended use", "", _INTENDED, "", "## Limits", "", *(f"- {limit}" for limit in _LIMITS), ""]
    return "\n".join([*lines, "## Files", "", _FILES, "", "Written by `pipeline share`.", ""])


def _scores(scores: Mapping[str, Mapping[str, Any]]) -> Iterator[_Score]:
    for split, report in scores.items():
        for protocol, entries in report["metrics"].items():
            yield from (_Score(split, report, name, protocol, entry) for name, entry in entries.items())


def _about_split(split: str, report: Mapping[str, Any]) -> str:
    text = f"{report['utterances']} utterances of {report['dataset']}, split {report['split_protocol']}."
    if report.get("tuned_on"):
        text += f" The epoch and the thresholds were chosen on {report['tuned_on']} of them: this is no test."
    elif split == "train":
        text += " The model was trained on them: this is no test."
    return plain_line(f"{text} {labels_sentence(report)}".strip())


def _front_matter(title: str, facts: DataFacts, task: str, scores: list[_Score], licence: str | None) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="video-classification",
            task_name="sentiment" if task == "sentiment" else f"{task} emotion recognition",
            dataset_type=str(score.report["dataset"]),
            dataset_name=score.report["dataset"] + (f" ({score.report['notice']})" if score.report["notice"] else ""),
            dataset_config=score.report["split_protocol"],
            dataset_split=score.split,
            metric_type=_METRIC_TYPES.get(score.name, score.name),
            metric_name=f"{score.protocol} {score.name}",
            metric_value=round(float(score.entry["value"]), 6),
        )
        for score in scores
        if score.entry["value"] is not None
    ]
    card = ModelCardData(
        license=licence or "other",
        license_name=None if licence else "not-stated",
        library_name="emotion-pipeline",
        pipeline_tag="video-classification",
        tags=["emotion-recognition", "multimodal", *(["stand-in"] if facts.notice else [])],
        model_name=title,
        eval_results=results or None,
    )
    return str(card.to_yaml())
