"""`aya-train teach`: training data from a teacher that is told to be safe."""

from __future__ import annotations

import argparse
import os

from aya_train.cli import endpoint_args, number_args

SUMMARY = 'make a data set of the answers of a teacher, as Aya Safe was made'


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    'prompts', type=os.path.expanduser, help='JSON lines, CSV or text of prompts (docs/judging.md)'
  )
  parser.add_argument('--name', default='safe', help='of the data set and its task')
  parser.add_argument('--license', required=True, help='of the data set that is made')
  parser.add_argument('--teacher', default=None, help='who answers, if not --model')
  parser.add_argument('--attribution', default=None, help='whom to name')
  parser.add_argument('--terms', default=None, help='other terms that bind, as those of a teacher')
  parser.add_argument(
    '--preamble',
    type=os.path.expanduser,
    metavar='FILE',
    help='text, or TOML of a text a language; default: one in English that asks to be safe',
  )
  parser.add_argument(
    '--in_prompt', action='store_true', help='preamble before the prompt, not as system message'
  )
  parser.add_argument('--temperature', type=float, default=0.9)
  parser.add_argument('--top_p', type=float, default=0.8)
  parser.add_argument('--max_tokens', type=int, default=1024)
  parser.add_argument('--min_characters', type=int, default=20)
  parser.add_argument('--max_characters', type=int, default=1000)
  parser.add_argument(
    '--same_language', action='store_true', help='drop answers in another language too'
  )
  parser.add_argument('--validation', type=float, default=0.0, help='share of prompts held out')
  own = parser.add_mutually_exclusive_group()
  own.add_argument(
    '--write_prompts',
    type=os.path.expanduser,
    metavar='FILE',
    help='only write the prompts with their preamble, for `infer` with a checkpoint as teacher',
  )
  own.add_argument(
    '--answers', type=os.path.expanduser, metavar='FILE', help='what `infer` answered to them'
  )
  endpoint_args.add_arguments(parser)


def run(args: argparse.Namespace) -> None:
  from aya_train import system_answers
  from aya_train.judging import answer_filters, reply_log, teacher_answers

  by_endpoint = not (args.write_prompts or args.answers)
  number_args.finite(args, 'temperature', 'top_p', lowest=0)
  number_args.at_least(args, 1, 'max_tokens', 'max_characters')
  if not 0 <= args.min_characters <= args.max_characters:
    raise ValueError(
      f'--min_characters {args.min_characters} to --max_characters {args.max_characters} holds no '
      'answer'
    )
  settings = endpoint_args.run_settings(args, needs_model=by_endpoint)
  if args.answers and not args.teacher:
    raise ValueError('--answers needs --teacher: the name of the checkpoint that answered')
  options = {
    'temperature': args.temperature,
    'top_p': args.top_p,
    'max_tokens': args.max_tokens,
    **args.request,
  }
  teaching = teacher_answers.TeachingSettings(
    name=args.name,
    license=args.license,
    teacher=args.teacher or '',
    preambles=teacher_answers.read_preambles(args.preamble)
    if args.preamble
    else {teacher_answers.OTHERS: teacher_answers.PREAMBLE},
    in_prompt=args.in_prompt,
    options={key: value for key, value in options.items() if value is not None},
    filters=answer_filters.Filters(args.min_characters, args.max_characters),
    same_language=args.same_language,
    validation=args.validation,
    language=args.language or '',
    attribution=args.attribution or '',
    terms=args.terms or '',
  )
  prompts = system_answers.prompts(args.prompts, endpoint_args.columns(args))
  prompts = system_answers.picked(prompts, args.rows, args.seed)
  teacher_answers.check(prompts, teaching)
  _check_rights(args, sorted({p.language for p in prompts if p.language}))
  if args.write_prompts:
    rows = teacher_answers.prompts_for_infer(prompts, teaching)
    reply_log.write_whole(args.write_prompts, rows)
    print(f'{len(rows):,} prompts: {args.write_prompts}')
    return
  answers = system_answers.read(args.answers) if args.answers else None
  about = teacher_answers.teach(prompts, teaching, settings, answers)
  if args.dry_run:
    return
  lost = ', '.join(f'{reason} {count:,}' for reason, count in about['dropped'].items()) or 'none'
  print(f'{about["kept"]:,} of {about["answers"]:,} answers kept; dropped: {lost}')
  print(f'table: {os.path.join(args.output, args.name)}.toml')


def _check_rights(args: argparse.Namespace, languages: list[str]) -> None:
  """Refuses now what the table's reader would refuse after the work; ValueError."""
  from aya_train.tasks.languages import language_codes
  from aya_train.tasks.rights import licenses

  for name in args.license.split(';'):
    licenses.classify_stated(name.strip())
  for code in [*languages, *filter(None, [args.language])]:
    language_codes.resolve(code)
