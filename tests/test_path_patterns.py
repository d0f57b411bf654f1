import pathlib
import re

import pytest
from etils import epath

from aya_train import path_patterns

ROOT = pathlib.Path(__file__).parents[1]
# Their paths are pathlib's, whose glob takes a folder's name as it is.
PATHLIB = {
  *('judging/judge_protocols.py', 'cli/libraries.py', 'tpu/precompile.py'),
  'checkpoint/checkpoint_room.py',
}


@pytest.mark.parametrize('name', ['runs', '[lr=1e-3]', 'a*b', 'q?', 'x[!y]', 'tail~', '[', ']['])
def test_a_folders_name_is_no_pattern(tmp_path, name):
  folder = tmp_path / name / 'in'
  folder.mkdir(parents=True)
  for file in ('b.json', 'a.json', '.c.json', 'd.txt'):
    (folder / file).write_text('')
  found = path_patterns.matching(folder, '*.json')
  assert found == [epath.Path(folder) / 'a.json', epath.Path(folder) / 'b.json']
  assert path_patterns.matching(tmp_path / name, '*/.c*') == [epath.Path(folder) / '.c.json']
  assert path_patterns.matching(folder / 'none', '*') == []


def test_all_patterns_of_paths_go_this_way():
  files = [p for top in ('aya_train', 'tasks') for p in (ROOT / top).rglob('*.py')]
  used = {
    f'{p.parent.name}/{p.name}' for p in files if re.search(r'[\w)]\.r?glob\(', p.read_text())
  }
  assert used == {'aya_train/path_patterns.py', *PATHLIB}
