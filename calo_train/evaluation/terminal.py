"""The table of verdicts that a command prints, from metrics.json alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from calo_train.evaluation.words import significance_words, with_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_HEADER = ("observable", "separation", "floor", "sigma", "verdict")
_NUMBER_COLUMNS = (1, 2, 3)  # aligned to the right


def summary(metrics: Mapping[str, Any]) -> str:
    """Give one table a sample, with what differs most and what was left out."""
    texts = [_sample_text(sample, metrics) for sample in metrics["samples"]]
    return "\n\n".join([*texts, *_multi_texts(metrics)])


def _sample_text(sample: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    size, reference = metrics["settings"]["matched_showers"], metrics["reference"]
    lines = [
        f"{sample['label']} ({sample['num_evaluated']} showers) against {reference['label']} "
        f"({reference['num_evaluated']}), {size} with {size}"
    ]
    invalid = sample["num_non_finite"] + sample["num_negative"]
    if invalid:
        lines.append(f"  {invalid} of {sample['num_showers']} showers are invalid and left out")
    lines += [f"  {line}" for line in _aligned([_HEADER, *_rows(sample)])]
    worst = {**sample["observables"], **sample["layers"]}[sample["ranking"][0]]
    lines.append(f"  differs most: {worst['title']} ({worst['verdict']})")
    if any(found["is_reduced"] for found in sample["classifiers"].values()):
        lines.append("  reduced classifiers are not the published protocols; --full trains those")
    lines += [f"  {line}" for line in _timing_lines(sample["timing"] or {})]
    return "\n".join(lines)


def _timing_lines(timing: Mapping[str, Any]) -> Iterator[str]:
    for found in timing.values():
        times = ", ".join(
            f"{batch['milliseconds_median']:.3g} ms (batch {size})"
            for size, batch in found["batches"].items()
        )
        yield f"time a shower: {times} on {found['hardware']}, {found['dtype']}"


def _rows(sample: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        (
            entry["title"],
            with_error(entry["separation"], entry["separation_error"]),
            with_error(entry["separation_floor"], entry["separation_floor_error"]),
            significance_words(entry["significance"]),
            entry["verdict"],
        )
        for entry in sorted(sample["observables"].values(), key=_closeness)
    ]
    rows += [
        (
            f"classifier AUC, {name}" + (" (reduced)" if found["is_reduced"] else ""),
            with_error(found["auc"], found["auc_deviation"]),
            with_error(found["auc_floor"], found["auc_floor_error"]),
            significance_words(found["significance"]),
            found["verdict"],
        )
        for name, found in sample["classifiers"].items()
    ]
    return rows


def _multi_texts(metrics: Mapping[str, Any]) -> list[str]:
    return [
        "\n".join(
            [
                f"{name.replace('_', ' ')} classifier, mean log posterior on "
                f"{found['reference_showers']} reference showers (equal samples: "
                f"{found['chance']:.3f})",
                *(
                    f"  {entry['label']}: {entry['log_posterior']:.3f} "
                    f"± {entry['log_posterior_deviation']:.3f}"
                    for entry in found["samples"]
                ),
                f"  most like the reference: {found['ranking'][0]}",
            ]
        )
        for name, found in metrics["multi_classifiers"].items()
    ]


def _closeness(entry: Mapping[str, Any]) -> float:
    """Put what lies farthest above its floor first."""
    return -float(entry["significance"])


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if column in _NUMBER_COLUMNS else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
