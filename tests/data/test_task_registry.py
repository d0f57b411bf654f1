"""A name that nothing has is answered with names that there are."""

import pytest
import seqio

from aya_train.data import task_registry
from tests import seqio_tasks

NAMES = ('shelf.swa.easy', 'shelf.swa.hard', 'shelf.yor.easy')


@pytest.fixture
def shelf():
  for name in NAMES:
    seqio_tasks.add_task(name, {'test': [('a', 'b')]})
  yield
  for name in NAMES:
    seqio.TaskRegistry.remove(name)


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('shelf.sw', r"After 'shelf' comes one of: swa, yor$"),
    ('shelf.amh.easy', r"Close names: \['shelf\..*After 'shelf' comes one of: swa, yor$"),
    ('shelf.swa.esy', r"After 'shelf\.swa' comes one of: easy, hard$"),
    ('shlf.swa', r'Is the module that registers it imported\?$'),
  ],
)
def test_a_mistyped_part_of_a_name_is_answered_with_those_that_there_are(shelf, name, message):
  with pytest.raises(ValueError, match=message):
    task_registry.get_mixture_or_task(name)


def test_a_reference_that_nothing_names_is_asked_for_by_its_macro(shelf):
  task = seqio.get_mixture_or_task(NAMES[0])
  with pytest.raises(ValueError, match='lacks the features') as caught:
    task_registry.require_features(task, ['reference'])
  assert 'REFERENCE_CHECKPOINT_PATH names the reference' in str(caught.value)
  with pytest.raises(ValueError, match='lacks the features') as caught:
    task_registry.require_features(task, ['other'])
  assert 'REFERENCE' not in str(caught.value)
