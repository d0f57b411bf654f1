"""The mixture 'aya_eval': what the Aya paper measures, on the splits and with the prompts it used.

Each module of a benchmark that belongs to it names its tasks in AYA_EVAL.
"""

import seqio

from aya_train.tasks.eval import (
  flores,
  multilingual_mmlu,
  tydiqa,
  xcopa,
  xlsum,
  xnli,
  xstory_cloze,
  xwinograd,
)

MODULES = (xcopa, xnli, xstory_cloze, xwinograd, multilingual_mmlu, flores, xlsum, tydiqa)
TASKS = tuple(name for module in MODULES for name in module.AYA_EVAL)

seqio.MixtureRegistry.add('aya_eval', list(TASKS), default_rate=1.0)
