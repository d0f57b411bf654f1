"""What was wrong with the files of a source: counted, named by file and row, and limited."""

import collections
import dataclasses
import json
from collections.abc import Mapping

EXAMPLES_PER_KIND = 20

# Repeated rows are dropped without a limit: some releases repeat by design (xP3x is not
# deduplicated), and dropping them loses nothing.
UNLIMITED = frozenset({'duplicate'})


class DamagedFileError(ValueError):
  """A file that is not whole; nothing of it may be used. The message says what was found."""


class RowProblemError(ValueError):
  """A row that cannot be used.

  Attributes:
    kind: one word for counting: broken_json, wrong_columns, invalid_utf8, empty_inputs,
      empty_targets, nul, too_long, unknown_language, unknown_dataset, bad_tree, duplicate.
    detail: what was found.
  """

  def __init__(self, kind: str, detail: str):
    super().__init__(f'{kind}: {detail}')
    self.kind = kind
    self.detail = detail


class FilteredRowError(Exception):
  """A sound row that the caller did not ask for: another language, an evaluation split."""

  def __init__(self, reason: str):
    super().__init__(reason)
    self.reason = reason


@dataclasses.dataclass(frozen=True)
class Problem:
  """One finding. `where` is 'row 17', 'byte 2048' (of a part of a file), or '' for the file."""

  kind: str
  file: str
  where: str
  detail: str

  def __str__(self) -> str:
    place = f'{self.file}, {self.where}' if self.where else self.file
    return f'{place}: {self.kind} ({self.detail})'


@dataclasses.dataclass(frozen=True)
class SkipLimits:
  """How much may be left out before a source is refused.

  Attributes:
    rows: bad rows, as a share of those read; ten bad rows are always allowed.
    files: damaged files, in number.
  """

  rows: float = 0.01
  files: int = 0


class TooManyProblemsError(ValueError):
  """A source with more problems than its limits allow."""


@dataclasses.dataclass
class ReadReport:
  """Counts over the files that were read, and the first findings of each kind.

  Attributes:
    rows: records read.
    kept: rows written.
    problems: kind -> rows left out.
    filtered: reason -> rows left out on purpose.
    files: damaged files.
    examples: the first `EXAMPLES_PER_KIND` findings of each kind.
  """

  rows: int = 0
  kept: int = 0
  problems: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
  filtered: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
  files: list[Problem] = dataclasses.field(default_factory=list)
  examples: list[Problem] = dataclasses.field(default_factory=list)

  def add_row(self, kind: str, file: str, where: str, detail: str) -> None:
    """Counts a bad row, and remembers it if it is among the first of its kind."""
    self.problems[kind] += 1
    if self.problems[kind] <= EXAMPLES_PER_KIND:
      self.examples.append(Problem(kind, file, where, detail[:200]))

  def add_file(self, file: str, detail: str) -> None:
    """Counts a damaged file; all of them are remembered."""
    self.files.append(Problem('damaged', file, '', detail[:500]))

  def merge(self, other: 'ReadReport') -> None:
    """Adds the counts of another report to this one."""
    self.rows += other.rows
    self.kept += other.kept
    self.problems += other.problems
    self.filtered += other.filtered
    self.files += other.files
    seen = collections.Counter(p.kind for p in self.examples)
    for problem in other.examples:
      if seen[problem.kind] < EXAMPLES_PER_KIND:
        seen[problem.kind] += 1
        self.examples.append(problem)

  def bad_rows(self) -> int:
    """Rows left out that count against the limit."""
    return sum(n for kind, n in self.problems.items() if kind not in UNLIMITED)

  def check(self, limits: SkipLimits, name: str) -> None:
    """Refuses a source with more problems than allowed.

    Raises:
      TooManyProblemsError: with counts by kind and the first findings.
    """
    bad, allowed = self.bad_rows(), max(10, int(limits.rows * self.rows))
    if bad <= allowed and len(self.files) <= limits.files:
      return
    raise TooManyProblemsError(
      f'{name}: {bad:,} of {self.rows:,} rows cannot be used and {len(self.files)} files are '
      f'damaged; allowed are {allowed:,} rows (--max_bad_rows {limits.rows:g}) and {limits.files} '
      f'files (--max_bad_files).\n{self.summary()}\nRepair or remove the files, or raise the limit.'
    )

  def summary(self, examples_per_kind: int = 3) -> str:
    """Counts by kind with their first findings, one a line."""
    lines = [f'{self.rows:,} rows read, {self.kept:,} kept']
    lines += [f'left out on purpose, {reason}: {n:,}' for reason, n in self.filtered.most_common()]
    for kind, n in self.problems.most_common():
      lines.append(f'{kind}: {n:,}')
      first = [p for p in self.examples if p.kind == kind][:examples_per_kind]
      lines += [f'  {problem}' for problem in first]
    lines += [str(problem) for problem in self.files]
    return '\n'.join(lines)

  def to_json(self) -> str:
    """All of it; `from_json` is the inverse."""
    fields = dict(vars(self))
    for name in ('files', 'examples'):
      fields[name] = [dataclasses.asdict(problem) for problem in fields[name]]
    return json.dumps(fields, ensure_ascii=False, sort_keys=True)

  @classmethod
  def from_json(cls, text: str) -> 'ReadReport':
    """What `to_json` wrote; ValueError if it did not."""
    try:
      fields: Mapping = json.loads(text)
      return cls(
        rows=int(fields['rows']),
        kept=int(fields['kept']),
        problems=collections.Counter(fields['problems']),
        filtered=collections.Counter(fields['filtered']),
        files=[Problem(**p) for p in fields['files']],
        examples=[Problem(**p) for p in fields['examples']],
      )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
      raise ValueError(f'this is no report of a build ({error!r})') from error
