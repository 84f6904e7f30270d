FROM scratch
USER "a
