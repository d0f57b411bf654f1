"""Licences and what they allow: every name maps to a class, or is refused by name.

The classification is that of the Data Provenance Initiative (Longpre et al. 2023, arXiv 2310.16787;
repository Data-Provenance-Initiative/Data-Provenance-Collection at ce6662d, Apache-2.0, files
constants/license_classes.json and custom_license_classes.json). It is theirs, not legal advice.
"""

import contextlib
import dataclasses
import functools
import re
import unicodedata
from collections.abc import Iterable

from aya_train.tasks.rights import license_names

_LONGEST_NAME = 2_000  # characters; the longest of the audit has 80
COMMERCIAL, UNSPECIFIED = 'commercial', 'unspecified'
NON_COMMERCIAL, ACADEMIC_ONLY = 'non-commercial', 'academic-only'
USES = (COMMERCIAL, UNSPECIFIED, NON_COMMERCIAL, ACADEMIC_ONLY)
"""Use classes, the strictest last. A policy admits its class and those before it."""

# Use, attribution, share-alike as the audit writes them: '?' is not known.
_CLASSES: dict[tuple[str, str, str], tuple[str, ...]] = {
  ('All', '1', '0'): (
    'Academic Free License v3.0',
    'All Uses-Attribution',
    'Apache License 2.0',
    'Artistic License 2.0',
    'BSD 2-Clause License',
    'BSD 3-Clause License',
    'CC BY 2.0',
    'CC BY 2.5',
    'CC BY 3.0',
    'CC BY 4.0',
    'CDLA Permissive 2.0',
    'CDLA Permissive 1.0',
    'EPL 1.0',
    'ISC License',
    'LGPL 2.1',
    'LGPL 3.0',
    'MIT License',
    'MPL 2.0',
    'OANC',
    'ODC BY 1.0',
    'OGL 3.0',
    'Skywork Community License',
    'Llama 2',
    'Apache 2.0',
    'CC BY',
    'Meta Llama3 Community License',
  ),
  ('Acad', '1', '1'): (
    'Academic Research Purposes Only',
    'Microsoft Data Licensing Agreement',
  ),
  ('All', '1', '1'): (
    'AI2 ImpACT License - Low Risk',
    'C-UDA',
    'CC BY-ND 4.0',
    'CC BY-SA',
    'CC BY-SA 2.0',
    'CC BY-SA 3.0',
    'CC BY-SA 4.0',
    'CDLA Sharing 1.0',
    'GNU General Public License v2.0',
    'GNU General Public License v3.0',
    'BigScience OpenRAIL-M',
    'CC BY SA',
    'Open Access',
  ),
  ('NC', '1', '0'): (
    'CC BY-NC 2.0',
    'CC BY-NC 3.0',
    'CC BY-NC 4.0',
    'CC BY-NC-ND 3.0',
    'CC BY-NC-ND 4.0',
    'CC BY-NC-ND',
    'CC BY-NC-SA',
    'CSLU Agreement',
    'LDC User Agreement',
  ),
  ('NC', '1', '1'): (
    'CC BY-NC-SA 3.0',
    'CC BY-NC-SA 4.0',
  ),
  ('All', '0', '0'): (
    'CC0 1.0',
    'No License',
    'LMSYS-Chat-1M Dataset License',
    'CC0',
    'MIT',
    'Public Domain',
  ),
  ('NC', '?', '?'): (
    'Google Cloud Translation API',
    'OpenAI',
    'Anthropic',
    'Unclear',
  ),
  ('NC', '0', '0'): ('Non Commercial',),
  ('Acad', '?', '?'): (
    'Request Form',
    'Various',
  ),
  ('Unspecified', '0', '0'): ('Unspecified',),
}
"""Names of licences by class."""

_CUSTOM: dict[tuple[str, str, str], tuple[str, ...]] = {
  ('Acad', '1', '0'): (
    'http://groups.di.unipi.it/~gulli/AG_corpus_of_news_articles.html',
    'https://competitions.codalab.org/competitions/20970#learn_the_details-terms_and_conditions',
    'https://github.com/allenai/scruples#disclaimer',
    'https://github.com/dair-ai/emotion_dataset#usage',
    'https://github.com/whipson/PoKi-Poems-by-Kids',
    'https://opus.nlpl.eu/QED.php',
    'https://u.cs.biu.ac.il/~koppel/BlogCorpus.htm',
    'https://www.ldc.upenn.edu/language-resources/data/obtaining',
    'https://prior.allenai.org/projects/data/charades-ego/license.txt',
    'https://docs.google.com/forms/d/e/1FAIpQLSdtUV3uweS0u7AHAMIJAL_dRRdZ5MHpJS3fdZVbhnVt-Yb4NA/viewform',
    'https://www.mpi-inf.mpg.de/departments/computer-vision-and-machine-learning/research/human-activity-recognition/mpii-cooking-2-dataset/',
    'https://mmact19.github.io/2019/',
    'http://moviegraphs.cs.toronto.edu/download.html',
    'https://github.com/microsoft/XPretrain/blob/main/hd-vila-100m/README.md',
    'https://datasets.d2.mpi-inf.mpg.de/movieDescription/protected/lsmdc2016/README.txt',
    'https://www.robots.ox.ac.uk/~vgg/data/voxceleb/',
    'https://github.com/coin-dataset/annotations?tab=readme-ov-file#license',
    'https://github.com/holistic-video-understanding/HVU-Dataset',
    'https://www.mpi-inf.mpg.de/departments/computer-vision-and-machine-learning/research/human-activity-recognition/mpii-cooking-activities-dataset',
    'https://project.inria.fr/toyotasmarthome/files/2020/12/License_v2.pdf',
    'http://moments.csail.mit.edu/',
    'https://rose1.ntu.edu.sg/dataset/actionRecognition/',
    'https://github.com/hangzhaomit/HACS-dataset?tab=readme-ov-file#request-testing-videos-and-missing-videos-new',
    'https://docs.google.com/forms/d/e/1FAIpQLScs9davISAtYQS7SEF5qQNu0jUpLzNH3aHmPfuqk2q1VYDkmw/viewform',
    'https://sutdcv.github.io/uav-human-web/',
    'https://web.eecs.umich.edu/~fouhey/2017/VLOG/index.html',
    'https://fouheylab.eecs.umich.edu/~dandans/projects/100DOH/download.html',
  ),
  ('All', '1', '0'): (
    'https://ai.meta.com/datasets/casual-conversations-v2-downloads/',
    'http://nlp.cs.aueb.gr/software_and_datasets/EURLEX57K/read_me.txt',
    'https://drive.google.com/file/d/1lOCbW8bfZxj1RIzKDxn8xKg99XyYNj7z/view?usp=sharing',
    'https://github.com/google-research-datasets/paws',
    'https://github.com/google-research-datasets/paws/blob/master/LICENSE',
    'https://msropendata-web-api.azurewebsites.net/licenses/f1f352a6-243f-4905-8e00-389edbca9e83/view',
    'https://wordnet.princeton.edu/license-and-commercial-use',
    'https://wt-public.emm4u.eu/Resources/ECDC-TM/2012_10_Terms-of-Use_ECDC-TM.pdf',
    'https://github.com/fperazzi/davis/blob/main/LICENSE',
    'https://github.com/raingo/TGIF-Release',
    'https://ego4d-data.org/pdfs/Ego4D-Licenses-Draft.pdf',
  ),
  ('?', '?', '?'): (
    'http://help.sentiment140.com/for-students',
    'https://www.quora.com/about/tos',
  ),
  ('Acad', '0', '0'): (
    'http://korpus.uib.no/icame/brown/bcm.html#bc7',
    'https://competitions.codalab.org/competitions/17751#learn_the_details-terms_and_conditions',
    'https://davis.wpi.edu/xmdv/datasets/ohsumed.html',
    'https://github.com/Alex-Fabbri/Multi-News/blob/master/LICENSE.txt',
    'https://github.com/allenai/semeval-2019-task-10#terms-and-conditions',
    'https://github.com/awslabs/open-data-docs/blob/main/docs/amazon-reviews-ml/license.txt',
    'https://github.com/nlpdata/c3/blob/master/license.txt',
    'https://github.com/nlpdata/dream/blob/master/license.txt',
    'https://s3.amazonaws.com/amazon-reviews-pds/license.txt',
    'https://tac.nist.gov/data/forms/index.html',
    'https://www.cs.cmu.edu/~glai1/data/race/#:~:text=notes',
    'https://www2.cs.sfu.ca/~anoop/students/jbirke/LICENSE.html',
    'https://github.com/m-bain/webvid/blob/main/TERMS.md',
  ),
  ('All', '0', '0'): (
    'http://sail.usc.edu/iemocap/Data_Release_Form_IEMOCAP.pdf, '
    'https://docs.google.com/forms/d/e/1FAIpQLScBecgI2K5bFTrXi_-05IYSSwOcqL5mX7dh57xcJV1m_NoznA/viewform?usp=sf_link',
    'http://scdb.wustl.edu/documentation.php?var=cite',
    'https://docs.opendata.aws/amazon-reviews-ml/license.txt, '
    'https://dl.fbaipublicfiles.com/glue/data/STS-B.zip, '
    'https://github.com/facebookresearch/XNLI/blob/main/LICENSE',
    'https://github.com/google-research-datasets/sentence-compression',
    'https://huggingface.co/datasets/stanfordnlp/SHP#license',
    'https://librivox.org/pages/public-domain/',
    'https://sheng-z.github.io/ReCoRD-explorer/',
    'https://www.reddit.com/r/datasets/comments/1uyd0t/200000_jeopardy_questions_in_a_json_file/',
    'https://huggingface.co/datasets/lmsys/lmsys-chat-1m#lmsys-chat-1m-dataset-license-agreement',
    'https://docs.google.com/forms/d/e/1FAIpQLSdUOScon6uWkslgcA2-BCkAhMp86SihgKtMqX53zRf-E2fIHw/formResponse',
  ),
  ('NC', '1', '0'): (
    'http://www.di.unipi.it/~gulli/AG_corpus_of_news_articles.html',
    'https://competitions.codalab.org/competitions/19938#learn_the_details-terms_and_conditions',
  ),
  ('Acad', '1', '1'): (
    'https://github.com/CogComp/multirc/blob/master/LICENSE',
    'https://recipenlg.cs.put.poznan.pl/dataset',
    'https://www.microsoft.com/en-us/download/details.aspx?id=52419',
    'https://datasets.d2.mpi-inf.mpg.de/movieDescription/AccessMovieDescriptionDataset.pdf',
  ),
  ('NC', '0', '0'): (
    'https://microsoft.github.io/msmarco/',
    'https://msropendata-web-api.azurewebsites.net/licenses/2f933be3-284d-500b-7ea3-2aa2fd0f1bb2/view',
    'https://s3-media0.fl.yelpcdn.com/assets/srv0/engineering_pages/dc1cabe7cb95/assets/vendor/Dataset_User_Agreement.pdf',
    'https://s3-media3.fl.yelpcdn.com/assets/srv0/engineering_pages/bea5c1e92bf3/assets/vendor/yelp-dataset-agreement.pdf',
  ),
  ('NC', '1', '1'): ('https://raw.githubusercontent.com/knowitall/ollie/master/LICENSE',),
  ('All', '1', '1'): (
    'https://huggingface.co/datasets/nvidia/OpenMathInstruct-1#license',
    'https://huggingface.co/datasets/nvidia/OpenMathInstruct-1/blob/main/LICENSE',
    'https://huggingface.co/datasets/HuggingFaceM4/charades#licensing-information',
    'https://developer.qualcomm.com/software/ai-datasets/jester',
    'https://developer.qualcomm.com/software/ai-datasets/something-something',
  ),
}
"""Addresses of terms of their own by class."""

# Names beside the audit's: those of sources that it does not have, and identifiers of SPDX and of
# the Hugging Face hub. Other spellings and Creative Commons' other versions: `license_names`.
_MORE: dict[tuple[str, str, str], tuple[str, ...]] = {
  ('All', '1', '0'): (
    'Unicode License v3',
    'Unicode-3.0',
    'AFL',
    'AFL-3.0',
    'Apache',
    'Apple ASCL',
    'Artistic License',
    'BSD',
    'BSD-2-Clause',
    'BSD-3-Clause',
    'BSD-3-Clause-Clear',
    'ECL-2.0',
    'Etalab-2.0',
    'LPPL-1.3c',
    'MPL',
    'MPL-1.1',
    'MS-PL',
    'NCSA',
    'ODC-By',
    'OGL',
    'OGL-1.0',
    'OGL-2.0',
    'OpenMDW-1.0',
    'PostgreSQL',
    'Unicode License',
    'Zlib',
    'Llama 3',
    'Llama 3.1',
    'Llama 3.2',
    'Llama 3.3',
    'Llama 4',
  ),
  ('All', '1', '1'): (
    'AGPL',
    'AGPL-3.0',
    'BigCode OpenRAIL-M',
    'BigCode OpenRAIL-M 1.0',
    'BigScience BLOOM RAIL 1.0',
    'CreativeML OpenRAIL-M',
    'EPL-2.0',
    'EUPL',
    'EUPL-1.1',
    'EUPL-1.2',
    'Gemma',
    'GFDL',
    'GFDL-1.1',
    'GFDL-1.2',
    'GFDL-1.3',
    'GPL',
    'GPL-1.0',
    'GPL-2.0',
    'GPL-3.0',
    'LGPL',
    'LGPL-LR',
    'ODbL',
    'ODbL-1.0',
    'OFL',
    'OFL-1.1',
    'OpenRAIL',
    'OpenRAIL-M',
    'OSL-3.0',
  ),
  ('All', '0', '0'): (
    'BSL-1.0',
    'PDDL',
    'PDDL-1.0',
    'Public Domain Mark 1.0',
    'Unlicense',
    'WTFPL',
  ),
  ('Unspecified', '0', '0'): ('Unknown',),
  # For research, or terms that are more than a use class says.
  ('Acad', '1', '1'): (
    'Apple AMLR',
    'DeepFloyd IF License',
    'FAIR Noncommercial Research License',
    'Grok 2 Community',
    'H Research',
    'Intel Research',
  ),
}
_USE = {
  'All': COMMERCIAL,
  'Unspecified': UNSPECIFIED,
  'NC': NON_COMMERCIAL,
  'Acad': ACADEMIC_ONLY,
  '?': ACADEMIC_ONLY,
}


# Names that leave it to `use` what is allowed.
_OPEN = frozenset(('custom', 'other', 'unspecified', 'unknown', 'unclear', 'various'))


class UnknownLicenseError(ValueError):
  """A name that no table has."""


@dataclasses.dataclass(frozen=True)
class Rights:
  """What a licence allows and asks for.

  Attributes:
    use: one of `USES`.
    attribution: whether its authors must be named.
    share_alike: whether what is made of it must be under the same licence.
  """

  use: str
  attribution: bool
  share_alike: bool


NOT_READ = Rights(ACADEMIC_ONLY, True, True)
"""Rights under terms that nobody has read: the strictest."""


def _rights(triple: tuple[str, str, str]) -> Rights:
  use, attribution, share_alike = triple
  return Rights(_USE[use], attribution != '0', share_alike != '0')


def _named() -> list[tuple[str, Rights]]:
  return [(n, _rights(t)) for table in (_MORE, _CLASSES) for t, ns in table.items() for n in ns]


@functools.cache
def _rights_by_name() -> dict[str, Rights]:
  return {license_names.key(name): rights for name, rights in _named()}


@functools.cache
def _rights_by_loose_name() -> dict[str, Rights]:
  """The strictest where the audit classes two spellings apart."""
  found: dict[str, list[Rights]] = {}
  for name, rights in _named():
    found.setdefault(license_names.loose(name), []).append(rights)
  return {key: strictest(several) for key, several in found.items() if len(key) > 2}


def _of_commons(name: str) -> Rights | None:
  """Rights of a licence of Creative Commons, of whatever version."""
  canonical = license_names.commons(name)
  if canonical is None:
    return None
  parts = canonical.split()[1].lower().split('-') if ' ' in canonical else []
  use = NON_COMMERCIAL if 'nc' in parts else COMMERCIAL
  rule = Rights(use, True, 'sa' in parts or parts == ['by', 'nd'])
  return _rights_by_name().get(license_names.key(canonical), rule)


def _found(name: str) -> Rights | None:
  return (
    _rights_by_name().get(license_names.key(name))
    or _of_commons(name)
    or _rights_by_loose_name().get(license_names.loose(name))
  )


def _said_twice(name: str) -> Rights | None:
  """Rights of 'The MIT License (MIT)': of what stands before and in brackets, the stricter."""
  if (twice := re.fullmatch(r'([^()]+)\(([^()]+)\)', name.strip())) is None:
    return None
  both = [_found(part) for part in twice.groups()]
  return None if None in both else strictest(rights for rights in both if rights is not None)


def classify(name: str, url: str = '') -> Rights:
  """Rights of a licence.

  Args:
    name: as the audit has it, an identifier of SPDX or the hub, a full name or its address; case
      and punctuation do not matter, letters outside ASCII and '*' do: they may be a reservation.
    url: of the terms, by which a 'Custom' licence is looked up. Terms that nobody has read count as
      academic-only, as in the audit; so does the hub's 'other'.

  Raises:
    UnknownLicenseError: naming it.
  """
  if len(name) > _LONGEST_NAME:
    raise UnknownLicenseError(
      f'a licence of {len(name):,} characters, {name[:100]!r}...: a name or an address was expected'
    )
  name = unicodedata.normalize('NFKC', re.sub('[™®©]', '', name))
  if license_names.key(name) in ('custom', 'other'):
    triples = (t for t, urls in _CUSTOM.items() if url in urls)
    return _rights(next(triples, ('?', '?', '?')))
  found = _found(name) or _said_twice(name)
  foreign = any(sign == '*' or (sign.isalnum() and not sign.isascii()) for sign in name)
  if found is None or foreign or not license_names.key(name):
    raise UnknownLicenseError(
      f'licence {name!r} is in no table: use a name of aya_train.tasks.rights.licenses, several '
      f"between ';', or Custom with a use class of {USES}"
    )
  return found


def classify_stated(name: str, url: str = '') -> Rights:
  """As `classify`, of a name that somebody gives to data or a model of his own.

  'No License' is the audit's word for published data sets whose authors gave none, and a class of
  its own there. From anybody else it says that nothing is allowed, or nothing at all.

  Raises:
    UnknownLicenseError: naming it.
  """
  if license_names.loose(name) == 'no':
    raise UnknownLicenseError(
      f'licence {name!r} says nothing of what is allowed: name the terms that bind, or Custom with '
      f'a use class of {USES}'
    )
  return classify(name, url)


def check_use(use: str, names: Iterable[tuple[str, str]], whose: str) -> None:
  """Refuses a use class that allows more than licences whose names say what they allow.

  Args:
    use: the class stated beside them.
    names: (name, address) of each; those that no table has count elsewhere.
    whose: they are, for the message.

  Raises:
    ValueError: `use` is no use class, or laxer than a licence; it is named.
  """
  if use not in USES:
    raise ValueError(f'{whose}: use must be one of {USES}, got {use!r}')
  for name, url in names:
    if license_names.key(name) in _OPEN:
      continue
    with contextlib.suppress(UnknownLicenseError):
      if not admits(use, allowed := classify(name, url).use):
        raise ValueError(
          f'{whose}: use is {use!r}, and its licence {name!r} is {allowed}. If other terms were '
          "agreed, its licence is 'Custom', and `terms` says which"
        )


def strictest(rights: Iterable[Rights]) -> Rights:
  """What is allowed under all of several licences; without any, nothing is said: unspecified."""
  rights = list(rights) or [Rights(UNSPECIFIED, False, False)]
  return Rights(
    max((r.use for r in rights), key=USES.index),
    any(r.attribution for r in rights),
    any(r.share_alike for r in rights),
  )


def admits(policy: str, use: str) -> bool:
  """Whether a policy admits a use class; ValueError for a policy that is none of `USES`."""
  if policy not in USES:
    raise ValueError(f'DATA_LICENSE_POLICY must be one of {", ".join(USES)}, got {policy!r}')
  return USES.index(use) <= USES.index(policy)
