"""llama.cpp run on a T5 through the C interface of llama-cpp-python (not a dependency)."""

import ctypes

import llama_cpp
import numpy as np


@llama_cpp.llama_log_callback
def _silence(level, text, data):
  del level, text, data


class _File:
  """A GGUF file opened on the CPU."""

  def __init__(self, path, context=256, *, embeddings=False):
    llama_cpp.llama_backend_init()
    llama_cpp.llama_log_set(_silence, ctypes.c_void_p(0))
    settings = llama_cpp.llama_model_default_params()
    settings.n_gpu_layers = 0
    self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), settings)
    assert self.model, path
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx = settings.n_batch = settings.n_ubatch = context
    settings.embeddings = embeddings
    self.context = llama_cpp.llama_init_from_model(self.model, settings)


class Model(_File):
  """One GGUF file that answers."""

  def __init__(self, path, context=256):
    super().__init__(path, context)
    self.vocabulary = llama_cpp.llama_model_get_vocab(self.model)
    self.rows = llama_cpp.llama_vocab_n_tokens(self.vocabulary)

  def tokenize(self, text):
    encoded = text.encode()
    ids = (llama_cpp.llama_token * (len(encoded) + 8))()
    count = llama_cpp.llama_tokenize(
      self.vocabulary, encoded, len(encoded), ids, len(ids), True, False
    )
    return list(ids[:count])

  def greedy(self, ids, length):
    """Tokens of the answer up to eos, and the logits [T, V] that each was chosen from."""
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
    assert llama_cpp.llama_encode(self.context, self._batch(ids)) == 0
    token, tokens, logits = llama_cpp.llama_model_decoder_start_token(self.model), [], []
    while len(tokens) < length and token != 1:
      assert llama_cpp.llama_decode(self.context, self._batch([token])) == 0
      row = llama_cpp.llama_get_logits_ith(self.context, -1)
      logits.append(np.ctypeslib.as_array(row, (self.rows,)).copy())
      token = int(logits[-1].argmax())
      tokens.append(token)
    return tokens, np.array(logits)

  def _batch(self, ids):
    self._held = (llama_cpp.llama_token * len(ids))(*ids)
    return llama_cpp.llama_batch_get_one(self._held, len(ids))


class Embedder(_File):
  """One GGUF file of an encoder, pooled as the file says."""

  def __init__(self, path, context=256):
    super().__init__(path, context, embeddings=True)
    self.width = llama_cpp.llama_model_n_embd(self.model)

  def vector(self, ids):
    """The pooled output for ids, not normalised."""
    held = (llama_cpp.llama_token * len(ids))(*ids)
    batch = llama_cpp.llama_batch_get_one(held, len(ids))
    assert llama_cpp.llama_encode(self.context, batch) == 0
    row = llama_cpp.llama_get_embeddings_seq(self.context, 0)
    assert row, 'nothing is pooled'
    return np.ctypeslib.as_array(row, (self.width,)).copy()
