"""The mixtures of Aya-101, of its ablations and of the models it is compared with.

`WEIGHTS` is the one table of numbers: percent of the draws by source. AYA is Üstün et al. 2024
(arXiv 2402.07827). How a source's share is divided inside it: `source_mixture.MixtureSettings`.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf

from aya_train.tasks import catalog, features, source_tasks
from aya_train.tasks.languages import aya101, language_codes
from aya_train.tasks.mixtures import source_mixture
from aya_train.tasks.sources import aya_collection, data_provenance
from aya_train.tasks.sources import aya_dataset as annotated
from aya_train.tasks.sources import p3 as english
from aya_train.tasks.sources import sharegpt_command as sharegpt
from aya_train.tasks.sources import xp3 as crosslingual
from aya_train.tasks.sources import xp3x as pruned
from aya_train.tasks.user import user_data

ANNOTATED = annotated.SOURCE
TEMPLATED = aya_collection.TEMPLATED
TRANSLATED = f'{aya_collection.TRANSLATED}_pruned'
XP3 = crosslingual.NAMES[0]
P3 = english.SOURCE
XP3X = pruned.SOURCE
XP3X_FULL = f'{pruned.SOURCE}_full'
PROVENANCE = data_provenance.SOURCE
SHAREGPT = sharegpt.SOURCE
SAFE = user_data.SAFE_SLOT

# AYA section 2.1 names these; which of the Flan sub-collections, it does not say. The others of the
# 16 are program code, raters' choices, or parts of xP3x again.
PROVENANCE_USED = (
  'octopack_oa',
  'oig',
  'flan_2021',
  'flan_cot',
  'flan_dialog',
  'flan_p3',
  'flan_sni',
  'tasksource_instruct',
)

LONG_ANSWER_TOKENS = 64
LONG_ANSWER_SHARE = 0.75
LONG = 'long_answers'


@dataclasses.dataclass(frozen=True)
class Weights:
  """A row of the table.

  Attributes:
    percent: of the draws, by source; the sum is 100.
    origin: where the numbers are from.
    published: whether they were published as they stand here.
  """

  percent: Mapping[str, float]
  origin: str
  published: bool = True


def without(weights: Mapping[str, float], *names: str) -> dict[str, float]:
  """The others, scaled up to 100 %."""
  rest = {name: percent for name, percent in weights.items() if name not in names}
  return {name: 100 * percent / sum(rest.values()) for name, percent in rest.items()}


def only(weights: Mapping[str, float], *names: str) -> dict[str, float]:
  """These, scaled up to 100 %."""
  return without(weights, *(name for name in weights if name not in names))


_COLUMNS = (ANNOTATED, TEMPLATED, XP3X, PROVENANCE, TRANSLATED, SHAREGPT)
_TABLE_3 = {
  'aya101': (10, 1.5, 15, 3.5, 47.5, 22.5),
  'aya_human_heavy': (25, 4, 20, 6, 30, 15),
  'aya_template_heavy': (20, 10, 30, 10, 20, 10),
}
RELEASED = dict(zip(_COLUMNS, _TABLE_3['aya101'], strict=True))

WEIGHTS: dict[str, Weights] = {
  **{
    name: Weights(dict(zip(_COLUMNS, row, strict=True)), 'AYA table 3')
    for name, row in _TABLE_3.items()
  },
  'aya_translation_heavy': Weights(RELEASED, 'AYA table 3; another name of aya101'),
  'aya_open': Weights(
    without(RELEASED, SHAREGPT),
    'AYA table 3, translation heavy, without ShareGPT-Command, which is not released',
    published=False,
  ),
  'aya_safe': Weights(
    {SAFE: 3.0, **{name: 0.97 * percent for name, percent in RELEASED.items()}},
    'AYA section 6: 3 % of safety context distillation, added to translation heavy',
  ),
  'aya_safe_open': Weights(
    {
      SAFE: 3.0,
      **{name: 0.97 * percent for name, percent in without(RELEASED, SHAREGPT).items()},
    },
    'aya_safe without ShareGPT-Command',
    published=False,
  ),
  'mt0': Weights({XP3: 100.0}, 'Muennighoff et al. 2022: mT0 is mT5 on xP3'),
  'mt0_p3': Weights({P3: 100.0}, 'Muennighoff et al. 2022: mT0-P3 is mT5 on P3, which is English'),
  'mt0x': Weights({XP3X_FULL: 100.0}, 'AYA section 3.3: xP3x cut to the 101 languages, not pruned'),
  # AYA section 5 adds groups in this order and gives no weights of the steps: here they keep the
  # proportions of the last, which is the released mixture.
  'aya_ablation_1_xp3x': Weights({XP3X_FULL: 100.0}, 'AYA section 5: xP3x'),
  'aya_ablation_2_templates': Weights(
    only(RELEASED, XP3X, PROVENANCE, TEMPLATED),
    'AYA section 5: and multilingual templates, with pruning',
    published=False,
  ),
  'aya_ablation_3_translated': Weights(
    without(RELEASED, ANNOTATED), 'AYA section 5: and translations', published=False
  ),
  'aya_ablation_4_human': Weights(RELEASED, 'AYA section 5: and human annotations'),
}

_DATASETS = {
  TEMPLATED: catalog.TEMPLATED,
  TRANSLATED: catalog.TRANSLATED,
  PROVENANCE: PROVENANCE_USED,
}
_LANGUAGES = {
  # Without Wolof, which is none of the 101.
  ANNOTATED: tuple(
    f'{ANNOTATED}.{code}' for code in catalog.ANNOTATED_LANGUAGES if code in aya101.BY_CODE
  ),
  XP3X: tuple(f'{XP3X}.{code}' for code in source_tasks.AYA_LANGUAGES),
  XP3X_FULL: tuple(f'{XP3X_FULL}.{code}' for code in source_tasks.AYA_LANGUAGES),
  'xp3': tuple(
    f'xp3.{code}'
    for code in sorted({language_codes.resolve(x).code for x in catalog.XP3_LANGUAGES})
  ),
}


def part(source: str, percent: float, variant: str = '') -> source_mixture.Part:
  """A source with its tasks; a variant's have that word behind the source's name."""
  name = f'{source}.{variant}' if variant else source
  datasets = tuple(f'{name}.{dataset}' for dataset in _DATASETS.get(source, ()))
  languages = tuple(task.replace(source, name, 1) for task in _LANGUAGES.get(source, ()))
  return source_mixture.Part(name, percent, datasets, languages, variant)


def long_answers(dataset: tf.data.Dataset, min_tokens: int) -> tf.data.Dataset:
  """Keeps examples whose targets have at least `min_tokens` tokens, EOS not counted."""
  return dataset.filter(lambda example: tf.size(example['targets']) >= min_tokens)


def _long_preprocessors() -> list[Any]:
  tokenize, placeholder, append_eos = features.TOKENIZE_AND_APPEND_EOS
  keep_long = functools.partial(long_answers, min_tokens=LONG_ANSWER_TOKENS)
  return [source_tasks.keep_fields, tokenize, keep_long, placeholder, append_eos]


def _add_long_answers(source: str, preprocessors: Sequence[Any]) -> None:
  """Registers `<source>.long_answers` or, as for all rows, a task for each of its data sets.

  A data set that is not there then takes none of the others with it. Languages have tasks too.
  """
  chosen = part(source, 0, LONG)
  for name in (*(chosen.datasets or (chosen.name,)), *chosen.languages):
    seqio.TaskRegistry.add(
      name,
      source=seqio.TaskRegistry.get(chosen.plain(name)).source,
      preprocessors=list(preprocessors),
      metric_fns=[],
      output_features=features.OUTPUT_FEATURES,
    )


def add_long_answers(name: str, share: float = LONG_ANSWER_SHARE) -> str:
  """Registers `<mixture>_long_answers`: `share` of each source's draws has long targets.

  Sources keep their weights, and within them the other draws are as before: short answers become
  rarer, none is lost. A source without long targets keeps its weight too, drawn from all its rows.
  """
  parts = []
  for source, percent in WEIGHTS[name].percent.items():
    parts.append(part(source, (1 - share) * percent))
    parts.append(part(source, share * percent, LONG))
  source_mixture.add(f'{name}_{LONG}', parts)
  return f'{name}_{LONG}'


for _name, _weights in WEIGHTS.items():
  source_mixture.add(_name, [part(*pair) for pair in _weights.percent.items()])
_PREPROCESSORS = _long_preprocessors()
for _source in RELEASED:
  _add_long_answers(_source, _PREPROCESSORS)
LONG_MIXTURES = (add_long_answers('aya101'), add_long_answers('aya_open'))


def configure(settings: source_mixture.MixtureSettings) -> None:
  """Sets what holds for all mixtures of this process (gin: the macros MIXTURE_*).

  Raises:
    ValueError: it names a source that no mixture has.
  """
  known = {source for row in WEIGHTS.values() for source in row.percent}
  source_mixture.check_parts(sorted(known), settings)
  source_mixture.configure(settings)
