"""Code blocks of the documentation's Markdown files."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# An HTML comment on the line before a block states why the tutorial test does not run it.
_BLOCK = re.compile(
    r"^(?:[ ]*<!-- (?P<note>[^\n]+?) -->\n)?(?P<indent>[ ]*)```(?P<language>\w+)\n"
    r"(?P<body>.*?)^[ ]*```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A fenced code block: its page, line number, language, body and the comment before it."""

    page: str
    line: int
    language: str
    body: str
    note: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: str) -> list[Block]:
    """Return the code blocks of a page, in order. `page` is a path below the repository's root."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(
            page=page,
            line=text.count("\n", 0, match.start("language")) + 1,
            language=match["language"],
            body=re.sub(rf"^{match['indent']}", "", match["body"], flags=re.MULTILINE),
            note=match["note"],
        )
        for match in _BLOCK.finditer(text)
    ]
