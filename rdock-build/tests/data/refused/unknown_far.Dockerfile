FROM scratch
HELLO a
