"""`aya-train embed`: vectors of texts, as npy or parquet shards."""

import argparse
import os

from aya_train.cli import encoder_args, gin_args

SUMMARY = 'vectors of texts by the encoder of a checkpoint'


def add_arguments(parser: argparse.ArgumentParser) -> None:
  encoder_args.add_arguments(parser)
  parser.add_argument(
    'inputs',
    nargs='*',
    type=os.path.expanduser,
    help='files: JSON lines, CSV, TSV, parquet, or a text a line',
  )
  parser.add_argument('--output', required=True, type=os.path.expanduser, help='folder to write')
  parser.add_argument('--column', help="with the text; default: 'text', 'inputs', 'sentence' ...")
  parser.add_argument('--id_column', help="with the id; default: 'id', '_id' ..., else a number")
  parser.add_argument('--title_column', help='is put before the text')
  parser.add_argument('--task', help='a SeqIO task or mixture instead of files')
  parser.add_argument('--split', default='train', help='of the task (train)')
  parser.add_argument('--feature', default='inputs', help='of the task (inputs)')
  parser.add_argument(
    '--task_module', default='aya_train.tasks', help='module that registers the task'
  )
  gin_args.add_tables(parser)
  encoder_args.add_prompts(parser, ('query', 'passage'), 'none')
  parser.add_argument('--format', choices=('npy', 'parquet'), default='npy', help='of the shards')
  parser.add_argument('--store_dtype', choices=('float32', 'float16'), default='float32')
  parser.add_argument('--shard_rows', type=int, default=16_384, help='texts of a shard (16384)')
  parser.add_argument('--no_texts', action='store_true', help='keep ids alone beside the vectors')
  parser.add_argument(
    '--bad_rows',
    choices=('refuse', 'leave_out'),
    default='refuse',
    help='rows that are torn or have no text',
  )
  parser.add_argument('--overwrite', action='store_true', help='replace vectors of something else')


def run(args: argparse.Namespace) -> None:
  from aya_train.embedding import text_embedding, text_rows

  if bool(args.inputs) == bool(args.task):
    raise ValueError('give either files to embed or --task, the name of a SeqIO task')
  if args.task:
    gin_args.import_tasks(args.task_module)
    gin_args.set_up_tables(args)
    rows = text_rows.of_task(args.task, args.split, args.feature)
  else:
    rows = text_rows.of_files(
      args.inputs,
      column=args.column,
      id_column=args.id_column,
      title_column=args.title_column,
    )
  encoder = encoder_args.open_encoder(args)
  prompt = encoder.prompt(args.prompt_name) if args.prompt is None else args.prompt
  if args.inputs:
    what = args.inputs[0] if len(args.inputs) == 1 else f'{len(args.inputs)} files'
  else:
    what = f'{args.task}, split {args.split}'
  text_embedding.embed(
    encoder,
    rows,
    args.output,
    what=what,
    prompt=prompt,
    form=args.format,
    store_dtype=args.store_dtype,
    shard_rows=args.shard_rows,
    keep_texts=not args.no_texts,
    bad_rows=args.bad_rows,
    overwrite=args.overwrite,
  )
