"""The answer in words, computed from the data. Names stand in backticks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import pandas as pd

from reports.study.analysis import Analysis, rows_of
from studies.statistics import RankComparison

FEW = 10  # problems below which intervals over problems are too narrow


def asked(analysis: Analysis) -> str:
    """What was compared, in one sentence."""
    study = analysis.results.study
    budgets = sorted({(p.initial or 0, (p.q or 1) * (p.iterations or 0)) for p in study.problems})
    fewest, most = budgets[0], budgets[-1]
    spent = f"{fewest[0]} + {fewest[1]}"
    if fewest != most:
        spent += f" to {most[0]} + {most[1]}"
    return (
        f"{_count(len(study.surrogates), 'surrogate')} on "
        f"{_count(len(study.problems), 'problem')}, {_count(len(study.seeds), 'seed')} each, with "
        f"{spent} evaluations (initial design + proposed). All surrogates of a seed share the "
        "initial design; the acquisition function and its optimizer's budget are the same for all."
    )


def answers(analysis: Analysis) -> list[str]:
    """What the data say, the most important first."""
    main = analysis.main
    if not analysis.blocks.runs:
        compared = ["No problem and seed is complete for all surrogates yet: nothing is ranked."]
    elif main is None:
        compared = _alone(analysis)
    else:
        compared = [
            *_ranking(analysis, main),
            *_superiority(analysis),
            *_dependence(analysis),
            *_gain(analysis),
        ]
    return [*compared, *_calibration(analysis), *_cost(analysis), *_failures(analysis)]


def cautions(analysis: Analysis) -> list[str]:
    """What a reader must know before believing the above."""
    found = []
    problems, runs = len(analysis.blocks.problems), analysis.blocks.runs
    if 1 < problems < FEW:
        found.append(
            f"Intervals over problems resample {problems} problems; of so few they are too narrow."
        )
    if problems == 1:
        found.append(
            "With one problem, intervals and tests are over its seeds: they say nothing about "
            "other problems."
        )
    seeds = [len(t.seeds) for t in analysis.blocks.trajectories]
    if seeds and min(seeds) < 6:
        few = min(seeds)
        surest = 1 - 2.0 ** (1 - few)
        found.append(
            f"With {_count(few, 'seed')} an interval of a median cannot be surer than "
            f"{100 * surest:.0f} %, whatever it is called: that is how often the median lies "
            "within the range of all seeds."
            if few > 1
            else "With one seed there is no interval of a median."
        )
    for kind, names in analysis.results.not_begun.items():
        shown = ", ".join(map(str, names)) if kind == "seeds" else _names([str(n) for n in names])
        found.append(
            f"The study has {_count(len(names), kind[:-1])} more, of which nothing was run yet: "
            f"{shown}."
        )
    left = analysis.blocks.left_out
    if len(left):
        found.append(
            f"{_count(len(left), 'block')} of {len(left) + runs} {_is(len(left))} left out of "
            "rankings and averages, because not every surrogate has ended there."
        )
    absent = [p for p in analysis.problems if p not in analysis.blocks.problems]
    if absent:
        found.append(
            f"{_names(absent)} {_is(len(absent))} left out of rankings and averages altogether."
        )
    carried = analysis.blocks.carried
    if len(carried):
        found.append(
            f"{_count(len(carried), 'failed run')} {_is(len(carried))} counted with what "
            "had been reached before the failure."
        )
    unknown = [t.problem for t in analysis.blocks.trajectories if not t.optimum_known]
    if unknown:
        found.append(
            f"The optimum of {_names(unknown)} is not known: normalized regret there is to the "
            "best that any run of this study found."
        )
    return found


# ---- sentences -----------------------------------------------------------------------------------
def _ranking(analysis: Analysis, main: RankComparison) -> list[str]:
    average = main.average
    unit = _count(len(main.ranks), "problem" if main.unit == "problem" else "run")
    first = [s for s in average.index if average[s] == average.iloc[0]]
    rest = [f"`{s}` ({average[s]:.2f})" for s in average.index[len(first) :][:3]]
    told = (
        f"{_names(first)} {'has' if len(first) == 1 else 'share'} the best average rank over "
        f"{unit}: {average.iloc[0]:.2f} of {len(average)}"
    )
    told += f"; then {_listed(rest)}." if rest else "."
    if len(main.ranks) > 1 and main.p_value >= main.alpha:
        told += " Differences of ranks are within what chance would explain."
    sentences = [told]
    sentences += _differences(main)
    if main.unit == "problem" and analysis.by_run is not None:
        sentences += _these_problems(analysis.by_run)
    return sentences


def _differences(main: RankComparison) -> list[str]:
    about = "problems" if main.unit == "problem" else "runs"
    k, count = len(main.average), len(main.ranks)
    if count < 2:
        return ["With one block there is nothing to test."]
    sure = main.p_value < main.alpha
    friedman = (
        f"Friedman's test over {count} {about}{' finds differences' if sure else ''}: p = "
        f"{_p(main.p_value)}; Kendall's W, the agreement of rankings, = {main.concordance:.2f}."
    )
    if not (main.nemenyi_can_tell or main.wilcoxon_can_tell):
        return [
            friedman,
            f"With {count} {about} and {k} surrogates no pair can be told apart at the level of "
            f"{100 * main.alpha:g} %, whatever the results: it takes more {about}.",
        ]
    pairs = _apart(main.nemenyi, main) if sure else []
    if not pairs:
        closing = f"No two surrogates can be told apart over {count} {about} by Nemenyi's test"
    else:
        closing = f"Nemenyi's test tells apart {_pairs(pairs, main)}"
    holm = _apart(main.wilcoxon, main)
    if not main.wilcoxon_can_tell:
        also = "; Wilcoxon's with Holm's correction cannot with so few"
    elif not holm and not pairs:
        also = ", nor by Wilcoxon's with Holm's correction"
    elif set(holm) == set(pairs):
        also = ", and so does Wilcoxon's with Holm's correction"
    elif holm:
        also = f"; Wilcoxon's, with Holm's correction, {_pairs(holm, main)}"
    else:
        also = "; Wilcoxon's with Holm's correction none"
    return [friedman, closing + also + "."]


def _apart(p_values: pd.DataFrame, main: RankComparison) -> list[tuple[str, str]]:
    """Pairs that a test tells apart, the better first."""
    order = list(main.average.index)
    return [(a, b) for a, b in combinations(order, 2) if p_values.loc[a, b] < main.alpha]


def _pairs(pairs: Sequence[tuple[str, str]], main: RankComparison) -> str:
    """`a` from `b` and `c`; `b` from `c`. Of many pairs, how many, and those of the best."""
    grouped: dict[str, list[str]] = {}
    for a, b in pairs:
        grouped.setdefault(a, []).append(b)
    if len(pairs) > 6:
        k = len(main.average)
        best, others = next(iter(grouped.items()))
        of = f"{len(pairs)} of {k * (k - 1) // 2} pairs"
        return f"{of}, among them `{best}` from {_names(others)}"
    return "; ".join(f"`{a}` from {_names(others)}" for a, others in grouped.items())


def _these_problems(by_run: RankComparison) -> list[str]:
    sure = by_run.p_value < by_run.alpha
    pairs = _apart(by_run.nemenyi, by_run) if sure else []
    best = by_run.average.index[0]
    told = (
        f"On these very problems (each run a block, {len(by_run.ranks)} in all; no statement about "
        f"others) `{best}` ranks first at {by_run.average.iloc[0]:.2f}, and ranks "
    )
    if not sure:
        return [
            f"{told}do not differ by more than chance would explain (p = {_p(by_run.p_value)})."
        ]
    which = (
        f"Nemenyi's test tells apart {_pairs(pairs, by_run)}"
        if pairs
        else "no pair can be told apart"
    )
    return [f"{told}differ (p = {_p(by_run.p_value)}): {which}."]


def _superiority(analysis: Analysis) -> list[str]:
    first, second = analysis.order[:2]
    table = analysis.superiority
    (row,) = rows_of(table[(table["a"] == first) & (table["b"] == second)])
    about = "a problem like these" if len(analysis.blocks.problems) > 1 else "this problem"
    return [
        f"`{first}` ends better than `{second}` with probability {row.probability:.2f} (95 % "
        f"interval {row.low:.2f} to {row.high:.2f}) on {about} with a new seed."
    ]


def _dependence(analysis: Analysis) -> list[str]:
    found = analysis.dependence
    if found is None:
        return []
    verdict = (
        "The ranking depends on the problem"
        if found.p_value < 0.05
        else "That the ranking depends on the problem is not shown"
    )
    return [
        f"{verdict}: two seeds of one problem rank surrogates with a correlation of "
        f"{found.within:.2f}, runs of two problems with {found.between:.2f} (permutation test, p = "
        f"{_p(found.p_value)}). {_winners(analysis)}"
    ]


def _winners(analysis: Analysis) -> str:
    medians = analysis.blocks.medians()
    best: dict[str, list[str]] = {}
    for problem, row in medians.iterrows():
        winners = [s for s in medians.columns if row[s] == row.min()]
        if len(winners) == 1:
            best.setdefault(winners[0], []).append(str(problem))
    if not best:
        return "No problem has a single best surrogate by its median."
    ordered = sorted(best.items(), key=lambda item: -len(item[1]))
    told = [f"`{s}` on {len(p)}" for s, p in ordered]
    tied = len(medians) - sum(map(len, best.values()))
    return (
        f"The best median over seeds has {_listed(told)} of {_count(len(medians), 'problem')}"
        + (f"; {_count(tied, 'problem')} {_is(tied)} tied." if tied else ".")
    )


def _gain(analysis: Analysis) -> list[str]:
    last = analysis.normalized[analysis.normalized["share"] == 1].set_index("surrogate")
    ordered = last.sort_values("normalized", kind="stable")
    best, worst = ordered.iloc[0], ordered.iloc[-1]
    return [
        f"Of the regret of the initial design, {_interval(best, 'normalized')} is left with "
        f"`{best.name}` and {_interval(worst, 'normalized')} with `{worst.name}` (normalized "
        "regret, mean over problems of medians over seeds)."
    ]


def _alone(analysis: Analysis) -> list[str]:
    (last,) = rows_of(analysis.normalized[analysis.normalized["share"] == 1])
    return [
        f"`{last.surrogate}` alone took part, so nothing is ranked.",
        f"Of the regret of the initial design, {last.normalized:.2g} (95 % interval "
        f"{last.low:.2g} to {last.high:.2g}) is left "
        "(normalized regret, mean over problems of medians over seeds).",
    ]


def _calibration(analysis: Analysis) -> list[str]:
    table = analysis.coverage
    nominal = table[table["level"] == 0.9]
    if nominal.empty:
        return []
    low = nominal["low"].fillna(nominal["binomial_low"])
    high = nominal["high"].fillna(nominal["binomial_high"])
    over = nominal[high < 0.9].sort_values("coverage")
    under = nominal[low > 0.9].sort_values("coverage", ascending=False)
    right = nominal[(low <= 0.9) & (high >= 0.9)]
    parts = []
    for what, which in (
        ("hold fewer observations than they should with", over),
        ("hold more than they should with", under),
        ("agree with what they should hold with", right),
    ):
        if len(which):
            shown = [f"`{r.surrogate}` ({100 * r.coverage:.0f} %)" for r in rows_of(which)]
            if len(shown) > 5:
                shown = [*shown[:4], f"{len(shown) - 4} others"]
            parts.append(f"{what} {_listed(shown)}")
    return [f"Predictive 90 % intervals of the next batch {'; they '.join(parts)}."]


def _cost(analysis: Analysis) -> list[str]:
    cost = analysis.cost.sort_values("seconds")
    if cost.empty:
        return []
    told = [f"{_seconds(r.seconds)} with `{r.surrogate}`" for r in rows_of(cost)]
    if len(told) > 4:
        told = [*told[:2], *told[-2:]]
        return [f"An iteration takes from {told[0]} and {told[1]} to {told[2]} and {told[3]}."]
    return [f"An iteration (fit and acquisition) takes {_listed(told)}."]


def _failures(analysis: Analysis) -> list[str]:
    steps = analysis.results.iterations
    bad = steps[steps["failed"].notna()]
    if bad.empty:
        return []
    counts = bad["surrogate"].value_counts()
    told = [f"{n} of `{s}`" for s, n in counts.items()]
    if len(told) > 5:
        told = [*told[:4], f"{int(counts.iloc[4:].sum())} of others"]
    return [
        f"{_count(len(bad), 'fit')} of {len(steps)} failed and were replaced by a random batch: "
        f"{_listed(told)}."
    ]


# ---- wording -------------------------------------------------------------------------------------
def _p(p: float) -> str:
    return "0.0001 or less" if p <= 1e-4 else f"{p:.2g}"


def _interval(row: pd.Series, name: str) -> str:
    return f"{row[name]:.2g} (95 % interval {row['low']:.2g} to {row['high']:.2g})"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 100 else f"{seconds:.0f} s"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _names(names: Sequence[str]) -> str:
    shown = [f"`{n}`" for n in names]
    return _listed(shown if len(shown) < 7 else [*shown[:5], f"{len(shown) - 5} others"])


def _listed(texts: Sequence[str]) -> str:
    return " and ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else texts[0]
