"""Batches as Label Studio takes them: tasks, and a labeling configuration; and what it exports."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.sax import saxutils

from aya_train.annotation import batches
from aya_train.tasks.languages import writing_direction

# Names of controls in the configuration, by which results are found in an export.
_PAIR, _EQUAL, _DECISION = 'preference', 'equal', 'decision'
_PROMPT, _ANSWER, _COMMENT = 'edited_prompt', 'edited_answer', 'comment'
_CONTROLS = (_PAIR, _EQUAL, _DECISION, _PROMPT, _ANSWER, _COMMENT)
_WRITTEN = (_PROMPT, _ANSWER, _COMMENT)
_SELECTED = {'left': 'first', 'right': 'second'}
_EQUALS = {'equally good': 'tie', 'both bad': 'both_bad'}
_DECISIONS = {'approve': 'approved', 'edit': 'edited', 'skip': 'skipped'}


def tasks(batch: batches.Batch) -> list[dict[str, Any]]:
  """Tasks for Label Studio's import: what the configuration shows, and a key that it does not."""
  names = ('first', 'second') if batch.mode == batches.PAIRS else ('answer',)
  return [
    {
      'data': {
        'id': item.id,
        'batch': batch.id,
        'prompt': item.prompt,
        **dict(zip(names, item.texts, strict=True)),
        'key': item.key,
      }
    }
    for item in batch.items
  ]


def config(batch: batches.Batch) -> str:
  """The labeling configuration (XML) that goes with `tasks`."""
  way = writing_direction.of_language(batch.language) if batch.language else 'auto'
  style = 'white-space: pre-wrap; overflow-wrap: anywhere; text-align: start;'
  style += ' unicode-bidi: plaintext;' if way == 'auto' else f' direction: {way};'
  box = f'<View style={saxutils.quoteattr(style)}>'

  def text(name: str) -> str:
    return f'{box}<Text name="{name}" value="${name}"/></View>'

  def choices(name: str, to: str, values: Sequence[str], required: str) -> list[str]:
    inner = ''.join(f'<Choice value="{value}"/>' for value in values)
    start = f'<Choices name="{name}" toName="{to}" choice="single-radio" required="{required}"'
    return [f'  {start} showInline="true">{inner}</Choices>']

  if batch.mode == batches.PAIRS:
    lines = [
      '  <Header value="Which answer is better?"/>',
      f'  {text("prompt")}',
      f'  <Pairwise name="{_PAIR}" toName="first,second"/>',
      '  <View style="display: grid; grid-template-columns: 1fr 1fr; gap: 1rem;">',
      *(f'    {text(name)}' for name in ('first', 'second')),
      '  </View>',
      '  <Header value="Or, where neither is:"/>',
      *choices(_EQUAL, 'prompt', [*_EQUALS], 'false'),
    ]
  else:
    lines = [
      '  <Header value="Is this a good prompt with a good answer?"/>',
      f'  {text("prompt")}',
      f'  {text("answer")}',
      *choices(_DECISION, 'prompt', [*_DECISIONS], 'true'),
      '  <Header value="Edited prompt and answer"/>',
      f'  <TextArea name="{_PROMPT}" toName="prompt" value="$prompt" rows="4" editable="true"'
      ' maxSubmissions="1"/>',
      f'  <TextArea name="{_ANSWER}" toName="answer" value="$answer" rows="4" editable="true"'
      ' maxSubmissions="1"/>',
    ]
  comment = f'  <TextArea name="{_COMMENT}" toName="prompt" placeholder="Comment" rows="2"/>'
  return '\n'.join(['<View>', *lines, comment, '</View>', ''])


def annotations(exported: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
  """Annotator and annotation, as our page exports it, of each submitted annotation.

  Takes both of its forms, JSON and JSON-MIN. Annotations that were skipped or decide nothing are
  left out; texts are those of the task.

  Raises:
    ValueError: a task is not one of `tasks`, or what was submitted has another form; it names its
      place, counted from 1.
  """
  for place, task in enumerate(exported, 1):
    data = task.get('data', task)
    names = ('id', 'prompt', 'key')
    if not isinstance(data, Mapping) or any(not isinstance(data.get(n), str) for n in names[1:]):
      raise ValueError(
        f'task {place} of the export has no {names}: was it imported from the tasks that '
        '`aya-train annotate` wrote?'
      )
    texts = [data[name] for name in ('first', 'second', 'answer') if name in data]
    shown = {'id': str(data.get('id', '')), 'prompt': data['prompt'], 'texts': texts}
    shown['key'] = data['key']
    try:
      submitted = list(_submitted(task))
    except ValueError as error:
      raise ValueError(f'task {place} of the export: {error}') from error
    for who, found, seconds in submitted:
      decided = _decision(found, is_pair='first' in data)
      if decided:
        yield who, {**shown, **decided, 'seconds': seconds}


def _submitted(task: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str | None], Any]]:
  """Annotator, texts by the names of controls, and seconds.

  Raises:
    ValueError: annotations or results have another form.
  """
  if 'data' not in task:  # JSON-MIN: one flat object an annotation
    found = {name: _flat(name, task[name]) for name in _CONTROLS if name in task}
    yield _who(task.get('annotator')), found, task.get('lead_time')
    return
  for annotation in _objects(task.get('annotations'), 'annotations'):
    if not annotation.get('was_cancelled'):
      results = _objects(annotation.get('result'), 'result')
      given = {str(r.get('from_name')): r.get('value') for r in results}
      found = {name: _flat(name, given[name]) for name in _CONTROLS if name in given}
      yield _who(annotation.get('completed_by')), found, annotation.get('lead_time')


def _objects(values: Any, name: str) -> list[Mapping[str, Any]]:
  """A list of objects; none where it is null."""
  if values is None:
    return []
  if not isinstance(values, list) or any(not isinstance(value, Mapping) for value in values):
    raise ValueError(f'`{name}` is a list of objects, got {_said(values)}')
  return values


def _said(value: Any) -> str:
  return json.dumps(value)[:80]


def _who(user: Any) -> str:
  if isinstance(user, Mapping):
    user = user.get('email') or user.get('id')
  return f'Label Studio {user}' if user is not None and '@' not in str(user) else str(user or '')


def _flat(name: str, value: Any) -> str | None:
  """The one text of a control, in whichever form it comes; None where nothing was chosen.

  Raises:
    ValueError: it holds something else.
  """
  given = value
  # What people wrote is a text, also where it looks like an object.
  if isinstance(value, str) and value.startswith('{') and name not in _WRITTEN:
    try:
      value = json.loads(value)
    except (ValueError, RecursionError):
      return value
  if isinstance(value, Mapping):
    value = next((value[n] for n in ('selected', 'choices', 'choice', 'text') if n in value), None)
  if isinstance(value, list):
    value = value[-1] if value else None
  if value is not None and not isinstance(value, str):
    raise ValueError(f'`{name}` holds no text but {_said(given)}')
  return value


def _decision(found: Mapping[str, str | None], is_pair: bool) -> dict[str, str]:
  comment = {'comment': found.get(_COMMENT) or ''}
  if is_pair:
    # Who chose both said last that they are equal: the control stands below.
    verdict = _EQUALS.get(found.get(_EQUAL) or '') or _SELECTED.get(found.get(_PAIR) or '')
    return {'verdict': verdict, **comment} if verdict else {}
  verdict = _DECISIONS.get(found.get(_DECISION) or '')
  edits = {n: text for n in (_PROMPT, _ANSWER) if (text := found.get(n)) is not None}
  return {'verdict': verdict, **edits, **comment} if verdict else {}
