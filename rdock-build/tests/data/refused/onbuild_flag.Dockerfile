FROM scratch
ONBUILD RUN --mont=type=cache x
