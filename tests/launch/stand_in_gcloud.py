#!/usr/bin/env python3
"""Takes gcloud's place: records its arguments, plays states, and runs `ssh` in local folders.

STAND_IN is a folder: `states` has a line for each answer of `describe` (the last one stays), hosts are
its folders worker-*; their home directories.
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
hosts = sorted(folder.glob('worker-*'))
if (worker := options.get('--worker', 'all')) != 'all':
  hosts = [folder / f'worker-{worker}']

if words[:2] == ['queued-resources', 'describe']:
  states = (folder / 'states').read_text().split()
  (folder / 'states').write_text('\n'.join(states[1:] or states))
  if states[0] == 'ABSENT':
    sys.exit('ERROR: NOT_FOUND: no such resource')
  print(states[0])
elif words[:2] == ['queued-resources', 'delete']:
  for host in hosts:
    shutil.rmtree(host / 'aya-train-job', ignore_errors=True)
elif words[:2] == ['tpu-vm', 'scp']:
  *files, target = [w for w in words[2:] if not w.startswith('--')]
  for host in hosts:
    for file in files:
      shutil.copy(file, host / target.split(':')[1])
elif words[:2] == ['tpu-vm', 'ssh']:
  for host in hosts:
    done = subprocess.run(
      ['bash', '-c', options['--command']], cwd=host, env=os.environ | {'HOME': str(host)}
    )
    if done.returncode:
      sys.exit(done.returncode)
