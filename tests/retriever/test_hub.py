"""Upload and download through huggingface_hub, against a stand-in on the loopback address."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from retriever.hub_stand_in import COMMIT, TOKEN, StandIn, stand_in
from tiny_bundle import make_bundle

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.retriever.bundle import read_config
from atr_moco_plugin.retriever.card import model_card
from atr_moco_plugin.retriever.hub import name_in_card, push_folder

_ROUND_TRIP = """
import sys, warnings
from atr_moco_plugin.retriever import AudioTextRetriever

bundle, name, token = sys.argv[1:]
here = AudioTextRetriever.from_pretrained(bundle, device="cpu")
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    print(here.push_to_hub(name, private=True, token=token))
assert any("To be filled in" in str(x.message) for x in said), said
there = AudioTextRetriever.from_pretrained(name, device="cpu")
assert there.name == name and there.fingerprint == here.fingerprint
assert (there.embed_text("a dog barks") - here.embed_text("a dog barks")).abs().max() < 1e-6
"""


def python(code: str, server: StandIn, home: Path, *arguments: str) -> subprocess.CompletedProcess:
    """A process that takes the stand-in for the hub; its address is read when it is imported."""
    more = {"HF_ENDPOINT": server.address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(home)}
    more |= {"HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **more},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
def test_a_bundle_goes_up_and_comes_down(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    with stand_in() as server:
        done = python(_ROUND_TRIP, server, tmp_path / "home", str(bundle), "someone/dogs", TOKEN)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().endswith(f"/someone/dogs/commit/{COMMIT}")
        files = server.repositories["someone/dogs"]
        assert server.private["someone/dogs"]
    assert files["model.safetensors"] == (bundle / "model.safetensors").read_bytes()
    assert "from_pretrained('someone/dogs')" in files["README.md"].decode()
    assert not (bundle / "README.md").exists()  # what it was loaded from is left alone


@pytest.mark.slow
def test_a_wrong_token_is_one_sentence(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    code = (
        "import sys; from pathlib import Path; from atr_moco_plugin import InputError\n"
        "from atr_moco_plugin.retriever.hub import push_folder\n"
        "try: push_folder(Path(sys.argv[1]), 'someone/dogs', token='hf_wrong')\n"
        "except InputError as ex: print(ex)\n"
    )
    with stand_in() as server:
        done = python(code, server, tmp_path / "home", str(bundle))
    assert "someone/dogs could not be uploaded" in done.stdout, done.stderr
    assert "hf auth login" in done.stdout and "401" in done.stdout


@pytest.mark.filterwarnings("ignore:The model card")
def test_without_a_network_or_with_a_bad_name(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    with pytest.raises(InputError, match="someone/dogs could not be uploaded"):
        push_folder(bundle, "someone/dogs", token="hf_x")
    with pytest.raises(InputError, match="no name for the Hugging Face Hub"):
        push_folder(bundle, "a//b", token="hf_x")
    with pytest.raises(InputError, match="config.json"):
        push_folder(tmp_path, "someone/dogs")


def test_a_card_that_was_filled_in_stays(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    text = model_card(read_config(bundle), title="dogs").replace("To be filled in", "MIT")
    (bundle / "README.md").write_text(text)
    name_in_card(bundle, "someone/dogs")
    changed = (bundle / "README.md").read_text()
    assert changed == text.replace("from_pretrained('dogs')", "from_pretrained('someone/dogs')")
    assert changed != text
    assert AudioTextRetriever.from_pretrained(bundle, device="cpu").embed_dim == 12


@pytest.mark.filterwarnings("ignore:The model card")
@pytest.mark.parametrize("title", ["esc50 (2)", "a'b", 'it\'s "it" (\\1)', "\\g<1>", "x) # (y"])
def test_the_package_s_own_line_alone_is_renamed(title: str, tmp_path: Path) -> None:
    """A name with brackets was left, and lines that a user had written were rewritten."""
    bundle = make_bundle(tmp_path / "bundle")
    code = "retriever = AudioTextRetriever.from_pretrained"
    own = (
        f"## Compared with\n\n```python\n{code}('laion/clap')\n```\n\n"
        f"```python\nfrom atr_moco_plugin import AudioTextRetriever\n\n{code}('me/other')\n```\n"
    )
    made = model_card(read_config(bundle), title=title)
    for text, name in (
        (f"{made}\n{own}", title),
        (made.replace("# " + title.replace("<", "&lt;"), f"Not {code}('x').\n\n# mine"), title),
        (made.replace(f"({title!r})", f"({title!r}, device='cuda:0')"), title),
        (made.replace(f"({title!r})", "('someone/cats')"), "someone/cats"),  # uploaded before
    ):
        (bundle / "README.md").write_text(text)
        name_in_card(bundle, "someone/dogs")
        changed = (bundle / "README.md").read_text()
        assert changed == text.replace(f"{code}({name!r}", f"{code}('someone/dogs'")
    (bundle / "README.md").write_text("my own card: from_pretrained('x')\n")
    name_in_card(bundle, "someone/dogs")
    assert (bundle / "README.md").read_text() == "my own card: from_pretrained('x')\n"
