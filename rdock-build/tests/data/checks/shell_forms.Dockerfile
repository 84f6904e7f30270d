FROM scratch AS a
CMD x
ENTRYPOINT x
SHELL ["/bin/sh", "-c"]
CMD y
FROM a
CMD z
