"""Figures of `aya-train eval` in a model card."""

import json

import huggingface_hub
import pytest
from etils import epath

from aya_train.checkpoint import checkpoint_identity
from aya_train.export import evaluation_entries
from aya_train.tasks import eval_tasks
from tests.report import eval_outputs


@pytest.fixture
def checkpoint(tmp_path):
  path = epath.Path(tmp_path / 'checkpoint')
  path.mkdir()
  (path / 'weights').write_text('1')
  return path


def evaluation(folder, checkpoint, tasks):
  eval_outputs.write(folder, tasks)
  path = folder / eval_tasks.RESULTS
  content = json.loads(path.read_text())
  path.write_text(json.dumps({**content, 'fingerprint': checkpoint_identity.of(checkpoint)}))
  return folder


def ranked(language, prompt, hits, **options):
  return eval_outputs.ranked(language, prompt, [True] * hits + [False] * (10 - hits), **options)


def test_the_card_has_medians_over_prompts_by_language_and_their_means(tmp_path, checkpoint):
  tasks = [ranked('swa', prompt, hits) for prompt, hits in (('a', 4), ('b', 9), ('c', 5))]
  first = evaluation(tmp_path / 'first', checkpoint, [*tasks, ranked('yor', 'a', 8)])
  harness = [ranked('swa', 'a', 7, protocol=eval_tasks.HARNESS)]
  second = evaluation(tmp_path / 'second', checkpoint, harness)
  found = evaluation_entries.read([first, second], checkpoint)
  said = [(e.benchmark, e.language, e.protocol, e.value, e.num_prompts) for e in found]
  assert said == [
    ('xcopa', 'swa', 'harness', 70.0, 1),
    ('xcopa', 'swa', 't0', 50.0, 3),
    ('xcopa', 'yor', 't0', 80.0, 1),
  ]
  means = [(row.protocol, row.num_languages, row.value) for row in evaluation_entries.rows(found)]
  assert means == [('harness', 1, 70.0), ('t0', 2, 65.0)]
  card = huggingface_hub.ModelCardData(
    model_name='mine', eval_results=evaluation_entries.model_index(found)
  )
  read = huggingface_hub.ModelCard(f'---\n{card.to_yaml()}\n---\n').data.eval_results
  assert [(r.dataset_config, r.metric_value) for r in read] == [
    ('swa.harness', 70.0),
    ('swa.t0', 50.0),
    ('yor.t0', 80.0),
  ]
  assert read[1].metric_name == 'accuracy (median of 3 prompts, protocol t0)'
  assert read[1].dataset_args == {'num_examples': 10, 'num_prompts': 3}


def test_figures_of_other_weights_or_twice_are_refused(tmp_path, checkpoint):
  folder = evaluation(tmp_path / 'first', checkpoint, [ranked('swa', 'a', 4)])
  with pytest.raises(ValueError, match=r'xcopa\.swa\.a and 0 more are in an earlier folder'):
    evaluation_entries.read([folder, folder], checkpoint)
  (checkpoint / 'weights').write_text('2')
  with pytest.raises(ValueError, match='evaluation of another checkpoint'):
    evaluation_entries.read([folder], checkpoint)
