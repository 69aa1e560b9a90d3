"""What common markers stain, told from the names of channels."""

from __future__ import annotations

import re

from napari_nucleus_kd.channels import nuclear_channels
from napari_nucleus_kd.panel._panel import Role


def _words(*patterns: str) -> re.Pattern[str]:
    """Match any of the patterns as whole words; "_" parts words."""
    return re.compile(rf"(?<![a-z0-9])(?:{'|'.join(patterns)})(?![a-z0-9])", re.IGNORECASE)


_EMPTY = _words(
    r"blank\d*", "empty", "unused", "none", r"auto-?fl[a-z]*", r"af\d?", "background", "bckg", "isotype"
)  # but AF488 is a dye
_PARTIAL = _words(
    r"m?ki-?67", "foxp3", "pcna", r"(?:t|tr)?p-?53", r"er(?:[- ]?(?:a|alpha|α))?", "esr1", "pr", "pgr", "ar",
    r"gata-?\d", r"sox-?\d+", r"ttf-?1", r"nkx2[.-]?1", r"p?-?h2ax", "γh2ax", "gh2ax", r"phh3", r"pax-?\d",
    r"phospho[- ]histone[- ]?h3", "t-?bet", r"tcf-?\d", "tox", "edu", "brdu", "neun", r"cyclin[- ]?\w+",
    "myc", "irf4", "eomes", r"runx\d?", "olig2", r"cdx-?2", r"p-?63", "p16", "p21", "mcm2", "bcl-?6", "ezh2",
)  # fmt: skip
_RIM = _words(r"lamin(?: ?-?[abc]\d?(?:/c)?)?", r"lmn[ab]\d?", "nup98", "emerin")
_CYTOPLASM = _words(
    "vimentin", "vim", r"(?:pan-?)?(?:cyto)?-?keratin[ -]?\d*", r"(?:pan-?)?ck(?:[ -]?\d+)?", r"krt-?\d+",
    "pan-?cytok?", r"(?:a|α|alpha)?-?sma", "acta2", r"[a-z]*-?actin", "desmin", "gfap", "s100b?", "cd68",
    r"granzyme[ -]?[abk]?", r"gzm[abk]", "gzb", r"[a-z]*-?tubulin", "mpo", "tryptase", "lysozyme", "ido-?1?",
    "arg(?:inase)?-?1", "perforin", "tomm?20", r"cox ?-?iv", "phalloidin", "map2", "synaptophysin",
    "chromogranin[ -]?a?", "cytoplasm(?:ic)?", "eosin", "melan-?a", "insulin", "glucagon",
)  # fmt: skip
_MEMBRANE = _words(
    r"cd\d+[a-z]*", r"[en]-?cad(?:herin)?", r"cdh\d", r"na[+/ -]*k[+ -]*atp-?ase", "atp1a1", "pmca",
    r"(?:pan[- ]?)?(?:cell[- ]?)?membrane[ -]?\d*", r"(?:b|β|beta)-?[ ]?catenin", "ctnnb1", "wga",
    r"hla(?:[- ]?[a-z]{1,3})*", r"mhc[- ]?(?:i|ii|1|2)?", "epcam", "egfr", "her-?2", "erbb2", "pd-?l?-?[12]",
    "pdcd1", r"lag-?3", r"tim-?3", "icos", "ctla-?4", "podoplanin", "b7-?h3", "vista", "pecam-?1?",
    r"muc-?\d+", r"claudin-?\d*", "cellmask", "con-?a", r"igd|igm",
)  # fmt: skip
_KNOWN = (
    (Role.IGNORE, "named as empty or autofluorescence", _EMPTY),
    (Role.OTHER, "a nuclear marker that only some nuclei have", _PARTIAL),
    (Role.OTHER, "a marker of the rim of nuclei", _RIM),
    (Role.CYTOPLASM, "named like a marker of the cytoplasm", _CYTOPLASM),
    (Role.MEMBRANE, "named like a membrane marker", _MEMBRANE),
)
_DEFAULT_NAME = re.compile(
    r"(?:channel|chan|ch|c|image|img|plane|slice|section|frame|band|unnamed|untitled|z|t|layer)?"
    r"[ _:#.-]*\d+(?:[ _:.-]\d+)*",
    re.IGNORECASE,
)


def is_default_name(name: str) -> bool:
    """Tell whether a name says nothing but a number.

    >>> is_default_name("Channel:0:3"), is_default_name("channel 12"), is_default_name("CD3")
    (True, True, False)
    """
    return _DEFAULT_NAME.fullmatch(name.strip()) is not None


def roles_by_name(names: tuple[str, ...]) -> list[tuple[Role, str] | None]:
    """Return role and reason of every channel whose name says something; None of the others.

    >>> roles_by_name(("DAPI", "Ki67", "AF488"))[:2]
    [(<Role.NUCLEAR: 'nuclear'>, 'named like a nuclear stain'), (<Role.OTHER: 'other'>, 'a nuclear marker \
that only some nuclei have')]
    """
    told = [_known(name) for name in names]
    # A phospho-histone must not stand in the way of the histone.
    free = [name if known is None else "" for name, known in zip(names, told, strict=True)]
    for index in nuclear_channels(free):
        told[index] = (Role.NUCLEAR, "named like a nuclear stain")
    for index, name in enumerate(free):
        if name and told[index] is None and nuclear_channels([name]):
            told[index] = (Role.OTHER, "a nuclear stain that is there already; later rounds may be shifted")
    return told


def _known(name: str) -> tuple[Role, str] | None:
    spaced = name.replace("_", " ")
    return next(((role, why) for role, why, pattern in _KNOWN if pattern.search(spaced)), None)
