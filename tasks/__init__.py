"""SeqIO tasks and mixtures of aya-train; importing this package registers them all.

The list is written by hand and nothing is scanned, downloaded or opened here.
"""

from aya_train.tasks import (
  aya_collection,
  aya_dataset,
  aya_evaluation_suite,
  cldr,
  data_provenance,
  mixtures,
  sharegpt_command,
  user_data,
  xp3,
  xp3x,
)

__all__ = [
  'aya_collection',
  'aya_dataset',
  'aya_evaluation_suite',
  'cldr',
  'data_provenance',
  'mixtures',
  'sharegpt_command',
  'user_data',
  'xp3',
  'xp3x',
]
