"""Arguments of commands that ask an OpenAI-compatible endpoint."""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING, Any

from aya_train.cli import number_args

if TYPE_CHECKING:
  from aya_train.judging import judge_run

KEY_ENV = 'OPENAI_API_KEY'


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('--output', type=os.path.expanduser, required=True, help='folder to write')
  asked = parser.add_argument_group('endpoint')
  asked.add_argument('--model', help='as the endpoint calls it')
  asked.add_argument(
    '--base_url',
    help='up to and with /v1; default: OPENAI_BASE_URL in the environment, else OpenAI',
  )
  asked.add_argument('--key_env', default=KEY_ENV, help='environment variable that holds the key')
  asked.add_argument(
    '--request',
    type=_request,
    default={},
    metavar='JSON',
    help='keys for each request: \'{"top_p": 0.9, "max_tokens": null}\'; null takes one out',
  )
  asked.add_argument('--timeout', type=float, default=120.0, help='seconds for a whole reply')
  asked.add_argument('--attempts', type=int, default=6, help='failures of a row before it is left')
  asked.add_argument(
    '--patience', type=float, default=7200.0, help='seconds to wait for an endpoint that is away'
  )
  asked.add_argument('--concurrency', type=int, default=8, help='requests at a time')
  asked.add_argument('--requests_per_minute', type=float, help='no more than so many')
  cost = parser.add_argument_group('cost')
  cost.add_argument('--price_in', type=float, help='of a million tokens of prompts')
  cost.add_argument('--price_out', type=float, help='of a million tokens of replies')
  cost.add_argument('--max_cost', type=float, help='refuse to begin, or stop, over this')
  cost.add_argument('--reply_tokens', type=int, default=300, help='of a reply, for the estimate')
  cost.add_argument('--dry_run', action='store_true', help='say what it would take, and end')
  parser.add_argument(
    '--cache',
    type=os.path.expanduser,
    metavar='FILE',
    help='of replies, for several runs; default: replies.jsonl in the output folder',
  )
  parser.add_argument(
    '--ask_again', action='store_true', help='ask anew where a kept reply has no verdict'
  )
  parser.add_argument('--rows', type=int, help='of the input, drawn by the seed; default: all')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--language', help='of rows that name none')
  parser.add_argument(
    '--columns',
    nargs='+',
    default=[],
    metavar='KEY=NAME',
    help='names of columns: inputs, answer, id, language, reference',
  )


def run_settings(args: argparse.Namespace, *, needs_model: bool = True) -> judge_run.RunSettings:
  """Settings of a run from the arguments.

  Raises:
    ValueError: an argument has no sense, or --model is missing.
  """
  from aya_train.judging import chat_endpoint, endpoint_address, judge_calls, judge_run

  if needs_model and not args.model:
    raise ValueError('--model is needed: the name under which the endpoint has it')
  costs = ('price_in', 'price_out', 'max_cost')
  number_args.finite(args, 'timeout', 'patience', 'requests_per_minute', *costs, lowest=0)
  number_args.at_least(args, 1, 'attempts', 'concurrency', 'reply_tokens', 'rows')
  url = args.base_url or os.environ.get('OPENAI_BASE_URL') or chat_endpoint.OFFICIAL
  endpoint = chat_endpoint.EndpointSettings(
    model=args.model or '',
    base_url=endpoint_address.check_address(url),
    key_env=args.key_env,
    timeout=args.timeout,
    attempts=args.attempts,
    patience=args.patience,
    concurrency=args.concurrency,
    requests_per_minute=args.requests_per_minute or None,
  )
  prices = judge_calls.Prices(args.price_in, args.price_out, args.max_cost, args.reply_tokens)
  return judge_run.RunSettings(
    args.output, endpoint, prices, args.cache, args.dry_run, args.ask_again
  )


def columns(args: argparse.Namespace) -> dict[str, str]:
  """`--columns` as a mapping; ValueError for one without '='."""
  pairs = [text.partition('=') for text in args.columns]
  if bad := [key for key, equals, name in pairs if not equals or not name]:
    raise ValueError(f'--columns {bad[0]}: expected KEY=NAME')
  return {key: name for key, _, name in pairs}


def _request(text: str) -> dict[str, Any]:
  try:
    found = json.loads(text, parse_constant=_no_number)
  except (ValueError, RecursionError):
    raise argparse.ArgumentTypeError(f'no JSON: {text!r}') from None
  if not isinstance(found, dict) or {'model', 'messages', 'stream', 'n'} & {*found}:
    raise argparse.ArgumentTypeError('an object is expected, without model, messages, stream and n')
  return found


def _no_number(name: str) -> None:
  raise ValueError(f'{name} is no JSON')
