"""Tasks whose data are missing: what is done about them, and how it is said."""

from collections.abc import Mapping, Sequence

from aya_train.tasks import eval_tasks

REFUSE, LEAVE_OUT = 'refuse', 'leave_out'
_LISTED = 8  # languages or names of a group


class MissingTasksError(FileNotFoundError, ValueError):
  """Data or splits of tasks are missing, and none may be; the message has all, by benchmark."""


def check_policy(policy: str) -> None:
  """Raises ValueError unless it is one of the two."""
  if policy not in (REFUSE, LEAVE_OUT):
    raise ValueError(f'MISSING_TASKS must be {REFUSE!r} or {LEAVE_OUT!r}, got {policy!r}')


def grouped(reasons: Mapping[str, str]) -> dict[str, list[str]]:
  """Names of tasks by the reason; of a benchmark by that of its first task.

  Args:
    reasons: of each task that is missing.
  """
  first: dict[str, str] = {}
  found: dict[str, list[str]] = {}
  for name, reason in reasons.items():
    benchmark = eval_tasks.about(name).benchmark if eval_tasks.is_described(name) else reason
    found.setdefault(first.setdefault(benchmark, reason), []).append(name)
  return found


def described(groups: Mapping[str, Sequence[str]]) -> str:
  """A line for each group."""
  return '\n'.join(f'- {_whose(names)}: {reason}' for reason, names in groups.items())


def refusal(groups: Mapping[str, Sequence[str]], num_tasks: int) -> MissingTasksError:
  """What is said of `num_tasks` that were asked for, before any work."""
  count = sum(map(len, groups.values()))
  return MissingTasksError(
    f'{count} of {num_tasks} tasks cannot be evaluated, so none is. Bring what they lack, name '
    f'fewer, or evaluate the others with MISSING_TASKS = {LEAVE_OUT!r}:\n{described(groups)}'
  )


def _whose(names: Sequence[str]) -> str:
  abouts = [eval_tasks.about(name) for name in names]
  if not all(eval_tasks.is_described(name) for name in names) or len(names) == 1:
    return _some(names)
  languages = sorted({about.language for about in abouts} - {''})
  of = f' in {len(languages)} languages ({_some(languages)})' if languages else ''
  return f'{abouts[0].benchmark}, {len(names)} tasks{of}'


def _some(names: Sequence[str]) -> str:
  more = len(names) - _LISTED
  return ', '.join(names[:_LISTED]) + (f' and {more} more' if more > 0 else '')
