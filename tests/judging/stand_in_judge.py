"""A judge on this machine: OpenAI's chat API in a thread, well behaved or failing as it is told."""

import contextlib
import http.server
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

KEY = 'sk-very-secret-0123456789'
Behaviour = Callable[['Handler', Mapping[str, Any], int], None]


class StandIn(http.server.ThreadingHTTPServer):
  """Counts requests and answers them by `behaviour(handler, request, number)`."""

  daemon_threads = True
  request_queue_size = 64

  def __init__(self, behaviour: Behaviour):
    super().__init__(('127.0.0.1', 0), Handler)
    self.behaviour = behaviour
    self.requests: list[dict[str, Any]] = []
    self.headers: list[dict[str, str]] = []
    self.at_once = self.most_at_once = 0
    self.lock = threading.Lock()

  @property
  def url(self) -> str:
    return f'http://127.0.0.1:{self.server_port}/v1'

  def handle_error(self, request, client_address):
    pass  # clients that go are expected


class Handler(http.server.BaseHTTPRequestHandler):
  server: StandIn

  def do_POST(self):
    body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
    with self.server.lock:
      self.server.requests.append(body)
      self.server.headers.append({k.lower(): v for k, v in self.headers.items()})
      number = len(self.server.requests)
      self.server.at_once += 1
      self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
    try:
      self.server.behaviour(self, body, number)
    finally:
      with self.server.lock:
        self.server.at_once -= 1

  def do_GET(self):
    self.send(404, {'error': {'message': 'no such place'}})

  def send(self, status: int, value: Any, **headers: str) -> None:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    self.send_response(status)
    self.send_header('Content-Type', 'application/json')
    self.send_header('Content-Length', str(len(data)))
    for name, text in headers.items():
      self.send_header(name.replace('_', '-'), text)
    self.end_headers()
    self.wfile.write(data)

  def say(self, text: str | None, model: str = 'judge-1', **more: Any) -> None:
    """A whole reply; 100 tokens in, 10 out."""
    self.send(200, reply(text, model, **more))

  def drip(self, seconds: float) -> None:
    """A whole reply, a byte at a time."""
    data = json.dumps(reply('[[1]]')).encode()
    self.send_response(200)
    self.send_header('Content-Type', 'application/json')
    self.send_header('Content-Length', str(len(data)))
    self.end_headers()
    for i in range(len(data)):
      self.wfile.write(data[i : i + 1])
      self.wfile.flush()
      time.sleep(seconds)

  def log_message(self, *args):
    pass


def reply(text: str | None, model: str = 'judge-1', finish: str = 'stop', **message: Any) -> dict:
  return {
    'id': 'x',
    'object': 'chat.completion',
    'created': 1,
    'model': model,
    'choices': [
      {
        'index': 0,
        'finish_reason': finish,
        'message': {'role': 'assistant', 'content': text, **message},
      }
    ],
    'usage': {'prompt_tokens': 100, 'completion_tokens': 10, 'total_tokens': 110},
  }


def prefers_longer(handler: Handler, request: Mapping[str, Any], number: int) -> None:
  """A judge that likes the longer answer, in the labels that it was told."""
  del number
  handler.say(longer(request))


def longer(request: Mapping[str, Any]) -> str:
  told = '\n'.join(message['content'] for message in request['messages'])
  names = ('answer 1', 'answer 2') if '<answer 1' in told else ('assistant A', 'assistant B')
  first, second = (told.partition(f'<{n} ')[2].partition(f'</{n} ')[0] for n in names)
  label = ('[[1]]', '[[2]]') if names[0] == 'answer 1' else ('[[A>>B]]', '[[B>A]]')
  return f'They differ in length.\n{label[len(first) < len(second)]}'


def obedient(handler: Handler, request: Mapping[str, Any], number: int) -> None:
  """Ends with the last label that it was told; without labels it answers as a safe teacher."""
  told = '\n'.join(message['content'] for message in request['messages'])
  labels = re.findall(r'\[\[\w+\]\]', told)
  safe = f'I would rather not, since somebody could be hurt by that ({number}).'
  handler.say(f'So be it.\n{labels[-1]}' if labels else safe)


def started(behaviour: Behaviour) -> StandIn:
  """A server that runs until the process ends."""
  server = StandIn(behaviour)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  return server


@contextlib.contextmanager
def serving(behaviour: Behaviour = prefers_longer) -> Iterator[StandIn]:
  server = StandIn(behaviour)
  thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.02})
  thread.start()
  try:
    yield server
  finally:
    server.shutdown()
    server.server_close()
    thread.join()
