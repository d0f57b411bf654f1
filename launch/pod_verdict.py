"""What the hosts of a pod say, judged; used by launch/tpu_pod."""

import re

from tpu_cloud import Host

# `aya-train` ends with 1 or 2 where starting again cannot help, with 3 when a host is missing or
# lost, with 130 after a signal.
HOPELESS = {1, 2}
HINTS = {
  r'already in use by process|[Dd]evice or resource busy|libtpu_lockfile': (
    'another process holds the TPU of that host: `stop` ends this one, `down` and `run` give new '
    'hosts'
  ),
  r'backend initiali[sz]ation|still waiting for the other hosts|Barrier timed out|RegisterTask': (
    'JAX waits for the other hosts in its backend initialisation: the same command must run on all '
    'of them, and they must reach each other on every port (the firewall rule '
    'default-allow-internal)'
  ),
  r"Unable to initialize backend 'tpu'|No TPU": (
    'the TPU is not seen: --extra must contain tpu, and --runtime suit the type'
  ),
  r'storage\.(objects|buckets)\.|AccessDenied|403 Forbidden': (
    'the service account of the hosts may not use that bucket; another: '
    "--create_flag='--service-account=...'"
  ),
  r'No space left on device': (
    'the disk of a host is full: keep MODEL_DIR and AYA_TRAIN_CACHE elsewhere'
  ),
  r'RESOURCE_EXHAUSTED|Out of memory': (
    'the program does not fit: `aya-train plan` finds one that does'
  ),
}


def judge(hosts: list[Host], complaint: str, silent_limit: float) -> tuple[str, str]:
  """What to do next, and why.

  Args:
    hosts: those that answered.
    complaint: gcloud's, if not all answered.
    silent_limit: seconds without a log line that a host may be running.

  Returns:
    ('done' | 'wait' | 'start' | 'restart' | 'unseen' | 'stopped' | 'give up', a sentence).
  """
  kinds = [h.kind for h in hosts]
  codes = {h.number for h in hosts if h.kind == 'exit'}
  if 'stopped' in kinds:
    return 'stopped', 'the run was stopped by hand'
  if codes & HOPELESS:
    names = ', '.join(h.name for h in hosts if h.kind == 'exit' and h.number in HOPELESS)
    return 'give up', (
      f'the command ended with code {min(codes & HOPELESS)} on {names[:200]}: its log says why'
    )
  if complaint or not hosts:
    return 'unseen', f'only {len(hosts)} hosts answer: {(complaint or "nothing")[-300:]}'
  if codes - {0}:
    return 'restart', f'the command ended with code {max(codes)} on {kinds.count("exit")} hosts'
  if kinds.count('exit') == len(hosts):
    return 'done', 'the run is complete'
  if codes and 'absent' in kinds:
    return 'restart', 'a host was restarted and no longer knows of the run'
  if kinds.count('running') < len(hosts) and not codes:
    return 'start', (
      f'the command runs on {kinds.count("running")} of {len(hosts)} hosts. A slice begins only '
      'when it runs on all of them: until then JAX waits in its backend initialisation'
    )
  silent = [h for h in hosts if h.kind == 'running' and h.number > silent_limit]
  if silent:
    return 'restart', (
      f'{silent[0].name} has logged nothing for {silent[0].number} s. Another process may hold its '
      'TPU, or a host was lost without the others hearing of it'
    )
  return 'wait', f'running on {kinds.count("running")} hosts'


def explain(log: str) -> str:
  """What known messages in a log mean; '' if there are none."""
  return '\n'.join(text for pattern, text in HINTS.items() if re.search(pattern, log))
