"""Evaluation folders as `aya-train eval` leaves them, made up."""

import json
import random

from aya_train.tasks import eval_tasks


def write(folder, tasks, *, step=None, checkpoint='runs/x', settings=None):
  """Writes results.json and predictions of (EvalTask, [Prediction], {metric: value}) triples."""
  (folder / 'predictions').mkdir(parents=True, exist_ok=True)
  results = {}
  for about, predictions, metrics in tasks:
    results[about.name] = eval_tasks.Result(about, len(predictions), metrics).to_dict()
    lines = [json.dumps(vars(p), ensure_ascii=False) + '\n' for p in predictions]
    (folder / 'predictions' / f'{about.name}.jsonl').write_text(''.join(lines), encoding='utf-8')
  written = {'checkpoint': checkpoint, 'step': step, 'model': 'mt5, tiny', 'tasks': results}
  text = json.dumps({**written, 'settings': settings or {}}, ensure_ascii=False)
  (folder / 'results.json').write_text(text, encoding='utf-8')
  return folder


def ranked(
  language, prompt, hits, *, benchmark='xcopa', subset='', options=('ja', 'nein'), protocol=None,
  split='validation', inputs='Premise?', fields=None, variety=None, interval=True,
):  # fmt: skip
  """A ranked task whose examples are right where `hits` says so."""
  protocol = protocol or eval_tasks.T0
  ending = '.harness' if protocol == eval_tasks.HARNESS else ''
  name = f'{benchmark}.{variety or language}.{prompt}{ending}'
  about = eval_tasks.EvalTask(
    name, benchmark, language, prompt, protocol, 'accuracy', split, subset=subset
  )
  predictions = []
  for index, hit in enumerate(hits):
    label = index % len(options)
    best = label if hit else (label + 1) % len(options)
    scores = [-1.0 if k == best else -2.0 for k in range(len(options))]
    predictions.append(
      eval_tasks.Prediction(
        name,
        index,
        inputs,
        [options[label]],
        options[best],
        options,
        scores,
        label,
        fields=fields(index) if fields else {},
      )
    )
  value = 100 * sum(hits) / len(hits)
  metrics = {'accuracy': value}
  if interval:
    metrics |= {'accuracy_low': value - 5, 'accuracy_high': value + 5}
  return about, predictions, metrics


def generated(
  language, answers, references, *, benchmark='xlsum', metric='rougeLsum', value=20.0, subset='',
  inputs='Summarize.', prompt='tldr', further=None, low=None, high=None, variety=None,
):  # fmt: skip
  """A generated task with a figure that is given."""
  name = '.'.join(x for x in (benchmark, variety or language or 'mul', prompt, subset) if x)
  about = eval_tasks.EvalTask(
    name, benchmark, language, prompt, eval_tasks.GENERATED, metric, 'test',
    subset='.'.join(x for x in (subset, variety) if x),
  )  # fmt: skip
  predictions = [
    eval_tasks.Prediction(name, index, inputs, [reference], answer)
    for index, (answer, reference) in enumerate(zip(answers, references, strict=True))
  ]
  low, high = value - 2 if low is None else low, value + 2 if high is None else high
  metrics = {metric: value, f'{metric}_low': low, f'{metric}_high': high}
  return about, predictions, {**metrics, **(further or {})}


def hits(share, count, seed=0):
  """`count` booleans of which about `share` are true."""
  rng = random.Random(f'{share} {count} {seed}')
  return [rng.random() < share for _ in range(count)]
