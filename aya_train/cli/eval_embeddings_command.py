"""`aya-train eval-embeddings`: search, translations and similarity by a checkpoint's vectors."""

import argparse
import os

from aya_train.cli import encoder_args, path_args

SUMMARY = 'measure the vectors of a checkpoint: search, translations, similarity'


def add_arguments(parser: argparse.ArgumentParser) -> None:
  encoder_args.add_arguments(parser)
  parser.add_argument('--output', required=True, type=os.path.expanduser, help='folder to write')
  _add(parser, '--retrieval', 'corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv; repeatable')
  parser.add_argument('--split', default='test', help='of the grades (test)')
  _add(parser, '--bitext', 'a table, or a folder of aligned lines such as Tatoeba; repeatable')
  _add(parser, '--sts', 'table with sentence1, sentence2 and score; repeatable')
  parser.add_argument('--query_prompt', help="default: the checkpoint's 'query'")
  parser.add_argument('--passage_prompt', help="default: the checkpoint's 'passage'")


def _add(parser: argparse.ArgumentParser, name: str, text: str) -> None:
  parser.add_argument(
    name, action='append', default=[], type=path_args.named, metavar='NAME=PATH', help=text
  )


def run(args: argparse.Namespace) -> None:
  from aya_train.embedding import eval_data, mining, text_encoder, vector_evaluation

  encoder = encoder_args.open_encoder(args)
  prompts = mining.prompts_of(encoder, args.query_prompt, args.passage_prompt)
  mesh = text_encoder.partitioner(args.model_parallel, shard_weights=args.shard_weights)
  data = vector_evaluation.Data(
    [eval_data.named(text) for text in args.retrieval],
    [eval_data.named(text) for text in args.bitext],
    [eval_data.named(text) for text in args.sts],
    split=args.split,
  )
  vector_evaluation.evaluate(
    lambda: vector_evaluation.Evaluation(encoder, args.output, mesh, prompts), data
  )
