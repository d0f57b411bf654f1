"""A cloud of two hosts on this machine, and launch/tpu_pod run against it."""

import json
import os
import pathlib
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
COMMAND = ['train', '--gin_file=aya101.gin', '--gin.MODEL_DIR="gs://b/x  y\'$(exit)"']
# The interpreter of hosts: makes an environment whose aya-train does as its host is told.
PYTHON = """#!/bin/bash
[ "$1" = -m ] || exit 0
mkdir -p env/bin
echo made >> $HOME/environments
cat > env/bin/python <<'X'
#!/bin/bash
echo "$*" >> $HOME/pip
eval "$(cat $HOME/pip_behaviour 2>/dev/null)"
X
cat > env/bin/aya-train <<'X'
#!/bin/bash
printf '<%s>' "$@" >> $HOME/ran
echo >> $HOME/ran
echo "token ${TOKEN:-none}"
eval "$(cat $HOME/behaviour 2>/dev/null)"
X
chmod +x env/bin/*
"""
GCLOUD = '#!/bin/bash\nexec {} {} "$@"\n'
HOSTNAME = '#!/bin/bash\necho t1v-n-${HOME##*/} | sed s/worker/w/\n'


class Cloud:
  """Two hosts and what is to happen to them."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self.hosts = [folder / 'worker-0', folder / 'worker-1']
    for path in (*self.hosts, folder / 'bin'):
      path.mkdir()
    stand_in = pathlib.Path(__file__).with_name('stand_in_gcloud.py')
    self.program('gcloud', GCLOUD.format(*map(shlex.quote, (sys.executable, str(stand_in)))))
    self.program('python-for-hosts', PYTHON)
    self.program('hostname', HOSTNAME)
    self.wheel('wheel')
    self.states('ACTIVE')

  def program(self, name, text):
    file = self.folder / 'bin' / name
    file.write_text(text)
    file.chmod(0o755)

  def wheel(self, text):
    (self.folder / 'a.whl').write_text(text)

  def states(self, *names):
    (self.folder / 'states').write_text('\n'.join(names))

  def fail(self, *lines):
    (self.folder / 'failures').write_text('\n'.join(lines))

  def behave(self, script, name='behaviour'):
    for host in self.hosts:
      (host / name).write_text(script)

  def words(self, command, options, arguments):
    words = [command, 'aya', '--zone=z', '--poll=0.2', f'--wheel={self.folder}/a.whl', *options]
    return [
      *(sys.executable, ROOT / 'launch/tpu_pod', *words),
      *(['--', *arguments] if arguments else []),
    ]

  def environment(self):
    return os.environ | {
      'STAND_IN': str(self.folder),
      'PATH': f'{self.folder}/bin:{os.environ["PATH"]}',
      'PYTHON': 'python-for-hosts',
      'TMPDIR': str(self.folder),
    }

  def pod(self, command, *options, arguments=()):
    return subprocess.run(
      self.words(command, options, arguments),
      env=self.environment(),
      capture_output=True,
      text=True,
      timeout=120,
    )

  def begin(self, command, *options, arguments=()):
    return subprocess.Popen(
      self.words(command, options, arguments),
      env=self.environment(),
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

  def calls(self):
    file = self.folder / 'calls'
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

  def count(self, *words):
    return sum(call[2 : 2 + len(words)] == list(words) for call in self.calls())

  def ran(self):
    """Lines of arguments with which each host started the command."""
    files = [host / 'ran' for host in self.hosts]
    return [f.read_text().splitlines() if f.exists() else [] for f in files]

  def starts(self):
    return [len(lines) for lines in self.ran()]

  def job(self, host=0):
    return self.hosts[host] / 'aya-train-job'

  def end(self):
    for host in self.hosts:
      subprocess.run(
        ['bash', ROOT / 'launch/pod_host.sh', 'halt', '0'],
        env=self.environment() | {'HOME': str(host)},
        capture_output=True,
        check=False,
      )
