"""Cells that say that there is no value, in the way of some program, and those that perhaps say so."""

from __future__ import annotations

from .written import bare, shown

_MISSING = r"""
    na n/a n.a. n.a #n/a #na <na> pd.na nan -nan nan. null <null> (null) [null] #null! none nil \n
    #ref! #value! #div/0! #name? #num! 1.#qnan -1.#qnan 1.#ind -1.#ind
    #spill! #calc! #field! #blocked! #connect! #unknown! #busy! #external! #timeout! #python! #error! #getting_data
    #nv #bezug! #wert! #zahl! #überlauf! #kalk!
    #n/d #valeur! #nom? #nombre! #nul! #valore! #rif! #nome? #nullo! #valor! #núm! #nulo!
    #¡ref! #¡valor! #¿nombre? #¡num! #¡nulo! #¡div/0!
"""  # of sheets in English, German, French, Italian, Portuguese and Spanish, and of Google's
_PERHAPS_MISSING = """
    - -- --- – — . .. ... ? ?? ??? * / nat unknown undefined missing blank empty tbd todo k.a. n.d.
    -99 -999 -9999
"""
MISSING = frozenset(["", "loading...", "#n/a n/a", *_MISSING.split()])
PERHAPS_MISSING = frozenset(["object object", *_PERHAPS_MISSING.split()])


def is_missing(cell: str) -> bool:
    """Whether a cell says that there is no value: it is empty, or says so in the way of some program (NA, null)."""
    said = bare(shown(cell)).casefold()
    # A sheet's column too narrow for its number, and LibreOffice's errors, which have a number.
    return said in MISSING or (len(said) > 2 and not said.strip("#")) or (said[:4] == "err:" and said[4:].isdecimal())


def is_perhaps_missing(cell: str) -> bool:
    """Whether a cell is written as people write that there is no value, though it may be one."""
    return bare(cell).casefold().strip("()[]<>") in PERHAPS_MISSING
