"""CTranslate2 models compute what transformers does, probabilities and ids included."""

import numpy as np
import pytest

from aya_train.checkpoint.hf import hf_export, hf_torch
from aya_train.export import ct2_model
from tests.checkpoint import small_model

ctranslate2 = pytest.importorskip('ctranslate2', reason='needs the extra `quantised`')
torch = pytest.importorskip('torch', reason='needs the extra `hf`')
transformers = pytest.importorskip('transformers', reason='needs the extra `hf`')

TARGETS = ('Ko sí ìdádúró', 'coffee <extra_id_1> cups')


@pytest.fixture(scope='module')
def converted(vocabulary_file, tmp_path_factory):
  made = {}

  def run(quantisation='float32', **overrides):
    key = (quantisation, *overrides.items())
    if key not in made:
      config = small_model.config(scan_layers=False, **overrides)
      folder = tmp_path_factory.mktemp('converted')
      params = small_model.random_params(config)
      hf = hf_export.export(params, config, vocabulary_file, folder / 'hf')
      made[key] = (
        hf,
        ct2_model.to_ctranslate2(hf, folder / 'ct2', quantisation=quantisation),
        transformers.AutoTokenizer.from_pretrained(str(hf)),
      )
    return made[key]

  return run


def log_probabilities(hf, tokenizer, text, target):
  model = hf_torch.open_mapped(hf)
  ids = torch.tensor([tokenizer(text)['input_ids']])
  labels = torch.tensor([tokenizer(target)['input_ids']])
  with torch.no_grad():
    logits = model(input_ids=ids, labels=labels).logits
  return torch.log_softmax(logits, -1)[0].gather(-1, labels[0][:, None])[:, 0].numpy()


def scored(folder, tokenizer, text, target):
  translator = ctranslate2.Translator(str(folder), device='cpu', compute_type='default')
  source = tokenizer.convert_ids_to_tokens(tokenizer(text)['input_ids'])
  pieces = tokenizer.convert_ids_to_tokens(tokenizer(target)['input_ids'])[:-1]
  return np.array(translator.score_batch([source], [pieces])[0].log_probs)


@pytest.mark.parametrize(
  'overrides',
  [{}, {'logits_via_embedding': True}, {'relpos_bias_per_layer': True}],
  ids=['untied', 'tied', 'umt5'],
)
@pytest.mark.parametrize('target', TARGETS)
def test_probabilities_of_float32_are_those_of_transformers(converted, overrides, target):
  hf, folder, tokenizer = converted(**overrides)
  expected = log_probabilities(hf, tokenizer, hf_torch.PROMPTS[0], target)
  np.testing.assert_allclose(
    scored(folder, tokenizer, hf_torch.PROMPTS[0], target), expected, rtol=1e-4, atol=1e-4
  )


def test_int8_stays_near_and_is_not_the_same(converted):
  hf, folder, tokenizer = converted('int8_float32')
  expected = log_probabilities(hf, tokenizer, hf_torch.PROMPTS[0], TARGETS[0])
  found = scored(folder, tokenizer, hf_torch.PROMPTS[0], TARGETS[0])
  assert 0 < np.abs(found - expected).max() < 0.3


def test_greedy_tokens_are_those_of_transformers(converted):
  hf, folder, tokenizer = converted()
  model = transformers.AutoModelForSeq2SeqLM.from_pretrained(str(hf))
  translator = ctranslate2.Translator(str(folder), device='cpu')
  for text in hf_torch.PROMPTS:
    ids = tokenizer(text)['input_ids']
    answer = translator.translate_batch(
      [tokenizer.convert_ids_to_tokens(ids)], beam_size=1, max_decoding_length=12
    )[0].hypotheses[0]
    expected = model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0, 1:]
    expected = [i for i in expected.tolist() if i != tokenizer.eos_token_id]
    assert tokenizer_ids(folder, answer) == expected


def tokenizer_ids(folder, tokens):
  """Ids by place in CTranslate2's own list, rows beyond the vocabulary included."""
  import json

  rows = json.loads((folder / 'shared_vocabulary.json').read_text())
  return [rows.index(token) for token in tokens]


def test_every_row_of_the_tables_has_a_name_of_its_own(converted):
  import json

  _, folder, tokenizer = converted()
  rows = json.loads((folder / 'shared_vocabulary.json').read_text())
  assert len(rows) == len(set(rows)) == small_model.VOCAB_ROWS
  assert rows[: len(tokenizer)] == tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))


def test_the_tokenizer_travels_along(converted):
  hf, folder, tokenizer = converted()
  again = transformers.AutoTokenizer.from_pretrained(str(folder))
  for text in hf_torch.PROMPTS:
    assert again(text)['input_ids'] == tokenizer(text)['input_ids']
  assert (folder / 'spiece.model').read_bytes() == (hf / 'spiece.model').read_bytes()


def test_sharded_folders_give_the_same_model(converted, vocabulary_file, tmp_path):
  _, folder, _ = converted()
  config = small_model.config(scan_layers=False)
  hf = hf_export.export(
    small_model.random_params(config),
    config,
    vocabulary_file,
    tmp_path / 'hf',
    max_shard_size=20000,
  )
  other = ct2_model.to_ctranslate2(hf, tmp_path / 'ct2', quantisation='float32')
  assert (other / 'model.bin').read_bytes() == (folder / 'model.bin').read_bytes()


def test_refusals_leave_nothing(converted, tmp_path):
  hf, _, _ = converted()
  with pytest.raises(ValueError, match='must be one of'):
    ct2_model.to_ctranslate2(hf, tmp_path / 'a', quantisation='q8_0')
  (tmp_path / 'full').mkdir()
  (tmp_path / 'full' / 'file').write_text('mine')
  with pytest.raises(FileExistsError, match='--overwrite'):
    ct2_model.to_ctranslate2(hf, tmp_path / 'full')
  with pytest.raises(FileNotFoundError, match=r'config\.json'):
    ct2_model.to_ctranslate2(tmp_path / 'none', tmp_path / 'a')
  assert [path.name for path in tmp_path.iterdir()] == ['full']
  assert (tmp_path / 'full' / 'file').read_text() == 'mine'


def test_a_tokenizer_with_more_pieces_than_rows_is_refused(converted):
  _, _, tokenizer = converted()
  with pytest.raises(ValueError, match='not the tokenizer of this model'):
    ct2_model.add_padding_pieces(tokenizer, len(tokenizer) - 1)


def test_float16_is_refused_where_activations_overflow(vocabulary_file, tmp_path):
  config = small_model.config(scan_layers=False)
  params = {
    name: 60 * array if '/mlp/' in name and name.endswith('kernel') else array
    for name, array in small_model.random_params(config).items()
  }
  hf = hf_export.export(params, config, vocabulary_file, tmp_path / 'hf')
  with pytest.raises(ValueError, match=r'activations of .* reach'):
    ct2_model.to_ctranslate2(hf, tmp_path / 'out', quantisation='int8_float16')
  assert not (tmp_path / 'out').exists()
  for quantisation, allowed in (('int8_bfloat16', False), ('int8_float16', True)):
    ct2_model.to_ctranslate2(
      hf,
      tmp_path / quantisation,
      quantisation=quantisation,
      allow_float16_overflow=allowed,
    )
