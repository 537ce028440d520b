"""The private parts of fairseq2 that the host uses are there. Each case says what to do if not."""

from __future__ import annotations

import importlib
import importlib.util
import inspect

import pytest

if importlib.util.find_spec("fairseq2") is None:
    pytest.skip("fairseq2 is not installed", allow_module_level=True)

from atr_moco_plugin.hosts.fairseq2.compat import V08

pytestmark = pytest.mark.skipif(not V08, reason="the names are those of fairseq2 0.8")


@pytest.mark.parametrize(
    ("module", "text", "advice"),
    [
        (
            "fairseq2.trainer",
            "self._validator = validator",
            "create_trainer must find another way to keep the validator from completing a "
            "checkpoint before its score is known, or drop it if fairseq2 does so by itself.",
        ),
        (
            "fairseq2.validator",
            "self._checkpoint_manager.maybe_complete_save_operation",
            "As above.",
        ),
        (
            "fairseq2.trainer",
            "self._gangs = gangs",
            "create_trainer must find another way to keep the process groups open after training.",
        ),
        (
            "fairseq2.trainer",
            "def _maybe_complete_checkpoint_save_operation(",
            "save_and_stop must find another way to wait for a checkpoint that is being written.",
        ),
        (
            "fairseq2.trainer",
            "def _save_checkpoint(",
            "save_and_stop must find another way to save; look whether `request_stop` now works "
            "for a run with a number of steps, which makes save_and_stop needless.",
        ),
        (
            "fairseq2.checkpoint.manager",
            "self._tensor_file_dumper = tensor_file_dumper",
            "create_trainer must put its reader of `weights_only` files elsewhere, or drop it if "
            "fairseq2 now loads every part of a checkpoint with `weights_only=True`.",
        ),
        (
            "fairseq2.checkpoint.manager",
            "self._tensor_file_loader = tensor_file_loader",
            "As above.",
        ),
        (
            "fairseq2.recipe.composition.train_model",
            "self._recipe.prepare_model(context, model)",
            "`replaced` must return what the hook that took its place expects, such as the module.",
        ),
        (
            "fairseq2.nn.fsdp.fsdp2",
            "module.set_requires_grad_sync(False)",
            "name_gradient_sync is needless: fairseq2 calls torch's own name now.",
        ),
        (
            "fairseq2.recipe.internal.log",
            '"Environment Variables - {}"',
            "lists_environment must know the new text of the record, or variables with secrets are "
            "written to the logs.",
        ),
        (
            "fairseq2.recipe.cli",
            "class _RecipeConfigLoader",
            "is_configuration_error must know where fairseq2 loads a configuration now.",
        ),
    ],
)
def test_fairseq2_still_has_it(module: str, text: str, advice: str) -> None:
    source = inspect.getsource(importlib.import_module(module))
    assert text in source, (
        f"{module} has no `{text}` any more. In hosts/fairseq2/compat.py: {advice}"
    )
