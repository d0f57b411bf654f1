"""What is evaluated by answers: names, splits and lengths, as gin sets them."""

import dataclasses
import fnmatch
from collections.abc import Mapping, Sequence

from aya_train.data import feature_converters
from aya_train.evaluation import missing_tasks
from aya_train.tasks import eval_tasks, split_slices

PREPROCESSING_SEED = 42
DEFAULT_SPLIT = 'test'


@dataclasses.dataclass(frozen=True, eq=False)
class InferEvalConfig:
  """What is answered and scored by metrics; names follow T5X's infer_eval DatasetConfig.

  Attributes:
    mixture_or_task_name: SeqIO task or mixture with metrics, or several of them.
    task_feature_lengths: lengths of inputs and targets; targets bound the answers.
    split: split to read; None: of a benchmark the one that is published
      (`eval_tasks.EvalTask.split`), else 'test'.
    batch_size: rows answered at a time, over all hosts; of ranked options the questions.
    num_examples: examples (questions) of each task, None for all.
    use_cached: read SeqIO's offline cache.
    seed: of SeqIO's preprocessing.
    lengths_of_tasks: other lengths of tasks by name; '*' and '?' stand for letters, and the last
      pattern that fits counts: {'mgsm.*': {'inputs': 2048}}.
    splits_of_tasks: other splits of tasks by name, as `lengths_of_tasks`: {'xnli.*': 'test[:50]'}.
    missing_tasks: what is done where data of tasks are missing, or the split of one that is named:
      'refuse' all, or 'leave_out' these. Of sources of a mixture its own settings say it.
  """

  mixture_or_task_name: str | Sequence[str]
  task_feature_lengths: Mapping[str, int]
  split: str | None = 'validation'
  batch_size: int = 128
  num_examples: int | None = None
  use_cached: bool = False
  seed: int = PREPROCESSING_SEED
  lengths_of_tasks: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)
  splits_of_tasks: Mapping[str, str] = dataclasses.field(default_factory=dict)
  missing_tasks: str = missing_tasks.REFUSE

  def __post_init__(self):
    missing_tasks.check_policy(self.missing_tasks)
    for split in (self.split or DEFAULT_SPLIT, *self.splits_of_tasks.values()):
      split_slices.parse(split)
    if not self.names:
      raise ValueError('MIXTURE_OR_TASK_NAME names nothing: give a task, a mixture, or a tuple')
    for lengths in (self.task_feature_lengths, *self.lengths_of_tasks.values()):
      feature_converters.check_lengths(lengths)
      if unknown := sorted({*lengths} - {*self.task_feature_lengths}):
        raise ValueError(
          f'TASK_FEATURE_LENGTHS_OF_TASKS has lengths of {unknown}; those of '
          f'{sorted(self.task_feature_lengths)} are known'
        )
    if self.batch_size < 1:
      raise ValueError(f'BATCH_SIZE must be at least 1, got {self.batch_size!r}')
    if self.num_examples is not None and self.num_examples < 1:
      raise ValueError(
        f'EVALUATOR_NUM_EXAMPLES must be None (all) or at least 1, got {self.num_examples!r}'
      )

  @property
  def names(self) -> tuple[str, ...]:
    """Of tasks and mixtures."""
    name = self.mixture_or_task_name
    return (name,) if isinstance(name, str) else tuple(name)

  def lengths_of(self, task: str) -> dict[str, int]:
    """Lengths of a task's inputs and targets, in tokens."""
    lengths = dict(self.task_feature_lengths)
    for pattern, others in self.lengths_of_tasks.items():
      if fnmatch.fnmatchcase(task, pattern):
        lengths |= others
    return lengths

  def split_of(self, task: str) -> str:
    """The split of a task that is read."""
    return split_of(task, self.split, self.splits_of_tasks)


def split_of(name: str, split: str | None, of_tasks: Mapping[str, str]) -> str:
  """The split of a task, or of a mixture that is read as a whole; see `InferEvalConfig`."""
  for pattern, other in reversed([*of_tasks.items()]):
    if fnmatch.fnmatchcase(name, pattern):
      return other
  described = eval_tasks.about(name).split if eval_tasks.is_described(name) else DEFAULT_SPLIT
  return described if split is None else split
