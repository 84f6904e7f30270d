FROM scratch
MAINTAINER me
ENV a b
LABEL c d
