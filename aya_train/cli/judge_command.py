"""`aya-train judge`: answers judged by a model, or scored for toxicity."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aya_train.cli import endpoint_args, number_args

if TYPE_CHECKING:
  from aya_train.judging import judge_run

SUMMARY = 'have a model judge answers: which of two, or whether they refuse, harm, are toxic'
_SHOWN = 12  # languages
_DONE = ('with_verdict', 'rated', 'scored')
logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    'answers',
    nargs='+',
    type=os.path.expanduser,
    metavar='ANSWERS',
    help='one or two files or folders of what `infer` and `eval` write (docs/judging.md)',
  )
  how = parser.add_mutually_exclusive_group()
  how.add_argument(
    '--protocol',
    type=os.path.expanduser,
    help='of two: aya (default), arena_hard, or a .toml file of your own',
  )
  how.add_argument(
    '--rubric',
    type=os.path.expanduser,
    help='of one: refusal, harmfulness, or a .toml file of your own',
  )
  how.add_argument(
    '--scorer', help='of one: moderation, http(s)://..., MODULE:FUNCTION, hf:FOLDER[:LABEL]'
  )
  parser.add_argument('--names', nargs='+', metavar='NAME', help='of the systems')
  parser.add_argument(
    '--wrong_language',
    choices=['flag', 'lose', 'off'],
    default='flag',
    help='what is done with an answer that is not in the language of its row',
  )
  parser.add_argument(
    '--other_prompts',
    action='store_true',
    help='judge pairs also where the files have different prompts, under the first one',
  )
  parser.add_argument('--threshold', type=float, default=0.5, help='from which score on is toxic')
  parser.add_argument('--batch_size', type=int, default=32, help='texts for a scorer at a time')
  endpoint_args.add_arguments(parser)


def run(args: argparse.Namespace) -> None:
  single = bool(args.rubric or args.scorer)
  wanted = 1 if single else 2
  if len(args.answers) != wanted or (args.names and len(args.names) != wanted):
    kind = '--rubric and --scorer take one' if single else 'a comparison takes two'
    raise ValueError(f'{kind} of ANSWERS, and as many --names; got {len(args.answers)}')
  number_args.share(args, 'threshold')
  number_args.at_least(args, 1, 'batch_size')
  settings = endpoint_args.run_settings(
    args, needs_model=not args.scorer or args.scorer == 'moderation'
  )
  if args.scorer:
    _score(args, settings)
  elif args.rubric:
    _rate(args, settings)
  else:
    _compare(args, settings)


def _compare(args: argparse.Namespace, settings: judge_run.RunSettings) -> None:
  from aya_train import system_answers
  from aya_train.judging import judge_protocols, pairwise_judging

  protocol = judge_protocols.load(args.protocol or 'aya', judge_protocols.PAIR)
  columns = endpoint_args.columns(args)
  read = [system_answers.read(path, columns) for path in args.answers]
  joined = system_answers.join(*read)
  names = tuple(args.names or system_answers.system_names(args.answers))
  if names[0] == names[1]:
    raise ValueError(f'both systems are called {names[0]!r}: give two --names')
  if joined.other_prompts and not args.other_prompts:
    raise ValueError(
      f'{joined.other_prompts:,} of {len(joined.pairs):,} pairs have different prompts in the two '
      'files, so they answer different questions: --other_prompts judges them under the first'
    )
  print(
    f'{len(joined.pairs):,} pairs of {names[0]} (A) and {names[1]} (B); only in A: '
    f'{joined.only_a:,}, only in B: {joined.only_b:,}'
  )
  pairs = system_answers.picked(joined.pairs, args.rows, args.seed)
  about = pairwise_judging.judge(
    pairs,
    pairwise_judging.PairSettings(
      names=(names[0], names[1]),
      protocol=protocol,
      seed=args.seed,
      language=args.language or '',
      wrong_language=args.wrong_language,
      request=args.request,
      files=tuple(args.answers),
    ),
    settings,
  )
  _tell(about, settings, pairwise_judging.VERDICTS)


def _rate(args: argparse.Namespace, settings: judge_run.RunSettings) -> None:
  from aya_train import system_answers
  from aya_train.judging import answer_ratings, judge_protocols

  protocol = judge_protocols.load(args.rubric, judge_protocols.SINGLE)
  answers = system_answers.read(args.answers[0], endpoint_args.columns(args))
  answers = system_answers.picked(answers, args.rows, args.seed)
  about = answer_ratings.rate(
    answers,
    answer_ratings.RatingSettings(
      system=args.names[0] if args.names else system_answers.system_name(args.answers[0]),
      protocol=protocol,
      language=args.language or '',
      checks_language=args.wrong_language != 'off',
      request=args.request,
      files=tuple(args.answers),
    ),
    settings,
  )
  _tell(about, settings, answer_ratings.RATINGS)


def _score(args: argparse.Namespace, settings: judge_run.RunSettings) -> None:
  from aya_train import system_answers
  from aya_train.judging import toxicity_scoring

  answers = system_answers.read(args.answers[0], endpoint_args.columns(args))
  answers = system_answers.picked_prompts(answers, args.rows, args.seed)
  about = toxicity_scoring.score(
    answers,
    args.scorer,
    settings,
    system=args.names[0] if args.names else system_answers.system_name(args.answers[0]),
    threshold=args.threshold,
    batch_size=args.batch_size,
    language=args.language or '',
    # The key of another service is not sent to a scorer unless it is named.
    key_env='' if args.key_env == endpoint_args.KEY_ENV else args.key_env,
  )
  _tell(about, settings, toxicity_scoring.SCORES)


def _tell(about: Mapping[str, Any], settings: judge_run.RunSettings, file: str) -> None:
  """Prints the figures."""
  if settings.dry_run:
    return
  figures = about['figures']
  for name, value in figures.items():
    if not isinstance(value, dict) and not name.endswith(('_low', '_high')):
      print(f'{name}: {_with_interval(figures, name)}')
    elif isinstance(value, dict) and name != 'languages' and value:
      print(f'{name}: {", ".join(f"{key} {count:,}" for key, count in value.items())}')
  languages = figures.get('languages', {})
  rates = [name for name in figures if f'{name}_low' in figures]
  for language, of_it in list(languages.items())[:_SHOWN] if rates else ():
    said = [f'{name} {_with_interval(of_it, name)}' for name in rates if name in of_it]
    print(f'  {language}: {", ".join(said) or "nothing yet"}')
  if len(languages) > _SHOWN:
    print(f'  and {len(languages) - _SHOWN} more languages')
  spent = about.get('spent', {})
  if spent.get('requests'):
    cost = f', {spent["cost"]:,.4f} at the prices given' if 'cost' in spent else ''
    unsaid = ', of which {:,} replies do not say and are estimated'.format(spent['without_usage'])
    tokens = [
      spent[f'{kind}_tokens'] + spent[f'guessed_{kind}_tokens'] for kind in ('prompt', 'completion')
    ]
    print(
      f'{spent["requests"]:,} requests, {spent["answered"]:,} answered: {tokens[0]:,} tokens in, '
      f'{tokens[1]:,} out{unsaid if spent["without_usage"] else ""}{cost}'
    )
    if spent['failures']:
      print(f'failures: {", ".join(f"{key} {n:,}" for key, n in spent["failures"].items())}')
  written = os.path.join(settings.output, file)
  print(f'written: {written}')
  _check_done(figures, written)


def _check_done(figures: Mapping[str, Any], written: str) -> None:
  """Warns of rows that got nothing; raises ValueError where none got anything."""
  done = next(figures[name] for name in _DONE if name in figures)
  # An empty answer is no fault of the judge.
  problems = {name: n for name, n in figures['problems'].items() if name != 'empty_answer'}
  if not problems:
    return
  said = ', '.join(f'{name} {count:,}' for name, count in problems.items())
  again = []
  if {'failed', 'empty', 'not_scored'} & problems.keys():
    again.append('the same command asks for those that failed again')
  if {'nonsense', 'refused', 'filtered'} & problems.keys():
    again.append('--ask_again asks for the others too')
  todo = ', '.join(again)
  if not done:
    raise ValueError(f'no row was judged ({said}); {written} has what came instead. {todo}')
  logger.warning('%s rows have no judgement (%s): %s', f'{sum(problems.values()):,}', said, todo)


def _with_interval(figures: Mapping[str, Any], name: str) -> str:
  value, low, high = (figures.get(f'{name}{end}') for end in ('', '_low', '_high'))
  return f'{value}' if low is None else f'{value} ({low} to {high})'
