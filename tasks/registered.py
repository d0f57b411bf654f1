"""All SeqIO tasks and mixtures of aya-train, by importing what registers them.

The list is written by hand and nothing is scanned, downloaded or opened here.
"""

from aya_train.tasks.cldr import cldr_pairs, cldr_preferences, cldr_tasks
from aya_train.tasks.eval import (
  afriqa,
  americas_nli,
  aya_eval,
  aya_open_ended,
  belebele,
  benchmark_pairs,
  flores,
  global_mmlu,
  mgsm,
  nusax,
  open_ended_prompts,
  sib200,
  tata,
  toxicity,
  tydiqa,
  winomt,
  xlsum,
  xquad,
)
from aya_train.tasks.mixtures import aya_mixtures
from aya_train.tasks.sources import (
  aya_collection,
  aya_dataset,
  aya_evaluation_suite,
  data_provenance,
  p3,
  sharegpt_command,
  xp3,
  xp3x,
)
from aya_train.tasks.user import user_data
