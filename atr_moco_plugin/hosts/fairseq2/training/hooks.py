"""The hooks of a run, and the probe of those that ask for one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fairseq2.logging import log
from fairseq2.recipe.base import RecipeContext
from fairseq2.recipe.config import RegimeSection

from atr_moco_plugin.criterion.probe import PROBE_PAIRS, KeyProbe
from atr_moco_plugin.data.loading.batch import PairBatch
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.plugins import load
from atr_moco_plugin.rank import RankLogger


def make_hooks(
    sections: Mapping[str, object],
    criterion: Any,
    context: RecipeContext,
    pairs: Callable[[int], PairBatch] | None = None,
    *,
    compiled: bool = False,
) -> dict[str, Any]:
    """Make the hooks on the queues, on the first process alone: all processes have equal queues.

    A hook with an argument ``probe`` gets a :class:`~atr_moco_plugin.criterion.probe.KeyProbe` of
    the first training pairs, unless its option ``probe_every`` is 0. Without that option it gets
    none where the model is compiled, as a batch of another size would be compiled too, and none
    with FSDP, whose shards one process cannot put together.

    Args:
        sections: hook name (group ``atr_moco_plugin.hooks``) to its options.
        criterion: has ``queues``, and ``key_towers`` where it can be probed.
        context: the recipe's; each hook writes ``NAME.jsonl`` in its output folder.
        pairs: reads so many pairs; without it there is no probe.
        compiled: whether the layers of the model are compiled.

    Raises:
        InputError: for an unknown hook or option, or a probe that cannot be.
    """
    for name, section in sections.items():
        check_hook_options(name, section or {})
    if not criterion.queues:
        _warn_of_idle(sections)
        return {}
    obstacle = _obstacle(criterion) if pairs else "there are no pairs to make a probe of"
    probe: KeyProbe | None = None
    hooks = {}
    for name, section in sections.items():
        path, hook = context.output_dir / f"{name}.jsonl", load("hooks", name)
        options: Any = section or {}
        asked = options.get("probe_every")
        if "probe" not in inspect.signature(hook).parameters or asked == 0:
            pass
        elif obstacle and asked:
            raise InputError(f"`hooks.{name}.probe_every` is {asked}, but {obstacle}: set it to 0.")
        elif pairs and context.gangs.root.rank == 0 and not obstacle and (asked or not compiled):
            probe = probe or _probe(criterion, context, pairs(PROBE_PAIRS))
            options = {**options, "probe": probe}
        if context.gangs.root.rank != 0:
            continue
        hooks[name] = hook(criterion.queues, path, **options)
    return hooks


def lost_records(sections: Mapping[str, object], regime: RegimeSection) -> Iterator[str]:
    """What to warn of where a :class:`~atr_moco_plugin.rank.RankLogger` would record less often
    than its ``every`` says: it is asked at reports alone.

    Args:
        sections: hook name to its options, of a criterion with queues.
        regime: when there are reports; the end of a run is one.
    """
    reports, steps = regime.publish_metrics_every_n_steps, regime.num_steps
    if reports is None or regime.publish_metrics_every_n_data_epochs is not None:
        return
    for name, section in sections.items():
        options: Any = section or {}
        every, hook = options.get("every", 1), load("hooks", name)
        if not isinstance(every, int) or every < 1:
            continue  # which the hook refuses
        fits = every % reports == 0 or reports % every == 0 or every == steps
        if isinstance(hook, type) and issubclass(hook, RankLogger) and not fits:
            yield (
                f"`hooks.{name}.every` is {every}, but there are reports every {reports} steps, "
                f"and it records where both fall together: set it to a multiple of {reports}, or "
                "change `regime.publish_metrics_every_n_steps`."
            )


def check_hook_options(name: str, options: Any) -> None:
    """Refuse options that a hook does not take, and a name that no hook has.

    Raises:
        InputError: for either.
    """
    signature = inspect.signature(load("hooks", name))
    probe = {"probe": None} if "probe" in signature.parameters else {}
    try:
        # Not the call itself, whose own errors are bugs of the hook.
        signature.bind("queues", "path", **{**options, **probe})
    except TypeError as ex:
        raise InputError(f"`hooks.{name}` is not valid: {ex}.") from ex


def _warn_of_idle(sections: Mapping[str, object]) -> None:
    """Warn of hooks that are asked for without queues; ``rank`` is there by default."""
    if idle := ", ".join(f"`hooks.{name}`" for name in sections if name != "rank"):
        log.warning(
            "{} does nothing: the criterion has no queues to look at. Leave it out, or take a "
            "criterion with queues, such as `criterion.name=moco_atc`.",
            idle,
        )


def _obstacle(criterion: Any) -> str:
    """Why the keys of a criterion cannot be probed; empty where they can."""
    if not hasattr(criterion, "key_towers"):
        return f"{type(criterion).__name__} has no `key_towers` to encode a probe with"
    if any(hasattr(parameter, "to_local") for parameter in criterion.parameters()):
        return (
            "FSDP shards the encoder that makes the keys, and the first process alone encodes the "
            "probe"
        )
    return ""


def _probe(criterion: Any, context: RecipeContext, batch: PairBatch) -> KeyProbe:
    batch.to(context.gangs.root.device)
    return KeyProbe(criterion, batch.audio, batch.text, batch.clip_ids, batch.caption_ids)
