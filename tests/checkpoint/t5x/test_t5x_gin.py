import json
import subprocess
import sys

import pytest

from aya_train.checkpoint.t5x import t5x_gin

HEAD = 'from __gin__ import dynamic_registration\nfrom t5x.examples.t5 import network\n\n'
# Texts of one meaning or another, as people and gin write them.
TEXTS = {
  'lines': "network.T5Config.mlp_activations = ('silu',\n    'linear')\n",
  'comments': (
    "network.T5Config.mlp_activations = (  # ('relu', 'linear')\n"
    "    'silu',  # the gate\n    # 'gelu',\n    'linear',)  # end\n"
  ),
  'commented out': (
    "network.T5Config.mlp_activations = ('silu', 'linear')\n"
    "# network.T5Config.mlp_activations = ('relu', 'linear')\n"
  ),
  'string parts': "network.T5Config.mlp_activations = ('si'\n  'lu', \"linear\")\n",
  'backslashes': "network.T5Config.mlp_activations = \\\n    ('silu', \\\n 'linear')\n",
  'a hash in a string': "NOTE = 'a # b'\nnetwork.T5Config.mlp_activations = ('silu', 'linear')\n",
  'a text that quotes it': (
    'NOTE = """\nnetwork.T5Config.mlp_activations = (\'relu\', \'linear\')\n"""\n'
    "network.T5Config.mlp_activations = ['silu', 'linear']\n"
  ),
  'block': "network.T5Config:\n  dropout_rate = 0.25\n  mlp_activations = ('silu', 'linear')\n",
  'macros': (
    "ACTIVATIONS = (%GATE,\n 'linear')\nGATE = 'silu'\nDROPOUT = 0.0\n"
    'network.T5Config.mlp_activations = %ACTIVATIONS\nnetwork.T5Config.dropout_rate = %DROPOUT\n'
  ),
  'long macros': (
    "A/gin.macro.value = ('silu', 'linear')\nnetwork.T5Config.mlp_activations = %A\n"
    'B/macro.value = 0.5\nnetwork.T5Config.dropout_rate = %B\n'
  ),
  'scoped macro': "x/A = ('silu', 'linear')\nnetwork.T5Config.mlp_activations = %x/A\n",
  'the last counts': (
    "network.T5Config.mlp_activations = ('relu', 'linear')\nA = 'gelu'\n"
    "network.T5Config.mlp_activations = (%A, 'linear')\nA = 'silu'\n"
  ),
  'numbers': 'network.T5Config.emb_dim = 1_024\nnetwork.T5Config.dropout_rate = 1e-1\n',
  'a name of another class': (
    "MyT5Config.mlp_activations = ('relu',)\n"
    "network.T5Config.mlp_activations = ('silu', 'linear')\n"
    "layers.MlpBlock.activations = ('relu',)\n"
  ),
}
# What gin itself gives to a class of that name.
ASKED = """
import gin, json, sys
@gin.configurable(module='network')
def T5Config(mlp_activations=None, dropout_rate=None, emb_dim=None):
  return {k: v for k, v in locals().items() if v is not None}
@gin.configurable
def MyT5Config(mlp_activations=None): pass
@gin.configurable(module='layers')
def MlpBlock(activations=None): pass
found = {}
for name, text in json.load(sys.stdin).items():
  gin.clear_config()
  gin.parse_config(text)
  found[name] = T5Config()
print(json.dumps(found))
"""


def read(folder, text):
  (folder / 'config.gin').write_bytes(text if isinstance(text, bytes) else text.encode())
  return t5x_gin.read(t5x_gin.find(folder))


def test_texts_are_read_as_gin_reads_them(tmp_path):
  asked = json.dumps(TEXTS)
  done = subprocess.run(
    [sys.executable, '-c', ASKED], input=asked, text=True, capture_output=True, check=True
  )
  of_gin = json.loads(done.stdout)
  assert all(of_gin.values())
  ours = {name: read(tmp_path, HEAD + text) for name, text in TEXTS.items()}
  assert ours == of_gin


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
def test_texts_of_other_editors_are_read(tmp_path, encoding):
  assert read(tmp_path, TEXTS['lines'].encode(encoding)) == read(tmp_path, TEXTS['lines'])


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('network.T5Config.mlp_activations = @activations()\n', r'@activations\(\), which cannot'),
    ("network.T5Config.mlp_activations = (@jax.nn.gelu, 'linear')\n", r'@jax\.nn\.gelu'),
    ('network.T5Config.mlp_activations = %NOWHERE\n', '%NOWHERE, which cannot'),
    ('A = %B\nB = %A\nnetwork.T5Config.mlp_activations = %A\n', 'which cannot'),
    ('A = %gin.REQUIRED\nnetwork.T5Config.dropout_rate = %A\n', 'dropout_rate = %A'),
    (
      "network.T5Config.mlp_activations = ('relu', 'linear')\n"
      "teacher/network.T5Config.mlp_activations = ('silu', 'linear')\n",
      r"\['relu', 'linear'\] and, as teacher/network\.T5Config, \['silu', 'linear'\]",
    ),
    ("include 'models/xl.gin'\n", r'includes models/xl\.gin, which is not beside it'),
    ("include 'config.gin'\n", r'includes config\.gin'),
    ("network.T5Config.mlp_activations = ('silu', 'linear'\n", r'config\.gin: .*no text that gin'),
    ('network.T5Config.mlp_activations: silu\n', r'config\.gin: .*no text that gin'),
    (b'network.T5Config.dropout_rate = \xff\n', r'config\.gin: '),
    (
      'from t5x.examples.decoder_only import network\n',
      r'with t5x\.examples\.decoder_only\.network',
    ),
    ('from flaxformer.architectures.longt5 import long_attention\n', r'with .*long_attention, and'),
    ('MODEL = @models.PrefixLanguageModel()\n', r'with @models\.PrefixLanguageModel\(\), and only'),
  ],
)
def test_what_the_text_alone_does_not_say_is_refused(tmp_path, text, message):
  with pytest.raises(ValueError, match=message):
    read(tmp_path, text)


def test_what_cannot_be_known_of_other_settings_does_not_matter(tmp_path):
  text = (
    'VOCABULARY = @seqio.SentencePieceVocabulary()\nnetwork.T5Config.vocab_size = @size()\n'
    "network.T5Config.mlp_activations = ('gelu', 'linear')\nnetwork.T5Config.dtype = %DTYPE\n"
    'teacher/network.T5Config.emb_dim = 16\nnetwork.T5Config.emb_dim = 8\n'
  )
  assert read(tmp_path, text) == {'mlp_activations': ['gelu', 'linear'], 'emb_dim': None}


def test_included_files_beside_it_are_read_in_order(tmp_path):
  (tmp_path / 'base.gin').write_text(TEXTS['macros'])
  text = "include 'base.gin'\nGATE = 'relu'\nDROPOUT = 0.75\n"
  assert read(tmp_path, text) == {'mlp_activations': ['relu', 'linear'], 'dropout_rate': 0.75}


def test_a_network_without_a_config_says_it_of_its_block(tmp_path):
  text = "dense.MlpBlock:\n  use_bias = False\n  activations = ('silu',\n    'linear')\n"
  assert read(tmp_path, text) == {'mlp_activations': ['silu', 'linear']}
