"""Executes a notebook as a reader does: its code cells, one after the other, in one namespace.

`python -m tests.examples.notebook FILE`, in the notebook's folder; needs no kernel.
"""

import json
import pathlib
import sys


def code_cells(path: pathlib.Path) -> list[str]:
  """Source of each code cell of a notebook of format 4."""
  cells = json.loads(path.read_text(encoding='utf-8'))['cells']
  return [''.join(cell['source']) for cell in cells if cell['cell_type'] == 'code']


if __name__ == '__main__':
  namespace = {'__name__': '__main__'}
  for number, source in enumerate(code_cells(pathlib.Path(sys.argv[1])), 1):
    exec(compile(source, f'{sys.argv[1]}, code cell {number}', 'exec'), namespace)
