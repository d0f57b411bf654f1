"""Licences and what they allow: every name maps to a class, or is refused by name.

The classification is that of the Data Provenance Initiative (Longpre et al. 2023, arXiv 2310.16787;
repository Data-Provenance-Initiative/Data-Provenance-Collection at ce6662d, Apache-2.0, files
constants/license_classes.json and custom_license_classes.json). It is theirs, not legal advice.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable

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
    'http://sail.usc.edu/iemocap/Data_Release_Form_IEMOCAP.pdf, https://docs.google.com/forms/d/e/1FAIpQLScBecgI2K5bFTrXi_-05IYSSwOcqL5mX7dh57xcJV1m_NoznA/viewform?usp=sf_link',
    'http://scdb.wustl.edu/documentation.php?var=cite',
    'https://docs.opendata.aws/amazon-reviews-ml/license.txt, https://dl.fbaipublicfiles.com/glue/data/STS-B.zip, https://github.com/facebookresearch/XNLI/blob/main/LICENSE',
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

# Names beside the audit's: those of sources that it does not have, and other spellings.
_MORE = {
  'Unicode License v3': ('All', '1', '0'),
  'Unicode-3.0': ('All', '1', '0'),
  'CC BY 2.0 FR': ('All', '1', '0'),
  'Apache-2.0': ('All', '1', '0'),
  'CC0-1.0': ('All', '0', '0'),
  'AFL-3.0': ('All', '1', '0'),
  'BSD-2-Clause': ('All', '1', '0'),
  'BSD-3-Clause': ('All', '1', '0'),
  'GPL-2.0': ('All', '1', '1'),
  'GPL-3.0': ('All', '1', '1'),
  'ODC-By': ('All', '1', '0'),
}
_USE = {
  'All': COMMERCIAL,
  'Unspecified': UNSPECIFIED,
  'NC': NON_COMMERCIAL,
  'Acad': ACADEMIC_ONLY,
  '?': ACADEMIC_ONLY,
}


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


def _key(name: str) -> str:
  return re.sub(r'[^a-z0-9.]', '', name.lower())


@functools.cache
def _rights_by_name() -> dict[str, Rights]:
  found = {}
  for triple, names in _CLASSES.items():
    found.update({_key(name): _rights(triple) for name in names})
  found.update({_key(name): _rights(triple) for name, triple in _MORE.items()})
  return found


def _rights(triple: tuple[str, str, str]) -> Rights:
  use, attribution, share_alike = triple
  return Rights(_USE[use], attribution != '0', share_alike != '0')


def classify(name: str, url: str = '') -> Rights:
  """Rights of a licence.

  Args:
    name: as the audit has it, or an SPDX identifier; case and punctuation do not matter.
    url: of the terms, by which a 'Custom' licence is looked up. Terms that nobody has read count as
      academic-only, as in the audit.

  Raises:
    UnknownLicenseError: naming it.
  """
  if _key(name) == 'custom':
    triples = (t for t, urls in _CUSTOM.items() if url in urls)
    return _rights(next(triples, ('?', '?', '?')))
  found = _rights_by_name().get(_key(name))
  if found is None or not _key(name):
    raise UnknownLicenseError(
      f'licence {name!r} is in no table: use a name of aya_train.tasks.rights.licenses, or Custom '
      f'with a use class of {USES}'
    )
  return found


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
