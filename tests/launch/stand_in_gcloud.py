#!/usr/bin/env python3
"""Takes gcloud's place: records its arguments, plays states, and runs `ssh` in local folders.

STAND_IN is a folder: `states` has a line for each answer of `describe` (the last one stays), `node`
the state of the machines, `failures` lines of TIMES and a word: as many commands with that word
fail. Hosts are its folders worker-*, their home directories; one with a file `gone` does not
answer. Like gcloud, `ssh` runs on all hosts even if one fails, and prints what they say in any
order.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

folder = pathlib.Path(os.environ['STAND_IN'])
argv = sys.argv[1:]
with (folder / 'calls').open('a') as f:
  f.write(json.dumps(argv) + '\n')
words = argv[2:]
options = dict(w.split('=', 1) for w in words if w.startswith('--') and '=' in w)
hosts = sorted(folder.glob('worker-*'), reverse=True)
if (worker := options.get('--worker', 'all')) != 'all':
  hosts = [folder / f'worker-{worker}']
  if not hosts[0].exists():
    sys.exit('ERROR: no such worker')

failures = folder / 'failures'
if failures.exists():
  left = [line.split(' ', 1) for line in failures.read_text().splitlines()]
  for entry in left:
    if int(entry[0]) and entry[1] in ' '.join(argv):
      entry[0] = str(int(entry[0]) - 1)
      failures.write_text('\n'.join(' '.join(e) for e in left))
      sys.exit('ERROR: connection reset by peer')

if words[:2] == ['queued-resources', 'describe']:
  if 'yaml' in options['--format']:
    print('state:\n  failedData:\n    error:\n      message: out of hamsters')
    sys.exit()
  states = (folder / 'states').read_text().split()
  (folder / 'states').write_text('\n'.join(states[1:] or states))
  if states[0] == 'ABSENT':
    sys.exit('ERROR: NOT_FOUND: no such resource')
  print(states[0])
elif words[:2] == ['queued-resources', 'delete']:
  for host in hosts:
    shutil.rmtree(host / 'aya-train-job', ignore_errors=True)
    (host / 'gone').unlink(missing_ok=True)
elif words[:2] == ['tpu-vm', 'describe']:
  node = folder / 'node'
  print(node.read_text() if node.exists() else 'READY')
elif words[:2] in (['tpu-vm', 'scp'], ['tpu-vm', 'ssh']):
  code = 0
  *files, target = [w for w in words[2:] if not w.startswith('--')]
  for host in hosts:
    if (host / 'gone').exists():
      print('ERROR: connection timed out', file=sys.stderr)
      code = code or 255
    elif words[1] == 'scp':
      for file in files:
        shutil.copy(file, host / target.split(':')[1])
    else:
      environment = os.environ | {'HOME': str(host)}
      command = ['bash', '-c', options['--command']]
      code = subprocess.run(command, cwd=host, env=environment).returncode or code
  sys.exit(code)
