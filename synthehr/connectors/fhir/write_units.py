"""Whether the text of a unit is UCUM, so that it may be written as a code of that system."""

from __future__ import annotations

import re
from functools import cache

__all__ = ["is_ucum"]

_PREFIXES = ("da", "Ki", "Mi", "Gi", "Ti", *"YZEPTGMkhdcmunpfazy", "")
_METRIC_ATOMS = """
m s g rad K C cd mol sr Hz N Pa J W A V F Ohm S Wb Cel T H lm lx Bq Gy Sv L l ar t bar u eV pc kat eq osm U
[iU] [IU] B Np dyn erg G m[Hg] cal mho st R RAD REM P St
"""
_OTHER_ATOMS = """
% [ppth] [ppm] [ppb] [pptr] 10* 10^ [pi] gon deg ' '' min h d a a_j mo mo_j wk AU [lb_av] [oz_av] [gr] [stone_av]
[in_i] [ft_i] [yd_i] [mi_i] [fth_i] [degF] [degR] [pt_us] [qt_us] [gal_us] [foz_us] [cup_us] [tbs_us] [tsp_us]
[drp] [pH] [CFU] [PFU] [arb'U] [USP'U] [GPL'U] [MPL'U] [APL'U] [beth'U] [anti'Xa'U] [ka'U] [knk'U] [Amb'a'1'U]
[IR] [BAU] [AU] [FEU] [EID_50] [TCID_50] [CCID_50] [HPF] [LPF] [diop] [p'diop] [mesh_i] [Ch] [psi] [car_m]
[in_i'H2O] [in_i'Hg] [Btu] [HP] [cal_th] [lk_us] [S] [MET] [bdsk'U] [dye'U] [todd'U] [D'ag'U] [FFU]
[kn_i] [sft_i] [sin_i]
"""
_METRIC = frozenset(_METRIC_ATOMS.split())
_OTHERS = frozenset(_OTHER_ATOMS.split())
_FACTOR = re.compile(
    r"(?P<atom>10\*|10\^|(?:[A-Za-z%'_*]|\[[^\[\]{}\s]+\])+)(?P<power>[+-]?\d+)?(?P<note>\{[^{}]*\})?$"
)


@cache
def is_ucum(text: str) -> bool:
    """Whether this is a unit of UCUM (case-sensitive), by a list of its atoms that medicine uses.

    A unit outside the list is written as words, never as a code.
    """
    if not text.isascii() or any(sign.isspace() for sign in text):
        return False
    body = text[1:] if text.startswith("/") else text
    factors = re.split(r"[./](?![^{]*\})", body.replace("(", "").replace(")", ""))
    return text.count("(") == text.count(")") and all(_is_factor(factor) for factor in factors)


def _is_factor(text: str) -> bool:
    if re.fullmatch(r"\d+|\{[^{}]+\}|\d*\{[^{}]+\}", text):
        return True
    found = _FACTOR.match(text)
    if found is None:
        return False
    atom = found["atom"]
    if atom in _OTHERS or atom in _METRIC:
        return True
    return any(prefix and atom.startswith(prefix) and atom[len(prefix) :] in _METRIC for prefix in _PREFIXES)
