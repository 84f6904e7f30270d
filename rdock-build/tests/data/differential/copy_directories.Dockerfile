FROM scratch
COPY dir /plain
COPY dir/ /slash/
COPY dir other /merged/
COPY empty sticky /modes/
COPY dir/sub/. /dot
