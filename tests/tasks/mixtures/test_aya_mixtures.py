import collections
import math
import random

import pytest
import seqio

from aya_train.data import mixing
from aya_train.tasks import catalog
from aya_train.tasks.mixtures import aya_mixtures, source_mixture

DRAWS = 100_000
PUBLISHED = {
  'aya101': (10, 1.5, 15, 3.5, 47.5, 22.5),
  'aya_human_heavy': (25, 4, 20, 6, 30, 15),
  'aya_template_heavy': (20, 10, 30, 10, 20, 10),
}
COLUMNS = (
  'aya_dataset',
  'aya_collection_templated',
  'xp3x',
  'data_provenance',
  'aya_collection_translated_pruned',
  'sharegpt_command',
)


@pytest.fixture(autouse=True)
def default_settings():
  yield
  aya_mixtures.configure(source_mixture.MixtureSettings())


class Counted:
  """Stands for a prepared task of some number of examples."""

  def __init__(self, count):
    self.count = count

  def __len__(self):
    return self.count


def some_rows(mixture):
  """Prepared tasks of different sizes for all tasks of a mixture."""
  return {t.name: Counted(10 + 7 * i) for i, t in enumerate(mixture.tasks)}


def draw(rates):
  names = list(rates)
  selection = mixing.ProportionalSelection(rates.values())
  return collections.Counter(names[selection[k][0]] for k in range(DRAWS))


def sampling_error(share):
  return 5 * math.sqrt(share * (1 - share) / DRAWS) + 1e-9


@pytest.mark.parametrize('name', PUBLISHED)
def test_weights_are_the_published_ones(name):
  assert aya_mixtures.WEIGHTS[name].percent == dict(zip(COLUMNS, PUBLISHED[name], strict=True))


@pytest.mark.parametrize('name', aya_mixtures.WEIGHTS)
def test_weights_sum_to_100_and_are_registered(name):
  mixture = seqio.get_mixture_or_task(name)
  assert sum(p.percent for p in mixture.parts) == pytest.approx(100)
  assert {p.name: p.percent for p in mixture.parts} == aya_mixtures.WEIGHTS[name].percent


def test_the_open_mixture_keeps_the_proportions_of_the_released_one():
  released, ours = aya_mixtures.WEIGHTS['aya101'].percent, aya_mixtures.WEIGHTS['aya_open'].percent
  assert 'sharegpt_command' not in ours
  for name, percent in ours.items():
    assert percent == pytest.approx(released[name] / 0.775)


def test_the_safe_mixture_adds_three_percent():
  ours = aya_mixtures.WEIGHTS['aya_safe'].percent
  assert ours[aya_mixtures.SAFE] == 3
  assert ours['xp3x'] == pytest.approx(0.97 * 15)


@pytest.mark.parametrize('name', ['aya101', 'aya_open', 'aya_template_heavy', 'aya_safe'])
def test_shares_of_the_sources_are_the_table(name):
  mixture = seqio.get_mixture_or_task(name)
  drawn = draw(mixing.mixing_rates(mixture, some_rows(mixture)))
  for part in mixture.parts:
    share = sum(drawn[unit] for unit in mixture.units(part)) / DRAWS
    assert abs(share - part.percent / 100) < sampling_error(part.percent / 100), part.name


def test_data_sets_are_drawn_in_proportion_to_their_rows():
  mixture = seqio.get_mixture_or_task('aya101')
  tasks = some_rows(mixture)
  rates = mixing.mixing_rates(mixture, tasks)
  units = [f'aya_collection_translated_pruned.{d}' for d in catalog.TRANSLATED]
  rows = sum(len(tasks[u]) for u in units)
  for unit in units:
    assert rates[unit] == pytest.approx(47.5 * len(tasks[unit]) / rows)


def test_uniform_weights_data_sets_or_else_languages_the_same():
  aya_mixtures.configure(source_mixture.MixtureSettings(within_source='uniform'))
  mixture = seqio.get_mixture_or_task('aya101')
  rates = mixing.mixing_rates(mixture, some_rows(mixture))
  assert rates['aya_collection_templated.soda'] == pytest.approx(1.5 / 44)
  assert rates['xp3x.yor'] == pytest.approx(15 / 101)
  assert 'xp3x' not in rates
  assert 'aya_dataset.wol' not in rates
  assert sum(rates.values()) == pytest.approx(100)


def test_explicit_weights_leave_the_rest_in_proportion():
  name = 'aya_collection_translated_pruned'
  aya_mixtures.configure(source_mixture.MixtureSettings(dataset_weights={name: {'dolly': 40}}))
  mixture = seqio.get_mixture_or_task('aya101')
  tasks = some_rows(mixture)
  rates = mixing.mixing_rates(mixture, tasks)
  assert rates[f'{name}.dolly'] == pytest.approx(0.4 * 47.5)
  soda, piqa = f'{name}.soda', f'{name}.piqa'
  assert rates[soda] / rates[piqa] == pytest.approx(len(tasks[soda]) / len(tasks[piqa]))
  assert sum(rates.values()) == pytest.approx(100)


def test_unknown_names_in_settings_are_refused():
  with pytest.raises(ValueError, match=r"unknown sources \['aya_dateset'\]"):
    aya_mixtures.configure(source_mixture.MixtureSettings(within_source={'aya_dateset': 'uniform'}))
  with pytest.raises(ValueError, match='proportional'):
    source_mixture.MixtureSettings(within_source='temperature')
  with pytest.raises(ValueError, match='at most 100'):
    source_mixture.MixtureSettings(dataset_weights={'xp3x': {'a': 60, 'b': 50}})
  aya_mixtures.configure(
    source_mixture.MixtureSettings(dataset_weights={'data_provenance': {'oigg': 5}})
  )
  mixture = seqio.get_mixture_or_task('aya101')
  with pytest.raises(ValueError, match="no data set \\['oigg'\\]"):
    mixing.mixing_rates(mixture, some_rows(mixture))


def test_missing_sources_are_all_named(monkeypatch, tmp_path):
  monkeypatch.setenv('AYA_TRAIN_CACHE', str(tmp_path))
  with pytest.raises(FileNotFoundError) as error:
    seqio.get_mixture_or_task('aya101').require('train')
  for name, percent in aya_mixtures.WEIGHTS['aya101'].percent.items():
    assert f'{name} ({percent:.3g} %)' in str(error.value)
  assert "MIXTURE_MISSING_SOURCES = 'renormalise'" in str(error.value)


def test_a_missing_vocabulary_is_not_taken_for_missing_sources():
  def without_vocabulary(task):
    raise FileNotFoundError('no SentencePiece file')

  aya_mixtures.configure(source_mixture.MixtureSettings(missing_sources='renormalise'))
  with pytest.raises(FileNotFoundError, match='no SentencePiece file'):
    seqio.get_mixture_or_task('mt0').require('train', without_vocabulary)


def test_weights_are_scaled_up_only_on_request():
  mixture = seqio.get_mixture_or_task('aya101')
  present = lambda task: not task.name.startswith('sharegpt')
  with pytest.raises(FileNotFoundError, match=r'not built: sharegpt_command \(22.5 %\)\. First'):
    mixture.require('train', present)
  aya_mixtures.configure(source_mixture.MixtureSettings(missing_sources='renormalise'))
  found = mixture.require('train', present)
  assert found.sources == {'sharegpt_command': 22.5}
  assert 'sharegpt_command' not in found.present
  rates = mixing.mixing_rates(
    mixture, {name: rows for name, rows in some_rows(mixture).items() if name in found.present}
  )
  opened = aya_mixtures.WEIGHTS['aya_open'].percent
  assert rates['xp3x'] / sum(rates.values()) == pytest.approx(opened['xp3x'] / 100)
  # What one split lacks is no property of the mixture.
  assert 'sharegpt_command' in {task.name for task in mixture.tasks}


def test_the_long_answers_variant_keeps_the_weights_of_sources():
  mixture = seqio.get_mixture_or_task('aya_open_long_answers')
  rates = mixing.mixing_rates(mixture, some_rows(mixture))
  by_source = collections.Counter()
  for task, rate in rates.items():
    by_source[mixture.part_of(task).name.removesuffix('.long_answers')] += rate
  assert by_source == pytest.approx(aya_mixtures.WEIGHTS['aya_open'].percent)
  assert rates['xp3x.long_answers'] == pytest.approx(
    aya_mixtures.LONG_ANSWER_SHARE * aya_mixtures.WEIGHTS['aya_open'].percent['xp3x']
  )


def by_source(mixture, rates):
  found = collections.Counter()
  for task, rate in rates.items():
    found[mixture.part_of(task).source] += rate
  return found


NAMES = (*aya_mixtures.WEIGHTS, *aya_mixtures.LONG_MIXTURES)
SETTINGS = {
  'proportional': {},
  'uniform': {'within_source': 'uniform'},
  'weighted': {
    'dataset_weights': {'aya_collection_translated_pruned': {'dolly': 40, 'flan_cot': 10}}
  },
}


@pytest.mark.parametrize('chosen', SETTINGS)
@pytest.mark.parametrize('name', NAMES)
def test_what_is_there_keeps_its_declared_proportions_whatever_is_missing(name, chosen):
  """Each single task, each part, and many random sets of tasks left out."""
  aya_mixtures.configure(
    source_mixture.MixtureSettings(missing_sources='renormalise', **SETTINGS[chosen])
  )
  mixture = seqio.get_mixture_or_task(name)
  percent = collections.Counter()
  for part in mixture.parts:
    percent[part.source] += part.percent
  tasks = some_rows(mixture)
  draw = random.Random(f'{name} {chosen}')
  subsets = [{task} for task in draw.sample(sorted(tasks), min(len(tasks), 40))]
  subsets += [set(mixture.units(part)) for part in mixture.parts]
  subsets += [{task for task in tasks if draw.random() < share} for share in [0.2, 0.5, 0.9] * 5]
  for missing in subsets:
    left = {task: rows for task, rows in tasks.items() if task not in missing}
    if not left:
      continue
    rates = mixing.mixing_rates(mixture, left)
    got = by_source(mixture, rates)
    assert not missing & set(rates)
    assert got == pytest.approx({source: percent[source] for source in got}), missing
    kept = {mixture.part_of(task).source for task in left}
    # Explicit weights of 0 left aside, every source of which a task is there is drawn from.
    assert set(got) == kept


def test_a_missing_data_set_costs_its_source_nothing_in_the_long_answers_variant():
  mixture = seqio.get_mixture_or_task('aya_open_long_answers')
  source = 'aya_collection_translated_pruned'
  tasks = some_rows(mixture)
  for task in (f'{source}.dolly', f'{source}.long_answers.dolly'):
    del tasks[task]
  rates = mixing.mixing_rates(mixture, tasks)
  declared = aya_mixtures.WEIGHTS['aya_open'].percent[source]
  assert by_source(mixture, rates)[source] == pytest.approx(declared)
  long = sum(rate for task, rate in rates.items() if source in task and 'long' in task)
  assert long == pytest.approx(aya_mixtures.LONG_ANSWER_SHARE * declared)


def test_settings_of_a_source_hold_for_its_long_answers_too():
  source = 'aya_collection_translated_pruned'
  aya_mixtures.configure(
    source_mixture.MixtureSettings(
      within_source={'xp3x': 'uniform'}, dataset_weights={source: {'dolly': 40}}
    )
  )
  mixture = seqio.get_mixture_or_task('aya101_long_answers')
  rates = mixing.mixing_rates(mixture, some_rows(mixture))
  for behind, share in (('', 0.25), ('.long_answers', 0.75)):
    assert rates[f'{source}{behind}.dolly'] == pytest.approx(0.4 * share * 47.5)
    assert rates[f'xp3x{behind}.yor'] == pytest.approx(share * 15 / 101)


def test_no_code_and_no_set_of_another_source_is_in_data_provenance():
  assert not {'commitpack_ft', 'starcoder_selfinstruct', 'xp3x'} & set(aya_mixtures.PROVENANCE_USED)
  assert set(aya_mixtures.PROVENANCE_USED) <= set(catalog.DATA_PROVENANCE)
