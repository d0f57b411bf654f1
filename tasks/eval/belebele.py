"""Belebele: questions about a passage of FLORES in 122 language varieties; see belebele.md."""

from collections.abc import Iterator

from aya_train.tasks.eval import eval_releases, multiple_choice, row_columns
from aya_train.tasks.eval.multiple_choice import LETTERS, Item
from aya_train.tasks.languages import language_codes

RELEASE = eval_releases.Release(
  'belebele', 'https://github.com/facebookresearch/belebele', 'facebook/belebele'
)
CODES = tuple(
  """
  acm_Arab afr_Latn als_Latn amh_Ethi apc_Arab arb_Arab arb_Latn ars_Arab ary_Arab arz_Arab
  asm_Beng azj_Latn bam_Latn ben_Beng ben_Latn bod_Tibt bul_Cyrl cat_Latn ceb_Latn ces_Latn
  ckb_Arab dan_Latn deu_Latn ell_Grek eng_Latn est_Latn eus_Latn fin_Latn fra_Latn fuv_Latn
  gaz_Latn grn_Latn guj_Gujr hat_Latn hau_Latn heb_Hebr hin_Deva hin_Latn hrv_Latn hun_Latn
  hye_Armn ibo_Latn ilo_Latn ind_Latn isl_Latn ita_Latn jav_Latn jpn_Jpan kac_Latn kan_Knda
  kat_Geor kaz_Cyrl kea_Latn khk_Cyrl khm_Khmr kin_Latn kir_Cyrl kor_Hang lao_Laoo lin_Latn
  lit_Latn lug_Latn luo_Latn lvs_Latn mal_Mlym mar_Deva mkd_Cyrl mlt_Latn mri_Latn mya_Mymr
  nld_Latn nob_Latn npi_Deva npi_Latn nso_Latn nya_Latn ory_Orya pan_Guru pbt_Arab pes_Arab
  plt_Latn pol_Latn por_Latn ron_Latn rus_Cyrl shn_Mymr sin_Latn sin_Sinh slk_Latn slv_Latn
  sna_Latn snd_Arab som_Latn sot_Latn spa_Latn srp_Cyrl ssw_Latn sun_Latn swe_Latn swh_Latn
  tam_Taml tel_Telu tgk_Cyrl tgl_Latn tha_Thai tir_Ethi tsn_Latn tso_Latn tur_Latn ukr_Cyrl
  urd_Arab urd_Latn uzn_Latn vie_Latn war_Latn wol_Latn xho_Latn yor_Latn zho_Hans zho_Hant
  zsm_Latn zul_Latn
  """.split()  # noqa: SIM905
)
LANGUAGES = {code: language_codes.resolve(code).code for code in CODES}
_ANSWERS = ('mc_answer1', 'mc_answer2', 'mc_answer3', 'mc_answer4')


def read(split: str, code: str, protocol: str) -> Iterator[Item]:
  """Questions of a variety's JSON lines, or of the hub's parquet."""
  del protocol
  patterns = (f'{code}.jsonl', *eval_releases.hub_patterns(code, split))
  for where, record in eval_releases.rows(RELEASE, *patterns):
    passage = row_columns.text(record, 'flores_passage', where)
    question = row_columns.text(record, 'question', where).strip()
    options = multiple_choice.options_of(record, where, _ANSWERS)
    lines = [f'{letter}: {option}' for letter, option in zip(LETTERS, options, strict=True)]
    yield Item(
      '\n'.join([f'P: {passage}', f'Q: {question}', *lines, 'Answer:']),
      row_columns.integer(record, 'correct_answer_num', where, range(1, 5)) - 1,
      f'{record.get("link", "")} {record.get("question_number", where.rpartition(" ")[2])}'.strip(),
    )


TASKS = multiple_choice.add('belebele', read, LANGUAGES, shots=0, name_codes=True)
