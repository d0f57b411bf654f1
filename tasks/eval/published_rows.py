"""How many questions the published figures are of, and what to say where others were given."""

from collections.abc import Mapping

from aya_train.tasks.eval_tasks import EvalTask

# By benchmark, split and language; '' is any language. XCOPA, XNLI, XStoryCloze and XWinograd:
# every published accuracy of bigscience-workshop/xmtf's allres.ipynb is a whole number of these.
_COUNTS: Mapping[tuple[str, str, str], int] = {
  ('xcopa', 'validation', ''): 100,
  ('xcopa', 'test', ''): 500,
  ('xnli', 'validation', ''): 2490,
  ('xnli', 'test', ''): 5010,
  ('xstory_cloze', 'validation', ''): 1511,
  ('xstory_cloze', 'train', ''): 360,
  ('xwinograd', 'test', 'eng'): 2325,
  ('xwinograd', 'test', 'fra'): 83,
  ('xwinograd', 'test', 'jpn'): 959,
  ('xwinograd', 'test', 'por'): 263,
  ('xwinograd', 'test', 'rus'): 315,
  ('xwinograd', 'test', 'zho'): 504,
  ('belebele', 'test', ''): 900,
  ('global_mmlu', 'test', ''): 14042,
  ('global_mmlu_lite', 'test', ''): 400,
}
_HALVES = ('culturally_sensitive', 'culturally_agnostic')
_REASONS = {
  ('xwinograd', 'zho', 16): 'the original XWinograd has 16, to which the published set adds 488 of '
  "CLUE's cluewsc2020 (Muennighoff/xwinograd)",
}


def count(about: EvalTask, split: str = '') -> int | None:
  """Questions of a task as published; None where that is not known here.

  Args:
    about: the task.
    split: that was evaluated; by default the published one.
  """
  split = split or about.split
  found = _COUNTS.get((about.benchmark, split, about.language))
  found = found or _COUNTS.get((about.benchmark, split, ''))
  if about.subset in _HALVES:
    return 200 if about.benchmark == 'global_mmlu_lite' and found else None
  return found


def notes(about: EvalTask, questions: int, split: str = '') -> list[str]:
  """A sentence where another number of questions was given than is published; else [].

  Args:
    about: the task.
    questions: that were scored, of the whole split.
    split: that was evaluated; by default the published one.
  """
  published = count(about, split)
  if published is None or published == questions:
    return []
  reason = _REASONS.get((about.benchmark, about.language, questions), '')
  return [
    f'{questions:,} questions were given, published figures are of {published:,}'
    + (f': {reason}' if reason else '')
  ]
