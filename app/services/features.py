"""The four parts of the automation engine that an installation may switch off (seed 002: feature codes)."""

from __future__ import annotations

from typing import Final

from app.errors import FeatureOff
from app.settings import Settings

LIBRARY: Final = "automation_script_library"
EXEC: Final = "automation_script_exec"
SCHEDULE: Final = "automation_script_schedule"
APPROVAL: Final = "automation_script_approval"
FEATURES: Final = (LIBRARY, EXEC, SCHEDULE, APPROVAL)


def is_on(settings: Settings, feature: str) -> bool:
    """Whether a feature, one of FEATURES, is switched on here."""
    return bool(getattr(settings, feature))


def need(settings: Settings, feature: str) -> None:
    """Raises FeatureOff (402 with the feature as its code) where it is switched off."""
    if not is_on(settings, feature):
        raise FeatureOff(
            f"{feature} is switched off here",
            hint=f"an administrator sets MUSTER_{feature.upper()}=1 and starts the control side again",
            code=feature,
        )
