FROM scratch
ONBUILD RUN --network=none x \
  y
ONBUILD   COPY --from=stage a b
ONBUILD ENV a=b
