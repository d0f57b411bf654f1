"""Replies that come as a stream of server-sent events, though none was asked for, made whole."""

import json
from typing import Any

_END = '[DONE]'


def joined(content: bytes) -> dict[str, Any] | None:
  """A chat completion of the events of a stream; None for what is no stream.

  Raises:
    ValueError: an event is no JSON, or the stream ends before its reply.
  """
  if not content.lstrip()[:6].startswith((b'data:', b'event:', b': ')):
    return None
  told = [line[5:].strip() for line in content.decode().splitlines() if line.startswith('data:')]
  whole: dict[str, Any] = {}
  texts: list[str] = []
  finish = None
  for event in told:
    if event == _END:
      continue
    value = json.loads(event)
    if not isinstance(value, dict) or value.get('error'):
      return value if isinstance(value, dict) else {'error': event}
    whole |= {key: value[key] for key in ('model', 'usage') if value.get(key)}
    for choice in value.get('choices') or ():
      text = (choice.get('delta') or {}).get('content')
      texts += [text] if isinstance(text, str) else []
      finish = choice.get('finish_reason') or finish
  if finish is None and _END not in told:
    raise ValueError('the stream ends before its reply')
  message = {'role': 'assistant', 'content': ''.join(texts)}
  return {**whole, 'choices': [{'finish_reason': finish, 'message': message}]}
