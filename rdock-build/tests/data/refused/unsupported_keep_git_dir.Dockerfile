FROM scratch
ADD --keep-git-dir a /x
