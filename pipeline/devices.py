"""What the stages used of the devices: sums and differences of a model's counters."""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from bark_model.engine_stats import Usage
from bark_model.outcomes import STAGES, Stage

StageUsage: TypeAlias = Mapping[Stage, Usage]


def add(usages: Iterable[StageUsage]) -> dict[Stage, Usage]:
    """The sum of usages, stage by stage, in the order of the stages."""
    total: dict[Stage, Usage] = {}
    for stage, one in (pair for usage in usages for pair in usage.items()):
        other = total.get(stage, Usage())
        total[stage] = Usage(one.seconds + other.seconds, one.busy + other.busy, one.slots + other.slots)
    return {stage: total[stage] for stage in STAGES if stage in total}


def since(now: StageUsage, before: StageUsage) -> dict[Stage, Usage]:
    """What was used between two looks; stages that did nothing are left out."""
    used: dict[Stage, Usage] = {stage: one - before.get(stage, Usage()) for stage, one in now.items()}
    return {stage: one for stage, one in used.items() if one.slots}


def slot_steps(usage: StageUsage) -> dict[str, int]:
    """A usage's counts by the names they have in metrics: `coarse_slot_steps`, and `coarse_busy_slot_steps` of them."""
    busy = {f"{stage}_busy_slot_steps": one.busy for stage, one in usage.items()}
    return busy | {f"{stage}_slot_steps": one.slots for stage, one in usage.items()}


def usage_of(counters: Mapping[str, int]) -> dict[Stage, Usage]:
    """A usage from a job's counters: the slot-steps as `slot_steps` names them, and `coarse_device_ms`."""
    return {
        stage: Usage(counters.get(f"{stage}_device_ms", 0) / 1000, counters[f"{stage}_busy_slot_steps"], slots)
        for stage in STAGES
        if (slots := counters.get(f"{stage}_slot_steps"))
    }
