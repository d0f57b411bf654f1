"""A queued resource and its hosts, seen through gcloud; used by launch/tpu_pod."""

import argparse
import contextlib
import hashlib
import os
import pathlib
import re
import shlex
import signal
import subprocess
import time
from typing import NamedTuple

JOB = 'aya-train-job'  # in the home directory of every host
# Of gcloud's errors, those that no repetition mends.
_PERMANENT = re.compile(
  r'INVALID_ARGUMENT|PERMISSION_DENIED|UNAUTHENTICATED|does not have permission|auth login'
  r'|unrecognized arguments|invalid choice|Invalid value|Quota|quota|API has not been used'
)
_ATTEMPTS = 4
# Half-open connections to a host that vanished would wait for hours.
_SSH_FLAGS = ('-o ServerAliveInterval=30', '-o ServerAliveCountMax=6')


class PodError(Exception):
  """A message for the user."""


class CommandError(PodError):
  """A gcloud command failed.

  Attributes:
    permanent: giving it again does not help.
  """

  def __init__(self, message: str, permanent: bool = False):
    super().__init__(message)
    self.permanent = permanent


class Host(NamedTuple):
  """What a host says.

  Attributes:
    name: its host name.
    kind: 'absent', 'running', 'exit', or 'stopped' (by hand).
    number: seconds without a log line if running, else an exit code.
    command: fingerprint of the arguments that were started.
  """

  name: str
  kind: str
  number: int
  command: str = '-'


def fingerprint(arguments: list[str]) -> str:
  """What pod_host.sh calls the key of a command."""
  text = ''.join(f'{a}\0' for a in arguments)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


class Pod:
  """One queued resource and its hosts.

  Attributes:
    doing: what an interruption interrupts, for the message.
    patient: look for the slice until it is seen again, since a run goes on without us.
  """

  def __init__(self, args: argparse.Namespace):
    self.args, self.dry_run = args, args.dry_run
    self.doing, self.patient = 'nothing was changed', False
    self._where = [f'--zone={args.zone}', '--quiet']
    if args.project:
      self._where.append(f'--project={args.project}')

  def state(self) -> str:
    """Of the queued resource: ACTIVE, WAITING_FOR_RESOURCES ..., or ABSENT.

    Raises:
      CommandError: gcloud cannot tell, four times.
    """
    return self.patiently(self._state, forever=self.patient)

  def say(self, text: str) -> None:
    """Tells the user; in a dry run as a comment between commands."""
    print(f'# {text}' if self.dry_run else f'{time.strftime("%H:%M:%S")} {text}', flush=True)

  def _state(self) -> str:
    command = ['queued-resources', 'describe', self.args.name, '--format=value(state.state)']
    result = self._tpus(*command, check=False, limit=120)
    if self.dry_run:
      return 'ABSENT'
    if result.returncode:
      if re.search('NOT_FOUND|not found', result.stderr):
        return 'ABSENT'
      raise _error(result, f'gcloud cannot describe {self.args.name}')
    return (result.stdout.split() or ['ACCEPTED'])[0]

  def why(self) -> str:
    """What the cloud says about the state, for messages."""
    command = ['queued-resources', 'describe', self.args.name, '--format=yaml(state)']
    return self._tpus(*command, check=False, limit=120).stdout.strip()

  def node_state(self) -> str:
    """Of the machines, READY or PREEMPTED ...; '' if unknown. The resource may lag behind them."""
    command = ['tpu-vm', 'describe', self.args.name, '--format=value(state)']
    return self._tpus(*command, check=False, limit=120).stdout.strip()

  def create(self) -> None:
    """Asks for the slice, unless someone just did."""
    kind = {'spot': ['--spot'], 'reserved': ['--reserved'], 'on-demand': []}[self.args.capacity]
    words = [
      *('queued-resources', 'create', self.args.name, f'--node-id={self.args.name}'),
      *(f'--accelerator-type={self.args.type}', f'--runtime-version={self.args.runtime}'),
      *kind,
      *self.args.create_flag,
    ]

    def create():
      result = self._tpus(*words, check=False, limit=1800)
      # A request that timed out here may have arrived there.
      if result.returncode and self._state() == 'ABSENT':
        raise _error(result, 'the slice was not granted a place in the queue')

    self.patiently(create)

  def delete(self) -> None:
    """Gives the slice back; its disks are lost."""

    def delete():
      result = self._tpus(
        'queued-resources', 'delete', self.args.name, '--force', check=False, limit=1800
      )
      if result.returncode and self._state() not in ('ABSENT', 'DELETING'):
        raise _error(result, f'{self.args.name} could not be deleted and still costs money')

    self.patiently(delete)

  def copy(self, *files: pathlib.Path) -> None:
    """Copies files into the job's folder on every host."""
    target = f'{self.args.name}:{JOB}/'
    flags = [f'--scp-flag={f}' for f in (*_SSH_FLAGS, *self.args.ssh_flag)]
    self._tpus('tpu-vm', 'scp', *map(str, files), target, '--worker=all', *flags, limit=1800)

  def ssh(self, command: str, worker: str = 'all', *, check=True, follow=False, limit=300.0):
    """Runs a shell command on the hosts."""
    flags = [f'--ssh-flag={f}' for f in (*_SSH_FLAGS, *self.args.ssh_flag)]
    where = ['tpu-vm', 'ssh', self.args.name, f'--worker={worker}']
    return self._tpus(
      *where, f'--command={command}', *flags, check=check, follow=follow, limit=limit
    )

  def host(self, *words: str, worker: str = 'all', check: bool = True, limit: float = 300):
    """Runs launch/pod_host.sh on the hosts."""
    command = shlex.join(['bash', f'{JOB}/pod_host.sh', *words])
    return self.ssh(command, worker, check=check, limit=limit)

  def statuses(self) -> tuple[list[Host], str]:
    """What the hosts say, and gcloud's complaint if some did not answer."""
    result = self.host('status', check=False)
    found = re.findall(r'^aya-train-host (\S+) (\w+) (\d+) (\S+)', result.stdout, re.MULTILINE)
    hosts = [Host(name, kind, int(number), key) for name, kind, number, key in found]
    return hosts, _complaint(result) if result.returncode else ''

  def patiently(self, action, forever: bool = False):
    """Calls again, with growing pauses, what may fail because of the network.

    Raises:
      CommandError: of the last try, or of the first that is permanent.
    """
    attempt, said = 0, ''
    while True:
      try:
        return action()
      except CommandError as error:
        attempt += 1
        if not forever and (error.permanent or attempt == _ATTEMPTS):
          raise
        pause = min(self.args.poll * 2 ** (attempt - 1), max(self.args.poll, 600))
        if str(error) != said:
          said = str(error)
          self.say(f'{said[-500:]}\ntrying again in {pause:.0f} s')
        time.sleep(pause)

  def _tpus(self, *words: str, check=True, follow=False, limit: float | None = None):
    command = ['gcloud', 'compute', 'tpus', *words, *self._where]
    if self.dry_run:
      print(shlex.join(command), flush=True)
      return subprocess.CompletedProcess(command, 0, '', '')
    try:
      result = _execute(command, follow, limit)
    except FileNotFoundError as error:
      raise PodError(
        'gcloud is not installed: https://cloud.google.com/sdk/docs/install'
      ) from error
    if check and result.returncode:
      raise _error(result, f'this failed ({result.returncode}): {shlex.join(command)}')
    return result


def _execute(command: list[str], follow: bool, limit: float | None):
  if follow:
    return subprocess.run(command, check=False)
  # In a session of its own: gcloud's threads and ssh processes are ended together, here.
  process = subprocess.Popen(
    command,
    stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    errors='replace',
    start_new_session=True,
  )
  try:
    out, err = process.communicate(timeout=limit)
  except subprocess.TimeoutExpired:
    _kill(process)
    out, err = process.communicate()
    return subprocess.CompletedProcess(command, 124, out, f'{err}\nno answer in {limit:.0f} s')
  except BaseException:
    _kill(process)
    raise
  return subprocess.CompletedProcess(command, process.returncode, out, err)


def _kill(process: subprocess.Popen) -> None:
  with contextlib.suppress(ProcessLookupError):
    os.killpg(process.pid, signal.SIGKILL)


def _complaint(result: subprocess.CompletedProcess) -> str:
  return (result.stderr or result.stdout or '').strip()[-1500:]


def _error(result: subprocess.CompletedProcess, what: str) -> CommandError:
  said = _complaint(result)
  return CommandError(f'{what}\n{said}', bool(_PERMANENT.search(said)))
