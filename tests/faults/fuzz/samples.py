"""Texts that are valid for the parsers."""

TOML = """[[dataset]]
name = 'copa'
files = {train = 'a/*.jsonl', validation = ['b.csv']}
language = 'swa'
columns = ['inputs', 'targets']
max_characters = 2048
all_templates = true
license = 'CC BY 4.0'
[[dataset]]
name = 'other'
files = 'x.tsv.gz'
language_column = 'lang'
template_names = 'a; b'
"""

YAML_TABLE = """- name: copa
  files: {train: a.jsonl}
  language: swa
- {name: b, files: [x.csv, y.csv], language_column: lang, seed: 3}
"""

CSV_TABLE = 'name,files,language,seed,columns\ncopa,a.jsonl,swa,,\nb,b.csv,eng,3,"x;y"\n'

TEMPLATES = """dataset: xcopa
templates:
  3a1f: !Template
    answer_choices: '{{choice1}} ||| {{choice2}}'
    jinja: '{{ premise }} because ||| {{ answer_choices[label] }}'
    metadata: !TemplateMetadata
      languages: [sw]
      metrics: [Accuracy]
    name: C1
  other: 'Say {{ inputs }} ||| {{ targets }}'
"""

JINJA = (
  '{{ premise }} because ||| {{ answer_choices[label] }}',
  '{% for w in words %}{{ loop.index }}. {{ w|upper }}\n{% endfor %}|||{{ words|length }}',
  '{% if label == 1 %}yes{% else %}no{% endif %} ||| {{ choice(words) }} {{ "x" * 3 }}',
  '{% set n = namespace(i=0) %}{% macro m(a, b=2) %}{{ a ~ b }}{% endmacro %}'
  '{{ m(1) }} ||| {{ n.i }}',
)

ROW = {'premise': 'p ||| q', 'words': ['a', 'b'], 'label': 1, 'choice1': 'x', 'choice2': 'y'}

CSV = 'inputs,targets\n"a, b",c\n"line\nbreak","say ""x"""\nä,ö\n'

JSONL = (
  '{"inputs": "a", "targets": "b"}\n{"inputs": "ä\\u2028", "targets": "c", "n": [1, {"x": null}]}\n'
)

T5X_GIN = """from t5x.examples.t5 import network
ACTIVATIONS = ('swish', 'linear')
network.T5Config.mlp_activations = %ACTIVATIONS
network.T5Config:
  dropout_rate = 0.25  # a comment
  vocab_size = @seqio.vocab_size()
dense.MlpBlock.activations = \\
  ('gelu',
   'lin' 'ear')
"""
GIN = """from __gin__ import dynamic_registration
from aya_train.data import batching
import seqio

# a comment
BATCH_SIZE = 8
TASK_FEATURE_LENGTHS = {'inputs': 128, 'targets': 64}
MODEL_DIR = %gin.REQUIRED
MESH = (1, -1, ['a', "b"], None, True, 1e-3)
train/batching.DatasetConfig:
  batch_size = %BATCH_SIZE
  vocabulary = @seqio.PassThroughVocabulary()
"""

HLO = """HloModule jit_f, is_scheduled=true, entry_computation_layout={(f32[8,16]{1,0})->f32[8,16]{1,0}}

FileNames
1 "/a/b.py"

FunctionNames
1 "f"

FileLocations
1 {file_name_id=1 function_name_id=1 line=3 end_line=3 column=1 end_column=5}

StackFrames
1 {file_location_id=1 parent_frame_id=1}

%region_0.1 (p.1: f32[], p.2: f32[]) -> f32[] {
  %p.1 = f32[] parameter(0)
  %p.2 = f32[] parameter(1)
  ROOT %add.3 = f32[] add(%p.1, %p.2), metadata={op_name="jit(f)/reduce" stack_frame_id=1}
}

ENTRY %main.9 (x: f32[8,16]) -> f32[8,16] {
  %x = f32[8,16]{1,0:T(8,128)S(1)} parameter(0)
  %c = f32[] constant(0)
  %r = f32[8]{0} reduce(%x, %c), dimensions={1}, to_apply=%region_0.1
  %w = (s32[], f32[8]{0}) while(%t), condition=%region_0.1, body=%region_0.1, backend_config={"known_trip_count":{"n":"12"}}
  ROOT %b = f32[8,16]{1,0} broadcast(%r), dimensions={0}
}
"""  # noqa: E501

CONFIG = {
  'model_type': 'mt5', 'vocab_size': 96, 'd_model': 16, 'd_kv': 8, 'd_ff': 32, 'num_layers': 2,
  'num_decoder_layers': 2, 'num_heads': 2, 'relative_attention_num_buckets': 32,
  'relative_attention_max_distance': 128, 'dropout_rate': 0.1, 'layer_norm_epsilon': 1e-6,
  'feed_forward_proj': 'gated-gelu', 'tie_word_embeddings': False, 'architectures': ['X'],
  'decoder_start_token_id': 0, 'eos_token_id': 1, 'pad_token_id': 0, 'torch_dtype': 'float32',
}  # fmt: skip

POSITION = {
  'stream': {'mixture': 'aya', 'rates': [0.5, 0.5], 'seed': 3, 'host': '0 of 1'},
  'position': {'next_index': 12, 'buffer': [1, 2]},
}

RUN = {'architecture': {'emb_dim': 16}, 'vocabulary_file': 'x', 'vocabulary': 'y', 'seed': 3}

METRICS = (
  '{"step": 1, "kind": "train", "loss": 2.5}\n{"step": 2, "kind": "train_eval", "loss": 1e-3}\n'
)

SUMMARY = {
  'aya': {
    'Dataset Name': 'Aya', 'Licenses': [{'License': 'CC BY 4.0', 'License URL': 'u'}],
    'Creators': ['Cohere'], 'Model Generated': [], 'License Notes': 'n',
  }
}  # fmt: skip
