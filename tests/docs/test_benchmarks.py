"""The page of benchmarks lists what is registered, and each has a file that says what it is."""

from aya_train.tasks import eval_tasks
from tests.docs import benchmarks

FACTS = ('Paper', 'Licence', 'Files', 'Split', 'Tasks', 'Prompt', 'Version', 'Contamination')


def test_the_table_is_that_of_the_registered_tasks():
  page = (benchmarks.ROOT / benchmarks.PAGE).read_text(encoding='utf-8')
  assert benchmarks.drawn(page) == benchmarks.rows(), (
    'python -m tests.docs.benchmarks draws it anew'
  )


def test_each_benchmark_says_what_a_reader_must_know():
  import aya_train.tasks  # noqa: F401

  for name in sorted({task.benchmark for task in eval_tasks.all_tasks()}):
    text = benchmarks.readme(name).read_text(encoding='utf-8')
    missing = [fact for fact in FACTS if f'- {fact}' not in text]
    assert missing in ([], ['Prompt'], ['Split']), f'{benchmarks.readme(name)} lacks {missing}'
