"""The table of benchmarks in docs/benchmarks.md, drawn from what is registered.

`python -m tests.docs.benchmarks` draws it anew.
"""

import argparse
import pathlib
from collections import defaultdict

ROOT = pathlib.Path(__file__).parents[2]
PAGE = 'docs/benchmarks.md'
HEAD = '| benchmark | languages | prompts | published split | figures | |'


def readme(benchmark: str) -> pathlib.Path:
  """The file that says what a benchmark is: the one that names its tasks.

  Raises:
    FileNotFoundError: no file does.
  """
  for path in sorted((ROOT / 'tasks' / 'eval').glob('*.md')):
    text = path.read_text(encoding='utf-8')
    if f'`{benchmark}.' in text or f'`{benchmark}`' in text:
      return path
  raise FileNotFoundError(f'no tasks/eval/*.md names tasks of {benchmark!r}')


def rows() -> list[str]:
  """A row for each registered benchmark, by name."""
  import aya_train.tasks  # noqa: F401
  from aya_train.tasks import eval_tasks

  by_benchmark = defaultdict(list)
  for task in eval_tasks.all_tasks():
    by_benchmark[task.benchmark].append(task)
  found = []
  for benchmark, tasks in sorted(by_benchmark.items()):
    path = readme(benchmark)
    title = path.read_text(encoding='utf-8').partition('\n')[0].removeprefix('# ')
    languages = {task.language for task in tasks} - {''}
    prompts = {task.prompt for task in tasks}
    splits = sorted({task.split for task in tasks})
    figures = sorted({task.metric for task in tasks})
    found.append(
      f'| [{benchmark}](../{path.relative_to(ROOT)}) | {len(languages)} | {len(prompts)} '
      f'| {", ".join(splits)} | {", ".join(figures)} | {title.partition(": ")[2]} |'
    )
  return found


def drawn(page: str) -> list[str]:
  """The rows of the table of a page."""
  lines = page.splitlines()
  start = lines.index(HEAD) + 2
  end = next(i for i in range(start, len(lines) + 1) if i == len(lines) or not lines[i])
  return lines[start:end]


def main() -> None:
  argparse.ArgumentParser(description=__doc__).parse_args()
  path = ROOT / PAGE
  text = path.read_text(encoding='utf-8')
  old = ''.join(f'{row}\n' for row in drawn(text))
  new = ''.join(f'{row}\n' for row in rows())
  head = text.index(HEAD)
  start = text.index('\n', text.index('\n', head) + 1) + 1
  path.write_text(text[:start] + new + text[start + len(old) :], encoding='utf-8')


if __name__ == '__main__':
  main()
