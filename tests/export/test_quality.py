"""Figures of a quantised model are what transformers computes with the weights it holds."""

import json

import numpy as np
import pytest

from aya_train.checkpoint.hf import hf_export, hf_torch
from aya_train.export import ct2_model, gguf_file, quality
from tests.checkpoint import small_model

for package, extra in (
  ('torch', 'hf'),
  ('transformers', 'hf'),
  ('ctranslate2', 'quantised'),
  ('gguf', 'quantised'),
):
  pytest.importorskip(package, reason=f'needs the extra `{extra}`')


@pytest.fixture(scope='module')
def hf_folder(vocabulary_file, tmp_path_factory):
  config = small_model.config(scan_layers=False, emb_dim=32, mlp_dim=64)
  return hf_export.export(
    small_model.random_params(config), config, vocabulary_file, tmp_path_factory.mktemp('q') / 'hf'
  )


@pytest.fixture(scope='module')
def examples(hf_folder):
  import transformers

  tokenizer = transformers.AutoTokenizer.from_pretrained(str(hf_folder))
  texts = zip(hf_torch.PROMPTS[:5], small_model.CORPUS[:5], strict=True)
  return [quality.Example(*(tokenizer(text)['input_ids'] for text in pair)) for pair in texts]


@pytest.fixture(scope='module')
def before(hf_folder, examples):
  return quality.of_float(hf_folder, examples, 8)


def test_loss_is_the_mean_over_target_tokens_whatever_the_batches(
  hf_folder, examples, before, monkeypatch
):
  import torch

  model = hf_torch.open_mapped(hf_folder)
  logs = []
  for example in examples:
    labels = torch.tensor([example.targets])
    with torch.no_grad():
      logits = model(input_ids=torch.tensor([example.inputs]), labels=labels).logits
    logs += torch.log_softmax(logits, -1)[0].gather(-1, labels[0][:, None])[:, 0].tolist()
  assert len(logs) == sum(len(example.targets) for example in examples)
  assert before.loss == pytest.approx(-np.mean(logs), rel=1e-5)
  monkeypatch.setattr(quality, '_BATCH', 2)
  again = quality.of_float(hf_folder, examples, 8)
  assert again.loss == pytest.approx(before.loss, rel=1e-6)
  assert again.answers == before.answers


@pytest.mark.parametrize(
  ('export', 'quantisation'),
  [(ct2_model.to_ctranslate2, 'float32'), (gguf_file.to_gguf, 'f32')],
  ids=['ct2', 'gguf'],
)
def test_a_format_without_rounding_changes_no_figure(
  hf_folder, examples, before, tmp_path, export, quantisation
):
  folder = export(hf_folder, tmp_path / 'out', quantisation=quantisation)
  after = quality.of_folder(folder, hf_folder, examples, 8)
  assert after.loss == pytest.approx(before.loss, rel=1e-4)
  assert after.answers == before.answers


@pytest.mark.parametrize(
  ('export', 'quantisation'),
  [(ct2_model.to_ctranslate2, 'float32'), (gguf_file.to_gguf, 'f32')],
  ids=['ct2', 'gguf'],
)
@pytest.mark.parametrize('layers', [(1, 3), (3, 1)], ids=['deeper', 'shallower'])
def test_a_decoder_of_another_depth_is_measured(
  vocabulary_file, examples, tmp_path, export, quantisation, layers
):
  config = small_model.config(
    scan_layers=False,
    emb_dim=32,
    mlp_dim=64,
    num_encoder_layers=layers[0],
    num_decoder_layers=layers[1],
  )
  hf = hf_export.export(small_model.random_params(config), config, vocabulary_file, tmp_path / 'hf')
  folder = export(hf, tmp_path / 'out', quantisation=quantisation)
  before = quality.of_float(hf, examples[:2], 8)
  after = quality.of_folder(folder, hf, examples[:2], 8)
  assert after.loss == pytest.approx(before.loss, rel=1e-4)
  assert after.answers == before.answers


def test_coarser_weights_show_in_the_report(hf_folder, examples, tmp_path):
  lines = [
    {'inputs': prompt, 'targets': target}
    for prompt, target in zip(hf_torch.PROMPTS[:5], small_model.CORPUS[:5], strict=True)
  ]
  (tmp_path / 'rows.jsonl').write_text('\n'.join(map(json.dumps, lines)))
  folder = gguf_file.to_gguf(hf_folder, tmp_path / 'out', quantisation='q4_0')
  found = quality.report(
    folder, hf_folder, quantisation='q4_0', examples_file=tmp_path / 'rows.jsonl', max_tokens=8
  )
  assert json.loads((folder / quality.FILE).read_text()) == found
  assert found['examples'] == 5 and found['examples_file'] == 'rows.jsonl'
  assert found['bytes'] == (folder / 'model-q4_0.gguf').stat().length
  assert found['parameters'] == sum(
    int(np.prod(array.shape))
    for array in small_model.random_params(
      small_model.config(scan_layers=False, emb_dim=32, mlp_dim=64)
    ).values()
  )
  assert 0.001 < abs(found['loss'] - found['float_loss']) < 0.5
  assert 0 <= found['same_tokens'] < 100


def test_agreement_counts_answers_and_positions():
  same = quality.agreement([[5, 6], [7], []], [[5, 6], [7, 8], []])
  assert same['same_answers'] == pytest.approx(200 / 3)
  # Positions with the end: 5 6 end | 7 end/8 -/end | end, of which one differs and one is missing.
  assert same['same_tokens'] == pytest.approx(500 / 7)
  assert quality.agreement([[]], [[]]) == {'same_answers': 100, 'same_tokens': 100}


def test_exact_match_compares_with_the_target_without_its_end():
  examples = [quality.Example([4, 1], [5, 6, 1]), quality.Example([4, 1], [7, 1])]
  assert quality.Outcome(0.0, [[5, 6], [8]]).exact_match(examples) == 50


def test_examples_are_spread_over_the_file_and_kept_decodings_are_read(tmp_path):
  path = tmp_path / 'inference_eval' / 'cldr-000700.jsonl'
  path.parent.mkdir()
  rows = [
    {'input': {'inputs_pretokenized': str(i), 'targets_pretokenized': 't'}, 'output': 'x'}
    for i in range(100)
  ]
  path.write_text('\n'.join(map(json.dumps, rows)) + '\n')
  (path.parent / 'cldr-000350.jsonl').write_text('')
  (path.parent / 'cldr-metrics.jsonl').write_text('')
  tokenizer = lambda text: {'input_ids': [text]}
  assert quality.examples_of_run(tmp_path) == path
  found = quality.read_examples(path, tokenizer, 5)
  assert [example.inputs for example in found] == [['0'], ['20'], ['40'], ['60'], ['80']]
  assert quality.examples_of_run(tmp_path / 'inference_eval') is None


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('', 'holds no examples'),
    ('{"inputs": "a"}', r'line 1: expected the texts inputs and targets'),
  ],
)
def test_files_without_texts_are_refused(tmp_path, text, message):
  (tmp_path / 'rows.jsonl').write_text(text)
  with pytest.raises(ValueError, match=message):
    quality.read_examples(tmp_path / 'rows.jsonl', lambda text: {'input_ids': [1]}, 5)
