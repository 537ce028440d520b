from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from atr_moco_plugin.analysis import analyse
from atr_moco_plugin.errors import InputError


def gaussian(rows: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)).double()


def pair(rows: int = 60, dim: int = 8) -> tuple[Tensor, Tensor]:
    audio = gaussian(rows, dim) * torch.arange(1, dim + 1) ** -0.5 + 0.3
    return audio, audio + 0.5 * gaussian(rows, dim, seed=1) - 0.4


def test_it_is_ready_for_json_and_says_how_many_rows_each_measure_used() -> None:
    result = analyse(*pair())
    again = json.loads(json.dumps(result, allow_nan=False))
    assert again == result
    assert again["pairs"] == {"pairs": 60, "groups": 60, "rows": [60, 60], "by": "row"}
    assert again["mutual_neighbours"]["pairs"] == again["cka"]["pairs"] == 60
    assert again["retrieval_by_axes"]["pairs"] + again["retrieval_by_axes"]["fitted_on"] == 60
    assert again["gap"]["rows"] == again["principal_angles"]["rows"] == [60, 60]
    for measure in ("uniformity", "dimension", "hubness"):
        assert [again[measure][side]["rows"] for side in ("audio", "text")] == [60, 60]


@pytest.mark.parametrize(("rows", "dim"), [(60, 8), (7, 12), (200, 5)])
def test_the_measures_are_numpys(rows: int, dim: int) -> None:
    audio, text = pair(rows, dim)
    result = analyse(audio, text)
    a, t = ((x / x.norm(dim=1, keepdim=True)).numpy() for x in (audio, text))
    for name, x in (("audio", a), ("text", t)):
        for kind, matrix in (("raw", x), ("centered", x - x.mean(0))):
            values = np.linalg.svd(matrix, compute_uv=False)
            found = result["rank"]["sources"][name][kind]
            assert found["largest"] == pytest.approx(values[0], rel=1e-9)
            assert np.abs(np.array(found["spectrum"]) - values / values[0]).max() < 1e-6
            p = values / values.sum()
            entropy = -np.sum(p[p > 1e-12] * np.log(p[p > 1e-12]))
            assert found["rankme"] == pytest.approx(np.exp(entropy), rel=1e-6)
        near = np.partition(((x[:, None] - x[None]) ** 2).sum(2), 2, axis=1)[:, 1:3] ** 0.5
        logs = np.sort(np.log(near[:, 1] / near[:, 0]))[: int(np.ceil(0.9 * rows))]
        y = -np.log(1 - np.arange(1, len(logs) + 1)[: rows - 1] / rows)
        slope = (logs[: len(y)] @ y) / (logs[: len(y)] @ logs[: len(y)])
        assert result["dimension"][name]["value"] == pytest.approx(slope, rel=1e-6)
    assert result["gap"]["value"] == pytest.approx(np.linalg.norm(a.mean(0) - t.mean(0)), abs=1e-9)
    assert result["alignment"]["value"] == pytest.approx(((a - t) ** 2).sum(1).mean(), abs=1e-9)
    assert result["alignment"]["shuffled"] == pytest.approx(2 - 2 * a.mean(0) @ t.mean(0), abs=1e-9)
    cross = np.linalg.svd((a - a.mean(0)).T @ (t - t.mean(0)) / rows, compute_uv=False)
    spectrum = np.array(result["cross_covariance"]["spectrum"])
    assert np.abs(spectrum - cross[: len(spectrum)] / cross[0]).max() < 1e-6
    assert result["cross_covariance"]["largest"] == pytest.approx(cross[0], rel=1e-9)
    hits = np.mean(np.argmax(a @ t.T, axis=1) == np.arange(rows))
    assert result["retrieval"]["cosine"]["a2t_r1"] == pytest.approx(100 * hits)
    k = min(10, rows)
    counts = np.bincount(np.argsort(-(a @ t.T), axis=1)[:, :k].ravel(), minlength=rows)
    hubs = result["retrieval"]["hubness"]["a2t"]
    assert hubs["largest"] == counts.max() and hubs["never"] == 100 * np.mean(counts == 0)


def test_principal_angles_are_scipys() -> None:
    linalg = pytest.importorskip("scipy.linalg", reason="the oracle")
    audio, text = pair(80, 10)
    bases = []
    for x in (audio, text):
        unit = (x / x.norm(dim=1, keepdim=True)).numpy()
        _, values, vt = np.linalg.svd(unit - unit.mean(0))
        held = np.cumsum(values**2) / np.sum(values**2)
        bases.append(vt[: int(np.argmax(held >= 0.9)) + 1].T)
    found = analyse(audio, text)["principal_angles"]
    assert found["axes"] == [basis.shape[1] for basis in bases]
    expected = np.sort(np.degrees(linalg.subspace_angles(*bases)))
    assert np.abs(np.array(found["degrees"]) - expected).max() < 1e-6


def test_the_histogram_holds_every_cosine_once() -> None:
    audio, text = (normalize(x, dim=1) for x in pair())
    found = analyse(audio, text)["retrieval"]["histogram"]
    cosines = (audio @ text.T).numpy()
    own = np.eye(60, dtype=bool)
    for name, of in (("pairs", own), ("others", ~own)):
        assert found[f"{name}_mean"] == pytest.approx(cosines[of].mean(), abs=1e-6)
        edges = (found["low"], found["high"])
        counts, _ = np.histogram(cosines[of].astype(np.float32), 50, edges)
        assert np.abs(np.array(found[name]) - 100 * counts / counts.sum()).sum() < 0.5
        assert sum(found[name]) == pytest.approx(100)


def test_a_random_matrix_is_what_stands_beside_it() -> None:
    result = analyse(gaussian(1500, 48), gaussian(1500, 48, seed=1))
    for source in result["rank"]["sources"].values():
        for kind in ("raw", "centered"):
            random = source[kind]["random"]
            assert source[kind]["rankme"] == pytest.approx(random["rankme"], rel=0.01)
    for side in ("audio", "text"):
        for measure, off in (("uniformity", 0.01), ("dimension", 0.12)):
            found = result[measure][side]
            assert found["value"] == pytest.approx(found["random"], rel=off)
    assert result["gap"]["value"] == pytest.approx(result["gap"]["random"], rel=0.4)
    assert abs(result["cka"]["debiased"]) < 0.01
    assert result["mutual_neighbours"]["value"] < 0.02
    assert result["cross_covariance"]["above_shuffled"] <= 1
    best = max(x["a2t_r10"] for x in result["retrieval_by_axes"]["axes"].values())
    assert best < 5
    assert "Pairs are hardly closer than shuffled ones" in result["notes"][-1]


@pytest.mark.parametrize("side", [0, 1])
def test_one_side_alone(side: int) -> None:
    x = gaussian(50, 6)
    result = analyse(*((x, None) if side == 0 else (None, x)), names=("images", "sentences"))
    name = ("images", "sentences")[side]
    assert list(result["sides"]) == list(result["hubness"]) == [name]
    assert "pairs" not in result and "retrieval" not in result
    both = analyse(x, x + 1, names=("images", "sentences"))
    assert result["rank"]["sources"][name] == both["rank"]["sources"]["images"]


def test_several_texts_a_clip_stay_together() -> None:
    audio, text = gaussian(40, 6), gaussian(120, 6, seed=1)
    owner = torch.arange(120) // 3
    text = audio[owner] + 0.3 * text
    result = analyse(audio, text, torch.stack([owner, torch.arange(120)], dim=1))
    assert result["pairs"] == {"pairs": 120, "groups": 40, "rows": [40, 120], "by": "list"}
    assert result["cka"]["pairs"] == 40
    found = result["retrieval_by_axes"]
    assert (found["pairs"], found["rows"], found["fitted_on"]) == (60, [20, 60], 60)
    a, t = (normalize(x, dim=1).numpy() for x in (audio, text))
    best = np.argmax(a @ t.T, axis=1) // 3
    assert result["retrieval"]["cosine"]["a2t_r1"] == pytest.approx(
        100 * np.mean(best == np.arange(40))
    )


def test_two_spaces_leave_out_what_needs_one() -> None:
    audio = gaussian(80, 6)
    result = analyse(audio, audio @ gaussian(6, 9, seed=1))
    left_out = [key for key, value in result.items() if value is None]
    assert left_out == ["gap", "alignment", "principal_angles", "retrieval"]
    assert "audio has 6 dimensions and text 9" in result["notes"][-1]
    assert result["retrieval_by_axes"]["cosine"] is None
    assert result["retrieval_by_axes"]["axes"]["6"]["a2t_r1"] > 50
    assert result["cka"]["linear"] > 0.5


def test_pairs_that_share_one_row_leave_nothing_to_hold_out() -> None:
    result = analyse(
        gaussian(5, 3), gaussian(4, 3, seed=1), torch.tensor([[i, 0] for i in range(5)])
    )
    assert result["retrieval_by_axes"] is None and result["retrieval"] is not None
    assert any("No pairs can be kept apart" in note for note in result["notes"])


def notes(audio: Tensor, text: Tensor) -> str:
    return " ".join(analyse(audio, text)["notes"])


def test_what_a_reader_must_know_is_told() -> None:
    audio, text = (normalize(x, dim=1) for x in pair())
    assert notes(audio, text) == ""
    assert "were one file given twice" not in notes(audio, text)
    assert "audio and text are the same numbers; was one file given twice?" in notes(audio, audio)
    order = torch.arange(59, -1, -1)
    assert "are the rows of both sides in the same order" in notes(audio, -audio[order])
    twice = audio.clone()
    twice[7] = twice[9]
    assert "audio: 2 of 60 rows have another row that is equal to them" in notes(twice, text)
    twice[7] += 1e-7  # as in another batch
    assert "audio: 2 of 60 rows have another row that is equal to them" in notes(twice, text)


def test_the_same_seed_gives_the_same_record_and_leaves_the_generator_alone() -> None:
    audio, text = pair()
    state = torch.get_rng_state()
    first = analyse(audio, text, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert first == analyse(audio, text, seed=3)
    other = analyse(audio, text)
    assert first["cross_covariance"]["shuffled"] != other["cross_covariance"]["shuffled"]


def flat(result: Any) -> list[float]:
    if isinstance(result, dict):
        return [x for value in result.values() for x in flat(value)]
    if isinstance(result, list):
        return [x for value in result for x in flat(value)]
    return [float(result)] if isinstance(result, (int, float)) else []


def test_length_of_rows_and_precision_change_nothing_but_rounding() -> None:
    audio, text = (normalize(x, dim=1) for x in pair())
    expected = analyse(audio, text)
    for change in (lambda x: 7 * x, lambda x: x.float()):
        found = analyse(change(audio), change(text))
        for key in ("rank", "dimension", "gap", "alignment", "cka", "retrieval"):
            assert flat(found[key]) == pytest.approx(flat(expected[key]), rel=1e-4, abs=1e-4), key


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, None), "^There is nothing to analyse: give embeddings of at least one side.$"),
        ((gaussian(5, 3), None, torch.tensor([[0, 0]])), "^Pairs need embeddings of both sides"),
        (
            (gaussian(5, 3), gaussian(6, 3)),
            r"^audio has 5 rows and text 6, so row i .* \(--pairs\)",
        ),
        ((gaussian(5, 3), gaussian(1, 3)), "^text has 1 row; a spectrum needs at least two"),
        ((gaussian(5, 3) * torch.nan, gaussian(5, 3)), "^5 of 5 rows of audio are not finite"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        analyse(*arguments)


def test_the_smallest_matrices_have_what_can_be_measured() -> None:
    result = analyse(gaussian(2, 2), gaussian(2, 2, seed=1))
    json.dumps(result, allow_nan=False)
    assert result["dimension"] == {"audio": None, "text": None}
    assert result["cka"]["debiased"] is None and result["retrieval_by_axes"] is None
    assert result["gap"]["value"] >= 0


def test_axes_that_rounding_makes_of_shuffled_pairs_are_no_axes() -> None:
    """Their covariance is computed in float32: 3 of 40 dimensions had a tail of 37."""
    sides = (gaussian(80, 3, n) @ gaussian(3, 40, n + 2) for n in range(2))
    found = analyse(*sides)["cross_covariance"]
    for spectrum in (found["spectrum"], found["shuffled"]["spectrum"]):
        assert len(spectrum) == 40 and sum(value > 0 for value in spectrum) == 3
