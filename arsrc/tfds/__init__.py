"""What TFDS left in a folder, as configs: its splits and features, without TensorFlow.

config = tfds.source("~/tensorflow_datasets/mnist/3.0.1", split="train[:90%]", batch_size=64)
tfds.info("~/tensorflow_datasets/mnist/3.0.1").features["label"].num_classes
"""

from arsrc.tfds.features import Feature as Feature
from arsrc.tfds.folder import DatasetInfo as DatasetInfo
from arsrc.tfds.folder import info as info
from arsrc.tfds.source import source as source
from arsrc.tfds.splits import EvenSplit as EvenSplit
from arsrc.tfds.splits import even_splits as even_splits

__all__ = ["DatasetInfo", "EvenSplit", "Feature", "even_splits", "info", "source"]


def __dir__() -> list[str]:
    return __all__
