"""`aya-train mine`: hard negatives for pairs of a query and its positive."""

import argparse
import os

from aya_train.cli import encoder_args, number_args

SUMMARY = 'hard negatives of pairs from a corpus, by the vectors of a checkpoint'


def add_arguments(parser: argparse.ArgumentParser) -> None:
  encoder_args.add_arguments(parser)
  path = os.path.expanduser
  parser.add_argument('--pairs', type=path, required=True, help='table of queries and positives')
  parser.add_argument('--corpus', type=path, required=True, nargs='+', help='files of passages')
  parser.add_argument(
    '--output', type=path, required=True, help='JSON lines to write; OUTPUT.vectors/ lies beside'
  )
  parser.add_argument('--query_column', help="default: 'query', 'anchor', 'question' ...")
  parser.add_argument('--positive_column', help="default: 'positive', 'passage', 'answer' ...")
  parser.add_argument('--positive_id_column', help="default: 'positive_id', 'docid' ..., if there")
  parser.add_argument('--column', help="with a passage; default: 'text', 'passage' ...")
  parser.add_argument('--id_column', help="of the corpus; default: 'id', '_id' ..., else a number")
  parser.add_argument('--title_column', help='of the corpus, is put before the passage')
  parser.add_argument('--query_prompt', help="default: the checkpoint's 'query'")
  parser.add_argument('--passage_prompt', help="default: the checkpoint's 'passage'")
  group = parser.add_argument_group('which passages')
  group.add_argument('--num_negatives', type=int, default=1, help='of each query (1)')
  group.add_argument('--range_min', type=int, default=0, help='places that are passed over (0)')
  group.add_argument('--range_max', type=int, default=100, help='places that are looked at (100)')
  group.add_argument(
    '--max_share',
    type=_share,
    default=0.95,
    help="greatest score as a share of the positive's, or none (0.95)",
  )
  group.add_argument('--max_score', type=float, help='greatest score')
  group.add_argument('--min_score', type=float, help='least score')
  group.add_argument('--margin', type=float, help="at least so far below the positive's score")
  group.add_argument('--strategy', choices=('top', 'random'), default='top')
  group.add_argument('--seed', type=int, default=0, help='for --strategy random (0)')
  parser.add_argument(
    '--search', default='exact', help="'exact' on the devices, 'faiss', or faiss:FACTORY"
  )
  parser.add_argument('--tile', type=int, default=16_384, help='passages on a device at a time')
  parser.add_argument('--bad_rows', choices=('refuse', 'leave_out'), default='refuse')
  parser.add_argument(
    '--overwrite', action='store_true', help='replace an output of something else'
  )


def _share(text: str) -> float | None:
  return None if text == 'none' else float(text)


def run(args: argparse.Namespace) -> None:
  from aya_train.embedding import hard_negatives, mining, text_encoder, text_rows

  number_args.at_least(args, 1, 'tile')
  number_args.finite(args, 'max_share', 'max_score', 'min_score', 'margin')
  choice = hard_negatives.Choice(
    args.num_negatives,
    args.range_min,
    args.range_max,
    args.max_share,
    args.max_score,
    args.min_score,
    args.margin,
    args.strategy,
  )
  library, _, factory = args.search.partition(':')
  if library not in ('exact', 'faiss') or (factory and library == 'exact'):
    raise ValueError(f"--search must be 'exact', 'faiss' or faiss:FACTORY, got {args.search!r}")
  pairs = mining.read_pairs(
    args.pairs,
    query_column=args.query_column,
    positive_column=args.positive_column,
    positive_id_column=args.positive_id_column,
    bad_rows=args.bad_rows,
  )
  corpus = text_rows.of_files(
    args.corpus, column=args.column, id_column=args.id_column, title_column=args.title_column
  )
  encoder = encoder_args.open_encoder(args)
  mining.mine(
    encoder,
    pairs,
    corpus,
    args.output,
    choice,
    partitioner=text_encoder.partitioner(args.model_parallel, shard_weights=args.shard_weights),
    what=args.corpus[0] if len(args.corpus) == 1 else f'{len(args.corpus)} files',
    prompts=mining.prompts_of(encoder, args.query_prompt, args.passage_prompt),
    how=mining.Search((factory or 'Flat') if library == 'faiss' else None, args.tile),
    seed=args.seed,
    bad_rows=args.bad_rows,
    overwrite=args.overwrite,
  )
