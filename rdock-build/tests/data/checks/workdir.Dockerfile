FROM scratch AS a
WORKDIR sub
WORKDIR other
FROM scratch
WORKDIR /abs
WORKDIR sub
