"""What is fixed about a stream: one source, or a mixture of several."""

from typing import TypeAlias

from arsrc.config import ArrayRecordSourceConfig
from arsrc.mixture_config import MixtureConfig

AnyConfig: TypeAlias = ArrayRecordSourceConfig | MixtureConfig
"""What every function takes that asks for a config."""
