"""What quantisation costs: size, loss and answers of a quantised model beside the float one.

Both models see the same token ids. The float one is computed by transformers in float32,
CTranslate2 models by CTranslate2, and GGUF files by transformers with the weights that the file
decodes to: what llama.cpp adds to that by rounding activations is not in these figures
(docs/quantised.md has it).
"""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from aya_train import ct2_library, json_lines, path_facts

FILE = 'quantised.json'
_BATCH = 16


@dataclasses.dataclass(frozen=True)
class Example:
  """Token ids of a prompt and of its answer, each with the end of sequence."""

  inputs: Sequence[int]
  targets: Sequence[int]


@dataclasses.dataclass(frozen=True)
class Outcome:
  """One model on a list of examples.

  Attributes:
    loss: mean negative log-likelihood of a target token, natural logarithm, without z-loss.
    answers: greedy tokens of each example, without the end of sequence.
  """

  loss: float
  answers: Sequence[Sequence[int]]

  def exact_match(self, examples: Sequence[Example]) -> float:
    """Percent of answers that are the target, token for token."""
    pairs = zip(self.answers, examples, strict=True)
    return 100 * _mean([list(answer) == list(e.targets[:-1]) for answer, e in pairs])


def example_texts(path: epath.PathLike, limit: int) -> list[tuple[str, str]]:
  """Prompts and answers of at most `limit` examples of a JSON-lines file, spread evenly over it.

  Args:
    path: lines with the text `inputs` and the text or texts `targets`, of which the first counts
      (as `infer` writes them), or those that evaluation keeps in MODEL_DIR/inference_eval (`input`
      with `inputs_pretokenized` and `targets_pretokenized`).
    limit: how many.

  Raises:
    ValueError: a line has no such texts, or there are none.
  """
  lines = json_lines.read(path)
  step = max(1, len(lines) // max(1, limit))
  found: list[tuple[str, str]] = []
  for number, line in itertools.islice(lines, 0, None, step):
    kept = line.get('input')
    row, ending = (kept, '_pretokenized') if isinstance(kept, Mapping) else (line, '')
    texts = [row.get(f'{side}{ending}') for side in ('inputs', 'targets')]
    texts = [text[0] if isinstance(text, list) and text else text for text in texts]
    if not all(isinstance(text, str) for text in texts):
      raise ValueError(
        f'{path}, line {number}: expected the texts inputs{ending} and targets{ending}, the line '
        f'has {sorted(row)}'
      )
    found.append((str(texts[0]), str(texts[1])))
  if not found:
    raise ValueError(f'{path} holds no examples')
  return found[:limit]


def read_examples(path: epath.PathLike, tokenizer: Any, limit: int) -> list[Example]:
  """The same as token ids of a tokenizer of transformers."""
  return [
    Example(*(tokenizer(text)['input_ids'] for text in texts))
    for texts in example_texts(path, limit)
  ]


def examples_of_run(model_dir: epath.PathLike) -> epath.Path | None:
  """The newest kept decoding of a run, None if there is none."""
  found = path_facts.matching(model_dir, 'inference_eval/*-*[0-9].jsonl')
  return max(found, key=lambda path: path.stem.rpartition('-')[2]) if found else None


# Models -------------------------------------------------------------------------------------------


def of_transformers(model: Any, examples: Sequence[Example], max_tokens: int) -> Outcome:
  """A transformers model on the CPU, in the dtype of its parameters."""
  import torch

  loss, tokens, answers = 0.0, 0, []
  config = model.config
  ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
  # The cache of transformers 5 has as many layers as the encoder.
  cached = config.num_decoder_layers <= config.num_layers
  with torch.inference_mode():
    for batch in _batches(examples):
      ids = torch.from_numpy(_padded(batch, 'inputs', 0))
      mask = torch.from_numpy(_padded(batch, 'inputs', 0, mask=True))
      labels = torch.from_numpy(_padded(batch, 'targets', -100))
      logits = model(input_ids=ids, attention_mask=mask, labels=labels).logits.float()
      loss += float(torch.nn.functional.cross_entropy(logits.mT, labels, reduction='sum'))
      tokens += int((labels != -100).sum())
      out = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=max_tokens,
        do_sample=False,
        num_beams=1,
        use_cache=cached,
      )
      answers += [_until_eos(row[1:], ends) for row in out.tolist()]
  return Outcome(loss / tokens, answers)


def of_ctranslate2(folder: epath.PathLike, examples: Sequence[Example], max_tokens: int) -> Outcome:
  """A CTranslate2 model on the CPU, in the types it was saved in."""

  ct2_library.prefer_mkl()
  import ctranslate2

  names = json.loads((epath.Path(folder) / 'shared_vocabulary.json').read_text())
  number = {name: i for i, name in enumerate(names)}
  translator = ctranslate2.Translator(str(folder), device='cpu', compute_type='default')
  loss, tokens, answers = 0.0, 0, []
  for batch in _batches(examples):
    sources = [[names[i] for i in example.inputs] for example in batch]
    targets = [[names[i] for i in example.targets[:-1]] for example in batch]
    for scored in translator.score_batch(sources, targets):
      loss -= sum(scored.log_probs)
      tokens += len(scored.log_probs)
    found = translator.translate_batch(sources, beam_size=1, max_decoding_length=max_tokens)
    answers += [[number[name] for name in answer.hypotheses[0]] for answer in found]
  return Outcome(loss / tokens, answers)


def of_gguf(
  folder: epath.PathLike, hf_folder: epath.PathLike, examples: Sequence[Example], max_tokens: int
) -> Outcome:
  """The weights that a GGUF file decodes to, in transformers' network and float32."""
  import torch

  from aya_train.checkpoint.hf import hf_files, hf_torch
  from aya_train.export import gguf_file

  weights = gguf_file.read(folder).weights()
  config = hf_torch.user_config(hf_folder)
  scaled = hf_torch.is_scaled(hf_folder, hf_files.open_tensors(hf_folder))
  if scaled:
    del weights['lm_head.weight']  # it is the input table with the scale that transformers applies
  state = {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}
  return of_transformers(
    hf_torch.with_weights(config, state, torch, scaled=scaled), examples, max_tokens
  )


def of_folder(
  folder: epath.PathLike, hf_folder: epath.PathLike, examples: Sequence[Example], max_tokens: int
) -> Outcome:
  """Any folder that `quantised.convert` writes."""
  if path_facts.matching(folder, '*.gguf'):
    return of_gguf(folder, hf_folder, examples, max_tokens)
  return of_ctranslate2(folder, examples, max_tokens)


def of_float(hf_folder: epath.PathLike, examples: Sequence[Example], max_tokens: int) -> Outcome:
  """The exported folder itself, in float32."""
  from aya_train.checkpoint.hf import hf_torch

  return of_transformers(hf_torch.open_mapped(hf_folder).float(), examples, max_tokens)


# The report ---------------------------------------------------------------------------------------


def report(
  folder: epath.PathLike,
  hf_folder: epath.PathLike,
  *,
  quantisation: str,
  examples_file: epath.PathLike | None = None,
  num_examples: int = 256,
  max_tokens: int = 64,
) -> dict[str, Any]:
  """Sizes and, where there are examples, losses and answers; also written as quantised.json.

  Args:
    folder: with the quantised model.
    hf_folder: what it was made from.
    quantisation: its name.
    examples_file: see `read_examples`; None compares nothing.
    num_examples: how many of them.
    max_tokens: length of greedy answers.

  Returns:
    `format`, `quantisation`, `bytes` (of the weights), `float_bytes` and `float_dtype` (of the
    exported folder), `parameters`, `bytes_per_parameter`; with examples also `examples`,
    `examples_file`, `loss` and `float_loss` (per target token), `exact_match` and
    `float_exact_match`, `same_answers` and `same_tokens` (percent: whole greedy answers, and
    positions of them, that are those of the float model).
  """
  folder, hf_folder = epath.Path(folder), epath.Path(hf_folder)
  found = {'quantisation': quantisation, **sizes(folder, hf_folder)}
  if examples_file is not None:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(str(hf_folder))
    examples = read_examples(examples_file, tokenizer, num_examples)
    before = of_float(hf_folder, examples, max_tokens)
    after = of_folder(folder, hf_folder, examples, max_tokens)
    found |= {
      'examples': len(examples),
      'examples_file': epath.Path(examples_file).name,
      'float_loss': before.loss,
      'loss': after.loss,
      'float_exact_match': before.exact_match(examples),
      'exact_match': after.exact_match(examples),
      **agreement(before.answers, after.answers),
    }
  (folder / FILE).write_text(json.dumps(found, indent=2) + '\n')
  return found


def sizes(folder: epath.Path, hf_folder: epath.Path) -> dict[str, Any]:
  """The part of a report that needs no model to run."""
  from aya_train.checkpoint.hf import hf_files

  gguf = path_facts.matching(folder, '*.gguf')
  (weights,) = gguf or [folder / 'model.bin']
  parameters = hf_files.parameter_count(hf_folder)
  length = path_facts.size(weights)
  return {
    'format': 'gguf' if gguf else 'ct2',
    'bytes': length,
    'float_bytes': sum(
      path_facts.size(hf_folder / name) for name in hf_files.safetensors_files(hf_folder)
    ),
    'float_dtype': hf_files.dtype_of(hf_folder),
    'parameters': parameters,
    'bytes_per_parameter': length / parameters,
  }


def agreement(before: Sequence[Sequence[int]], after: Sequence[Sequence[int]]) -> dict[str, float]:
  """Percent of answers that are the same, and of positions of the longer answer that are."""
  same = [list(a) == list(b) for a, b in zip(before, after, strict=True)]
  # The end of sequence is a position, too: an empty answer that stays empty agrees.
  pairs = [
    (x, y)
    for a, b in zip(before, after, strict=True)
    for x, y in itertools.zip_longest([*a, -1], [*b, -1])
  ]
  return {
    'same_answers': 100 * _mean(same),
    'same_tokens': 100 * _mean([x == y for x, y in pairs]),
  }


def _mean(values: Iterable[float]) -> float:
  found = list(values)
  return sum(found) / len(found)


def _batches(examples: Sequence[Example]) -> Iterator[Sequence[Example]]:
  for start in range(0, len(examples), _BATCH):
    yield examples[start : start + _BATCH]


def _padded(batch: Sequence[Example], side: str, padding: int, *, mask: bool = False) -> np.ndarray:
  rows: list[Sequence[int]] = [getattr(example, side) for example in batch]
  out = np.full((len(rows), max(map(len, rows))), padding, np.int64)
  for row, ids in zip(out, rows, strict=True):
    row[: len(ids)] = 1 if mask else ids
  return out


def _until_eos(ids: Sequence[int], ends: Sequence[int]) -> list[int]:
  return list(itertools.takewhile(lambda i: i not in ends, ids))
