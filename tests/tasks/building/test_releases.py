"""The real hub client against a server of our own, which hangs up in the middle of a file."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading

import pytest

COMMIT = 'c0ffee' * 6 + 'c0ff'
REPOSITORY = 'CohereForAI/aya_dataset'
NAME = 'data/train-00000-of-00001.parquet'
CONTENT = bytes(range(256)) * 100_000  # the client writes 10 MiB at a time

PROGRAM = f"""
import hashlib, json, pathlib
from aya_train.tasks.building import releases
commit, files = releases.HUB.list({REPOSITORY!r}, None)
release = releases.find({REPOSITORY!r})
path = release.path(release.files[0])
print(json.dumps([commit, [[f.name, f.size] for f in release.files],
  hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest(), len(files)]))
"""


class Hub(http.server.BaseHTTPRequestHandler):
  protocol_version = 'HTTP/1.1'
  ranges: list[str | None]

  def log_message(self, *args):
    pass

  def _head(self, start=0):
    self.send_response(206 if start else 200)
    self.send_header('X-Repo-Commit', COMMIT)
    self.send_header('ETag', f'"{hashlib.sha256(CONTENT).hexdigest()}"')
    self.send_header('Accept-Ranges', 'bytes')
    if start:
      self.send_header('Content-Range', f'bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}')
    self.send_header('Content-Length', str(len(CONTENT) - start))
    self.end_headers()

  def do_HEAD(self):
    self._head()

  def do_GET(self):
    if self.path.startswith('/api/'):
      files = [{'rfilename': 'README.md', 'size': 9}, {'rfilename': NAME, 'size': len(CONTENT)}]
      body = json.dumps({'id': REPOSITORY, 'sha': COMMIT, 'siblings': files}).encode()
      self.send_response(200)
      self.send_header('Content-Type', 'application/json')
      self.send_header('Content-Length', str(len(body)))
      self.end_headers()
      self.wfile.write(body)
      return
    asked = self.headers.get('Range')
    Hub.ranges.append(asked)
    start = int(asked.removeprefix('bytes=').split('-')[0]) if asked else 0
    self._head(start)
    if len(Hub.ranges) == 1:
      self.wfile.write(CONTENT[: len(CONTENT) * 3 // 4])
      self.close_connection = True
      return
    self.wfile.write(CONTENT[start:])


@pytest.fixture
def server():
  Hub.ranges = []
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Hub)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  yield f'http://127.0.0.1:{server.server_port}'
  server.shutdown()
  server.server_close()


def test_a_download_that_was_cut_off_goes_on_where_it_stopped(server, tmp_path):
  pytest.importorskip('huggingface_hub', reason='huggingface_hub is of the extra hf')
  environment = {
    **os.environ,
    'HF_ENDPOINT': server,
    'HF_HUB_OFFLINE': '0',
    'HF_HOME': str(tmp_path),
    'HF_HUB_DISABLE_XET': '1',
    'HF_HUB_DISABLE_TELEMETRY': '1',
    'NO_PROXY': '127.0.0.1',
  }
  done = subprocess.run(
    [sys.executable, '-c', PROGRAM],
    env=environment,
    capture_output=True,
    text=True,
    timeout=120,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  commit, files, digest, count = json.loads(done.stdout.splitlines()[-1])
  assert commit == COMMIT
  assert files == [[NAME, len(CONTENT)]] and count == 2
  assert digest == hashlib.sha256(CONTENT).hexdigest()
  assert Hub.ranges[0] in (None, 'bytes=0-')
  assert Hub.ranges[1] is not None and int(Hub.ranges[1].split('=')[1].split('-')[0]) > 0
