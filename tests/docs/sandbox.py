"""A folder in which documented commands run as written, with stand-ins for what is not here.

It looks like a checkout. Gin files of models and machines in it, which are found before those of
the package, are the real ones made small; the recipes are the package's. Buckets are folders, the
hub is one too; gcloud, kubectl and pip record what they are asked.
"""

import contextlib
import io
import logging
import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

import gin
import jax
import pytest
import seqio
from jax.experimental.compilation_cache import compilation_cache

from aya_train.cli import main
from aya_train.tasks import catalog, features, storage
from aya_train.tasks.building import releases
from aya_train.tasks.mixtures import aya_mixtures, source_mixture
from aya_train.tasks.user import user_data
from tests import small_release
from tests.docs import shell, stand_ins
from tests.docs.commands import ROOT
from tests.judging import stand_in_judge
from tests.launch import cloud, test_gke

# What the documentation names and is not here -> what stands in its place. Nothing else is changed.
INSTEAD = {
  r'/tmp/': '{root}/tmp/',
  r'gs://': '{root}/gs/',
  r'--workers \d+': '--workers 1',
  r'--rows 1000000': '--rows 2000',
  r'--examples=20000 --rows=2000': '--examples=200 --rows=16 --batch_size=4',
  r'--size xl': '--size tiny',
  r'benchmarks\.packing .*--json': 'benchmarks.packing --pairs 200 --means 200/200 --repeats 1 '
  '--json',
  r'benchmarks\.prepare .*--json': 'benchmarks.prepare --rows 40 --repeats 1 --workers 1 '
  '--vocabulary path/to/mc4.250000.100extra/sentencepiece.model --json',
  r'benchmarks\.train_step ': 'benchmarks.train_step --repeats 1 ',
  r'benchmarks\.decode ': 'benchmarks.decode --repeats 1 ',
  r'--shape small': '--shape tiny',
  r'aya-train plan ': 'aya-train plan --max_compilations=1 ',
  r'benchmarks/eval_options\.py[ \w-]*': 'benchmarks/eval_options.py --questions 4 --repeats 1',
  r'--millions 300 --repeats 5': '--millions 2 --repeats 1',
  r'launch/tpu_pod (\w+) +aya': r'launch/tpu_pod \1 aya --poll=0.2 --wheel={root}/cloud/a.whl',
}
VOCABULARY = 't5-data/vocabs/mc4.250000.100extra/sentencepiece.model'
CHECKPOINTS = 't5-data/pretrained_models/t5x'

# A machine on which everything is small. The last gin file wins over the recipe.
_SMALL = """
TASK_FEATURE_LENGTHS = {'inputs': 128, 'targets': 64}
MAX_TRUNCATED_FRACTION = 1.0
BATCH_SIZE = 8
TRAIN_STEPS = 4
LOG_PERIOD = 2
EVAL_PERIOD = 10
EVAL_STEPS = 2
CHECKPOINT_PERIOD = 10
INFER_EVAL_BATCH_SIZE = 8
EVALUATOR_NUM_EXAMPLES = 8
NUM_EXAMPLES = 8
"""
PROGRAMS = os.environ['JAX_COMPILATION_CACHE_DIR']  # of all tests

# Of a step that is only compiled, for a slice that is not there.
_SHORT = """
TASK_FEATURE_LENGTHS = {'inputs': 128, 'targets': 128}
BATCH_SIZE = 64
"""
_ON_A_POD = """
INITIAL_CHECKPOINT_PATH = '{checkpoint}'
TRAIN_STEPS = 1_000_004
TRAIN_STEPS_RELATIVE = 4
"""
_PROGRAMS = {
  'pip': stand_ins.pip,
  'pytest': stand_ins.pytest,
  'docker': stand_ins.docker,
  'git': stand_ins.git,
  'llama-completion': stand_ins.llama_completion,
  'llama-simple': stand_ins.llama_simple,
  'ruff': stand_ins.linter,
  'mypy': stand_ins.linter,
  'lint-imports': stand_ins.linter,
  'pdoc': stand_ins.linter,
  'build': stand_ins.linter,
}


class Sandbox:
  """The folder, and what the last command did in it.

  Attributes:
    root: of everything.
    work: the checkout in which commands are given.
    asked: programs that the last command started, with their arguments.
    log: what those of them that are functions of this process printed.
  """

  def __init__(self, root: pathlib.Path):
    self.root, self.work = root, root / 'checkout'
    self.asked: list[list[str]] = []
    self.log = ''
    self._bin = self.work / '.venv/bin'
    self._vocabulary = root / 'gs' / VOCABULARY
    self._make_checkout()
    self._make_gin()
    self._make_releases()
    self._make_cloud()
    self._judge = stand_in_judge.started(stand_in_judge.obedient)

  # What is there before the first command ---------------------------------------------------------

  def _make_checkout(self) -> None:
    self._bin.mkdir(parents=True)
    for name in ('launch', 'benchmarks', 'gin'):
      ignore = shutil.ignore_patterns('__pycache__')
      shutil.copytree(ROOT / name, self.work / name, ignore=ignore)
    for name in ('setup.py', 'constraints.txt'):
      shutil.copy(ROOT / name, self.work)
    for name in ('home', 'tmp', 'gs'):
      (self.root / name).mkdir()
    (self.root / 'home/aya.env').write_text('HF_TOKEN=secret\n')
    for name in ('aya-train', 'python', 'hf', *_PROGRAMS):
      shell.add_program(self._bin, name)

  def _make_gin(self) -> None:
    """Small models and machines, in the working folder; in `compile` machines are what they are."""
    network = ''.join(f'  {name} = {value}\n' for name, value in stand_ins.NETWORK.items())
    head = 'from __gin__ import dynamic_registration\nfrom aya_train.models import t5_config\n'
    for folder in (self.work, self.root / 'compile'):
      (folder / 'models').mkdir(parents=True)
      (folder / 'hardware').mkdir()
    for size in ('small', 'base', 'large', 'xl', 'xxl'):
      real = f"include '{ROOT}/gin/models/mt5_{size}.gin'\n"
      text = f"{head}{real}VOCABULARY_FILE = '{self._vocabulary}'\nt5_config.T5Config:\n{network}"
      for folder in (self.work, self.root / 'compile'):
        (folder / f'models/mt5_{size}.gin').write_text(text)
    pod = _ON_A_POD.format(checkpoint=self.root / 'gs' / CHECKPOINTS / 'mt5_xxl/checkpoint_1000000')
    for path in (ROOT / 'gin/hardware').glob('*.gin'):
      text = f"include '{ROOT}/gin/hardware/cpu_local.gin'\n{_SMALL}"
      text += '' if path.stem == 'cpu_local' else pod
      (self.work / 'hardware' / path.name).write_text(text)
      text = f"include '{path}'\n{_SHORT}"
      (self.root / 'compile/hardware' / path.name).write_text(text)

  def _make_releases(self) -> None:
    """Small files in the layouts of the sources: on the hub, in a bucket and in folders."""
    made = small_release.write(self.root / 'released', sharegpt=True)
    collection = self.root / 'released/aya_collection'
    for part in ('templated', 'translated'):
      shutil.copytree(made[f'aya_collection_{part}'], collection, dirs_exist_ok=True)
    self._hub = stand_ins.Hub(
      {
        source.repository: collection if 'collection' in source.name else made[source.name]
        for source in catalog.SOURCES
        if source.repository
      }
    )
    (self.work / 'downloads').mkdir()
    (self.root / 'gs/BUCKET').mkdir()
    for link, name in (
      (self.work / 'downloads/aya_collection', 'aya_collection'),
      (self.work / 'downloads/sharegpt_command', 'sharegpt_command'),
      (self.root / 'gs/BUCKET/xP3x', 'xp3x'),
    ):
      link.symlink_to(self.root / 'released' / name)

  def _make_cloud(self) -> None:
    folder = self.root / 'cloud'
    folder.mkdir()
    self._pod = cloud.Cloud(folder)
    self._pod.program('tail', '#!/bin/bash\nexec /usr/bin/tail "${@/#-F/--}"\n')  # does not follow
    self._pod.program('kubectl', test_gke.KUBECTL.format(folder))
    self._pod.behave(f'exec {self._bin}/aya-train "$@"')

  def make_weights(self) -> None:
    """T5X checkpoints of 1,000,000 steps and a Hugging Face folder, once there is a vocabulary."""
    trained = self.root / 'cache/vocabularies' / features.DEFAULT_VOCABULARY
    if self._vocabulary.exists() or not trained.exists():
      return
    local = self.work / 'path/to/mc4.250000.100extra/sentencepiece.model'
    for path in (self._vocabulary, local):
      path.parent.mkdir(parents=True)
      shutil.copy(trained, path)
    for size in ('small', 'xxl'):
      folder = self.root / 'gs' / CHECKPOINTS / f'mt5_{size}/checkpoint_1000000'
      stand_ins.write_t5x(folder, 1_000_000)
    words = ['convert', str(folder), str(self.work / 'path/to/mt5-small')]
    assert self._aya_train([*words, '--vocabulary', str(local)], self.environment()) == 0, self.log

  # Running ----------------------------------------------------------------------------------------

  def environment(self, cache: str = 'cache') -> dict[str, str]:
    """Of the commands, with one of several cache directories."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(('AYA_TRAIN_', 'PYTHON'))}
    python = pathlib.Path(sys.executable).parent
    return kept | {
      'HOME': str(self.root / 'home'),
      'PATH': f'{self._bin}:{self.root}/cloud/bin:{python}:/usr/bin:/bin',
      'PYTHONPATH': '',
      'STAND_IN': str(self.root / 'cloud'),
      'TMPDIR': str(self.root / 'tmp'),
      storage.CACHE_ENV: str(self.root / cache),
    }

  def run(self, text: str, cache: str = 'cache') -> shell.Ended:
    """Runs a command as it is written, but for the stand-ins.

    Raises:
      AssertionError: a program that has a stand-in was asked for what cannot be.
    """
    self.log, self.asked = '', []
    text = self.with_stand_ins(text)
    environment = self.environment(cache)
    if text.startswith('launch/tpu_pod'):
      environment['PYTHON'] = 'python-for-hosts'
    problems: list[BaseException] = []

    def answer(call: shell.Call) -> int:
      try:
        return self._answer(call)
      except BaseException as error:
        problems.append(error)
        return 1

    ended = shell.run(text, self.work, environment, answer)
    if problems:
      raise problems[0]
    return shell.Ended(ended.code, ended.output + self.log)

  def with_stand_ins(self, text: str) -> str:
    """A command as it is given here."""
    for pattern, instead in INSTEAD.items():
      text = re.sub(pattern, instead.replace('{root}', str(self.root)), text)
    return text.replace('http://localhost:8000/v1', self._judge.url)

  def snippet(self, text: str, name: str) -> None:
    """Runs Python as a program of its own would."""
    with self._process(self.environment(), self.work):
      exec(compile(text, name, 'exec'), {'__name__': '__main__'})

  def _answer(self, call: shell.Call) -> int:
    program, words = call.program, list(call.arguments)
    self.asked.append([program, *words])
    if program == 'python' and words[:1] == ['-m']:
      program, words = words[1].replace('_', '-'), words[2:]
    if program == 'aya-train':
      return self._aya_train_of(words, call)
    if program == 'tests.small-release':
      small_release.write(self.work / words[0])
      return 0
    if program in _PROGRAMS:
      return _PROGRAMS[program](words, self.work)
    if program == 'hf':
      return self._real(['-m', 'huggingface_hub.cli.hf', *words, '--help'], call.environment)
    if program == 'python' and words[0].endswith('.py'):
      return self._real(words, call.environment)
    if call.program == 'python' and call.arguments[1].startswith(('tests.', 'benchmarks.')):
      return self._real(call.arguments, call.environment)
    if program == 'python' and words[0] == '-c':
      return 0
    raise AssertionError(f'no stand-in for {program} {words}')

  def _aya_train_of(self, words: Sequence[str], call: shell.Call) -> int:
    home = pathlib.Path(call.environment['HOME'])
    if home in self._pod.hosts:  # the first one is all hosts of the pod
      alone = [word for word in words if word != '--multihost']
      return self._aya_train(alone, call.environment) if home == self._pod.hosts[0] else 0
    if '--multihost' in words:
      environment = {**call.environment, **stand_ins.slurm_job()}
      return self._real(['-m', 'aya_train', *words], environment)
    return self._aya_train(words, call.environment)

  def _real(self, words: Sequence[str], environment: Mapping[str, str]) -> int:
    """A process of its own."""
    done = subprocess.run(
      [sys.executable, '-P', *words],
      cwd=self.work,
      env={**environment, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      check=False,
    )
    self.log += done.stdout
    return done.returncode

  def _aya_train(self, words: Sequence[str], environment: Mapping[str, str]) -> int:
    for_slice = words[0] in ('precompile', 'plan')
    if for_slice and '--help' not in words:
      pytest.importorskip('libtpu', reason="libtpu is of the extra 'tpu'")
    with self._process(environment, self.root / 'compile' if for_slice else self.work):
      try:
        # Modules that a page shows are imported anew by each command, and gin knew their names.
        with gin.config.interactive_mode():
          return main.main(words)
      except SystemExit as ended:  # --help, or wrong usage
        return int(ended.code or 0)

  @contextlib.contextmanager
  def _process(self, environment: Mapping[str, str], folder: pathlib.Path) -> Iterator[None]:
    """Gives what a process of its own would begin with; takes away what it would at its end."""
    printed = io.StringIO()
    registries = [
      seqio.TaskRegistry._REGISTRY,
      seqio.MixtureRegistry._REGISTRY,
      user_data._DATASETS,
      user_data._MIXTURES,
    ]
    before = [dict(registry) for registry in registries]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
      for name in set(os.environ) - set(environment):
        patch.delenv(name)
      for name, value in environment.items():
        patch.setenv(name, value)
      patch.chdir(folder)
      for path in filter(None, environment['PYTHONPATH'].split(os.pathsep)):
        patch.syspath_prepend(str((self.work / path).resolve()))
      # What costs time: workers are processes, programs for eight devices, programs compiled again.
      patch.setattr(os, 'cpu_count', lambda: 1)
      patch.setattr(jax, 'devices', lambda *_: [jax.local_devices()[0]])
      if folder != self.work:  # those for slices cannot be read back
        _keep_programs(None)
      patch.setattr(releases, 'HUB', self._hub)
      patch.setattr('huggingface_hub.HfApi', stand_ins.Api)
      patch.setattr(logging.getLogger(), 'handlers', [logging.StreamHandler(printed)])
      patch.setattr(sys, 'stderr', printed)
      try:
        yield
      finally:
        _keep_programs(PROGRAMS)
        gin.clear_config()
        features.set_vocabulary(None)
        aya_mixtures.configure(source_mixture.MixtureSettings())
        for registry, kept in zip(registries, before, strict=True):
          registry.clear()
          registry.update(kept)
        for name, module in list(sys.modules.items()):
          if str(getattr(module, '__file__', '') or '').startswith(str(self.root)):
            del sys.modules[name]
        self.log += printed.getvalue()


def _keep_programs(folder: str | None) -> None:
  """Where compiled programs are kept, for the next command that wants the same."""
  jax.config.update('jax_compilation_cache_dir', folder)
  compilation_cache.reset_cache()
