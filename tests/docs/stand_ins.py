"""What takes the place of the hub, of weights, of a cluster, and of programs of others."""

import argparse
import ast
import functools
import pathlib
import random
import re
import socket
import types
from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util
from packaging.requirements import Requirement

from aya_train.checkpoint import contents
from aya_train.checkpoint.arrays import lazy_arrays
from aya_train.checkpoint.t5x import t5x_format, t5x_leaves
from aya_train.models import network, t5_config
from aya_train.tasks.building import releases
from tests.docs.commands import ROOT

# A model of every size is this one.
NETWORK = {
  'vocab_size': 4096,
  'emb_dim': 32,
  'num_heads': 2,
  'num_encoder_layers': 1,
  'num_decoder_layers': 1,
  'head_dim': 16,
  'mlp_dim': 32,
}


class Hub:
  """Folders in place of the hub's repositories of data sets."""

  def __init__(self, folders: Mapping[str, pathlib.Path]):
    self._folders = folders

  def list(self, repository: str, revision: str | None):
    del revision
    folder = self._folders[repository]
    found = sorted(path for path in folder.rglob('*') if path.is_file())
    files = [releases.ReleasedFile(str(p.relative_to(folder)), p.stat().st_size) for p in found]
    return 'c0ffee' * 6 + 'c0ff', files

  def download(self, repository: str, commit: str, name: str) -> str:
    del commit
    return str(self._folders[repository] / name)


class Api:
  """The hub's side of an upload."""

  def whoami(self):
    return {'name': 'ann'}

  def create_repo(self, repo_id, **options):
    return types.SimpleNamespace(repo_id=repo_id)

  def upload_folder(self, *, folder_path, **options):
    assert (pathlib.Path(folder_path) / 'README.md').exists()


def write_t5x(folder: pathlib.Path, step: int) -> None:
  """A T5X checkpoint of random weights."""
  config = t5_config.T5Config(
    **NETWORK, mlp_activations=('gelu', 'linear'), logits_via_embedding=False, scan_layers=False
  )
  variables = nn.unbox(network.initial_variables(config, jax.random.key(0)))
  flat = traverse_util.flatten_dict(variables, sep='/')
  arrays = {name: lazy_arrays.of(np.asarray(value)) for name, value in flat.items()}
  checkpoint = contents.Checkpoint(where='random', config=config, params=arrays, step=step)
  folder.mkdir(parents=True)
  t5x_format.write(folder, t5x_leaves.to_leaves(checkpoint, scan_layers=False))


def slurm_job() -> dict[str, str]:
  """The environment of a job of one process; JAX takes the coordinator's port from its number."""
  first = 65535 - 2**12 + 1
  while True:
    job = random.randrange(2**12)
    with socket.socket() as s:
      if s.connect_ex(('localhost', first + job)):
        break
  return {
    'SLURM_JOB_ID': str(job),
    'SLURM_STEP_NODELIST': 'localhost',
    'SLURM_NTASKS': '1',
    'SLURM_PROCID': '0',
    'SLURM_LOCALID': '0',
    'SLURM_STEP_NUM_NODES': '1',
  }


# Programs: each takes its arguments and the folder, and returns its exit code ---------------------


def pip(words: Sequence[str], folder: pathlib.Path) -> int:
  """`pip install`: refuses files that are not there, and extras that setup.py does not have."""
  parser = argparse.ArgumentParser('pip')
  parser.add_argument('command', choices=['install'])
  parser.add_argument('--quiet', action='store_true')
  parser.add_argument('--disable-pip-version-check', action='store_true')
  parser.add_argument('--constraint', type=pathlib.Path)
  parser.add_argument('--editable', action='store_true')
  parser.add_argument('wanted', nargs='+')
  args = parser.parse_args(words)
  if args.constraint is not None:
    assert (folder / args.constraint).is_file(), args.constraint
  for wanted in args.wanted:
    place, _, extras = wanted.partition('[')
    if args.editable or place == '.':
      assert (folder / place / 'setup.py').is_file(), place
      wanted = f'aya-train[{extras}' if extras else 'aya-train'
    requirement = Requirement(wanted)
    if requirement.name == 'aya-train':
      unknown = requirement.extras - set(declared_extras())
      assert not unknown, f'{wanted}: setup.py has {sorted(declared_extras())}'
  return 0


@functools.cache
def declared_extras() -> dict[str, list[str]]:
  """The extras of setup.py."""
  tree = ast.parse((ROOT / 'setup.py').read_text(encoding='utf-8'))
  [found] = [
    node.value
    for node in ast.walk(tree)
    if isinstance(node, ast.keyword) and node.arg == 'extras_require'
  ]
  return ast.literal_eval(found)


def pytest(words: Sequence[str], folder: pathlib.Path) -> int:
  """`pytest`: refuses options other than these, and marks that pyproject.toml does not have."""
  del folder
  parser = argparse.ArgumentParser('pytest')
  parser.add_argument('-q', action='store_true')
  parser.add_argument('-n', type=int)
  parser.add_argument('-k')
  parser.add_argument('-m')
  args = parser.parse_args(words)
  if args.m is not None:
    marks = (ROOT / 'pyproject.toml').read_text(encoding='utf-8')
    assert re.search(rf'^  "{args.m}:', marks, re.MULTILINE), f'no mark {args.m!r}'
  if args.k is not None:
    assert list((ROOT / 'tests').rglob(f'test_{args.k}*.py')), f'no tests of {args.k!r}'
  return 0


def docker(words: Sequence[str], folder: pathlib.Path) -> int:
  """`docker build` and `push`: refuses a Dockerfile that copies what is not in the checkout."""
  if words[0] == 'push':
    return 0
  parser = argparse.ArgumentParser('docker')
  parser.add_argument('command', choices=['build'])
  parser.add_argument('-f', required=True)
  parser.add_argument('-t', required=True)
  parser.add_argument('context')
  args = parser.parse_args(words)
  for line in (folder / args.f).read_text(encoding='utf-8').splitlines():
    if match := re.match(r'COPY ([^-\s]\S*) ', line):
      assert (ROOT / args.context / match[1]).exists(), line
  return 0


def git(words: Sequence[str], folder: pathlib.Path) -> int:
  """`git clone`: a folder named after the repository."""
  command, address = words
  assert command == 'clone', words
  (folder / address.rpartition('/')[2].removesuffix('.git')).mkdir(exist_ok=True)
  return 0


def llama_completion(words: Sequence[str], folder: pathlib.Path) -> int:
  """`llama-completion`: refuses a file that is no GGUF."""
  parser = argparse.ArgumentParser('llama-completion')
  parser.add_argument('-m', required=True)
  parser.add_argument('-p', required=True)
  parser.add_argument('-no-cnv', action='store_true')
  parser.add_argument('--temp', type=float)
  parser.add_argument('-n', type=int)
  return int((folder / parser.parse_args(words).m).read_bytes()[:4] != b'GGUF')


def llama_simple(words: Sequence[str], folder: pathlib.Path) -> int:
  """`llama-simple`: refuses a file that is no GGUF."""
  parser = argparse.ArgumentParser('llama-simple')
  parser.add_argument('-m', required=True)
  parser.add_argument('-n', type=int)
  parser.add_argument('prompt')
  return int((folder / parser.parse_args(words).m).read_bytes()[:4] != b'GGUF')


def linter(words: Sequence[str], folder: pathlib.Path) -> int:
  """ruff, mypy, lint-imports: what matters is that they are asked."""
  return 0
