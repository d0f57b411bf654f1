import json

import pytest
import seqio

from aya_train import signed_json
from aya_train.data import batching, data_manifest
from aya_train.tasks.user import user_data

TABLE = """
[[dataset]]
name = 'greetings'
files = 'greetings.jsonl'
language_column = 'lang'
license = 'CC BY-SA 4.0; MIT License'
attribution = 'the authors'
model_generated_by = 'a model'

[[dataset]]
name = 'numbers'
files = 'numbers.csv'
language = 'sw'
license = 'CC0-1.0'
"""


@pytest.fixture
def mixture(tmp_path, cache):
  rows = [{'inputs': f'hi {i}', 'targets': 'x', 'lang': 'yo' if i % 3 else 'en'} for i in range(12)]
  (tmp_path / 'greetings.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  (tmp_path / 'numbers.csv').write_text('inputs,targets\nmoja,1\nmbili,2\n')
  (tmp_path / 'table.toml').write_text(TABLE)
  names = user_data.add_table(tmp_path / 'table.toml')
  seqio.MixtureRegistry.remove('supplied')
  seqio.MixtureRegistry.add('supplied', [('greetings', 3.0), ('numbers', 1.0)])
  yield 'supplied'
  seqio.MixtureRegistry.remove('supplied')
  for name in names:
    seqio.TaskRegistry.remove(name)


def test_the_manifest_counts_languages_and_licenses(mixture, tmp_path):
  cfg = batching.DatasetConfig(
    mixture, {'inputs': 16, 'targets': 16}, 'train', 1, prepared_dir=tmp_path / 'prepared'
  )
  data_manifest.write(tmp_path / 'run', cfg, 'commercial')
  found = json.loads((tmp_path / 'run' / data_manifest.FILE).read_text())
  assert (found['mixture'], found['policy']) == ('supplied', 'commercial')
  greetings, numbers = found['sources']
  assert (greetings['name'], greetings['rate'], greetings['examples']) == ('greetings', 75, 12)
  assert greetings['languages'] == {'eng': 4, 'yor': 8}
  assert greetings['licenses'] == {'CC BY-SA 4.0': 12, 'MIT License': 12}
  assert greetings['share_alike']
  assert greetings['attribution'] == 'the authors'
  assert greetings['model_generated_by'] == ['a model']
  assert numbers['languages'] == {'swa': 2}
  assert numbers['use'] == 'commercial'
  text = (tmp_path / 'run' / data_manifest.FILE).read_text()
  assert signed_json.load(text)['sources'] == found['sources']
  again = data_manifest.describe(cfg, 'commercial')
  assert [s['fingerprint'] for s in again['sources']] == [
    s['fingerprint'] for s in found['sources']
  ]
