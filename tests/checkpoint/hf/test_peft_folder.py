"""Adapter folders of PEFT: what transformers and peft compute with them is computed here."""

import dataclasses
import json

import numpy as np
import pytest
from etils import epath

from aya_train.checkpoint import adapters, convert, formats
from aya_train.checkpoint.arrays import lazy_arrays
from aya_train.checkpoint.hf import hf_export, peft_folder
from aya_train.models import lora
from tests.checkpoint import small_model
from tests.models import test_hf_parity as parity

torch = pytest.importorskip('torch', reason='needs the extra `hf`')
peft = pytest.importorskip('peft', reason='needs the extra `test`')
transformers = pytest.importorskip('transformers', reason='needs the extra `hf`')
CONFIG = small_model.config(scan_layers=False, num_encoder_layers=2, num_decoder_layers=1)
DEPTHS = {'encoder': 2, 'decoder': 1}


@pytest.fixture(scope='module')
def base(tmp_path_factory):
  folder = tmp_path_factory.mktemp('base')
  vocabulary = small_model.train_vocabulary(folder)
  params = small_model.random_params(CONFIG)
  return hf_export.export(params, CONFIG, vocabulary, folder / 'model')


def adapter_on(base, *, rank=3, modules=tuple(lora.MODULES)):
  rng = np.random.default_rng(0)
  opened = formats.open_checkpoint(formats.detect(base))
  names = {lora.MODULES[name] for name in modules}
  pairs = {
    name: adapters.Pair(
      *(
        lazy_arrays.of(rng.normal(0, 0.2, shape).astype(np.float32))
        for shape in ((array.shape[0], rank), (rank, array.shape[1]))
      ),
      scale=8.0 / rank,
    )
    for name, array in opened.params.items()
    if name.split('/')[-2] in names
  }
  return adapters.Adapter('tests', pairs, str(base))


def assert_same_logits(folder, model, *, of=None):
  params = {k: v.read() for k, v in formats.open_checkpoint(formats.detect(folder)).params.items()}
  parity.assert_same_logits(params, CONFIG, model, [20, 7, 1], [9, 4, 2])
  if of is not None:
    with pytest.raises(AssertionError):
      parity.assert_same_logits(params, CONFIG, parity.load(of), [20, 7, 1], [9, 4, 2])


def loaded(base, folder):
  return peft.PeftModel.from_pretrained(parity.load(base), str(folder)).eval()


ALL = pytest.param(tuple(lora.MODULES), id='all', marks=pytest.mark.heavy)


@pytest.mark.parametrize('modules', [('q', 'v'), ALL])
def test_peft_loads_what_is_written_with_the_same_logits(base, tmp_path, modules):
  adapter = adapter_on(base, modules=modules)
  written = peft_folder.write(tmp_path / 'peft', adapter, str(base), DEPTHS, 'float32')
  assert len(written) == 2 * len(adapter.pairs)
  model = loaded(base, tmp_path / 'peft')
  assert_same_logits(tmp_path / 'peft', model, of=base)
  said = json.loads((tmp_path / 'peft' / 'adapter_config.json').read_text())
  assert (said['r'], said['lora_alpha'], said['task_type']) == (3, 8, 'SEQ_2_SEQ_LM')
  assert set(said['target_modules']) == {m for m in modules if m != 'wi'}


def test_patterns_of_ranks_and_single_layers_survive(base, tmp_path):
  adapter = adapter_on(base, modules=('q', 'o'))
  pairs = dict(adapter.pairs)
  del pairs['decoder/layers_0/self_attention/out/kernel']
  name = 'encoder/layers_1/attention/query/kernel'
  narrow = pairs[name]
  one = [
    lazy_arrays.of(x.read()[part]) for x, part in ((narrow.a, np.s_[:, :1]), (narrow.b, np.s_[:1]))
  ]
  pairs[name] = adapters.Pair(*one, scale=0.5)
  peft_folder.write(
    tmp_path / 'peft', dataclasses.replace(adapter, pairs=pairs), str(base), DEPTHS, 'float32'
  )
  model = loaded(base, tmp_path / 'peft')
  assert sum('lora_A' in name for name, _ in model.named_parameters()) == len(pairs)
  assert_same_logits(tmp_path / 'peft', model)


@pytest.mark.heavy
@pytest.mark.parametrize(
  'options',
  [
    {'r': 4, 'lora_alpha': 6, 'target_modules': ['q', 'v', 'wi_0', 'wo', 'lm_head']},
    {'r': 4, 'lora_alpha': 6, 'use_rslora': True, 'target_modules': 'all-linear'},
    {
      'r': 2,
      'lora_alpha': 4,
      'target_modules': r'.*decoder.*EncDecAttention\.(k|o)',
      'rank_pattern': {'k': 5},
      'alpha_pattern': {r'decoder.block.0.layer.1.EncDecAttention.k': 7},
    },
  ],
  ids=['plain', 'rank-stabilised', 'patterns'],
)
def test_what_peft_writes_is_read_with_the_same_logits(base, tmp_path, options):
  torch.manual_seed(0)
  config = peft.LoraConfig(task_type='SEQ_2_SEQ_LM', init_lora_weights=False, **options)
  model = peft.get_peft_model(parity.load(base), config)
  model.save_pretrained(str(tmp_path / 'peft'))
  said = json.loads((tmp_path / 'peft' / 'adapter_config.json').read_text())
  assert said['base_model_name_or_path'] == str(base)
  assert_same_logits(tmp_path / 'peft', model.eval(), of=base)
  # And written again, and merged: the same.
  convert.convert(tmp_path / 'peft', tmp_path / 'again', to='peft', verify=True)
  assert_same_logits(tmp_path / 'again', model)
  convert.convert(tmp_path / 'peft', tmp_path / 'merged', to='hf')
  assert_same_logits(tmp_path / 'merged', parity.load(tmp_path / 'merged'))
  assert_same_logits(tmp_path / 'merged', model)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'peft_type': 'IA3'}, "peft_type 'IA3' is not read, only LORA"),
    ({'use_dora': True}, 'use_dora True: only plain and rank-stabilised LoRA'),
    ({'bias': 'all'}, "bias 'all'"),
    ({'modules_to_save': ['lm_head']}, 'modules_to_save'),
    ({'init_lora_weights': 'pissa'}, "init_lora_weights 'pissa'"),
    ({'lora_alpha': 'much'}, 'r and lora_alpha must be numbers'),
    ({'r': 2}, r'says rank 2, and .* has lora_A of rank 3 and lora_B of rank 3'),
    ({'rank_pattern': {'q': 4}}, r'says rank 4, and .*\.q has'),
    ({'target_modules': ['q', 'v']}, r'do not name \d+ modules that have tensors .*\.k'),
    ({'target_modules': r'.*\.(q|k)'}, r'do not name \d+ modules that have tensors .*\.(o|v|wi_0)'),
  ],
)
def test_other_sorts_of_adapters_are_refused_by_name(base, tmp_path, changes, message):
  peft_folder.write(tmp_path / 'peft', adapter_on(base), str(base), DEPTHS, 'float32')
  path = tmp_path / 'peft' / 'adapter_config.json'
  path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
  with pytest.raises(ValueError, match=message):
    formats.open_checkpoint(formats.detect(tmp_path / 'peft'))


@pytest.mark.parametrize(
  ('targets', 'fine'),
  [
    (['q', 'k', 'gate_proj'], True),  # a list for many networks
    (r'.*\.(q|k)', True),
    ('all-linear', True),
    (['q', 'k', 'v'], False),
  ],
)
def test_modules_that_are_named_have_tensors(base, tmp_path, targets, fine):
  adapter = adapter_on(base, modules=('q', 'k'))
  peft_folder.write(tmp_path / 'peft', adapter, str(base), DEPTHS, 'float32')
  path = tmp_path / 'peft' / 'adapter_config.json'
  path.write_text(json.dumps({**json.loads(path.read_text()), 'target_modules': targets}))
  if fine:
    assert formats.open_checkpoint(formats.detect(tmp_path / 'peft')).params
  else:
    with pytest.raises(ValueError, match=r"name 1 that have none \['v'\]"):
      formats.open_checkpoint(formats.detect(tmp_path / 'peft'))


def test_verify_holds_the_base_that_is_named_against_the_adapters_own(base, tmp_path, caplog):
  caplog.set_level('INFO')
  peft_folder.write(tmp_path / 'peft', adapter_on(base), str(base), DEPTHS, 'float32')
  same = tmp_path / 'same'
  convert.convert(base, same, to='hf', dtype='bfloat16')
  convert.convert(tmp_path / 'peft', tmp_path / 'a', to='peft', base=str(same), verify=True)
  assert 'are those that the adapter was trained on' in caplog.text
  params = {k: v * 1.5 for k, v in small_model.random_params(CONFIG).items()}
  vocabulary = small_model.train_vocabulary(tmp_path)
  other = hf_export.export(params, CONFIG, vocabulary, tmp_path / 'other')
  with pytest.raises(ValueError, match=r'\d+ of \d+ arrays .* are not those .* was trained on'):
    convert.convert(tmp_path / 'peft', tmp_path / 'b', to='peft', base=str(other), verify=True)
  assert not (tmp_path / 'b').exists()


def test_damaged_and_foreign_folders_are_refused(base, tmp_path):
  adapter = adapter_on(base, modules=('q',))
  peft_folder.write(tmp_path / 'peft', adapter, str(base), DEPTHS, 'float32')
  weights = tmp_path / 'peft' / 'adapter_model.safetensors'
  weights.rename(tmp_path / 'peft' / 'adapter_model.bin')
  with pytest.raises(ValueError, match='a pickle of torch'):
    formats.open_checkpoint(formats.detect(tmp_path / 'peft'))
  (tmp_path / 'peft' / 'adapter_model.bin').unlink()
  with pytest.raises(FileNotFoundError, match=r'adapter_model\.safetensors'):
    formats.open_checkpoint(formats.detect(tmp_path / 'peft'))
  wide = dataclasses.replace(CONFIG, emb_dim=24)
  vocabulary = small_model.train_vocabulary(tmp_path)
  other = hf_export.export(small_model.random_params(wide), wide, vocabulary, tmp_path / 'wide')
  peft_folder.write(tmp_path / 'moved', adapter, str(tmp_path / 'wide'), DEPTHS, 'float32')
  with pytest.raises(
    ValueError,
    match=r'is of another network .* \(20, 21\) there, \(24, 21\) here|of another network',
  ):
    formats.open_checkpoint(formats.detect(tmp_path / 'moved'))
  with pytest.raises(ValueError, match='of another network'):
    convert.convert(tmp_path / 'moved', tmp_path / 'out', to='peft', base=str(other))


@pytest.mark.parametrize('file', ['adapter_config.json', 'adapter_model.safetensors'])
@pytest.mark.parametrize('damage', ['empty', 'cut', 'other', 'gone'])
def test_a_damaged_file_is_named(base, tmp_path, file, damage):
  folder = epath.Path(tmp_path) / 'adapter'
  peft_folder.write(folder, adapter_on(base), str(base), DEPTHS, 'float32')
  content = (folder / file).read_bytes()
  changed = {'empty': b'', 'cut': content[: len(content) // 2], 'other': b'[[3]]'}
  (folder / file).unlink() if damage == 'gone' else (folder / file).write_bytes(changed[damage])
  with pytest.raises((ValueError, FileNotFoundError), match=str(folder)):
    formats.open_checkpoint(formats.detect(folder))


def test_an_adapter_of_nothing_is_refused(base, tmp_path):
  empty = dataclasses.replace(adapter_on(base), pairs={})
  with pytest.raises(ValueError, match='holds no adapter matrices'):
    peft_folder.write(epath.Path(tmp_path) / 'a', empty, str(base), DEPTHS, 'float32')
  assert list(tmp_path.iterdir()) == []
