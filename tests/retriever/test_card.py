"""The model card: what the hub reads in it, and text from outside that stays text."""

from __future__ import annotations

from huggingface_hub import ModelCard
from tiny_bundle import SCORE

from atr_moco_plugin.retriever.bundle import BundleConfig
from atr_moco_plugin.retriever.card import model_card

PARTS = {"audio": {"name": "beats"}, "text": {"name": "bert"}, "head": {"name": "atm"}}
FIGURES = {f"{way}_{name}": 12.34 for way in ("a2t", "t2a") for name in ("r1", "r5", "r10")}


def bundle_config(**options: object) -> BundleConfig:
    return BundleConfig(model=PARTS, sample_rate=16_000, score=SCORE, **options)


def test_the_hub_reads_its_front_matter() -> None:
    data = ModelCard(model_card(bundle_config(), title="dogs")).data
    assert data.library_name == "atr-moco-plugin" and data.license == "unknown"
    assert "audio-text-retrieval" in data.tags and data.pipeline_tag == "feature-extraction"


def test_it_says_what_is_known() -> None:
    origin = {
        "criterion": "moco_atc_atm",
        "seed": 0,
        "data": {"family": "clotho", "name": None, "train_split": "development"},
    }
    result = {"test_set": "clotho evaluation", "clips": 1045, "captions": 5225, "dual": FIGURES}
    text = model_card(bundle_config(origin=origin), title="dogs", figures={"evaluation": result})
    for line in (
        "| criterion | moco_atc_atm |",
        "| seed | 0 |",
        "| training data | family clotho, train_split development |",
        "| parts | audio beats, text bert, head atm |",
        "clotho evaluation: 1,045 clips, 5,225 captions",
    ):
        assert line in text, line
    assert text.count("12.3") == len(FIGURES)
    assert "run |" not in text and "None" not in text
    assert text.count("To be filled in") == 2  # licence and citation
    assert "export --figures" in model_card(bundle_config(), title="dogs")


def test_figures_have_their_intervals() -> None:
    ends = {name: [10.0, 14.6] for name in FIGURES}
    head = {"level": 0.95, "replicates": 1_000, "clusters": 1_045}
    result = {"clips": 1045, "captions": 5225, "dual": FIGURES, "intervals": {**head, "dual": ends}}
    text = model_card(bundle_config(), title="dogs", figures={"test": result})
    assert text.count("10.0–14.6") == len(FIGURES)
    assert "- 95 % intervals: Wilson's with Student's t, " in text
    assert "bootstrap over 1,045 clips with their captions" in text


def test_names_from_outside_stay_text() -> None:
    title = "a\n---\nlicense: mit | <script>'\""
    origin = {"run": "x\n| y | <b>", "seed": float("nan")}
    text = model_card(bundle_config(origin=origin), title=title)
    assert ModelCard(text).data.license == "unknown"
    assert "<script>" not in text.partition("```")[0] and "<b>" not in text
    assert "| run | x \\| y \\| &lt;b> |" in text
    code = text.partition("```python")[2].partition("```")[0]
    compile(code, "card", "exec")
