"""Two files of answers, and `aya-train judge` on them."""

import json
import pathlib

from aya_train.cli import main


class Place:
  """A folder with two files of answers, and the command on them."""

  def __init__(self, folder: pathlib.Path, pairs, **more):
    self.folder, self.out = folder, folder / 'out'
    for side, name in enumerate(('one', 'two')):
      rows = [
        {'inputs': f'Q{i}', 'prediction': pair[side], 'id': f'r{i}', **more}
        for i, pair in enumerate(pairs)
      ]
      text = ''.join(json.dumps(row) + '\n' for row in rows)
      (folder / f'{name}.jsonl').write_text(text)

  def words(self, url, *more):
    files = [str(self.folder / f'{name}.jsonl') for name in ('one', 'two')]
    return ['judge', *files, f'--output={self.out}', '--model=judge-1', f'--base_url={url}', *more]

  def judge(self, url, *more, code=0):
    assert main.main(self.words(url, *more)) == code

  def verdicts(self):
    lines = (self.out / 'verdicts.jsonl').read_text().splitlines()
    return [json.loads(line) for line in lines]

  def summary(self):
    return json.loads((self.out / 'summary.json').read_text())


MANY = [(f'answer {i}', f'a longer answer {i}') for i in range(30)]
