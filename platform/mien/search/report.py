"""The report of a search: one HTML file that needs nothing else, and its figures for MLflow."""

from __future__ import annotations

import base64
import html
import io
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import optuna
from matplotlib.figure import Figure

from mien.search import plots
from mien.search.space import shown
from mien.search.study import SearchStudy, TrialRecord

MIN_FOR_IMPORTANCE = 6
"""Complete trials below which a share of variance says nothing."""

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1c2b33;
max-width:1080px;margin:2em auto;padding:0 1em}
h1{font-size:1.6em;margin-bottom:0}h2{font-size:1.15em;margin-top:2em}
p.quiet{color:#6b7a83;margin-top:.3em}table{border-collapse:collapse;font-size:13px}
th,td{padding:.25em .7em;text-align:left;border-bottom:1px solid #dfe5e8;vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
tr.best td{font-weight:600;background:#fdf3ee}
img{max-width:100%}div.wide{overflow-x:auto}
"""


def importance_of(study: SearchStudy) -> dict[str, float]:
    """Share of the scores' variance that each setting explains (fANOVA), largest first.

    Only settings that every trial had are compared; empty where too few trials are complete, or
    all scored the same.
    """
    complete = [trial for trial in study.records() if trial.scores is not None]
    scores = {trial.scores[0] for trial in complete if trial.scores is not None}
    if len(complete) < MIN_FOR_IMPORTANCE or len(scores) < 2:
        return {}
    always = [n for n in study.space.names if all(n in trial.values for trial in complete)]
    varied = [n for n in always if len({trial.values[n] for trial in complete}) > 1]
    if not varied:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        found = optuna.importance.get_param_importances(
            study.optuna_study,
            evaluator=optuna.importance.FanovaImportanceEvaluator(seed=study.plan.seed),
            params=varied,
            target=_first_score,
        )
    return {name: float(share) for name, share in found.items()}


def _first_score(trial: optuna.trial.FrozenTrial) -> float:
    return float(trial.values[0])


def figures_of(study: SearchStudy) -> dict[str, Figure]:
    """The report's pictures by name; what can't be drawn yet is left out."""
    trials, objectives = study.records(), study.plan.objectives
    complete = [trial for trial in trials if trial.scores is not None]
    best = [trial.number for trial in study.best()]
    drawn: dict[str, Figure] = {}
    if len(objectives) == 2 and complete:
        drawn["pareto"] = plots.plot_pareto(trials, objectives, best)
    if complete:
        drawn["history"] = plots.plot_history(trials, objectives[0])
    importance = importance_of(study)
    if importance:
        drawn["importance"] = plots.plot_importance(importance)
    if complete:
        drawn["slices"] = plots.plot_slices(trials, study.space, objectives[0])
    if len(complete) > 1:
        drawn["parallel_coordinates"] = plots.plot_parallel(trials, study.space, objectives, best)
    if any(trial.curve for trial in trials):
        first = best[0] if best else None
        drawn["curves"] = plots.plot_curves(trials, objectives[0], first)
    return drawn


_TITLES = {
    "pareto": "Both objectives",
    "history": "Scores in order",
    "importance": "Which settings matter",
    "slices": "Score by setting (lighter: later)",
    "parallel_coordinates": "Settings of every trial",
    "curves": "Epoch by epoch",
}


def write_html(
    study: SearchStudy,
    figures: Mapping[str, Figure],
    *,
    title: str,
    facts: Mapping[str, str],
    notes: Sequence[str] = (),
) -> str:
    """The report as a text of HTML.

    Args:
        study: the search.
        figures: of :func:`figures_of`.
        title: of the page.
        facts: what was searched and how, by name.
        notes: what a reader should know, in sentences.
    """
    trials = study.records()
    best = {trial.number for trial in study.best()}
    rows = "".join(f"<tr><th>{_text(k)}</th><td>{_text(v)}</td></tr>" for k, v in facts.items())
    parts = [
        f"<h1>{_text(title)}</h1><p class=quiet>{_text(summary(study))}</p>",
        *(f"<p>{_text(note)}</p>" for note in [*notes, *_caution(study)]),
        f"<table>{rows}</table>",
    ]
    for name, figure in figures.items():
        parts.append(f"<h2>{_TITLES.get(name, name)}</h2>{_picture(figure, name)}")
    parts.append(f"<h2>Trials</h2><div class=wide>{_trial_table(study, trials, best)}</div>")
    parts.append(_failures(study, trials))
    body = "\n".join(parts)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{_text(title)}</title>"
        f"<style>{_STYLE}</style>{body}</html>\n"
    )


def summary(study: SearchStudy) -> str:
    """How many trials ended how."""
    states = [trial.state for trial in study.records()]
    words = {"complete": "complete", "pruned": "stopped early", "failed": "failed"}
    told = [f"{states.count(s)} {w}" for s, w in words.items() if s in states]
    open_trials = sum(state in ("running", "waiting") for state in states)
    told += [f"{open_trials} not done"] if open_trials else []
    return f"{len(states)} trials: {', '.join(told) or 'none yet'}"


def _caution(study: SearchStudy) -> list[str]:
    complete = [trial for trial in study.records() if trial.scores is not None]
    notes = []
    if complete:
        notes.append(
            f"Scores are those of the people held out for validation. The best of "
            f"{len(complete)} such scores is too good to be expected again; the test split, which "
            "no trial has looked at, tells what to expect."
        )
    if len(complete) < MIN_FOR_IMPORTANCE:
        notes.append(
            f"{len(complete)} complete trials are too few to say which settings matter "
            f"(from {MIN_FOR_IMPORTANCE} on)."
        )
    return notes


def _trial_table(study: SearchStudy, trials: Sequence[TrialRecord], best: set[int]) -> str:
    names, objectives = study.space.names, study.plan.objectives
    head = "".join(
        f"<th{'' if name == 'state' else ' class=n'}>{_text(name)}</th>"
        for name in ("trial", "state", *(o.metric for o in objectives), "s", *names)
    )
    rows = []
    for trial in trials:
        scores = trial.scores or (np.nan,) * len(objectives)
        cells = [_number(str(trial.number)), f"<td>{trial.state}</td>"]
        cells += [_number("" if np.isnan(score) else f"{score:.4g}") for score in scores]
        cells.append(_number(f"{trial.seconds:.0f}"))
        cells += [
            _number(shown(trial.values[name])) if name in trial.values else "<td></td>"
            for name in names
        ]
        mark = " class=best" if trial.number in best else ""
        rows.append(f"<tr{mark}>{''.join(cells)}</tr>")
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _failures(study: SearchStudy, trials: Sequence[TrialRecord]) -> str:
    failed = [f"<li>trial {t.number}: {_text(t.reason)}</li>" for t in trials if t.reason]
    refused = [f"<li>{_text(reason)}</li>" for reason in sorted(set(study.refused()))]
    text = f"<h2>Failed trials</h2><ul>{''.join(failed)}</ul>" if failed else ""
    if refused:
        text += f"<h2>Draws that were not tried</h2><ul>{''.join(refused)}</ul>"
    return text


def _number(text: str) -> str:
    return f"<td class=n>{_text(text)}</td>"


def _picture(figure: Figure, name: str) -> str:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=130)
    encoded = base64.b64encode(data.getvalue()).decode()
    return f'<img alt="{_text(name)}" src="data:image/png;base64,{encoded}">'


def _text(value: str) -> str:
    return html.escape(str(value))
