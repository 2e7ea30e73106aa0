"""assets/imagenet/classes.txt: the WordNet ids of ImageNet-1k in their order, each with a name.

    python3 tools/import/imagenet_classes.py IDS.txt data.noun > assets/imagenet/classes.txt

IDS.txt lists the 1000 ids (timm carries it as data/_info/imagenet_synsets.txt); data.noun is WordNet 3.0's, in Debian's package
wordnet-base under share/wordnet. A class is named by the first word of its synset, by the first two where that name occurs twice.
"""

import sys
from collections import Counter


def synsets(path):
    """Words by byte offset, which is what a WordNet id is."""
    words = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            if line.startswith(" "):
                continue
            fields = line.split(" ")
            count = int(fields[3], 16)
            words["n" + fields[0]] = [word.replace("_", " ") for word in fields[4 : 4 + 2 * count : 2]]
    return words


def main():
    ids = open(sys.argv[1], encoding="utf-8").read().split()
    words = synsets(sys.argv[2])
    if len(ids) != 1000 or ids != sorted(ids):
        sys.exit(f"{sys.argv[1]}: expected 1000 sorted ids, found {len(ids)}")
    twice = Counter(words[i][0] for i in ids)
    for i in ids:
        names = words[i][: 2 if twice[words[i][0]] > 1 else 1]
        print(i, ", ".join(names))


if __name__ == "__main__":
    main()
