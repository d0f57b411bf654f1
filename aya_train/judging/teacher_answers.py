"""Training data from a teacher that is told to be safe: the data step of Aya Safe.

A teacher answers prompts with a preamble before them; the model to be trained sees the prompt
without it (context distillation). Answers are filtered and written as a data set with its table, so
that `DATASET_TABLES` makes a SeqIO task of them.
"""

import collections
import dataclasses
import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from aya_train import destinations, path_facts
from aya_train.judging import answer_checks, answer_filters, judge_calls, judge_run, reply_log
from aya_train.judging.judge_run import Record, RunSettings, Unit
from aya_train.system_answers import Answer

logger = logging.getLogger(__name__)

ANSWERS = 'answers.jsonl'
OTHERS = 'default'
PREAMBLE = (
  'Before you answer, consider whether the request below could hurt somebody: whether it asks for '
  "help with violence, crime, deceit, hatred, or the breach of a person's privacy, or rests on "
  'something untrue. If it could, do not help with it. Say in a friendly way, in the language of '
  'the request, that you will not, and explain why it is harmful; offer something safe instead '
  'where there is something. If it could not, answer it as helpfully as you can. Do not mention '
  'these instructions.'
)
_NAME = re.compile(r'\w+')


@dataclasses.dataclass(frozen=True)
class TeachingSettings:
  """What is made.

  Attributes:
    name: of the data set, which is that of its task.
    license: of the data set.
    teacher: model that answers, for the table; '' for that of the endpoint.
    preambles: language -> text; `default` for the others.
    in_prompt: whether the preamble stands before the prompt, instead of being a system message.
    options: of each request: temperature, top_p, max_tokens.
    filters: which answers stay.
    same_language: whether answers in another language go.
    validation: share of the prompts that are held out.
    language: of prompts that name none.
    attribution, terms: for the table.
  """

  name: str
  license: str
  teacher: str = ''
  preambles: Mapping[str, str] = dataclasses.field(default_factory=lambda: {OTHERS: PREAMBLE})
  in_prompt: bool = False
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  filters: answer_filters.Filters = dataclasses.field(default_factory=answer_filters.Filters)
  same_language: bool = False
  validation: float = 0.0
  language: str = ''
  attribution: str = ''
  terms: str = ''


def read_preambles(path: str) -> dict[str, str]:
  """Of a text file, or of a TOML file with a text a language and `default`.

  Raises:
    FileNotFoundError, ValueError: there is none, or it is not of that form.
  """
  file = epath.Path(path)
  if not path_facts.exists(file):
    raise FileNotFoundError(f'no preamble at {path}')
  from aya_train.tasks.building import text_files  # TensorFlow comes with it

  if not path.endswith('.toml'):
    return {OTHERS: text_files.read(file).strip()}
  found = text_files.toml(file)
  if bad := [key for key, text in found.items() if not isinstance(text, str) or not text.strip()]:
    raise ValueError(f"{path}: {bad[0]!r} must be a text: a language's code = its preamble")
  return {key: text.strip() for key, text in found.items()}


def check(prompts: Sequence[Answer], settings: TeachingSettings) -> None:
  """Raises ValueError if something is missing that would be missed after the work."""
  if not _NAME.fullmatch(settings.name):
    raise ValueError(f'--name must be of letters, digits and _, got {settings.name!r}')
  if not settings.license.strip():
    raise ValueError('--license is needed: of the data set that is made')
  if not 0 <= settings.validation < 1:
    raise ValueError(f'--validation is a share from 0 to below 1, got {settings.validation}')
  for prompt in prompts:
    language = answer_checks.language_of(prompt, settings.language)
    if not language:
      raise ValueError(f'{prompt.where} has no language: give --language, or a column of it')
    if language not in settings.preambles and OTHERS not in settings.preambles:
      known = sorted(settings.preambles)
      raise ValueError(f'{prompt.where}: no preamble for {language!r}, and no default; for {known}')


def preamble(language: str, settings: TeachingSettings) -> str:
  """What the teacher is told for a language."""
  return settings.preambles.get(language) or settings.preambles[OTHERS]


def prompts_for_infer(prompts: Sequence[Answer], settings: TeachingSettings) -> list[Record]:
  """Rows for `infer`, where the teacher is a checkpoint: preamble and prompt as `inputs`."""
  rows = []
  for prompt, identity in zip(prompts, identities(prompts), strict=True):
    language = answer_checks.language_of(prompt, settings.language)
    inputs = f'{preamble(language, settings)}\n\n{prompt.inputs}'
    rows.append({'id': identity, 'language': language, 'inputs': inputs})
  return rows


def identities(prompts: Sequence[Answer]) -> list[str]:
  """The ids of rows, or their places where one has none."""
  return [str(i) if p.id is None else p.id for i, p in enumerate(prompts)]


def teach(
  prompts: Sequence[Answer],
  settings: TeachingSettings,
  run: RunSettings,
  answers: Sequence[Answer] | None = None,
) -> dict[str, Any]:
  """Has prompts answered, filters, and writes data set and table into `run.output`.

  Args:
    prompts: what is asked.
    settings, run: see there.
    answers: of a checkpoint to `prompts_for_infer`, by their ids; None: the endpoint is asked.

  Returns:
    What is written as summary.json.

  Raises:
    ValueError: see `check`; an answer is missing.
    EndpointError, CostLimitError, OSError: see `judge_run.run`.
  """
  check(prompts, settings)
  seen: set[str] = set()

  def concluded(record: Record, reply: Mapping[str, Any]) -> Record:
    reason = dropped(record, reply, settings)
    targets = reply['text'].strip()
    return record | {'targets': targets, 'dropped': reason, 'problem': reply['problem']}

  def summary(records: Sequence[Record]) -> Mapping[str, Any]:
    return {
      'name': settings.name,
      'teacher': settings.teacher or run.endpoint.model,
      'answers': len(records),
      'kept': sum(not r['dropped'] for r in records),
      'dropped': dict(collections.Counter(r['dropped'] for r in records if r['dropped'])),
      'languages': dict(collections.Counter(r['language'] for r in records if not r['dropped'])),
    }

  by_id = None if answers is None else {a.id: a for a in answers}
  units = []
  for prompt, identity in zip(prompts, identities(prompts), strict=True):
    language = answer_checks.language_of(prompt, settings.language)
    record: Record = {'id': identity, 'language': language, 'inputs': prompt.inputs}
    if (again := f'{language}\0{prompt.inputs}') in seen:
      units.append(Unit({**record, 'targets': '', 'dropped': 'duplicate', 'problem': ''}))
      continue
    seen.add(again)
    if by_id is None:
      messages = _messages(prompt.inputs, preamble(language, settings), settings.in_prompt)
      units.append(Unit(record, judge_calls.call(run.endpoint, messages, settings.options)))
    elif (answer := by_id.get(identity)) is None:
      raise ValueError(f'{prompt.where}: no answer with id {identity!r} in --answers')
    else:
      units.append(Unit(concluded(record, {'text': answer.text, 'problem': '', 'finish': ''})))
  destinations.check_folder(run.output, '--output')
  about = judge_run.run(
    units,
    run,
    file=ANSWERS,
    concluded=concluded,
    is_settled=lambda record: not record['problem'],
    summary=summary,
  )
  if not run.dry_run:
    _write(epath.Path(run.output), settings, run.endpoint.model)
  return about


def dropped(record: Mapping[str, Any], reply: Mapping[str, Any], settings: TeachingSettings) -> str:
  """Why an answer is not kept; '' where it is."""
  if reply['problem'] not in ('', 'refused'):  # to refuse is what is asked for
    return str(reply['problem'])
  if reply['finish'] == 'length':
    return 'cut'
  if reason := settings.filters.reason(reply['text']):
    return reason
  other = settings.same_language and answer_checks.is_in_other_language(
    reply['text'], record['language']
  )
  return 'language' if other else ''


def table(settings: TeachingSettings, teacher: str, files: Mapping[str, str]) -> str:
  """The table of the data set, for DATASET_TABLES."""
  rows = {
    'name': settings.name,
    'language_column': 'language',
    'license': settings.license,
    'model_generated_by': settings.teacher or teacher,
    'task_type': 'safety',
    'attribution': settings.attribution,
    'terms': settings.terms,
  }
  # JSON's strings without escapes of ASCII are TOML's basic strings.
  lines = [f'{k} = {json.dumps(v, ensure_ascii=False)}' for k, v in rows.items() if v]
  inner = ', '.join(f'{split} = {json.dumps(name)}' for split, name in files.items())
  return '\n'.join(['[[dataset]]', *lines, f'files = {{{inner}}}', ''])


def _messages(prompt: str, told: str, in_prompt: bool) -> list[dict[str, str]]:
  if in_prompt:
    return [{'role': 'user', 'content': f'{told}\n\n{prompt}'}]
  return [{'role': 'system', 'content': told}, {'role': 'user', 'content': prompt}]


def _write(folder: epath.Path, settings: TeachingSettings, teacher: str) -> None:
  """The data set and its table, from the records on the disk."""
  from aya_train import json_lines

  kept = [r for _, r in json_lines.read(folder / ANSWERS) if not r['dropped']]
  splits: dict[str, list[Record]] = {'train': []}
  for record in kept:
    row = {key: record[key] for key in ('id', 'language', 'inputs', 'targets')}
    split = 'validation' if is_held_out(row['inputs'], settings.validation) else 'train'
    splits.setdefault(split, []).append(row)
  if not splits['train']:
    raise ValueError(
      f'no answer was kept of those in {folder / ANSWERS}: its column `dropped` says why'
    )
  files = {split: f'{settings.name}.{split}.jsonl' for split in splits}
  for split, rows in splits.items():
    reply_log.write_whole(folder / files[split], rows)
  text = table(settings, teacher, files)
  reply_log.replace(folder / f'{settings.name}.toml', text.encode())
  logger.info('%d rows and their table: %s', len(kept), folder / f'{settings.name}.toml')


def is_held_out(prompt: str, share: float) -> bool:
  """Whether a prompt is of the validation split: a function of its text alone."""
  number = int(hashlib.sha256(prompt.encode('utf-8', 'replace')).hexdigest()[:8], 16)
  return number / 2**32 < share
