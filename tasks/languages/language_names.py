"""English names of languages that are not the names of `languages.LANGUAGES`.

Data Provenance names languages by name, the Aya Dataset and the folders of the Aya Collection too.
Names of FLORES-200 are those of bigscience-workshop/xmtf, create_xp3x.py.
"""

_NAMES = """
sqi albanian (tosk)
hat haitian
zho mandarin chinese
pus pashto (southern)
por portugese (brazilian)
ace_Latn acehnese
ace_Arab acehnese (arabic script)
ace_Latn acehnese (latin script)
ace_Latn achinese
aka_Latn akan
arq_Arab algerian arabic
asm_Beng assamese
ast_Latn asturian
awa_Deva awadhi
quy_Latn ayacucho quechua
ban_Latn balinese
bam_Latn bambara
ben bangla
bjn_Latn banjar
bjn_Arab banjar (arabic script)
bjn_Latn banjar (latin script)
bak_Cyrl bashkir
bem_Latn bemba
bho_Deva bhojpuri
bos_Latn bosnian
bre_Latn breton
bug_Latn buginese
spa castilian
tzm_Tfng central atlas tamazight
ayr_Latn central aymara
knc_Latn central kanuri
knc_Arab central kanuri (arabic script)
knc_Latn central kanuri (latin script)
khm central khmer
ckb_Arab central kurdish
cha_Latn chamorro
hne_Deva chhattisgarhi
zho_Hans chinese (simplified)
zho_Hant chinese (traditional)
cjk_Latn chokwe
chv_Cyrl chuvash
cor_Latn cornish
crh_Latn crimean tatar
hrv_Latn croatian
prs_Arab dari
dyu_Latn dyula
dzo_Tibt dzongkha
pan_Guru eastern panjabi
ydd_Hebr eastern yiddish
arz_Arab egyptian arabic
ewe_Latn ewe
fao_Latn faroese
pes farsi
fij_Latn fijian
fil filipino
nld flemish
fon_Latn fon
fur_Latn friulian
gla gaelic
lug_Latn ganda
grn_Latn guarani
khk_Cyrl halh mongolian
ido_Latn ido
ilo_Latn ilocano
ina_Latn interlingua
ile_Latn interlingue
pes iranian persian
kac_Latn jingpho
jupyter-notebook jupyter notebook
kbp_Latn kabiyè
kea_Latn kabuverdianu
kab_Latn kabyle
kam_Latn kamba
kas_Arab kashmiri
kas_Arab kashmiri (arabic script)
kas_Deva kashmiri (devanagari script)
kon_Latn kikongo
kik_Latn kikuyu
kmb_Latn kimbundu
kin_Latn kinyarwanda
swa kiswahili
ltg_Latn latgalian
lij_Latn ligurian
lim_Latn limburgish
lin_Latn lingala
lmo_Latn lombard
lua_Latn luba-kasai
luo_Latn luo
mad madurese
mag_Deva magahi
mai_Deva maithili
mni_Beng manipuri
mni_Beng meitei (bengali script)
acm_Arab mesopotamian arabic
min_Latn minangkabau
min_Arab minangkabau (arabic script)
min_Latn minangkabau (latin script)
lus_Latn mizo
ell modern greek
arb_Arab modern standard arabic
arb_Latn modern standard arabic (romanized)
ary_Arab moroccan arabic
mos_Latn mossi
por_Latn mozambican portuguese
ars_Arab najdi arabic
nij ngaju
fuv_Latn nigerian fulfulde
pcm_Latn nigerian pidgin
pcm_Latn nigerian pidgin english
azj_Latn north azerbaijani
apc_Arab north levantine arabic
kmr_Latn northern kurdish
uzn_Latn northern uzbek
nob_Latn norwegian bokmål
nno_Latn norwegian nynorsk
nus_Latn nuer
nya nyanja
oci_Latn occitan
ory odia
gaz_Latn oromo
pag_Latn pangasinan
pan panjabi
pap_Latn papiamento
plt_Latn plateau malagasy
que_Latn quechua
run_Latn rundi
sag_Latn sango
san_Deva sanskrit
sat_Olck santali
srd_Latn sardinian
srp_Latn serbian (latin script)
hbs_Latn serbo-croatian
shn_Mymr shan
scn_Latn sicilian
szl_Latn silesian
zho_Hans simplified chinese
sin sinhalese
slv slovene
azb_Arab south azerbaijani
ajp_Arab south levantine arabic
pbt_Arab southern pashto
dik_Latn southwestern dinka
ara standard arabic
lvs_Latn standard latvian
msa standard malay
bod_Tibt standard tibetan
ssw_Latn swati
acq_Arab ta'izzi-adeni arabic
acq_Arab taizzi adeni arabic
taq_Latn tamasheq
taq_Latn tamasheq (latin script)
taq_Tfng tamasheq (tifinagh script)
tat_Cyrl tatar
tir_Ethi tigrinya
bbc toba batak
tpi_Latn tok pisin
als_Latn tosk albanian
zho_Hant traditional chinese
tso_Latn tsonga
tsn_Latn tswana
tum_Latn tumbuka
aeb_Arab tunisian arabic
tuk_Latn turkmen
uig_Arab uighur
umb_Latn umbundu
uig_Arab uyghur
vec_Latn venetian
vol_Latn volapük
war_Latn waray
gaz_Latn west central oromo
pes_Arab western persian
wol wolof
yue_Hant yue chinese
"""

NAMES: dict[str, str] = {
  name: code for code, _, name in (line.partition(' ') for line in _NAMES.strip().splitlines())
}
"""Lower-case name -> a code that `language_codes` knows otherwise."""

OF_CODES: dict[str, str] = {
  'ber': 'Berber',
  'cbk': 'Chavacano',
  'cjk': 'Chokwe',
  'fkv': 'Kven',
  'fuv': 'Nigerian Fulfulde',
  'gcf': 'Guadeloupean Creole',
  'gos': 'Gronings',
  'gpe': 'Ghanaian Pidgin',
  'hbs': 'Serbo-Croatian',
  'hne': 'Chhattisgarhi',
  'hoc': 'Ho',
  'hrx': 'Hunsrik',
  'kau': 'Kanuri',
  'kbp': 'Kabiyè',
  'kdr': 'Karaim',
  'kzj': 'Coastal Kadazan',
  'nij': 'Ngaju',
  'nst': 'Tase Naga',
  'orv': 'Old Russian',
  'quy': 'Ayacucho Quechua',
  'rsb': 'Romano-Serbian',
  'swg': 'Swabian',
  'taq': 'Tamasheq',
  'toki': 'Toki Pona',
  'tzl': 'Talossan',
  'zxx': 'Program code',
}
"""Code -> English name, where CLDR has none (or another for what is in no language)."""
