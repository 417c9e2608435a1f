"""Choose the characters that are classes, their splits, and those that look alike.

Writes ``glyphs.json`` and ``glyph_twins.json``.

Run it with ``python -m tools.glyph_classes`` (about a minute, on one
core) after any change to the rules or to the typefaces. The rules, in order:

1. *Candidates* are the letters of a script (Unicode categories Lu, Ll, Lo: no combining marks, no
   modifiers) that are their own NFKC form (no ligatures, width or font variants) and that at least
   ``MIN_FACES`` faces draw.
2. *Look-alikes* within a script are merged: only the first of them is a class. Pictures decide,
   see :func:`distances`. Two characters that are the same letter (:func:`letter`: upper and lower
   case, comma and cedilla) are merged at a looser threshold than any other two, because a reader
   tells those apart by size alone.
3. Latin letters that can pass for a *digit*, printed or handwritten, are dropped: handwritten
   digits are a test domain.
4. Letters of other scripts that look like any Latin candidate, class or not, are dropped.
5. Latin *families* (:func:`family`: all letters and marks on one base letter, so a, A, å, ă, ...)
   go to one split as a whole. The largest family is dealt first, and each to the split that is
   furthest below its share.
6. What then still looks like a class of another split is dropped: from test if the other is train
   or validation, from validation if the other is train.

Rules 4 and 6 keep training and test apart and so use looser thresholds. The lists of rejected
characters in ``glyphs.json`` are for the reader; a group that was merged and then dropped as a
whole is in both of them.

*Twins* are classes of two domains other than Latin, the digits among them, that look alike by rule
4's measure or to a reader. All of them are classes; they are left out of training on one domain for
tests on another.
"""

import json
import re
import unicodedata
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from omnitraining import datasets
from omnitraining.datasets.glyphs import classes as classes_of
from omnitraining.datasets.glyphs import draw, faces_with

SCRIPTS = ("latin", "greek", "cyrillic", "georgian", "armenian")
SHARES = {"train": 0.64, "validation": 0.13, "test": 0.23}
MIN_FACES = 8
ALIKE = 0.25  # distance below which any two characters look the same
KIN_ALIKE = 0.31  # the same for versions of one letter, and between splits
FOREIGN_ALIKE = 0.37  # the same between Latin and another script
DIGITS = "0123456789"
HANDWRITTEN = "BDGIJOQSTZbgijloqszƖƧƷƻȜɜᴈ"  # letters that pass for a digit in handwriting
ALIASES = {"SCHWA": "E", "ETH": "D", "HENG": "H"}  # families with the same drawing: ə ǝ, Ð Đ, ꜧ ḩ
HOMOGLYPHS = "νχқ"  # letters of other scripts that pass for Latin v, x, ⱪ beyond the threshold
TWINS = ("ΨᴪѰѱ", "ФՓႴ", "ͼϾє", "2ԶՁ", "3ვჳՅ", "8ცՑ")  # the same between other domains


def candidates(script: str) -> list[str]:
    """Letters of a script that enough faces draw, in order of code points."""
    letters = [
        character
        for character in map(chr, range(0x10000))
        if unicodedata.name(character, "").startswith(script.upper() + " ")
        and unicodedata.category(character) in ("Lu", "Ll", "Lo")
        and unicodedata.normalize("NFKC", character) == character
    ]
    return [character for character in letters if len(faces_with(character)) >= MIN_FACES]


def letter(character: str) -> str:
    """Base letter and marks, the same for all cases, and for marks of the same shape."""
    name = unicodedata.name(character.lower()[0])
    small_capital = re.fullmatch(r"LATIN LETTER SMALL CAPITAL (\w)", name)
    text = small_capital[1] if small_capital else unicodedata.normalize("NFD", character)
    comma, cedilla, breve, caron = "\u0326", "\u0327", "\u0306", "\u030c"
    return text.casefold().replace(comma, cedilla).replace(breve, caron)


def family(character: str) -> str:
    """Name of the base letter: the last word of the lower case's name without its marks.

    So ``LATIN SMALL LETTER TURNED R WITH FISHHOOK`` is of the family ``R``, and so is Ʀ, which
    Unicode calls YR but whose lower case it calls a small capital R.
    """
    name = re.sub(r" WITH .*", "", unicodedata.name(character.lower()[0])).split()[-1]
    return ALIASES.get(name, name)


def picture(character: str, face: str) -> np.ndarray:
    """A drawing scaled to one size, which leaves its proportions, on a sheet [24, 24]."""
    drawing = draw(character, face)
    if drawing is None:
        raise ValueError(f"{face} draws nothing for {character!r}")
    scale = 20 / max(drawing.size)
    width, height = (max(1, round(side * scale)) for side in drawing.size)
    resampling = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    sheet = Image.new("L", (24, 24))
    place = ((24 - width) // 2, (24 - height) // 2)
    sheet.paste(drawing.resize((width, height), resampling), place)
    return np.asarray(sheet, np.float32) / 255


def distances(characters: list[str]) -> Tensor:
    """How different characters look, [n, n]: 0 is the same picture, 1 is ink against paper.

    Two pictures differ by the largest difference of any spot, after a blur that tolerates small
    shifts of an outline: a mark that only one of them has counts in full, however small it is
    beside the letter. Two characters are as different as the closest quarter of the faces of
    either one, each compared with all faces of the other, because a class whose italic is the
    image of another class is ambiguous even if its upright is not.
    """
    drawings = [
        np.stack([picture(character, face) for face in faces_with(character)])
        for character in characters
    ]
    owner = torch.arange(len(characters)).repeat_interleave(torch.tensor([*map(len, drawings)]))
    line = torch.arange(-3, 4) / 1.2
    kernel = (-0.5 * line**2).exp()
    kernel = torch.outer(kernel, kernel) / kernel.sum() ** 2
    pictures = torch.from_numpy(np.concatenate(drawings))[:, None]
    # Every second pixel is enough after the blur.
    spots = torch.nn.functional.conv2d(pictures, kernel[None, None], padding=3)[:, :, ::2, ::2]
    spots = spots.flatten(1).contiguous()

    closest = torch.empty(len(characters), len(characters))
    for index, own in enumerate(torch.split(spots, [*map(len, drawings)])):
        difference = torch.cdist(own, spots, p=float("inf"))
        nearest = torch.full((len(own), len(characters)), torch.inf)
        nearest.scatter_reduce_(1, owner.expand_as(difference), difference, "amin")
        closest[index] = nearest.sort(0).values[(len(own) - 1) // 4]
    return torch.minimum(closest, closest.T)


def choose() -> dict[str, dict[str, dict[str, str]]]:
    """Classes by script and split, and what was merged or dropped, by script and reason."""
    letters = {script: candidates(script) for script in SCRIPTS}
    everyone = [character for script in SCRIPTS for character in letters[script]] + [*DIGITS]
    index = {character: place for place, character in enumerate(everyone)}
    table = distances(everyone).tolist()

    def near(one: str, others: list[str], limit: float = KIN_ALIKE) -> bool:
        return any(table[index[one]][index[other]] < limit for other in others)

    classes: dict[str, dict[str, str]] = {}
    merged: dict[str, dict[str, str]] = {}
    dropped: dict[str, dict[str, str]] = {}
    for script in SCRIPTS:
        alike: dict[str, str] = {}
        digits, latin = [], []
        for character in letters[script]:
            if script != "latin" and (
                character in HOMOGLYPHS or near(character, letters["latin"], FOREIGN_ALIKE)
            ):
                latin.append(character)
                continue
            if script == "latin" and (character in HANDWRITTEN or near(character, [*DIGITS])):
                digits.append(character)
            for kept in alike:
                kin = letter(character) == letter(kept)
                if near(character, [kept], KIN_ALIKE if kin else ALIKE):
                    alike[kept] += character
                    break
            else:
                alike[character] = character
        merged[script] = {"into the first": " ".join(a for a in alike.values() if len(a) > 1)}
        kept_classes = [kept for kept, group in alike.items() if not {*group} & {*digits}]
        if script == "latin":
            splits = deal(kept_classes)
            straddling = [
                *(c for c in splits["validation"] if near(c, splits["train"])),
                *(c for c in splits["test"] if near(c, splits["train"] + splits["validation"])),
            ]
            classes[script] = {
                split: "".join(c for c in members if c not in straddling)
                for split, members in splits.items()
            }
            like_digits = "".join(g for g in alike.values() if {*g} & {*digits})
            dropped[script] = {
                "looks like a digit": like_digits,
                "looks like another split": "".join(straddling),
            }
        else:
            classes[script] = {"test": "".join(kept_classes)}
            dropped[script] = {"looks Latin": "".join(latin)}
    return {"classes": classes, "merged": merged, "dropped": dropped}


def deal(characters: list[str]) -> dict[str, list[str]]:
    """Split characters by whole families, as close to ``SHARES`` as their sizes allow."""
    families: dict[str, list[str]] = {}
    for character in characters:
        families.setdefault(family(character), []).append(character)
    splits: dict[str, list[str]] = {split: [] for split in SHARES}
    for members in sorted(families.values(), key=len, reverse=True):
        neediest = min(SHARES, key=lambda split: len(splits[split]) / SHARES[split])
        splits[neediest] += members
    return {split: sorted(members) for split, members in splits.items()}


def twins() -> list[str]:
    """Pairs of classes of different domains, without Latin, that look alike."""
    domains = [*(classes_of(script, "test") for script in SCRIPTS if script != "latin"), DIGITS]
    home = {character: domain for domain in domains for character in domain}
    table = distances([*home])
    return [
        one + other
        for (i, one), (j, other) in combinations(enumerate(home), 2)
        if home[one] != home[other]
        and (table[i, j] < FOREIGN_ALIKE or any({one, other} <= {*group} for group in TWINS))
    ]


def _write(name: str, content: dict[str, Any]) -> None:
    text = json.dumps(content, ensure_ascii=False, indent=2)
    Path(datasets.__file__).with_name(name).write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    _write("glyphs.json", choose())
    _write("glyph_twins.json", {"twins": twins()})
