#!/usr/bin/env python3
"""site.py: prepares the pages for mdBook and checks the links of the site. `make docs` calls it.

site.py pages DIR   copies the pages that docs/SUMMARY.md names, the decisions, and the pictures of
                    all these pages to DIR/src, where mdBook reads them. The copies keep their
                    relative paths, so that links between pages still work
site.py links DIR   checks that each link within the site in DIR leads to a file, and to a heading
                    if it names one
"""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
# docs/SUMMARY.md is not a chapter of the site, because it is the list of chapters.
NO_CHAPTER = {"docs/SUMMARY.md"}


def pages(work):
    summary = (ROOT / "docs/SUMMARY.md").read_text(encoding="utf-8").rstrip("\n") + "\n"
    for decision in sorted((ROOT / "docs/decisions").glob("[0-9]*.md")):
        title = decision.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        summary += f"  - [{decision.name[:3]} {title}](decisions/{decision.name})\n"
    links = re.findall(r"\]\(([^)]+)\)", summary)
    chapters = {os.path.normpath(f"docs/{link}") for link in links}
    listed = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    if missing := set(listed.stdout.split()) - chapters - NO_CHAPTER:
        sys.exit("not in docs/SUMMARY.md: " + ", ".join(sorted(missing)))
    shutil.rmtree(work, ignore_errors=True)
    for name in chapters:
        (work / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        # Replaces a link to a file that is not on the site with the text of the link.
        text = (ROOT / name).read_text(encoding="utf-8")
        linked = re.sub(
            r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)",
            lambda link, name=name: kept(link, name, chapters),
            text,
        )
        (work / "src" / name).write_text(linked, encoding="utf-8")
        for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
            path = (ROOT / name).parent / picture
            target = work / "src" / os.path.relpath(path, ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    summary = re.sub(
        r"\]\(([^)]+)\)", lambda link: f"]({os.path.normpath('docs/' + link[1])})", summary
    )
    (work / "src/SUMMARY.md").write_text(summary, encoding="utf-8")
    shutil.copy(ROOT / "docs/book.toml", work / "book.toml")


def kept(link, name, chapters):
    path = urlsplit(link[2]).path
    if (
        "://" in link[2]
        or not path
        or os.path.normpath(os.path.join(os.path.dirname(name), path)) in chapters
    ):
        return link[0].replace("README.md", "index.md")  # mdBook renames README.md
    return link[1]


class Page(HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.add(attributes.get("id"))
        self.links += [attributes[name] for name in ("href", "src") if attributes.get(name)]


def links(site):
    found = {
        path: Page(path)
        for path in sorted(site.rglob("*.html"))
        if path.name not in ("404.html", "toc.html")
    }
    broken = []
    for path, page in found.items():
        for link in page.links:
            url = urlsplit(link)
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            target = target / "index.html" if target.is_dir() else target
            if url.scheme or url.netloc:
                continue
            if not target.exists() or (
                url.fragment and target in found and unquote(url.fragment) not in found[target].ids
            ):
                broken.append(f"{path.relative_to(site)}: {link}")
    if broken:
        sys.exit("these links lead nowhere:\n" + "\n".join(broken))


if __name__ == "__main__":
    {"pages": pages, "links": links}[sys.argv[1]](Path(sys.argv[2]).resolve())
