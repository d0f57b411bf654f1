"""The diagram of layers in docs/design.md, and the contracts of pyproject.toml that it draws.

`python -m tests.docs.layers` writes the diagram anew after a change of the contracts; remarks
beside layers that stay are kept.
"""

import argparse
import re
import tomllib

from tests.docs.commands import ROOT

PAGE = 'docs/design.md'
# A package in a line of its own, under it a line for each layer; a remark comes after a gap.
_LISTING = re.compile(r'```\n(aya_train\n  .*?)\n```', re.DOTALL)
_REMARK = re.compile(r'\s{3,}')


def contracts() -> dict[str, list[str]]:
  """Package -> its layers, the highest first, as import-linter enforces them."""
  text = (ROOT / 'pyproject.toml').read_text(encoding='utf-8')
  found = tomllib.loads(text)['tool']['importlinter']['contracts']
  return {c['containers'][0]: list(c['layers']) for c in found if c['type'] == 'layers'}


def drawn(page: str) -> dict[str, list[tuple[str, str]]]:
  """Package -> layer and remark of each line of the diagram on a page.

  Raises:
    ValueError: the page has no diagram.
  """
  if not (listing := _LISTING.search(page)):
    raise ValueError(f'{PAGE}: no listing that begins with the package aya_train and its layers')
  found: dict[str, list[tuple[str, str]]] = {}
  for line in filter(None, listing[1].splitlines()):
    if not line.startswith(' '):
      lines = found.setdefault(line.strip(), [])
      continue
    layer, _, remark = _REMARK.sub('\0', line.strip(), count=1).partition('\0')
    lines.append((layer, remark))
  return found


def draw(layers: dict[str, list[str]], remarks: dict[tuple[str, str], str]) -> str:
  """The diagram of some contracts, with remarks by package and layer."""
  width = max(len(layer) for names in layers.values() for layer in names if len(layer) < 40)
  lines = []
  for package, names in layers.items():
    lines += ['', package]
    for layer in names:
      lines.append(f'  {layer:{width}}   {remarks.get((package, layer), "")}'.rstrip())
  return '\n'.join(lines[1:])


def redrawn(page: str) -> str:
  """A page with the diagram of today's contracts and its own remarks."""
  remarks = {
    (package, layer): remark
    for package, lines in drawn(page).items()
    for layer, remark in lines
    if remark
  }
  return _LISTING.sub(lambda _: f'```\n{draw(contracts(), remarks)}\n```', page, count=1)


if __name__ == '__main__':
  argparse.ArgumentParser(description=__doc__).parse_args()
  path = ROOT / PAGE
  path.write_text(redrawn(path.read_text(encoding='utf-8')), encoding='utf-8')
